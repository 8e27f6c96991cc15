"""Gram matrices of many models, and the sums over pairs of images of which HSIC is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isqrt
from typing import Any

import torch

from realign_utils.errors import UserError
from realign_utils.model_features import (
    PART,
    ModelFeatures,
    blocks_of,
    check_features,
    grouped,
    part_of,
)

MEMORY = 2 * 10**9
"""Bytes that the engine may use beside the features, unless told otherwise."""
_SPAN = 512  # so many products are summed in float32 before the sum goes on in float64


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
        """The three sums over all images, computed once."""
        return self._sums

    @cached_property
    def _sums(self) -> GramSums:
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


def plan(
    n: int,
    dimensions: Sequence[int],
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
) -> Plan:
    """Choose the route with fewer operations among those that the memory allows.

    With D the sum of the m feature dimensions and tiles of t images, the upper tiles of the Gram
    matrices cost (n² + n t)(D + m²) operations and 4 m t² bytes (the products within and between
    models). The features side by side cost 2 n D² operations in float64, each of which counts
    twice, and 8 D² bytes.

    Parameters
    ----------
    n : int
        Number of images.
    dimensions : sequence of int
        The models' feature dimensions.
    memory : int, optional
        Bytes to use beside the features.
    device : str or torch.device, optional
        What is computed at a time is more on a GPU.

    Returns
    -------
    Plan

    Raises
    ------
    UserError
        If the memory does not suffice for tiles of 32 images.
    """
    m, total, part = len(dimensions), sum(dimensions), part_of(torch.device(device))
    beside = 16 * part
    tile = min(ceil(n / 2), isqrt(max(0, memory - beside) // (4 * m)))
    if tile < min(ceil(n / 2), 32):
        needed = 4 * m * 32**2 + beside
        raise UserError(f"memory of {memory} bytes is too small for {m} models; {needed} will do")
    rows = max(1, part // total)
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
        bytes=8 * total**2 + 8 * max(dimensions) * total + beside,
        reads=3,
    )
    cheaper = 2 * side_by_side.flops < tiles.flops and side_by_side.bytes <= memory
    return side_by_side if cheaper else tiles


def gram_sums(
    features: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    images: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    memory: int = MEMORY,
    tf32: bool = False,
) -> GramSums:
    """The sums of which both estimators are made, over all images or over the given `images`.

    Other parameters, and errors, as in `realign_utils.cka.cka_matrix`.
    """
    models = check_features(features, names, device, images, identifiers)
    (_, n, _), m, device = models[0].shape, len(models), models[0].device
    way = plan(n, [model.shape[2] for model in models], memory, device)
    products, row_sums, diagonal = (
        torch.zeros(m, size, dtype=torch.float64, device=device) for size in (m, n, n)
    )
    groups, order = grouped(models, way.block)
    with float32_products(tf32):
        add = _add_gram_tiles if way.route == "gram" else _add_feature_products
        add(groups, way.block, products, row_sums, diagonal)
    scales, back = _scales(groups), torch.tensor(order).argsort().to(device)
    names = tuple(model.names[0] for model in models)
    return GramSums(names, products[back][:, back], row_sums[back], diagonal[back], scales[back])


def gram_stack(
    features: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    device: str | torch.device | None = None,
    tf32: bool = False,
) -> GramStack:
    """All Gram matrices at once; parameters and errors as in `realign_utils.cka.cka_matrix`."""
    models = check_features(features, names, device, identifiers=identifiers)
    n = models[0].shape[1]
    groups, order = grouped(models, n)
    grams = torch.empty(len(models), n, n, device=models[0].device)
    with float32_products(tf32):
        _fill(grams, groups, slice(0, n), slice(0, n))
    scales, back = _scales(groups), torch.tensor(order).argsort().to(grams.device)
    if order != sorted(order):
        grams, scales = grams[back], scales[back]
    diagonal = grams.diagonal(dim1=1, dim2=2).double()
    grams.diagonal(dim1=1, dim2=2).zero_()
    return GramStack(tuple(model.names[0] for model in models), grams, diagonal, scales)


def _scales(groups: list[ModelFeatures]) -> torch.Tensor:
    # Only now, so that a GPU need not wait for the check of each group before the next.
    for group in groups:
        group.refuse_bad_values()
    return torch.cat([group.scales for group in groups])


def _add_gram_tiles(
    groups: list[ModelFeatures],
    side: int,
    products: torch.Tensor,
    row_sums: torch.Tensor,
    diagonal: torch.Tensor,
) -> None:
    """A tile of all models is built, used for all pairs and dropped; only upper tiles are built."""
    m, blocks = len(products), list(blocks_of(groups[0].shape[1], side))
    space = torch.empty(m * side**2, device=products.device)
    for place, rows in enumerate(blocks):
        for columns in blocks[place:]:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            tiles = space[: m * height * width].view(m, height, width)
            _fill(tiles, groups, rows, columns)
            if rows == columns:
                diagonal[:, rows] = tiles.diagonal(dim1=1, dim2=2)
                tiles.diagonal(dim1=1, dim2=2).zero_()
            else:
                row_sums[:, columns] += tiles.sum(1)
            row_sums[:, rows] += tiles.sum(2)
            products += inner_products(tiles.flatten(1)) * (1 if rows == columns else 2)


def _fill(tiles: torch.Tensor, groups: list[ModelFeatures], rows: slice, columns: slice) -> None:
    """Write the Gram tiles of all models, in their order."""
    sizes = [len(group.names) for group in groups]
    for group, some in zip(groups, tiles.split(sizes), strict=True):
        group.gram_tiles(rows, columns, out=some)


def _add_feature_products(
    groups: list[ModelFeatures],
    block: int,
    products: torch.Tensor,
    row_sums: torch.Tensor,
    diagonal: torch.Tensor,
) -> None:
    """Σ_ij K_ij L_ij = ‖Xᵀ Y‖²: the models' features side by side, a block of images at a time."""
    # In float64: the diagonals are taken off at the end, and where one image is far from all others
    # nearly nothing else is in the sums; what is left would be float32's rounding.
    (_, n, _), sizes = groups[0].shape, [group.shape[2] for group in groups for _ in group.names]
    cross = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64, device=products.device)
    totals = torch.zeros(sum(sizes), dtype=torch.float64, device=products.device)
    for rows in blocks_of(n, block):
        beside = torch.cat(_each(groups, rows), 1).double()
        cross.addmm_(beside.T, beside)
        totals += beside.sum(0)
    for rows in blocks_of(n, block):
        for place, (part, total) in enumerate(
            zip(_each(groups, rows), totals.split(sizes), strict=True)
        ):
            part = part.double()
            diagonal[place, rows] = part.square().sum(1)
            row_sums[place, rows] = part @ total - diagonal[place, rows]
    for place, strip in enumerate(cross.split(sizes)):
        squares = strip.square_().sum(0)
        products[place] = torch.stack([part.sum() for part in squares.split(sizes)])
    products -= diagonal @ diagonal.T


def _each(groups: list[ModelFeatures], rows: slice) -> list[torch.Tensor]:
    """Every model's centred features of some images, (rows, d)."""
    return [model for group in groups for model in group.centred(rows, slice(0, group.shape[2]))]


def inner_products(rows: torch.Tensor) -> torch.Tensor:
    """Inner products of float32 rows, (m, N) to (m, m), long sums in float64."""
    whole = rows.shape[1] // _SPAN * _SPAN
    total = (rows[:, whole:] @ rows[:, whole:].T).double()
    for part in rows[:, :whole].split(max(1, PART // len(rows) ** 2) * _SPAN, dim=1):
        spans = part.unflatten(1, (-1, _SPAN)).transpose(0, 1)
        total += torch.bmm(spans, spans.mT).sum(0, dtype=torch.float64)
    return total


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
