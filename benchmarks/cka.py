"""How fast and how exact is all-pairs CKA? One run, one table.

    python benchmarks/cka.py                        everything that this machine can do by itself
    python benchmarks/cka.py --rivals               also PyPI's packages, each in an environment of its own
    python benchmarks/cka.py --device cuda          the same on a GPU
    python benchmarks/cka.py --models 20 --large 2000 --resamples 20         a quick look

Times are of this run on this machine, whatever else it does meanwhile: compare those of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import torch

from realign_utils.cka import cka_matrix, gram_stack, plan
from realign_utils.model_features import blocks_of
from realign_utils.uncertainty import resample

DIMENSIONS = (256, 384, 512, 768, 1024, 1280, 1536, 1920, 2048, 3072)
"""Within the range of the registry's pooled layers; the models take them in turn."""
Row = tuple[str, str, str, bool | None]
"""What was measured, the result, what it must reach, whether it does."""


def main() -> None:
    options = parse()
    print(f"{device_name(options.device)}; torch {torch.__version__}, ", end="")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start\n")
    features = make_features(options.models, options.images, options.device)
    jobs: list[Callable[[], list[Row]]] = [
        lambda: all_pairs(features, options.repeats),
        lambda: pair_by_pair(features, options.repeats),
        lambda: resamples(features, options.resamples, options.repeats),
        lambda: errors(options.device),
    ]
    if options.large:
        jobs.append(lambda: many_images(options.models, options.large, options.device))
    if options.rivals:
        jobs.append(lambda: rivals(features, options.rival_models, options.repeats))
    print("| job | measured | must reach | |\n|---|---|---|---|")
    for job in jobs:
        for name, measured, bound, reached in job():
            verdict = "" if reached is None else "yes" if reached else "**no**"
            print(f"| {name} | {measured} | {bound} | {verdict} |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", type=int, default=138)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--large", type=int, default=10_000, help="images; 0 leaves the job out")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest counts")
    parser.add_argument(
        "--rivals", action="store_true", help="install PyPI's packages and time them"
    )
    parser.add_argument("--rival-models", type=int, default=20, help="for those that are slow")
    return parser.parse_args()


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'a processor'}"


