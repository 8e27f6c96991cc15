"""features.py, pixels.py: right features, each computed once, whatever breaks or is interrupted."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_models import SMALL, BrokenImages, FakeImages, contents, matrices, save_weights, table
from timm.data import create_transform
from torch import nn

from realign_utils import extraction as extraction_module
from realign_utils import feature_files, tensor_files
from realign_utils import store as store_module
from realign_utils.architectures import interpolation_of
from realign_utils.cka import cka_matrix
from realign_utils.errors import UserError
from realign_utils.extraction import Extractor
from realign_utils.feature_files import ingredients_of as ingredients_of_file
from realign_utils.features import (
    Extraction,
    extract,
    images_of,
    read_features,
    require_two_models,
)
from realign_utils.models import LayerOutput, build, find_layer
from realign_utils.registry import choose, read_registry
from realign_utils.settings import Settings, exact_float32
from realign_utils.weights import NoNetwork

REGISTRY = read_registry(Path(__file__).parents[1] / "params/registry.csv")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_weights(SMALL, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(tmp_path, weights) -> Callable[..., Extraction]:
    """Extract with defaults that any test may replace."""

    def run(registry: pd.DataFrame = SMALL, images: FakeImages | None = None, **options):
        options = {"store": tmp_path / "store", "weights_dir": weights, "batch_size": 4, **options}
        return extract(registry, {"noise": images or FakeImages()}, **options)

    return run


def assert_close(given: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Each row differs by at most the tolerance times its length."""
    error = np.linalg.norm(given - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() <= tolerance, error.max()


def usual_way(row: pd.Series, images: FakeImages, weights: Path, pool: Callable) -> np.ndarray:
    """Features by timm's own loading and transform, one image at a time."""
    transform = create_transform(
        row["crop"],
        interpolation=interpolation_of(row),
        mean=row["mean"],
        std=row["std"],
        crop_pct=row["crop"] / (row["resize"] + 0.5),  # so that timm rounds to the resize
    )
    overlay, kept = {"file": str(weights / f"{row.name}.safetensors")}, []
    name = row["architecture"]
    overlay["custom_load"] = False  # the checkpoint is a plain state dict, not flexivit's own npz
    module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    find_layer(module, row["layer"]).register_forward_hook(
        lambda _module, _inputs, output: kept.append(pool(output.clone()).flatten())
    )
    with torch.no_grad():
        for index in range(len(images)):
            module(transform(images.read(index))[None])
    return torch.stack(kept).numpy()


def assert_equals_usual_way(
    registry: pd.DataFrame, tmp_path: Path, pool: Callable, pooling: str = "mean"
) -> None:
    images, store = FakeImages(number=2, size=(300, 280)), tmp_path / "store"
    folder, state = (
        tmp_path / "weights",
        build(registry.iloc[0], pretrained=False).module.state_dict(),
    )
    folder.mkdir()
    # Tensors that share their memory under all their names: timm's own loading wants each.
    whole = {name: tensor.clone() for name, tensor in state.items()}
    save_file(whole, folder / f"{registry.index[0]}.safetensors")
    # One image at a time here too: with random weights MaxViT blows the rounding of another batch
    # size up to 2e-4 (and float32 is as far from float64).
    options = {"store": store, "weights_dir": folder, "token_pooling": pooling, "batch_size": 1}
    extraction = extract(registry, {"noise": images}, **options)
    assert list(extraction.failures["reason"]) == []
    expected = usual_way(registry.iloc[0], images, folder, pool)
    assert_close(matrices(extraction, store)[0], expected, 1e-5)


@pytest.mark.parametrize(
    ("model", "layer", "pooling", "pool"),
    [
        ("test_byobnet.r160_in1k", "head.global_pool", "mean", lambda output: output),
        ("test_byobnet.r160_in1k", "stages.2", "mean", lambda output: output.mean((2, 3))),
        ("lcnet_050.ra2_in1k", "global_pool", "mean", lambda output: output),  # d × 1 × 1
        ("mobilevitv2_050.cvnets_in1k", "head.global_pool", "cls", lambda output: output),
        ("pvt_v2_b0.in1k", "stages.3.norm", "mean", lambda output: output.mean(1)),
        ("pvt_v2_b0.in1k", "stages.3.norm", "flatten", lambda output: output),
        ("test_vit.r160_in1k", "norm", "mean", lambda output: output[:, 1:].mean(1)),
        ("test_vit.r160_in1k", "norm", "cls", lambda output: output[:, 0]),
    ],
)
def test_features_equal_the_usual_way(model, layer, pooling, pool, tmp_path):
    known = model if model in REGISTRY.index else "test_byobnet.r160_in1k"
    registry = choose(REGISTRY, [known]).assign(layer=layer, architecture=model)
    assert_equals_usual_way(registry, tmp_path, pool, pooling)


def pooled(output: torch.Tensor) -> torch.Tensor:
    """Mean over places, those beyond a square grid (the class token) left out."""
    if output.ndim == 4:
        return output.mean((2, 3))
    if output.ndim == 3 and output.shape[1] > 1:
        return output[:, output.shape[1] - int(output.shape[1] ** 0.5) ** 2 :].mean(1)
    return output


def lightest_of_each(*columns: str) -> list[str]:
    by_weight = REGISTRY.sort_values("params_m")
    return list(by_weight.groupby(list(columns), sort=False).head(1).index)


REPRESENTATIVES = {*lightest_of_each("resize", "crop", "mean", "std"), *lightest_of_each("family")}


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(REPRESENTATIVES))
def test_every_preprocessing_and_family_equals_the_usual_way(model, tmp_path):
    assert_equals_usual_way(choose(REGISTRY, [model]), tmp_path, pooled)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(set(REGISTRY.index) - REPRESENTATIVES))
