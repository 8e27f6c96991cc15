"""How a submission is filled."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realign_utils import objectives
from realign_utils.certificate import check_certificate
from realign_utils.certificate_files import load_certificate
from realign_utils.errors import UserError
from realign_utils.matrices import read_matrix
from realign_utils.objectives import combined_similarity
from realign_utils.registry import members, read_registry
from realign_utils.selection import choose_models, save_proof, summary_row, trajectory_table

ROOT = Path(__file__).parent.parent
POOLS = {"full": "all", "hybrid": "mechanism == 'hybrid'"}
SEARCHED = {"title": "t", "pool": "hybrid", "proxies": {"a": 1.0}}


KNOWN = read_registry(ROOT / "params" / "registry.csv")


@pytest.fixture(scope="module")
def registry() -> pd.DataFrame:
    """The models that have features: not all that are known."""
    return KNOWN.iloc[:60]


@pytest.fixture(scope="module")
def matrices(registry: pd.DataFrame) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    halves = [np.triu(generator.random((len(registry),) * 2), 1) for _ in "ab"]
    return {
        name: half + half.T + np.eye(len(half)) for name, half in zip("ab", halves, strict=True)
    }


def fill(submission, matrices, registry, k=5):
    options = {"restarts": 50, "seed": 0, "pools": POOLS, "reference_proxy": "a"}
    models = list(registry.index)
    return choose_models(submission, matrices, models, KNOWN, k=k, **options)


def test_only_models_of_the_pool_are_chosen(matrices, registry) -> None:
    chosen = fill(SEARCHED, matrices, registry)
    assert set(registry.mechanism[list(chosen.models)]) == {"hybrid"}
    assert chosen.candidates == (registry.mechanism == "hybrid").sum()


def test_the_models_stand_in_the_order_of_their_contribution(matrices, registry) -> None:
    chosen = fill(SEARCHED, matrices, registry)
    rows = [registry.index.get_loc(m) for m in chosen.models]
    contribution = matrices["a"][np.ix_(rows, rows)].sum(axis=0)
    assert (np.diff(contribution) <= 0).all()


def test_the_combination_is_the_weighted_mean(matrices) -> None:
    both = combined_similarity(matrices, {"a": 1.0, "b": 3.0})
    assert np.allclose(both, 0.25 * matrices["a"] + 0.75 * matrices["b"])


def test_a_fixed_list_names_the_models_without_features(matrices, registry) -> None:
    listed = {"title": "t", "models": [*registry.index[:3], KNOWN.index[70]]}
    chosen = fill(listed, matrices, registry)
    assert set(chosen.models) == set(registry.index[:3])
    assert chosen.missing == (KNOWN.index[70],)


def test_a_fixed_list_is_bounded_by_as_many_of_all_models(matrices, registry) -> None:
    listed = {"title": "t", "models": list(registry.index[:3])}
    found = fill(listed, matrices, registry).found
    pairs = combinations(range(len(registry)), 3)
    best = max(matrices["a"][np.ix_(s, s)][np.triu_indices(3, 1)].mean() for s in pairs)
    assert found.upper_bound == pytest.approx(best, abs=1e-8)
    assert found.score < best
    assert not found.optimal


def test_a_pool_with_too_few_survivors_gives_what_there_is_and_names_the_missing(
    matrices, registry
) -> None:
    size = int((registry.mechanism == "hybrid").sum())
    chosen = fill(SEARCHED, matrices, registry, k=size + 3)
    assert len(chosen.models) == size
    assert set(chosen.missing) == set(KNOWN.index[KNOWN.mechanism == "hybrid"]) - set(chosen.models)


def test_fewer_than_two_survivors_are_an_error(matrices, registry) -> None:
    with pytest.raises(UserError, match="fewer than two models have features"):
        fill({"title": "t", "models": list(KNOWN.index[70:75])}, matrices, registry)


def test_members_leaves_out_models_without_features(registry) -> None:
    assert members(KNOWN, [KNOWN.index[70], KNOWN.index[2]], list(registry.index)) == [2]


def test_the_path_ends_at_the_score_of_the_restarts(matrices, registry) -> None:
    fixed = {"title": "t", "models": [*registry.index[:3]]}
    chosen = {"S": fill(SEARCHED, matrices, registry), "L": fill(fixed, matrices, registry)}
    table = trajectory_table(chosen)
    assert table["submission"].unique().tolist() == ["S"]
    assert table[table.stage == "greedy"]["size"].tolist() == [2, 3, 4, 5]
    assert table["mean_similarity"].iloc[-1] == pytest.approx(chosen["S"].found.score)


def test_the_summary_bounds_the_objective_from_above(matrices, registry) -> None:
    chosen = fill(SEARCHED, matrices, registry)
    row = summary_row("S", SEARCHED, chosen, matrices, list(registry.index), KNOWN)
    assert row["objective"] == pytest.approx(row["a"])
    assert row["upper_bound"] >= row["objective"]
    assert row["mechanisms"] == 1


def test_a_better_set_that_the_proof_meets_is_taken(matrices, registry, monkeypatch) -> None:
    best = fill(SEARCHED, matrices, registry)
    pool = members(KNOWN, POOLS["hybrid"], list(registry.index))
    poor = replace(best.found.selection, indices=tuple(pool[:5]), score=0.0)
    monkeypatch.setattr(objectives, "search_within", lambda *_, **__: poor)
    chosen = fill(SEARCHED, matrices, registry)
    assert chosen.models == best.models
    assert chosen.found.selection.indices == chosen.found.certificate.indices
    row = summary_row("S", SEARCHED, chosen, matrices, list(registry.index), KNOWN)
    assert row["agreeing_restarts"] == 0
    path = trajectory_table({"S": chosen})["mean_similarity"]
    assert path.iloc[-1] == chosen.found.score


@pytest.mark.parametrize("objective", ["mean", "worst"])
def test_every_proof_that_is_written_can_be_checked(
    matrices, registry, tmp_path, objective
) -> None:
    both = SEARCHED | {"proxies": {"a": 1.0, "b": 1.0}, "objective": objective}
    chosen = fill(both, matrices, registry)
    path = save_proof(tmp_path / "S", chosen, list(registry.index))
    names, similarity = read_matrix(tmp_path / "S_matrix.csv")
    certificate = load_certificate(path)
    check_certificate(similarity, certificate)
    assert {names[row] for row in certificate.indices} == set(chosen.models)


def test_constraints_are_kept(matrices, registry) -> None:
    free = fill(SEARCHED, matrices, registry).models
    asked = {
        "include": [
            next(m for m in registry.index[registry.mechanism == "hybrid"] if m not in free)
        ],
        "exclude": [free[0]],
        "counts": {"family.str.contains('net')": {"at_most": 1, "at_least": None}},
        "params_m": {"at_most": 300.0, "at_least": None},
    }
    chosen = list(fill(SEARCHED | {"constraints": asked}, matrices, registry).models)
    assert asked["include"][0] in chosen
    assert free[0] not in chosen
    assert registry.family[chosen].str.contains("net").sum() <= 1
    assert registry.params_m[chosen].sum() <= 300


def test_a_model_fixed_in_that_has_no_features_is_told(matrices, registry) -> None:
    asked = SEARCHED | {"constraints": {"include": [KNOWN.index[70]]}}
    with pytest.raises(UserError, match=f"include: '{KNOWN.index[70]}' is not among the 60 models"):
        fill(asked, matrices, registry)
