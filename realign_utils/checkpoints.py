"""Checkpoints read without running what they may hold, completed, and their misfits told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from torch import nn

from realign_utils.errors import UserError


def readable(path: Path) -> dict[str, Any]:
    """What to tell timm to load: the file where that is safe, else the tensors read safely."""
    damaged = f"{path} is truncated or damaged"
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt"):
                return {"file": str(path)}
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "unsupported" not in str(error).lower():
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


def with_shared(given: Mapping[str, Any], module: nn.Module) -> dict[str, Any] | None:
    """Complete a checkpoint that holds once what a model has under several names.

    `safetensors.torch.save_model` keeps one name of tensors that share their memory, such as the
    position encodings of CoaT's blocks.

    Parameters
    ----------
    given : mapping
        Of `readable`.
    module : torch.nn.Module
        The model; its values do not matter.

    Returns
    -------
    dict or None
        As `readable` gives it, with the other names added; None where there are none to add.
    """
    tensors = given.get("state_dict") or safetensors.torch.load_file(given["file"])
    names: dict[tuple[int, torch.Size], list[str]] = {}
    for name, tensor in module.state_dict().items():
        names.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    added = {}
    for (address, _), group in names.items():
        present = [name for name in group if name in tensors]
        if address and present:  # an empty tensor has no address
            added |= {name: tensors[present[0]] for name in group if name not in tensors}
    return {"state_dict": {**tensors, **added}} if added else None


def misfit(error: Exception) -> str:
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
