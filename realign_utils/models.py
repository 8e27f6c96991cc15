"""timm models with their weights, and the penultimate features that they give."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import huggingface_hub
import pandas as pd
import safetensors
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import nn
from torch.overrides import TorchFunctionMode

from realign_utils.errors import UserError, unknown
from realign_utils.store import sha256_of_file

POOLINGS = ("mean", "cls", "flatten")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Checkpoints that a folder of weights may hold, in the order of preference."""


class NoNetwork(UserError):
    """The weights are not on this machine and the place that has them cannot be reached."""


@dataclass(frozen=True)
class Weights:
    """A checkpoint on this machine: its path and the SHA-256 of its bytes."""

    path: Path
    sha256: str


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


def architecture_of(row: pd.Series) -> tuple[str, dict[str, Any]]:
    """timm's name of a row's architecture, and the keyword arguments that it is built with."""
    architecture, arguments = _architecture_name(row), row.get("arguments") or {}
    if not timm.is_model(architecture):
        raise unknown("timm architecture", architecture, timm.list_models())
    return architecture, json.loads(arguments) if isinstance(arguments, str) else arguments


def _architecture_name(row: pd.Series) -> str:
    return row.get("architecture") or str(row.name)


def interpolation_of(row: pd.Series) -> str:
    """The resize interpolation with which timm evaluates the row's model."""
    settings = timm.get_pretrained_cfg(_architecture_name(row))
    return settings.interpolation if settings else "bicubic"


def find_weights(
    row: pd.Series, *, weights_dir: str | os.PathLike[str] | None = None, online: bool = True
) -> Weights:
    """Find a model's checkpoint and hash it, without building the model.

    From the hub, a cached file is used without asking the network; another is downloaded.

    Parameters
    ----------
    row : pandas.Series
        As for `build`.
    weights_dir : path, optional
        As for `build`.
    online : bool
        False: only look on this machine.

    Returns
    -------
    Weights

    Raises
    ------
    NoNetwork
        If the file is not here and cannot be downloaded.
    UserError
        If there is no such file, or a cached file's bytes are not those that its name promises.
    """
    if weights_dir is not None:
        path = _in_folder(str(row.name), Path(weights_dir))
        return Weights(path, sha256_of_file(path))
    path = _from_hub(row, online)
    sha256 = sha256_of_file(path)
    # The hub's cache names a file by its SHA-256; torch's by the first digits, after a hyphen.
    promise = re.fullmatch(r"[0-9a-f]{64}|.*-([0-9a-f]{8,})\.pth(\.tar)?", path.resolve().name)
    if promise and not sha256.startswith(promise[1] or promise[0]):
        raise UserError(f"{row.name}: {path.resolve()} is damaged: delete it and fetch it again")
    return Weights(path, sha256)


def _in_folder(model: str, folder: Path) -> Path:
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise UserError(f"model name {model!r} cannot be a file name: use letters, digits, _ . -")
    paths = [folder / f"{model}{suffix}" for suffix in SUFFIXES]
    found = next((path for path in paths if path.is_file()), None)
    if found:
        return found
    if not folder.is_dir():
        raise UserError(f"weights_dir {folder} is not a folder")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    nearest = get_close_matches(paths[0].name, names, n=1, cutoff=0.5)
    hint = f"; the nearest is {nearest[0]}" if nearest else f"; it holds {len(names)} checkpoints"
    raise UserError(f"no {paths[0].name} (or {', '.join(SUFFIXES[1:])}) in {folder}{hint}")


