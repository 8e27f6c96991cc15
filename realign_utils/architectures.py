"""What timm knows of a registry row's model: its architecture and its published settings."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import timm

from realign_utils.errors import unknown


def architecture_of(row: pd.Series) -> tuple[str, dict[str, Any]]:
    """timm's name of a row's architecture, and the keyword arguments that it is built with."""
    architecture, arguments = _name(row), row.get("arguments") or {}
    if not timm.is_model(architecture):
        raise unknown("timm architecture", architecture, timm.list_models())
    return architecture, json.loads(arguments) if isinstance(arguments, str) else arguments


def settings_of(row: pd.Series) -> Any:
    """timm's settings of a row's pretrained model: its address, interpolation …; None: none."""
    return timm.get_pretrained_cfg(_name(row))


def interpolation_of(row: pd.Series) -> str:
    """The resize interpolation with which timm evaluates the row's model."""
    settings = settings_of(row)
    return settings.interpolation if settings else "bicubic"


def _name(row: pd.Series) -> str:
    return row.get("architecture") or str(row.name)
