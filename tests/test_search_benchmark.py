"""The rivals of `benchmarks/search.py` do what their names say."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from similarities import all_means, cka_like

FILE = Path(__file__).parent.parent / "benchmarks" / "search.py"
OPTIONS = argparse.Namespace(seconds=10, restarts=50, loops=5, moves=20_000, methods="")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("search_benchmark", FILE)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_rival_finds_the_best_of_a_small_matrix_and_no_bound_is_below_it(benchmark) -> None:
    matrix = cka_like(12, 0)
    np.fill_diagonal(matrix, 0.0)
    best = max(all_means(matrix, 4).values())
    rivals = [one for one in benchmark.methods(OPTIONS) if not one.name.startswith("long")]
    assert len(rivals) >= 5
    for rival in rivals:
        result = rival.run(matrix, 4)
        assert result.value == pytest.approx(best), rival.name
        assert result.bound >= best - 1e-6, rival.name


def test_results_are_kept_in_the_order_of_the_matrices_and_replaced(benchmark, tmp_path) -> None:
    names = [name for name, _, _ in benchmark.instances()]
    row = {"k": 10, "method": "x", "bound": 0.9, "met at s": 1.0, "seconds": 1.0, "restarts/s": 2.0}
    for name, value in ((names[1], 0.5), (names[0], 0.7), (names[1], 0.8)):
        table = benchmark.keep(tmp_path / "t.csv", {"matrix": name, **row, "value": value})
    assert table["matrix"].tolist() == names[:2]
    assert table["value"].tolist() == [0.7, 0.8]
    text = benchmark.as_markdown(table[["matrix", "k", "method", "value", *list(row)[2:]]])
    assert f"| {names[1]}, 10 | x | 0.8 | 0.000 | 0.9 | 12.500 |" in text
