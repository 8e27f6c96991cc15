"""Other measures of how alike models see, to ask whether a conclusion is CKA's alone.

All are similarities of every pair of models, 1 = same, and need a Gram stack's memory (4 m n² bytes).

rsa         correlation of the distances between images: Kriegeskorte et al. 2008
mutual_knn  share of an image's k nearest neighbours on which two models agree: Huh et al. 2024
procrustes  cosine of the angle that is left after the best rotation: Williams et al. 2021
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from realign_utils.cka import GramStack, gram_stack
from realign_utils.errors import UserError, unknown
from realign_utils.model_features import ModelFeatures, blocks_of, check_features
from realign_utils.progress import track

CORRELATIONS = ("pearson", "spearman")


def rsa(
    features: Sequence[Any] | GramStack,
    *,
    correlation: str = "pearson",
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Representational similarity: correlation of two models' distances between images.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i), or GramStack
        As in `realign_utils.cka.cka_matrix`.
    correlation : {"pearson", "spearman"}
        Of the n(n−1)/2 Euclidean distances; Spearman's gives equal distances their mean rank.
    names, identifiers, device
        As in `cka_matrix`.

    Returns
    -------
    torch.Tensor
        (m, m), float64, from −1 to 1; NaN where all images of a model are equally far apart.
    """
    if correlation not in CORRELATIONS:
        raise unknown("correlation", correlation, CORRELATIONS)
    stack = features
    if not isinstance(features, GramStack):
        stack = gram_stack(features, names=names, identifiers=identifiers, device=device)
    n = stack.diagonal.shape[1]
    rows, columns = torch.triu_indices(n, n, 1, device=stack.grams.device)
    lines = []
    for gram, diagonal in zip(stack.grams, stack.diagonal, strict=True):
        squares = diagonal[rows] + diagonal[columns] - 2 * gram[rows, columns].double()
        distances = squares.clamp_min_(0).sqrt_()
        same = distances.std() < 1e-6 * distances.mean()  # float32's rounding and no more
        line = _ranks(distances) if correlation == "spearman" else distances
        line = line - line.mean()
        lines.append(line / torch.where(same, torch.nan, line.norm()))
    lines = torch.stack(lines)
    matrix = lines @ lines.T
    matrix = (matrix + matrix.T) / 2
    matrix.diagonal()[~matrix.diagonal().isnan()] = 1
    return matrix


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks from 1, float64; equal values share their mean rank."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    return (last - (count - 1) / 2)[place]


def mutual_knn(
    features: Sequence[Any],
    *,
    k: int | None = None,
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Mutual k nearest neighbours: mean share of common neighbours (Huh et al. 2024, eq. 11).

    Neighbours are by cosine similarity of the features as they are, not centred, as there.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i)
        As in `realign_utils.cka.cka_matrix`.
    k : int, optional
        Neighbours of each image, less than n; by default 10, or half of the others if these are
        fewer than 20. Unrelated models agree on k/(n−1) of them.
    names, identifiers, device
        As in `cka_matrix`.

    Returns
    -------
    torch.Tensor
        (m, m), float64, from 0 to 1.
    """
    models = check_features(features, names, device, identifiers=identifiers)
    n = models[0].shape[1]
    k = min(10, (n - 1) // 2) if k is None else k
    if not 1 <= k < n:
        raise UserError(f"{k} nearest neighbours; from 1 to {n - 1} are possible with {n} images")
    neighbours = torch.zeros(len(models), n, n, device=models[0].device)
    for model, table in zip(models, neighbours, strict=True):
        table.scatter_(1, _cosines(model).topk(k, 1).indices, 1.0)
    flat = neighbours.flatten(1)
    return (flat @ flat.T).double() / (n * k)


def _cosines(model: ModelFeatures) -> torch.Tensor:
    """Cosine similarity of images, (n, n) in float64; −∞ to themselves."""
    model.refuse_bad_values()
    _, n, d = model.shape
    everyone = slice(0, n)
    gram = torch.zeros(n, n, dtype=torch.float64, device=model.device)
    for dimensions in blocks_of(d, 8192):
        part = model.raw(everyone, dimensions)[0].double() * model.scales
        gram.addmm_(part, part.T)
    norms = (
        gram.diagonal().sqrt().clamp_min(1e-150)
    )  # an image without any feature is at 90° to all
    return (gram / norms[:, None] / norms[None, :]).fill_diagonal_(-torch.inf)


def procrustes(
    features: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Angular Procrustes similarity, ‖XᵀY‖_* / (‖X‖ ‖Y‖) of centred features.

    It is the cosine of Williams et al.'s (2021) angular distance, which is a metric:
    ``torch.arccos(procrustes(features))``. Each pair takes the singular values of a matrix of up
    to n × n: on one core 0.06 s for 500 images and 0.35 s for 1,000, so a minute for the 190 pairs
    of 20 models there. The eigenvalues of its square would take as long.

    Parameters
    ----------
    features, names, identifiers, device
        As in `realign_utils.cka.cka_matrix`.

    Returns
    -------
    torch.Tensor
        (m, m), float64, from 0 to 1.
    """
    models = check_features(features, names, device, identifiers=identifiers)
    factors = [_factor(model) for model in models]
    matrix = torch.eye(len(models), dtype=torch.float64, device=models[0].device)
    for place in track(range(1, len(models)), "angular Procrustes"):
        for other in range(place):
            values = torch.linalg.svdvals(factors[other].T @ factors[place])
            matrix[place, other] = matrix[other, place] = values.sum()
    return matrix


def _factor(model: ModelFeatures) -> torch.Tensor:
    """F of min(n, d) columns, float64, with F Fᵀ = X Xᵀ / ‖X‖²; ‖X‖ is the Frobenius norm."""
    model.refuse_bad_values()
    _, n, d = model.shape
    gram = torch.zeros(n, n, dtype=torch.float64, device=model.device)
    for dimensions in blocks_of(d, 8192):
        part = model.centred(slice(0, n), dimensions)[0].double()
        part -= part.mean(0)
        gram.addmm_(part, part.T)
    values, vectors = torch.linalg.eigh(gram)
    factor = (vectors * values.clamp_min(0).sqrt())[:, -min(n, d) :]  # the rest is rounding
    return factor / factor.norm()


MEASURES: dict[str, Callable[..., torch.Tensor]] = {
    "RSA (Pearson)": rsa,
    "RSA (Spearman)": partial(rsa, correlation="spearman"),
    "mutual k-NN": mutual_knn,
    "angular Procrustes": procrustes,
}
"""Each takes features, and gives the (m, m) similarities."""
