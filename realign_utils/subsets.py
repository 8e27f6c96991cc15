"""Random subsets of the images, whole groups of them where images belong together, and their sums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from realign_utils.cka import GramStack, GramSums, gram_stack, gram_sums
from realign_utils.errors import UserError
from realign_utils.grams import MEMORY, float32_products, inner_products

SHARE = 0.9
"""Share of the images in a resample, by default."""
LARGE = 1000
"""Images in a resample, by default, where the Gram stack does not fit the memory."""
_CLOSE = 0.8  # share of the images from which on biased CKA varies on a subset as on all
_CANCELLED = 0.05  # share of a model's sum of squares below which what is left is summed anew


def draw_subsets(n: int, size: int, draws: int, seed: int | Sequence[int]) -> torch.Tensor:
    """Random subsets of the images: (draws, size), each sorted and without repetition."""
    if not 4 <= size < n:
        raise UserError(f"resamples of {size} images; from 4 to {n - 1} of the {n} are possible")
    if draws < 2:
        raise UserError(f"{draws} resamples; two or more are needed")
    generator = np.random.default_rng(seed)
    subsets = [np.sort(generator.choice(n, size, replace=False)) for _ in range(draws)]
    return torch.from_numpy(np.stack(subsets))


@dataclass(frozen=True)
class DrawPlan:
    """The subsets of a resampling; `size`, `groups` as of `Resamples`; whether they are near all."""

    subsets: Sequence[torch.Tensor]
    size: int
    groups: tuple[int, int] | None
    close: bool


def draw_plan(
    n: int,
    groups: Sequence[Any] | None,
    size: int | None,
    draws: int,
    seed: int | Sequence[int],
    *,
    fits: bool,
) -> DrawPlan:
    """Subsets of images, or of whole groups of them; arguments as of `resample`."""
    places = group_members(n, groups)
    units = len(places)
    usual = usual_size(units, fits=fits and n == units)
    if n > units and size is None:
        usual = max(4, int(units * (SHARE if fits else min(0.5, LARGE / n))))
    drawn = draw_subsets(units, usual if size is None else size, draws, seed)
    if units == n:
        return DrawPlan(drawn, drawn.shape[1], None, close_to_all(drawn.shape[1], n))
    subsets = [torch.cat([places[unit] for unit in row]).sort().values for row in drawn]
    mean = round(sum(map(len, subsets)) / len(subsets))
    counted = (drawn.shape[1], units)
    return DrawPlan(subsets, mean, counted, close_to_all(*counted))


def halves_of(
    n: int, groups: Sequence[Any] | None, draws: int, seed: int | Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of subsets that share no image, nor group: halves of the images, of `LARGE` at most.

    Parameters
    ----------
    n, groups
        As of `draw_plan`.
    draws : int
        Pairs.
    seed : int or sequence of int
    """
    places = group_members(n, groups)
    size = max(1, min(len(places) // 2, int(LARGE * len(places) / n)))
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(draws):
        order = generator.permutation(len(places))
        ends = order[:size], order[len(order) - size :]
        pairs.append(tuple(torch.cat([places[i] for i in end]).sort().values for end in ends))
    return pairs


def digest(subsets: Sequence[torch.Tensor]) -> str:
    """The same for the same places, drawn in the same order of draws."""
    found = hashlib.sha256()
    for subset in subsets:
        found.update(np.asarray(subset, dtype="<i8").tobytes() + b"|")
    return found.hexdigest()


def group_members(n: int, groups: Sequence[Any] | None) -> list[torch.Tensor]:
    """Places of each group's images, in the order of their first ones; without groups, each image."""
    if groups is not None and len(groups) != n:
        raise UserError(f"groups of {len(groups)} images for {n} images")
    members: dict[Any, list[int]] = {}
    for place, group in enumerate(range(n) if groups is None else groups):
        members.setdefault(group, []).append(place)
    if len(members) < 5:
        what = "images" if len(members) == n else "groups of images"
        raise UserError(f"{len(members)} {what}; an interval needs 5 or more")
    return [torch.tensor(each) for each in members.values()]


def usual_size(n: int, *, fits: bool) -> int:
    """Images in a resample: `SHARE` of them; half, at most `LARGE`, if the stack does not fit."""
    return max(4, int(SHARE * n) if fits else min(n // 2, LARGE))


def close_to_all(size: int, n: int) -> bool:
    """Whether subsets are so large that the spread of biased CKA on them is that of all images."""
    return size >= _CLOSE * n


def stack_if_it_fits(
    features: Sequence[Any] | GramStack, *, memory: int = MEMORY, **keywords: Any
) -> GramStack | None:
    """The Gram stack, if it and its copy fit the memory; `keywords` as of `gram_stack`."""
    if isinstance(features, GramStack):
        return features
    if len(features) and 8 * len(features) * len(features[0]) ** 2 > memory:
        return None
    return gram_stack(features, **keywords)


def subset_sums(
    features: Sequence[Any] | GramStack, subsets: Iterable[torch.Tensor], **keywords: Any
) -> Iterator[GramSums]:
    """The sums over each of several subsets of the images, of any sizes.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i), or GramStack
        From a stack only the pairs of images inside a subset are summed, or, for more than half of
        the images, those of the others are taken out of the sums over all. Without one, each
        subset's Gram matrices are built from its features.
    subsets : iterable of torch.Tensor
        The images' places.
    **keywords
        names, device, memory: as of `gram_sums`; a stack needs none.

    Yields
    ------
    GramSums
    """
    if not isinstance(features, GramStack):
        yield from (gram_sums(features, images=subset, **keywords) for subset in subsets)
        return
    n, total = features.diagonal.shape[1], features.sums()
    for subset in subsets:
        if 2 * len(subset) > n:
            yield sums_without(features, total, others_than(subset, n))
        else:
            yield only(features, subset).sums()


def others_than(images: torch.Tensor, n: int) -> torch.Tensor:
    """Places of all other images, in their order."""
    return torch.ones(n, dtype=torch.bool).index_fill_(0, images, False).nonzero().squeeze(1)


def only(stack: GramStack, images: torch.Tensor) -> GramStack:
    """The stack of some of the images, given their places."""
    images = images.to(stack.grams.device)
    m, n = stack.diagonal.shape
    pairs = (images[:, None] * n + images).flatten()  # in one pass; row by row takes thrice as long
    grams = stack.grams.view(m, n * n).index_select(1, pairs).view(m, len(images), len(images))
    return GramStack(stack.names, grams, stack.diagonal[:, images], stack.scales)


def sums_without(stack: GramStack, total: GramSums, images: torch.Tensor) -> GramSums:
    """The sums over all images but a few: those of the few are taken out of the `total`."""
    kept = others_than(images, stack.diagonal.shape[1]).to(stack.grams.device)
    images = images.to(stack.grams.device)
    rows = stack.grams[:, images]
    with float32_products(tf32=False):
        beside = inner_products(rows.flatten(1))
        within = inner_products(rows[:, :, images].flatten(1))
    products = total.products - 2 * beside + within
    if (products.diagonal() < _CANCELLED * total.products.diagonal()).any():
        # without an image far from all others, the difference would be the total's rounding
        return only(stack, kept).sums()
    return GramSums(
        names=stack.names,
        products=products,
        row_sums=total.row_sums[:, kept] - rows.sum(1)[:, kept].double(),
        diagonal=stack.diagonal[:, kept],
        scales=stack.scales,
    )
