"""The paper's claims on a run: in made-up worlds, verdicts are what the world is made to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from claims_world import SUBMISSIONS, write_world

from realign_utils.claims import QUANTITIES, judge, read_claims, scorecard
from realign_utils.claims_evidence import WRITTEN_BY, Evidence, Study
from realign_utils.claims_trail import examples, producing_cell, trail
from realign_utils.errors import UserError
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE

MIXED_WINS = {"evaluation": {"c": 0.6, "v": 0.6, "h": 0.6, "across": 0.8}}
NO_COARSE = {"coarse": {"c": 0.5, "v": 0.5, "h": 0.5, "across": 0.5}}


def verdict_of(study: Study, claim: str) -> str:
    return judged(study, claim)[0]


def judged(study: Study, claim: str) -> tuple[str, Evidence]:
    row = read_claims().loc[claim]
    evidence = QUANTITIES[row["quantity"]](study, row["of"])
    return judge(row["relation"], row["published"], row["tolerance"], evidence), evidence


@pytest.mark.parametrize(
    ("claim", "levels", "verdict"),
    [
        ("coarse_overestimates", {}, HOLDS),
        ("coarse_overestimates", NO_COARSE, FAILS),
        ("coarse_inflates", {}, HOLDS),
        ("coarse_inflates", NO_COARSE, FAILS),
        ("reference_predicts_better", {"coarse": {"across": 0.97}}, HOLDS),
        ("reference_predicts_better", {"fine": {"across": 0.97}}, FAILS),
        ("reference_calibrates_better", {}, HOLDS),
        ("reference_calibrates_better", {"coarse": {"c": 0.82, "v": 0.78, "h": 0.8}}, FAILS),
        ("reference_underestimates_vit", {}, HOLDS),
        ("reference_underestimates_vit", {"evaluation": {"v": 0.6}}, FAILS),
        ("reference_calibrates_cnn", {}, HOLDS),
        ("reference_calibrates_cnn", {"evaluation": {"c": 0.5}}, FAILS),
        ("homogeneous_beats_mixed", {}, HOLDS),
        ("homogeneous_beats_mixed", MIXED_WINS, FAILS),
        ("best_here", {}, HOLDS),
        ("best_here", {"evaluation": {"v": 0.9}}, FAILS),
        ("cnn_matches_here", {}, HOLDS),
        ("cnn_matches_here", {"evaluation": {"v": 0.9}}, FAILS),
        ("pools_transfer", {}, HOLDS),
        ("pools_transfer", MIXED_WINS, FAILS),
        ("hybrids_lead_here", {}, HOLDS),
        ("hybrids_lead_here", {"coarse": {"h": 0.7}}, FAILS),
        ("within_above_across", {}, HOLDS),
        ("within_above_across", MIXED_WINS, FAILS),
        ("across_diverges", {}, HOLDS),
        ("across_diverges", {"coarse": {"across": 0.1}}, FAILS),
        ("set_more_even", {}, HOLDS),
        ("reference_calibrates_better", {"evaluation": {"c": 1.2, "v": 1.1, "h": 1.2}}, FAILS),
        ("cluster_tight", {}, HOLDS),
        ("cluster_tight", {"evaluation": {"c": 0.3, "across": 0.75}}, FAILS),
    ],
)
def test_a_world_made_to_say_so_gives_the_verdict(tmp_path, claim, levels, verdict) -> None:
    assert verdict_of(write_world(tmp_path, levels), claim) == verdict


INTERVALS = ["coarse_overestimates", "reference_predicts_better", "reference_underestimates_vit"]
INTERVALS += ["homogeneous_beats_mixed", "within_above_across", "across_diverges"]
INTERVALS += ["hybrids_lead_here", "pools_transfer", "reference_calibrates_better", "best_here"]
INTERVALS += ["coarse_inflates", "reference_calibrates_cnn", "cnn_matches_here", "set_more_even"]


@pytest.mark.parametrize("claim", INTERVALS)
def test_with_little_certainty_it_is_too_close_to_call(tmp_path: Path, claim: str) -> None:
    assert verdict_of(write_world(tmp_path, noise=2.0), claim) == CLOSE


@pytest.mark.parametrize("claim", [*INTERVALS, "reference_ranks_better"])
def test_with_intervals_unknown_it_is_not_testable(tmp_path: Path, claim: str) -> None:
    assert verdict_of(write_world(tmp_path, noise=np.nan), claim) == UNTESTABLE


def test_sets_chosen_on_a_proxy_are_no_evidence_that_it_overestimates(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    assert "S2, S4" in judged(study, "coarse_overestimates")[1].why
    on_coarse = {name: {"proxies": {"coarse": 1.0}} for name in SUBMISSIONS}
    biased = Study(**{**vars_of(study), "submissions": on_coarse})
    assert verdict_of(biased, "coarse_overestimates") == UNTESTABLE


def vars_of(study: Study) -> dict[str, Any]:
    kept = ("runs", "proxies", "reference_proxy", "evaluation", "registry", "submissions")
    kept += ("families", "pools", "highlight", "contrast")
    return {name: getattr(study, name) for name in kept}


def test_a_set_of_two_kinds_is_not_more_even_than_one_whose_pairs_are_all_alike(tmp_path) -> None:
    levels = {"evaluation": {"c": 0.5, "v": 0.5, "h": 0.9, "across": 0.5}}
    study = write_world(tmp_path, levels, sets={"S4": ["c0", "c1", "h0", "h1"]})
    assert verdict_of(study, "set_more_even") == FAILS


@pytest.mark.parametrize("claim", ["homogeneous_beats_mixed", "set_more_even"])
def test_in_the_place_of_a_contrast_of_one_mechanism_stands_the_best_mixed_set(
    tmp_path: Path, claim: str
) -> None:
    study = write_world(tmp_path, sets={"S1": ["c0", "c1", "c2", "c3"]})
    verdict, evidence = judged(study, claim)
    assert verdict == HOLDS
    assert "the best mixed set" in evidence.why
    pools = pd.read_csv(tmp_path / "pools.csv").query("kind != 'mixed'")
    pools.to_csv(tmp_path / "pools.csv", index=False)
    verdict, evidence = judged(write_fresh(study), claim)
    assert (verdict, evidence.why) == (UNTESTABLE, "S1 is not a mixed set here: 4 convolution")


def test_a_mixed_set_that_leads_the_homogeneous_ones_turns_the_verdict(tmp_path: Path) -> None:
    study = write_world(tmp_path, MIXED_WINS, sets={"S1": ["c0", "c1", "c2", "c3"]})
    assert verdict_of(study, "homogeneous_beats_mixed") == FAILS


def test_a_lead_names_what_both_sets_have_in_common(tmp_path: Path) -> None:
    study = write_world(
        tmp_path, sets={"S1": ["c0", "c1", "c2", "v0"], "S3": ["v0", "v1", "h0", "h1"]}
    )
    nearest = "shares 0 of its 4 models with S2, its nearest rival"
    assert nearest in judged(study, "best_here")[1].why


def test_no_set_is_judged_on_the_images_that_chose_its_rival(tmp_path: Path) -> None:
    study = write_world(tmp_path, held_out=False)
    verdict, evidence = judged(study, "set_more_even")
    assert (verdict, evidence.why) == (UNTESTABLE, "S1 was chosen on coarse, the only other images")
    on_coarse = {**vars_of(study), "submissions": SUBMISSIONS | {"S4": {"proxies": {"coarse": 1}}}}
    assert verdict_of(Study(**on_coarse), "cluster_tight") == UNTESTABLE


def test_an_unknown_evaluation_leaves_open_which_proxy_is_nearer(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    path = tmp_path / "family_similarity.csv"
    table = pd.read_csv(path)
    table.loc[table["images"] == "evaluation", ["images_low", "images_high"]] = [-5.0, 5.0]
    table.to_csv(path, index=False)
    assert verdict_of(study, "reference_calibrates_better") == CLOSE
    assert verdict_of(study, "coarse_inflates") == HOLDS


def test_a_homogeneous_pool_is_compared_with_random_pools_of_its_size(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    path = tmp_path / "pools.csv"
    pools = pd.read_csv(path)
    drawn = pools["kind"] == "random"
    pools.assign(candidates=np.where(drawn, 9, 4)).to_csv(path, index=False)
    assert verdict_of(write_fresh(study), "pools_transfer") == UNTESTABLE
    alike = [
        "c0 c1 c2 c3",
        "v0 v1 v2 v3",
        "h0 h1 h2 h3",
        "c0 c1 c2 c3",
        "v0 v1 v2 v3",
        "h0 h1 h2 h3",
    ]
    pools.loc[drawn, "models"] = alike
    pools.to_csv(path, index=False)
    assert verdict_of(write_fresh(study), "pools_transfer") == CLOSE


def test_a_spread_is_compared_with_that_of_as_many_models(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    verdict, evidence = judged(study, "spread_narrow")
    assert verdict == UNTESTABLE
    assert evidence.why == "a spread of 20 models is no measure of one of 4"
    study.__dict__["listed"] = study.listed.head(4)
    assert verdict_of(study, "spread_narrow") == HOLDS


def test_without_a_larger_set_more_images_are_not_tested(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    path = tmp_path / "learning_curve.csv"
    pd.read_csv(path).query("n <= 500").to_csv(path, index=False)
    verdict, evidence = judged(study, "more_images_help")
    assert (verdict, evidence.why) == (UNTESTABLE, "fine has no larger set (parameter `larger`)")


def test_one_submission_that_more_images_do_not_help_is_enough(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    path = tmp_path / "learning_curve.csv"
    curve = pd.read_csv(path)
    curve.loc[(curve["n"] == 2000) & (curve["submission"] == "S2"), "standard_error"] = (
        0.1 / 500**0.5
    )
    curve.to_csv(path, index=False)
    verdict, evidence = judged(study, "more_images_help")
    assert (verdict, round(evidence.value, 9)) == (CLOSE, 0)
    assert "least of 4: S2" in evidence.why


def test_without_held_out_images_what_needs_them_is_not_testable(tmp_path: Path) -> None:
    study = write_world(tmp_path, held_out=False)
    for claim in ("best_here", "across_diverges", "reference_underestimates_vit"):
        assert verdict_of(study, claim) == UNTESTABLE
    assert judged(study, "within_above_across")[1].images == ["coarse"]


@pytest.mark.parametrize(
    ("file", "column", "value", "claim", "verdict"),
    [
        ("homogeneity.csv", "difference", 0.05, "homogeneity_adds", HOLDS),
        ("homogeneity.csv", "difference", 0.01, "homogeneity_adds", CLOSE),
        ("homogeneity.csv", "difference", -0.05, "homogeneity_adds", FAILS),
        ("homogeneity.csv", "by_quality", np.nan, "homogeneity_adds", UNTESTABLE),
        ("prediction_quality.csv", "over_proxy", -0.02, "homogeneity_predicts", HOLDS),
        ("prediction_quality.csv", "over_proxy_high", 0.01, "homogeneity_predicts", CLOSE),
        ("prediction_quality.csv", "error", np.nan, "homogeneity_predicts", UNTESTABLE),
        ("principles.csv", "verdict", FAILS, "classes_matter", FAILS),
        ("principles.csv", "verdict", "confounded", "classes_matter", UNTESTABLE),
        ("principles.csv", "value", np.nan, "low_resolution_suppresses", UNTESTABLE),
        ("submissions.csv", "upper_bound", 0.81, "near_optimal", FAILS),
        ("learning_curve.csv", "standard_error", 0.1, "more_images_help", CLOSE),
    ],
)
def test_another_number_in_a_file_turns_the_verdict(
    tmp_path: Path, file: str, column: str, value: float, claim: str, verdict: str
) -> None:
    study = write_world(tmp_path)
    pd.read_csv(tmp_path / file).assign(**{column: value}).to_csv(tmp_path / file, index=False)
    assert verdict_of(study, claim) == verdict


def test_the_search_s_claims_hold_in_the_world_as_it_is(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    assert {verdict_of(study, c) for c in ("near_optimal", "flat_here", "more_images_help")} == {
        HOLDS
    }
    path = tmp_path / "selection" / "trajectories.csv"
    table = pd.read_csv(path)
    table["mean_similarity"] -= 0.01 * (table["size"] > 12)
    table.to_csv(path, index=False)
    assert verdict_of(write_fresh(study), "flat_here") == FAILS


def write_fresh(study: Study) -> Study:
    return Study(**vars_of(study))


def test_the_scorecard_and_the_table_of_principles_say_the_same(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    row = pd.read_csv(tmp_path / "principles.csv").set_index("number").loc[2]
    verdict, evidence = judged(study, "classes_matter")
    assert (verdict, evidence.why) == (row["verdict"], row["test"])
    assert [evidence.value, evidence.low, evidence.high] == [*row[["value", "low", "high"]]]


def test_the_paper_s_own_numbers_are_tested_where_its_models_are(tmp_path: Path) -> None:
    study = write_world(tmp_path, {"fine": {"c": 0.7613}})
    assert verdict_of(study, "s4_mean_again") == UNTESTABLE
    proxies = {"fine": {"kind": "cifar100"}, "coarse": {"kind": "imagenette"}}
    submissions = SUBMISSIONS | {"S4": SUBMISSIONS["S4"] | {"published_set": True}}
    paper = Study(**{**vars_of(study), "proxies": proxies, "submissions": submissions})
    assert verdict_of(paper, "s4_mean_again") == HOLDS
    assert verdict_of(paper, "s4_imagenette_again") == FAILS
    assert verdict_of(paper, "s4_minimum_again") == FAILS
    verdict, evidence = judged(paper, "s1_optimum_again")  # no submission has `portal: S1`
    assert verdict == UNTESTABLE
    assert evidence.why == "no submission of this profile stands for S1 of the portal"


def test_the_paper_s_own_mean_agrees_if_the_interval_reaches_it(tmp_path: Path) -> None:
    study = write_world(tmp_path, {"fine": {"c": 0.80}}, noise=0.05)
    submissions = SUBMISSIONS | {"S4": SUBMISSIONS["S4"] | {"published_set": True}}
    proxies = {"fine": {"kind": "cifar100"}, "coarse": {"kind": "imagenette"}}
    paper = Study(**{**vars_of(study), "proxies": proxies, "submissions": submissions})
    verdict, evidence = judged(paper, "s4_mean_again")
    assert verdict == HOLDS
    assert evidence.low < 0.7813 < evidence.value


def test_failed_models_are_counted_only_where_all_of_the_registry_were_tried(tmp_path) -> None:
    study = write_world(tmp_path)
    verdict, evidence = judged(study, "three_failed")
    assert (verdict, evidence.why) == (UNTESTABLE, "this run tried 0 of the 141 models")
    models = pd.read_csv("params/registry.csv")["model"]
    tried = pd.DataFrame({"images": "fine", "model": models, "file": "x"})
    for number, expected in ((3, HOLDS), (4, FAILS)):
        tried[number:].to_csv(tmp_path / "features.csv", index=False)
        tried[:number].to_csv(tmp_path / "failures.csv", index=False)
        assert verdict_of(write_fresh(study), "three_failed") == expected


def test_a_set_of_one_pair_has_no_spread(tmp_path: Path) -> None:
    study = write_world(tmp_path, sets={"S4": ["c0", "c1"]})
    for claim in ("spread_narrow", "set_more_even", "cluster_tight"):
        verdict, evidence = judged(study, claim)
        assert (verdict, evidence.why) == (UNTESTABLE, "S4 has one pair only")


# ------------------------------------------------------------------ back to the images


@pytest.mark.parametrize("file", [*WRITTEN_BY])
def test_every_file_of_a_run_has_one_cell_that_writes_it(file: str) -> None:
    whole = {"cka": "cka/x_biased.csv", "submissions": "submissions/S1.csv"}
    whole |= {"selection": "selection/trajectories.csv"}
    notebook = Path("notebooks") / f"{WRITTEN_BY[file]}.ipynb"
    number = producing_cell(notebook, whole.get(file, file))
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    assert "write" in cells[number - 1].source or "save" in cells[number - 1].source
    with pytest.raises(UserError, match="no cell of"):
        producing_cell(notebook, "other.csv")


def test_the_way_back_ends_at_the_images_with_their_hashes(tmp_path: Path) -> None:
    study = write_world(tmp_path)
    card = scorecard(study, read_claims())
    card.to_csv(tmp_path / "scorecard.csv")
    (tmp_path / "images").mkdir()
    for images in ("fine", "coarse", "evaluation"):
        pd.DataFrame({"sha256": ["0"] * 7}).to_csv(tmp_path / "images" / f"{images}.csv")
    chosen = examples(card)
    assert chosen["verdict"].is_unique
    assert len(chosen) > 1
    for _, row in chosen.iterrows():
        steps = trail(row, tmp_path)
        assert steps["step"].tolist()[:3] == ["scorecard", "file", "cell"]
        assert steps["what"].iloc[-1].startswith("7 images, SHA-256 ")
        line = int(steps["where"].iloc[0].rpartition(" ")[2])
        assert (tmp_path / "scorecard.csv").read_text().splitlines()[line - 1].startswith(row.name)
