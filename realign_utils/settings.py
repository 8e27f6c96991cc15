"""The settings of an extraction, and the devices of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from realign_utils.errors import UserError, unknown
from realign_utils.models import POOLINGS
from realign_utils.pixels import INTERPOLATIONS, cores

DTYPES = ("float32", "bfloat16", "float16")
PLAIN = {"dtype": "float32", "channels_last": False, "compile": False}
"""Settings of the plain arithmetic: nothing is traded for speed."""


@dataclass(frozen=True)
class Settings:
    """How features are computed; what each means stands at `realign_utils.features.extract`."""

    store: Path
    weights_dir: Path | None = None
    device: str = "auto"
    batch_size: int = 64
    dtype: str = "float32"
    channels_last: bool = False
    compile: bool = False
    token_pooling: str = "mean"
    interpolation: str = "timm"

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("token_pooling", self.token_pooling, POOLINGS),
            ("interpolation", self.interpolation, ("timm", *INTERPOLATIONS)),
        ):
            if value not in allowed:
                raise unknown(what, value, allowed)
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} is not allowed: at least 1")
        # Other processes may have another working directory.
        object.__setattr__(self, "store", Path(self.store).absolute())
        if self.weights_dir is not None:
            object.__setattr__(self, "weights_dir", Path(self.weights_dir).absolute())

    @property
    def exact(self) -> bool:
        """Whether the arithmetic is the plain one."""
        return all(getattr(self, name) == value for name, value in PLAIN.items())


def devices_of(names: str) -> list[torch.device]:
    """The devices that a name stands for.

    Parameters
    ----------
    names : str
        ``auto`` (all visible GPUs, else the CPU), ``cuda`` (all visible GPUs), ``cpu``, ``mps``,
        ``cuda:N``, or several of the latter, separated by commas.

    Returns
    -------
    list of torch.device
        At least one.

    Raises
    ------
    UserError
        If one of them is not there, or they are of several kinds.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if names == "auto":
        names = "cuda" if count else "cpu"
    if names == "cuda" and count:
        return [torch.device("cuda", index) for index in range(count)]
    devices = [_device(name.strip()) for name in names.split(",")]
    if len({device.type for device in devices}) > 1:
        raise UserError(f"device {names!r} is not allowed: several devices are of one kind")
    return devices


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {name!r} is not available: {reason}; allowed: auto, cpu"
        ) from error


def device_of_arithmetic(names: str) -> str:
    """The one device on which similarities are computed, where features may use several.

    The first of several; the CPU instead of Apple's GPUs, which have no float64.
    """
    first = names.split(",")[0].strip()
    return "cpu" if first == "mps" else first


def name_of_device(names: str) -> str:
    """What a device is called: ``cpu``, or the name of the GPU; several with their number."""
    found = devices_of(names)
    titles = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        for device in found
    ]
    counted = [(titles.count(title), title) for title in dict.fromkeys(titles)]
    return ", ".join(f"{number} × {title}" if number > 1 else title for number, title in counted)


def threads_each(workers: int) -> int:
    """Threads for each of so many processes on this machine: together no more than its cores."""
    return max(1, cores() // workers)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Full float32 in products and convolutions, by algorithms that do not vary from run to run.

    Whatever the caller's process allows (TF32, bfloat16 inside of float32) is restored afterwards.
    """
    backends = torch.backends
    units = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul]
    units += [backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul]
    before = [unit.fp32_precision for unit in units]
    chosen = backends.cudnn.benchmark, backends.cudnn.deterministic
    try:
        for unit in units:
            unit.fp32_precision = "ieee"
        backends.cudnn.benchmark, backends.cudnn.deterministic = False, True
        yield
    finally:
        for unit, precision in zip(units, before, strict=True):
            unit.fp32_precision = precision
        backends.cudnn.benchmark, backends.cudnn.deterministic = chosen


def autocast(device: torch.device, dtype: str) -> Any:
    """The context in which a forward pass computes in that type."""
    return torch.autocast(device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32")
