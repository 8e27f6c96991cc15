"""Models' features on many images: checked, and centred and scaled part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
import torch

from realign_utils.errors import UserError

PART = 2**22
"""Entries of feature matrices that are centred at a time, on the CPU."""
PART_OF_GPU = 2**25
"""The same on a GPU, which is idle while it is told what to do: it wants more at a time."""
_ENOUGH = 128  # images of a part whose mean is its centre


def blocks_of(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that make up range(n); the last may be shorter."""
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def part_of(device: torch.device) -> int:
    """Entries of feature matrices that are centred at a time."""
    return PART if device.type == "cpu" else PART_OF_GPU


def room_of(device: torch.device) -> int:
    """Entries of several models' features that are brought together."""
    return 0 if device.type == "cpu" else PART_OF_GPU


class ModelFeatures:
    """Features of one model, or of several of one feature dimension side by side.

    Parameters
    ----------
    names : sequence of str
        The g models.
    matrices : sequence of g array_like
        Each (N, d), all of one type; memory-mapped files are read part by part.
    device : torch.device
        On which everything is computed.
    images : numpy.ndarray or None
        Rows of the matrices, length n; None means all.

    Attributes
    ----------
    shape : tuple of int
        (g, n, d).
    """

    def __init__(
        self,
        names: Sequence[str],
        matrices: Sequence[np.ndarray | torch.Tensor],
        device: torch.device,
        images: np.ndarray | None,
    ) -> None:
        self.names, self.device = tuple(names), device
        n, d = matrices[0].shape
        self.shape = (len(matrices), n if images is None else len(images), d)
        self._matrices, self._images, self._part = tuple(matrices), images, part_of(device)

    @classmethod
    def beside(cls, models: Sequence[ModelFeatures]) -> ModelFeatures:
        """Several of one dimension as one."""
        names = [name for model in models for name in model.names]
        matrices = [matrix for model in models for matrix in model._matrices]
        return cls(names, matrices, models[0].device, models[0]._images)

    @property
    def spreads(self) -> torch.Tensor:
        """The largest deviation from the centre of each model, (g,)."""
        return self._shifts_and_spreads[1]

    @property
    def scales(self) -> torch.Tensor:
        """By which features are multiplied: one over the largest deviation; (g,), float64."""
        return 1 / self.spreads.double()

    def refuse_bad_values(self) -> None:
        """Raise UserError if a value is not finite, or if all images have the same features."""
        for place, spread in enumerate(self.spreads.tolist()):
            name, n = self.names[place], self.shape[1]
            if not isfinite(spread):
                raise UserError(f"{name}: features are not finite{self._first_bad_image(place)}")
            if spread == 0:
                raise UserError(f"{name}: features are constant, the same for all {n} images")

    def gram_tiles(self, rows: slice, columns: slice, out: torch.Tensor) -> None:
        """Write K_ij of some images i and j, (g, rows, columns) in float32, to `out`."""
        width = max(1, self._part // (len(out) * max(out.shape[1:])))
        for place, dimensions in enumerate(blocks_of(self.shape[2], width)):
            left = self.centred(rows, dimensions)
            right = left if rows == columns else self.centred(columns, dimensions)
            out.baddbmm_(left, right.mT, beta=min(place, 1))

    def centred(self, rows: slice, dimensions: slice) -> torch.Tensor:
        """Features of some images less their mean, scaled: (g, rows, dimensions), float32."""
        shifts, spreads = self._shifts_and_spreads
        deviations = self.raw(rows, dimensions) - shifts[:, :, dimensions]
        return deviations.div_(spreads[:, None, None]).float()

    def raw(self, rows: slice, dimensions: slice) -> torch.Tensor:
        """Features of some images as they are: float32, or float64 where they are that."""
        parts = [self._read(matrix, rows, dimensions) for matrix in self._matrices]
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)

    def _read(self, matrix: Any, rows: slice, dimensions: slice) -> torch.Tensor:
        part = matrix[rows if self._images is None else self._images[rows], dimensions]
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(np.require(part, requirements=["C", "W"]))
        part = part.to(self.device)
        least = torch.float32 if part.is_floating_point() else torch.float64
        return part.to(torch.promote_types(part.dtype, least))

    @cached_property
    def _shifts_and_spreads(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A centre of the images, (g, 1, d), and the largest deviation from it, (g,)."""
        # Deviations from a typical image, not sums of the values: they lose nothing to a large
        # mean, and are exactly zero where all images have the same features. An image far from
        # the others has no part in the mean: the sums are exact for any centre near the images,
        # but one that such an image has pulled away would cost them their digits.
        g, n, d = self.shape
        step = max(1, (n - 1) // 8)
        sample = self.raw(slice(0, 8 * step + 1, step), slice(0, d))
        sample = sample if n >= 9 else sample[:, torch.arange(9) % n]
        middles = _middle(*sample.unflatten(1, (3, 3)).unbind(1))
        typical = _middle(*middles.unbind(1))[:, None]
        far = 10 * (sample - typical).abs().amax(2).median(1).values[:, None]
        total = torch.zeros(g, 1, d, dtype=torch.float64, device=self.device)
        spread, near = torch.zeros_like(far[:, 0]), torch.zeros_like(far)
        for rows in blocks_of(n, max(1, self._part // (g * d))):
            deviation = self.raw(rows, slice(0, d)) - typical
            size = deviation.abs().amax(2)
            some = _some(size.shape[1])
            weights = (size[:, some] <= far).to(size.dtype)
            total += weights[:, None] @ deviation[:, some]
            near += weights.sum(1, keepdim=True)
            spread = torch.maximum(spread, size.amax(1))
        # Were all of these images far from the others, the typical one would do.
        mean = total / near.clamp_min(1)[:, None]
        return typical + mean.to(typical.dtype), spread

    def _first_bad_image(self, place: int) -> str:
        for row in range(self.shape[1]):
            part = self._read(self._matrices[place], slice(row, row + 1), slice(0, self.shape[2]))
            if not torch.isfinite(part).all():
                return f": {(~torch.isfinite(part)).sum()} values of image {row} (counted from 0)"
        return ""


def grouped(models: Sequence[ModelFeatures], images: int) -> tuple[list[ModelFeatures], list[int]]:
    """On a GPU those of one dimension as one, while so many images of them fit its part.

    There a small model's every operation takes less time than its launch. On the CPU, bringing the
    features together would cost more than it saves.

    Returns
    -------
    list of ModelFeatures, list of int
        And the models' places in the order in which they now are.
    """
    room, order = room_of(models[0].device), list(range(len(models)))
    if room:
        order.sort(key=lambda place: models[place].shape[2])
    groups: list[list[ModelFeatures]] = []
    for place in order:
        d = models[place].shape[2]
        alike = bool(groups) and groups[-1][0].shape[2] == d
        if alike and (len(groups[-1]) + 1) * images * d <= room:
            groups[-1].append(models[place])
        else:
            groups.append([models[place]])
    return [ModelFeatures.beside(group) for group in groups], order


def _some(n: int) -> slice:
    """Images whose mean will do: the sums are exact for any centre near the images."""
    every = max(1, n // _ENOUGH)
    # Classes may take turns, and of ten of them every tenth image would be of one.
    while every % 2 == 0 or every % 5 == 0:
        every -= 1
    return slice(None, None, every)


def _middle(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def check_features(
    features: Sequence[Any],
    names: Sequence[str] | None,
    device: Any,
    images: Sequence[int] | None = None,
    identifiers: Sequence[Any] | None = None,
) -> list[ModelFeatures]:
    """Check what can be seen without reading the features; see `cka_matrix` for the errors."""
    if len(features) < 2:
        raise UserError(f"CKA compares models: two or more are needed, got {len(features)}")
    names = [f"model {place}" for place in range(len(features))] if names is None else list(names)
    if len(names) != len(features):
        raise UserError(f"{len(names)} names for {len(features)} feature matrices")
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{name}: {times} models have this name; each needs one of its own")
    matrices = [_matrix(name, matrix) for name, matrix in zip(names, features, strict=True)]
    n, kind = len(matrices[0]), _type_name(matrices[0])
    for name, matrix in zip(names, matrices, strict=True):
        if len(matrix) != n:
            raise UserError(f"{name}: {len(matrix)} images, but {names[0]} has {n}")
        if _type_name(matrix) != kind:
            theirs = f"those of {names[0]} are {kind}; convert one of them"
            raise UserError(f"{name}: features of type {_type_name(matrix)}, {theirs}")
    if (used := n if images is None else len(images)) < 4:
        raise UserError(f"{names[0]}: features of {used} images; CKA needs at least 4")
    if identifiers is not None:
        check_identifiers(names, identifiers, n)
    images = images if images is None else np.asarray(images)
    device = _device(names, matrices, device)
    pairs = zip(names, matrices, strict=True)
    return [ModelFeatures([name], [matrix], device, images) for name, matrix in pairs]


def check_identifiers(names: Sequence[str], identifiers: Sequence[Any], n: int) -> None:
    """Refuse features of other images than the first model's, or of the same in another order.

    Parameters
    ----------
    names : sequence of str, length m
        The models.
    identifiers : sequence, length m
        For each model the names of its n images in the order of its rows; or one string that
        stands for them all in their order, such as a hash.
    n : int

    Raises
    ------
    UserError
        Naming the model, and the first image that differs.
    """
    if len(identifiers) != len(names):
        raise UserError(
            f"identifiers of {len(identifiers)} models for {len(names)} models: each model has its "
            "own list, [images] * m where all have the same"
        )
    first = identifiers[0]
    for name, own in zip(names, identifiers, strict=True):
        if isinstance(own, str) or isinstance(first, str):
            if not (isinstance(own, str) and own == first):
                raise UserError(f"{name}: its images, or their order, are not those of {names[0]}")
            continue
        if len(own) != n:
            raise UserError(f"{name}: {len(own)} identifiers for {n} images")
        pairs = zip(own, first, strict=True)
        row = next((row for row, (one, other) in enumerate(pairs) if one != other), None)
        if row is not None:
            same = sorted(map(str, own)) == sorted(map(str, first))
            what = "the same images as" if same else "not the images of"
            raise UserError(
                f"{name}: {what} {names[0]}{', in another order' if same else ''}: image {row} "
                f"(counted from 0) is {own[row]!r}, not {first[row]!r}"
            )


def _type_name(matrix: np.ndarray | torch.Tensor) -> str:
    return str(matrix.dtype).removeprefix("torch.")


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
