"""An executed notebook as one HTML file and one typeset PDF: no TeX, no browser, no network.

The notebook becomes one Markdown text in which every figure and table has its number; pandoc writes
it as HTML with MathML, and as Typst, which its wheel sets into a PDF. What the two show differently
is in ``templates/report.lua``; how they look, in ``templates/report.html`` and ``report.typ``.

What the author of a notebook writes
------------------------------------
- The first heading (``# ...``) is the title. ``## ...`` are sections, numbered here, never by
  hand; headings that begin with Abstract, Appendix, References or Acknowledg... bear no number.
- ``figure("figures/demo/heatmap", "CKA of ...", "fig:heatmap")`` or ``table(frame, "Ratios ...",
  "tbl:calibration")`` in the last line of a cell or in ``display(...)``. Captions are Markdown
  with ``$formulas$``. Numbers follow the order of appearance, or ``number="2"`` fixes one.
- ``[@fig:heatmap]``, ``[@tbl:calibration]`` and ``[@sec:proxy-calibration]`` (the heading in small
  letters with hyphens) become linked "Figure 2", "Table 1", "section 3.1"; ``[@kornblith2019]``
  is a citation from the bibliography, listed under References.
- Prose with computed numbers is ``display(Markdown(f"..."))``. Raw HTML is shown as text.
- A cell tagged ``remove`` vanishes. Code is folded in the HTML and absent from the PDF; that of a
  cell tagged ``show-code`` is unfolded, and in the PDF too. stderr and progress bars never appear.
- Paths are relative to the project root, as in every notebook. Images come from files, never from
  the network.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pandas as pd
import pypandoc
import typst

from realign_utils.errors import UserError, unknown
from realign_utils.store import write_atomically, write_text

EXHIBIT = "application/vnd.realign.exhibit+json"
"""The type under which an executed notebook carries what a figure or table is made of."""

_TEMPLATES = Path(__file__).with_name("templates")
_MARKDOWN = (
    "markdown-raw_html-raw_attribute-raw_tex-bracketed_spans-link_attributes"
    "-inline_code_attributes-yaml_metadata_block-pandoc_title_block-example_lists"
    "-blank_before_header-blank_before_blockquote+lists_without_preceding_blankline"
    "+autolink_bare_uris"
)
_PIPES = _MARKDOWN + "-simple_tables-multiline_tables-grid_tables"
_HTML = ("-t", "html5", "--template", str(_TEMPLATES / "report.html"), "--mathml",
         "--embed-resources", f"--resource-path=.:{_TEMPLATES}", "--toc", "--toc-depth=3")  # fmt: skip
_TYPST = ("-t", "typst-citations", "--template", str(_TEMPLATES / "report.typ"),
          "--syntax-highlighting=idiomatic")  # fmt: skip
_KINDS = {"fig": "Figure", "tbl": "Table"}
_MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_LARGEST_SVG = 1_000_000  # bytes; beyond it, the HTML takes the PNG


# ------------------------------------------------------------------ what a notebook displays


@dataclass(frozen=True)
class Exhibit:
    """A figure or table with its caption and label; in JupyterLab it shows as Markdown."""

    record: Mapping[str, Any]
    markdown: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        plain = f"{self.record['label']}: {self.record['caption']}"
        return {EXHIBIT: dict(self.record), "text/markdown": self.markdown, "text/plain": plain}


def figure(
    path: str | Path,
    caption: str,
    label: str,
    *,
    number: str | int | None = None,
    width: str = "100%",
    source: str | None = None,
    cell: str | None = None,
) -> Exhibit:
    """Show a figure that is already a file.

    Parameters
    ----------
    path : path
        Without suffix, relative to the project root. The HTML takes ``.svg`` or ``.png``, the PDF
        the first of ``.pdf``, ``.svg``, ``.png``.
    caption : str
        Markdown; formulas allowed.
    label : str
        ``fig:name``, for ``[@fig:name]`` in prose.
    number : str or int, optional
        Fixes the number.
    width : str
        Share of the text's width, e.g. ``"80%"``.
    source, cell : str, optional
        The notebook that made it, e.g. ``"notebooks/5_figures.ipynb"``, and where in it, e.g.
        ``"code cell 3"``; by default the cell that shows it.

    Raises
    ------
    UserError
        If the label has another form or there is no such file.
    """
    record = _record("fig", label, caption, number, source, cell, str(path)) | {"width": width}
    file = _find(Path(path), (".png", ".svg"), label)
    return Exhibit(record, f"![{label}]({_data_uri(file)})\n\n**{label}.** {caption}")


def table(
    frame: pd.DataFrame,
    caption: str,
    label: str,
    *,
    number: str | int | None = None,
    digits: int = 3,
    formats: Mapping[str, str] | None = None,
    markdown: Sequence[str] = (),
    source: str | None = None,
    cell: str | None = None,
    file: str | None = None,
) -> Exhibit:
    """Show a table, typeset.

    Parameters
    ----------
    frame : pandas.DataFrame
        An index that is more than a count of rows becomes the first column. Numbers stand to the
        right, a missing value is a dash, and text is shown literally.
    caption, label, number, source, cell
        As for `figure`; the label is ``tbl:name``.
    digits : int
        Decimals of floats.
    formats : mapping, optional
        Format specification by column, where it differs, e.g. ``{"ratio": ".1%"}``.
    markdown : sequence of str
        Columns whose cells are the author's own Markdown.
    file : str, optional
        The file that holds the table, relative to the project root.

    Raises
    ------
    UserError
        If the label has another form, or a named column is not in the frame.
    """
    record = _record("tbl", label, caption, number, source, cell, file)
    if not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None):
        frame = frame.reset_index()
    for column in [*(formats or {}), *markdown]:
        if column not in frame.columns:
            raise unknown(f"column of {label}", column, frame.columns)
    columns = []
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "iuf"
        spec = (formats or {}).get(name, f"z.{digits}f" if frame[name].dtype.kind == "f" else "")
        cells = [_cell(value, spec, name in markdown) for value in frame[name]]
        columns.append([_escape(str(name)), "--:" if numeric else ":--", *cells])
    grid = "\n".join("| " + " | ".join(row) + " |" for row in zip(*columns, strict=True))
    return Exhibit(record | {"grid": grid}, f"**{label}.** {caption}\n\n{grid}")


def _record(
    kind: str,
    label: str,
    caption: str,
    number: str | int | None,
    source: str | None,
    cell: str | None,
    file: str | None,
) -> dict[str, Any]:
    if not re.fullmatch(rf"{kind}:[\w-]+", label):
        allowed = f"{kind}:name, the name of letters, digits, - and _"
        raise UserError(f"label {label!r} is not of the form {allowed}")
    caption = " ".join(caption.split())
    if not caption:
        raise UserError(f"{label} has no caption: say what is shown")
    return {
        "kind": kind, "label": label, "caption": caption, "source": source, "cell": cell,
        "file": file, "number": None if number is None else str(number),
    }  # fmt: skip


def _cell(value: Any, spec: str, is_markdown: bool) -> str:
    if is_markdown:
        return str(value).replace("|", "\\|").replace("\n", " ")
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    text = format(value, spec)
    return _escape(text.replace("-", "−") if isinstance(value, int | float) else text)


def _escape(text: str) -> str:
    """Markdown that shows a text literally, whatever a file brought in."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def _find(path: Path, suffixes: Iterable[str], label: str) -> Path:
    candidates = [path.with_name(path.name + suffix) for suffix in suffixes]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        names = " or ".join(str(file) for file in candidates)
        raise UserError(f"figure {label}: no file {names}")
    return found


