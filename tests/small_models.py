"""Small models on noise, for the tests of extraction; other processes import them from here."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from safetensors.torch import save_model

from realign_utils.features import Extraction, read_features
from realign_utils.models import build


@dataclasses.dataclass(frozen=True)
class FakeImages:
    """Photograph-like noise, made from a seed when it is read."""

    name: str = "noise"
    number: int = 6
    seed: int = 0
    size: tuple[int, int] = (50, 40)

    @property
    def identifiers(self) -> tuple[str, ...]:
        return tuple(f"{index:03}.png" for index in range(self.number))

    @property
    def sha256(self) -> tuple[str, ...]:
        return tuple(hashlib.sha256(self.read(i).tobytes()).hexdigest() for i in range(self.number))

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(" ".join(self.sha256).encode()).hexdigest()

    def __len__(self) -> int:
        return self.number

    def read(self, index: int) -> Image.Image:
        generator = np.random.default_rng([self.seed, index])
        return Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8)).resize(self.size)


class BrokenImages(FakeImages):
    def read(self, index: int) -> Image.Image:
        if index == 4:
            raise OSError("image file is truncated")
        return super().read(index)

    content_hash = "broken"


def table(**architectures: str) -> pd.DataFrame:
    """A registry of small models on 32 × 32 pixels."""
    columns = {
        "resize": 36,
        "crop": 32,
        "mean": [(0.5, 0.4, 0.3)] * len(architectures),
        "std": [(0.2, 0.3, 0.4)] * len(architectures),
        "architecture": list(architectures.values()),
        "arguments": [{"num_classes": 5}] * len(architectures),
        "layer": ["global_pool" if "resnet" in a else "head" for a in architectures.values()],
    }
    return pd.DataFrame(columns, index=pd.Index(architectures, name="model"))


def save_weights(registry: pd.DataFrame, folder: Path) -> Path:
    """Random weights of every model, the seed being its place in the table."""
    folder.mkdir(exist_ok=True)
    for seed, (name, row) in enumerate(registry.iterrows()):
        module = build(row, pretrained=False, seed=seed).module
        save_model(module, str(folder / f"{name}.safetensors"))
    return folder


SMALL = table(first="test_resnet", second="test_resnet", third="test_byobnet")


def matrices(extraction: Extraction, store: Path) -> list[np.ndarray]:
    return [read_features(store, file) for file in extraction.index["file"]]


def contents(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@dataclasses.dataclass(frozen=True)
class DeadlyImages(FakeImages):
    """Images at which a process dies, so many times, unless it is the one that made them."""

    folder: str = ""
    times: int = 1
    parent: int = dataclasses.field(default_factory=os.getpid)
    content_hash = "deadly"

    def read(self, index: int) -> Image.Image:
        deaths = len(list(Path(self.folder).iterdir()))
        if index == 3 and os.getpid() != self.parent and deaths < self.times:
            Path(self.folder, str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


@dataclasses.dataclass(frozen=True)
class SlowImages(FakeImages):
    """Images that take a while."""

    content_hash = "slow"

    def read(self, index: int) -> Image.Image:
        time.sleep(0.1)
        return super().read(index)


def several(number: int) -> pd.DataFrame:
    """Models of one architecture and different preprocessing, so that each reads the images."""
    registry = pd.concat([SMALL[:1]] * number)
    registry = registry.set_axis(pd.Index([f"m{i}" for i in range(number)], name="model"))
    return registry.assign(resize=range(36, 36 + number), params_m=[i % 3 for i in range(number)])
