"""What timm knows of a registry row's model: its architecture and its published settings."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import timm

from realign_utils.errors import UserError, unknown


def architecture_of(row: pd.Series) -> tuple[str, dict[str, Any]]:
    """timm's name of a row's architecture, and the keyword arguments that it is built with."""
    architecture, arguments = _name(row), row.get("arguments") or {}
    if not timm.is_model(architecture):
        raise unknown("timm architecture", architecture, timm.list_models())
    return architecture, json.loads(arguments) if isinstance(arguments, str) else arguments


def require_architectures(registry: pd.DataFrame, where: str) -> None:
    """Stop before any work where timm has not the architecture of a model.

    Parameters
    ----------
    registry : pandas.DataFrame
        The models that are to be built.
    where : str
        What the error calls it: its file.

    Raises
    ------
    UserError
        One line for each such model, with the nearest name.
    """
    faults = []
    for _, row in registry.iterrows():
        try:
            architecture_of(row)
        except UserError as error:
            faults.append(f"{where}: model {str(row.name)!r}: {error}")
    if faults:
        raise UserError("\n".join(faults))


def settings_of(row: pd.Series) -> Any:
    """timm's settings of a row's pretrained model: its address, interpolation …; None: none."""
    return timm.get_pretrained_cfg(_name(row))


def interpolation_of(row: pd.Series) -> str:
    """The resize interpolation with which timm evaluates the row's model."""
    settings = settings_of(row)
    return settings.interpolation if settings else "bicubic"


def _name(row: pd.Series) -> str:
    return row.get("architecture") or str(row.name)