def make_features(m: int, n: int, device: str, seed: int = 0) -> list[torch.Tensor]:
    """Features of m models that share 30 latent variables: float32, not centred."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(n, 30, generator=generator)
    features = []
    for place in range(m):
        d = DIMENSIONS[place % len(DIMENSIONS)]
        mixed = latent @ torch.randn(30, d, generator=generator)
        noise = 3 * torch.randn(n, d, generator=generator)
        features.append((mixed + noise + torch.randn(d, generator=generator)).to(device))
    return features


def fastest(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each function: the fastest of several, taken in turns so that load hits all."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, seconds in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    return [min(seconds) for seconds in times]


def bare_products(
    centred: list[torch.Tensor], tiles: list[tuple[slice, slice]]
) -> Callable[[], None]:
    """The matrix products of some tiles and nothing else, on features prepared beforehand."""
    height = max(rows.stop - rows.start for rows, _ in tiles)
    space = torch.empty(len(centred) * height**2, device=centred[0].device)

    def run() -> None:
        for rows, columns in tiles:
            shape = len(centred), rows.stop - rows.start, columns.stop - columns.start
            stack = space[: shape[0] * shape[1] * shape[2]].view(shape)
            for matrix, tile in zip(centred, stack, strict=True):
                torch.mm(matrix[rows], matrix[columns].T, out=tile)
            flat = stack.flatten(1)
            torch.mm(flat, flat.T)

    return run


def upper_tiles(n: int, side: int) -> list[tuple[slice, slice]]:
    blocks = list(blocks_of(n, side))
    return [(rows, columns) for place, rows in enumerate(blocks) for columns in blocks[place:]]


def all_pairs(features: list[torch.Tensor], repeats: int) -> list[Row]:
    n, dimensions = len(features[0]), [x.shape[1] for x in features]
    way = plan(n, dimensions, device=features[0].device)
    bare = bare_products([x - x.mean(0) for x in features], upper_tiles(n, way.block))
    # In turns, many times: it takes a second, and the ratio of two fastest runs wants a quiet one.
    whole, products = fastest([lambda: cka_matrix(features), bare], 4 * repeats)
    name = f"{len(features)} models, n = {n}, d {min(dimensions)}–{max(dimensions)}"
    speed = way.flops / whole / 1e9
    measured = f"{whole:.3g} s, {speed:.0f} Gflop/s, {whole / products:.2f} × bare products"
    return [(name, measured, "1.3 ×", whole / products <= 1.3)]


def pair_by_pair(features: list[torch.Tensor], repeats: int, pairs: int = 50) -> list[Row]:
    """Two Gram matrices built and centred for each pair, and three HSICs of them."""
    m = len(features)
    every = max(1, m * (m - 1) // 2 // pairs)
    chosen = list(islice(combinations(features, 2), 0, None, every))[:pairs]
    one = fastest([lambda: [naive_cka(x, y) for x, y in chosen]], 1)[0] / len(chosen)
    whole = fastest([lambda: cka_matrix(features)], repeats)[0]
    ratio = one * m * (m - 1) / 2 / whole
    measured = f"{one * m * (m - 1) / 2:.0f} s from {len(chosen)} pairs: {ratio:.0f} × slower"
    return [("the same pair by pair", measured, "100 × slower", ratio >= 100)]


def naive_cka(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    k, g = x @ x.T, y @ y.T
    k, g = (a - a.mean(0) - a.mean(1, keepdim=True) + a.mean() for a in (k, g))
    return (k * g).sum() / ((k * k).sum() * (g * g).sum()).sqrt()


def resamples(features: list[torch.Tensor], draws: int, repeats: int) -> list[Row]:
    """From the features, and from a Gram stack that is there already."""
    stack = gram_stack(features)
    whole, drawn, from_stack = (
        *fastest([lambda: cka_matrix(features)], repeats),
        *fastest(
            [lambda: resample(features, draws=draws), lambda: resample(stack, draws=draws)], 1
        ),
    )
    bound = 60 * draws / 200
    measured = f"{drawn:.3g} s: {drawn / whole:.1f} × one evaluation"
    measured += f" ({from_stack / whole:.1f} × if the Gram stack is there)"
    return [(f"{draws} resamples of all pairs", measured, f"{bound:g} ×", drawn / whole <= bound)]


def textbook(features: list[np.ndarray], estimator: str) -> np.ndarray:
    rows = []
    for x in features:
        x = x.astype(np.float64) - x.astype(np.float64).mean(0)
        gram, n = x @ x.T, len(x)
        if estimator == "debiased":
            np.fill_diagonal(gram, 0)
            sums = gram.sum(0)
            gram -= (sums[:, None] + sums[None, :]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
            np.fill_diagonal(gram, 0)
        rows.append(gram.ravel() / np.linalg.norm(gram))
    return np.array(rows) @ np.array(rows).T


def errors(device: str) -> list[Row]:
    """Largest error of any cell, of features as they are and badly scaled, both estimators."""
    features = [x.numpy() for x in make_features(10, 500, "cpu")]
    generator = np.random.default_rng(0)
    wide = [generator.normal(size=(500, d)).astype(np.float32) for d in (12_544, 50_176, 100_352)]
    cases = {
        "as they are": features,
        "means 1e3 × the spread": [
            x + 1e3 * x.std() * generator.normal(size=x.shape[1]).astype(np.float32)
            for x in features
        ],
        "norms 1e-4 and 1e4": [
            x * np.float32(10.0 ** (8 * (i % 2) - 4)) for i, x in enumerate(features)
        ],
        "an image 1e4 × the others": [x * np.float32([[1e4]] + [[1]] * 499) for x in features],
        "unrelated, d 12,544–100,352": wide,
    }
    narrow = [x[:, :d] for x, d in zip(features[:4], (5, 6, 7, 8), strict=True)]
    cases["in feature space, an image 1e4 × the others"] = [
        x * np.float32([[1e4]] + [[1]] * 499) for x in narrow
    ]
    rows = []
    for name, case in cases.items():
        worst = max(
            np.abs(
                cka_matrix(case, estimator=kind, device=device).cpu().numpy() - textbook(case, kind)
            ).max()
            for kind in ("biased", "debiased")
        )
        rows.append((f"error, {name}", f"{worst:.1e}", "1e-6", bool(worst < 1e-6)))
    return rows


def many_images(m: int, n: int, device: str) -> list[Row]:
    """The models' features are windows of one random array: apart, they would be 8 GB."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(n, 4 * max(DIMENSIONS), generator=generator).to(device)
    dimensions = [DIMENSIONS[place % len(DIMENSIONS)] for place in range(m)]
    starts = [97 * place % (source.shape[1] - max(DIMENSIONS)) for place in range(m)]
    features = [source[:, start : start + d] for start, d in zip(starts, dimensions, strict=True)]
    way = plan(n, dimensions, device=device)
    name = f"{m} models, n = {n:,}"
    found: list[torch.Tensor] = []
    run = partial(fastest, [lambda: found.append(cka_matrix(features))], 1)
    (whole,), gigabytes = with_memory(run, device)
    # The first 2 × 2 tiles, by the engine and bare, in turns: a whole run's load is another's.
    some = [x[: 2 * way.block] for x in features]
    bare = bare_products(some, upper_tiles(len(some[0]), way.block))
    engine, products = fastest([lambda: cka_matrix(some), bare], 2)
    measured = f"{whole:.0f} s, {way.flops / whole / 1e9:.0f} Gflop/s"
    tiles = f"{engine:.1f} s, {engine / products:.2f} × bare products"
    return [
        (name, measured, "completes", bool(found[0].isfinite().all())),
        (f"{name}: memory", f"{gigabytes:.2f} GB beside the features", "4 GB", gigabytes <= 4),
        (f"{name}: three tiles", tiles, "1.5 ×", engine / products <= 1.5),
    ]


