"""From a number in the report back to the file, the cell, the features and the images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nbformat
import pandas as pd

from realign_utils.claims_shown import found_text
from realign_utils.errors import UserError
from realign_utils.intervals import VERDICTS

WRITES = {"cka": "write_comparison(", "submissions": "save_submission("}
"""What the cell calls that writes the files of a folder; other files it names."""


def examples(card: pd.DataFrame, most: int = 3) -> pd.DataFrame:
    """The first claim of each verdict that rests on images of the run, in the order of `VERDICTS`."""
    on_images = card[(card["images"] != "") & (card["notebook"] != "")]
    first = on_images.groupby("verdict", sort=False).head(1)
    order = first["verdict"].map(VERDICTS.index)
    return first.loc[order.sort_values(kind="stable").index].head(most)


def trail(row: pd.Series, runs: str | Path, notebooks: str | Path = "notebooks") -> pd.DataFrame:
    """The way of one claim's number back to the images.

    Parameters
    ----------
    row : pandas.Series
        Of the scorecard, named by its claim.
    runs : path
        The run's folder, with ``scorecard.csv``.
    notebooks : path
        Where the notebooks lie.

    Returns
    -------
    pandas.DataFrame
        Columns step, where, what: the scorecard's row, the file, the cell that wrote it, the
        features and the images, with hashes.

    Raises
    ------
    UserError
        If no cell of the notebook writes the file.
    """
    runs = Path(runs)
    card = pd.read_csv(runs / "scorecard.csv")
    line = int(card.index[card["claim"] == row.name][0]) + 2
    cell = producing_cell(Path(notebooks) / f"{row['notebook']}.ipynb", row["file"])
    steps = [
        ("scorecard", f"{runs}/scorecard.csv, line {line}", f"{row['verdict']}: {found_text(row)}"),
        ("file", f"{runs}/{row['file']}", _digest(runs / row["file"])),
        ("cell", f"{notebooks}/{row['notebook']}.ipynb, code cell {cell}",
         f"as it ran: {runs}/notebooks/{row['notebook']}.ipynb"),
    ]  # fmt: skip
    features = pd.read_csv(runs / "features.csv")
    for images in row["images"].split():
        files = features.loc[features["images"] == images, "file"]
        first = Path(files.iloc[0]).name
        steps.append(("features", f"{runs}/features.csv, {images}",
                      f"{len(files)} files in the store, the first {first[:12]}…"))  # fmt: skip
        manifest = pd.read_csv(runs / "images" / f"{images}.csv")
        path = f"{runs}/images/{images}.csv"
        steps.append(("images", path, f"{len(manifest)} images, {_digest(Path(path))}"))
    return pd.DataFrame(steps, columns=["step", "where", "what"])


def producing_cell(notebook: Path, file: str) -> int:
    """Number of the code cell of a notebook that writes a file of the run, counted as in the report.

    Raises
    ------
    UserError
        If there is none.
    """
    folder, name = file.split("/")[0], Path(file).name
    wanted = WRITES.get(folder) or f'"{name}"'
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        lines = cell.source.splitlines()
        if any(wanted in line and ("write" in line or "save" in line) for line in lines):
            return number
    raise UserError(f"no cell of {notebook} writes {file}")


def _digest(path: Path) -> str:
    return f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}…"
