"""The table of models: one line a model, read with every cell checked, and chosen from.

A registry is a CSV file. Its first columns say how a model is to be run: ``model``, ``layer`` (the
module whose output is taken), ``resize`` and ``crop`` (pixels), ``mean`` and ``std`` (three numbers
with blanks between, for pixel values in 0..1). ``family``, ``mechanism`` and ``params_m`` (millions
of parameters) say what it is, so that pools of candidates are queries on these columns.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from realign_utils.errors import UserError, unknown
from realign_utils.queries import MECHANISMS, rows_where

_WORDS = """
    BAT BEiT BotNet BotNeXt ByobNet CAFormer CaiT CoaT CoAtNet CoAtNeXt ConvFormer ConViT ConvMixer
    ConvNeXt CrossViT CSP DarkNet DaViT DeiT DenseNet DLA DPN ECA EdgeNeXt EfficientFormer
    EfficientNet EfficientViT ESE EVA FastViT FBNet FocalNet GC GCViT GERNet GhostNet gMLP
    HaloBotNet HaloNet HardCoReNAS HGNet HRNet LCNet LeViT MambaOut MaxViT MaxxViT MixNet MnasNet
    MobileNet MobileOne MobileViT MViT NASNet NesT NeXt NextViT NF NFNet PiT PoolFormer PVT RDNet
    RegNet RepGhostNet RepVGG RepViT Res2Net ResMLP ResNeSt ResNet ResNeXt RexNet RS SE SelecSLS
    SENet SK SPNASNet TinyNet TinyViT TNT TResNet VGG Visformer ViT ViTamin VOLO VoVNet XCiT"""
_SPELLINGS = {word.lower(): word for word in _WORDS.split()}


def read_registry(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> pd.DataFrame:
    """Read a registry and check every cell.

    Parameters
    ----------
    paths : path, or sequence of paths
        A UTF-8 CSV file with the columns model, layer, resize, crop, mean, std, family, mechanism,
        params_m, and optionally architecture (timm's name, by default the model's), arguments (a
        JSON object of keywords for ``timm.create_model``), alias (``model=…`` or ``layer=…``, as a
        newer timm calls it), accuracy and any others, e.g. for use in queries. Several files are
        read one after the other; no model may stand in two.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``model``, in the file's order. ``resize``, ``crop`` int; ``mean``, ``std``
        tuples of 3 floats; ``params_m``, ``accuracy`` float; ``arguments`` dict; the rest text.
        Columns not named above are numbers where every cell is one.

    Raises
    ------
    UserError
        Names the file, line, column and value of the first fault.
    """
    several = isinstance(paths, Sequence) and not isinstance(paths, str)
    files = [Path(path) for path in (paths if several else [paths])]
    places: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for path, line, cells in ((file, *entry) for file in files for entry in _lines(file)):
        row = {column: _parse(path, line, column, text) for column, text in cells.items()}
        if row["crop"] > row["resize"]:
            reason = f"is larger than the resized image ({row['resize']})"
            raise _bad_cell(path, line, "crop", cells["crop"], reason)
        if row["model"] in places:
            reason = f"stands already in {places[row['model']]}"
            raise _bad_cell(path, line, "model", row["model"], reason)
        places[row["model"]] = f"line {line}" if len(files) == 1 else f"{path}, line {line}"
        rows.append(row)
    if not rows:
        raise UserError(f"{files[0]}: no models, only the line of column names")
    return _table(rows)


def choose(registry: pd.DataFrame, which: str | Sequence[str]) -> pd.DataFrame:
    """Choose models of a registry.

    Parameters
    ----------
    registry : pandas.DataFrame
        As `read_registry` gives it.
    which : str or sequence of str
        ``"all"``; a query on the columns, such as ``"mechanism == 'hybrid' and params_m < 20"`` or
        ``"family.str.contains('res|darknet')"``; or a list of model names.

    Returns
    -------
    pandas.DataFrame
        The chosen rows, at least one, in the registry's order, or in the list's where one is given.

    Raises
    ------
    UserError
        If a model or column is unknown, a query is no plain comparison, or nothing is chosen.
    """
    if isinstance(which, str):
        return registry if which == "all" else rows_where(registry, which)
    names = list(which) if isinstance(which, Sequence) else [which]
    if not names:
        raise UserError("an empty list of models was given; write 'all', a query, or names")
    for position, name in enumerate(names):
        if not isinstance(name, str) or name not in registry.index:
            raise _unknown_model(name, registry)
        if name in names[:position]:
            raise UserError(f"the model {name!r} is listed twice")
    return registry.loc[names]


def members(registry: pd.DataFrame, which: str | list[str], models: Sequence[str]) -> list[int]:
    """Places, in a list of models, of those that a query or list chooses from the registry.

    Parameters
    ----------
    registry : pandas.DataFrame
        All models, those without features too.
    which : str or list of str
        As for `registry.choose`.
    models : sequence of str
        The models that have features.

    Returns
    -------
    list of int
        Ascending for a query, in the list's order for a list; a chosen model without features
        is left out.
    """
    place = {name: i for i, name in enumerate(models)}
    return [place[name] for name in choose(registry, which).index if name in place]


def _unknown_model(name: object, registry: pd.DataFrame) -> UserError:
    tagged = [model for model in registry.index if model.partition(".")[0] == name]
    if tagged:  # timm's tag was left out: nearer than any name of similar spelling
        return UserError(f"unknown model {name!r}; did you mean {tagged[0]!r}?")
    return unknown("model", name, registry.index)


def describe(row: Mapping[str, Any] | pd.Series) -> str:
    """Name a model's architecture as the paper's Appendix A does.

    Parameters
    ----------
    row : mapping or pandas.Series
        With ``family`` and ``mechanism``, e.g. a row of `read_registry`.

    Returns
    -------
    str
        Such as ``"ECA-ResNet"``, ``"DenseNet + blur pool"`` or ``"BotNet (attn hybrid)"``. RepViT
        keeps the paper's "(mobile hybrid)", though it has no self-attention.
    """
    name = "-".join(_SPELLINGS.get(word, word.capitalize()) for word in row["family"].split("-"))
    name = re.sub(r"-V(\d+)$", r" v\1", name)
    name = name.replace("-Blur", " + blur pool").replace("-Aa", " + anti-alias")
    kind = "mobile" if row["family"] == "repvit" else "attn"
    return f"{name} ({kind} hybrid)" if kind == "mobile" or row["mechanism"] == "hybrid" else name


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each model's line number and its cells by column."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [column.strip() for column in next(reader, [])]
            _check_columns(path, columns)
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(columns):
                    counts = f"{len(cells)} cells under {len(columns)} column names"
                    raise UserError(f"{path}, line {reader.line_num}: {counts}")
                stripped = (cell.strip() for cell in cells)
                yield reader.line_num, dict(zip(columns, stripped, strict=True))
    except OSError as error:
        raise UserError(f"cannot read the registry {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    for column in _REQUIRED:
        if column not in columns:
            nearest = get_close_matches(column, [c for c in columns if c not in _REQUIRED], n=1)
            hint = f"; is it {nearest[0]!r}?" if nearest else ""
            raise UserError(f"{path}, line 1: the column {column!r} is missing{hint}")
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"{path}, line 1: the column {column!r} stands there twice")


def _bad_cell(path: Path, line: int, column: str, text: str, reason: str) -> UserError:
    return UserError(f"{path}, line {line}, column {column!r}: {text!r} {reason}")


def _parse(path: Path, line: int, column: str, text: str) -> Any:
    try:
        return _PARSERS.get(column, str)(text)
    except ValueError as error:
        raise _bad_cell(path, line, column, text, str(error)) from None


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    registry = pd.DataFrame(rows).set_index("model")
    for column in registry.columns.difference([*_PARSERS, "alias", "raw_output_shape"]):
        try:
            registry[column] = pd.to_numeric(registry[column])
        except ValueError:
            continue
    registry = registry.fillna({"alias": "", "raw_output_shape": ""})
    defaults = {"architecture": "", "arguments": "{}", "alias": "", "accuracy": ""}
    for column, text in defaults.items():
        if column not in registry:
            registry[column] = [_PARSERS.get(column, str)(text) for _ in rows]
    unnamed = registry["architecture"] == ""
    registry["architecture"] = registry["architecture"].mask(unnamed, registry.index.to_series())
    return registry


def _text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _pixels(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise ValueError("is not a whole number of pixels")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def _above_zero(text: str) -> float:
    if _number(text) <= 0:
        raise ValueError("is not above 0")
    return _number(text)


def _three(parse: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    def parse_three(text: str) -> tuple[float, ...]:
        if len(text.split()) != 3:
            raise ValueError("is not three numbers with blanks between")
        return tuple(map(parse, text.split()))

    return parse_three


def _mechanism(text: str) -> str:
    if text not in MECHANISMS:
        raise ValueError(f"is none of {', '.join(MECHANISMS)}")
    return text


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError('is not a JSON object, such as {"img_size": 32}')
    return arguments


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "model": _text,
    "layer": _text,
    "resize": _pixels,
    "crop": _pixels,
    "mean": _three(_number),
    "std": _three(_above_zero),
    "family": _text,
    "mechanism": _mechanism,
    "params_m": _above_zero,
    "architecture": str,
    "arguments": _arguments,
    "accuracy": lambda text: _number(text) if text else math.nan,
}
_REQUIRED = tuple(_PARSERS)[:9]
