"""How good, how fast and how sure: the three-stage search and its certificate against others.

On each matrix: the value reached, the bound on the best value, the seconds, and for the searches
how soon the value of the best method was met.

three stages   `search.select`, all restarts at once
plain loop     the same stages, restart by restart, as a loop over models in Python would do it
annealing      2 M proposed swaps, geometric cooling: the winning entry's way
long search    `long_search.search_longer`, 10 s
certificate    `search.certify`
HiGHS, CP-SAT, SCIP
               the usual linearisation with y_ij = x_i x_j: y_ij <= x_i, y_ij <= x_j,
               y_ij >= x_i + x_j - 1, and sum_j y_ij = (k - 1) x_i, which makes it far tighter

CP-SAT and SCIP take part where they are installed: pip install ortools pyscipopt.

    python benchmarks/search.py --seconds 60
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from realign_utils.long_search import search_longer
from realign_utils.matrices import read_matrix
from realign_utils.search import certify, select
from realign_utils.swaps import mean_over_pairs

PUBLISHED = Path(__file__).resolve().parent.parent / "params" / "published"
Result = tuple[float, float, float]
"""Value reached, bound proved (infinite if none), seconds until the value was met."""


def cka_like(n: int, seed: int, low: float, high: float) -> np.ndarray:
    """Cosines of features with one shared direction (its loading in [low, high]) and families."""
    rng = np.random.default_rng(seed)
    shared = rng.uniform(low, high, n)
    families = rng.standard_normal((25, 60))[rng.integers(25, size=n)]
    rest = rng.standard_normal((n, 60)) + 0.7 * families
    rest *= np.sqrt((1 - shared**2) / (rest**2).sum(axis=1))[:, None]
    features = np.column_stack([shared, rest])
    return features @ features.T


def symmetric(upper: np.ndarray) -> np.ndarray:
    """The upper triangle, mirrored."""
    return np.triu(upper, 1) + np.triu(upper, 1).T


def instances() -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, matrix and k of each task; all seeded."""
    rng = np.random.default_rng(0)
    yield "published S4, 20", read_matrix(PUBLISHED / "s4_cifar100_cka_digitised.csv")[1], 10
    yield "CKA-like, 141", cka_like(141, 0, 0.6, 0.9), 20
    yield "CKA-like, tight loadings, 141", cka_like(141, 1, 0.8, 0.9), 20
    points = rng.random((150, 10)) * 10
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    yield "GKD-b look-alike, 150", distances, 15
    yield "SOM-a look-alike, 125", symmetric(rng.integers(0, 10, (125, 125)).astype(float)), 12
    yield "MDG-a look-alike, 100", symmetric(rng.random((100, 100)) * 10), 10
    yield "MDG-a look-alike, 500", symmetric(rng.random((500, 500)) * 10), 50


def plain_loop(matrix: np.ndarray, k: int, restarts: int) -> Result:
    """Best-improvement swaps from random sets, set by set and pair by pair."""
    rng, started, best, met = np.random.default_rng(0), time.perf_counter(), -np.inf, 0.0
    for _ in range(restarts):
        inside = set(rng.permutation(len(matrix))[:k].tolist())
        while True:
            support = matrix[list(inside)].sum(axis=0)
            gain, out, new = max(
                (support[j] - support[i] - matrix[i, j], i, j)
                for i in inside
                for j in range(len(matrix))
                if j not in inside
            )
            if gain <= 1e-12:
                break
            inside = inside - {out} | {new}
        value = mean_over_pairs(matrix, np.array([sorted(inside)]))[0]
        if value > best + 1e-12:
            best, met = value, time.perf_counter() - started
    return best, np.inf, met