def test_every_other_model_comes_through_without_weights(model, tmp_path):
    registry, images = choose(REGISTRY, [model]), {"noise": FakeImages(number=2, size=(300, 280))}
    weights = save_weights(registry, tmp_path / "weights")
    done = extract(registry, images, store=tmp_path / "store", weights_dir=weights)
    assert list(done.failures["reason"]) == []
    assert list(done.index["n"]) == [2]


def test_batch_size_changes_nothing(run, tmp_path):
    whole = matrices(run(batch_size=6), tmp_path / "store")
    for size in (1, 4):
        parts = matrices(run(batch_size=size, store=tmp_path / str(size)), tmp_path / str(size))
        for given, expected in zip(parts, whole, strict=True):
            assert_close(given, expected, 1e-6)


def test_two_runs_give_the_same_bytes(run, tmp_path):
    for folder in ("a", "b"):
        run(store=tmp_path / folder)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast_gives_other_but_similar_features_in_float32(run, tmp_path, dtype):
    exact, rough = (matrices(run(dtype=d), tmp_path / "store")[0] for d in ("float32", dtype))
    assert rough.dtype == np.float32
    assert (rough != exact).any()
    assert_close(rough, exact, 0.05)


def test_what_a_process_allows_inside_of_float32_does_not_reach_the_features(run, tmp_path):
    exact = matrices(run(), tmp_path / "store")
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with exact_float32():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        allowed = matrices(run(store=tmp_path / "allowed"), tmp_path / "allowed")
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert all((a == b).all() for a, b in zip(allowed, exact, strict=True))


def test_a_checkpoint_that_changes_between_hash_and_load_is_refused(run, weights, tmp_path):
    copy, good = tmp_path / "first.safetensors", (weights / "first.safetensors").read_bytes()
    copy.write_bytes(good)
    settings = Settings(tmp_path / "store", tmp_path)
    extractor = Extractor(SMALL[:1], {"a": FakeImages()}, settings, torch.device("cpu"))
    job = extractor.look_up(SMALL.iloc[0])
    copy.write_bytes((weights / "second.safetensors").read_bytes())
    extractor.prepare(job)
    assert "has changed meanwhile" in job.failures[0]["reason"]


