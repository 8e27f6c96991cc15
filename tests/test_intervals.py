from __future__ import annotations

from math import inf, nan

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from realign_utils.claims_scores import gap as difference
from realign_utils.intervals import (
    CLOSE,
    FAILS,
    HOLDS,
    UNTESTABLE,
    Sign,
    call,
    paired_calls,
    ranks_better,
    sure_together,
    verdict,
)


def signed_gap(first: pd.Series, second: pd.Series) -> Sign:
    return difference(first, second).above(0, strict=True)


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0, 0.1, 0)],
)
def test_a_sign_is_called_only_if_the_interval_excludes_zero(low, high, sign):
    assert call(low, high) == sign


@pytest.mark.parametrize("ends", [(nan, nan), (nan, 0.2), (0.1, nan)])
def test_an_interval_that_is_not_known_has_no_sign(ends):
    sign = call(*ends)
    assert np.isnan(sign)
    assert sign != 0
    assert not sign > 0
    assert np.isnan(-sign)


@pytest.mark.parametrize("degrees", [4, 75, inf])
def test_the_error_of_a_sign_is_that_of_the_interval_that_just_excludes_zero(degrees):
    for error in (0.049, 0.01, 1e-4):
        reach = student.ppf(0.975, degrees) / student.ppf(1 - error / 2, degrees)
        sign = call(1 - reach, 1 + reach, degrees)
        assert sign.p == pytest.approx(error)
        assert (-sign == -1, (-sign).p) == (True, sign.p)


@pytest.mark.parametrize(("value", "sign"), [(1e-9, 1), (0, 0)])
def test_an_exact_difference_is_sure(value, sign):
    assert (call(value, value), call(value, value).p) == (sign, 0)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], UNTESTABLE),
        ([1, 1], HOLDS),
        ([1, 0], CLOSE),
        ([1, -1], FAILS),
        ([0, -1], FAILS),
        ([0], CLOSE),
        ([nan], UNTESTABLE),
        ([1, nan], UNTESTABLE),
        ([0, nan], UNTESTABLE),
        ([nan, -1], FAILS),
    ],
)
def test_a_statement_on_several_differences_holds_only_if_all_are_sure(calls, expected):
    assert verdict(calls) == expected


@pytest.mark.parametrize(("count", "expected"), [(1, FAILS), (2, FAILS), (3, CLOSE), (10, CLOSE)])
def test_one_of_many_differences_must_be_the_surer_to_fail_the_more_there_are(count, expected):
    negative, unsure = Sign(-1, 0.02), Sign(0, 0.5)
    assert verdict([negative, *[unsure] * (count - 1)]) == expected


def test_a_statement_on_differences_that_are_all_zero_seldom_fails():
    generator = np.random.default_rng(0)
    gaps = generator.normal(size=(2000, 10))
    found = [verdict(call(gap - 1.96, gap + 1.96) for gap in row) for row in gaps]
    one_sided = found.count(FAILS) / len(found)
    assert 0.01 < one_sided < 0.05  # by the 95 % intervals alone: 22 %


def test_signs_that_are_sure_together_are_holm_s():
    errors = [0.04, 0.01, 0.0, nan, 0.02, 0.012]  # 0, then 0.01 · 5 = 0.05, 0.012 · 4, 0.02 · 3
    signs = [Sign(-1 if not np.isnan(error) else nan, error) for error in errors]
    together = sure_together(signs)
    assert [together[i] for i in (0, 1, 2, 4, 5)] == [0, -1, -1, 0, -1]
    assert np.isnan(together[3])


def gaps_table(**columns):
    """Three submissions; the second difference is not known."""
    frame = {"first": ["1", "1", "2"], "second": ["2", "3", "3"]}
    return pd.DataFrame(frame | {"low": [0.1, nan, -0.2], "high": [0.3, nan, -0.1]} | columns)


def test_calls_go_both_ways_and_only_among_the_named():
    assert paired_calls(gaps_table(), ["1", "2"]) == {("1", "2"): 1, ("2", "1"): -1}
    calls = paired_calls(gaps_table(), ["1", "2", "3"])
    assert calls["3", "2"] == 1
    assert np.isnan([calls["1", "3"], calls["3", "1"]]).all()


