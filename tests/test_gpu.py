"""What only a GPU can show. Everything else runs on one too: by default, where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import SMALL, FakeImages, contents, matrices, save_weights

from realign_utils.cka import cka_matrix, gram_sums, plan
from realign_utils.features import extract
from realign_utils.uncertainty import resample

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DIMENSIONS = (256, 512, 1024, 2048)


def noise(n: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(n, d)).astype(np.float32) for d in DIMENSIONS]


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_cka_is_the_cpu_s(estimator):
    there = cka_matrix(noise(300), device="cuda", estimator=estimator)
    assert there.device.type == "cuda"
    here = cka_matrix(noise(300), device="cpu", estimator=estimator)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-6)


def test_resamples_are_the_cpu_s():
    there, here = (resample(noise(200), device=device, draws=20) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there.standard_error, here.standard_error, atol=1e-6)


def test_two_runs_give_the_same_bits():
    first, second = (cka_matrix(noise(300), device="cuda") for _ in range(2))
    assert torch.equal(first, second)


def test_cka_keeps_to_its_memory():
    features, memory = noise(12_000), 600 * 10**6
    cka_matrix(features, device="cuda", memory=memory)  # the libraries take their own meanwhile
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gram_sums(features, device="cuda", memory=memory)
    assert plan(12_000, DIMENSIONS, memory, "cuda").block < 6000  # the memory is what limits it
    assert torch.cuda.max_memory_allocated() - before <= memory


def test_features_are_the_cpu_s_and_the_same_bits_twice(tmp_path):
    weights, images = save_weights(SMALL, tmp_path / "weights"), {"noise": FakeImages(number=20)}
    done = {
        store: extract(SMALL, images, store=tmp_path / store, weights_dir=weights, device=device)
        for store, device in {"here": "cpu", "there": "cuda", "again": "cuda"}.items()
    }
    there, again = (
        {file: bits for file, bits in contents(tmp_path / store).items() if "features" in file}
        for store in ("there", "again")
    )
    assert there
    assert there == again
    for here, gpu in zip(
        *(matrices(done[store], tmp_path / store) for store in ("here", "there")), strict=True
    ):
        error = np.linalg.norm(gpu - here, axis=1) / np.linalg.norm(here, axis=1)
        assert error.max() < 1e-4


def test_a_batch_too_large_for_the_memory_is_halved(tmp_path):
    weights = save_weights(SMALL[:1], tmp_path / "weights")
    total, spare = torch.cuda.get_device_properties(0).total_memory, 64 * 2**20
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + spare
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        done = extract(
            SMALL[:1],
            {"noise": FakeImages(number=4096)},
            store=tmp_path / "store",
            weights_dir=weights,
            device="cuda",
            batch_size=4096,
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert list(done.failures["reason"]) == []
    [note] = (tmp_path / "store/batch_sizes").iterdir()
    assert int(note.read_text()) < 4096
