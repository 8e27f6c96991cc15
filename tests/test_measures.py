from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

from realign_utils.cka import gram_stack
from realign_utils.errors import UserError
from realign_utils.measures import MEASURES, mutual_knn, procrustes, rsa

each_measure = pytest.mark.parametrize("measure", MEASURES)
INVARIANT = [name for name in MEASURES if name != "mutual k-NN"]


def make_features(seed, n=60, dimensions=(5, 30, 200)):
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(n, 4))
    return [
        latent @ generator.normal(size=(4, d)) + generator.normal(size=(n, d)) for d in dimensions
    ]


def rotated(x, seed):
    generator = np.random.default_rng(seed)
    return x @ np.linalg.qr(generator.normal(size=(x.shape[1], x.shape[1])))[0]


def naive_rsa(x, y, correlate):
    return correlate(pdist(x), pdist(y)).statistic


def naive_mutual_knn(x, y, k):
    sets = []
    for features in (x, y):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        order = np.argsort(-unit @ unit.T, axis=1)
        sets.append([[j for j in line if j != i][:k] for i, line in enumerate(order)])
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(*sets, strict=True)])


def naive_procrustes(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y, "nuc") / (np.linalg.norm(x) * np.linalg.norm(y))


NAIVE = {
    "RSA (Pearson)": lambda x, y: naive_rsa(x, y, pearsonr),
    "RSA (Spearman)": lambda x, y: naive_rsa(x, y, spearmanr),
    "mutual k-NN": lambda x, y: naive_mutual_knn(x, y, 10),
    "angular Procrustes": naive_procrustes,
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@each_measure
def test_equals_the_definition(measure, seed):
    features = make_features(seed)
    expected = [[NAIVE[measure](x, y) for y in features] for x in features]
    np.testing.assert_allclose(MEASURES[measure](features), expected, atol=1e-5)


@each_measure
def test_matrix_is_symmetric_with_diagonal_one(measure):
    result = MEASURES[measure](make_features(1))
    assert result.dtype == torch.float64
    assert torch.equal(result, result.T)
    assert torch.equal(result.diagonal(), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("measure", INVARIANT)
def test_rotation_scaling_and_shift_change_nothing(measure):
    features = make_features(1)
    moved = [5 * rotated(x, 2) + 1000 for x in features]
    expected = MEASURES[measure](features)
    torch.testing.assert_close(MEASURES[measure](moved), expected, atol=1e-5, rtol=0)
    both = MEASURES[measure]([features[1], moved[1]])
    assert both[0, 1].item() == pytest.approx(1, abs=1e-5)


def test_neighbours_stay_under_rotation_and_the_images_own_scales():
    features = make_features(1)
    sizes = np.random.default_rng(0).uniform(0.1, 10, size=(60, 1))
    moved = [sizes * rotated(x, 2) for x in features]
    assert torch.equal(mutual_knn(moved), mutual_knn(features))


def test_unrelated_models_share_neighbours_by_chance():
    generator = np.random.default_rng(1)
    features = [generator.normal(size=(200, 20)) for _ in range(10)]
    shares = mutual_knn(features, k=20)[np.triu_indices(10, 1)]
    assert shares.mean().item() == pytest.approx(20 / 199, abs=0.01)


def test_procrustes_angle_obeys_the_triangle_inequality():
    angles = torch.arccos(procrustes(make_features(1, dimensions=range(2, 40, 4))).clamp(-1, 1))
    assert (angles[:, None] <= angles[:, :, None] + angles[None] + 1e-7).all()


def test_equal_distances_share_their_rank():
    grid = np.array([[i, j] for i in range(-2, 3) for j in range(-2, 3)], dtype=float)
    other = make_features(1, n=25)[0]
    result = rsa([grid, other], correlation="spearman")[0, 1].item()
    assert result == pytest.approx(naive_rsa(grid, other, spearmanr), abs=1e-6)


@pytest.mark.parametrize("correlation", ["pearson", "spearman"])
def test_equal_distances_only_give_nan(correlation):
    result = rsa([np.eye(30), *make_features(1, n=30)], correlation=correlation)
    assert torch.isnan(result[0]).all()
    assert torch.isnan(result[:, 0]).all()
    assert torch.isfinite(result[1:, 1:]).all()


def test_rsa_takes_the_gram_stack():
    features = make_features(1)
    assert torch.equal(rsa(gram_stack(features)), rsa(features))


def test_an_image_without_features_is_no_error():
    features = make_features(1)
    features[0][3] = 0
    assert torch.isfinite(mutual_knn(features)).all()


@each_measure
def test_bad_features_are_an_error_that_names_the_model(measure):
    features = make_features(1)
    features[2][5, 1] = np.nan
    with pytest.raises(UserError, match="c: features are not finite: 1 values of image 5"):
        MEASURES[measure](features, names=["a", "b", "c"])


@each_measure
def test_other_images_are_an_error_that_names_the_model(measure):
    hashes = {"names": ["a", "b", "c"], "identifiers": ["1", "1", "2"]}
    with pytest.raises(UserError, match="c: its images, or their order, are not those of a"):
        MEASURES[measure](make_features(1), **hashes)


@pytest.mark.parametrize(("n", "k"), [(60, 10), (12, 5), (4, 1)])
def test_few_images_have_fewer_neighbours_by_default(n, k):
    features = make_features(1, n=n)
    assert torch.equal(mutual_knn(features), mutual_knn(features, k=k))


@pytest.mark.parametrize("k", [0, 60])
def test_impossible_numbers_of_neighbours_are_an_error(k):
    with pytest.raises(UserError, match=f"{k} nearest neighbours; from 1 to 59"):
        mutual_knn(make_features(1), k=k)


def test_unknown_correlation_is_an_error():
    with pytest.raises(UserError, match="unknown correlation 'kendal'"):
        rsa(make_features(1), correlation="kendal")
