"""The blog post: an excerpt of the report as Markdown with front matter, its figures beside it.

The post is made of the cells of the executed report that are tagged ``blog``: the same numbers,
figures and tables, under the report's names. What a post is headed by stands in the output of a
cell tagged ``front-matter``: JSON with authors, tags and a description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import yaml

from realign_utils.errors import UserError
from realign_utils.executed import (
    MARKDOWN,
    Outputs,
    assemble,
    name_exhibits,
    read_executed,
    tags_of,
)
from realign_utils.exhibits import find_file, literal
from realign_utils.pandoc import convert
from realign_utils.report import BIBLIOGRAPHY, TEMPLATES, works_of
from realign_utils.store import write_atomically, write_text

POST = "commonmark+pipe_tables+tex_math_dollars-raw_html"
"""What the post is written in: nothing that a usual reader of Markdown does not know."""


def write_post(
    notebook: Path,
    folder: Path,
    *,
    date: str,
    commit: str | None = None,
    source_url: str | None = None,
    bibliography: Path = BIBLIOGRAPHY,
    root: Path = Path(),
) -> Path:
    """Write the post of an executed report.

    Parameters
    ----------
    notebook : path
        The executed notebook.
    folder : path
        Gets ``post.md``, and ``figures/`` with the PNGs that it shows and no others.
    date : str
        Of the run, as YYYY-MM-DD.
    commit, source_url : str, optional
        As for `report.render`: with both, captions link to the notebooks.
    bibliography : path
        BibTeX file of the works that may be cited.
    root : path
        The folder that the paths of figures are relative to.

    Returns
    -------
    pathlib.Path
        The post.

    Raises
    ------
    UserError
        If no cell is tagged ``blog``, or as for `report.render`.
    """
    cells = read_executed(notebook)
    if not any("blog" in tags_of(cell) for cell in cells.cells):
        raise UserError(f"{notebook}: no cell is tagged blog, so there is no post")
    names = name_exhibits(cells)
    blob_url = f"{source_url.rstrip('/')}/blob/{commit}" if source_url and commit else None
    with TemporaryDirectory() as name:
        outputs = _Excerpt(notebook, names, Path(name), root, folder, blob_url)
        text = assemble(cells, outputs.show, only="blog")
        metadata = {
            "names": [[literal(label), literal(value)] for label, value in names.items()],
            "works": [literal(key) for key in works_of(bibliography)],
        }
        file = Path(name) / "metadata.json"
        file.write_text(json.dumps(metadata), encoding="utf-8")
        body = convert(
            text, "-f", MARKDOWN, "-t", POST, "--wrap=none", "--columns=99999",
            "--lua-filter", str(TEMPLATES / "blog.lua"), "--citeproc",
            f"--metadata-file={file}", f"--bibliography={bibliography}", folder=root,
        )  # fmt: skip
    head = _front_matter(cells) | {"date": date, "toc": _contents(body)}
    _copy(outputs.pictures, folder / "figures")
    header = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=10_000)
    return write_text(folder / "post.md", f"---\n{header}---\n\n{body}{_foot(commit, source_url)}")


@dataclass(frozen=True)
class _Excerpt(Outputs):
    """Outputs whose figures become files beside the post; `pictures` are their sources by name."""

    pictures: dict[str, Path] = field(default_factory=dict)

    def local_link(self, executed: Path) -> str | None:
        """None: the executed copies do not travel with the post."""
        return None

    def files_of(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The picture's path as the post gives it."""
        picture = find_file(self.root / record["file"], (".png", ".jpg"), record["label"])
        self.pictures[picture.name] = picture
        return {"image": f"figures/{picture.name}"}


def _front_matter(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Layout, title, description, authors and tags, by the output of the cell so tagged."""
    cells = [cell for cell in notebook.cells if "front-matter" in tags_of(cell)]
    found = [o.data["application/json"] for cell in cells for o in cell.outputs
             if "application/json" in o.get("data", {})]  # fmt: skip
    if not found:
        raise UserError(
            "no cell tagged front-matter displays JSON, so the post has no front matter"
        )
    title = next(
        line for cell in notebook.cells if cell.cell_type == "markdown"
        for line in cell.source.splitlines() if line.startswith("# ")
    )  # fmt: skip
    return {
        "layout": "distill",
        "title": title[2:].strip(),
        "description": found[0]["description"],
        "authors": [{"name": name} for name in found[0]["authors"]],
        "tags": list(found[0]["tags"]),
    }


def _contents(body: str) -> list[dict[str, str]]:
    """The sections, as the challenge's layout lists them."""
    fenced = re.sub(r"^(```|~~~).*?^\1", "", body, flags=re.MULTILINE | re.DOTALL)
    return [{"name": line[3:].strip()} for line in fenced.splitlines() if line.startswith("## ")]


def _foot(commit: str | None, source_url: str | None) -> str:
    """What the post is an excerpt of."""
    where = f"[{commit[:10]}]({source_url}/tree/{commit})" if commit and source_url else None
    at = f" at commit {where or commit[:10]}" if commit else ""
    return (
        f"\n---\n\n*An excerpt of the report{at}, whose numbers its figures, tables and captions "
        "bear; nothing here was typed by hand.*\n"
    )


def _copy(pictures: Mapping[str, Path], folder: Path) -> None:
    """The pictures into their folder, and none that an earlier post left."""
    for name, picture in pictures.items():
        content = picture.read_bytes()
        write_atomically(folder / name, lambda temporary, c=content: temporary.write_bytes(c))
    for old in folder.glob("*.*"):
        if old.suffix in (".png", ".jpg") and old.name not in pictures:
            old.unlink()
