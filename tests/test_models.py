"""models.py: checkpoints found, read safely and loaded strictly; features copied and pooled."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from realign_utils.errors import UserError
from realign_utils.models import (
    NoNetwork,
    architecture_of,
    build,
    find_weights,
    interpolation_of,
    penultimate,
)
from realign_utils.store import sha256_of_file


def model_row(name: str = "small", **columns) -> pd.Series:
    columns = {"architecture": "test_resnet", "arguments": {"num_classes": 7}, **columns}
    return pd.Series(columns, name=name)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return build(model_row(), pretrained=False).module.state_dict()


class Tokens(nn.Module):
    """Gives 1 class token and 4 places (2 × 2) of 3 numbers: the image's index + 0, 1, 2 …"""

    def __init__(self, places: int = 4, class_token: bool = True) -> None:
        super().__init__()
        self.places = places + class_token
        if class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 3))
        self.norm = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = torch.arange(self.places * 3.0).view(1, self.places, 3)
        return self.norm(tokens + images[:, :1, 0, :1])


def test_hooked_features_are_copied_before_a_later_in_place_relu():
    module = nn.Sequential(nn.Conv2d(3, 5, 4), nn.ReLU(inplace=True))
    images = torch.randn(6, 3, 4, 4)
    assert torch.equal(penultimate(module, "0", images), module[0](images).flatten(1))


def test_features_of_size_1_by_1_are_squeezed():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    assert penultimate(module, "0", torch.ones(2, 3, 4, 4)).shape == (2, 3)


def test_maps_are_averaged_over_space_in_either_layout():
    class Swap(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.permute(0, 2, 3, 1)

    images = torch.randn(2, 3, 4, 4)
    for layer in (nn.Identity(), Swap()):
        features = penultimate(nn.Sequential(layer), "0", images)
        torch.testing.assert_close(features, images.mean((2, 3)))


def test_mean_pooling_leaves_the_class_token_out():
    features = penultimate(Tokens(), "norm", torch.zeros(1, 3, 1, 1))
    assert features.tolist() == [[7.5, 8.5, 9.5]]


def test_mean_pooling_takes_all_tokens_where_there_is_no_class_token():
    features = penultimate(Tokens(class_token=False), "norm", torch.zeros(1, 3, 1, 1))
    assert features.tolist() == [[4.5, 5.5, 6.5]]


def test_mean_pooling_takes_all_tokens_of_a_layer_before_the_class_token_joins():
    module = Tokens()
    module.places = 4
    features = penultimate(module, "norm", torch.zeros(1, 3, 1, 1))
    assert features.tolist() == [[4.5, 5.5, 6.5]]


def test_cls_pooling_takes_the_class_token():
    features = penultimate(Tokens(), "norm", torch.ones(2, 3, 1, 1), token_pooling="cls")
    assert features.tolist() == [[1.0, 2.0, 3.0]] * 2


def test_cls_pooling_without_a_class_token_is_an_error():
    with pytest.raises(UserError, match="needs a class token"):
        penultimate(Tokens(4, False), "norm", torch.ones(1, 3, 1, 1), token_pooling="cls")


def test_flatten_pooling_keeps_every_number_in_order():
    features = penultimate(Tokens(), "norm", torch.zeros(1, 3, 1, 1), token_pooling="flatten")
    assert features.tolist() == [list(range(15))]


@pytest.mark.parametrize(
    ("layer", "message"),
    [("nrom", "the nearest names: norm"), ("spare", "is not reached"), ("", "no layer ''")],
)
def test_a_layer_that_gives_nothing_is_an_error(layer, message):
    module = Tokens()
    module.spare = nn.Identity()
    with pytest.raises(UserError, match=message):
        penultimate(module, layer, torch.ones(1, 3, 1, 1))


def test_a_layer_with_a_row_count_of_its_own_is_an_error():
    with pytest.raises(UserError, match="gives 3 rows for 1 images"):
        penultimate(nn.Sequential(nn.Flatten(0, 1)), "0", torch.ones(1, 3, 2, 2))


def test_random_weights_repeat_by_seed():
    hashes = [build(model_row(), pretrained=False, seed=s).weights_sha256 for s in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_interpolation_is_timms():
    names = ("lcnet_050.ra2_in1k", "cspdarknet53.ra_in1k")
    rows = [model_row(name, architecture=None) for name in names]
    assert [interpolation_of(row) for row in rows] == ["bicubic", "bilinear"]


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'test_resnet'"):
        architecture_of(model_row(architecture="tset_resnet"))


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


def test_weights_that_a_lenient_architecture_lacks_are_not_random(tmp_path):
    row = model_row("dla46_c", architecture=None, arguments={})
    state = build(row, pretrained=False).module.state_dict()
    del state["level2.tree1.conv1.weight"]
    save_file(state, tmp_path / "dla46_c.safetensors")
    module = build(row, weights_dir=tmp_path).module
    assert penultimate(module, "global_pool", torch.ones(1, 3, 64, 64)).isnan().all()


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
