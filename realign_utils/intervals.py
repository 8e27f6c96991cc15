"""What an interval decides: which differences are more than chance, and which statements hold.

A comparison *holds* only if the 95 % interval of the difference excludes zero. Sets that are
compared on the same images are compared pairwise: what an image adds to both cancels, so two scores
can differ surely though their own intervals overlap. Scores on different images are independent.

Many comparisons: a statement "all these differences are positive" holds only if each is surely
positive, so its error is that of one. It fails if *any* is surely negative; of many differences that
are zero some would seem so by chance. So failing, and whatever else hangs on any of several signs,
takes them at a level by which all of them are right together (`sure_together`).

An interval that is not known decides nothing: its sign is NaN, and what hangs on it is not testable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from math import inf, isnan, nan

import numpy as np
import pandas as pd
from scipy.stats import t as student

HOLDS, FAILS, CLOSE, UNTESTABLE = "holds", "does not hold", "too close to call", "not testable"
VERDICTS = [HOLDS, FAILS, CLOSE, UNTESTABLE]
ERROR = 0.05
"""Share of wrong calls that is accepted: intervals are of level 1 − ERROR."""


class Sign(float):
    """Sign of a difference: 1, −1, 0 where it may be either, NaN where its interval is not known.

    A number, so that signs are compared, counted and negated as such. Its error `p` is the least
    level at which zero is excluded (two-sided): 0 of an exact value, NaN of an unknown one. A plain
    −1, 0 or 1 will do for an exact sign.
    """

    p: float

    def __new__(cls, value: float, p: float = 0.0) -> Sign:
        """Make a sign with its error."""
        sign = super().__new__(cls, value)
        sign.p = p
        return sign

    def __neg__(self) -> Sign:
        """The sign of the difference the other way round, as sure."""
        return Sign(-float(self), self.p)


def call(low: float, high: float, degrees: float = inf) -> Sign:
    """Sign of a difference, of which this is the 95 % interval.

    Parameters
    ----------
    low, high : float
        Ends of the interval; NaN if not known, equal if exact.
    degrees : float, optional
        Of freedom of its standard error (Student's t); infinite: the normal distribution.

    Returns
    -------
    Sign
    """
    if isnan(low) or isnan(high):
        return Sign(nan, nan)
    value, middle, reach = int(low > 0) - int(high < 0), (low + high) / 2, (high - low) / 2
    if reach == 0:
        return Sign(value, 0.0)
    in_errors = abs(middle) / reach * student.ppf(1 - ERROR / 2, degrees)
    return Sign(value, float(2 * student.sf(in_errors, degrees)))


def sure_together(signs: Iterable[float]) -> list[float]:
    """The signs that are right all together with error 5 %; 0 for the others, NaN if not known.

    Holm (1979): the surest of k is asked for an error of 5 % / k, the next for 5 % / (k − 1), and so
    on to the first that fails. Exact signs always pass.
    """
    signs = list(signs)
    errors = np.array([nan if isnan(sign) else getattr(sign, "p", 0.0) for sign in signs])
    together, passed = [0.0 if not isnan(sign) else nan for sign in signs], True
    for rank, place in enumerate(np.argsort(errors, kind="stable")):  # NaN come last
        passed = passed and bool(errors[place] * (len(signs) - rank) <= ERROR)
        if passed:
            together[place] = float(signs[place])
    return together


def verdict(calls: Iterable[float]) -> str:
    """Whether a statement "all these differences are positive" holds.

    It holds if all are surely positive: that *all* 95 % intervals must exclude zero keeps the error
    of "holds" at that of one. It fails if one is surely negative, at the level by which that is
    right of all of them together (`sure_together`: with k differences, an interval of 100 − 5 / k
    percent). Otherwise it is not testable if an interval is not known, else too close to call.

    Parameters
    ----------
    calls : iterable of Sign, or of −1, 0, 1 for exact values
        As `call` and `paired_calls` give them.
    """
    calls = list(calls)
    if any(sign < 0 for sign in sure_together(calls)):
        return FAILS
    if not calls or any(isnan(sign) for sign in calls):
        return UNTESTABLE
    return HOLDS if min(calls) > 0 else CLOSE


def paired_calls(differences: pd.DataFrame, names: Sequence[str]) -> dict[tuple[str, str], Sign]:
    """By (first, second): the sign of each difference, in both directions.

    Parameters
    ----------
    differences : pandas.DataFrame
        Columns first, second, low, high, and degrees (of freedom; without it, infinite).
    names : sequence of str
        The submissions to call.
    """
    calls = {}
    for row in differences.itertuples():
        if row.first in names and row.second in names:
            sign = call(row.low, row.high, getattr(row, "degrees", inf))
            calls[row.first, row.second], calls[row.second, row.first] = sign, -sign
    return calls


def ranks_better(
    reference: Mapping[tuple[str, str], float],
    other: Mapping[tuple[str, str], float],
    real: Mapping[tuple[str, str], float],
) -> str:
    """Verdict on "the reference proxy orders more pairs of submissions rightly than the other".

    Parameters
    ----------
    reference, other, real : mapping of (str, str) to Sign, or to −1, 0, 1 for exact values
        Signs of the differences between submissions, by `paired_calls`. Those count that are right
        all together (`sure_together`); any other may be either, and the verdict stands only if none
        of them can turn it. If one that is not known could, it is not testable.
    """
    pairs = list(combinations(sorted({name for pair in real for name in pair}), 2))
    signs = [known[pair] for pair in pairs for known in (reference, other, real)]
    sure = sure_together(signs)
    least = most = 0
    for place in range(0, len(sure), 3):
        options = ([s] if s in (-1, 1) else (1, -1) for s in sure[place : place + 3])
        possible = [
            int(ours == true) - int(theirs == true) for ours, theirs, true in product(*options)
        ]
        least, most = least + min(possible), most + max(possible)
    if least > 0:
        return HOLDS
    if most <= 0 and pairs:
        return FAILS
    return UNTESTABLE if not pairs or any(isnan(sign) for sign in signs) else CLOSE