def _data_uri(file: Path) -> str:
    return f"data:{_MEDIA[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"


# ------------------------------------------------------------------ the notebook as Markdown


def _read_notebook(path: Path) -> nbformat.NotebookNode:
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


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _name_exhibits(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Label to name ("Figure 2"), in order of appearance or as the author says."""
    shown = [cell for cell in notebook.cells if "remove" not in _tags(cell)]
    outputs = [output for cell in shown for output in cell.get("outputs", [])]
    records = [output.data[EXHIBIT] for output in outputs if EXHIBIT in output.get("data", {})]
    taken = {(record["kind"], record["number"]) for record in records}
    last = dict.fromkeys(_KINDS, 0)
    names: dict[str, str] = {}
    for record in records:
        kind, number = record["kind"], record["number"]
        while number is None and (kind, str(last[kind] + 1)) in taken:
            last[kind] += 1
        number = number or str(last[kind] + 1)
        taken.add((kind, number))
        last[kind] = int(number) if number.isdigit() else last[kind]
        name = f"{_KINDS[kind]} {number}"
        if record["label"] in names or name in names.values():
            raise UserError(f"{name} ({record['label']}): this label or number is used twice")
        names[record["label"]] = name
    return names


def _assemble(notebook: nbformat.NotebookNode, show: Callable[[Any, int], str]) -> str:
    """One Markdown text; `show` gives an output's part, from it and its code cell's number."""
    parts: list[str] = []
    code_cells = 0
    for cell in notebook.cells:
        code_cells += cell.cell_type == "code" and "injected-parameters" not in _tags(cell)
        if "remove" in _tags(cell):
            continue
        if cell.cell_type == "markdown":
            parts.append(_div(".prose", cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            kind = ".code .open" if "show-code" in _tags(cell) else ".code"
            parts.append(_div(kind, _fence(cell.source, "python")))
            parts += [show(output, code_cells) for output in cell.outputs]
    return "\n\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True)
class _Outputs:
    """What one cell's outputs become in the Markdown text."""

    notebook: Path
    names: Mapping[str, str]
    folder: Path
    root: Path
    blob_url: str | None

    def show(self, output: Any, code_cell: int) -> str:
        if output.output_type == "stream":
            return "" if output.name == "stderr" else _div(".printed", _fence(output.text))
        data = output.data
        if any(kind.startswith("application/vnd.jupyter.widget") for kind in data):
            return ""  # a progress bar
        if EXHIBIT in data:
            return self._exhibit(data[EXHIBIT], f"code cell {code_cell}")
        for suffix, kind in _MEDIA.items():
            if kind in data:
                return self._image(data[kind], suffix)
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return _div(".prose", textwrap.dedent(data[kind]))
        if "text/html" in data:
            arguments = ("-f", "html-native_divs-native_spans", "-t", _PIPES, "--columns=99999")
            text = _pandoc(data["text/html"], *arguments)
            return _div(".prose", re.sub(r"(?<!\\)@", r"\@", text))  # no citation of ours
        return _div(".printed", _fence(data.get("text/plain", "")))

    def _image(self, content: str, suffix: str) -> str:
        is_text = suffix == ".svg"
        file = self.folder / f"output-{len(list(self.folder.iterdir()))}{suffix}"
        file.write_bytes(content.encode() if is_text else base64.b64decode(content))
        return _div(".prose", f"![]({file})")

    def _exhibit(self, record: Mapping[str, Any], cell: str) -> str:
        notebook = Path(record["source"] or f"notebooks/{self.notebook.name}")
        origin = [notebook.stem, record["cell"] if record["source"] else cell, record["file"]]
        attributes = {
            "name": self.names[record["label"]],
            "source": "Source: " + " · ".join(part for part in origin if part),
        }
        if self.blob_url:
            attributes["link"] = f"{self.blob_url}/{notebook.as_posix()}"
        if record["kind"] == "fig":
            attributes |= _figure_files(self.root, record)
        pairs = " ".join(f'{key}="{_escape(value)}"' for key, value in attributes.items())
        text = f"{record.get('grid', '')}\n\n{record['caption']}"
        return _div(f"#{record['label']} .exhibit {pairs}", text)


def _figure_files(root: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """The figure's files for the HTML and for the PDF: the vector forms unless very large."""
    base, label = root / record["file"], record["label"]
    html = _find(base, (".svg", ".png"), label)
    if html.stat().st_size > _LARGEST_SVG:
        html = _find(base, (".png", ".svg"), label)
    pdf = _find(base, (".pdf", ".svg", ".png"), label)
    return {"width": record["width"], "html": str(html), "pdf": str(pdf)}


def _div(attributes: str, text: str) -> str:
    body = text.strip("\n")
    return f"::::: {{{attributes}}}\n{body}\n\n:::::"


def _fence(text: str, language: str = "text") -> str:
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).rstrip()
    fence = "~" * (3 + max(map(len, re.findall("~+", text)), default=0))
    return f"{fence} {language}\n{text}\n{fence}"


# ------------------------------------------------------------------ the two forms


def render(
    notebook: str | Path,
    *,
    html: str | Path,
    pdf: str | Path,
    title: str | None = None,
    subtitle: str | None = None,
    authors: Sequence[str] = (),
    date: str | None = None,
    commit: str | None = None,
    source_url: str | None = None,
    bibliography: str | Path = _TEMPLATES / "references.bib",
    root: str | Path = ".",
) -> None:
    """Write an executed notebook as a report, in two forms with the same numbers.

    Parameters
    ----------
    notebook : path
        An executed notebook; the module's docstring says what may stand in it.
    html, pdf : path
        The files to write; where the report cannot be set, both stay as they were.
    title : str, optional
        By default the notebook's first heading.
    subtitle, authors, date, commit : optional
        Stand below the title; nothing is taken from the clock, so equal input gives equal bytes.
    source_url : str, optional
        The repository's page; with a commit, the sources in captions become links.
    bibliography : path
        BibTeX file of the works that may be cited.
    root : path
        The folder that the paths of images are relative to.

    Raises
    ------
    UserError
        If the notebook has not been executed or ended in an error, an image is missing or remote,
        a reference, citation or formula cannot be resolved, or a file cannot be written.
    """
    notebook, root, bibliography = (Path(path).resolve() for path in (notebook, root, bibliography))
    cells = _read_notebook(notebook)
    blob_url = f"{source_url.rstrip('/')}/blob/{commit}" if source_url and commit else None
    metadata = {
        "title": title and _escape(title),
        "subtitle": subtitle and _escape(subtitle),
        "author": [_escape(author) for author in authors],
        "stamp": _stamp(date, commit, source_url),
        "works": [_escape(key) for key in _works(bibliography)],
        "link-citations": True,
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        outputs = _Outputs(notebook, _name_exhibits(cells), folder, root, blob_url)
        text = _assemble(cells, outputs.show)
        metadata_file = folder / "metadata.json"
        metadata_file.write_text(json.dumps({k: v for k, v in metadata.items() if v}))
        options = [f"--metadata-file={metadata_file}", f"--bibliography={bibliography}"]
        page = _write(text, _HTML, options, root)
        document = _typeset(_write(text, _TYPST, options, root), folder)
    write_text(html, page)
    write_atomically(pdf, lambda temporary: temporary.write_bytes(document))


def _works(bibliography: Path) -> list[str]:
    """The keys that may be cited."""
    try:
        text = bibliography.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read bibliography {bibliography}: {error.strerror}") from error
    return re.findall(r"^@\w+\s*\{\s*([^,\s]+)", text, re.MULTILINE)


def _stamp(date: str | None, commit: str | None, source_url: str | None) -> str:
    """Markdown of the line below the title."""
    parts = [_escape(date)] if date else []
    if commit:
        url = f"{source_url.rstrip('/')}/tree/{commit}" if source_url else None
        parts.append(f"commit [{commit[:10]}]({url})" if url else f"commit {commit[:10]}")
    return " · ".join(parts)


def _write(markdown: str, form: Sequence[str], options: Sequence[str], root: Path) -> str:
    filters = ["--lua-filter", str(_TEMPLATES / "report.lua"), "--citeproc"]
    return _pandoc(markdown, "-f", _MARKDOWN, "--columns=99999", "--standalone", *form, *filters,
                   *options, folder=root)  # fmt: skip


def _typeset(source: str, folder: Path) -> bytes:
    file = folder / "report.typ"
    file.write_text(source, encoding="utf-8")
    try:
        return typst.compile(str(file), root="/", format="pdf", ignore_system_fonts=True)
    except typst.TypstError as error:
        raise UserError(f"typst cannot set the PDF: {' '.join(str(error).split())}") from error


def _pandoc(text: str, *arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [pypandoc.get_pandoc_path(), *arguments],
        input=text.encode(), capture_output=True, check=False, cwd=folder,
    )  # fmt: skip
    complaint = done.stderr.decode()
    told = re.search(r"USER(\{.*\})", complaint)
    if told:
        raise _user_error(json.loads(told[1]))
    complaint = " ".join(complaint.split())
    formula = re.search(r"Could not convert TeX math (.*?),? rendering as TeX", complaint)
    if formula:
        shown = formula[1].replace("\\\\", "\\")
        raise UserError(f"this formula cannot be set: {shown}")
    if done.returncode:
        raise UserError(f"pandoc: {complaint}")
    return done.stdout.decode()


def _user_error(told: Mapping[str, Any]) -> UserError:
    """What the filter found wrong, as the user's one line."""
    if told["what"] == "title":
        return UserError("the report has no title: begin the notebook with '# ...' or give one")
    if told["what"] == "image":
        return UserError(f"image {told['value'][:80]!r}: must be a file below the project root")
    return unknown(told["what"], told["value"], told["allowed"])
