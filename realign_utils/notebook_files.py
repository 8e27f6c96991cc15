"""The notebooks as files: parameters cells written from the demo's profile, pairs kept in step.

For maintainers, by ``make notebooks``: the text (`.py`) is the source of a notebook's story, the
demo's profile and the schema are the source of its parameters cell, and the `.ipynb` is made of
both. A test fails when they are out of step.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from realign_utils.parameters import Parameters
from realign_utils.pipeline import declared
from realign_utils.profiles import load, project_root
from realign_utils.store import write_atomically, write_text


def parameters_cell(names: list[str], values: dict[str, Any]) -> str:
    """Source of a parameters cell: an assignment each, with its description as a comment.

    Parameters
    ----------
    names : list of str
        Parameters that the notebook reads.
    values : dict
        A profile's values, plain data.

    Returns
    -------
    str
        Formatted Python.
    """
    lines = []
    for name in names:
        comment = f"  # {Parameters.model_fields[name].description}"
        text = _assignment(name, values[name])
        first, newline, rest = text.partition("\n")
        lines.append(first + comment + newline + rest)
    return "\n".join(lines)


def _assignment(name: str, value: Any) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--line-length=100", "-"]
    source = f"{name} = {value!r}\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def sync(folder: Path, values: dict[str, Any]) -> list[Path]:
    """Write the parameters cells and the `.ipynb` of all notebooks from their text.

    Parameters
    ----------
    folder : path
        Holds the `.py` files in jupytext's percent format.
    values : dict
        The demo's values.

    Returns
    -------
    list of path
        The notebooks.
    """
    written = []
    for text in sorted(folder.glob("*.py")):
        notebook = jupytext.read(text)
        notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = parameters_cell(list(declared(notebook)), values)
        write_text(text, jupytext.writes(notebook, fmt="py:percent"))
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"{text.stem.replace('_', '-')}-{number}"
        path = text.with_suffix(".ipynb")
        write_atomically(path, lambda temporary, made=notebook: nbformat.write(made, temporary))
        written.append(path)
    return written


if __name__ == "__main__":
    for path in sync(project_root() / "notebooks", load("demo")[0].model_dump(mode="json")):
        print(path)