def test_a_failed_device_is_no_model_s_fault(run, monkeypatch):
    def fail(*_, **__):
        raise torch.AcceleratorError("CUDA error: an illegal memory access", 700)

    monkeypatch.setattr(LayerOutput, "features", fail)
    with pytest.raises(UserError, match=r"the device failed .*illegal memory access"):
        run()


def test_features_in_float32_are_the_same_file_on_every_device_others_are_not():
    def key(device: str, **options) -> str:
        settings = Settings(Path("store"), **options)
        row = SMALL.iloc[0]
        made = ingredients_of_file(row, "0" * 64, FakeImages(), torch.device(device), settings)
        return store_module.key_of(made)

    assert key("cpu") == key("cuda")
    assert key("cpu", dtype="bfloat16") != key("cuda", dtype="bfloat16")


def test_channels_last_changes_nothing_but_rounding(run, tmp_path):
    exact, other = (matrices(run(channels_last=c), tmp_path / "store") for c in (False, True))
    for given, expected in zip(other, exact, strict=True):
        assert_close(given, expected, 1e-5)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_models_change_nothing_but_rounding(run, tmp_path, monkeypatch, backend):
    compiled, compile_ = [], torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda model: compiled.append(model.layer) or compile_(model, backend=backend),
    )
    exact, other = (matrices(run(compile=c), tmp_path / "store") for c in (False, True))
    assert len(compiled) == len(SMALL)
    for given, expected in zip(other, exact, strict=True):
        assert_close(given, expected, 1e-5)


def test_pixels_are_the_same_whether_kept_in_a_file_or_decoded_when_asked_for(run, tmp_path):
    kept = run(store=tmp_path / "kept")
    alone = run(SMALL[:1], store=tmp_path / "alone")
    assert not list((tmp_path / "alone").glob("pixels/*/*"))
    assert len(list((tmp_path / "kept").glob("pixels/*/*"))) == 1
    given, expected = matrices(alone, tmp_path / "alone")[0], matrices(kept, tmp_path / "kept")[0]
    assert (given == expected).all()


def test_an_image_is_decoded_once_for_all_models_with_its_preprocessing(run, monkeypatch):
    read, indices = FakeImages.read, []
    monkeypatch.setattr(FakeImages, "content_hash", "fixed")
    monkeypatch.setattr(FakeImages, "read", lambda s, i: indices.append(i) or read(s, i))
    run(SMALL[:2])
    assert sorted(indices) == list(range(6))


def test_index_has_a_row_a_matrix_in_the_order_of_sets_and_models(weights, tmp_path):
    sets = {"b": FakeImages(seed=1), "a": FakeImages(number=3, seed=2)}
    index = extract(SMALL, sets, store=tmp_path, weights_dir=weights).index
    assert list(index.columns) == ["images", "model", "file", "n", "d", "seconds", "cached"]
    assert list(index["images"]) == ["b"] * 3 + ["a"] * 3
    assert list(index["model"]) == ["first", "second", "third"] * 2
    assert list(index["n"]) == [6] * 3 + [3] * 3


def test_a_rerun_builds_no_model_and_reads_no_image(run, monkeypatch):
    first = run()
    monkeypatch.setattr(extraction_module, "load", lambda *_: pytest.fail("a model was built"))
    monkeypatch.setattr(extraction_module, "open_pixels", lambda *_: pytest.fail("pixels opened"))
    again = run(batch_size=3)
    assert again.index["cached"].all()
    assert list(again.index["file"]) == list(first.index["file"])


def ingredients_of(run: Callable, tmp_path: Path) -> dict:
    """What the first model's feature file says that it was made of."""
    path = tmp_path / "store" / run(SMALL[:1]).index["file"][0]
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["realign"])["ingredients"]


