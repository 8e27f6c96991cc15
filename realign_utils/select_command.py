"""What ``realign select`` and ``realign check-certificate`` do with a labelled matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realign_utils.certificate import (
    Certificate,
    certify,
    check_certificate,
    require_time,
    with_set,
)
from realign_utils.errors import UserError, unknown
from realign_utils.limits import Limit
from realign_utils.limits import exclude as fix_out
from realign_utils.limits import include as fix_in
from realign_utils.long_search import search_within


def choose_items(
    names: Sequence[str],
    similarity: np.ndarray,
    *,
    k: int,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pool: Path | None = None,
    restarts: int = 500,
    seed: int = 0,
    prove: bool = False,
    time_limit: float = 60,
    show: Callable[[str], object] | None = None,
) -> tuple[dict[str, Any], Certificate | None]:
    """Choose the k most similar items, and bound how similar any k could be.

    Parameters
    ----------
    names : sequence of str, length n
    similarity : numpy.ndarray, shape (n, n)
    k : int
    include, exclude : sequence of str
        Items that are in the set, and items that are not.
    pool : path, optional
        A file of the names to choose from, one a line.
    restarts, seed : int
        Of the search.
    prove : bool
        Whether to certify.
    time_limit : float
        Seconds for that, and for the search where the matrix is large.
    show : callable, optional
        Gets lines of progress.

    Returns
    -------
    result : dict
        What the command writes.
    certificate : Certificate or None
        Of the set that `result` names.

    Raises
    ------
    UserError
        If a name is unknown, `k` does not fit, or no set keeps what was asked.
    """
    require_time(time_limit)
    limits = [
        *fix_in(_rows(include, names, "--include"), len(names), names),
        *fix_out(_rows(exclude, names, "--exclude"), len(names), names),
    ]
    candidates = _rows(_names_in(pool), names, str(pool)) if pool else None
    options = {"restarts": restarts, "seed": seed, "candidates": candidates, "limits": limits}
    selection = search_within(similarity, k, time_limit=time_limit, show=show, **options)
    result = {
        "k": k,
        "restarts": selection.restarts,
        "seed": seed,
        "candidates": len(selection.candidates),
    }
    result |= {"limits": [limit.name for limit in limits]} if limits else {}
    chosen, score, certificate = selection.indices, selection.score, None
    if prove:
        certificate = certify(similarity, selection, time_limit=time_limit, show=show)
        certificate = with_set(similarity, certificate, certificate.best)
        chosen, score = certificate.indices, certificate.score
    result |= {"mean_similarity": score, "models": [names[row] for row in chosen]}
    for key in ("upper_bound", "gap", "optimal") if certificate else ():
        result[key] = getattr(certificate, key)
    return result, certificate


def what_is_proved(
    certificate: Certificate, names: Sequence[str], similarity: np.ndarray
) -> list[str]:
    """Check a certificate against a matrix and say in lines what it proves.

    Parameters
    ----------
    certificate : Certificate
    names : sequence of str, length n
    similarity : numpy.ndarray, shape (n, n)

    Returns
    -------
    list of str

    Raises
    ------
    UserError
        If it proves nothing about this matrix.
    """
    check_certificate(similarity, certificate)
    k, candidates = len(certificate.indices), {*certificate.candidates}
    left_out = [name for row, name in enumerate(names) if row not in candidates]
    asked = "within these limits and candidates" if certificate.limits else "of these candidates"
    asked = asked if certificate.limits or left_out else "of all items"
    return [
        f"the certificate holds: {len(certificate.leaves)} parts, each proved by one factorisation",
        f"no {k} of the {len(candidates)} candidates have a mean similarity "
        f"above {certificate.upper_bound!r}" + (" within the limits" if certificate.limits else ""),
        *([f"left out of the candidates: {', '.join(left_out)}"] if left_out else []),
        *(_told(limit, names) for limit in certificate.limits),
        f"mean similarity of its set: {certificate.score!r}; "
        f"optimal {asked}: {certificate.optimal}",
        f"its set: {', '.join(names[row] for row in certificate.indices)}",
    ]


def _told(limit: Limit, names: Sequence[str]) -> str:
    """What a limit does, whatever it is called."""
    ends = [("at least", limit.at_least), ("at most", limit.at_most)]
    ends = [f"{words} {value:.6g}" for words, value in ends if np.isfinite(value)]
    counted = [
        name if weight == 1 else f"{weight:.6g} for {name}"
        for name, weight in zip(names, limit.weights, strict=True)
        if weight
    ]
    what = " and ".join(ends) or "no end"
    return f"limit {limit.name!r}: {what}, counting {', '.join(counted) or 'nothing'}"


def _names_in(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--pool: cannot read {path}: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"--pool: {path} is empty; one name a line is wanted")
    return names


def _rows(wanted: Sequence[str], names: Sequence[str], where: str) -> list[int]:
    """Rows of names; a name that is unknown or given twice is told."""
    place = {name: row for row, name in enumerate(names)}
    for position, name in enumerate(wanted):
        if name not in place:
            raise UserError(f"{where}: {unknown('item', name, names)}")
        if name in wanted[:position]:
            raise UserError(f"{where}: {name!r} is given twice")
    return [place[name] for name in wanted]
