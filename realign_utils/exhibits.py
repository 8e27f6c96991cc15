"""What a notebook displays for the report: figures and tables, with caption, label and source."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from realign_utils.errors import UserError, unknown

EXHIBIT = "application/vnd.realign.exhibit+json"
"""The type under which an executed notebook carries what a figure or table is made of."""

MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


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
        the first of ``.pdf``, ``.svg``, ``.png``. With ``.json`` beside them (`figure_style.save`
        writes it) the figure in the HTML answers the pointer.
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
        ``"code cell 3"``; by default the cell that saves a file of this name. Without a source,
        the cell that shows it.

    Raises
    ------
    UserError
        If the label has another form or there is no such file.
    """
    record = _record("fig", label, caption, number, source, cell, str(path)) | {"width": width}
    file = find_file(Path(path), (".png", ".svg"), label)
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
        columns.append([literal(str(name)), "--:" if numeric else ":--", *cells])
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
    return literal(text.replace("-", "−") if isinstance(value, int | float) else text)


def literal(text: str) -> str:
    """Markdown that shows a text literally, whatever a file brought in."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def find_file(path: Path, suffixes: Iterable[str], label: str) -> Path:
    """The first of a figure's files that is there."""
    candidates = [path.with_name(path.name + suffix) for suffix in suffixes]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        names = " or ".join(str(file) for file in candidates)
        raise UserError(f"figure {label}: no file {names}")
    return found


def _data_uri(file: Path) -> str:
    return f"data:{MEDIA[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