def test_every_ingredient_changes_the_key(run, tmp_path):
    ingredients = ingredients_of(run, tmp_path)
    keys = {store_module.key_of(ingredients)}
    for name, value in ingredients.items():
        other = [*value, 1] if isinstance(value, list) else {"a": 1} if name == "arguments" else 0
        keys.add(store_module.key_of({**ingredients, name: other}))
    assert len(keys) == len(ingredients) + 1 == 22


CHANGES = {
    "model": lambda t, _: t.set_axis(["second"]),
    "architecture": lambda t, _: t.assign(architecture="test_resnet.r160_in1k"),
    "arguments": lambda t, _: t.assign(arguments=[{"num_classes": 5, "drop_rate": 0.1}]),
    "layer": lambda t, _: t.assign(layer="layer4"),
    "resize": lambda t, _: t.assign(resize=35),
    "crop": lambda t, _: t.assign(crop=31),
    "mean": lambda t, _: t.assign(mean=[(0.5, 0.4, 0.31)]),
    "std": lambda t, _: t.assign(std=[(0.2, 0.3, 0.41)]),
    "images": lambda t, options: options.update(images=FakeImages(seed=1)) or t,
    "token_pooling": lambda t, options: options.update(token_pooling="flatten") or t,
    "interpolation": lambda t, options: options.update(interpolation="nearest") or t,
    "dtype": lambda t, options: options.update(dtype="bfloat16") or t,
    "channels_last": lambda t, options: options.update(channels_last=True) or t,
}


@pytest.mark.parametrize("ingredient", CHANGES)
def test_a_change_of_an_ingredient_is_computed_anew(run, ingredient):
    before = run(SMALL[:1]).index["file"][0]
    options = {}
    registry = CHANGES[ingredient](SMALL[:1], options)
    after = run(registry, **options)
    assert list(after.failures["reason"]) == []
    assert not after.index["cached"][0]
    assert after.index["file"][0] != before


@pytest.mark.parametrize("library", ["timm", "torch", "torchvision", "PIL"])
def test_another_version_of_a_library_is_computed_anew(run, monkeypatch, library):
    run(SMALL[:1])
    monkeypatch.setattr(getattr(feature_files, library), "__version__", "9.9.9")
    assert not run(SMALL[:1]).index["cached"][0]


def test_other_weights_are_computed_anew(run, weights, tmp_path):
    run(SMALL[:1])
    (tmp_path / "first.safetensors").write_bytes((weights / "second.safetensors").read_bytes())
    assert not run(SMALL[:1], weights_dir=tmp_path).index["cached"][0]


def test_with_an_ingredient_unknown_nothing_is_cached(run, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeImages, "content_hash", None)
    failures = run(SMALL[:1]).failures
    assert list(failures["stage"]) == ["key"]
    assert "images" in failures["reason"][0]
    assert contents(tmp_path / "store") == {} if (tmp_path / "store").exists() else True


