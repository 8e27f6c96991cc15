from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from realign_utils.chance import chance
from realign_utils.cka import ESTIMATORS, cka_matrix, gram_sums
from realign_utils.errors import UserError
from realign_utils.jackknife import jackknife
from realign_utils.subsets import draw_plan, draw_subsets
from realign_utils.uncertainty import mean_of_pairs, resample

each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def make_loadings(seed, dimensions=(8, 20, 30), latent=6):
    """Loadings of models that share some of what they see."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(latent, max(dimensions)))
    return [shared[:, :d] + 0.7 * generator.normal(size=(latent, d)) for d in dimensions]


def make_features(generator, loadings, n, noise=1.0):
    latent = generator.normal(size=(n, len(loadings[0])))
    return [
        latent @ loading + noise * generator.normal(size=(n, loading.shape[1]))
        for loading in loadings
    ]


def population_cka(loadings, noise=1.0):
    """‖Σ_xy‖² / (‖Σ_xx‖ ‖Σ_yy‖) of the covariances, to which CKA tends with more images."""
    own = [np.linalg.norm(a.T @ a + noise**2 * np.eye(a.shape[1])) for a in loadings]
    cross = [[np.linalg.norm(a.T @ b) ** 2 for b in loadings] for a in loadings]
    matrix = np.array(cross) / np.outer(own, own)
    np.fill_diagonal(matrix, 1)
    return matrix


@pytest.fixture(name="features")
def some_features():
    return make_features(np.random.default_rng(0), make_loadings(0), 60)


@each_estimator
def test_a_resample_is_the_cka_of_its_images(features, estimator):
    result = resample(features, size=50, draws=5, seed=3, estimator=estimator)
    for images, matrix in zip(draw_subsets(60, 50, 5, seed=3), result.matrices, strict=True):
        expected = cka_matrix([x[images] for x in features], estimator=estimator)
        torch.testing.assert_close(matrix, expected, atol=1e-6, rtol=0)


@each_estimator
def test_without_room_for_the_stack_the_resamples_are_the_same(estimator):
    features = make_features(np.random.default_rng(0), make_loadings(0), 1800)
    options = {"size": 50, "draws": 4, "estimator": estimator}
    expected = resample(features, **options)
    result = resample(features, memory=7 * 10**7, **options)
    torch.testing.assert_close(result.matrices, expected.matrices, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.estimate, expected.estimate, atol=1e-6, rtol=0)


def test_equal_seeds_give_equal_bytes_and_others_do_not(features):
    first, again, other = (resample(features, seed=seed, draws=3).matrices for seed in (1, 1, 2))
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert not torch.equal(first, other)


def test_subsets_repeat_no_image():
    assert all(len(set(images.tolist())) == 30 for images in draw_subsets(60, 30, 20, seed=0))


def test_images_of_a_group_are_drawn_together(features):
    groups = [place // 3 for place in range(60)]
    plan = draw_plan(60, groups, None, 20, 0, fits=True)
    assert (plan.size, plan.groups) == (54, (18, 20))
    for images in plan.subsets:
        assert len(images) == 54
        assert all((np.bincount(images // 3) == 3)[np.unique(images // 3)])


def test_copies_in_groups_are_no_more_sure_than_the_originals():
    features = make_features(np.random.default_rng(5), make_loadings(5), 80)
    copies = [np.repeat(x + 1e-3 * x[::-1], 3, axis=0) for x in features]
    once = resample(features, estimator="debiased").standard_error[0, 1]
    options = {"estimator": "debiased", "draws": 200}
    alone = resample(copies, **options).standard_error[0, 1]
    grouped = resample(copies, groups=np.repeat(range(80), 3).tolist(), **options)
    assert grouped.standard_error[0, 1] == pytest.approx(once, rel=0.25)
    assert alone < 0.7 * once  # as if there were three times as many images


def test_images_that_are_their_own_groups_are_drawn_as_without(features):
    grouped, plain = (resample(features, draws=3, groups=g) for g in (range(60), None))
    assert torch.equal(grouped.matrices, plain.matrices)
    assert (grouped.size, grouped.groups) == (plain.size, None)


@pytest.mark.parametrize(("lost", "known"), [(1, True), (10, False)])
def test_a_few_undefined_subsets_are_left_out_and_many_are_not_hidden(features, lost, known):
    result = resample(features, draws=40, estimator="debiased")
    matrices = result.matrices.clone()
    matrices[:lost, 1], matrices[:lost, :, 1] = torch.nan, torch.nan
    error = replace(result, matrices=matrices).standard_error
    assert bool(error[0, 1].isfinite()) == known
    assert torch.equal(error[0, 2], result.standard_error[0, 2])
    if known:
        expected = replace(result, matrices=result.matrices[lost:]).standard_error
        torch.testing.assert_close(error[0, 1], expected[0, 1])


def test_models_that_are_undefined_on_subsets_are_named_with_their_number(features):
    # all images equally far apart without the last two
    simplex = np.vstack(
        [
            np.eye(58, 60),
            3 * np.eye(2, 60, 58),
        ]
    )
    options = {"size": 30, "draws": 40, "estimator": "debiased", "names": list("abcd")}
    with pytest.warns(RuntimeWarning, match=r"CKA of d is undefined on \d+ of 40 resamples"):
        resample([*features, simplex], **options)


def test_interval_is_symmetric_about_the_estimate(features):
    result = resample(features, draws=50)
    torch.testing.assert_close((result.low + result.high) / 2, result.estimate)
    torch.testing.assert_close(result.estimate, cka_matrix(features), atol=1e-6, rtol=0)


def test_a_higher_level_gives_a_wider_interval(features):
    narrow, wide = (resample(features, draws=50, level=level) for level in (0.8, 0.99))
    assert ((wide.high - narrow.high).fill_diagonal_(1) > 0).all()


def test_few_images_of_many_lend_the_biased_estimator_the_debiased_spread(features):
    biased = resample(features, size=20, draws=5)
    debiased = resample(features, size=20, draws=5, estimator="debiased")
    torch.testing.assert_close(biased.standard_error, debiased.standard_error)
    torch.testing.assert_close(biased.matrices.mean(0), biased.estimate)


@pytest.mark.parametrize("size", [20, 30, 40])
def test_standard_error_does_not_depend_on_the_size_of_resamples(size):
    features = make_features(np.random.default_rng(1), make_loadings(1), 400)
    error = resample(features, size=10 * size // 2, draws=300, estimator="debiased").standard_error
    expected = jackknife(features, estimator="debiased").standard_error
    torch.testing.assert_close(error, expected, rtol=0.25, atol=1e-9)


@each_estimator
def test_jackknife_leaves_out_each_image_in_turn(features, estimator):
    result = jackknife(features, estimator=estimator)
    for image in (0, 17, 59):
        others = [np.delete(x, image, axis=0) for x in features]
        expected = cka_matrix(others, estimator=estimator)
        torch.testing.assert_close(result.matrices[image], expected, atol=1e-6, rtol=0)


@each_estimator
def test_jackknife_of_groups_leaves_out_each_group_in_turn(features, estimator):
    groups = [place % 7 if place < 50 else "last" for place in range(60)]
    result = jackknife(features, estimator=estimator, groups=groups)
    assert (len(result.matrices), result.groups) == (8, (7, 8))
    for row, group in ((0, 0), (6, 6), (7, "last")):
        kept = [place for place in range(60) if groups[place] != group]
        expected = cka_matrix([x[kept] for x in features], estimator=estimator)
        torch.testing.assert_close(result.matrices[row], expected, atol=1e-6, rtol=0)


def test_jackknife_of_images_in_threes_is_that_of_the_originals():
    features = make_features(np.random.default_rng(6), make_loadings(6), 80)
    copies = [np.repeat(x, 3, axis=0) for x in features]
    options = {"estimator": "biased"}  # of copies, biased CKA is that of the originals
    expected = jackknife(features, **options).standard_error
    grouped = jackknife(copies, groups=np.repeat(range(80), 3).tolist(), **options)
    torch.testing.assert_close(grouped.standard_error, expected, atol=1e-6, rtol=1e-3)
    assert (jackknife(copies, **options).standard_error < 0.7 * expected)[0, 1]


@each_estimator
@pytest.mark.parametrize("grouped", [False, True])
def test_jackknife_and_resamples_agree_also_for_groups(estimator, grouped):
    features = make_features(np.random.default_rng(7), make_loadings(7), 150)
    groups = [place // 3 for place in range(150)] if grouped else None
    options = {"estimator": estimator, "groups": groups}
    ratio = (
        jackknife(features, **options).standard_error
        / resample(features, draws=400, **options).standard_error
    )
    assert ((ratio > 1 / 1.3) & (ratio < 1.3))[*np.triu_indices(3, 1)].all()


@each_estimator
def test_jackknife_without_an_image_far_from_all_others_keeps_its_digits(features, estimator):
    features = [x.copy() for x in features]
    for x in features:
        x[17] = 1e6 * x[17] + 1e6
    result = jackknife(features, estimator=estimator)
    expected = cka_matrix([np.delete(x, 17, axis=0) for x in features], estimator=estimator)
    torch.testing.assert_close(result.matrices[17], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("compute", [jackknife, resample])
@pytest.mark.parametrize("memory", [10**9, 1])
def test_other_images_are_an_error_that_names_the_model(features, compute, memory):
    options = {"memory": memory} if compute is resample else {}
    hashes = {"names": list("abc"), "identifiers": ["1", "2", "1"]}
    with pytest.raises(UserError, match="b: its images, or their order, are not those of a"):
        compute(features, **hashes, **options)


@each_estimator
def test_the_plain_bootstrap_would_raise_cka_and_subsets_do_not(estimator):
    generator = np.random.default_rng(0)
    features = [generator.normal(size=(100, 200)) for _ in range(2)]  # unrelated
    drawn = [generator.integers(0, 100, 100) for _ in range(50)]
    copies = [cka_matrix([x[i] for x in features], estimator=estimator)[0, 1] for i in drawn]
    parts = resample(features, size=99, draws=50, estimator=estimator)
    value = parts.estimate[0, 1].item()
    assert np.mean(copies) > value + 0.1
    assert parts.matrices[:, 0, 1].mean().item() == pytest.approx(value, abs=0.01)


def test_jackknife_standard_error_is_tukeys(features):
    result = jackknife(features)
    values = result.matrices[:, 0, 1]
    expected = (59 / 60 * (values - values.mean()).square().sum()).sqrt()
    torch.testing.assert_close(result.standard_error[0, 1], expected, rtol=0.01, atol=0)


def test_interval_of_a_mean_of_two_models_is_that_of_their_pair(features):
    result = resample(features, draws=20)
    interval = result.of_mean([2, 0])
    assert interval.low == pytest.approx(result.low[2, 0].item())
    assert interval.standard_error == pytest.approx(result.standard_error[2, 0].item())


def test_difference_of_a_set_from_itself_is_sure(features):
    interval = resample(features, draws=20).of(lambda c: mean_of_pairs(c, [0, 1]) - c[..., 0, 1])
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


def test_mean_of_pairs_leaves_out_the_diagonal():
    matrix = torch.tensor([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]])
    assert mean_of_pairs(matrix, [0, 1, 2]).item() == pytest.approx(0.4)


def test_a_set_of_one_model_is_an_error(features):
    with pytest.raises(UserError, match="pairs of 1 model; a set needs two or more"):
        resample(features, draws=3).of_mean([1])


def simulate(estimator, n, dimensions, noise, size=None, *, times, draws):
    """Estimates, standard errors and half lengths of the intervals, each (times,), of one pair."""
    loadings, generator, found = make_loadings(4, dimensions), np.random.default_rng(4), []
    for seed in range(times):
        features = make_features(generator, loadings, n, noise)
        result = resample(features, draws=draws, seed=seed, estimator=estimator, size=size)
        parts = result.estimate, result.standard_error, result.high - result.estimate
        found.append([part[0, 1].item() for part in parts])
    return np.array(found).T


UNRELATED = 1e6  # noise beside which the shared latent variables vanish
WIDE = ("biased", 60, (240, 240), 3.0)


def test_the_standard_error_is_that_of_many_samples_even_of_wide_features():
    estimates, errors, _ = simulate(*WIDE, times=200, draws=30)
    assert 0.85 < errors.mean() / estimates.std() < 1.2  # halves of the images: 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("n", "noise"), [(60, 1.0), (120, 0.3), (200, 5.0)])
def test_intervals_cover_the_population_value_in_90_to_98_percent(n, noise):
    loadings, generator, inside, means = make_loadings(4), np.random.default_rng(4), 0, 0
    population = torch.from_numpy(population_cka(loadings, noise))
    for draw in range(500):
        features = make_features(generator, loadings, n, noise)
        result = resample(features, draws=60, seed=draw, estimator="debiased")
        inside += ((result.low <= population) & (population <= result.high)).double()
        mean = result.of_mean([0, 1, 2])
        means += mean.low <= mean_of_pairs(population, [0, 1, 2]) <= mean.high
    pairs = inside[*np.triu_indices(3, 1)] / 500
    shares = [*pairs.tolist(), means / 500]
    print("covered", shares)  # pytest -s shows it
    assert all(0.90 <= share <= 0.98 for share in shares), shares


@pytest.mark.slow
@each_estimator
@pytest.mark.parametrize(
    ("n", "dimensions", "noise"),
    [(100, (400, 400), 3.0), (200, (100, 100), 3.0), (60, (8, 20), 1.0)],
)
def test_intervals_cover_the_estimators_expectation_in_90_to_98_percent(
    estimator, n, dimensions, noise
):
    estimates, _, reach = simulate(estimator, n, dimensions, noise, times=500, draws=60)
    covered = (abs(estimates - estimates.mean()) <= reach).mean()
    print("covered", covered)
    assert 0.90 <= covered <= 0.98


@pytest.mark.slow
@each_estimator
@pytest.mark.parametrize(("noise", "size"), [(3.0, 20), (3.0, 100), (UNRELATED, None)])
def test_intervals_of_small_subsets_or_unrelated_models_err_on_the_safe_side(
    estimator, noise, size
):
    options = {"times": 300, "draws": 60, "size": size}
    estimates, errors, reach = simulate(estimator, 200, (100, 100), noise, **options)
    covered = (abs(estimates - estimates.mean()) <= reach).mean()
    print("covered", covered, "error too large by", errors.mean() / estimates.std())
    assert covered >= 0.90
    assert errors.mean() / estimates.std() < 2


def permuted_cka(features, estimator):
    """CKA of the first two models over all permutations of the second's images."""
    return np.array(
        [
            cka_matrix([features[0], features[1][list(order)]], estimator=estimator)[0, 1]
            for order in permutations(range(len(features[0])))
        ]
    )