def annealing(matrix: np.ndarray, k: int, moves: int) -> Result:
    """Random swaps, accepted by Metropolis' rule, at temperatures that fall from 1 to 1e-3."""
    rng, started = np.random.default_rng(0), time.perf_counter()
    order = rng.permutation(len(matrix))
    inside, outside = order[:k].tolist(), order[k:].tolist()
    support = matrix[inside].sum(axis=0)
    value = best = support[inside].sum() / 2
    met, scale, block = 0.0, matrix.std() * np.sqrt(k), 50_000
    for first in range(0, moves, block):
        drawn_in, drawn_out = rng.integers(k, size=block), rng.integers(len(outside), size=block)
        heat = np.log(rng.random(block)) * scale * 10.0 ** (-3 * first / moves)
        for i, j, threshold in zip(
            drawn_in.tolist(), drawn_out.tolist(), heat.tolist(), strict=True
        ):
            out, new = inside[i], outside[j]
            gain = support[new] - support[out] - matrix[out, new]
            if gain > threshold:
                inside[i], outside[j] = new, out
                support += matrix[new] - matrix[out]
                value += gain
                if value > best + 1e-9:
                    best, met = value, time.perf_counter() - started
    return best * 2 / (k * (k - 1)), np.inf, met


def linearised(matrix: np.ndarray, k: int) -> tuple[np.ndarray, LinearConstraint]:
    """Costs and constraints on (x, y), y over the pairs i < j."""
    n = len(matrix)
    pairs = np.array(list(combinations(range(n), 2)))
    y, (i, j) = n + np.arange(len(pairs)), pairs.T
    rows, columns, values, low, high = [], [], [], [], []

    def add(terms: list[tuple[np.ndarray, float]], least: float, most: float) -> None:
        first = len(low)
        for column, value in terms:
            rows.extend(range(first, first + len(column)))
            columns.extend(column)
            values.extend([value] * len(column))
        low.extend([least] * len(terms[0][0]))
        high.extend([most] * len(terms[0][0]))

    add([(y, 1.0), (i, -1.0)], -np.inf, 0.0)
    add([(y, 1.0), (j, -1.0)], -np.inf, 0.0)
    add([(y, -1.0), (i, 1.0), (j, 1.0)], -np.inf, 1.0)
    for row in range(n):
        touching = y[(i == row) | (j == row)]
        rows.extend([len(low)] * (len(touching) + 1))
        columns.extend([*touching, row])
        values.extend([1.0] * len(touching) + [1.0 - k])
        low.append(0.0)
        high.append(0.0)
    rows.extend([len(low)] * n)
    columns.extend(range(n))
    values.extend([1.0] * n)
    shape = (len(low) + 1, n + len(pairs))
    costs = np.concatenate([np.zeros(n), 2 * matrix[i, j] / (k * (k - 1))])
    return costs, LinearConstraint(
        coo_array((values, (rows, columns)), shape=shape).tocsr(), [*low, k], [*high, k]
    )


