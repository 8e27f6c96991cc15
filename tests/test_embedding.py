"""Order by clustering and map by scaling, against planted truths and naive twins."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from realign_utils.embedding import align, embed, order, resampled_maps

every_seed = pytest.mark.parametrize("seed", [1, 2, 3])


def planar(seed: int, models: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Points of the plane and the similarity whose dissimilarities are their distances."""
    points = np.random.default_rng(seed).normal(scale=0.2, size=(models, 2))
    return points, 1 - distances(points)


def distances(points: np.ndarray) -> np.ndarray:
    return np.array([[np.hypot(*(a - b)) for b in points] for a in points])


def similarity_of(seed: int, models: int = 15) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(models, 6)) + 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


@every_seed
def test_order_puts_planted_groups_side_by_side(seed: int) -> None:
    group = np.random.default_rng(seed).permutation(np.repeat(np.arange(3), 4))
    noise = np.random.default_rng(seed).uniform(0, 0.05, size=(12, 12))
    similarity = np.where(group[:, None] == group, 0.9, 0.5) - (noise + noise.T)
    ordered = group[order(similarity)]
    assert (np.diff(ordered) != 0).sum() == 2


@every_seed
def test_order_does_not_depend_on_the_order_given(seed: int) -> None:
    similarity = similarity_of(seed)
    shuffle = np.random.default_rng(seed).permutation(len(similarity))
    shuffled = order(similarity[np.ix_(shuffle, shuffle)])
    np.testing.assert_array_equal(shuffle[shuffled], order(similarity))


@every_seed
def test_order_begins_with_the_end_that_is_more_like_all_others(seed: int) -> None:
    similarity = similarity_of(seed)
    first, *_, last = order(similarity)
    assert similarity[first].sum() >= similarity[last].sum()


@pytest.mark.parametrize("models", [1, 2, 3, 9])
def test_order_is_a_permutation_with_unknown_pairs_too(models: int) -> None:
    similarity = similarity_of(0, models)
    similarity[0, -1] = similarity[-1, 0] = np.nan
    np.testing.assert_array_equal(np.sort(order(similarity)), np.arange(models))


@every_seed
def test_embedding_recovers_points_of_the_plane(seed: int) -> None:
    points, similarity = planar(seed)
    found = embed(similarity)
    np.testing.assert_allclose(distances(found.coordinates), distances(points), atol=1e-4)
    assert found.stress < 1e-4


@every_seed
def test_stress_is_kruskal_s_stress_1(seed: int) -> None:
    similarity = similarity_of(seed)
    found = embed(similarity)
    pairs = list(combinations(range(len(similarity)), 2))
    mapped = [np.hypot(*(found.coordinates[i] - found.coordinates[j])) for i, j in pairs]
    errors = [(1 - similarity[i, j] - d) ** 2 for (i, j), d in zip(pairs, mapped, strict=True)]
    assert found.stress == pytest.approx(np.sqrt(sum(errors) / sum(d**2 for d in mapped)))


@every_seed
def test_embedding_is_as_good_as_scikit_learn_s(seed: int) -> None:
    from sklearn.manifold import smacof

    similarity = similarity_of(seed)
    points, _ = smacof(
        1 - similarity, n_init=8, max_iter=2000, eps=1e-10, random_state=seed, normalized_stress=False
    )  # fmt: skip
    errors = [
        ((distances(p) - 1 + similarity) ** 2).sum()
        for p in (embed(similarity).coordinates, points)
    ]
    assert errors[0] <= errors[1] * 1.001


def test_an_unknown_pair_has_no_weight() -> None:
    points, similarity = planar(4)
    similarity[2, 7] = similarity[7, 2] = np.nan
    found = embed(similarity)
    np.testing.assert_allclose(distances(found.coordinates), distances(points), atol=1e-3)


def test_a_model_of_which_nothing_is_known_has_no_place() -> None:
    _, similarity = planar(5)
    similarity[3, :] = similarity[:, 3] = np.nan
    missing = np.isnan(embed(similarity).coordinates).all(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(missing), [3])


@every_seed
def test_one_seed_gives_the_same_bytes(seed: int) -> None:
    similarity = similarity_of(seed)
    first, second = (embed(similarity, seed=seed).coordinates for _ in range(2))
    assert first.tobytes() == second.tobytes()


@every_seed
def test_the_map_is_turned_by_a_rule(seed: int) -> None:
    points = embed(similarity_of(seed)).coordinates
    x, y = points.T
    assert abs(x.mean()) < 1e-9
    assert abs((x * y).mean()) < 1e-9
    assert x.std() >= y.std()
    assert points.max(axis=0) == pytest.approx(np.abs(points).max(axis=0))


@every_seed
def test_align_undoes_turning_mirroring_and_shifting(seed: int) -> None:
    points, _ = planar(seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(2, 2)))[0]
    np.testing.assert_allclose(align(points @ turn + [3, -1], points), points, atol=1e-12)


def test_align_does_not_scale() -> None:
    points, _ = planar(6)
    other, _ = planar(7)
    np.testing.assert_allclose(distances(align(other, points)), distances(other), atol=1e-12)


@every_seed
def test_maps_of_the_same_matrix_lie_on_the_reference_and_of_others_near_it(seed: int) -> None:
    similarity = similarity_of(seed)
    reference = embed(similarity)
    noise = np.random.default_rng(seed).normal(scale=0.005, size=(4, 15, 15))
    same, *others = resampled_maps(np.stack([similarity, *(similarity + noise)]), reference)
    np.testing.assert_allclose(same, reference.coordinates, atol=1e-3)
    moved = [np.linalg.norm(other - reference.coordinates, axis=1).max() for other in others]
    assert 0 < max(moved) < 0.1


def test_a_model_without_a_place_has_none_on_resampled_maps() -> None:
    similarity = similarity_of(1)
    similarity[3, :] = similarity[:, 3] = np.nan
    maps = resampled_maps(np.stack([similarity, similarity]), embed(similarity))
    assert np.isnan(maps[:, 3]).all()
    assert np.isfinite(np.delete(maps, 3, axis=1)).all()
