"""How much longer extraction takes than the bare forward passes, and than the usual way.

Three ways over the same models (registry entries with random weights, saved as checkpoints
beforehand) and the same JPEG files:

bare
    forward passes alone: models built, images preprocessed and in memory, nothing kept.
extraction
    `realign_utils.features.extract` into an empty store: weights hashed, loaded and built, images
    decoded, features checked and written.
usual
    per model: the checkpoint loaded with timm, an `ImageFolder` and `DataLoader` with timm's
    transform, a hook, `numpy.save`.

The overhead is extraction / bare. Rounds alternate, so that a machine that slows down does so for
all three; the table gives the median round.

    python benchmarks/extraction.py --device cpu --images 64 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from realign_utils.architectures import interpolation_of
from realign_utils.features import extract
from realign_utils.images import ImageSet, load_images
from realign_utils.models import build, find_layer
from realign_utils.pixels import Preprocessing, normalise
from realign_utils.registry import choose, read_registry

ROOT = Path(__file__).resolve().parent.parent
MODELS = [
    "lcnet_050.ra2_in1k",
    "mobilevitv2_050.cvnets_in1k",
    "convnext_atto.d2_in1k",
    "regnety_002.pycls_in1k",
    "ghostnet_100.in1k",
    "repvgg_a0.rvgg_in1k",
    "densenet121.ra_in1k",
    "skresnet18.ra_in1k",
    "botnet26t_256.c1_in1k",
    "ecaresnetlight.miil_in1k",
    "resnetblur50.bt_in1k",
    "cspresnet50.ra_in1k",
    "tnt_s_patch16_224",
    "visformer_small.in1k",
    "coatnet_0_rw_224.sw_in1k",
    "pvt_v2_b0.in1k",
]


def make_images(folder: Path, number: int) -> None:
    """JPEG files of 500 × 375 smooth, noisy pixels, as heavy to decode as photographs."""
    (folder / "one_class").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), float)
        noisy = np.clip(smooth + generator.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"one_class/{index:05}.jpg", quality=90)


def save_weights(registry: pd.DataFrame, folder: Path) -> None:
    """Random weights of every model as safetensors."""
    folder.mkdir()
    for name, row in registry.iterrows():
        state = build(row, pretrained=False).module.state_dict()
        save_file(
            {key: value.clone() for key, value in state.items()}, folder / f"{name}.safetensors"
        )


def bare(
    registry: pd.DataFrame, images: ImageSet, weights: Path, device: str, size: int
) -> dict[str, float]:
    """Seconds of each model's forward passes."""
    seconds = {}
    for name, row in registry.iterrows():
        module = build(row, weights_dir=weights).module.to(device)
        preprocess = Preprocessing(int(row["resize"]), int(row["crop"]), interpolation_of(row))
        pixels = np.stack([preprocess(images.read(index)) for index in range(len(images))])
        batches = normalise(torch.from_numpy(pixels), row["mean"], row["std"], device).split(size)
        with torch.inference_mode():
            if device != "cpu":
                module(batches[0])  # the device's libraries choose and load their kernels
            synchronise(device)
            started = time.perf_counter()
            for batch in batches:
                module(batch)
            synchronise(device)
        seconds[name] = time.perf_counter() - started
    return seconds


def extraction(
    registry: pd.DataFrame, images: ImageSet, weights: Path, device: str, size: int
) -> dict[str, float]:
    """Seconds of the whole extraction, and of each model's part."""
    store = weights.parent / "store"
    shutil.rmtree(store, ignore_errors=True)
    started = time.perf_counter()
    done = extract(
        registry,
        {"images": images},
        store=store,
        weights_dir=weights,
        device=device,
        batch_size=size,
    )
    whole = time.perf_counter() - started
    if len(done.failures):
        sys.exit(done.failures.to_string())
    return {**done.index.set_index("model")["seconds"], "all": whole}


def usual(
    registry: pd.DataFrame, images: Path, weights: Path, device: str, size: int
) -> dict[str, float]:
    """Seconds of each model by DataLoader, hook and numpy.save."""
    seconds = {}
    for name, row in registry.iterrows():
        started = time.perf_counter()
        path = weights / f"{name}.safetensors"
        module = timm.create_model(name, checkpoint_path=path).eval().to(device)
        kept: list[np.ndarray] = []
        find_layer(module, row["layer"]).register_forward_hook(
            lambda _module, _inputs, output, kept=kept: kept.append(output.flatten(1).cpu().numpy())
        )
        transform = create_transform(
            row["crop"],
            interpolation=interpolation_of(row),
            mean=row["mean"],
            std=row["std"],
            crop_pct=row["crop"] / row["resize"],
        )
        loader = DataLoader(ImageFolder(images, transform), batch_size=size, num_workers=2)
        with torch.no_grad():
            for batch, _ in loader:
                module(batch.to(device))
        np.save(weights.parent / f"{name}.npy", np.concatenate(kept))
        seconds[name] = time.perf_counter() - started
    return seconds


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def median_round(measure: Callable[[], dict[str, dict[str, float]]], rounds: int) -> pd.DataFrame:
    """Seconds by model and way, of the median round; the row ``all`` holds the wall times."""
    tables = []
    for number in range(rounds):
        table = pd.DataFrame(measure())
        table.loc["all"] = table.loc["all"].fillna(table.drop("all").sum())
        print(f"round {number + 1}: " + ratios(table.loc["all"]), flush=True)
        tables.append(table)
    stacked = pd.concat(tables, keys=range(rounds))
    return stacked.groupby(level=1, sort=False).median()


def ratios(whole: pd.Series) -> str:
    """The two numbers that count."""
    overhead, usual_ratio = (
        whole["extraction"] / whole["bare"],
        whole["usual"] / whole["extraction"],
    )
    return f"overhead {overhead:.3f}; the usual way takes {usual_ratio:.2f} × as long"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--images", type=int, default=64, help="number of images")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=MODELS, help="registry models")
    options = parser.parse_args()
    registry = choose(read_registry(ROOT / "params/registry.csv"), options.models)
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images", options.images)
        save_weights(registry, folder / "weights")
        source = {"kind": "imagefolder", "path": str(folder / "images"), "number": None}
        images = load_images(source, name="images")
        shared = (folder / "weights", options.device, options.batch_size)
        table = median_round(
            lambda: {
                "bare": bare(registry, images, *shared),
                "extraction": extraction(registry, images, *shared),
                "usual": usual(registry, folder / "images", *shared),
            },
            options.rounds,
        )
    print(table.round(2).to_string())
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(
        f"{len(registry)} models, {options.images} images, {torch.get_num_threads()} threads, {device}"
    )
    print(f"load of the machine, to be near the number of threads: {os.getloadavg()[1]:.1f}")
    print(f"median of {options.rounds} rounds: {ratios(table.loc['all'])}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.1f} GiB")


if __name__ == "__main__":
    main()
