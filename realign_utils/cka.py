"""Linear CKA between all pairs of many models, from Gram matrices that are computed once a model.

Let X be a model's features on n images, its columns centred, and K = X Xᵀ its Gram matrix.

    CKA(K, L) = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L))

    biased    HSIC = Σ_ij K_ij L_ij / (n−1)²                     Kornblith et al. 2019, eq. 3
    debiased  HSIC = [Σ_i≠j K_ij L_ij + s(K) s(L) / ((n−1)(n−2)) − 2/(n−2) Σ_i r_i(K) r_i(L)]
                     / (n(n−3))                                   Song et al. 2012, eq. 5

with r_i(K) = Σ_j≠i K_ij and s(K) = Σ_i r_i(K). All are sums over pairs of images, so three sums
suffice for both estimators (`GramSums`); they are collected tile by tile of the Gram matrices, and
a subset of the images needs only its own pairs (`realign_utils.uncertainty`).

Numbers: features are centred and scaled in their own precision, multiplied in float32, summed in
float64. What the centring leaves of the mean, float32's rounding of it, is taken out of the sums
exactly. The result is that of a float64 computation to 1e-6, whatever the features' mean and scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, isqrt
from typing import Any

import numpy as np
import torch

from realign_utils.errors import UserError, unknown

ESTIMATORS = ("biased", "debiased")
MEMORY = 2 * 10**9
"""Bytes that the engine may use beside the features, unless told otherwise."""
_SPAN = 512  # so many products are summed in float32 before the sum goes on in float64
_PART = 2**22  # entries of a feature matrix that are centred at a time
_ROUNDING = 1e-7  # a debiased HSIC below this share of the biased one is float32's rounding


@dataclass(frozen=True)
class GramSums:
    """What both estimators need of m models' Gram matrices on n images; all float64.

    Attributes
    ----------
    names : tuple of str
        The m models.
    products : torch.Tensor
        (m, m), Σ_i≠j K_ij L_ij of each pair of models.
    row_sums, diagonal : torch.Tensor
        (m, n), r_i = Σ_j≠i K_ij and K_ii of each model.
    scales : torch.Tensor
        (m,), by which each model's features were multiplied.
    """

    names: tuple[str, ...]
    products: torch.Tensor
    row_sums: torch.Tensor
    diagonal: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True)
class GramStack:
    """All Gram matrices at once, 4 m n² bytes, for resampling and for other measures.

    Attributes
    ----------
    names : tuple of str
        The m models.
    grams : torch.Tensor
        (m, n, n), float32; the diagonals are zero.
    diagonal : torch.Tensor
        (m, n), float64, what stood on the diagonals.
    scales : torch.Tensor
        (m,), float64, as in `GramSums`.
    """

    names: tuple[str, ...]
    grams: torch.Tensor
    diagonal: torch.Tensor
    scales: torch.Tensor

    def choose(self, members: Sequence[int]) -> GramStack:
        """The stack of some of the models, given their places."""
        names, places = tuple(self.names[place] for place in members), list(members)
        return GramStack(names, self.grams[places], self.diagonal[places], self.scales[places])

    def sums(self) -> GramSums:
        """The three sums over all images."""
        with float32_products(tf32=False):
            products = inner_products(self.grams.flatten(1))
        row_sums = self.grams.sum(2).double()
        return GramSums(self.names, products, row_sums, self.diagonal, self.scales)


@dataclass(frozen=True)
class Plan:
    """How `gram_sums` goes about its work, by `plan`.

    Attributes
    ----------
    route : {"gram", "features"}
        Tiles of Gram matrices, or all features side by side, multiplied with each other.
    block : int
        Images on a side of a tile, or in a block of rows.
    flops, bytes : int
        Floating-point operations of the matrix products; largest memory beside the features.
    reads : int
        How often every feature is read.
    """

    route: str
    block: int
    flops: int
    bytes: int
    reads: int


def cka_matrix(
    features: Sequence[Any] | GramSums | GramStack,
    *,
    estimator: str = "biased",
    names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    epsilon: float = 0.0,
    memory: int = MEMORY,
    tf32: bool = False,
) -> torch.Tensor:
    """Linear CKA between all pairs of models: a similarity, 1 = same up to rotation and scale.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i), or GramSums or GramStack
        One matrix a model: the same n images in the same order. NumPy arrays, memory-mapped ones
        too, and tensors, of any real types, also mixed. Or what `gram_sums` or `gram_stack` made
        of them, so that both estimators come from one computation.
    estimator : {"biased", "debiased"}
        Of HSIC. A debiased value may be negative: less alike than unrelated models on average.
    names : sequence of str, optional
        The models' names for messages; ``model 0`` … if not given.
    device : str or torch.device, optional
        Where to compute; by default where the features are; ``"auto"``: on a GPU if there is one.
    epsilon : float, optional
        Added to the denominator, with HSIC in the features' own units. The challenge's portal
        adds 1e-6 to biased HSIC.
    memory : int, optional
        Bytes to use beside the features; does not change the result.
    tf32 : bool, optional
        Let a GPU multiply with 10-bit mantissas: faster, error up to 1e-3.

    Returns
    -------
    torch.Tensor
        (m, m), float64, symmetric, diagonal 1 (where `epsilon` is 0), and positive semidefinite to
        rounding if biased. NaN in row and column of a model whose HSIC with itself is zero or not
        finite; a RuntimeWarning says why (`undefined`).

    Raises
    ------
    UserError
        Naming the model: not a matrix of real numbers, not as many images as the first model or
        fewer than 4, NaN or infinite values, constant features, another device. Or fewer than two
        models.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    if isinstance(features, GramStack):
        features = features.sums()
    elif not isinstance(features, GramSums):
        features = gram_sums(features, names=names, device=device, memory=memory, tf32=tf32)
    for name, reason in undefined(features, estimator).items():
        warnings.warn(f"CKA of {name} is NaN: {reason}", RuntimeWarning, stacklevel=2)
    return cka_of_sums(features, estimator, epsilon)


