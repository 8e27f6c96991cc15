"""The registry against timm: every model is built without its weights and run on one image.

On the meta device, where tensors have shapes but no content, all 141 take half a minute and no
memory; tests marked slow run them for real, one after the other (5.5 GiB at the most).
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.layers import BlurPool2d
from timm.models import get_pretrained_cfg
from torch import nn
from torch.overrides import TorchFunctionMode

from realign_utils.registry import choose, read_registry

REGISTRY = read_registry(Path(__file__).parents[1] / "params" / "registry.csv")
MODELS = REGISTRY.index.tolist()

REAL_TENSORS = {  # why not on the meta device
    "efficientformerv2_l.snap_dist_in1k",  # builds its index tables as torch.LongTensor
    "efficientvit_b0.r224_in1k",  # asks autocast for the device's type
    "nest_base_jx.goog_in1k",  # reads tensors while it is built
    "sequencer2d_l.in1k",  # possible, but its LSTMs are seven times slower there
}
LIGHT = [
    "lcnet_050.ra2_in1k",
    "mobilevitv2_050.cvnets_in1k",
    "test_byobnet.r160_in1k",
    "pvt_v2_b0.in1k",
    "repvit_m0_9.dist_300e_in1k",
    "halonet26t.a1h_in1k",
]

ATTENTION = re.compile(r"Attention|Attn|^(XCA|GPSA|MHSA|LambdaLayer|LiteMLA)$")
NOT_SELF_ATTENTION = {"SelectiveKernelAttn", "SplitAttn", "ConvAttention"}  # over channels; a conv
PATCHES_OR_POSITIONS = re.compile(
    r"(^|\.)(stem|patch_embeds?\d?|pool|neck|pos_block|pos_emb|cpe\d?|crpe\d)(\.|$)"
)


class _SchedulesOnCpu(TorchFunctionMode):
    """timm reads drop-path rates out of ``torch.linspace``, which the meta device cannot do."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        where = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **(kwargs or {}) | where)


@dataclass(frozen=True)
class Built:
    """What building and running a model shows of it."""

    outputs: tuple[tuple[int, ...], ...]  # of the registry's layer, one a call, without the batch
    params_m: float
    mechanism: str
    blur_pool: bool


def run(model: str, device: str) -> tuple[nn.Module, list[tuple[int, ...]]]:
    """Build a model without weights; the shapes that its layer gives for one image."""
    with torch.device(device), _SchedulesOnCpu() if device == "meta" else nullcontext():
        network = timm.create_model(model, pretrained=False).eval()
    shapes: list[tuple[int, ...]] = []
    layer = network.get_submodule(REGISTRY.loc[model, "layer"])
    layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    crop = REGISTRY.loc[model, "crop"]
    with torch.inference_mode():
        network(torch.zeros(1, 3, crop, crop, device=device))
    return network, shapes


@cache
def built(model: str) -> Built:
    network, shapes = run(model, "cpu" if model in REAL_TENSORS else "meta")
    return Built(
        outputs=tuple(shapes),
        params_m=sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        mechanism=mechanism_of(network),
        blur_pool=any(isinstance(module, BlurPool2d) for module in network.modules()),
    )


def mechanism_of(network: nn.Module) -> str:
    """How a network mixes positions, from its modules alone: see `registry.MECHANISMS`."""
    modules = dict(network.named_modules())
    attention = {
        name
        for name, module in modules.items()
        if ATTENTION.search(kind := type(module).__name__) and kind not in NOT_SELF_ATTENTION
    }
    own = {type(modules[name]) for name in modules if _mixes(name, modules, attention)}
    if attention:
        return "hybrid" if own else "attention"
    if nn.Conv2d in {base for kind in own for base in kind.__mro__}:
        return "convolution"
    if own:
        return "pooling"
    return "recurrence" if any(isinstance(m, nn.LSTM) for m in modules.values()) else "mlp"


def _mixes(name: str, modules: dict[str, nn.Module], attention: set[str]) -> bool:
    """Is it a convolution or pooling that mixes positions beside attention, not in its service?"""
    module = modules[name]
    if isinstance(module, nn.Conv2d):
        mixer = max(module.kernel_size) > 1 and max(module.stride) == 1
    else:
        mixer = type(module).__name__ == "Pooling"  # PoolFormer's and EfficientFormer's
    stem = PATCHES_OR_POSITIONS.search(name) and ".backbone.stages." not in name  # ViTamin's blocks
    parents = [name[: dot.start()] for dot in re.finditer(r"\.", name)]
    within = any(parent in attention for parent in parents)
    beside = {block.rpartition(".")[0] + ".mlp" for block in attention} & set(parents)
    return bool(mixer and not stem and not within and not beside)


def registered_shape(model: str) -> tuple[int, ...]:
    return tuple(map(int, REGISTRY.loc[model, "raw_output_shape"].split("x")))


@pytest.mark.parametrize("model", MODELS)
def test_the_layer_runs_once_and_gives_the_registered_shape(model: str) -> None:
    assert built(model).outputs == (registered_shape(model),)


@pytest.mark.parametrize("model", MODELS)
def test_the_parameters_are_as_many_as_registered(model: str) -> None:
    assert built(model).params_m == pytest.approx(REGISTRY.loc[model, "params_m"], abs=0.00501)


@pytest.mark.parametrize("model", MODELS)
def test_the_mechanism_is_what_the_modules_show(model: str) -> None:
    assert built(model).mechanism == REGISTRY.loc[model, "mechanism"]


def test_the_families_with_blur_pooling_are_those_named_so_and_tresnet() -> None:
    named = choose(REGISTRY, "family.str.contains('blur') or family == 'tresnet'")
    assert named.index.tolist() == [model for model in MODELS if built(model).blur_pool]


@pytest.mark.parametrize("model", MODELS)
def test_the_preprocessing_is_timms_rounded(model: str) -> None:
    row = REGISTRY.loc[model]
    config = resolve_data_config({}, pretrained_cfg=get_pretrained_cfg(model).to_dict())
    assert row["crop"] == config["input_size"][-1]
    assert row["resize"] == round(row["crop"] / config["crop_pct"])
    assert row["mean"] == pytest.approx(config["mean"], abs=5e-4)
    assert row["std"] == pytest.approx(config["std"], abs=5e-4)


def test_the_models_are_the_first_pretrained_one_of_each_timm_family() -> None:
    first: dict[str, str] = {}
    for name in sorted(timm.list_models(pretrained=True)):
        first.setdefault(re.match("[a-z]+", name).group(), name)
    assert sorted(first.values()) == MODELS


@pytest.mark.parametrize("model", LIGHT)
def test_a_light_model_gives_the_same_shape_with_real_numbers(model: str) -> None:
    assert run(model, "cpu")[1] == [registered_shape(model)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_gives_the_same_shape_with_real_numbers(model: str) -> None:
    assert run(model, "cpu")[1] == [registered_shape(model)]
