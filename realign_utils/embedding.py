"""Where the models lie among each other: an order by clustering, a map by scaling.

Pure functions over a similarity matrix (1 = same); the dissimilarity is always 1 - similarity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

MAXIMUM_ITERATIONS = 2000
RELATIVE_TOLERANCE = 1e-9
RESAMPLED_TOLERANCE = 1e-6
"""Of the maps that are drawn as faint points only."""


@dataclass(frozen=True)
class Embedding:
    """A map of the models in the plane.

    Attributes
    ----------
    coordinates : numpy.ndarray, shape (m, 2), float64
        One point per model, in units of dissimilarity, centred; the first axis has the larger
        spread. NaN for a model of which no similarity is known.
    stress : float
        Kruskal's stress-1, the root of the summed squared errors of the distances over the summed
        squared distances: 0 is a faithful map.
    """

    coordinates: np.ndarray
    stress: float


def order(similarity: np.ndarray) -> np.ndarray:
    """Order the models so that similar ones are neighbours.

    Hierarchical clustering with average linkage on 1 - similarity and optimal leaf ordering
    (Bar-Joseph et al. 2001). Of the two directions that are equally good, the one is taken that
    begins with the end that is more like all the others.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (m, m)
        Symmetric; an unknown (NaN) pair counts as one of average dissimilarity.

    Returns
    -------
    numpy.ndarray, shape (m,), int
        Indices of the models, in order.
    """
    known = _known_dissimilarity(similarity)
    if len(known) < 3:
        return np.arange(len(known))
    filled = _with_mean_for_unknown(known)
    pairs = squareform(filled, checks=False)
    indices = leaves_list(linkage(pairs, method="average", optimal_ordering=True))
    average = filled.sum(axis=1)
    return indices[::-1] if average[indices[-1]] < average[indices[0]] else indices


def embed(similarity: np.ndarray, *, seed: int = 0, restarts: int = 8) -> Embedding:
    """Map the models into the plane by metric multidimensional scaling of 1 - similarity.

    SMACOF (de Leeuw 1977; Borg & Groenen 2005, chapter 8) from the classical solution and from
    random starts; the map of the lowest stress is kept.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (m, m)
        Symmetric; unknown (NaN) pairs get no weight.
    seed : int
        Seed of the random starts.
    restarts : int
        Number of random starts beside the classical one.

    Returns
    -------
    Embedding
        Turned to its principal axes, each pointing to its most distant model, so that equal input
        gives an equal picture.
    """
    known = _known_dissimilarity(similarity)
    placed = np.flatnonzero(np.isfinite(known).sum(axis=1) > 1)
    coordinates = np.full((len(known), 2), np.nan)
    if len(placed) < 2:
        return Embedding(coordinates, float("nan"))
    target = known[np.ix_(placed, placed)]
    random = np.random.default_rng(seed)
    spread = np.nanmean(target)
    starts = [_classical(target)]
    starts += [random.normal(scale=spread, size=(len(placed), 2)) for _ in range(restarts)]
    stress, best = min((_smacof(target, start) for start in starts), key=lambda found: found[0])
    coordinates[placed] = _canonical(best)
    return Embedding(coordinates, stress)


def resampled_maps(matrices: np.ndarray, reference: Embedding) -> np.ndarray:
    """Map the models on matrices that other images might have given, each laid onto a reference.

    Parameters
    ----------
    matrices : numpy.ndarray, shape (r, m, m)
        Similarities, e.g. some of `objectives.plausible`.
    reference : Embedding
        The map of all images: each search starts there, and `align` brings its end back, so that
        what is left is what the images change.

    Returns
    -------
    numpy.ndarray, shape (r, m, 2)
        NaN for a model that the reference does not place.
    """
    placed = np.isfinite(reference.coordinates).all(axis=1)
    start = reference.coordinates[placed]
    maps = np.full((len(matrices), len(placed), 2), np.nan)
    if placed.sum() < 2:
        return maps
    for index, matrix in enumerate(matrices):
        target = _known_dissimilarity(matrix)[np.ix_(placed, placed)]
        _, points = _smacof(target, start, RESAMPLED_TOLERANCE)
        maps[index, placed] = align(points, start)
    return maps


def align(coordinates: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Move one map onto another by turning, mirroring and shifting (orthogonal Procrustes).

    Parameters
    ----------
    coordinates, reference : numpy.ndarray, shape (m, 2)
        Two maps of the same models; a model that is NaN in either is left out of the fit.

    Returns
    -------
    numpy.ndarray, shape (m, 2)
        `coordinates`, moved but not scaled: distances within the map stay.
    """
    both = np.isfinite(coordinates).all(axis=1) & np.isfinite(reference).all(axis=1)
    centre, target = coordinates[both].mean(axis=0), reference[both].mean(axis=0)
    cross = (coordinates[both] - centre).T @ (reference[both] - target)
    left, _, right = np.linalg.svd(cross)
    return (coordinates - centre) @ (left @ right) + target


def _known_dissimilarity(similarity: np.ndarray) -> np.ndarray:
    """1 - similarity, symmetric, not negative, 0 on the diagonal, NaN where unknown."""
    similarity = np.asarray(similarity, dtype=np.float64)
    dissimilarity = np.maximum(1.0 - (similarity + similarity.T) / 2, 0.0)
    np.fill_diagonal(dissimilarity, 0.0)
    return dissimilarity


def _with_mean_for_unknown(dissimilarity: np.ndarray) -> np.ndarray:
    others = dissimilarity[~np.eye(len(dissimilarity), dtype=bool)]
    mean = np.nanmean(others) if np.isfinite(others).any() else 0.0
    return np.where(np.isnan(dissimilarity), mean, dissimilarity)


def _classical(dissimilarity: np.ndarray) -> np.ndarray:
    """Torgerson's solution: the two leading axes of the doubly centred squares."""
    squares = _with_mean_for_unknown(dissimilarity) ** 2
    centring = np.eye(len(squares)) - 1.0 / len(squares)
    values, vectors = np.linalg.eigh(-0.5 * centring @ squares @ centring)
    return vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0.0))


def _smacof(
    dissimilarity: np.ndarray, start: np.ndarray, tolerance: float = RELATIVE_TOLERANCE
) -> tuple[float, np.ndarray]:
    """Majorise the raw stress until it stands still; unknown pairs have weight 0."""
    weights = np.isfinite(dissimilarity) & ~np.eye(len(dissimilarity), dtype=bool)
    target = np.where(weights, dissimilarity, 0.0)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights.astype(float))
    points, previous = start, np.inf
    for _ in range(MAXIMUM_ITERATIONS):
        distances = _distances(points)
        error = float((weights * (target - distances) ** 2).sum())
        if previous - error <= tolerance * error:
            break
        previous = error
        ratios = np.divide(target, distances, out=np.zeros_like(target), where=distances > 0)
        points = inverse @ (np.diag(ratios.sum(axis=1)) - ratios) @ points
    distances = _distances(points)
    total = float((weights * distances**2).sum())
    error = float((weights * (target - distances) ** 2).sum())
    return (np.sqrt(error / total) if total else 0.0), points


def _distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def _canonical(points: np.ndarray) -> np.ndarray:
    """Centre, turn to the principal axes, and let each axis point to its most distant model."""
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes.T
    farthest = turned[np.abs(turned).argmax(axis=0), np.arange(turned.shape[1])]
    return turned * np.where(farthest < 0, -1.0, 1.0)