def hsic(sums: GramSums, estimator: str) -> torch.Tensor:
    """HSIC of all pairs by the formulas above: (m, m), float64, of the scaled features.

    For the biased one the Gram matrices are centred here, H = I − 1/n: Σ_ij (HKH)_ij (HLH)_ij =
    Σ_ij K_ij L_ij − 2/n Σ_i g_i(K) g_i(L) + s(K) s(L) / n², with g_i and s the sums of full rows.
    """
    n = sums.diagonal.shape[-1]
    if estimator == "debiased":
        rows, totals = sums.row_sums, sums.row_sums.sum(-1, keepdim=True)
        means = totals @ totals.mT / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.mT
        return (sums.products + means) / (n * (n - 3))
    rows = sums.row_sums + sums.diagonal
    totals = rows.sum(-1, keepdim=True)
    products = sums.products + sums.diagonal @ sums.diagonal.mT
    return (products - 2 / n * rows @ rows.mT + totals @ totals.mT / n**2) / (n - 1) ** 2


def cka_of_sums(sums: GramSums, estimator: str, epsilon: float = 0.0) -> torch.Tensor:
    """CKA of all pairs, (m, m) in float64; as `cka_matrix`, without its warnings."""
    values = hsic(sums, estimator)
    own = values.diagonal()
    root = torch.where(own > _negligible(sums), own, torch.nan).sqrt()
    norms = root[:, None] * root[None, :]
    if epsilon:
        units = (sums.scales[:, None] * sums.scales[None, :]) ** 2
        norms = norms + epsilon * units
    matrix = values / norms
    matrix = (matrix + matrix.T) / 2
    return matrix if epsilon else matrix.fill_diagonal_(0) + torch.diag(root / root)


def undefined(sums: GramSums, estimator: str) -> dict[str, str]:
    """The models of which CKA is NaN, each with the reason."""
    own, least = hsic(sums, estimator).diagonal(), _negligible(sums)
    reasons = {}
    for name, value, bound in zip(sums.names, own.tolist(), least.tolist(), strict=True):
        if not np.isfinite(value):
            reasons[name] = f"its HSIC with itself is {value}"
        elif not value > bound:
            reasons[name] = "its HSIC with itself is zero: all images are equally far apart"
    return reasons


def _negligible(sums: GramSums) -> torch.Tensor:
    return _ROUNDING * hsic(sums, "biased").diagonal()