def highs(matrix: np.ndarray, k: int, seconds: float) -> Result:
    """SciPy's HiGHS."""
    costs, constraints = linearised(matrix, k)
    found = milp(
        -costs,
        constraints=constraints,
        integrality=np.arange(len(costs)) < len(matrix),
        bounds=Bounds(0, 1),
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    value = -found.fun if found.fun is not None else -np.inf
    bound = -found.mip_dual_bound if found.mip_dual_bound is not None else np.inf
    return value, bound, np.nan


def cp_sat(matrix: np.ndarray, k: int, seconds: float) -> Result:
    """OR-tools, on costs rounded to 1e-7 of the largest."""
    from ortools.sat.python import cp_model

    n, model = len(matrix), cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(n)]
    y = {pair: model.new_bool_var("") for pair in combinations(range(n), 2)}
    model.add(sum(x) == k)
    for (i, j), both in y.items():
        model.add_implication(both, x[i])
        model.add_implication(both, x[j])
        model.add_bool_or(~x[i], ~x[j], both)
    for row in range(n):
        model.add(sum(both for pair, both in y.items() if row in pair) == (k - 1) * x[row])
    scale = 1e7 / np.abs(matrix).max()
    model.maximize(sum(round(scale * matrix[pair]) * both for pair, both in y.items()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    known = solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    unit = 2 / (scale * k * (k - 1))
    chosen = np.array([[i for i in range(n) if known and solver.value(x[i])]])
    value = mean_over_pairs(matrix, chosen)[0] if known else -np.inf
    return value, solver.best_objective_bound * unit, np.nan


def scip(matrix: np.ndarray, k: int, seconds: float) -> Result:
    """SCIP."""
    from pyscipopt import Model, quicksum

    costs, constraints = linearised(matrix, k)
    model, table = Model(), constraints.A.tocsr()
    model.hideOutput()
    model.setParam("limits/time", seconds)
    v = [model.addVar(vtype="B" if i < len(matrix) else "C", ub=1) for i in range(len(costs))]
    for row in range(table.shape[0]):
        part = slice(table.indptr[row], table.indptr[row + 1])
        terms = zip(table.data[part].tolist(), table.indices[part].tolist(), strict=True)
        total = quicksum(value * v[column] for value, column in terms)
        if np.isfinite(constraints.lb[row]):
            model.addCons(total >= constraints.lb[row])
        model.addCons(total <= constraints.ub[row])
    model.setObjective(quicksum(c * v[i] for i, c in enumerate(costs)), "maximize")
    model.optimize()
    value = model.getObjVal() if model.getNSols() else -np.inf
    return value, model.getDualbound(), np.nan


def stages(matrix: np.ndarray, k: int, restarts: int) -> Result:
    """The three stages; the value counts as met at the end."""
    started = time.perf_counter()
    return select(matrix, k, restarts=restarts).score, np.inf, time.perf_counter() - started


def certificate(matrix: np.ndarray, k: int, seconds: float) -> Result:
    """Selection and proof."""
    proof = certify(matrix, select(matrix, k), time_limit=seconds)
    return proof.score, proof.upper_bound, np.nan


def methods(options: argparse.Namespace) -> dict[str, Callable[[np.ndarray, int], Result]]:
    """All that can be run here."""
    limit = options.seconds
    found = {
        f"three stages, {options.restarts} restarts": lambda m, k: stages(m, k, options.restarts),
        f"plain loop, {options.loops} restarts": lambda m, k: plain_loop(m, k, options.loops),
        f"annealing, {options.moves:.0e} moves": lambda m, k: annealing(m, k, options.moves),
        "long search, 10 s": lambda m, k: (*search_longer(m, k, time_limit=10)[1:], np.inf, np.nan),
        "certificate": lambda m, k: certificate(m, k, limit),
        "HiGHS": lambda m, k: highs(m, k, limit),
    }
    if find_spec("ortools"):
        found["CP-SAT"] = lambda m, k: cp_sat(m, k, limit)
    if find_spec("pyscipopt"):
        found["SCIP"] = lambda m, k: scip(m, k, limit)
    return found


def main() -> None:
    """Measure and print a table for each matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="limit of the exact methods")
    parser.add_argument("--restarts", type=int, default=2000, help="of the three stages")
    parser.add_argument("--loops", type=int, default=20, help="restarts of the plain loop")
    parser.add_argument("--moves", type=int, default=2_000_000, help="of the annealing")
    parser.add_argument("--only", default="", help="matrices whose name contains this")
    options = parser.parse_args()
    for name, matrix, k in instances():
        if options.only not in name:
            continue
        np.fill_diagonal(matrix, 0.0)
        print(f"\n{name}, k = {k}", flush=True)
        rows = []
        for method, run in methods(options).items():
            started = time.perf_counter()
            value, bound, met = run(matrix, k)
            rows.append((method, value, bound, met, time.perf_counter() - started))
        table = pd.DataFrame(rows, columns=["method", "value", "bound", "met at s", "seconds"])
        best = table["value"].max()
        table.insert(2, "short %", (100 * (1 - table["value"] / best)).round(6))
        table.insert(4, "gap %", (100 * (table["bound"] / best - 1)).round(6))
        table.loc[table["value"] < best * (1 - 1e-6), "met at s"] = np.nan
        print(table.to_string(index=False, float_format=lambda number: f"{number:.6g}"), flush=True)


if __name__ == "__main__":
    main()
