"""Pools side by side, and homogeneous sets against mixed ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from similarities import all_means, cka_like, mean

from realign_utils import ablation
from realign_utils.ablation import (
    Pool,
    beside_random_pools,
    judge_pools,
    mixing_limits,
    pool_table,
    pools_of,
)
from realign_utils.homogeneity import COLUMNS, WITHIN, homogeneous_against_mixed
from realign_utils.registry import read_registry
from realign_utils.selection_results import homogeneity_shown, pools_sentence, pools_shown

KNOWN = read_registry(Path(__file__).parent.parent / "params" / "registry.csv")
MODELS = list(KNOWN.index[:60])
NAMES = [f"m{row}" for row in range(14)]
MECHANISMS = ["convolution"] * 7 + ["attention"] * 7


def test_the_pools_are_those_large_enough_and_no_two_are_equal() -> None:
    pools = pools_of(KNOWN, MODELS, 5, pools={"same": "all", "own": "params_m < 9"}, families={})
    names = [pool.name for pool in pools]
    assert names[0] == "full registry"
    assert names[-1] == "mixed mechanisms"
    assert "pool same" not in names
    counts = KNOWN.loc[MODELS, "mechanism"].value_counts()
    for mechanism, count in counts.items():
        assert (f"{mechanism} only" in names) == (count >= 5)
    own = next(pool for pool in pools if pool.name == "pool own")
    assert {MODELS[row] for row in own.rows} == set(KNOWN.query("params_m < 9").index) & {*MODELS}


def test_few_and_many_parameters_divide_the_models() -> None:
    few, many = (
        p for p in pools_of(KNOWN, MODELS, 5, pools={}, families={}) if p.kind == "capacity"
    )
    weights = KNOWN.loc[MODELS, "params_m"].to_numpy()
    assert weights[list(few.rows)].max() < weights[list(many.rows)].min()
    assert sorted([*few.rows, *many.rows]) == list(range(60))


def table(matrix: np.ndarray) -> pd.DataFrame:
    mixed = Pool("mixed", "mixed", tuple(range(14)), mixing_limits(MECHANISMS, 4))
    pools = [
        Pool("all", "all", tuple(range(14))),
        Pool("odd", "pool", tuple(range(1, 14, 2))),
        mixed,
    ]
    return pool_table(matrix, pools, NAMES, 4, random_pools=3)


def test_each_pool_has_its_best_set_proved() -> None:
    matrix, means = cka_like(14, 3), all_means(cka_like(14, 3), 4)
    scores = table(matrix).set_index("pool")
    best = {
        "all": max(means.values()),
        "odd": max(v for s, v in means.items() if all(row % 2 for row in s)),
        "mixed": max(v for s, v in means.items() if sum(row < 7 for row in s) == 2),
    }
    for pool, value in best.items():
        assert scores.loc[pool, "score"] == pytest.approx(value)
        assert scores.loc[pool, "proved_optimal"]
        assert scores.loc[pool, "upper_bound"] == pytest.approx(value, abs=1e-8)


def test_random_pools_have_the_sizes_of_the_pools_and_stand_beside_them() -> None:
    matrix = cka_like(14, 3)
    judged = judge_pools(table(matrix), {"a": matrix, "b": cka_like(14, 4)}, NAMES)
    drawn = judged[judged["kind"] == "random"]
    assert drawn["candidates"].tolist() == [7] * 3
    rows = [NAMES.index(name) for name in drawn["models"].iloc[0].split()]
    assert drawn["b"].iloc[0] == pytest.approx(mean(cka_like(14, 4), rows))
    beside = beside_random_pools(judged, ["a", "b"]).set_index("pool")
    assert beside.loc["odd", "random_a"] == pytest.approx(drawn["a"].mean())
    assert np.isnan(beside.loc["all", "random_a"])
    assert beside.loc["odd", "above_a"] == (drawn["a"] < beside.loc["odd", "a"]).sum()
    assert beside["random_pools"].to_dict() == {"all": 0, "odd": 3, "mixed": 0}
    shown = pools_shown(judged, "a", "b")
    assert shown["a"].tolist() == beside["a"].tolist()


def test_the_sentence_tells_pools_above_chance_and_doubles() -> None:
    matrix = np.full((14, 14), 0.2)
    matrix[1::2, 1::2] = 0.9
    matrix[1:8:2, 1:8:2] = 0.95
    judged = judge_pools(table(matrix), {"a": matrix, "b": 1 - matrix}, NAMES)
    text = pools_sentence(judged, "a", "b")
    assert "Above all random pools of their size on a and b: none" in text
    assert "By chance 0.2 of the 1 pools would be" in text
    assert "on a only: odd" in text


def test_a_pool_above_the_average_of_random_pools_but_not_above_all_is_not_named() -> None:
    scores = {"named": 0.7, "random 1": 0.5, "random 2": 0.8, "random 3": 0.5}
    rows = [(name, name.split()[0], 5, score, "x") for name, score in scores.items()]
    judged = pd.DataFrame(rows, columns=["pool", "kind", "candidates", "a", "models"])
    assert "on a: none" in pools_sentence(judged, "a", None)


def test_random_pools_are_searched_as_long_as_the_others(monkeypatch) -> None:
    efforts, plain = [], ablation.select
    monkeypatch.setattr(
        ablation, "select", lambda *a, **o: efforts.append(o["restarts"]) or plain(*a, **o)
    )
    table(cka_like(14, 3))
    assert {*efforts} == {500}


def test_homogeneous_and_mixed_sets_are_equal_on_the_proxy_and_judged_elsewhere() -> None:
    proxy, mechanisms = cka_like(40, 5), ["convolution"] * 20 + ["attention"] * 20
    alike = np.equal.outer(mechanisms, mechanisms)
    judges = {"proxy": proxy, "other": proxy + 0.1 * alike}
    found = homogeneous_against_mixed(proxy, judges, mechanisms, 3, permutations=3)
    found = found.set_index(["mechanism", "judged_on"])
    assert found.columns.tolist() == [name for name in COLUMNS if name not in found.index.names]
    for mechanism in ("convolution", "attention"):
        row = found.loc[(mechanism, "proxy")]
        for kind in ("homogeneous", "mixed"):
            assert row[f"{kind}_sets"] > 1
            assert row[f"{kind}_low"] >= row["level"] - WITHIN - 1e-12
            assert row[f"{kind}_high"] <= row["level"] + WITHIN + 1e-12
        gain = found.loc[(mechanism, "other"), "difference"] - row["difference"]
        # Of three models two are of one kind in a mixed set: one of its three pairs gains, not all.
        assert gain == pytest.approx(0.1 * (1 - 1 / 3))
    assert len(homogeneity_shown(found.reset_index(), "other")) == 2


def world(seed: int, *, better: float, bonus: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Proxy and judge of models that have a quality, and a bonus on the judge for their own kind."""
    rng, mechanisms = np.random.default_rng(seed), ["a"] * 20 + ["b"] * 20
    quality = rng.normal(0, 0.04, 40) + better * (np.arange(40) < 20)
    noise = rng.normal(0, 0.03, (2, 40, 40))
    proxy, judge = 0.5 + np.add.outer(quality, quality) + noise + noise.swapaxes(1, 2)
    return proxy, judge + bonus * np.equal.outer(mechanisms, mechanisms), mechanisms


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_models_that_are_merely_better_do_not_speak_for_homogeneity(seed: int) -> None:
    proxy, judge, mechanisms = world(seed, better=0.05, bonus=0)
    found = homogeneous_against_mixed(proxy, {"judge": judge}, mechanisms, 6, sets=60)
    found = found.set_index("mechanism")
    assert found["difference"]["a"] > 0 > found["difference"]["b"]
    assert not found["in_favour"].any()
    assert found["by_quality"]["a"] > found["by_quality"]["b"]


@pytest.mark.parametrize("better", [0, 0.05])
def test_a_bonus_for_the_own_kind_speaks_for_homogeneity(better: float) -> None:
    proxy, judge, mechanisms = world(3, better=better, bonus=0.04)
    found = homogeneous_against_mixed(proxy, {"judge": judge}, mechanisms, 6, sets=60)
    assert found["in_favour"].all()


def test_one_mechanism_or_few_models_leave_nothing_to_compare() -> None:
    matrix = cka_like(14, 6)
    for mechanisms in (["convolution"] * 14, ["convolution"] * 5 + ["attention"] * 5 + ["mlp"] * 4):
        found = homogeneous_against_mixed(matrix, {"x": matrix}, mechanisms, 4)
        assert found.empty
        assert found.columns.tolist() == COLUMNS
