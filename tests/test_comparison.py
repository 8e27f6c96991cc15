from __future__ import annotations

import numpy as np
import pytest
import torch

from realign_utils.cka import ESTIMATORS, cka_matrix
from realign_utils.comparison import compare
from realign_utils.comparison_draws import joint_seeds
from realign_utils.comparison_files import read_comparison, write_comparison
from realign_utils.errors import UserError
from realign_utils.jackknife import jackknife
from realign_utils.subsets import draw_subsets, halves_of
from realign_utils.uncertainty import resample

NAMES = ["a", "b", "c", "d"]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def make_features(seed, n=60, dimensions=(8, 20, 30, 200), noise=1.0):
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(n, 5))
    return [
        latent @ generator.normal(size=(5, d)) + noise * generator.normal(size=(n, d))
        for d in dimensions
    ]


@pytest.fixture(name="features", scope="module")
def some_features():
    return make_features(0)


@pytest.fixture(name="compared", scope="module")
def some_comparison(features):
    return compare(features, names=NAMES, resamples=40, sizes=[15, 30, 45, 500], seed=3)


@each_estimator
def test_the_values_are_cka_of_all_images(features, compared, estimator):
    expected = cka_matrix(features, estimator=estimator)
    torch.testing.assert_close(compared[estimator].similarity, expected, atol=1e-6, rtol=0)


@each_estimator
def test_the_resamples_are_those_of_resample(features, compared, estimator):
    expected = resample(features, draws=40, seed=3, estimator=estimator)
    result = compared[estimator].resamples
    torch.testing.assert_close(result.matrices, expected.matrices, atol=1e-9, rtol=0)
    torch.testing.assert_close(result.low, expected.low, atol=1e-9, rtol=0)


@each_estimator
def test_the_curve_is_the_cka_of_smaller_samples(features, compared, estimator):
    curve = compared[estimator].curve
    assert list(curve) == [15, 30, 45]
    for images, matrix in zip(draw_subsets(60, 15, 10, [3, 15]), curve[15], strict=True):
        expected = cka_matrix([x[images] for x in features], estimator=estimator)
        torch.testing.assert_close(matrix, expected, atol=1e-6, rtol=0)


def test_a_size_more_changes_no_other(features, compared):
    alone = compare(features, names=NAMES, resamples=40, sizes=[30], seed=3)["biased"]
    assert torch.equal(alone.curve[30], compared["biased"].curve[30])
    assert torch.equal(alone.resamples.matrices, compared["biased"].resamples.matrices)


@each_estimator
def test_without_room_for_the_stack_the_curve_is_the_same(estimator):
    features = make_features(1, n=1800)
    options = {"names": NAMES, "resamples": 8, "sizes": [60]}
    expected = compare(features, **options)[estimator]
    result = compare(features, memory=7 * 10**7, **options)[estimator]
    assert (expected.resamples.size, result.resamples.size) == (1620, 900)
    torch.testing.assert_close(result.similarity, expected.similarity, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.curve[60], expected.curve[60], atol=1e-6, rtol=0)


@each_estimator
def test_without_room_for_the_stack_the_standard_errors_are_those_with_it(estimator, tmp_path):
    features = make_features(1, n=1800)
    options = {"names": NAMES, "resamples": 60, "sizes": [60]}
    expected = compare(features, **options)[estimator]
    write_comparison(tmp_path, "few", compare(features, memory=7 * 10**7, **options)[estimator])
    result = read_comparison(tmp_path, "few", estimator)
    assert (result.jackknife, np.isnan(result.jackknife_error(NAMES))) == (None, True)
    for found in (result, expected):
        assert found.resamples.degrees == 59
    pairs = np.triu_indices(4, 1)
    ratio = (result.resamples.standard_error / expected.resamples.standard_error)[pairs]
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    gaps = [c.difference(["a", "b"], ["c", "d"]).standard_error for c in (result, expected)]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.3)


@pytest.mark.parametrize("size", [3, 0, -1, 20.5, "many"])
def test_an_impossible_size_is_an_error_before_any_work(features, size):
    wrong = [x[:, :0] for x in features]  # would be an error too, were it looked at
    with pytest.raises(UserError, match=f"learning curve at {size!r} images; whole numbers from 4"):
        compare(wrong, names=NAMES, sizes=[15, size])


@pytest.mark.parametrize("memory", [10**9, 1])
def test_two_models_of_one_name_are_an_error(features, memory):
    with pytest.raises(UserError, match="b: 2 models have this name; each needs one of its own"):
        compare(features, names=["a", "b", "c", "b"], memory=memory)
    with pytest.raises(UserError, match="b: 2 models have this name"):
        cka_matrix(features, names=["a", "b", "c", "b"], memory=memory)


