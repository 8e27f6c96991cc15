"""The zoo: the same bytes whenever trained, nothing trained twice, one bad model one row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from realign_utils import models, training, zoo
from realign_utils.errors import UserError
from realign_utils.images import load_images
from realign_utils.pixels import normalise
from realign_utils.registry import choose, read_registry
from realign_utils.store import sha256_of_file

TABLE = read_registry(Path(__file__).parent.parent / "params" / "zoo.csv")
NAMES = ["resnet_width16_seed0", "resnet_width16_seed1", "vit_width64_seed0"]
SOURCE = {"kind": "patches", "split": "train", "number": 128, "seed": 0}
TINY = {"epochs": 1, "minimum_accuracy": 0.0}


class Killer:
    """Ends the process that unpickles it, as a lack of memory would."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Three models trained in two processes: their folder, with the store in it, and the results."""
    root = tmp_path_factory.mktemp("zoo")
    table = choose(TABLE, NAMES)
    results = zoo.train(table, SOURCE, store=root / "store", out=root, processes=2, **TINY)
    return root, results


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of the weights in a folder."""
    return {path.name: sha256_of_file(path) for path in sorted((root / "weights").iterdir())}


def test_the_registry_and_weights_give_models_of_the_stated_accuracy(trained: Any) -> None:
    root, results = trained
    registry = read_registry(root / "registry.csv")
    assert list(registry.index) == NAMES
    images = load_images({**SOURCE, "split": "validation", "number": 21}, name="validation")
    pixels = torch.from_numpy(np.stack([np.asarray(images.read(i)) for i in range(21)]))
    classes = sorted(set(load_images(SOURCE, name="training").labels))
    for name, row in registry.iterrows():
        module = models.build(row, weights_dir=root / "weights").module
        guesses = module(normalise(pixels, row["mean"], row["std"], "cpu")).argmax(1)
        right = [
            classes[guess] == label for guess, label in zip(guesses, images.labels, strict=True)
        ]
        assert np.mean(right) == pytest.approx(row["accuracy"], abs=1e-4)
        assert results.loc[name, "accuracy"] == row["accuracy"]


def test_another_seed_gives_other_weights(trained: Any) -> None:
    found = hashes(trained[0])
    assert len(set(found.values())) == len(NAMES)


def test_a_second_run_trains_nothing_and_changes_no_byte(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, results = trained
    before = hashes(root), (root / "registry.csv").read_bytes()
    monkeypatch.setattr(training, "ProcessPoolExecutor", None)
    again = zoo.train(choose(TABLE, NAMES), SOURCE, store=root / "store", out=root, **TINY)
    assert (hashes(root), (root / "registry.csv").read_bytes()) == before
    assert again["cached"].all()
    assert not results["cached"].any()


def test_damaged_weights_are_trained_again_to_the_same_bytes_in_another_order(
    trained: Any, tmp_path: Path
) -> None:
    root, _ = trained
    before = hashes(root)
    stored = {sha256_of_file(path): path for path in (root / "store").rglob("*.safetensors")}
    path = stored[before[f"{NAMES[1]}.safetensors"]]
    path.write_bytes(path.read_bytes()[:-1])
    table = choose(TABLE, NAMES[:2])
    again = zoo.train(table, SOURCE, store=root / "store", out=tmp_path, processes=1, **TINY)
    assert list(again["cached"]) == [True, False]
    assert hashes(tmp_path).items() <= before.items()


def test_a_failed_or_killed_training_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    table = choose(TABLE, NAMES).copy()
    table["note"] = [None, Killer(), None]
    table.at[NAMES[2], "arguments"] = {"img_size": 5}
    results = zoo.train(table, SOURCE, store=tmp_path, out=tmp_path, processes=2, **TINY)
    assert list(results["kept"]) == [True, False, False]
    assert "process was killed" in results["reason"].iloc[1]
    assert results["reason"].iloc[2].startswith("training failed: ")
    assert list(pd.read_csv(tmp_path / "dropped.csv")["model"]) == NAMES[1:]
    assert list(read_registry(tmp_path / "registry.csv").index) == NAMES[:1]
    assert not [*tmp_path.rglob(".*.tmp*")]


def test_a_model_below_the_least_accuracy_is_dropped_and_listed(
    trained: Any, tmp_path: Path
) -> None:
    root, results = trained
    worst, least = results["accuracy"].idxmin(), results["accuracy"].min() + 1e-6
    options = {"epochs": 1, "store": root / "store", "out": tmp_path}
    zoo.train(choose(TABLE, NAMES), SOURCE, minimum_accuracy=least, **options)
    dropped = pd.read_csv(tmp_path / "dropped.csv", index_col="model")
    assert dropped.loc[worst, "reason"] == f"accuracy below {least}"
    assert worst not in read_registry(tmp_path / "registry.csv").index


def test_a_zoo_without_any_model_left_is_a_user_error(trained: Any, tmp_path: Path) -> None:
    options = {"epochs": 1, "store": trained[0] / "store", "out": tmp_path}
    with pytest.raises(UserError, match=r"no model of the zoo was kept: see .*dropped\.csv"):
        zoo.train(choose(TABLE, NAMES), SOURCE, minimum_accuracy=1.0, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet34"},
        {"arguments": {"num_classes": 18}},
        {"resize": 40},
        {"crop": 30},
        {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)},
        {"epochs": 9},
        {"learning_rate": 0.1},
        {"seed": 7},
        {"channels_last": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_ingredient_of_a_row_changes_the_key(change: dict[str, Any]) -> None:
    sets = [load_images({**SOURCE, "number": 19}, name="training")]
    row = zoo._complete(TABLE.iloc[0], 19, None)
    other = row.copy()
    ((name, value),) = change.items()
    other[name] = value
    assert zoo._key(other, sets) != zoo._key(row, sets)


def test_images_recipe_and_versions_change_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    row = zoo._complete(TABLE.iloc[0], 19, None)

    def key(seed: int = 0) -> str:
        return zoo._key(row, [load_images({**SOURCE, "number": 19, "seed": seed}, name="training")])

    keys = {key(), key(seed=1)}
    for target, name, value in (
        (training, "RECIPE", {}),
        (timm, "__version__", "0"),
        (torch, "__version__", "0"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, value)
            keys.add(key())
    assert len(keys) == 5


def test_the_table_has_the_families_that_the_pools_of_the_demo_need() -> None:
    counts = TABLE["mechanism"].value_counts()
    assert counts["convolution"] >= 16
    assert counts["hybrid"] >= 6
    assert counts["attention"] + counts["mlp"] >= 9
    assert TABLE["family"].str.contains("resnet|densenet|darknet").sum() >= 8
    assert TABLE["family"].nunique() >= 10


@pytest.mark.parametrize("name", TABLE.index)
def test_every_row_can_be_built_and_gives_features_at_its_layer(name: str) -> None:
    row = zoo._complete(TABLE.loc[name], 19, None)
    module = models.build(row, pretrained=False).module
    with torch.inference_mode():
        features = models.penultimate(module, row["layer"], torch.randn(2, 3, 32, 32))
    assert features.shape[0] == 2
    assert 48 <= features.shape[1] <= 512
    count = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    assert row["params_m"] == pytest.approx(count, abs=5e-4)
