"""Bounds are never too low, proofs are complete, and nothing false is accepted."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from similarities import all_means, cka_like, mean, random_case

from realign_utils import branch_and_bound
from realign_utils.bounds import Dual, inherit, only_set, problem_after, row_bound, upper_bound
from realign_utils.certificate import Certificate, certify, check_certificate, covers, with_set
from realign_utils.certificate_files import load_certificate, save_certificate
from realign_utils.errors import UserError
from realign_utils.limits import count_limit, exclude, include, loads_of
from realign_utils.relaxation import start, tighten
from realign_utils.search import Selection, select
from realign_utils.swaps import NO_LIMITS


def zero_diagonal(matrix):
    return matrix - np.diag(np.diag(matrix))


def random_dual(rng, n, limits=0):
    """Any numbers at all: what must not be negative is cut at 0 where it is used."""
    spread = rng.choice([0.1, 1.0], 3)
    return Dual(
        spread[0] * rng.standard_normal(n),
        spread[1] * rng.standard_normal((n, n)),
        spread[2] * rng.standard_normal(limits),
        float(rng.random()),
    )


def middle(matrix):
    """The typical similarity: the median size of those that are not 0."""
    sizes = np.abs(matrix[np.triu_indices(len(matrix), 1)])
    return float(np.median(sizes[sizes > 0])) if sizes.any() else 1.0


def prove_and_compare(seed):
    """Certify the best set or any other of a random case, against all sets."""
    (matrix, k), rng = random_case(seed), np.random.default_rng(seed)
    means = all_means(matrix, k)
    best = max(means.values())
    rows = (
        max(means, key=means.get) if rng.random() < 0.5 else list(means)[rng.integers(len(means))]
    )
    certificate = certify(matrix, rows, time_limit=30)
    own = np.abs(matrix[np.ix_(max(means, key=means.get), max(means, key=means.get))]).max()
    assert certificate.upper_bound >= best - 1e-14 * own
    assert certificate.optimal == (means[rows] >= best - certificate.tolerance)
    assert certificate.tolerance <= 1e-9 * max(abs(means[rows]), middle(matrix)) * (1 + 1e-9)
    assert means[certificate.best] >= best - 1e-9 * max(abs(best), middle(matrix))
    check_certificate(matrix, certificate)


def test_bound_and_verdict_agree_with_brute_force_on_random_cases():
    for seed in range(160):
        prove_and_compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_bound_and_verdict_agree_with_brute_force_on_thousands_of_cases(block):
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        prove_and_compare(seed)


def test_any_multipliers_whatever_bound_every_set_after_any_decisions():
    for seed in range(2000):
        (matrix, k), rng = random_case(seed), np.random.default_rng(seed)
        matrix = zero_diagonal(matrix) / np.abs(matrix).max() if matrix.any() else matrix
        path = tuple(
            int(r) if rng.random() < 0.5 else ~int(r) for r in rng.permutation(len(matrix))
        )
        problem = problem_after(matrix, k, NO_LIMITS, path[: rng.integers(3)])
        if only_set(problem) is not None:
            continue
        bound = upper_bound(problem, random_dual(rng, len(problem.rows)))
        bound = min(bound, row_bound(problem))
        within = [
            value
            for rows, value in all_means(matrix, k).items()
            if {*problem.chosen} <= {*rows} <= {*problem.chosen, *problem.rows}
        ]
        assert bound >= max(within) * k * (k - 1) - 1e-12


def test_prices_of_limits_bound_every_set_within_the_limits():
    for seed in range(400):
        (matrix, k), rng = random_case(seed), np.random.default_rng(seed)
        if not 2 <= k < len(matrix):
            continue
        matrix = zero_diagonal(matrix) / (np.abs(matrix).max() or 1)
        limits = [count_limit([0, 1], len(matrix), name="pair", at_most=1)]
        loads = loads_of(limits, range(len(matrix)), len(matrix))
        problem = problem_after(matrix, k, loads, ())
        within = [v for rows, v in all_means(matrix, k).items() if not {0, 1} <= {*rows}]
        bound = upper_bound(problem, random_dual(rng, len(matrix), 1))
        assert bound >= max(within, default=-np.inf) * k * (k - 1) - 1e-12


def test_the_bound_is_the_formula():
    matrix, rng, k = zero_diagonal(cka_like(12, 0)), np.random.default_rng(0), 5
    limits = [count_limit([0, 1, 2], 12, name="three", at_least=1, at_most=2)]
    problem = problem_after(matrix, k, loads_of(limits, range(12), 12), ())
    dual = replace(random_dual(rng, 12, 2), prices=np.array([0.7, 0.4]))
    y, (most, least) = dual.y, dual.prices
    nonnegative = np.maximum((dual.nonnegative + dual.nonnegative.T) / 2, 0)
    star = (np.add.outer(y, y)) / 2 - k * np.diag(y)
    priced = matrix - (most - least) * np.diag(np.arange(12) < 3)
    top = np.linalg.eigvalsh(priced + nonnegative - star)[-1]
    expected = k * top + 2 * most - 1 * least
    assert expected <= upper_bound(problem, dual) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("decision", [3, ~3])
def test_inherited_multipliers_never_give_a_worse_bound(decision):
    for seed in range(20):
        matrix = zero_diagonal(cka_like(15, seed))
        problem = problem_after(matrix, 6, NO_LIMITS, ())
        iterate = tighten(problem, start(problem), 20, time.monotonic() + 60)
        child = problem_after(matrix, 6, NO_LIMITS, (decision,))
        inherited = upper_bound(child, inherit(iterate.dual, problem, child))
        assert inherited <= upper_bound(problem, iterate.dual) + 1e-7


def test_the_solver_reaches_the_value_of_the_relaxation():
    """Three of a 5-cycle: X may be taken circulant, and an eigenvalue then limits the value."""
    cycle = np.array([[float((i - j) % 5 in (1, 4)) for i in range(5)] for j in range(5)])
    problem = problem_after(cycle, 3, NO_LIMITS, ())
    iterate = tighten(problem, start(problem), 500, time.monotonic() + 60)
    golden = (1 + 5**0.5) / 2
    assert upper_bound(problem, iterate.dual) == pytest.approx(6 * golden / 5**0.5, abs=1e-7)


@cache
def proved() -> tuple[np.ndarray, Selection, Certificate]:
    """A matrix that one relaxation does not settle, with its proof."""
    matrix = np.random.default_rng(3).standard_normal((24, 24))
    matrix = matrix + matrix.T
    selection = select(matrix, 8)
    return matrix, selection, certify(matrix, selection)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_20_of_141_are_proved(seed):
    matrix = cka_like(141, seed)
    selection = select(matrix, 20, restarts=100)
    certificate = certify(matrix, selection)
    assert certificate.optimal
    assert certificate.gap == 0
    check_certificate(matrix, certificate)


def test_the_proof_branches_and_is_the_same_twice():
    matrix, selection, certificate = proved()
    again = certify(matrix, selection)
    assert certificate.optimal
    assert certificate.nodes > 1
    assert again.leaves == certificate.leaves
    assert again.upper_bound == certificate.upper_bound


def test_a_pair_at_minus_1e12_hides_no_better_set():
    matrix = cka_like(14, 0)
    matrix[2, 5] = matrix[5, 2] = -1e12
    means = all_means(matrix, 5)
    best = max(means, key=means.get)
    assert select(matrix, 5).indices == best
    middling = sorted(means, key=means.get)[len(means) // 2]
    certificate = certify(matrix, middling)
    assert not certificate.optimal
    assert certificate.best == best
    assert certificate.upper_bound == pytest.approx(means[best], abs=1e-8)
    check_certificate(matrix, certificate)


def test_a_wrong_selection_is_not_certified_and_a_better_one_is_shown():
    matrix, selection, _ = proved()
    outsider = next(row for row in range(24) if row not in selection.indices)
    certificate = certify(matrix, (*selection.indices[1:], outsider))
    assert not certificate.optimal
    assert certificate.best == selection.indices
    assert certificate.gap > 0
    assert certificate.upper_bound == pytest.approx(selection.score, rel=1e-8)


def test_a_proof_stands_beside_any_set_of_its_candidates_and_no_other():
    matrix = cka_like(20, 3)
    selection = select(matrix, 5, limits=exclude([19], 20), candidates=range(4, 20))
    proof = certify(matrix, selection)
    other = with_set(matrix, proof, [9, 8, 7, 6, 5])
    assert other.indices == (5, 6, 7, 8, 9)
    assert other.score == pytest.approx(mean(matrix, other.indices))
    assert other.upper_bound == proof.upper_bound
    assert not other.optimal
    check_certificate(matrix, other)
    for rows in ([0, 5, 6, 7, 8], [5, 6, 7, 8, 19], [5, 6, 7, 8], [5, 5, 6, 7, 8]):
        with pytest.raises(UserError):
            with_set(matrix, proof, rows)


def test_without_time_the_bound_is_valid_and_says_that_it_is_not_tight():
    matrix, selection, certificate = proved()
    hasty = certify(matrix, selection, time_limit=0)
    assert not hasty.optimal
    assert hasty.upper_bound > certificate.upper_bound
    check_certificate(matrix, hasty)


def test_candidates_and_limits_of_a_selection_are_honoured():
    matrix, _, _ = proved()
    limits = [
        count_limit(range(8), 24, name="few", at_most=1),
        *include([9], 24),
        *exclude([10], 24),
    ]
    selection = select(matrix, 6, candidates=range(16), limits=limits)
    certificate = certify(matrix, selection)
    means = all_means(matrix[:16, :16], 6)
    within = [v for r, v in means.items() if 9 in r and 10 not in r and sum(i < 8 for i in r) <= 1]
    assert certificate.optimal
    assert certificate.upper_bound == pytest.approx(max(within), rel=1e-8)
    check_certificate(matrix, certificate)


def test_the_bound_of_a_large_matrix_in_little_time_is_not_far_off():
    matrix = cka_like(700, 0)
    selection = select(matrix, 20, restarts=10)
    certificate = certify(matrix, selection, time_limit=0)
    assert selection.score < certificate.upper_bound < 1.2 * selection.score
    check_certificate(matrix, certificate)


def test_limits_do_not_make_the_root_copy_the_matrix(monkeypatch):
    """With a limit, what it forces is found from the limits alone."""
    calls = []
    plain = branch_and_bound.problem_after
    monkeypatch.setattr(branch_and_bound, "problem_after", lambda *a: calls.append(0) or plain(*a))
    matrix = cka_like(120, 0)
    selection = select(matrix, 8, restarts=5, limits=include([7], 120))
    certificate = certify(matrix, selection, time_limit=0)
    assert len(calls) < 5
    check_certificate(matrix, certificate)


@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_a_time_limit_that_is_none_is_refused(seconds):
    with pytest.raises(UserError, match="time limit must be at least 0"):
        certify(*proved()[:2], time_limit=seconds)


def test_progress_is_told_in_lines():
    matrix, selection, certificate = proved()
    lines = []
    certify(matrix, selection, show=lines.append)
    assert len(lines) == certificate.nodes
    assert lines[-1].endswith(f"{certificate.nodes} nodes done, 0 open")


@pytest.mark.parametrize("rows", [(0,), (0, 0), (0, 24), (-1, 3)])
def test_what_is_no_set_of_rows_is_refused(rows):
    with pytest.raises(UserError):
        certify(proved()[0], rows)


def test_a_certificate_survives_saving_and_loading(tmp_path):
    matrix, _, certificate = proved()
    path = save_certificate(tmp_path / "proof.safetensors", certificate)
    loaded = load_certificate(path)
    check_certificate(matrix, loaded)
    assert replace(loaded, duals=()) == replace(certificate, duals=())
    save_certificate(tmp_path / "again.safetensors", loaded)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def altered(certificate, **leaf_changes):
    leaf = next(number for number, leaf in enumerate(certificate.leaves) if leaf.dual is not None)
    leaves = list(certificate.leaves)
    leaves[leaf] = replace(leaves[leaf], **leaf_changes)
    return replace(certificate, leaves=tuple(leaves))


def with_dual(certificate, **changes):
    return replace(certificate, duals=tuple(replace(d, **changes) for d in certificate.duals))


TAMPERINGS = {
    "a lower bound": lambda c: replace(c, upper_bound=c.score - 1e-6),
    "a bound that is no number": lambda c: replace(c, upper_bound=float("nan")),
    "a higher score": lambda c: replace(c, score=c.score + 1e-6),
    "another floor": lambda c: replace(c, floor=9.0),
    "a floor that is no number": lambda c: replace(c, floor=float("nan")),
    "a generous tolerance": lambda c: replace(c, tolerance=1.0),
    "another set": lambda c: replace(c, indices=(0, *c.indices[1:])),
    "a smaller set": lambda c: replace(c, indices=c.indices[1:]),
    "a leaf left out": lambda c: replace(c, leaves=c.leaves[1:]),
    "no leaves": lambda c: replace(c, leaves=()),
    "a leaf twice": lambda c: replace(c, leaves=c.leaves + c.leaves[:1]),
    "a leaf without multipliers": lambda c: altered(c, dual=None),
    "multipliers that are not there": lambda c: altered(c, dual=len(c.duals)),
    "multipliers of elsewhere": lambda c: altered(c, depth=1),
    "an impossible depth": lambda c: altered(c, depth=-1),
    "y set to 0": lambda c: with_dual(c, y=0.0 * c.duals[0].y),
    "M made negative": lambda c: replace(
        c, duals=tuple(replace(d, nonnegative=d.nonnegative - 1) for d in c.duals)
    ),
    "infinite M": lambda c: replace(
        c, duals=tuple(replace(d, nonnegative=d.nonnegative + np.inf) for d in c.duals)
    ),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_tampered_certificate_is_refused(tampering):
    matrix, _, certificate = proved()
    with pytest.raises(UserError):
        check_certificate(matrix, TAMPERINGS[tampering](certificate))


def test_a_limit_that_is_loosened_afterwards_is_refused_by_the_proof():
    matrix, selection, _ = proved()
    few = count_limit(selection.indices, 24, name="few", at_most=3)
    certificate = certify(matrix, select(matrix, 8, limits=[few]))
    check_certificate(matrix, certificate)
    loosened = replace(certificate, limits=(replace(few, at_most=8.0),))
    with pytest.raises(UserError, match=r"leaf .* does not prove"):
        check_certificate(matrix, loosened)


def test_candidates_that_are_exchanged_afterwards_are_refused_by_the_proof():
    matrix, selection, _ = proved()
    out = selection.indices[-1]
    others = [row for row in range(24) if row != out]
    certificate = certify(matrix, select(matrix, 8, candidates=others))
    spare = next(row for row in others if row not in certificate.indices)
    forged = tuple(sorted({*others, out} - {spare}))
    with pytest.raises(UserError, match=r"leaf .* does not prove"):
        check_certificate(matrix, replace(certificate, candidates=forged))


def test_a_certificate_proves_nothing_of_another_matrix():
    matrix, selection, certificate = proved()
    better = matrix.copy()
    outsiders = [row for row in range(24) if row not in selection.indices][:8]
    better[np.ix_(outsiders, outsiders)] += 2
    with pytest.raises(UserError, match=r"leaf .* does not prove"):
        check_certificate(better, certificate)


def test_a_damaged_file_is_a_user_error_at_every_length(tmp_path):
    path = save_certificate(tmp_path / "proof.safetensors", proved()[2])
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            load_certificate(path)
    with pytest.raises(UserError, match="no such file"):
        load_certificate(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("paths", "whole"),
    [
        ([()], True),
        ([(0,), (~0,)], True),
        ([(0,), (~0, 2), (~0, ~2)], True),
        ([], False),
        ([(0,)], False),
        ([(0,), (~1,)], False),
        ([(0,), (~0,), (~0,)], False),
        ([(), (0,), (~0,)], False),
        ([(0, 0), (0, ~0), (~0,)], False),
        ([(3,), (~3,)], False),
    ],
)
def test_leaves_cover_all_sets_or_not(paths, whole):
    assert covers(paths, 3) == whole


def test_an_optimum_means_what_it_says():
    matrix, selection, certificate = proved()
    assert certificate.score == pytest.approx(mean(matrix, selection.indices), rel=1e-12)
    assert certificate.upper_bound - certificate.score <= certificate.tolerance