@each_estimator
def test_the_jackknife_is_that_of_all_images_and_comes_back_from_its_file(
    features, compared, estimator, tmp_path
):
    expected = jackknife(features, estimator=estimator)
    written = compared[estimator]
    torch.testing.assert_close(written.jackknife.matrices, expected.matrices, atol=1e-9, rtol=0)
    write_comparison(tmp_path, "images", written)
    read = read_comparison(tmp_path, "images", estimator)
    assert (read.jackknife.size, read.jackknife.groups) == (59, None)
    assert read.jackknife_error(NAMES) == pytest.approx(written.jackknife_error(NAMES), rel=1e-4)


def test_a_jackknife_of_groups_comes_back_as_one(features, tmp_path):
    groups = [place // 4 for place in range(60)]
    written = compare(features, names=NAMES, groups=groups, resamples=20, sizes=[])["biased"]
    write_comparison(tmp_path, "images", written)
    read = read_comparison(tmp_path, "images", "biased")
    assert (read.jackknife.groups, len(read.jackknife.matrices)) == ((14, 15), 15)
    assert read.jackknife_error(NAMES) == pytest.approx(written.jackknife_error(NAMES), rel=1e-4)


def test_large_sizes_are_drawn_less_often():
    small = compare(make_features(1, n=2500), names=NAMES, resamples=40, sizes=[100, 2000])
    assert [len(m) for m in small["biased"].curve.values()] == [10, 2]


def test_the_curve_ends_at_the_interval_of_all_images(compared):
    curve = compared["biased"].learning_curve(["a", "c"])
    whole = compared["biased"].mean(["a", "c"])
    assert list(curve["n"]) == [15, 30, 45, 60]
    last = curve.iloc[-1]
    assert (last["mean"], last["low"], last["high"]) == (whole.estimate, whole.low, whole.high)


def test_the_biased_curve_falls_with_its_chance_level_and_the_debiased_does_not():
    generator = np.random.default_rng(3)
    features = [generator.normal(size=(400, 300)) for _ in range(4)]
    compared = compare(features, names=NAMES, resamples=40, sizes=[50, 100, 200])
    biased, debiased = (compared[kind].learning_curve(NAMES) for kind in ESTIMATORS)
    assert (biased["mean"].diff()[1:] < -0.05).all()
    assert (biased["mean"] - biased["chance"]).abs().max() < 0.02  # unrelated: at the chance level
    assert debiased["mean"].abs().max() < 0.02
    assert debiased["chance"].abs().max() < 1e-9


def test_the_interval_of_few_images_is_of_the_subsets_drawn(features):
    compared = compare(features, names=NAMES, resamples=80, sizes=[15, 45], seed=3)["biased"]
    curve = compared.learning_curve(["a", "c"]).set_index("n")["standard_error"]
    spread = float(compared.curve[15][:, 0, 2].std())
    assert curve[15] == pytest.approx(spread / 0.75**0.5)  # 1 − 15 / 60
    assert curve[45] == pytest.approx(curve[60] * (60 / 45) ** 0.5)


def test_more_images_of_the_same_groups_do_not_lessen_what_groups_add():
    features = [np.repeat(x, 5, axis=0) for x in make_features(2, n=40)]
    groups = np.repeat(range(40), 5).tolist()
    options = {"names": NAMES, "resamples": 80, "sizes": [20, 100, 180]}
    grouped, alone = (
        compare(features, groups=g, **options)["debiased"].learning_curve(["a", "b"])
        for g in (groups, None)
    )
    added = grouped["standard_error"] ** 2 - alone["standard_error"] ** 2
    assert added[0] == pytest.approx(added[1])
    assert added[0] > 0


def test_an_interval_of_few_images_is_that_of_many_samples_of_so_many():
    loadings = np.random.default_rng(0).normal(size=(5, 60))

    def sample(seed, n):
        generator = np.random.default_rng(seed)
        latent = generator.normal(size=(n, 5))
        return [latent @ loadings[:, d : d + 20] + generator.normal(size=(n, 20)) for d in (0, 40)]

    values = [cka_matrix(sample(seed, 100))[0, 1].item() for seed in range(300)]
    compared = compare(sample(1000, 1000), names=["a", "b"], resamples=200, sizes=[100])
    curve = compared["biased"].learning_curve(["a", "b"]).set_index("n").loc[100]
    assert curve["standard_error"] == pytest.approx(np.std(values), rel=0.3)
    assert curve["mean"] == pytest.approx(np.mean(values), abs=3 * np.std(values))


def test_a_difference_is_paired(compared):
    comparison = compared["biased"]
    gap = comparison.difference(["a", "b"], ["a", "c"])
    one, other = comparison.mean(["a", "b"]), comparison.mean(["a", "c"])
    assert gap.estimate == pytest.approx(one.estimate - other.estimate)
    of_pairs = comparison.resamples.matrices[:, 0, 1] - comparison.resamples.matrices[:, 0, 2]
    assert gap.standard_error == pytest.approx(3 * float(of_pairs.std()))  # √(54 / 6)


def test_a_misspelt_model_is_named_with_the_nearest(compared):
    compared = compared["biased"]
    misspelt = compared.names[0] + "x"
    with pytest.raises(UserError, match=f"unknown model '{misspelt}'; did you mean"):
        compared.difference([misspelt, compared.names[1]], compared.names[:2])


def test_averages_are_over_pairs_of_different_models(compared):
    comparison = compared["biased"]
    expected = comparison.similarity.numpy()[np.triu_indices(4, 1)]
    np.testing.assert_array_equal(comparison.pair_values(), expected)
    assert comparison.pair_averages()["CKA"] == pytest.approx(expected.mean())


@each_estimator
def test_what_is_written_is_read_back(compared, estimator, tmp_path):
    written = compared[estimator]
    write_comparison(tmp_path, "images", written)
    read = read_comparison(tmp_path, "images", estimator)
    assert torch.equal(read.similarity, written.similarity)
    assert torch.equal(read.chance.mean, written.chance.mean)
    torch.testing.assert_close(
        read.resamples.matrices, written.resamples.matrices, atol=1e-7, rtol=0
    )
    for size in written.curve:
        torch.testing.assert_close(read.curve[size], written.curve[size], atol=1e-7, rtol=0)
    expected = written.learning_curve(["a", "d"])
    np.testing.assert_allclose(read.learning_curve(["a", "d"]), expected, atol=1e-6)


def test_the_bounds_beside_the_matrix_are_those_of_the_interval(compared, tmp_path):
    write_comparison(tmp_path, "images", compared["debiased"])
    lines = (tmp_path / "images_debiased_lower.csv").read_text().splitlines()
    assert lines[0] == "model,a,b,c,d"
    assert float(lines[2].split(",")[3]) == compared["debiased"].resamples.low[1, 2].item()


def test_two_writings_give_the_same_bytes(compared, tmp_path):
    for folder in ("one", "two"):
        write_comparison(tmp_path / folder, "images", compared["biased"])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_missing_damaged_or_foreign_file_is_an_error(compared, tmp_path):
    write_comparison(tmp_path, "images", compared["biased"])
    path = tmp_path / "images_biased_resamples.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(
        UserError, match=r"images_biased_resamples\.safetensors is damaged: run 2_cka"
    ):
        read_comparison(tmp_path, "images", "biased")
    path.write_bytes(content.replace(b'\\"a\\"', b'\\"x\\"'))
    with pytest.raises(UserError, match=r"is of other models than .*images_biased\.csv"):
        read_comparison(tmp_path, "images", "biased")
    path.unlink()
    with pytest.raises(UserError, match="is missing: run 2_cka"):
        read_comparison(tmp_path, "images", "biased")


