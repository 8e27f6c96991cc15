"""The post is an excerpt of the report: plain Markdown whose files are beside it."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from realign_utils.blog import write_post
from realign_utils.errors import UserError
from realign_utils.report import figure, table

PROSE = r"""## Methods

We use CKA [@kornblith2019] of $X$; see [@fig:one], [@fig:two; @tbl:ratios] and [@sec:methods],
[@sec:far-away].

$$\text{CKA}(X, Y) = \lVert Y^\top X \rVert_F^2$$
"""
HEAD = {"authors": ["A. Author"], "tags": ["CKA"], "description": "Two: of three, hold."}


def shown(source: str, output: object, *tags: str) -> nbformat.NotebookNode:
    data = output if isinstance(output, dict) else output._repr_mimebundle_()
    outputs = [new_output("display_data", data=data)]
    return new_code_cell(source, execution_count=1, outputs=outputs, metadata={"tags": list(tags)})


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        Figure(figsize=(1, 1)).savefig(tmp_path / f"{name}.png")
    ratios = table(pd.DataFrame({"a_b": [0.5]}), "Ratios.", "tbl:ratios", file="r.csv")
    cells = [
        new_markdown_cell("# A study of $k$"),
        new_markdown_cell(PROSE, metadata={"tags": ["blog"]}),
        shown("one", figure("one", "Caption $x$.", "fig:one", number=4), "blog"),
        shown("two", figure("two", "c", "fig:two")),
        shown("ratios", ratios, "blog"),
        shown("secret = 1", {"text/markdown": "Mean **0.5**."}, "blog"),
        shown("left out", {"text/markdown": "Not in the post."}),
        shown("head", {"application/json": HEAD}, "remove", "front-matter"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "7_report.ipynb")
    return tmp_path / "7_report.ipynb"


def post_of(notebook: Path, **options: str) -> str:
    return write_post(notebook, notebook.parent / "blog", date="2026-10-01", **options).read_text()


def test_the_front_matter_is_the_notebook_s(notebook: Path) -> None:
    _, head, _ = post_of(notebook).split("---\n", 2)
    read = yaml.safe_load(head)
    assert (read["title"], read["date"], read["layout"]) == (
        "A study of $k$",
        "2026-10-01",
        "distill",
    )
    assert (read["authors"], read["tags"]) == ([{"name": "A. Author"}], ["CKA"])
    assert read["description"] == HEAD["description"]
    assert read["toc"] == [{"name": "Methods"}, {"name": "References"}]


def test_only_tagged_cells_are_in_it_and_no_code(notebook: Path) -> None:
    post = post_of(notebook)
    assert "Mean **0.5**." in post
    assert "Not in the post" not in post
    assert "secret" not in post


def test_no_syntax_of_the_report_is_left(notebook: Path) -> None:
    body = post_of(notebook).split("---\n", 2)[2]
    assert not re.search(r"\[@|@fig|@tbl|@sec|:::|\{[#.]|<div|<span|<figure", body)
    assert "# A study" not in body


def test_references_are_names_and_what_is_left_out_is_the_report_s(notebook: Path) -> None:
    post = post_of(notebook)
    assert "see Figure 4, Figure 5 of the report, Table 1 and the section “Methods”" in post
    assert "the report’s section “far away”" in post
    assert "(Kornblith et al. 2019)" in post
    assert (
        "Similarity of Neural Network Representations Revisited" in post.split("## References")[1]
    )


def test_tables_and_formulas_are_markdown(notebook: Path) -> None:
    post = post_of(notebook)
    assert re.search(r"^\| *a\\?_b *\|$", post, re.MULTILINE)
    assert "$X$" in post
    assert "$$\\text{CKA}(X, Y) =" in post


def test_every_link_leads_to_a_file_beside_it_and_old_pictures_go(notebook: Path) -> None:
    folder = notebook.parent / "blog"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "old.png").write_bytes(b"old")
    targets = re.findall(r"\]\(([^)]+)\)", post_of(notebook))
    assert targets == ["figures/one.png"]
    assert (folder / targets[0]).is_file()
    assert [path.name for path in (folder / "figures").iterdir()] == ["one.png"]


def test_with_a_repository_captions_link_to_the_notebook_at_the_commit(notebook: Path) -> None:
    post = post_of(notebook, commit="0123456789abcdef", source_url="https://git.example/r")
    url = "https://git.example/r/blob/0123456789abcdef/notebooks/7_report.ipynb"
    assert f"*[Source: 7_report · code cell 3 · r.csv]({url})*" in post


def test_equal_reports_give_equal_posts(notebook: Path) -> None:
    assert post_of(notebook) == post_of(notebook)


@pytest.mark.parametrize(
    ("tag", "told"), [("blog", "no cell is tagged blog"), ("front-matter", "front matter")]
)
def test_a_report_without_its_tags_is_one_line(notebook: Path, tag: str, told: str) -> None:
    read = nbformat.read(notebook, as_version=4)
    for cell in read.cells:
        cell.metadata["tags"] = [t for t in cell.metadata.get("tags", []) if t != tag]
    nbformat.write(read, notebook)
    with pytest.raises(UserError, match=told) as raised:
        post_of(notebook)
    assert "\n" not in str(raised.value)
