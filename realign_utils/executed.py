"""An executed notebook as one Markdown text, in which every figure and table has its number."""

from __future__ import annotations

import base64
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

from realign_utils.errors import UserError
from realign_utils.exhibits import EXHIBIT, MEDIA, find_file, literal
from realign_utils.pandoc import convert

KINDS = {"fig": "Figure", "tbl": "Table"}
MARKDOWN = (
    "markdown-raw_html-raw_attribute-raw_tex-bracketed_spans-link_attributes"
    "-inline_code_attributes-yaml_metadata_block-pandoc_title_block-example_lists"
    "-blank_before_header-blank_before_blockquote+lists_without_preceding_blankline"
    "+autolink_bare_uris"
)
"""What pandoc understands of an author's Markdown: nothing that would reach one form only."""

_PIPES = MARKDOWN + "-simple_tables-multiline_tables-grid_tables"
LARGEST_SVG = 1_000_000
"""Bytes beyond which the HTML takes the PNG."""


def read_executed(path: Path) -> nbformat.NotebookNode:
    """Read a notebook that has run to its end.

    Raises
    ------
    UserError
        If it is none, or a cell was not executed or ended in an error.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError as error:
        raise UserError(f"cannot read notebook {path}: {error.strerror}") from error
    except (ValueError, nbformat.ValidationError) as error:
        raise UserError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise UserError(f"{path}: cell {number} has not been executed; run the notebook first")
        for output in cell.outputs:
            if output.output_type == "error":
                raise UserError(f"{path}: cell {number} ended in {output.ename}: {output.evalue}")
    return notebook


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def records_of(notebook: nbformat.NotebookNode) -> list[Mapping[str, Any]]:
    """The figures and tables that are shown, in order."""
    shown = [cell for cell in notebook.cells if "remove" not in tags_of(cell)]
    outputs = [output for cell in shown for output in cell.get("outputs", [])]
    return [output.data[EXHIBIT] for output in outputs if EXHIBIT in output.get("data", {})]


def name_exhibits(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Label to name ("Figure 2"), in order of appearance or as the author says."""
    records = records_of(notebook)
    taken = {(record["kind"], record["number"]) for record in records}
    last = dict.fromkeys(KINDS, 0)
    names: dict[str, str] = {}
    for record in records:
        kind, number = record["kind"], record["number"]
        while number is None and (kind, str(last[kind] + 1)) in taken:
            last[kind] += 1
        number = number or str(last[kind] + 1)
        taken.add((kind, number))
        last[kind] = int(number) if number.isdigit() else last[kind]
        name = f"{KINDS[kind]} {number}"
        if record["label"] in names or name in names.values():
            raise UserError(f"{name} ({record['label']}): this label or number is used twice")
        names[record["label"]] = name
    return names


def numbered_code(notebook: nbformat.NotebookNode) -> list[tuple[int, nbformat.NotebookNode]]:
    """Every cell with the number of code cells up to it, those that a run injects not counted."""
    number, numbered = 0, []
    for cell in notebook.cells:
        number += cell.cell_type == "code" and "injected-parameters" not in tags_of(cell)
        numbered.append((number, cell))
    return numbered


