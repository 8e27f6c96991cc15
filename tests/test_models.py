"""models.py: built as timm builds them; features copied and pooled."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from realign_utils.architectures import architecture_of, interpolation_of
from realign_utils.errors import UserError
from realign_utils.models import build, penultimate


def model_row(name: str = "small", **columns) -> pd.Series:
    columns = {"architecture": "test_resnet", "arguments": {"num_classes": 7}, **columns}
    return pd.Series(columns, name=name)


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


def test_weights_that_a_lenient_architecture_lacks_are_not_random(tmp_path):
    row = model_row("dla46_c", architecture=None, arguments={})
    state = build(row, pretrained=False).module.state_dict()
    del state["level2.tree1.conv1.weight"]
    save_file(state, tmp_path / "dla46_c.safetensors")
    module = build(row, weights_dir=tmp_path).module
    assert penultimate(module, "global_pool", torch.ones(1, 3, 64, 64)).isnan().all()