def _from_hub(row: pd.Series, online: bool) -> Path:
    settings = timm.get_pretrained_cfg(architecture_of(row)[0])
    if settings is None or not settings.has_weights:
        raise UserError(f"{row.name}: timm has no pretrained weights for it; give weights_dir")
    try:
        if settings.hf_hub_id:
            return _from_hugging_face(settings, online)
        path = Path(torch.hub.get_dir(), "checkpoints", Path(settings.url).name)
        if not path.is_file():
            if not online:
                raise URLError("offline")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(settings.url, str(path), progress=False)
        return path
    except (LocalEntryNotFoundError, URLError, ConnectionError) as error:
        raise NoNetwork(
            f"the weights of {row.name} are not on this machine and their host cannot be reached: "
            "connect and run again, or give weights_dir"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{row.name}: {settings.hf_hub_id} holds no weights") from error


def _from_hugging_face(settings: Any, online: bool) -> Path:
    repository, _, revision = settings.hf_hub_id.partition("@")
    given = settings.hf_hub_filename
    names = [f"{Path(given).stem}.safetensors", given] if given else []
    names = names or ["model.safetensors", "pytorch_model.bin"]
    where = {"repo_id": repository, "revision": revision or None}
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(filename=name, **where)
        if isinstance(cached, str):
            return Path(cached)
    for name in names if online else []:
        try:
            return Path(huggingface_hub.hf_hub_download(filename=name, **where))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    if online:
        raise EntryNotFoundError(repository)
    raise LocalEntryNotFoundError(repository)


def load(row: pd.Series, weights: Weights) -> nn.Module:
    """Build a row's model around a checkpoint, by timm's own loading.

    timm's `checkpoint_filter_fn` applies, and every key must fit (but for the two architectures
    that timm itself loads leniently, DLA and ConvNeXt-V2 FCMAE). The model is built as timm builds
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
    architecture, arguments = architecture_of(row)
    settings = timm.get_pretrained_cfg(architecture)
    # timm drops a head whose size is not that of the published weights: say which size is meant.
    classes = arguments.get("num_classes", settings.num_classes if settings else 1000)
    overlay = {"num_classes": classes, "custom_load": False, **_readable(weights.path)}
    try:
        with _NoRandomWeights():
            module = _create(row, pretrained=True, pretrained_cfg_overlay=overlay)
    except UserError:
        raise
    except Exception as error:  # whatever timm's filters raise on foreign keys
        raise UserError(f"{weights.path} does not fit {architecture}: {_misfit(error)}") from error
    module.pretrained_cfg.pop("state_dict", None)  # a second copy of all weights
    return module


def _create(row: pd.Series, **options: Any) -> nn.Module:
    architecture, arguments = architecture_of(row)
    try:
        return timm.create_model(architecture, **options, **arguments).eval()
    except TypeError as error:
        raise UserError(f"{row.name}: timm cannot build it with {arguments}: {error}") from error


def _readable(path: Path) -> dict[str, Any]:
    """What to tell timm to load: the file where that is safe, else the tensors read safely."""
    damaged = f"{path} is truncated or damaged"
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt"):
                return {"file": str(path)}
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise UserError(damaged) from error
        raise UserError(
            f"{path} is refused: a pickle of more than tensors may run code; save it as safetensors"
        ) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{damaged} ({' '.join(str(error).split())[:120]})") from error
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):  # timm's order
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
            break
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a state dict")
    return {"state_dict": {re.sub(r"^module\.", "", key): v for key, v in checkpoint.items()}}


def _misfit(error: Exception) -> str:
    """The first missing, unexpected and mismatched keys of a failed load, on one line."""
    text, parts = str(error), []
    for kind in ("Missing", "Unexpected"):
        listed = re.search(rf"{kind} key\(s\) in state_dict: (.*)", text)
        if listed:
            first, *others = re.findall(r'"([^"]+)"', listed[1])
            parts.append(f"{kind.lower()} {first}" + f" and {len(others)} more" * bool(others))
    sizes = re.findall(r"size mismatch for (\S+):.*?Size\((\[.*?\])\).*?Size\((\[.*?\])\)", text)
    if sizes:
        (name, given, wanted), *others = sizes
        more = f" and {len(others)} more" * bool(others)
        parts.append(f"mismatched {name} {given}, should be {wanted}{more}")
    return "; ".join(parts) or f"{type(error).__name__}: {' '.join(text.split())}"


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
