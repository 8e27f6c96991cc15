from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from realign_utils import model_features
from realign_utils.cka import ESTIMATORS, cka_matrix, gram_stack, gram_sums, hsic, plan, undefined
from realign_utils.errors import UserError
from realign_utils.jackknife import jackknife
from realign_utils.model_features import ModelFeatures, check_features, grouped
from realign_utils.uncertainty import resample

SEEDS = [1, 2, 3]
SMALLEST = plan(1, [1]).bytes + 4 * 5 * 32**2  # memory that holds tiles of 32 images of 5 models


def make_features(seed, n=100, dimensions=(3, 40, 120, 200, 700), noise=2.0, dtype=np.float32):
    """Features that share five latent variables."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(n, 5))
    return [
        (latent @ generator.normal(size=(5, d)) + noise * generator.normal(size=(n, d))).astype(
            dtype
        )
        for d in dimensions
    ]


def textbook_hsic(x, y, estimator):
    """Gretton et al. 2005 and Song et al. 2012, as printed; float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    x, y, n, one = x - x.mean(0), y - y.mean(0), len(x), np.ones(len(x))
    k, g = x @ x.T, y @ y.T
    if estimator == "biased":
        h = np.eye(n) - np.outer(one, one) / n
        return np.trace(k @ h @ g @ h) / (n - 1) ** 2
    k, g = k - np.diag(np.diag(k)), g - np.diag(np.diag(g))
    means = (one @ k @ one) * (one @ g @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ g) + means - 2 / (n - 2) * one @ k @ g @ one) / (n * (n - 3))


def textbook_cka(features, estimator, epsilon=0.0):
    values = np.array([[textbook_hsic(x, y, estimator) for y in features] for x in features])
    return values / (np.sqrt(np.outer(values.diagonal(), values.diagonal())) + epsilon)


def scaled(features, factors):
    return [x * factor for x, factor in zip(features, factors, strict=True)]


def shifted(features, size):
    """Every column moved away from zero by about `size` times its spread."""
    generator = np.random.default_rng(0)
    return [
        x + size * x.std() * generator.normal(size=x.shape[1]).astype(x.dtype) for x in features
    ]


BAD_SCALES = {
    "as they are": lambda features: features,
    "means 1e3 × the spread": lambda features: shifted(features, 1e3),
    "norms 1e-4 and 1e4": lambda features: scaled(features, np.float32([1e-4, 1e4, 1, 1e4, 1e-4])),
    "norms 1e-30 and 1e30": lambda features: scaled(features, np.float32([1e-30, 1e30, 1, 1, 1])),
    "an image 1e4 × the others": lambda features: [
        x * np.float32([[1e4]] + [[1]] * 99) for x in features
    ],
    "an image 1e5 × the others": lambda features: [
        x * np.float32([[1e5]] + [[1]] * 99) for x in features
    ],
    "a constant column at 1e6": lambda features: [
        np.c_[x, np.full(100, 1e6, np.float32)] for x in features
    ],
    "half precision": lambda features: [x.astype(np.float16) for x in features],
    "float64, means 1e7 × the spread": lambda features: shifted(
        [x.astype(float) for x in features], 1e7
    ),
}


ROUTES = {"gram": (3, 40, 120, 200, 700), "features": (2, 3, 4, 5, 6)}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scales", BAD_SCALES)
@pytest.mark.parametrize("route", ROUTES)
def test_equals_the_textbook_in_float64(route, scales, estimator):
    features = BAD_SCALES[scales](make_features(1, dimensions=ROUTES[route]))
    assert plan(100, [x.shape[1] for x in features]).route == route
    result = cka_matrix(features, estimator=estimator)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, textbook_cka(features, estimator), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_hsic_equals_the_textbook_in_the_features_units(seed, estimator):
    features = make_features(seed, n=30)
    sums = gram_sums(features)
    units = torch.outer(sums.scales, sums.scales) ** 2
    expected = [[textbook_hsic(x, y, estimator) for y in features] for x in features]
    np.testing.assert_allclose(hsic(sums, estimator) / units, expected, rtol=1e-4)


