"""Proxy against evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from realign_utils import calibrate


def random_similarity(size: int, seed: int) -> np.ndarray:
    half = np.triu(np.random.default_rng(seed).random((size, size)), 1)
    return half + half.T + np.eye(size)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mean_is_that_of_the_pairs_one_by_one(seed: int) -> None:
    similarity, members = random_similarity(9, seed), [7, 2, 5, 3]
    pairs = [similarity[i, j] for i in members for j in members if i < j]
    assert calibrate.mean_similarity(similarity, members) == pytest.approx(np.mean(pairs))


def test_a_family_of_one_has_no_mean() -> None:
    table = calibrate.family_similarity(random_similarity(5, 1), {"one": [3], "three": [0, 1, 2]})
    assert np.isnan(table["mean"][0])
    assert table["pairs"].tolist() == [0, 3]


def test_the_jackknife_interval_covers_the_mean_of_a_large_population() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(300):
        loading = generator.normal(0.8, 0.1, 12)
        similarity = np.outer(loading, loading)
        row = calibrate.family_similarity(similarity, {"all": range(12)}).iloc[0]
        covered += row["low"] <= 0.8**2 <= row["high"]
    assert 0.87 <= covered / 300 <= 0.98


def test_the_interval_of_a_family_of_few_models_is_as_wide_as_few_degrees_of_freedom_ask() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        loading = generator.normal(0.8, 0.1, 4)
        row = calibrate.family_similarity(np.outer(loading, loading), {"all": range(4)}).iloc[0]
        covered += row["low"] <= 0.8**2 <= row["high"]
    assert 0.92 <= covered / 400 <= 0.99  # 1.96 errors to either side: 0.83


def test_the_ratio_is_real_over_the_reference_proxy() -> None:
    scores = pd.DataFrame({"a": [0.75, 0.6], "b": [0.9, 0.8]}, index=["S1", "S2"])
    table = calibrate.calibration_table(scores, {"S1": 0.6}, "a")
    assert table["ratio"]["S1"] == pytest.approx(0.8)
    assert np.isnan(table["real"]["S2"])


def test_rank_agreement_is_one_for_the_same_order_and_zero_for_the_reverse() -> None:
    assert calibrate.rank_agreement([1, 2, 3], [4, 5, 6]) == 1
    assert calibrate.rank_agreement([1, 2, 3], [6, 5, 4]) == 0


def test_the_paper_s_own_table_gives_its_ratios_and_cifar_the_better_order() -> None:
    published = pd.read_csv("params/portal.csv", index_col="submission")
    table = calibrate.calibration_table(
        published[["cifar100", "imagenette"]], published["real"].to_dict(), "cifar100"
    )
    assert table["ratio"].round(3).tolist() == [0.906, 1.183, 0.906, 0.958]
    cifar = calibrate.rank_agreement(published["cifar100"], published["real"])
    assert cifar > calibrate.rank_agreement(published["imagenette"], published["real"])
