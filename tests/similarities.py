"""Seeded similarity matrices of many kinds, and the plain search that looks at every set."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def noise(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, n))


def uniform(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.random((n, n))


def negative(rng: np.random.Generator, n: int) -> np.ndarray:
    return -rng.random((n, n))


def ties(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 6, (n, n)) * 0.5  # halves: the mean of the halves ties as well


def all_equal(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.full((n, n), rng.choice([0.7, 0.0, -0.3]))


def clustered(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.3 + 0.5 * blocks(rng, n) + 0.01 * noise(rng, n)


def blocks(rng: np.random.Generator, n: int) -> np.ndarray:
    cluster = rng.integers(0, 3, n)
    return (cluster[:, None] == cluster).astype(float)


def cosines(rng: np.random.Generator, n: int) -> np.ndarray:
    """Positive semidefinite with unit diagonal, like CKA."""
    features = rng.standard_normal((n, 4)) + 1
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


def outlier(rng: np.random.Generator, n: int) -> np.ndarray:
    """Like CKA, with a pair, or several of one row, of quite another size."""
    matrix = cosines(rng, n)
    row, others = rng.integers(n), rng.integers(0, n, rng.integers(1, 3))
    matrix[row, others] = matrix[others, row] = rng.choice([-1e12, -1e9, -1e6, 1e6])
    return matrix


KINDS = (noise, uniform, negative, ties, all_equal, clustered, blocks, cosines, outlier)


def random_case(seed: int) -> tuple[np.ndarray, int]:
    """A symmetric matrix of up to 10 rows, and a size."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 11))
    matrix = KINDS[seed % len(KINDS)](rng, n)
    return (matrix + matrix.T) / 2 * rng.choice([1.0, 1.0, 1e-6, 1e6]), int(rng.integers(2, n + 1))


def cka_like(n: int, seed: int, loadings: tuple[float, float] = (0.6, 0.9)) -> np.ndarray:
    """Cosines of n features with one shared direction, families and noise."""
    rng = np.random.default_rng(seed)
    shared = rng.uniform(*loadings, n)
    rest = (
        rng.standard_normal((n, 60)) + 0.7 * rng.standard_normal((25, 60))[rng.integers(25, size=n)]
    )
    rest *= np.sqrt((1 - shared**2) / (rest**2).sum(axis=1))[:, None]
    features = np.column_stack([shared, rest])
    return features @ features.T


def mean(matrix: np.ndarray, rows: tuple[int, ...]) -> float:
    return float(np.mean([matrix[i, j] for i, j in combinations(rows, 2)]))


def all_means(matrix: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    return {rows: mean(matrix, rows) for rows in combinations(range(len(matrix)), k)}