@pytest.mark.parametrize("d", [20, 20_000])
def test_debiased_cka_of_unrelated_features_is_near_zero_and_not_clipped(d):
    generator = np.random.default_rng(1)
    features = [generator.normal(size=(60, d)).astype(np.float32) for _ in range(12)]
    values = cka_matrix(features, estimator="debiased")[np.triu_indices(12, 1)]
    assert abs(values.mean()) < 0.02
    assert values.min() < 0


@pytest.mark.parametrize("n", [8, 32, 256])
def test_debiased_hsic_of_independent_features_averages_zero(n):
    generator = np.random.default_rng(n)
    values = []
    for _ in range(200):
        sums = gram_sums([generator.normal(size=(n, 5)) for _ in range(2)])
        values.append((hsic(sums, "debiased") / torch.outer(sums.scales, sums.scales) ** 2)[0, 1])
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_matrix_is_symmetric_with_diagonal_one(estimator):
    result = cka_matrix(make_features(2), estimator=estimator)
    assert torch.equal(result, result.T)
    assert torch.equal(result.diagonal(), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("seed", SEEDS)
def test_biased_matrix_is_positive_semidefinite(seed):
    features = make_features(seed, n=40, dimensions=range(1, 80))
    assert torch.linalg.eigvalsh(cka_matrix(features))[0] > -1e-6


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("seed", SEEDS)
def test_rotation_scaling_and_shift_change_nothing(seed, estimator):
    generator = np.random.default_rng(seed)
    features = make_features(seed, dtype=np.float64)
    moved = [
        7 * x @ np.linalg.qr(generator.normal(size=(x.shape[1],) * 2))[0] + generator.normal()
        for x in features
    ]
    expected = cka_matrix(features, estimator=estimator)
    result = cka_matrix(moved, estimator=estimator)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    both = cka_matrix([features[1], moved[1]], estimator=estimator)
    torch.testing.assert_close(both, torch.ones_like(both), atol=1e-6, rtol=0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("memory", [SMALLEST, SMALLEST + 40_000, 10**9])
def test_tile_size_changes_nothing(memory, estimator):
    features = make_features(3, n=150)
    result = cka_matrix(features, estimator=estimator, memory=memory)
    np.testing.assert_allclose(result, textbook_cka(features, estimator), atol=1e-6, rtol=0)


def test_the_memory_bounds_the_tile():
    sizes = SMALLEST, SMALLEST + 40_000, 10**9
    assert [plan(150, [700] * 5, memory).block for memory in sizes] == [32, 54, 75]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_both_routes_agree(estimator):
    features = shifted(make_features(1, n=300, dimensions=(3, 10, 20)), 1e3)
    assert plan(300, [3, 10, 20]).route == "features"
    result = cka_matrix(features, estimator=estimator)
    stacked = cka_matrix(gram_stack(features), estimator=estimator)
    torch.testing.assert_close(result, stacked, atol=2e-7, rtol=0)
    np.testing.assert_allclose(result, textbook_cka(features, estimator), atol=1e-6, rtol=0)


def test_the_plan_takes_the_route_with_fewer_operations():
    grams, side_by_side = plan(500, [512] * 100), plan(50_000, [512] * 4)
    assert (grams.route, side_by_side.route) == ("gram", "features")
    assert grams.flops < 2 * 500 * 51_200**2
    assert side_by_side.flops == 2 * 50_000 * 2048**2


def test_order_of_models_changes_nothing():
    features = make_features(1)
    result = cka_matrix(features[::-1]).flip(0, 1)
    torch.testing.assert_close(result, cka_matrix(features), atol=1e-7, rtol=0)


def test_order_of_images_changes_nothing():
    features, order = make_features(1), np.random.default_rng(0).permutation(100)
    result = cka_matrix([x[order] for x in features])
    torch.testing.assert_close(result, cka_matrix(features), atol=1e-6, rtol=0)


def test_two_runs_give_the_same_bytes():
    features = make_features(1)
    assert cka_matrix(features).numpy().tobytes() == cka_matrix(features).numpy().tobytes()


def test_memory_mapped_strided_and_tensor_features_give_the_same(tmp_path):
    features = make_features(1)
    np.save(tmp_path / "x.npy", features[0])
    mixed = [np.load(tmp_path / "x.npy", mmap_mode="r"), torch.from_numpy(features[1])]
    mixed += [features[2], np.asfortranarray(features[3]), features[4][:, ::-1]]
    with warnings.catch_warnings(action="error"):
        result = cka_matrix(mixed)
    torch.testing.assert_close(result, cka_matrix(features), atol=1e-7, rtol=0)


@pytest.mark.parametrize("kind", ["uint8", "int64", "uint16"])
def test_whole_numbers_are_real_numbers(kind):
    features = [np.random.default_rng(d).integers(0, 200, (40, d)).astype(kind) for d in (5, 50)]
    expected = textbook_cka(features, "biased")
    np.testing.assert_allclose(cka_matrix(features), expected, atol=1e-6)
    tensors = [torch.from_numpy(x) for x in features]
    np.testing.assert_allclose(cka_matrix(tensors), expected, atol=1e-6)


def test_features_stay_as_they_were():
    features = make_features(1)
    copies = [x.copy() for x in features]
    cka_matrix(features)
    assert all(np.array_equal(x, copy) for x, copy in zip(features, copies, strict=True))


@pytest.fixture(name="_brought_together")
def models_of_one_dimension_are_brought_together(monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(model_features, "room_of", lambda device: 10**5)


ALIKE = (40, 700, 40, 40, 3, 700, 40)


@pytest.mark.parametrize("compute", [gram_sums, lambda features: gram_stack(features).sums()])
@pytest.mark.parametrize("n", [5, 100, 400])
def test_models_side_by_side_have_the_sums_of_each(compute, n, request):
    features = scaled(make_features(1, n, ALIKE), np.float32([1, 1e4, 1, 1e-4, 1, 1, 1e30]))
    alone = compute(features)
    request.getfixturevalue("_brought_together")
    together = compute(features)
    assert together.names == alone.names
    for name in ("products", "row_sums", "diagonal", "scales"):
        given, expected = getattr(together, name), getattr(alone, name)
        torch.testing.assert_close(given, expected, rtol=1e-6, atol=1e-6 * expected.abs().max())


@pytest.mark.usefixtures("_brought_together")
def test_models_of_one_dimension_are_brought_together_while_there_is_room():
    models = check_features(make_features(1, 100, (40, 3, 40, 40, 700, 40)), None, "cpu")
    for images, sizes in {20: [1, 4, 1], 1000: [1, 2, 2, 1], 10_000: [1] * 6}.items():
        groups, order = grouped(models, images)
        assert [group.shape[0] for group in groups] == sizes
        assert order == [1, 0, 2, 3, 5, 4]


@pytest.mark.usefixtures("_brought_together")
def test_of_models_side_by_side_the_bad_one_is_named():
    features = make_features(1, 100, ALIKE)
    features[2][7, 5] = np.inf
    with pytest.raises(UserError, match="model 2: features are not finite: 1 values of image 7"):
        cka_matrix(features)


def test_sums_of_some_images_are_those_of_their_features():
    features, images = make_features(1), [0, 3, *range(10, 60), 99]
    expected = gram_sums([x[images] for x in features])
    result = gram_sums(features, images=images)
    torch.testing.assert_close(result.products, expected.products)


def test_global_tf32_is_put_aside_and_given_back():
    setting = torch.backends.cuda.matmul
    before, setting.fp32_precision = setting.fp32_precision, "tf32"
    try:
        cka_matrix(make_features(1))
        assert setting.fp32_precision == "tf32"
    finally:
        setting.fp32_precision = before


@pytest.fixture(name="seen")
def settings_of_products(request, monkeypatch):
    """The precisions in which a process that has set one of its own finds products multiplied."""
    setting, found, multiply = torch.backends.cuda.matmul, [], torch.bmm
    noting = lambda *a: found.append(setting.fp32_precision) or multiply(*a)  # noqa: E731
    monkeypatch.setattr(torch, "bmm", noting)
    before, setting.fp32_precision = setting.fp32_precision, request.param
    yield found
    assert setting.fp32_precision == request.param
    setting.fp32_precision = before


whatever_is_set = pytest.mark.parametrize("seen", ["tf32", "ieee"], indirect=True)


@whatever_is_set
@pytest.mark.parametrize("memory", [2 * 10**9, SMALLEST])
@pytest.mark.parametrize(("asked", "expected"), [(False, "ieee"), (True, "tf32")])
def test_products_are_in_tf32_only_where_asked_whatever_is_set(seen, asked, expected, memory):
    cka_matrix(make_features(1), tf32=asked, memory=memory)
    assert set(seen) == {expected}


@whatever_is_set
@pytest.mark.parametrize("compute", [resample, jackknife])
def test_uncertainty_is_never_in_tf32(seen, compute):
    compute(make_features(1))
    assert set(seen) == {"ieee"}


@pytest.mark.parametrize("epsilon", [1e-6, 1.0])
def test_epsilon_is_added_to_the_denominator_as_in_the_portal(epsilon):
    features = scaled(make_features(1), np.float32([1e-2, 1e-2, 1, 1, 1e-1]))
    result = cka_matrix(features, epsilon=epsilon)
    np.testing.assert_allclose(result, textbook_cka(features, "biased", epsilon), atol=1e-6)


def test_zero_hsic_is_nan_with_a_reason():
    features = [np.eye(30, dtype=np.float32), *make_features(1, n=30, dimensions=(4, 5))]
    with pytest.warns(RuntimeWarning, match="CKA of simplex is NaN: its HSIC with itself is below"):
        result = cka_matrix(features, estimator="debiased", names=["simplex", "a", "b"])
    assert torch.isnan(result[0]).all()
    assert torch.isnan(result[:, 0]).all()
    assert torch.isfinite(result[1:, 1:]).all()


def test_a_turned_simplex_is_rounding_and_no_more():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0].astype(np.float32)
    sums = gram_sums([turn, *make_features(1, n=30, dimensions=(4, 5))])
    assert list(undefined(sums, "debiased")) == ["model 0"]


def test_an_image_far_from_all_others_hides_no_model():
    features = BAD_SCALES["an image 1e5 × the others"](make_features(1))
    assert undefined(gram_sums(features), "debiased") == {}


@pytest.mark.parametrize("classes", [2, 3, 7, 10, 11])
def test_a_class_of_images_far_from_the_others_is_no_trouble_whose_turn_it_ever_is(
    classes, monkeypatch
):
    monkeypatch.setattr(model_features, "_ENOUGH", 8)
    n, generator = 16 * classes, np.random.default_rng(classes)
    for far in range(2):
        scale = np.where(np.arange(n) % classes == far, 100, 1).astype(np.float32)[:, None]
        features = [scale * generator.normal(size=(n, 30)).astype(np.float32) for _ in range(2)]
        for estimator in ESTIMATORS:
            exact = textbook_cka([x.astype(float) for x in features], estimator)
            found = cka_matrix(features, estimator=estimator)
            np.testing.assert_allclose(found, exact, atol=1e-6)


def test_a_narrow_last_tile_takes_no_more_memory(monkeypatch):
    features, widest = make_features(1, 101, (3000, 3000)), []
    centred = ModelFeatures.centred
    monkeypatch.setattr(model_features, "PART", 50 * 200)
    monkeypatch.setattr(
        ModelFeatures,
        "centred",
        lambda *a: widest.append((part := centred(*a)).numel()) or part,
    )
    cka_matrix(features, memory=16 * 50 * 200 + 4 * 2 * 50**2)
    assert max(widest) <= 50 * 200


def test_the_same_model_has_a_biased_value():
    features = [np.eye(30, dtype=np.float32), *make_features(1, n=30, dimensions=(4, 5))]
    assert undefined(gram_sums(features), "biased") == {}


def replaced(place, matrix):
    features = make_features(1, dimensions=(3, 4, 5))
    features[place] = matrix(features[place])
    return features


def holed(value):
    def put(x):
        x[7, 2] = value
        return x

    return put


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "two or more are needed, got 0"),
        (make_features(1)[:1], "two or more are needed, got 1"),
        (replaced(1, lambda x: x[:-1]), "b: 99 images, but a has 100"),
        ([x[:3] for x in make_features(1)[:3]], "a: features of 3 images; CKA needs at least 4"),
        (replaced(2, holed(np.nan)), r"c: features are not finite: 1 values of image 7"),
        (replaced(2, holed(-np.inf)), r"c: features are not finite: 1 values of image 7"),
        (replaced(1, lambda x: np.full_like(x, 0.1)), "b: features are constant, the same for all"),
        (replaced(1, lambda x: x[:, :, None]), r"b: features of shape \(100, 4, 1\); one row"),
        (replaced(1, lambda x: x[:, :0]), r"b: features of shape \(100, 0\)"),
        (replaced(1, lambda x: x.astype(complex)), "b: features of type complex128; real numbers"),
        (replaced(1, lambda x: x.astype(str)), "b: features of type <U"),
        (
            replaced(2, lambda x: torch.from_numpy(x).double()),
            "c: features of type float64, those of a are float32; convert",
        ),
        (
            replaced(2, lambda x: torch.empty(x.shape, device="meta")),
            "c: features on meta, those of a",
        ),
    ],
)
def test_bad_features_are_an_error_that_names_the_model(features, message):
    with pytest.raises(UserError, match=message):
        cka_matrix(features, names=list("abc")[: len(features)])