def test_few_degrees_of_freedom_make_a_call_less_sure():
    few, many = (paired_calls(gaps_table(degrees=d), ["1", "2"])["1", "2"] for d in (4, 200))
    assert few == many == 1
    assert few.p > 2 * many.p


@pytest.mark.parametrize(("gap", "sign"), [(0.13, 0), (0.15, 1), (-0.15, -1)])
def test_independent_intervals_are_combined_as_independent(gap, sign):
    first = pd.Series({"mean": 0.5 + gap, "low": 0.4 + gap, "high": 0.6 + gap})
    second = pd.Series({"mean": 0.5, "low": 0.4, "high": 0.6})
    assert signed_gap(first, second) == sign  # reach: 0.1 √2


def test_a_mean_without_interval_is_apart_from_none():
    known = pd.Series({"mean": 0.5, "low": 0.4, "high": 0.6})
    unknown = pd.Series({"mean": 0.9, "low": nan, "high": nan})
    assert np.isnan([signed_gap(known, unknown), signed_gap(unknown, known)]).all()


def test_the_fewer_degrees_of_freedom_are_those_of_the_difference():
    ends = {"low": 0.4, "high": 0.6}
    first, second = (pd.Series({"mean": 0.5, "degrees": d} | ends) for d in (4, 200))
    moved = second + pd.Series({"mean": 0.2, "low": 0.2, "high": 0.2, "degrees": 0})
    assert signed_gap(moved, first).p == signed_gap(moved, second.replace(200, 4)).p
    assert signed_gap(moved, first).p > signed_gap(moved, second).p


def test_an_exact_value_has_no_reach():
    exact = pd.Series({"mean": 0.5, "low": 0.5, "high": 0.5})
    assert signed_gap(exact + 1e-6, exact) == 1
    assert signed_gap(exact, exact) == 0


def signs(a, b, c):
    """Of the pairs (1, 2), (1, 3), (2, 3)."""
    return {("1", "2"): a, ("1", "3"): b, ("2", "3"): c}


@pytest.mark.parametrize(
    ("reference", "other", "real", "expected"),
    [
        ((1, 1, 1), (1, 1, -1), (1, 1, 1), HOLDS),
        ((1, 1, -1), (1, 1, 1), (1, 1, 1), FAILS),
        ((1, 1, 1), (1, 1, 1), (1, -1, 1), FAILS),  # not better: alike
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), FAILS),  # alike whatever the truth
        ((1, 1, 1), (1, 1, -1), (1, 1, 0), CLOSE),
        ((1, 1, 0), (1, 1, -1), (1, 1, 1), CLOSE),
        ((1, 1, 1), (-1, -1, 0), (1, 1, 1), HOLDS),
    ],
)
def test_a_proxy_ranks_better_only_if_no_unsure_sign_can_turn_it(reference, other, real, expected):
    assert ranks_better(signs(*reference), signs(*other), signs(*real)) == expected


@pytest.mark.parametrize(("missing", "expected"), [("1", UNTESTABLE), ("3", HOLDS)])
def test_a_sign_that_is_not_known_makes_a_ranking_untestable_if_it_could_turn_it(missing, expected):
    reference, other, real = signs(1, 1, 1), signs(-1, -1, 1), signs(1, 1, 1)
    if missing == "3":
        real = signs(1, 1, nan)  # both proxies agree on it
    else:
        other, real = signs(1, nan, 1), signs(1, 1, 1)
    assert ranks_better(reference, other, real) == expected


@pytest.mark.parametrize(("error", "expected"), [(1e-4, HOLDS), (0.02, CLOSE)])
def test_a_proxy_ranks_better_only_by_signs_that_are_right_together(error, expected):
    reference, other, real = (
        {pair: Sign(sign, error) for pair, sign in signs(*values).items()}
        for values in ((1, 1, 1), (1, 1, -1), (1, 1, 1))
    )
    assert ranks_better(reference, other, real) == expected


def test_of_one_submission_nothing_can_be_ranked():
    assert ranks_better({}, {}, {}) == UNTESTABLE
