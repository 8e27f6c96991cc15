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
               y_ij >= x_i + x_j - 1, and sum_j y_ij = (k - 1) x_i, which makes it far tighter;
               left out above 200 rows, where it has 60,000 constraints and more

CP-SAT and SCIP take part where they are installed, best in an environment of their own:

    python -m venv .venv-search
    .venv-search/bin/pip install numpy scipy pandas threadpoolctl ortools pyscipopt
    PYTHONPATH=. OMP_NUM_THREADS=2 .venv-search/bin/python benchmarks/search.py
    python benchmarks/search.py --table            # what was measured, as Markdown

All of it takes some half an hour: at most 7 minutes a matrix, of which HiGHS, CP-SAT, SCIP and the
certificate take up to 60 s each. It can be done in parts, e.g. ``--only CKA --methods HiGHS``; each
result replaces that of the same matrix and method in the file (``--out``).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from realign_utils.long_search import search_longer
from realign_utils.matrices import read_matrix
from realign_utils.search import certify, select
from realign_utils.swaps import mean_over_pairs

PUBLISHED = Path(__file__).resolve().parent.parent / "params" / "published"


class Result(NamedTuple):
    """What a method came to.

    Value reached, bound proved (infinite if none), seconds until the value was met, and seconds in
    all where those of the call are more (it then timed itself several times).
    """

    value: float
    bound: float = np.inf
    met: float = np.nan
    seconds: float = np.nan


LARGEST = 200
"""Rows of a matrix up to which it is linearised."""


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
    return Result(best, met=met)


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
    return Result(best * 2 / (k * (k - 1)), met=met)


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
    return Result(value, bound)


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
    return Result(value, solver.best_objective_bound * unit)


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
    return Result(value, model.getDualbound())


def stages(matrix: np.ndarray, k: int, restarts: int) -> Result:
    """The three stages; the value is met by the fewest restarts, of 1, 2, 4, ..., that reach it."""
    started = time.perf_counter()
    value = select(matrix, k, restarts=restarts).score
    seconds = time.perf_counter() - started
    fewer = [2**power for power in range(restarts.bit_length())]
    for number in [*fewer, restarts]:
        started = time.perf_counter()
        reached = select(matrix, k, restarts=number).score
        if reached >= value - 1e-12:
            break
    return Result(value, met=time.perf_counter() - started, seconds=seconds)


def longer(matrix: np.ndarray, k: int, seconds: float) -> Result:
    """The long search; the value is met by the shortest limit, of 1/16, 1/8, ..., that reaches it."""
    value = search_longer(matrix, k, time_limit=seconds)[1]
    for limit in (seconds / 2**power for power in (4, 3, 2, 1, 0)):
        started = time.perf_counter()
        if search_longer(matrix, k, time_limit=limit)[1] >= value - 1e-12:
            break
    return Result(value, met=time.perf_counter() - started, seconds=seconds)


def certificate(matrix: np.ndarray, k: int, seconds: float) -> Result:
    """Selection and proof."""
    proof = certify(matrix, select(matrix, k), time_limit=seconds)
    return Result(proof.score, proof.upper_bound)


@dataclass(frozen=True)
class Method:
    """A rival: how it is called, how it runs, and how many restarts it makes."""

    name: str
    run: Callable[[np.ndarray, int], Result]
    restarts: float = np.nan
    largest: float = np.inf


def methods(options: argparse.Namespace) -> list[Method]:
    """All that can be run here."""
    limit, many, few = options.seconds, options.restarts, options.loops
    found = [
        Method(f"three stages, {many} restarts", lambda m, k: stages(m, k, many), many),
        Method(f"plain loop, {few} restarts", lambda m, k: plain_loop(m, k, few), few),
        Method(
            f"annealing, {options.moves:.0e} moves", lambda m, k: annealing(m, k, options.moves)
        ),
        Method("long search, 10 s", lambda m, k: longer(m, k, 10)),
        Method("certificate", lambda m, k: certificate(m, k, limit)),
        Method("HiGHS", lambda m, k: highs(m, k, limit), largest=LARGEST),
    ]
    if find_spec("ortools"):
        found.append(Method("CP-SAT", lambda m, k: cp_sat(m, k, limit), largest=LARGEST))
    if find_spec("pyscipopt"):
        found.append(Method("SCIP", lambda m, k: scip(m, k, limit), largest=LARGEST))
    return [one for one in found if options.methods.lower() in one.name.lower()]