def plan(n: int, dimensions: Sequence[int], memory: int = MEMORY) -> Plan:
    """Choose the route with fewer operations among those that the memory allows.

    With D the sum of the m feature dimensions and tiles of t images, the upper tiles of the Gram
    matrices cost (n² + n t)(D + m²) operations and 4 m t² bytes (the products within and between
    models). The features side by side cost 2 n D² operations and 4 D² bytes.

    Parameters
    ----------
    n : int
        Number of images.
    dimensions : sequence of int
        The models' feature dimensions.
    memory : int, optional
        Bytes to use beside the features.

    Returns
    -------
    Plan

    Raises
    ------
    UserError
        If the memory does not suffice for tiles of 32 images.
    """
    m, total = len(dimensions), sum(dimensions)
    beside = 16 * _PART
    tile = min(ceil(n / 2), isqrt(max(0, memory - beside) // (4 * m)))
    if tile < min(ceil(n / 2), 32):
        needed = 4 * m * 32**2 + beside
        raise UserError(f"memory of {memory} bytes is too small for {m} models; {needed} will do")
    rows = max(1, _PART // total)
    tiles = Plan(
        route="gram",
        block=tile,
        flops=n * (n + tile) * (total + m**2),
        bytes=4 * m * tile**2 + beside,
        reads=1 + ceil(n / tile),
    )
    side_by_side = Plan(
        route="features",
        block=rows,
        flops=2 * n * total**2,
        bytes=4 * total**2 + 8 * max(dimensions) * total + beside,
        reads=3,
    )
    cheaper = side_by_side.flops < tiles.flops and side_by_side.bytes <= memory
    return side_by_side if cheaper else tiles


def gram_sums(
    features: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    images: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    memory: int = MEMORY,
    tf32: bool = False,
) -> GramSums:
    """The sums of which both estimators are made, over all images or over the given `images`.

    Other parameters, and errors, as in `cka_matrix`.
    """
    models = check_features(features, names, device, images)
    n, m = models[0].shape[0], len(models)
    way = plan(n, [model.shape[1] for model in models], memory)
    products, row_sums, diagonal = (
        torch.zeros(m, size, dtype=torch.float64, device=models[0].device) for size in (m, n, n)
    )
    with float32_products(tf32):
        add = _add_gram_tiles if way.route == "gram" else _add_feature_products
        add(models, way.block, products, row_sums, diagonal)
    names, scales = _names_and_scales(models)
    return GramSums(names, products, row_sums, diagonal, scales)


def gram_stack(
    features: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    tf32: bool = False,
) -> GramStack:
    """All Gram matrices at once; parameters and errors as in `cka_matrix`."""
    models = check_features(features, names, device)
    n = models[0].shape[0]
    grams = torch.empty(len(models), n, n, device=models[0].device)
    with float32_products(tf32):
        for model, gram in zip(models, grams, strict=True):
            model.gram_tile(slice(0, n), slice(0, n), out=gram)
    diagonal = grams.diagonal(dim1=1, dim2=2).double()
    grams.diagonal(dim1=1, dim2=2).zero_()
    names, scales = _names_and_scales(models)
    return GramStack(names, grams, diagonal, scales)


def _names_and_scales(models: list[ModelFeatures]) -> tuple[tuple[str, ...], torch.Tensor]:
    # Only now, so that a GPU need not wait for the check of each model before the next.
    for model in models:
        model.refuse_bad_values()
    return tuple(model.name for model in models), torch.stack([model.scale for model in models])


def _add_gram_tiles(
    models: list[ModelFeatures],
    side: int,
    products: torch.Tensor,
    row_sums: torch.Tensor,
    diagonal: torch.Tensor,
) -> None:
    """A tile of all models is built, used for all pairs and dropped; only upper tiles are built."""
    blocks = list(blocks_of(models[0].shape[0], side))
    space = torch.empty(len(models) * side**2, device=products.device)
    for place, rows in enumerate(blocks):
        for columns in blocks[place:]:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            tiles = space[: len(models) * height * width].view(len(models), height, width)
            for model, tile in zip(models, tiles, strict=True):
                model.gram_tile(rows, columns, out=tile)
            if rows == columns:
                diagonal[:, rows] = tiles.diagonal(dim1=1, dim2=2)
                tiles.diagonal(dim1=1, dim2=2).zero_()
            else:
                row_sums[:, columns] += tiles.sum(1)
            row_sums[:, rows] += tiles.sum(2)
            products += inner_products(tiles.flatten(1)) * (1 if rows == columns else 2)


def _add_feature_products(
    models: list[ModelFeatures],
    block: int,
    products: torch.Tensor,
    row_sums: torch.Tensor,
    diagonal: torch.Tensor,
) -> None:
    """Σ_ij K_ij L_ij = ‖Xᵀ Y‖²: the models' features side by side, a block of images at a time."""
    n, sizes = models[0].shape[0], [model.shape[1] for model in models]
    cross = torch.zeros(sum(sizes), sum(sizes), device=products.device)
    totals = torch.zeros(sum(sizes), device=products.device)
    for rows in blocks_of(n, block):
        beside = torch.cat([model.centred(rows, slice(0, model.shape[1])) for model in models], 1)
        cross.addmm_(beside.T, beside)
        totals += beside.sum(0)
    for rows in blocks_of(n, block):
        for place, (model, total) in enumerate(zip(models, totals.split(sizes), strict=True)):
            part = model.centred(rows, slice(0, model.shape[1]))
            diagonal[place, rows] = part.double().square().sum(1)
            row_sums[place, rows] = (part @ total).double() - diagonal[place, rows]
    for place, strip in enumerate(cross.split(sizes)):
        squares = strip.double().square_().sum(0)
        products[place] = torch.stack([part.sum() for part in squares.split(sizes)])
    products -= diagonal @ diagonal.T


def inner_products(rows: torch.Tensor) -> torch.Tensor:
    """Inner products of float32 rows, (m, N) to (m, m), long sums in float64."""
    whole = rows.shape[1] // _SPAN * _SPAN
    total = (rows[:, whole:] @ rows[:, whole:].T).double()
    for part in rows[:, :whole].split(max(1, _PART // len(rows) ** 2) * _SPAN, dim=1):
        spans = part.unflatten(1, (-1, _SPAN)).transpose(0, 1)
        total += torch.bmm(spans, spans.mT).sum(0, dtype=torch.float64)
    return total


def blocks_of(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that make up range(n); the last may be shorter."""
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Full float32 products whatever the process has set, or TF32 if asked for."""
    settings = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    if tf32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class ModelFeatures:
    """One model's features: checked, and centred and scaled part by part."""

    def __init__(
        self,
        name: str,
        matrix: np.ndarray | torch.Tensor,
        device: torch.device,
        images: np.ndarray | None,
    ) -> None:
        self.name, self.device = name, device
        self.shape = (len(matrix) if images is None else len(images), matrix.shape[1])
        self._matrix, self._images = matrix, images

    @property
    def scale(self) -> torch.Tensor:
        """By which features are multiplied: one over the largest deviation; (), float64."""
        return 1 / self._shift_and_spread[1].double()

    def refuse_bad_values(self) -> None:
        """Raise UserError if a value is not finite, or if all images have the same features."""
        spread = self._shift_and_spread[1].item()
        if not isfinite(spread):
            raise UserError(f"{self.name}: features are not finite{self._first_bad_image()}")
        if spread == 0:
            n = self.shape[0]
            raise UserError(f"{self.name}: features are constant, the same for all {n} images")

    def gram_tile(self, rows: slice, columns: slice, out: torch.Tensor) -> None:
        """Write K_ij of some images i and j, (rows, columns) in float32, to `out`."""
        width = max(1, _PART // out.shape[1])
        for place, dimensions in enumerate(blocks_of(self.shape[1], width)):
            left = self.centred(rows, dimensions)
            right = left if rows == columns else self.centred(columns, dimensions)
            out.addmm_(left, right.T, beta=min(place, 1))

    def centred(self, rows: slice, dimensions: slice) -> torch.Tensor:
        """Features of some images less their mean, scaled: float32."""
        shift, spread = self._shift_and_spread
        return (self.raw(rows, dimensions) - shift[dimensions]).div_(spread).float()

    def raw(self, rows: slice, dimensions: slice) -> torch.Tensor:
        """Features of some images as they are: float32, or float64 where they are that."""
        chosen = rows if self._images is None else self._images[rows]
        part = self._matrix[chosen, dimensions]
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(np.require(part, requirements=["C", "W"]))
        part = part.to(self.device)
        least = torch.float32 if part.is_floating_point() else torch.float64
        return part.to(torch.promote_types(part.dtype, least))

    @cached_property
    def _shift_and_spread(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A centre of the images, (d,), and the largest deviation from it, ()."""
        # Deviations from a typical image, not sums of the values: they lose nothing to a large
        # mean, and are exactly zero where all images have the same features. An image far from
        # the others has no part in the mean: the sums are exact for any centre near the images,
        # but one that such an image has pulled away would cost them their digits.
        n, d = self.shape
        step = max(1, (n - 1) // 8)
        sample = self.raw(slice(0, 8 * step + 1, step), slice(0, d))
        sample = sample[torch.arange(9) % len(sample)]
        typical = _middle(*_middle(*sample.view(3, 3, d)))
        far = 10 * (sample - typical).abs().amax(1).median()
        total = torch.zeros(d, dtype=torch.float64, device=self.device)
        spread, near = torch.zeros_like(far), torch.zeros_like(far)
        for rows in blocks_of(n, max(1, _PART // d)):
            deviation = self.raw(rows, slice(0, d)) - typical
            size = torch.maximum(deviation.amax(1), -deviation.amin(1))
            weights = (size <= far).to(size.dtype)
            total += weights @ deviation
            near += weights.sum()
            spread = torch.maximum(spread, size.max())
        return typical + (total / near).to(typical.dtype), spread

    def _first_bad_image(self) -> str:
        for row in range(self.shape[0]):
            part = self.raw(slice(row, row + 1), slice(0, self.shape[1]))
            if not torch.isfinite(part).all():
                return f": {(~torch.isfinite(part)).sum()} values of image {row} (counted from 0)"
        return ""


def _middle(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def check_features(
    features: Sequence[Any],
    names: Sequence[str] | None,
    device: Any,
    images: Sequence[int] | None = None,
) -> list[ModelFeatures]:
    """Check what can be seen without reading the features; see `cka_matrix` for the errors."""
    if len(features) < 2:
        raise UserError(f"CKA compares models: two or more are needed, got {len(features)}")
    names = [f"model {place}" for place in range(len(features))] if names is None else list(names)
    if len(names) != len(features):
        raise UserError(f"{len(names)} names for {len(features)} feature matrices")
    matrices = [_matrix(name, matrix) for name, matrix in zip(names, features, strict=True)]
    n = len(matrices[0])
    for name, matrix in zip(names, matrices, strict=True):
        if len(matrix) != n:
            raise UserError(f"{name}: {len(matrix)} images, but {names[0]} has {n}")
    if (used := n if images is None else len(images)) < 4:
        raise UserError(f"{names[0]}: features of {used} images; CKA needs at least 4")
    images = images if images is None else np.asarray(images)
    device = _device(names, matrices, device)
    return [ModelFeatures(*pair, device, images) for pair in zip(names, matrices, strict=True)]


def _matrix(name: str, matrix: Any) -> np.ndarray | torch.Tensor:
    if not isinstance(matrix, torch.Tensor):
        matrix = np.asanyarray(matrix)
    if matrix.ndim != 2 or 0 in matrix.shape:
        shape = tuple(matrix.shape)
        raise UserError(f"{name}: features of shape {shape}; one row for each image is needed")
    if isinstance(matrix, torch.Tensor):
        real = not (matrix.is_complex() or matrix.dtype == torch.bool)
    else:
        real = matrix.dtype.kind in "fiu" and matrix.dtype.itemsize <= 8 and matrix.dtype.isnative
    if not real:
        raise UserError(f"{name}: features of type {matrix.dtype}; real numbers are needed")
    return matrix


def _device(names: list[str], matrices: list, device: Any) -> torch.device:
    if device is None:
        places = [getattr(matrix, "device", "cpu") for matrix in matrices]
        for name, place in zip(names, places, strict=True):
            if torch.device(place) != torch.device(places[0]):
                raise UserError(
                    f"{name}: features on {place}, those of {names[0]} on {places[0]}; name a device"
                )
        return torch.device(places[0])
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device}: {str(error).splitlines()[0]}") from error
