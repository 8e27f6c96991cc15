from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest

from realign_utils.findings import findings
from realign_utils.intervals import VERDICTS
from realign_utils.results import Results

OPTIONS = {
    "reference_proxy": "fine",
    "proxies": ["fine", "coarse"],
    "estimator": "biased",
    "highlight": "S4",
    "contrast": "S1",
}
SCORES = {
    "fine": {"S1": 0.7, "S2": 0.6, "S4": 0.8},
    "coarse": {"S1": 0.96, "S2": 0.8, "S4": 0.9},
    "evaluation": {"S1": 0.6, "S2": 0.65, "S4": 0.7},
}
FINDINGS = {
    "overestimates": "The coarse proxy",
    "families": "coarse inflates",
    "ranks": "fine ranks",
    "best": "S4 has the best",
    "homogeneous": "Homogeneous sets",
    "flat": "The greedy trajectory",
}


def make_results(scores=SCORES, reach=0.01, held_out=True, family_reach=0.01):
    """A run with these scores, of which every mean and difference is known to ± reach."""
    names = list(scores["fine"])
    sets = [s for s in scores if held_out or s != "evaluation"]
    calibration = pd.DataFrame({s: scores[s] for s in sets})
    calibration["real"], calibration["portal_set"] = pd.Series(scores["evaluation"]), True
    intervals = [
        (s, "biased", n, v, v - reach, v + reach) for s in sets for n, v in scores[s].items()
    ]
    differences = [
        (s, "biased", a, b, gap := scores[s][a] - scores[s][b], gap - reach, gap + reach)
        for s in sets
        for a, b in combinations(names, 2)
    ]
    families = [
        ("f", s, m, m - family_reach, m + family_reach) for s, m in (("fine", 0.7), ("coarse", 0.8))
    ]
    empty = pd.DataFrame()
    ends = ["low", "high"]
    return Results(
        submissions=pd.DataFrame({"mechanisms": 2}, index=names),
        calibration=calibration,
        agreement=pd.Series({"fine": 1.0, "coarse": 0.5}),
        families=pd.DataFrame(
            families, columns=["family", "images", "mean", "images_low", "images_high"]
        ),
        intervals=pd.DataFrame(
            intervals, columns=["images", "estimator", "submission", "mean", *ends]
        ),
        differences=pd.DataFrame(
            differences, columns=["images", "estimator", "first", "second", "difference", *ends]
        ),
        curves=empty,
        measures=empty,
        trajectories=pd.DataFrame(columns=["submission", "size", "mean_similarity", "stage"]),
        tables={},
        features=empty,
        failures=empty,
        dropped=empty,
        device="cpu",
        record={},
    )


def verdict_of(results, finding):
    table = findings(results, **OPTIONS)
    return table.loc[table["finding"].str.startswith(FINDINGS[finding]), "verdict"].item()


def changed(images, **values):
    return SCORES | {images: SCORES[images] | values}


def test_every_verdict_is_a_known_one():
    assert set(findings(make_results(), **OPTIONS)["verdict"]) <= set(VERDICTS)


@pytest.mark.parametrize(
    ("s4", "verdict"),
    [
        (0.7, "holds"),
        (0.655, "too close to call"),
        (0.645, "too close to call"),
        (0.6, "does not hold"),
    ],
)
def test_the_best_is_the_best_only_by_more_than_the_interval(s4, verdict):
    assert verdict_of(make_results(changed("evaluation", S4=s4)), "best") == verdict


def test_a_lead_is_told_with_its_interval():
    table = findings(make_results(), **OPTIONS)
    assert "lead over S2 0.0500 (95 %: 0.0400 to 0.0600)" in table["here"][3]
    behind = findings(make_results(changed("evaluation", S4=0.6, S1=0.7)), **OPTIONS)
    assert "lead over S1 -0.1000 (95 %: -0.1100 to -0.0900)" in behind["here"][3]


@pytest.mark.parametrize(("reach", "verdict"), [(0.01, "holds"), (0.06, "too close to call")])
def test_homogeneous_sets_score_higher_only_if_all_surely_do(reach, verdict):
    assert verdict_of(make_results(reach=reach), "homogeneous") == verdict


def test_without_mechanisms_to_mix_there_is_no_diverse_set():
    results = make_results()
    results.submissions["mechanisms"] = 1
    assert verdict_of(results, "homogeneous") == "not testable"


@pytest.mark.parametrize(
    ("coarse", "verdict"), [(0.8, "holds"), (0.66, "too close to call"), (0.6, "does not hold")]
)
def test_a_proxy_overestimates_only_beyond_both_intervals(coarse, verdict):
    assert verdict_of(make_results(changed("coarse", S2=coarse)), "overestimates") == verdict


@pytest.mark.parametrize(("reach", "verdict"), [(0.05, "holds"), (0.08, "too close to call")])
def test_families_are_inflated_only_beyond_both_intervals(reach, verdict):
    assert verdict_of(make_results(family_reach=reach), "families") == verdict


@pytest.mark.parametrize(
    ("fine", "verdict"),
    [
        (0.5, "holds"),
        (0.595, "too close to call"),
        (0.605, "too close to call"),
        (0.7, "does not hold"),
    ],
)
def test_a_proxy_ranks_better_only_if_the_order_is_sure(fine, verdict):
    # the coarse proxy is wrong about S1 and S2 alone; the fine one is right if S1 is below 0.6
    scores = changed("fine", S1=fine) | {"coarse": SCORES["coarse"] | {"S1": 0.85}}
    assert verdict_of(make_results(scores), "ranks") == verdict


def test_the_portal_s_scores_are_taken_as_they_are():
    results = make_results(changed("evaluation", S4=0.6501), held_out=False)
    assert verdict_of(results, "best") == "holds"
    assert "95 %" not in findings(results, **OPTIONS)["here"][3]


def test_only_sets_that_the_portal_scored_are_compared():
    results = make_results(held_out=False)
    results.calibration["portal_set"] = False
    verdicts = findings(results, **OPTIONS).set_index("finding")["verdict"]
    assert (verdicts.drop("coarse inflates CKA over fine in every family") == "not testable").all()


def test_other_estimators_intervals_play_no_part():
    results = make_results()
    wide = results.differences.assign(estimator="debiased", low=-1.0, high=1.0)
    both = pd.concat([wide, results.differences])
    results = make_results().__class__(**{**vars(results), "differences": both})
    assert verdict_of(results, "best") == "holds"


@pytest.mark.parametrize(("fall", "verdict"), [(0.001, "holds"), (0.01, "does not hold")])
def test_the_trajectory_is_flat_up_to_the_paper_s_precision(fall, verdict):
    results = make_results()
    results.trajectories[["submission", "size", "mean_similarity", "stage"]] = [
        ("S4", size, 0.9 - fall * (size > 12), "greedy") for size in range(2, 21)
    ]
    assert verdict_of(results, "flat") == verdict