def assemble(
    notebook: nbformat.NotebookNode, show: Callable[[Any, int], str], *, only: str | None = None
) -> str:
    """One Markdown text, of all cells or of those with one tag.

    `show` gives an output's part, from it and its code cell's number.
    """
    parts: list[str] = []
    for number, cell in numbered_code(notebook):
        if "remove" in tags_of(cell) or (only and only not in tags_of(cell)):
            continue
        if cell.cell_type == "markdown":
            parts.append(_div(".prose", cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            kind = ".code .open" if "show-code" in tags_of(cell) else ".code"
            parts.append(_div(f'{kind} number="{number}"', _fence(cell.source, "python")))
            parts += [show(output, number) for output in cell.outputs]
    return "\n\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True)
class Outputs:
    """What one cell's outputs become in the Markdown text.

    Attributes
    ----------
    notebook : path
        The executed copy; those of the other notebooks lie beside it.
    names : mapping of str to str
        From `name_exhibits`.
    folder : path
        For the images that a cell draws.
    root : path
        What the paths of figures are relative to.
    beside : path
        Folder of the report, where links to the executed notebooks start.
    blob_url : str, optional
        Web page of the repository's files at the commit, to which links then lead.
    others : dict
        Executed notebooks that have been read.
    """

    notebook: Path
    names: Mapping[str, str]
    folder: Path
    root: Path
    beside: Path
    blob_url: str | None
    others: dict[Path, nbformat.NotebookNode] = field(default_factory=dict)

    def show(self, output: Any, code_cell: int) -> str:
        """Markdown of one output; empty for what a reader has no use of."""
        if output.output_type == "stream":
            return "" if output.name == "stderr" else _div(".printed", _fence(output.text))
        data = output.data
        if any(kind.startswith("application/vnd.jupyter.widget") for kind in data):
            return ""  # a progress bar
        if EXHIBIT in data:
            return self._exhibit(data[EXHIBIT], code_cell)
        for suffix, kind in MEDIA.items():
            if kind in data:
                return self._image(data[kind], suffix)
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return _div(".prose", textwrap.dedent(data[kind]))
        if "text/html" in data:
            arguments = ("-f", "html-native_divs-native_spans", "-t", _PIPES, "--columns=99999")
            text = convert(data["text/html"], *arguments)
            return _div(".prose", re.sub(r"(?<!\\)@", r"\@", text))  # no citation of ours
        return _div(".printed", _fence(data.get("text/plain", "")))

    def _image(self, content: str, suffix: str) -> str:
        is_text = suffix == ".svg"
        file = self.folder / f"output-{len(list(self.folder.iterdir()))}{suffix}"
        file.write_bytes(content.encode() if is_text else base64.b64decode(content))
        return _div(".prose", f"![]({file})")

    def _exhibit(self, record: Mapping[str, Any], code_cell: int) -> str:
        name, origin, link = self.source_of(record, code_cell)
        attributes = {"name": name, "source": f"Source: {origin}"}
        if link:
            attributes["link"] = link
        if record["kind"] == "fig":
            attributes |= self.files_of(record)
        pairs = " ".join(f'{key}="{literal(value)}"' for key, value in attributes.items())
        text = f"{record.get('grid', '')}\n\n{record['caption']}"
        return _div(f"#{record['label']} .exhibit {pairs}", text)

    def source_of(self, record: Mapping[str, Any], code_cell: int) -> tuple[str, str, str | None]:
        """A figure's or table's name, what made it (notebook, cell, file), and where to read that."""
        source = Path(record["source"] or f"notebooks/{self.notebook.name}")
        executed = self.notebook.parent / source.name
        cell = f"code cell {code_cell}"
        if record["source"]:
            cell = record["cell"] or self._cell_that_saves(executed, record["file"])
        link = None
        if self.blob_url:
            link = f"{self.blob_url}/{source.as_posix()}"
        elif executed.is_file():
            link = self.local_link(executed)
        origin = " · ".join(part for part in (source.stem, cell, record["file"]) if part)
        return self.names[record["label"]], origin, link

    def local_link(self, executed: Path) -> str | None:
        """From the report to an executed copy."""
        return quote(Path(os.path.relpath(executed, self.beside)).as_posix())

    def files_of(self, record: Mapping[str, Any]) -> dict[str, str]:
        """A figure's files for the HTML and for the PDF: the vector forms unless very large."""
        base, label = self.root / record["file"], record["label"]
        html = find_file(base, (".svg", ".png"), label)
        if html.stat().st_size > LARGEST_SVG:
            html = find_file(base, (".png", ".svg"), label)
        pdf = find_file(base, (".pdf", ".svg", ".png"), label)
        files = {"width": record["width"], "html": str(html), "pdf": str(pdf)}
        pointer = base.with_name(base.name + ".json")
        return files | ({"pointer": str(pointer)} if pointer.is_file() else {})

    def _cell_that_saves(self, executed: Path, file: str | None) -> str | None:
        """The code cell of an executed notebook that saves a file of this name, where there is one."""
        if not file or not executed.is_file():
            return None
        if executed not in self.others:
            self.others[executed] = nbformat.read(executed, as_version=4)
        name = re.escape(Path(file).name)
        saves = re.compile(rf"\b(save|write)\w*\(.*?[\"']{name}[\"']", re.DOTALL)
        for number, cell in numbered_code(self.others[executed]):
            if cell.cell_type == "code" and saves.search(cell.source):
                return f"code cell {number}"
        return None


def _div(attributes: str, text: str) -> str:
    body = text.strip("\n")
    return f"::::: {{{attributes}}}\n{body}\n\n:::::"


def _fence(text: str, language: str = "text") -> str:
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).rstrip()
    fence = "~" * (3 + max(map(len, re.findall("~+", text)), default=0))
    return f"{fence} {language}\n{text}\n{fence}"