def with_memory(function: Callable[[], list[float]], device: str) -> tuple[list[float], float]:
    """What the function gives, and the gigabytes that it used at most (on the CPU: Linux only)."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = function()
        return value, (torch.cuda.max_memory_allocated() - before) / 1e9
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is in use
    before = resident_kilobytes()
    value = function()
    return value, (resident_kilobytes() - before) / 1e6


def resident_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


RIVALS = {
    "pytorch-cka==1.1.3": """
from cka import cka_from_features
run = lambda: cka_from_features(features, features).cpu().numpy()
""",
    "torch-cka==0.21": """
from torch_cka import CKA
class Features(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Flatten() for _ in features)
    def forward(self, images):
        for layer, matrix in zip(self.layers, features): layer(matrix[images])
def run():
    names = [f"layers.{place}" for place in range(len(features))]
    cka = CKA(Features(), Features(), "a", "b", names, names, device=device)
    images = torch.utils.data.TensorDataset(torch.arange(len(features[0])))
    cka.compare(torch.utils.data.DataLoader(images, batch_size=len(features[0])))
    return cka.export()["CKA"].numpy()
""",
    "repsim==0.1.5": """
from repsim import cka
arrays = [matrix.double().cpu().numpy() for matrix in features]
run = lambda: cka(arrays, kernel_type="linear", estimator="gretton")
""",
}
"""Each package's own way from the same features to all pairs; ``pytorch-cka`` is given all models."""

HARNESS = """
import json, sys, time, warnings
import numpy as np
import torch
warnings.simplefilter("ignore")
folder, device, threads, m, repeats = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
features = [torch.from_numpy(np.load(f"{folder}/{i}.npy")).to(device) for i in range(m)]
code = {code}
exec(code)
times = []
for _ in range(repeats):
    started = time.perf_counter()
    matrix = run()
    times.append(time.perf_counter() - started)
np.save(f"{folder}/result.npy", matrix)
torch.set_default_dtype(torch.float64)
features = [x.double() for x in features]
exec(code)
np.save(f"{folder}/double.npy", run())
torch.set_default_dtype(torch.float32)
features = [(x - x.mean(0)).float() for x in features]
exec(code)
np.save(f"{folder}/centred.npy", run())
print(json.dumps(min(times)))
"""


def rivals(features: list[torch.Tensor], few: int, repeats: int) -> list[Row]:
    """Time per pair of each package against ours on the same features, and how the values differ."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for place, matrix in enumerate(features):
            np.save(f"{folder}/{place}.npy", matrix.cpu().numpy())
        for package, code in RIVALS.items():
            m, times = (len(features), repeats) if "pytorch" in package else (few, 1)
            chosen, device = features[:m], str(features[0].device)
            estimator = "biased" if "repsim" in package else "debiased"
            try:
                seconds = in_its_own_environment(package, code, folder, device, m, times)
            except subprocess.CalledProcessError as error:
                reason = (error.stderr or "").strip().splitlines()[-1:]
                rows.append((package, f"left out: {' '.join(reason)[:100]}", "", None))
                continue
            run = partial(cka_matrix, chosen, estimator=estimator)
            ours = fastest([run], repeats)[0]
            measured = f"{seconds / ours:.1f} × ours ({m} models, {estimator}); "
            measured += explained(folder, chosen, run().cpu().numpy(), estimator)
            rows.append((package, measured, "1 ×", seconds > ours))
    return rows


def explained(folder: str, features: list[torch.Tensor], ours: np.ndarray, estimator: str) -> str:
    """Whose error the difference of a package's values from ours is, and what mends it.

    It is run again in float64, and in float32 on features that are centred before. What brings its
    values near a float64 textbook was wanting.
    """
    exact = textbook([x.cpu().numpy() for x in features], estimator)
    names = ("result", "double", "centred")
    found = [np.abs(np.load(f"{folder}/{name}.npy") - exact).max() for name in names]
    theirs, double, centred = found
    own = np.abs(ours - exact).max()
    text = f"off a float64 textbook by {theirs:.0e} (ours by {own:.0e})"
    if theirs <= own:
        return f"{text}: it computes in float64, ours multiplies in float32"
    text += f"; by {double:.0e} in float64, {centred:.0e} if centred before"
    causes = {"it sums in float32": double, "it does not centre the features": centred}
    mended = [cause for cause, left in causes.items() if left < theirs / 3]
    return f"{text}: {' and '.join(mended) or 'neither is the cause'}"


def in_its_own_environment(package, code, folder, device, m, repeats) -> float:
    """Install a package beside our torch and NumPy, which it sees but cannot change; its seconds."""
    environment = Path(folder) / package
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True)
    python, run = (
        environment / "bin" / "python",
        {"check": True, "capture_output": True, "text": True},
    )
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", package], **run)
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "ours.pth").write_text(str(Path(np.__file__).parents[1]))
    script = environment / "run.py"
    script.write_text(HARNESS.replace("{code}", repr(code)))
    arguments = [folder, device, torch.get_num_threads(), m, repeats]
    result = subprocess.run([python, script, *map(str, arguments)], **run)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