@pytest.mark.parametrize("memory", [10**9, 1])
def test_other_images_are_an_error_that_names_the_model(features, memory):
    hashes = ["1", "1", "2", "1"]
    with pytest.raises(UserError, match="c: its images, or their order, are not those of a"):
        compare(features, names=NAMES, identifiers=hashes, memory=memory)


def test_halves_share_no_image_and_no_group_and_their_cka_comes_back_from_the_file(tmp_path):
    groups = [place // 3 for place in range(60)]
    for one, other in halves_of(60, groups, 5, 0):
        assert not {place // 3 for place in one.tolist()} & {p // 3 for p in other.tolist()}
        assert len(one) == len(other) == 30
    features = make_features(0)
    options = {"names": list("abcd"), "resamples": 5, "sizes": (), "groups": groups}
    found = compare(features, halves=3, seed=4, **options)["biased"]
    one, _ = halves_of(60, groups, 3, [4, 2])[0]
    assert found.halves.shape == (3, 2, 4, 4)
    expected = cka_matrix([each[one] for each in features])
    torch.testing.assert_close(found.halves[0, 0], expected, rtol=1e-6, atol=1e-6)
    write_comparison(tmp_path, "x", found)
    back = read_comparison(tmp_path, "x", "biased")
    torch.testing.assert_close(back.halves, found.halves, rtol=1e-6, atol=1e-6)
    assert back.resamples.drawn == found.resamples.drawn != ""


def test_the_same_images_are_drawn_alike_and_others_apart():
    seeds = joint_seeds({"low": ["a", "b"], "other": ["c", "d"], "high": ["a", "b"]}, 7)
    assert seeds["low"] == seeds["high"] != seeds["other"]
    options = {"names": list("abcd"), "resamples": 4, "sizes": ()}
    drawn = {
        name: compare(make_features(place), seed=seed, **options)["biased"].resamples.drawn
        for place, (name, seed) in enumerate(seeds.items())
    }
    assert drawn["low"] == drawn["high"] != drawn["other"]
