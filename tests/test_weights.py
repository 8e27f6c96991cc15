"""Checkpoints found, verified, read safely, completed and loaded strictly."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file, save_model

from realign_utils.errors import UserError
from realign_utils.models import build
from realign_utils.store import sha256_of_file
from realign_utils.weights import NoNetwork, find_weights


def model_row(name: str = "small", **columns) -> pd.Series:
    columns = {"architecture": "test_resnet", "arguments": {"num_classes": 7}, **columns}
    return pd.Series(columns, name=name)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return build(model_row(), pretrained=False).module.state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_folder_of_weights_is_loaded(tmp_path, state, suffix, wrapper):
    path = tmp_path / f"small{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    loaded = build(model_row(), weights_dir=tmp_path)
    assert loaded.weights_sha256 == sha256_of_file(path)
    assert all(torch.equal(value, state[key]) for key, value in loaded.module.state_dict().items())
    assert not loaded.module.training


def test_safetensors_come_first(tmp_path, state):
    save_file(state, tmp_path / "small.safetensors")
    torch.save(state, tmp_path / "small.pth")
    assert find_weights(model_row(), weights_dir=tmp_path).path.suffix == ".safetensors"


class RunsCode:
    def __reduce__(self):
        return os.system, ("exit 3",)


def spoil(state: dict[str, torch.Tensor], path: Path, kind: str) -> None:
    """Write a checkpoint with a fault."""
    if kind == "truncated":
        save_file(state, path.with_suffix(".safetensors"))
        path = path.with_suffix(".safetensors")
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "truncated pth":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"run": print}, protocol=2))
    elif kind == "blocked pickle":
        torch.save({**state, "run": RunsCode()}, path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "number":
        torch.save(3, path)
    elif kind == "missing":
        torch.save({k: v for k, v in state.items() if not k.startswith("conv1")}, path)
    elif kind == "unexpected":
        torch.save({**state, "extra.weight": torch.ones(1), "other": torch.ones(1)}, path)
    else:
        torch.save({**state, "fc.weight": torch.ones(9, 96)}, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "small.safetensors is truncated or damaged"),
        ("truncated pth", "small.pth is truncated or damaged"),
        ("empty", "small.pth is truncated or damaged"),
        ("pickle", "refused: a pickle of more than tensors may run code"),
        ("blocked pickle", "refused: a pickle of more than tensors may run code"),
        ("number", "holds a int, not a state dict"),
        ("missing", r"does not fit test_resnet: missing conv1\.0\.weight and \d+ more"),
        ("unexpected", r"does not fit test_resnet: unexpected extra\.weight and 1 more"),
        ("mismatched", r"mismatched fc\.weight \[9, 96\], should be \[7, 96\]"),
    ],
)
def test_a_faulty_checkpoint_is_one_line(tmp_path, state, kind, message):
    spoil(state, tmp_path / "small.pth", kind)
    with pytest.raises(UserError, match=message) as caught:
        build(model_row(), weights_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "smal.safetensors").touch()
    with pytest.raises(UserError, match=r"no small.safetensors .* the nearest is smal.safetensors"):
        find_weights(model_row(), weights_dir=tmp_path)


@pytest.mark.parametrize("name", ["../small", "/etc/small", "a/b", ".small", ""])
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="cannot be a file name"):
        find_weights(model_row(name), weights_dir=tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch, state):
    """A hub cache as huggingface_hub lays it out, with the weights of test_resnet; no network."""

    def refuse(**_):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    for name in ("blobs", "refs", "snapshots/abc"):
        (folder / name).mkdir(parents=True)
    row = model_row("test_resnet.r160_in1k", architecture=None, arguments={})
    save_file(build(row, pretrained=False).module.state_dict(), tmp_path / "weights")
    sha256 = sha256_of_file(tmp_path / "weights")
    shutil.move(tmp_path / "weights", folder / "blobs" / sha256)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc/model.safetensors").symlink_to(f"../../blobs/{sha256}")
    return folder


HUB_ROW = model_row("test_resnet.r160_in1k", architecture=None, arguments={})


def test_the_hubs_cache_serves_without_a_network(hub):
    expected = next((hub / "blobs").iterdir()).name
    assert build(HUB_ROW).weights_sha256 == expected


def test_a_damaged_file_of_the_hubs_cache_is_named(hub):
    blob = next((hub / "blobs").iterdir())
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="is damaged: delete it"):
        find_weights(HUB_ROW)


def test_the_hubs_store_of_blobs_shared_by_repositories_serves(hub):
    """Since huggingface_hub 2.4 a blob may be a link to a file that another hash names."""
    blob = next((hub / "blobs").iterdir())
    shared = hub.parent / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    shutil.move(blob, shared)
    blob.symlink_to(f"../../blobs/ab/{shared.name}")
    assert find_weights(HUB_ROW).sha256 == blob.name


def test_without_a_network_one_line_says_what_to_do(hub):
    shutil.rmtree(hub)
    with pytest.raises(NoNetwork, match="connect and run again, or give weights_dir"):
        find_weights(HUB_ROW)


def test_weights_from_elsewhere_than_the_hub_are_found_in_torchs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    row = model_row("tnt_s_patch16_224", architecture=None, arguments={})
    with pytest.raises(NoNetwork):
        find_weights(row, online=False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/tnt_s_patch16_224.pth.tar").touch()
    assert find_weights(row).path.name == "tnt_s_patch16_224.pth.tar"


@pytest.fixture(scope="module")
def coat(tmp_path_factory):
    """A small CoaT, whose blocks share their position encodings, saved as safetensors advises."""
    row = model_row("coat", architecture="coat_lite_mini", arguments={"num_classes": 3})
    path = tmp_path_factory.mktemp("coat") / "coat.safetensors"
    module = build(row, pretrained=False).module
    save_model(module, str(path))
    return row, path, module.state_dict()


def test_a_checkpoint_without_the_other_names_of_shared_tensors_loads(coat):
    row, path, state = coat
    loaded = build(row, weights_dir=path.parent).module.state_dict()
    assert len(load_file(path)) < len(state) == len(loaded)
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_checkpoint_that_lacks_every_name_of_a_shared_tensor_is_refused(coat, tmp_path):
    row, path, _ = coat
    kept = {key: value for key, value in load_file(path).items() if "cpe" not in key}
    save_file(kept, tmp_path / "coat.safetensors")
    with pytest.raises(UserError, match=r"does not fit coat_lite_mini: missing cpe1\.proj\.weight"):
        build(row, weights_dir=tmp_path)
