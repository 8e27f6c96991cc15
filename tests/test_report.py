"""One executed notebook, two forms: what both show, what neither may load, what stops the user."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import typst
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from realign_utils import executed, report
from realign_utils.errors import UserError
from realign_utils.report import Exhibit, figure, render, table

PROSE = r"""## Methods
### Objective
We use linear CKA [@kornblith2019], see [@fig:heatmap; @tbl:ratios] and [@sec:objective]:

$$\text{CKA}(X, Y) = \frac{\|Y^\top X\|_F^2}{\|X^\top X\|_F \cdot \|Y^\top Y\|_F}, \quad |\mathcal{M}| = k$$
"""
RATIOS = pd.DataFrame(
    {"model": ["<script>$x$ | [@fig:no] `a`"], "ratio": [-0.90667], "none": [np.nan]}
)


def code(source: str, *outputs: Any, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    """An executed code cell; an exhibit or a dictionary of media types is displayed."""
    shown = []
    for output in outputs:
        if isinstance(output, Exhibit):
            output = output._repr_mimebundle_()
        if not isinstance(output, nbformat.NotebookNode):
            output = new_output("display_data", data=output)
        shown.append(output)
    return new_code_cell(source, execution_count=1, outputs=shown, metadata={"tags": list(tags)})


def stream(name: str, text: str) -> nbformat.NotebookNode:
    return new_output("stream", name=name, text=text)


def write(folder: Path, *cells: Any, title: str = "# A *study* of $\\rho$") -> Path:
    """A notebook with a title; text stands for a Markdown cell."""
    cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in (title, *cells)]
    path = folder / "7_report.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def rendered(folder: Path, *cells: Any, **options: Any) -> tuple[str, str]:
    """The HTML, and the Typst source that the PDF was set from."""
    sources = []
    with pytest.MonkeyPatch.context() as patch:
        typeset = report._typeset
        patch.setattr(report, "_typeset", lambda *a: sources.append(a[0]) or typeset(*a))
        page, document = folder / "out" / "report.html", folder / "out" / "report.pdf"
        render(write(folder, *cells), html=page, pdf=document, root=folder, **options)
    return page.read_text(), sources[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one figure in three formats."""
    folder = tmp_path_factory.mktemp("project")
    drawing = Figure(figsize=(2, 1))
    drawing.subplots().plot([0, 1])
    for suffix in ("svg", "png", "pdf"):
        drawing.savefig(folder / f"heatmap.{suffix}")
    return folder


