"""What size differences between sets have, where single entries may be of quite another size.

One pair at -1e12 among similarities below 1 says "not these two together" and no more. If it set the
scale, every difference that matters would drown in the tolerance and in the rounding.
"""

from __future__ import annotations

import numpy as np

from realign_utils.limits import Loads
from realign_utils.swaps import improve_by_swaps, mean_over_pairs

_MARGIN = 100.0
"""In typical entries: ordinary matrices stay as they are."""


def typical(matrix: np.ndarray) -> float:
    """The median size of the entries that are not 0; 1 where all are.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        With a zero diagonal.
    """
    sizes = np.abs(matrix[matrix != 0])
    return float(np.median(sizes)) if len(sizes) else 1.0


def raised(matrix: np.ndarray, floor: float) -> np.ndarray:
    """The matrix with every entry below the floor lifted to it.

    No set's mean is lower on it, so a bound on it is a bound on the matrix, whatever the floor.
    """
    if floor == floor and not (matrix < floor).any():
        return matrix
    lifted = np.maximum(matrix, floor)
    np.fill_diagonal(lifted, 0.0)
    return lifted


def floor_below(matrix: np.ndarray, k: int, score: float) -> float:
    """A level for `raised` that leaves every set with a lifted pair worse than a mean of `score`.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        With a zero diagonal.
    k : int
    score : float
        The mean of some k-set.

    Returns
    -------
    float
    """
    pairs = k * (k - 1) / 2
    highest = max(float(np.triu(matrix, 1).max()), float(np.tril(matrix, -1).max()))
    return pairs * score - (pairs - 1) * highest - _MARGIN * typical(matrix)


def without_outliers(
    matrix: np.ndarray, starts: np.ndarray, loads: Loads
) -> tuple[np.ndarray, np.ndarray, float]:
    """Improve sets by swaps, on the matrix with such pairs lifted as no good set can hold.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        With a zero diagonal.
    starts : ndarray of int, shape (r, k)
    loads : Loads

    Returns
    -------
    lifted : ndarray of shape (n, n)
    ends : ndarray of int, shape (r, k)
    floor : float
        Of `lifted`; minus infinity where nothing had to be lifted.
    """
    lifted, ends, floor = matrix, improve_by_swaps(matrix, starts, loads), -np.inf
    while True:
        means = mean_over_pairs(matrix, ends)[loads.excess(ends) == 0]
        higher = floor_below(matrix, starts.shape[1], means.max()) if len(means) else -np.inf
        if not higher > floor or not (raised(matrix, higher) != lifted).any():
            return lifted, ends, floor
        floor, lifted = higher, raised(matrix, higher)
        ends = improve_by_swaps(lifted, ends, loads)
