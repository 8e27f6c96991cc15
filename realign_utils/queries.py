"""Queries on the columns of a registry: what a pool of candidates is."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np
import pandas as pd

from realign_utils.errors import UserError, unknown

MECHANISMS: Mapping[str, str] = {
    "convolution": "by convolution, without self-attention",
    "attention": (
        "by self-attention; convolutions only cut, merge or number the patches, "
        "or widen an attention block's own projections and MLP"
    ),
    "hybrid": "by self-attention and, on a branch or in blocks of its own, by convolution or pooling",
    "mlp": "by linear layers across positions, as in MLP-Mixer",
    "pooling": "by average pooling, as in PoolFormer",
    "recurrence": "by recurrent layers, as in Sequencer",
}
"""How a model mixes information between positions of the image, after its stem."""

_EXAMPLE = "write it as \"mechanism == 'hybrid' and params_m < 20\""
_METHODS = re.compile(r"(\w+)\.(isin|str\.contains|str\.startswith|str\.endswith)")
_NAME = r"\w[\w.-]*"
_PLAIN = (ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.UnaryOp, ast.unaryop, ast.BinOp,
          ast.BitAnd, ast.BitOr, ast.List, ast.Tuple, ast.Constant, ast.keyword, ast.Load)  # fmt: skip


def rows_where(registry: pd.DataFrame, query: str) -> pd.DataFrame:
    """Rows of a registry for which a query holds.

    Parameters
    ----------
    registry : pandas.DataFrame
        As `registry.read_registry` gives it.
    query : str
        Comparisons of columns with constants, joined by and, or, not; evaluated by pandas once it
        is known to be harmless.

    Returns
    -------
    pandas.DataFrame
        At least one row, in the registry's order.

    Raises
    ------
    UserError
        If it cannot be understood, asks for more than that, or chooses nothing.
    """
    query = query.replace("\n", " ").strip()
    _require_no_names(query, registry)
    try:
        tree = ast.parse(query, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"the query {query!r} cannot be understood; {_EXAMPLE}") from None
    _require_plain(tree, registry, query)
    _require_mechanisms(tree)
    try:
        holds = np.asarray(registry.eval(query, engine="python"))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the query {query!r} cannot be evaluated: {reason}") from error
    if holds.dtype != bool or holds.shape != (len(registry),):
        raise UserError(f"the query {query!r} is not true or false for each model; {_EXAMPLE}")
    if not holds.any():
        hint = _nearest_value(registry, tree)
        raise UserError(f"the query {query!r} chooses none of {len(registry)} models{hint}")
    return registry[holds]


def _require_no_names(query: str, registry: pd.DataFrame) -> None:
    """Refuse names of models, which are no query: they are given as a list."""
    names = re.split(r"\s*,\s*", query)
    words = {*registry.columns, *registry["family"], *MECHANISMS, "model"}
    if all(re.fullmatch(_NAME, name) and name not in words for name in names):
        raise UserError(f"{query!r} is no query; names of models need a list: [{', '.join(names)}]")


def _require_plain(node: ast.AST, registry: pd.DataFrame, query: str) -> None:
    """Let only comparisons of columns with constants and their combinations through.

    pandas would evaluate any method call, ``family.to_csv(…)`` included.
    """
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Name):
        _require_column(node.id, registry, query)
    elif isinstance(node, ast.Call) and (match := _METHODS.fullmatch(ast.unparse(node.func))):
        _require_column(match[1], registry, query)
        children = [*node.args, *node.keywords]
    elif not isinstance(node, _PLAIN):
        what = ast.unparse(node) or type(node).__name__
        allowed = "comparisons, and, or, not, in, .isin, .str.contains/startswith/endswith"
        raise UserError(f"{what!r} in the query {query!r} is not allowed; allowed: {allowed}")
    for child in children:
        _require_plain(child, registry, query)


def _require_mechanisms(tree: ast.AST) -> None:
    """Refuse a misspelt mechanism, which in a list of several would pass unnoticed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "mechanism":
            for text in _texts(node.comparators[0]) if len(node.comparators) == 1 else []:
                if text not in MECHANISMS:
                    raise unknown("mechanism in the query", text, MECHANISMS)


def _texts(tree: ast.AST) -> list[str]:
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str)]


def _require_column(name: str, registry: pd.DataFrame, query: str) -> None:
    columns = ["model", *registry.columns.difference(["mean", "std", "arguments"], sort=False)]
    if name in columns:
        return
    if name in {*MECHANISMS, *registry["family"]}:
        raise UserError(f"{name} in the query {query!r} is text: write {name!r} in quotes")
    raise unknown(f"column in the query {query!r}:", name, columns)


def _nearest_value(registry: pd.DataFrame, tree: ast.AST) -> str:
    known = {*registry.index, *registry["family"]}
    for text in _texts(tree):
        if text not in known and (nearest := get_close_matches(text, known, n=1)):
            return f"; did you mean {nearest[0]!r} by {text!r}?"
    return ""