def flip(path: Path, position: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped in the header": lambda path: flip(path, 0.1),
    "flipped in the features": lambda path: flip(path, 0.9),
    "flipped in the last byte": lambda path: flip(path, 1),
    "another model's": lambda path: path.write_bytes(
        next(p for p in path.parents[1].rglob("*.safetensors") if p != path).read_bytes()
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_feature_file_is_named_and_recomputed(run, tmp_path, caplog, damage):
    file, before = run().index["file"][1], contents(tmp_path / "store")
    DAMAGES[damage](tmp_path / "store" / file)
    with pytest.raises(UserError, match="is damaged"):
        read_features(tmp_path / "store", file)
    with caplog.at_level(logging.WARNING):
        again = run()
    assert file in caplog.text
    assert list(again.index["cached"]) == [True, False, True]
    assert contents(tmp_path / "store") == before


def test_any_flipped_bit_of_a_feature_file_is_found(run, tmp_path):
    path = tmp_path / "store" / run(SMALL[:1]).index["file"][0]
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            read_features(tmp_path / "store", path.relative_to(tmp_path / "store"))


@pytest.mark.parametrize("position", [0.01, 0.5, 1])
def test_damaged_pixels_are_named_and_decoded_again(run, tmp_path, caplog, position):
    run()
    before = contents(tmp_path / "store")
    flip(next((tmp_path / "store/pixels").rglob("*.safetensors")), position)
    for path in (tmp_path / "store/features").rglob("*.safetensors"):
        path.unlink()
    run()
    assert "decoding the images again" in caplog.text
    assert contents(tmp_path / "store") == before


def test_a_missing_feature_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="is missing: run 1_extract again"):
        read_features(tmp_path, "features/00/0.safetensors")


def test_a_feature_file_knows_its_images_and_their_order(run, tmp_path):
    files = run().index["file"]
    assert {images_of(tmp_path / "store", file) for file in files} == {FakeImages().content_hash}
    other = run(images=FakeImages(seed=1)).index["file"]
    mixed = [files[0], files[1], other[2]]
    hashes = [images_of(tmp_path / "store", file) for file in mixed]
    features = [read_features(tmp_path / "store", file) for file in mixed]
    with pytest.raises(
        UserError, match="third: its images, or their order, are not those of first"
    ):
        cka_matrix(features, names=list(SMALL.index), identifiers=hashes)


def test_a_file_without_features_has_no_images(tmp_path):
    with pytest.raises(UserError, match="is no feature file: run 1_extract again"):
        images_of(tmp_path, "features/00/0.safetensors")


def faulty(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the k-th write, fsync or rename fail, the write half done."""
    count = iter(range(10**6))

    def fails() -> bool:
        return next(count) == k

    def wrap(function: Callable) -> Callable:
        def wrapped(*arguments):
            if fails():
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments)

        return wrapped

    def write_atomically(path: Path, write: Callable) -> Path:
        def half(temporary: Path) -> None:
            write(temporary)
            if fails():
                os.truncate(temporary, temporary.stat().st_size // 2)
                raise OSError(errno.ENOSPC, "No space left on device")

        return store_module.write_atomically(path, half)

    monkeypatch.setattr(store_module.os, "fsync", wrap(os.fsync))
    monkeypatch.setattr(store_module.os, "replace", wrap(os.replace))
    monkeypatch.setattr(tensor_files, "write_atomically", write_atomically)


@pytest.mark.parametrize("k", range(12))  # 3 files: write, fsync, rename, fsync of the folder
def test_a_fault_at_any_write_is_one_line_and_a_rerun_gives_the_same_bytes(
    run, tmp_path, monkeypatch, k
):
    run(SMALL[:2], store=tmp_path / "sound")
    with monkeypatch.context() as patch:
        faulty(k, patch)
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device") as caught:
            run(SMALL[:2])
    assert "\n" not in str(caught.value)
    assert run(SMALL[:2]).index["cached"].sum() == (k + 1) // 4 - (k >= 3)
    assert contents(tmp_path / "store") == contents(tmp_path / "sound")


IN_A_SMALL_MOUNT = """
mount -t tmpfs -o size=200k none "$1" || exit 77
OMP_NUM_THREADS=1 "$2" -c '
import sys
from small_models import SMALL, FakeImages
from realign_utils.errors import UserError
from realign_utils.features import extract
try:
    options = {"store": sys.argv[1], "weights_dir": sys.argv[2], "batch_size": 4}
    extract(SMALL, {"few": FakeImages(), "many": FakeImages(number=2000)}, **options)
except UserError as error:
    print(error)
' "$1" "$3"
ls "$1"/features/*/*.safetensors; find "$1" -name ".*.tmp*"
"""


def test_a_full_disk_is_one_line_and_what_was_done_stays(weights, tmp_path):
    (tmp_path / "disk").mkdir()
    arguments = [str(tmp_path / "disk"), sys.executable, str(weights)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", IN_A_SMALL_MOUNT, "sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount can be made here")
    told, *left = done.stdout.splitlines()
    assert re.fullmatch(r"cannot write .*: No space left on device", told)
    assert all(path.endswith(".safetensors") and "/." not in path for path in left)


def test_what_killed_runs_left_is_swept_after_a_day(run, tmp_path):
    folder = tmp_path / "store/features/00"
    folder.mkdir(parents=True)
    old, young = folder / ".a.tmp.safetensors", folder / ".b.tmp.safetensors"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    run()
    assert not old.exists()
    assert young.exists()


def test_a_broken_model_is_a_row_and_the_others_go_on(run, weights, tmp_path):
    good = (weights / "first.safetensors").read_bytes()
    faults = {"first": good, "truncated": good[:-9], "misfit": good, "layerless": good}
    for name, data in faults.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    (tmp_path / "pickle.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    names = ["missing", "truncated", "pickle", "misfit", "layerless", "first"]
    registry = pd.concat([SMALL[:1]] * len(names)).set_axis(names)
    registry.loc["misfit", "architecture"] = "test_byobnet"
    registry.loc["layerless", "layer"] = "global_pol"
    extraction = run(registry, weights_dir=tmp_path)
    assert list(extraction.index["model"]) == ["first"]
    stages = ["weights", "build", "build", "build", "layer"]
    assert list(extraction.failures["stage"]) == stages
    assert not extraction.failures["reason"].str.contains("\n").any()
    assert "the nearest names: global_pool" in extraction.failures["reason"].iloc[-1]


def test_a_pooling_that_a_layer_does_not_allow_is_a_failure(run):
    registry = SMALL[:1].assign(layer="layer1")
    failures = run(registry, token_pooling="cls").failures
    assert list(failures["stage"]) == ["layer"]
    assert "needs a class token" in failures["reason"][0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "not finite for 6 of 6"), (0.0, "the same for every image")],
)
def test_features_without_use_are_a_failure(run, tmp_path, value, reason):
    module = build(SMALL.loc["first"], pretrained=False).module
    nn.init.constant_(module.layer4[-1].bn2.weight, value)
    nn.init.constant_(module.conv1[0].weight, value)
    save_file(module.state_dict(), tmp_path / "first.safetensors")
    extraction = run(SMALL[:1], weights_dir=tmp_path)
    assert extraction.index.empty
    assert list(extraction.failures["stage"]) == ["features"]
    assert reason in extraction.failures["reason"][0]
    assert not list((tmp_path / "store").glob("features/*/*"))


@pytest.mark.parametrize("models", [1, 2])
def test_an_image_that_cannot_be_read_is_named(run, models):
    failures = run(SMALL[:models], images=BrokenImages()).failures
    assert list(failures["stage"]) == ["images"] * models
    assert failures["reason"][0] == "image 004.png: image file is truncated"


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let a forward pass of more than so many images run out of memory; note the sizes tried."""
    features, sizes = LayerOutput.features, []

    def limited(model, images, **options):
        sizes.append(len(images))
        if len(images) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return features(model, images, **options)

    monkeypatch.setattr(LayerOutput, "features", limited)
    return sizes


def test_out_of_memory_halves_the_batch_and_carries_on(weights, tmp_path, monkeypatch):
    sizes = limit_memory(monkeypatch, most=2)
    sets = {"a": FakeImages(number=9), "b": FakeImages(number=3, seed=1)}
    extraction = extract(SMALL[:1], sets, store=tmp_path, weights_dir=weights, batch_size=8)
    assert list(extraction.index["n"]) == [9, 3]
    assert sizes == [8, 4, 2, 2, 2, 2, 1, 2, 1]  # the size that worked is remembered


def test_a_later_run_begins_with_the_batch_size_that_worked(run, tmp_path, monkeypatch):
    sizes = limit_memory(monkeypatch, most=3)
    run(SMALL[:1], batch_size=8)
    run(SMALL[:1], batch_size=8, images=FakeImages(seed=1))
    assert sizes == [6, 4, 2, 2, 2, 2, 2, 2]  # 8 and 4 were too large, 2 is where the next begins
    run(SMALL[:1], batch_size=4, images=FakeImages(seed=2))  # another size asked: tried as asked
    assert sizes[8:] == [4, 2, 2, 2]


def test_a_batch_size_is_remembered_only_if_it_worked_and_for_a_week(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        limit_memory(patch, most=0)
        run(SMALL[:1], batch_size=8)
    assert not (tmp_path / "store/batch_sizes").exists()
    sizes = limit_memory(monkeypatch, most=3)
    run(SMALL[:1], batch_size=8)
    [note] = (tmp_path / "store/batch_sizes").iterdir()
    os.utime(note, (time.time() - 8 * 86_400,) * 2)
    run(SMALL[:1], batch_size=8, images=FakeImages(seed=1))
    assert sizes == [6, 4, 2, 2, 2] * 2


@pytest.mark.parametrize("content", ["", "0", "-3", "1e9", "[1]", "99"])
def test_a_wrong_note_of_a_batch_size_does_no_harm(run, tmp_path, monkeypatch, content):
    limit_memory(monkeypatch, most=3)
    run(SMALL[:1], batch_size=8)
    [note] = (tmp_path / "store/batch_sizes").iterdir()
    note.write_text(content)
    again = run(SMALL[:1], batch_size=8, images=FakeImages(seed=1))
    assert again.failures.empty


def test_out_of_memory_with_one_image_is_a_failure(run, monkeypatch):
    limit_memory(monkeypatch, most=0)
    failures = run().failures
    assert list(failures["stage"]) == ["forward"] * 3
    assert "one image alone" in failures["reason"][0]


def test_without_a_network_two_models_wait_for_it_and_no_more(run, monkeypatch):
    asked = []

    def refuse(**where):
        asked.append(where["repo_id"])
        raise NoNetwork("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda **_: None)
    names = ["lcnet_050.ra2_in1k", "vgg11.tv_in1k", "ghostnet_100.in1k"]
    failures = run(choose(REGISTRY, names), weights_dir=None).failures
    assert list(failures["model"]) == names
    assert asked == ["timm/lcnet_050.ra2_in1k", "timm/vgg11.tv_in1k"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("dtype", "float64", "unknown dtype 'float64'"),
        ("token_pooling", "men", "did you mean 'mean'"),
        ("interpolation", "bicubik", "did you mean 'bicubic'"),
        ("device", "cuda:99", "device 'cuda:99' is not available"),
        ("device", "gpu", "device 'gpu' is not available"),
        ("batch_size", 0, "batch_size 0 is not allowed"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(run, tmp_path, option, value, message):
    with pytest.raises(UserError, match=message):
        run(**{option: value})
    assert not (tmp_path / "store").exists()


# From here on: other processes, forked from one that has imported all this before.


@pytest.fixture(scope="session")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "realign_utils.features", "realign_utils.registry"])
    return context


def extract_small(store: Path, weights: Path, ready=None) -> None:
    torch.set_num_threads(1)
    if ready:
        ready.set()
    sets = {"a": FakeImages(), "b": FakeImages(seed=1)}
    extract(SMALL, sets, store=store, weights_dir=weights, batch_size=4)


def test_two_runs_at_once_into_one_store_do_not_harm_each_other(processes, weights, tmp_path):
    extract_small(tmp_path / "alone", weights)
    runs = [
        processes.Process(target=extract_small, args=(tmp_path / "shared", weights))
        for _ in range(3)
    ]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0, 0]
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def finished(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.glob("features/*/[!.]*")}


def kill_at_random_then_rerun(processes, weights: Path, tmp_path: Path, times: int) -> None:
    started = time.monotonic()
    extract_small(tmp_path / "sound", weights)
    longest = 2 * (time.monotonic() - started)
    generator = random.Random(0)
    codes = set()
    for number in range(times):
        store = tmp_path / str(number)
        ready = processes.Event()
        process = processes.Process(target=extract_small, args=(store, weights, ready))
        process.start()
        ready.wait()
        process.join(generator.uniform(0, longest))
        process.kill()
        process.join()
        codes.add(process.exitcode)
        before = finished(store)
        extract_small(store, weights)
        assert before.items() <= finished(store).items()  # nothing finished was computed again
        whole = {name: data for name, data in contents(store).items() if "/." not in name}
        assert whole == contents(tmp_path / "sound")
    assert -signal.SIGKILL in codes <= {0, -signal.SIGKILL}


def test_after_kill_9_a_rerun_completes_with_the_same_bytes(processes, weights, tmp_path):
    kill_at_random_then_rerun(processes, weights, tmp_path, times=4)


@pytest.mark.slow
def test_after_kill_9_fifty_times_a_rerun_completes_with_the_same_bytes(
    processes, weights, tmp_path
):
    kill_at_random_then_rerun(processes, weights, tmp_path, times=50)


def peak_of(registry: pd.DataFrame, images: int, store: Path, weights: Path, answer) -> None:
    torch.set_num_threads(1)
    sets = {"a": FakeImages(number=images)}
    extract(registry, sets, store=store, weights_dir=weights)
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(processes, *arguments) -> float:
    """Peak memory in MiB of an extraction in a process of its own."""
    receiver, sender = processes.Pipe()
    process = processes.Process(target=peak_of, args=(*arguments, sender))
    process.start()
    process.join()
    return receiver.recv()


@pytest.mark.slow
@pytest.mark.timeout(1500)  # 10,000 images
def test_peak_memory_does_not_grow_with_images_or_models(processes, tmp_path):
    light = table(light="lcnet_050").assign(resize=224, crop=224, layer="global_pool")
    data = (save_weights(light, tmp_path) / "light.safetensors").read_bytes()
    registry = pd.concat([light] * 60).set_axis([f"m{number}" for number in range(60)])
    for name in registry.index:
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    few_images, many_images = (
        peak(processes, registry[:2], number, tmp_path / f"{number} images", tmp_path)
        for number in (192, 10_000)  # 29 MB and 1.5 GB of pixels
    )
    few_models, many_models = (
        peak(processes, registry[:number], 16, tmp_path / f"{number} models", tmp_path)
        for number in (10, 60)  # 25 and 148 MB of weights
    )
    assert many_images < few_images + 300
    assert many_models < few_models + 80


@pytest.mark.parametrize("left", [0, 1])
def test_fewer_than_two_models_are_told_with_the_reasons_of_the_others(left: int) -> None:
    names = [f"m{number}" for number in range(6)]
    index = pd.DataFrame({"images": ["a", "b"] * left, "model": names[:1] * 2 * left})
    failed = [(i, m, "weights", f"no {m}.pth") for m in names[left:] for i in ("a", "b")]
    columns = ["images", "model", "stage", "reason"]
    extraction = Extraction(index, pd.DataFrame(failed, columns=columns))
    told = rf"but {left} of 6 .* m{left} \(weights\): no m{left}\.pth; .*; and {3 - left} more; all"
    with pytest.raises(UserError, match=told):
        require_two_models(extraction, "runs/failures.csv")


def test_two_models_that_are_complete_are_enough() -> None:
    index = pd.DataFrame({"images": ["a", "b"] * 2 + ["a"], "model": [*"xxyyz"]})
    failures = pd.DataFrame([("b", "z", "forward", "none")], columns=extraction_module.FAILURES)
    require_two_models(Extraction(index, failures), "f.csv")
    with pytest.raises(UserError, match=r"but 1 of 2 has .* all images; z \(forward\): none; all"):
        require_two_models(Extraction(index.drop(index=[2, 3]), failures), "f.csv")
    alone = Extraction(index[index["model"] == "x"], failures[:0])
    with pytest.raises(UserError, match=r"but 1 of 1 has features on all images$"):
        require_two_models(alone, "f.csv")
