"""Simulated similarities of models whose causes are known, with resamples of known spread."""

from __future__ import annotations

import numpy as np
import torch

from realign_utils.uncertainty import Resamples


def symmetric(
    rng: np.random.Generator, models: int, deviation: float, draws: int = 1
) -> np.ndarray:
    """Errors of the pairs of models, (draws, models, models), symmetric with a zero diagonal."""
    upper = np.triu(rng.normal(0, deviation, (draws, models, models)), 1)
    return upper + upper.swapaxes(1, 2)


def resampled(truth: np.ndarray, deviation: float, seed: int, draws: int = 60) -> Resamples:
    """What nine tenths of some images say of a similarity known with errors of that deviation."""
    rng, m = np.random.default_rng(seed), len(truth)
    estimate = truth + symmetric(rng, m, deviation)[0]
    # 450 of 500 images: equation (1) multiplies the spread by 3
    subsets = estimate + symmetric(rng, m, deviation / 3, draws)
    return Resamples(torch.from_numpy(estimate), torch.from_numpy(subsets), 450, 500)


def capacities(rng: np.random.Generator, mechanisms: np.ndarray, tie: float) -> np.ndarray:
    """Millions of parameters, which depend on the mechanism as strongly as `tie` says."""
    places = np.unique(mechanisms, return_inverse=True)[1]
    return np.exp(rng.normal(tie * places, 1.0))


def world(
    seed: int, *, models: int = 40, by_kind: float, by_capacity: float, tie: float = 2.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity, mechanisms and capacities of models.

    Parameters
    ----------
    by_kind : float
        What being of one mechanism adds to a pair's similarity.
    by_capacity : float
        What a pair loses for each unit by which its log parameters differ.
    tie : float
        How much log parameters depend on the mechanism.
    """
    rng = np.random.default_rng(seed)
    mechanisms = np.repeat(["attention", "convolution"], models // 2)
    params = capacities(rng, mechanisms, tie)
    own = rng.normal(0, 0.04, models)
    apart = np.abs(np.subtract.outer(np.log(params), np.log(params)))
    alike = np.equal.outer(mechanisms, mechanisms)
    similarity = 0.6 + np.add.outer(own, own) - by_capacity * apart + by_kind * alike
    return similarity + symmetric(rng, models, 0.03)[0], mechanisms, params
