"""arithmetic.py: what faster ways change in CKA, measured against plain float32."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from small_models import FakeImages, save_weights, several

from realign_utils import parameters
from realign_utils.arithmetic import WAYS, compare_arithmetic
from realign_utils.cka import cka_matrix
from realign_utils.features import extract, read_features

PLAIN = {"dtype": "float32", "channels_last": False, "compile": False}
MODELS = several(6).assign(params_m=[5.0, 1.0, 4.0, 2.0, 6.0, 3.0])


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("arithmetic")
    return {"store": folder / "store", "weights_dir": save_weights(MODELS, folder / "weights")}


def test_the_schema_names_the_same_ways():
    assert set(get_args(parameters.ArithmeticName)) == set(WAYS)


def test_the_difference_is_that_of_the_two_matrices(options):
    images = FakeImages(number=30)
    table = compare_arithmetic(MODELS, images, ["bfloat16"], used=PLAIN, number=6, **options)
    matrices = []
    for dtype in ("float32", "bfloat16"):
        index = extract(MODELS, {"noise": images}, dtype=dtype, **options).index
        features = [read_features(options["store"], file) for file in index["file"]]
        matrices.append(cka_matrix(features).numpy())
    expected = np.abs(matrices[0] - matrices[1])[np.triu_indices(6, 1)]
    assert expected.max() > 0
    row = table.iloc[0]
    assert row["pairs"] == 15
    assert row["largest_difference"] == pytest.approx(expected.max(), abs=1e-7)
    assert row["mean_difference"] == pytest.approx(expected.mean(), abs=1e-7)


def test_models_of_all_sizes_are_taken(options, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "realign_utils.arithmetic.extract", lambda models, *_, **__: seen.append(models) or fail()
    )

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_arithmetic(MODELS, FakeImages(), ["bfloat16"], used=PLAIN, number=3, **options)
    assert list(seen[0]["params_m"]) in ([1.0, 3.0, 6.0], [1.0, 4.0, 6.0])


def test_the_run_s_own_arithmetic_is_compared_unless_it_is_listed_or_plain(options):
    def ways(listed, **used):
        used = {**PLAIN, **used}
        table = compare_arithmetic(MODELS, FakeImages(), listed, used=used, number=2, **options)
        return list(table["arithmetic"])

    assert ways([]) == []
    assert ways(["bfloat16"], dtype="bfloat16") == ["bfloat16"]
    both = ways([], dtype="bfloat16", channels_last=True)
    assert both == ["this run's: bfloat16, channels_last"]


def test_models_that_fail_are_counted_and_left_out(options, monkeypatch):
    (Path(options["weights_dir"]) / "m0.safetensors").rename(options["store"] / "away")
    table = compare_arithmetic(
        MODELS, FakeImages(), ["channels_last"], used=PLAIN, number=6, **options
    )
    (options["store"] / "away").rename(Path(options["weights_dir"]) / "m0.safetensors")
    assert table[["models", "pairs", "failed"]].iloc[0].tolist() == [5, 10, 1]
