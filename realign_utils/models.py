"""timm models with their weights, and the penultimate features that they give."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import pandas as pd
import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from realign_utils.architectures import architecture_of, interpolation_of, settings_of
from realign_utils.checkpoints import misfit, readable, with_shared
from realign_utils.errors import UserError, unknown
from realign_utils.weights import Weights, find_weights

POOLINGS = ("mean", "cls", "flatten")


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode, the SHA-256 of its weights, and its resize interpolation."""

    module: nn.Module
    weights_sha256: str
    interpolation: str


def build(
    row: pd.Series,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> LoadedModel:
    """Build the model of a registry row.

    Parameters
    ----------
    row : pandas.Series
        Of `realign_utils.registry`: ``row.name`` is the model; its architecture (timm's name, by
        default the model's) and arguments (keywords for `timm.create_model`, dict or JSON) count.
    weights_dir : path, optional
        Folder of ``<model>.safetensors``, ``.pth``, ``.pt`` or ``.bin``; the hub by default.
    pretrained : bool
        False: random weights from `seed`, whose SHA-256 is that of the state dict.
    seed : int
        Of the random weights.

    Returns
    -------
    LoadedModel
        On the CPU.

    Raises
    ------
    UserError
        One line: what cannot be found, read, or does not fit.
    """
    if pretrained:
        weights = find_weights(row, weights_dir=weights_dir)
        return LoadedModel(load(row, weights), weights.sha256, interpolation_of(row))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _create(row, pretrained=False)
    return LoadedModel(module, _sha256_of_state(module), interpolation_of(row))


def load(row: pd.Series, weights: Weights) -> nn.Module:
    """Build a row's model around a checkpoint, by timm's own loading.

    timm's `checkpoint_filter_fn` applies, and every key must fit (but for the two architectures
    that timm itself loads leniently, DLA and ConvNeXt-V2 FCMAE); of tensors that the model itself
    shares between several names, one name is enough. The model is built as timm builds
    it for pretrained weights: `fbnetc_100` then has another epsilon in its batch norms.

    Parameters
    ----------
    row : pandas.Series
        As for `build`.
    weights : Weights
        From `find_weights`.

    Returns
    -------
    torch.nn.Module
        In eval mode, on the CPU.

    Raises
    ------
    UserError
        If the checkpoint is truncated, is a pickle of more than tensors, or does not fit.
    """
    given = readable(weights.path)
    try:
        try:
            return _loaded(row, given)
        except RuntimeError as error:
            whole = with_shared(given, _empty(row)) if "Missing key" in str(error) else None
            if whole is None:
                raise
            return _loaded(row, whole)
    except UserError:
        raise
    except Exception as error:  # whatever timm's filters raise on foreign keys
        reason = f"{architecture_of(row)[0]}: {misfit(error)}"
        raise UserError(f"{weights.path} does not fit {reason}") from error


def _loaded(row: pd.Series, given: Mapping[str, Any]) -> nn.Module:
    settings, arguments = settings_of(row), architecture_of(row)[1]
    # timm drops a head whose size is not that of the published weights: say which size is meant.
    classes = arguments.get("num_classes", settings.num_classes if settings else 1000)
    overlay = {"num_classes": classes, "custom_load": False, **given}
    with _NoRandomWeights():
        module = _create(row, pretrained=True, pretrained_cfg_overlay=overlay)
    module.pretrained_cfg.pop("state_dict", None)  # a second copy of all weights
    return module


def _empty(row: pd.Series) -> nn.Module:
    with _NoRandomWeights():
        return _create(row, pretrained=False)


def _create(row: pd.Series, **options: Any) -> nn.Module:
    architecture, arguments = architecture_of(row)
    try:
        return timm.create_model(architecture, **options, **arguments).eval()
    except TypeError as error:
        raise UserError(f"{row.name}: timm cannot build it with {arguments}: {error}") from error


class _NoRandomWeights(TorchFunctionMode):
    """Leave out the drawing of random weights that a checkpoint replaces: half the build time.

    What no checkpoint replaced is NaN and makes the features non-finite, so it cannot go unseen.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0].fill_(math.nan)
        if function is torch.Tensor.erfinv_:
            return args[0]
        return function(*args, **(kwargs or {}))


def _sha256_of_state(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def find_layer(module: nn.Module, layer: str) -> nn.Module:
    """The layer of that dotted name; `UserError` with the nearest names where there is none."""
    layers = dict(module.named_modules())
    if layer not in layers or not layer:
        nearest = ", ".join(get_close_matches(layer, layers, n=3, cutoff=0.4))
        raise UserError(f"no layer {layer!r}; the nearest names: {nearest or 'none'}")
    return layers[layer]


def penultimate(
    module: nn.Module, layer: str, images: torch.Tensor, *, token_pooling: str = "mean"
) -> torch.Tensor:
    """Penultimate features: what a layer gives in a forward pass, one vector an image.

    The output is copied when the layer gives it, so that a later in-place operation (a ReLU)
    cannot change it. Layers that give one vector an image, possibly as d × 1 × 1, are not pooled.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    layer : str
        Dotted name of the layer.
    images : torch.Tensor
        Shape (b, 3, h, w), normalised, on the module's device.
    token_pooling : {"mean", "cls", "flatten"}
        For layers that give a grid of tokens (b, tokens, d), or a map (b, d, h, w) or (b, h, w, d).
        mean: over the tokens that stand for places, the class token and other prefix tokens left
        out (timm's ``global_pool="avg"``). cls: the class token. flatten: all, as the portal does.

    Returns
    -------
    torch.Tensor
        Shape (b, d), float32.

    Raises
    ------
    UserError
        If there is no such layer, it is not reached, or its output cannot be pooled so.
    """
    with LayerOutput(module, layer) as output:
        return output.features(images, token_pooling=token_pooling)


class LayerOutput(nn.Module):
    """A model that gives what one of its layers gives: hooked once, for many forward passes.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode.
    layer : str
        Dotted name of the layer; `UserError` with the nearest names where there is none.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        super().__init__()
        self.module, self.layer, self.output = module, layer, None
        self._handle = find_layer(module, layer).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        # Copied, so that a later in-place operation (a ReLU) cannot change it.
        self.output = output.detach().clone() if isinstance(output, torch.Tensor) else output

    def forward(self, images: torch.Tensor) -> Any:
        """The layer's output, as it is."""
        self.module(images)
        return self.output

    def features(self, images: torch.Tensor, *, token_pooling: str = "mean") -> torch.Tensor:
        """Features of images, as `penultimate` gives them."""
        self.output = None
        self(images)
        output, self.output = self.output, None
        if output is None:
            raise UserError(f"layer {self.layer!r} is not reached in a forward pass")
        if not isinstance(output, torch.Tensor):
            raise UserError(f"layer {self.layer!r} gives a {type(output).__name__}, not a tensor")
        features = _pool(output, token_pooling, _prefix_tokens(self.module)).float()
        if len(features) != len(images):
            rows = f"{len(features)} rows for {len(images)} images"
            raise UserError(f"layer {self.layer!r} gives {rows}")
        return features

    def __enter__(self) -> LayerOutput:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _prefix_tokens(module: nn.Module) -> int:
    """How many tokens come before those of the grid: the class token, distillation, registers."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    declared = getattr(module, "num_prefix_tokens", None)
    return int(any(n.startswith("cls_token") for n in names)) if declared is None else declared


def _pool(output: torch.Tensor, token_pooling: str, prefix_tokens: int) -> torch.Tensor:
    if token_pooling not in POOLINGS:
        raise unknown("token_pooling", token_pooling, POOLINGS)
    if output.ndim not in (2, 3, 4):
        raise UserError(f"features of shape {tuple(output.shape[1:])} cannot be pooled")
    if output[0].numel() == max(output.shape[1:]) or token_pooling == "flatten":
        return output.flatten(1)
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        places = output.flatten(1, 2) if channels_last else output.flatten(2).transpose(1, 2)
        output, prefix_tokens = places, 0
    # Crops are square, so is the grid: a layer before the class token joins has no prefix.
    grid = output.shape[1] - prefix_tokens
    prefix_tokens = prefix_tokens if grid > 0 and math.isqrt(grid) ** 2 == grid else 0
    if token_pooling == "mean":
        return output[:, prefix_tokens:].mean(1)
    if not prefix_tokens:
        raise UserError("token_pooling 'cls' needs a class token, and this layer gives none")
    return output[:, 0]