def measure(method: Method, matrix: np.ndarray, k: int) -> dict[str, float]:
    """One row of the table."""
    started = time.perf_counter()
    result = method.run(matrix, k)
    taken = time.perf_counter() - started
    seconds = result.seconds if np.isfinite(result.seconds) else taken
    row = {"value": result.value, "bound": result.bound, "met at s": result.met}
    return row | {"seconds": seconds, "restarts/s": method.restarts / seconds}


def compared(results: pd.DataFrame) -> pd.DataFrame:
    """Add how far each value is short of the best known, and each bound above it, in per cent."""
    table = results.copy()
    best = table.groupby("matrix")["value"].transform("max")
    table.insert(4, "short %", 100 * (1 - table["value"] / best))
    table.insert(6, "gap %", 100 * (table["bound"] / best - 1))
    table.loc[table["value"] < best * (1 - 1e-6), "met at s"] = np.nan
    return table


def as_markdown(results: pd.DataFrame) -> str:
    """All results as a table for the README."""
    table = compared(results)
    lines = [
        "| matrix, k | method | value | short % | bound | gap % | met at s | seconds | restarts/s |"
    ]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in table.to_dict("records"):
        cells = [f"{row['value']:.6g}", f"{row['short %']:z.3f}", f"{row['bound']:.6g}"]
        cells += [f"{row['gap %']:z.3f}", f"{row['met at s']:.2f}", f"{row['seconds']:.1f}"]
        cells.append(f"{row['restarts/s']:.0f}")
        cells = ["–" if cell in ("nan", "inf", "-inf") else cell for cell in cells]
        lines.append(f"| {row['matrix']}, {row['k']} | {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def keep(path: Path, row: dict[str, object]) -> pd.DataFrame:
    """Put a result into the file, in the place of an earlier one of the same matrix and method."""
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(row))
    same = (rows["matrix"] == row["matrix"]) & (rows["method"] == row["method"])
    rows = pd.DataFrame([*rows[~same].to_dict("records"), row])
    rows = rows.sort_values("matrix", kind="stable", key=lambda names: names.map(_order))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False)
    return rows


def _order(name: str) -> int:
    return [matrix for matrix, _, _ in instances()].index(name)


def main() -> None:
    """Measure, print a table for each matrix, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="limit of the exact methods")
    parser.add_argument("--restarts", type=int, default=2000, help="of the three stages")
    parser.add_argument("--loops", type=int, default=20, help="restarts of the plain loop")
    parser.add_argument("--moves", type=int, default=2_000_000, help="of the annealing")
    parser.add_argument("--only", default="", help="matrices whose name contains this")
    parser.add_argument("--methods", default="", help="methods whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/search.csv"))
    parser.add_argument("--table", action="store_true", help="print what was measured before")
    options = parser.parse_args()
    if options.table:
        print(as_markdown(pd.read_csv(options.out)))
        return
    for name, matrix, k in instances():
        if options.only not in name:
            continue
        np.fill_diagonal(matrix, 0.0)
        print(f"\n{name}, k = {k}", flush=True)
        for method in methods(options):
            if len(matrix) <= method.largest:
                row = {"matrix": name, "k": k, "method": method.name, **measure(method, matrix, k)}
                results = keep(options.out, row)
                print(f"  {method.name}: {row['seconds']:.1f} s", flush=True)
        table = compared(results[results["matrix"] == name]).drop(columns=["matrix", "k"])
        print(table.to_string(index=False, float_format=lambda x: f"{x:.6g}"), flush=True)


if __name__ == "__main__":
    main()
