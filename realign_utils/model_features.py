"""One model's features on many images: checked, and centred and scaled part by part."""

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
"""Entries of a feature matrix that are centred at a time."""
_ENOUGH = 128  # images of a part whose mean is its centre


def blocks_of(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that make up range(n); the last may be shorter."""
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


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
        width = max(1, PART // out.shape[1])
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
        sample = sample if n >= 9 else sample[torch.arange(9) % n]
        typical = _middle(*_middle(*sample.view(3, 3, d)))
        far = 10 * (sample - typical).abs().amax(1).median()
        total = torch.zeros(d, dtype=torch.float64, device=self.device)
        spread, near = torch.zeros_like(far), torch.zeros_like(far)
        for rows in blocks_of(n, max(1, PART // d)):
            deviation = self.raw(rows, slice(0, d)) - typical
            size = torch.maximum(deviation.amax(1), -deviation.amin(1))
            # The mean of some will do: the sums are exact for any centre near the images.
            some = slice(0, None, max(1, len(deviation) // _ENOUGH))
            weights = (size[some] <= far).to(size.dtype)
            total += weights @ deviation[some]
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
    return [ModelFeatures(*pair, device, images) for pair in zip(names, matrices, strict=True)]


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
        raise UserError(f"identifiers of {len(identifiers)} models for {len(names)} models")
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
