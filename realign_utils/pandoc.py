"""pandoc, which comes in its wheel: its complaints become the user's one line."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pypandoc

from realign_utils.errors import UserError, unknown


def convert(text: str, *arguments: str, folder: Path | None = None) -> str:
    """Run pandoc on a text.

    Parameters
    ----------
    text : str
    *arguments : str
        Of pandoc's command line.
    folder : path, optional
        Working directory.

    Returns
    -------
    str
        What pandoc writes.

    Raises
    ------
    UserError
        If it fails, cannot set a formula, or one of our filters found a fault.
    """
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
