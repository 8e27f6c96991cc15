"""How firm a choice is, against all sets of small cases."""

from __future__ import annotations

import numpy as np
import pytest
from similarities import all_means, cka_like, mean

from realign_utils.limits import count_limit, include
from realign_utils.search import select
from realign_utils.stability import equally_good, membership, regret_table


def test_membership_is_the_share_of_best_sets_with_each_model():
    matrices = [cka_like(15, seed) for seed in range(6)]
    expected = np.zeros(15)
    for matrix in matrices:
        means = all_means(matrix, 4)
        expected[list(max(means, key=means.get))] += 1 / 6
    assert membership(matrices, 4) == pytest.approx(expected)


def reachable(good, starts):
    """All good sets to which swaps within the good ones lead, by looking at every pair."""
    met, new = {*starts}, [*starts]
    while new:
        rows = new.pop()
        for other in good:
            if other not in met and len({*other} & {*rows}) == len(rows) - 1:
                met.add(other)
                new.append(other)
    return met


@pytest.mark.parametrize("seed", range(4))
def test_equally_good_are_all_sets_that_swaps_lead_to_each_counted_once(seed):
    matrix = cka_like(12, seed)
    selection = select(matrix, 4)
    threshold = selection.score - 0.05
    good = [rows for rows, value in all_means(matrix, 4).items() if value >= threshold]
    found = equally_good(matrix, selection, threshold)
    met = reachable(good, [selection.indices, found.farthest])
    assert found.count >= len(met) > 1
    assert found.count <= len(good)
    assert found.complete
    assert found.farthest in good
    assert found.shared == min(len({*rows} & {*selection.indices}) for rows in met)
    assert found.farthest_score == pytest.approx(mean(matrix, found.farthest))


def test_from_a_set_unlike_the_best_swaps_lead_on():
    """Two blocks of five: any four of the second are as good, and only swaps there find them all."""
    matrix = np.full((10, 10), 0.1)
    matrix[:5, :5] = matrix[5:, 5:] = 0.9
    found = equally_good(matrix, select(matrix, 4), 0.89)
    assert (found.count, found.shared) == (10, 0)


def test_a_set_that_shares_nothing_is_found_though_no_swaps_lead_to_it():
    matrix = np.full((8, 8), 0.1)
    matrix[:4, :4] = matrix[4:, 4:] = 0.9
    matrix[0, 1] = matrix[1, 0] = 0.91
    found = equally_good(matrix, select(matrix, 4), 0.89)
    assert (found.count, found.farthest, found.shared) == (2, (4, 5, 6, 7), 0)


def test_with_the_best_score_for_threshold_a_unique_best_stands_alone():
    matrix = cka_like(20, 4)
    selection = select(matrix, 5)
    found = equally_good(matrix, selection, selection.score)
    assert (found.count, found.complete, found.farthest) == (1, True, selection.indices)


def test_counting_stops_at_the_limit_and_says_so():
    matrix = np.full((12, 12), 0.5)
    found = equally_good(matrix, select(matrix, 5), 0.5, limit=50)
    assert found.count >= 50
    assert not found.complete


def test_limits_are_kept_by_every_equally_good_set():
    matrix = cka_like(12, 3)
    limits = [*include([0], 12), count_limit([1, 2, 3, 4], 12, name="at most 1", at_most=1)]
    selection = select(matrix, 4, limits=limits, candidates=range(11))
    threshold = selection.score - 0.05
    good = [
        rows
        for rows, value in all_means(matrix, 4).items()
        if value >= threshold and 0 in rows and 11 not in rows and len({*rows} & {1, 2, 3, 4}) < 2
    ]
    found = equally_good(matrix, selection, threshold)
    assert 1 < found.count <= len(good)
    assert found.farthest in good


def test_membership_keeps_limits_and_takes_the_worst_of_several_matrices():
    stacks = np.array([[cka_like(15, seed), cka_like(15, seed + 10)] for seed in range(4)])
    shares = membership(stacks, 4, limits=include([14], 15), restarts=5)
    assert shares[14] == 1
    expected = np.zeros(15)
    for first, second in stacks:
        means = all_means(second, 4)
        worst = {s: min(v, means[s]) for s, v in all_means(first, 4).items() if 14 in s}
        expected[list(max(worst, key=worst.get))] += 1 / 4
    assert shares == pytest.approx(expected)


def test_regret_is_what_the_judge_s_own_choice_would_gain():
    proxies = {"low": cka_like(14, 5), "full": cka_like(14, 6)}
    judges = {"low": proxies["low"], "held out": cka_like(14, 7)}
    means = {name: all_means(matrix, 4) for name, matrix in {**proxies, **judges}.items()}
    chosen = {name: max(means[name], key=means[name].get) for name in proxies}
    certain = {name: np.array([[matrix] * 2] * 2) for name, matrix in judges.items()}
    table = regret_table(chosen, judges, certain).set_index(["chosen_on", "judged_on"])
    for (proxy, judge), row in table.iterrows():
        score = means[judge][chosen[proxy]]
        assert row["score"] == pytest.approx(score)
        assert row["optimistic"] == pytest.approx(max(means[judge].values()) - score)
        assert row["regret"] == pytest.approx(row["optimistic"])
    assert table.loc[("low", "low"), "regret"] == pytest.approx(0, abs=1e-12)
    assert table.loc[("low", "low"), "shared"] == 4


def test_among_equal_models_no_choice_is_regretted():
    """Each image adds noise to a similarity of 0.5: the judge's best set is best by chance."""
    regrets = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        images = 0.5 + 0.5 * rng.standard_normal((100, 30, 30))
        images = (images + images.swapaxes(1, 2)) / 2
        orders = np.array([rng.permutation(100).reshape(2, 50) for _ in range(20)])
        halves = images[orders].mean(axis=2)
        choices = {str(first): range(first, first + 5) for first in range(0, 30, 5)}
        table = regret_table(choices, {"judge": images.mean(axis=0)}, {"judge": halves})
        regrets.append(table[["optimistic", "regret"]].mean())
    optimistic, regret = np.mean(regrets, axis=0)
    assert optimistic > 0.02
    assert abs(regret) < 0.2 * optimistic


def test_the_regret_of_a_set_is_not_known_where_the_judge_s_images_chose_it_or_have_no_halves():
    judges = {"a": cka_like(9, 0), "b": cka_like(9, 1), "c": cka_like(9, 2)}
    halves = {name: np.array([[matrix] * 2] * 2) for name, matrix in judges.items()} | {"c": None}
    choices = {"a": (0, 1, 2), "both": (1, 2, 3)}
    table = regret_table(choices, judges, halves, own={"a": ["a"], "both": ["a", "b"]})
    known = table.loc[table["regret"].notna(), ["chosen_on", "judged_on"]]
    assert known.to_numpy().tolist() == [["a", "b"]]
    assert table["score"].notna().all()


def test_one_draw_on_which_a_model_s_cka_is_undefined_does_not_count():
    matrix = cka_like(9, 0)
    halves = np.array([[matrix] * 2] * 3)
    whole = regret_table({"x": (0, 1, 2)}, {"j": matrix}, {"j": halves})
    halves[1, 1, 4] = np.nan
    assert regret_table({"x": (0, 1, 2)}, {"j": matrix}, {"j": halves}).equals(whole)