def other_images(change):
    """Names of 100 images for each of three models, those of the last one changed."""
    images = [f"{i}.png" for i in range(100)]
    return [images, tuple(images), change(images)]


@pytest.mark.parametrize("compute", [cka_matrix, gram_sums, gram_stack])
@pytest.mark.parametrize(
    ("identifiers", "message"),
    [
        (
            other_images(lambda x: x[:3] + x[4:5] + x[3:4] + x[5:]),
            "c: the same images as a, in another order: image 3 .* is '4.png', not '3.png'",
        ),
        (
            other_images(lambda x: [*x[:-1], "other.png"]),
            "c: not the images of a: image 99 .* is 'other.png', not '99.png'",
        ),
        (other_images(lambda x: x[:-1]), "c: 99 identifiers for 100 images"),
        (["hash 1", "hash 1", "hash 2"], "c: its images, or their order, are not those of a"),
        (other_images(lambda x: "hash 1"), "c: its images, or their order, are not those of a"),
        (["hash 1", "hash 1"], "identifiers of 2 models for 3 models"),
    ],
)
def test_other_images_or_another_order_are_an_error(compute, identifiers, message):
    with pytest.raises(UserError, match=message):
        compute(make_features(1)[:3], names=list("abc"), identifiers=identifiers)


def test_the_same_images_in_the_same_order_pass():
    features = make_features(1)[:3]
    for identifiers in (other_images(list), ["hash"] * 3):
        assert torch.equal(cka_matrix(features, identifiers=identifiers), cka_matrix(features))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"estimator": "unbiased"}, "CKA of the unbiased HSIC is 'debiased' here"),
        ({"names": ["a"]}, "1 names for 5 feature matrices"),
        ({"memory": 1000}, "memory of 1000 bytes is too small for 5 models"),
        ({"device": "warp"}, "device warp: "),
    ],
)
def test_bad_options_are_an_error(keywords, message):
    with pytest.raises(UserError, match=message):
        cka_matrix(make_features(1), **keywords)