@each_estimator
def test_chance_has_the_moments_of_all_permutations(estimator):
    features = make_features(np.random.default_rng(2), make_loadings(2), 6)[:2]
    values = permuted_cka(features, estimator)
    level = chance(gram_sums(features), estimator=estimator)
    assert level.mean[0, 1].item() == pytest.approx(values.mean(), abs=1e-6)
    assert level.standard_deviation[0, 1].item() == pytest.approx(values.std(), abs=1e-6)


def test_chance_level_of_wide_features_is_near_one_unless_debiased():
    generator = np.random.default_rng(0)
    sums = gram_sums([generator.normal(size=(50, 5000)) for _ in range(2)])
    assert chance(sums).mean[0, 1] > 0.95
    assert chance(sums, estimator="debiased").mean[0, 1] == 0


def test_unrelated_models_are_at_the_chance_level():
    generator = np.random.default_rng(1)
    features = [generator.normal(size=(100, 60)) for _ in range(15)]
    pairs = np.triu_indices(15, 1)
    level = chance(gram_sums(features))
    scores = (cka_matrix(features) - level.mean)[pairs] / level.standard_deviation[pairs]
    assert abs(scores.mean()) < 0.5
    assert 0.5 < scores.std() < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3}, "resamples of 3 images; from 4 to 59 of the 60"),
        ({"size": 60}, "resamples of 60 images; from 4 to 59 of the 60"),
        ({"draws": 1}, "1 resamples; two or more"),
        ({"groups": [1] * 59}, "groups of 59 images for 60 images"),
        ({"groups": [1] * 30 + [2] * 30}, "2 groups of images; an interval needs 5 or more"),
        ({"level": 95}, "level 95 of the intervals; between 0 and 1"),
        ({"estimator": "unbiased"}, "unknown estimator 'unbiased'"),
    ],
)
def test_impossible_options_are_an_error(features, options, message):
    with pytest.raises(UserError, match=message):
        resample(features, **options)