@pytest.fixture(scope="module")
def cells(folder: Path) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        heatmap = figure("heatmap", "The norm $\\|A\\|$.", "fig:heatmap", number=2, width="50%")
    ratios = table(RATIOS, "Ratios $r$.", "tbl:ratios", source="notebooks/4_calibrate.ipynb")
    return [
        "## Abstract\n\nIn short.",
        PROSE,
        code("folded = 1", stream("stderr", "UserWarning: loud")),
        code("unfolded = 2", stream("stdout", "\x1b[31mprinted\x1b[0m"), tags=("show-code",)),
        code("removed = 3", stream("stdout", "gone"), tags=("remove",)),
        code("heatmap", heatmap),
        code("ratios", ratios),
        code("prose", {"text/markdown": "    The mean is **0.761**.", "text/plain": "object"}),
        code("bar", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%|  |"}),
        code("frame", {"text/html": RATIOS.to_html(), "text/plain": "frame"}),
    ]


@pytest.fixture(scope="module")
def forms(folder: Path, cells: list[Any]) -> tuple[str, str]:
    """The HTML and the Typst source of one report with everything in it."""
    return rendered(
        folder,
        *cells,
        commit="0123456789abcdef",
        date="2026-10-01",
        source_url="https://git.example/r",
    )


@pytest.fixture(scope="module")
def page(forms: tuple[str, str]) -> str:
    return forms[0]


@pytest.fixture(scope="module")
def source(forms: tuple[str, str]) -> str:
    return forms[1]


class Loaded(HTMLParser):
    """Collects what a browser would load, and the text outside code and formulas' sources."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls = re.findall(r"url\(['\"]?(.{0,30})", page)
        self.text, self.silent = "", 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.silent += tag in {"style", "code", "annotation", "table"}
        self.urls += [named[key] or "" for key in ("src", "srcset", "data") if key in named]
        self.urls += [named["href"] or ""] if tag in {"link", "base", "use"} else []

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in {"style", "code", "annotation", "table"}

    def handle_data(self, data: str) -> None:
        self.text += "" if self.silent else data


def test_html_loads_nothing(page: str) -> None:
    urls = Loaded(page).urls
    assert urls
    assert all(url.startswith("data:") for url in urls)
    assert "<script" not in page


def test_html_has_mathml_and_neither_dollars_nor_pilcrows(page: str) -> None:
    text = Loaded(page).text
    assert page.count("<math") == 4  # in the title, the prose and both captions
    assert "$" not in text
    assert "¶" not in page


def test_bars_of_a_norm_are_a_pair(page: str, source: str) -> None:
    assert '<mo stretchy="true" form="prefix">‖</mo><msup><mi>Y</mi>' in page
    assert "lr(|cal(M)|)" in source
    assert "\\|" not in source.partition("CKA")[2].partition("\n")[0]


def test_title_is_the_first_heading(page: str, source: str) -> None:
    assert "<title>A study of" in page
    assert "7_report.ipynb" not in Loaded(page).text
    assert "#let title = [A #emph[study] of $rho$]" in source


def test_sections_are_numbered_alike(page: str, source: str) -> None:
    for number, name in (("1", "Methods"), ("1.1", "Objective")):
        assert f"{number}\u2002{name}</h" in page
        assert f"= {number}\u2002{name}\n" in source
    assert ">Abstract</h2>" in page


def test_figures_and_tables_bear_the_same_number_in_both_forms(page: str, source: str) -> None:
    names = ["Figure\u00a02.", "Table\u00a01."]
    assert re.findall(r"<figcaption><strong>(.*?)</strong>", page) == names
    assert re.findall(r"#strong\[(\w+~\d\.)\]", source) == [n.replace("\u00a0", "~") for n in names]


def test_references_are_links_in_both_forms(page: str, source: str) -> None:
    for label, name in (
        ("fig:heatmap", "Figure\u00a02"),
        ("tbl:ratios", "Table\u00a01"),
        ("objective", "section\u00a01.1"),
    ):
        assert f'<a href="#{label}">{name}</a>' in page
        assert f'id="{label}"' in page
        assert f"#link(<{label}>)[{name.replace(chr(160), '~')}]" in source


def test_cited_works_are_listed(page: str, source: str) -> None:
    for form in (page, source):
        assert "Similarity of Neural Network Representations Revisited" in form
        assert "Platonic" not in form


def test_code_is_folded_unless_it_is_to_be_shown(page: str, source: str) -> None:
    assert page.count('<details class="code">') == 6
    assert page.count('<details class="code" open>') == 1
    assert "unfolded = 2" in source
    assert "folded = 1" not in source


@pytest.mark.parametrize("hidden", ["UserWarning", "gone", "removed", "0%|", "\x1b[31m"])
def test_hidden_output_is_in_neither_form(page: str, source: str, hidden: str) -> None:
    assert hidden not in page
    assert hidden not in source


def test_computed_prose_is_set_as_prose(page: str, source: str) -> None:
    assert "The mean is <strong>0.761</strong>." in page
    assert "The mean is #strong[0.761]." in source


def test_text_of_a_table_is_literal(page: str) -> None:
    assert "&lt;script&gt;$x$ | [@fig:no] `a`</td>" in page


def test_caption_links_to_its_source_at_the_commit(page: str, source: str) -> None:
    url = "https://git.example/r/blob/0123456789abcdef/notebooks/4_calibrate.ipynb"
    assert f'<a href="{url}">Source: 4_calibrate</a>' in page
    assert url in source
    assert "Source: 7_report · code cell 4 · heatmap" in page
    typeset = " ".join(source.replace("\\", "").split())
    assert "Source: 7_report · code cell 4 · heatmap" in typeset


def test_pdf_has_the_figure_as_vectors(source: str) -> None:
    assert re.search(r'image\("/.*/heatmap.pdf", width: 50', source)


def test_stamp_with_commit_stands_before_the_text(page: str, source: str) -> None:
    for form, text in ((page, "In short"), (source, "In short")):
        assert "2026-10-01 · commit" in form.partition(text)[0]


def test_raw_markup_of_the_author_is_shown_as_text(tmp_path: Path) -> None:
    page, _ = rendered(tmp_path, "<b>bold</b> `<i>`{=html} [x]{onclick=run} [y](javascript:run)")
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<i>" not in page
    assert not re.search(r"<[^>]*(onclick|javascript)", page)


def test_image_that_a_cell_draws_is_in_both_forms(folder: Path) -> None:
    drawn = (folder / "heatmap.svg").read_text()
    page, source = rendered(folder, code("draw", {"image/svg+xml": drawn, "text/plain": "Figure"}))
    assert 'src="data:image/svg+xml;base64,' in page
    assert 'output-0.svg", width: 80' in source


def test_figure_without_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"figure fig:a: no file absent\.png or absent\.svg"):
        figure("absent", "c", "fig:a")


def test_html_takes_the_png_where_the_svg_is_very_large(tmp_path: Path) -> None:
    for suffix, size in ((".svg", executed.LARGEST_SVG + 1), (".png", 1), (".pdf", 1)):
        (tmp_path / f"map{suffix}").write_bytes(b" " * size)
    outputs = executed.Outputs(tmp_path, {}, tmp_path, tmp_path, tmp_path, None)
    files = outputs.files_of({"file": "map", "label": "fig:map", "width": "50%"})
    assert [Path(files[form]).suffix for form in ("html", "pdf")] == [".png", ".pdf"]


def test_equal_input_gives_equal_bytes(folder: Path, cells: list[Any], forms: Any) -> None:
    files = [folder / "out" / name for name in ("report.html", "report.pdf")]
    rendered(folder, *cells)
    first = [file.read_bytes() for file in files]
    rendered(folder, *cells)
    assert [file.read_bytes() for file in files] == first


def test_long_table_breaks_across_pages(folder: Path) -> None:
    frame = pd.DataFrame({"model": [f"model_{i}" for i in range(150)], "score": np.arange(150.0)})
    rendered(folder, code("long", table(frame, "Long.", "tbl:long")))
    pages = re.search(rb"NPages>(\d+)<", (folder / "out" / "report.pdf").read_bytes())
    assert int(pages[1]) >= 3


def columns_of(source: str) -> list[float]:
    """The columns' shares of the first table's width, in percent."""
    return [
        float(share)
        for share in re.findall(r"([\d.]+)%", re.search(r"columns: \((.*?)\)", source)[1])
    ]


def test_wide_table_keeps_within_the_page(folder: Path) -> None:
    frame = pd.DataFrame([["a_long_model_name_without_a_break.in1k"] * 4 + ["words " * 30]])
    _, source = rendered(folder, code("wide", table(frame, "Wide.", "tbl:wide")))
    shares = columns_of(source)
    assert len(shares) == 5
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_names_in_a_table_may_break(folder: Path) -> None:
    frame = pd.DataFrame({"name": ["a_name/of_two"]})
    page, source = rendered(folder, code("names", table(frame, "c", "tbl:a")))
    assert "a_<wbr>name/<wbr>of_<wbr>two" in page
    assert "a\\_\u200bname/of\\_\u200btwo" in source


def test_a_per_cent_sign_stays_with_its_number(folder: Path) -> None:
    frame = pd.DataFrame({"share": ["5% to 6%", "all (7 %)"]})
    page, source = rendered(
        folder, code("t", table(frame, "In 95 % of 8%; `9%`; 20**times**%.", "tbl:a"))
    )
    for form, space in ((page, "\u00a0"), (source, "~")):
        kept = f"5{space}%{space}to{space}6{space}%", f"(7{space}%)", f"95{space}% of 8{space}%;"
        assert all(share in form for share in kept)
        assert "9%" in form
        assert "times" in form


def test_figures_of_the_pdf_stand_where_the_text_has_them(source: str) -> None:
    assert "placement" not in source


def test_long_text_gets_the_room_that_short_columns_leave(folder: Path) -> None:
    row = ["words of a claim " * 5, 1.0, "holds", "the reason for it " * 8]
    frame = pd.DataFrame([row] * 3, columns=["claim", "found", "verdict", "why"])
    _, source = rendered(folder, code("wide", table(frame, "Wide.", "tbl:wide")))
    claim, found, verdict, why = columns_of(source)
    assert why > claim > 3 * max(found, verdict)


def test_table_of_low_rows_keeps_the_type_and_one_of_high_rows_gets_smaller(folder: Path) -> None:
    for words, size in ((1, "9.0pt"), (13, "7.5pt")):
        frame = pd.DataFrame([["some text " * words] * 4] * 3, columns=list("abcd"))
        _, source = rendered(folder, code("t", table(frame, "c", "tbl:a")))
        assert f"#show table: set text(size: {size})" in source


def test_interval_in_a_table_is_never_broken(folder: Path) -> None:
    frame = pd.DataFrame({"found": ["0.053 (−0.001 to 0.109)", "1.2 to 3.4*"], "kept": "on to us"})
    page, source = rendered(folder, code("all", table(frame, "c", "tbl:a")))
    for form, space in ((page, "\u00a0"), (source, "~")):
        kept = f"(−0.001{space}to{space}0.109)", f"1.2{space}to{space}3.4", "on to us"
        assert all(interval in form for interval in kept)


@pytest.mark.parametrize("above", [560, 610, 650])
def test_long_table_begins_with_three_rows_on_a_page(
    folder: Path, tmp_path: Path, above: int
) -> None:
    frame = pd.DataFrame({"model": [f"model_{i}" for i in range(40)]})
    _, source = rendered(folder, code("long", table(frame, "Long.", "tbl:long")))
    third = "#show table.cell.where(y: 3): it => [#metadata(none) <third>#it]"
    pages = "locate(<tbl:long>).page(), query(<third>).first().location().page()"
    source = source.replace("#room(", f"{third}\n#v({above}pt)#room(")
    (tmp_path / "a.typ").write_text(f"{source}\n#context [#metadata(({pages})) <pages>]")
    found = typst.query(tmp_path / "a.typ", "<pages>", field="value", one=True)
    assert len(set(json.loads(found))) == 1


def test_short_table_stays_whole(folder: Path) -> None:
    frame = pd.DataFrame({"model": ["a", "b"]})
    _, source = rendered(folder, code("short", table(frame, "c", "tbl:a")))
    assert "#room(" not in source.partition("#[")[2]
    assert "block(breakable: false)" in source


def test_numbers_follow_the_order_and_those_given() -> None:
    exhibits = [
        table(RATIOS, "c", f"tbl:t{i}", number=n) for i, n in enumerate([None, 3, None, 2, None])
    ]
    names = executed.name_exhibits(new_notebook(cells=[code("all", *exhibits)]))
    assert list(names.values()) == ["Table 1", "Table 3", "Table 4", "Table 2", "Table 5"]


def test_numbers_in_tables_are_set_as_numbers() -> None:
    frame = pd.DataFrame(
        {"a": [-1.23456, np.nan], "b": [0.5, -0.00001], "n": [3, -4], "t": [True, False]}
    )
    grid = table(frame, "c", "tbl:t", digits=2, formats={"b": ".1%"}, markdown=["t"]).record["grid"]
    rows = [row.strip("| ").split(" | ") for row in grid.replace("\\", "").splitlines()]
    assert rows[1] == ["--:", "--:", "--:", ":--"]
    assert rows[2:] == [["−1.23", "50.0%", "3", "True"], ["–", "−0.0%", "−4", "False"]]


def test_named_index_is_the_first_column() -> None:
    frame = pd.DataFrame({"score": [1.0]}, index=pd.Index(["resnet"], name="model"))
    assert table(frame, "c", "tbl:t").record["grid"].startswith("| model | score |")


def test_jupyterlab_shows_figure_and_caption(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shown = figure("heatmap", "Caption $x$.", "fig:heatmap")._repr_mimebundle_()
    assert shown["text/markdown"].startswith("![fig:heatmap](data:image/png;base64,")
    assert shown["text/markdown"].endswith("**fig:heatmap.** Caption $x$.")
    assert json.dumps(shown)


T = table(RATIOS, "c", "tbl:ratios")
FAILED = new_output("error", ename="ValueError", evalue="boom", traceback=[])
RECORD = Exhibit({**T.record, "kind": "fig", "label": "fig:a", "file": "absent", "width": "9%"}, "")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("![a](absent.png)", "image 'absent.png': must be a file below the project root"),
        ("![a](https://host.example/a.png)", "image 'https://host.example/a.png'"),
        ("[@tbl:ratio]", "unknown label 'tbl:ratio'; did you mean 'tbl:ratios'?"),
        ("[@kornblit2019]", "unknown citation 'kornblit2019'; did you mean 'kornblith2019'?"),
        (r"$\frac{1$", r"this formula cannot be set: \frac{1"),
        (new_code_cell("x = 1"), "cell 3 has not been executed"),
        (code("x", FAILED), "cell 3 ended in ValueError: boom"),
        (code("again", T), "Table 2 (tbl:ratios): this label or number is used twice"),
        (code("figure", RECORD), "figure fig:a: no file"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_writes_nothing(tmp_path: Path, cell: Any, message: str) -> None:
    with pytest.raises(UserError) as raised:
        rendered(tmp_path, code("table", T), cell)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_report_without_a_title_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, title="No heading.")
    with pytest.raises(UserError, match="no title"):
        render(path, html=tmp_path / "a.html", pdf=tmp_path / "a.pdf", root=tmp_path)


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    with pytest.raises(UserError, match="not a notebook"):
        render(tmp_path / "a.ipynb", html=tmp_path / "a.html", pdf=tmp_path / "a.pdf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "ratios"}, "label 'ratios' is not of the form tbl:name"),
        ({"caption": " "}, "tbl:t has no caption"),
        ({"formats": {"ratoi": ".1f"}}, "unknown column of tbl:t 'ratoi'; did you mean 'ratio'?"),
        ({"markdown": ["modle"]}, "did you mean 'model'?"),
    ],
)
def test_table_names_the_mistake(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        table(RATIOS, **{"caption": "c", "label": "tbl:t"} | arguments)


PLACES = [{"kind": "points", "names": ["</script><b>&"], "lines": [["resnet"]], "at": [[0.5, 0.5]]}]


def answering(folder: Path) -> str:
    """The HTML of a report with one figure that answers the pointer."""
    drawing = Figure(figsize=(2, 1))
    for suffix in ("svg", "png", "pdf"):
        drawing.savefig(folder / f"map.{suffix}")
    (folder / "map.json").write_text(json.dumps(PLACES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shown = figure("map", "A map.", "fig:map")
    return rendered(folder, code("figure", shown))[0]


def test_a_figure_with_places_answers_the_pointer_by_data_in_the_page(tmp_path: Path) -> None:
    page = answering(tmp_path)
    data = re.search(r'<script type="application/json" class="places">(.*?)</script>', page, re.S)
    assert json.loads(data[1]) == {"name": "Figure 1", "parts": PLACES}
    assert page.count("<script") == 2  # the data and the code
    assert "querySelectorAll" in page


def test_the_static_figure_stays_and_nothing_is_loaded(tmp_path: Path) -> None:
    page = answering(tmp_path)
    loaded = Loaded(page)
    assert re.search(r'<div class="plate" style="width:100%">\s*<img[^>]+src="data:image/svg', page)
    assert all(url.startswith("data:") for url in loaded.urls)
    assert not re.search(r"https?://(?!www.w3.org)", page)
    assert "default-src &#39;none&#39;" in page


def test_a_figure_s_cell_is_the_one_that_saves_it(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    cells = [code('name = "heatmap"'), code('stem = draw.save(panel, figures, "heatmap")')]
    (folder / "notebooks").mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), folder / "5_figures.ipynb")
    shown = figure("heatmap", "c", "fig:heatmap", source="notebooks/5_figures.ipynb")
    page, _ = rendered(folder, code("figure", shown))
    assert "Source: 5_figures · code cell 2 · heatmap" in page


def test_without_a_repository_captions_link_to_the_executed_copies(folder: Path) -> None:
    page, source = rendered(folder, code("ratios", table(RATIOS, "c", "tbl:ratios")))
    assert '<a href="../7_report.ipynb">Source: 7_report · code cell 1</a>' in page
    assert '#link("../7_report.ipynb")' in source


def test_folded_code_bears_the_number_that_captions_give(page: str) -> None:
    assert "<summary>Code cell 4</summary>" in page


def test_pdf_is_set_from_the_fonts_of_the_wheel(tmp_path: Path) -> None:
    rendered(
        tmp_path, PROSE.partition(", see")[0] + " $x^2$", code("shown = 1", tags=("show-code",))
    )
    document = (tmp_path / "out" / "report.pdf").read_bytes()
    names = {name.decode() for name in re.findall(rb"/FontName/\w+\+(\w+)", document)}
    assert names == {"LibertinusSerif", "NewCMMath", "DejaVuSansMono"}
