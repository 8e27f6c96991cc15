"""What a profile asks of a set besides its pool, as limits for the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from realign_utils.errors import UserError
from realign_utils.limits import Limit, count_limit, exclude, include, require_feasible
from realign_utils.registry import members

ENDS = {"at_least": "at least", "at_most": "at most"}


def limits_of(
    constraints: Mapping[str, Any] | None, registry: pd.DataFrame, models: Sequence[str]
) -> tuple[Limit, ...]:
    """Limits on the rows of a matrix, each with a name that says in a message what was asked.

    Parameters
    ----------
    constraints : mapping or None
        Keys include, exclude, counts, params_m (see `parameters.Constraints`).
    registry : pandas.DataFrame
        All models, those without features too.
    models : sequence of str, length n
        The models of the matrix.

    Returns
    -------
    tuple of Limit

    Raises
    ------
    UserError
        If a model is unknown, a query is no plain comparison, or a model that is fixed in is not
        among `models`.
    """
    asked = {key: value for key, value in (constraints or {}).items() if value}
    limits = []
    if fixed := asked.get("include"):
        rows = members(registry, fixed, models)
        if missing := [name for name in fixed if name not in models]:
            reason = f"is not among the {len(models)} models that can be chosen"
            raise UserError(f"include: {missing[0]!r} {reason}")
        limits += include(rows, len(models), models)
    if barred := asked.get("exclude"):
        limits += exclude(members(registry, barred, models), len(models), models)
    for query, ends in asked.get("counts", {}).items():
        rows = members(registry, query, models)
        for end, value, words in _ends(ends):
            name = f"{words} {value} of {query}"
            limits.append(count_limit(rows, len(models), name=name, **{end: value}))
    for end, value, words in _ends(asked.get("params_m", {})):
        weights = tuple(registry.loc[list(models), "params_m"].astype(float))
        name = f"{words} {value:g} M parameters in all"
        limits.append(Limit(name, weights, **{end: value}))
    return tuple(limits)


def conflicts(
    constraints: Mapping[str, Any], pool: pd.DataFrame, k: int, registry: pd.DataFrame
) -> list[str]:
    """What is wrong with constraints, in lines: names, queries, or no k models that keep them all.

    Parameters
    ----------
    constraints : mapping
        As for `limits_of`.
    pool : pandas.DataFrame
        The candidates' rows of the registry.
    k : int
    registry : pandas.DataFrame
        All models.

    Returns
    -------
    list of str
        Empty if some set keeps them.
    """
    try:
        limits = limits_of(constraints, registry, list(pool.index))
        require_feasible(limits, k, range(len(pool)), len(pool))
    except UserError as error:
        return [f"constraints: {error}"]
    return []


def _ends(ends: Mapping[str, float | None]) -> Iterator[tuple[str, float, str]]:
    """Key, value and words of the ends that are given."""
    return ((end, ends[end], words) for end, words in ENDS.items() if ends.get(end) is not None)
