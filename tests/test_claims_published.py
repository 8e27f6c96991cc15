"""The paper's claims against its own figures, tables and appendix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realign_utils.claims import judge, read_claims
from realign_utils.claims_evidence import Study
from realign_utils.claims_published import PUBLISHED
from realign_utils.claims_registry import REGISTRY
from realign_utils.matrices import read_matrix
from realign_utils.search import greedy

BY_NAME = {function.__name__: function for function in (*PUBLISHED, *REGISTRY)}


def verdicts(study: Study) -> pd.Series:
    claims = read_claims()
    claims = claims[claims["quantity"].isin(BY_NAME)]
    return pd.Series(
        {
            row.Index: judge(
                row.relation, row.published, row.tolerance, BY_NAME[row.quantity](study, row.of)
            )
            for row in claims.itertuples()
        }
    )


@pytest.fixture(scope="module")
def outcome() -> pd.Series:
    return verdicts(Study("nowhere"))


CONTRADICTED = ["s4_minimum", "s4_converged", "s4_flat", "cifar_suppresses_attention"]
CONTRADICTED += ["mixed_leads_proxies", "most_dimensions"]


def test_these_and_no_others_are_contradicted_by_the_paper_s_own_figures(outcome) -> None:
    assert set(outcome.index[outcome == "does not hold"]) == set(CONTRADICTED)


def test_numbers_printed_apart_at_one_precision_are_in_that_order(outcome: pd.Series) -> None:
    assert not (outcome == "too close to call").any()
    assert outcome["portal_homogeneous"] == "holds"


def test_what_is_not_published_cannot_be_tested(outcome: pd.Series) -> None:
    assert set(outcome.index[outcome == "not testable"]) == {"red_team", "s4_antialiased"}


def test_the_ratios_of_the_claims_are_the_printed_ones_to_half_a_unit() -> None:
    claims, portal = read_claims(), Study("nowhere").portal
    for name in portal.index:
        row, printed = claims.loc[f"{name.lower()}_ratio"], portal["ratio"][name]
        assert row["published"] == float(printed)
        assert row["tolerance"] == 0.5 * 10 ** -len(printed.partition(".")[2])


def test_the_step_that_the_error_is_set_beside_is_the_least_between_real_scores() -> None:
    real = np.sort(Study("nowhere").portal["real"].astype(float))
    assert read_claims()["published"]["few_images_matter"] == pytest.approx(np.diff(real).min())


def test_the_greedy_trajectory_is_that_of_the_digitised_matrix() -> None:
    _, s4 = read_matrix("params/published/s4_cifar100_cka_digitised.csv")
    first = [0.838, 0.836, 0.815, 0.807, 0.799, 0.795, 0.791, 0.787, 0.783, 0.779]
    last = [0.776, 0.774, 0.772, 0.770, 0.769, 0.766, 0.764, 0.762, 0.7606]
    assert np.allclose(greedy(s4, 20)[1], first + last, atol=5.2e-4)


def altered(**matrix: np.ndarray) -> Study:
    study = Study("nowhere")
    drawn = study.drawn | {name: (study.drawn["S4"][0], each) for name, each in matrix.items()}
    study.__dict__["drawn"] = drawn
    return study


def test_a_matrix_with_the_paper_s_minimum_and_plateau_would_turn_the_verdicts() -> None:
    flat = np.full((20, 20), 0.7613)
    flat[18:, :18] = flat[:18, 18:] = 0.7613
    np.fill_diagonal(flat, 1.0)
    assert (verdicts(altered(S4=flat))[["s4_mean", "s4_converged", "s4_flat"]] == "holds").all()
    dark = Study("nowhere").drawn["S4"][1].copy()
    dark[0, 1] = dark[1, 0] = 0.55
    assert verdicts(altered(S4=dark))["s4_minimum"] == "holds"


@pytest.mark.parametrize(
    ("row", "column", "text", "claim", "verdict"),
    [
        ("S1", "real", "0.69", "s1_ratio", "does not hold"),
        ("S3", "real", "0.60", "portal_homogeneous", "does not hold"),
        ("S3", "real", "0.68", "portal_homogeneous", "too close to call"),
        ("S1", "cifar100", "0.7614", "mixed_leads_proxies", "holds"),
        ("S4", "real", "0.66", "portal_best", "does not hold"),
        ("S1", "imagenette", "0.60", "imagenette_overestimates_s1", "does not hold"),
        ("S3", "cifar100", "0.65", "cifar_suppresses_attention", "holds"),
        ("S2", "cifar100", "0.71", "cifar_calibrates_cnn", "does not hold"),
        ("S2", "imagenette", "0.99", "cifar_ranks_better", "holds"),
    ],
)
def test_another_number_in_the_portal_s_table_turns_the_verdict(
    tmp_path: Path, row: str, column: str, text: str, claim: str, verdict: str
) -> None:
    table = pd.read_csv("params/portal.csv", dtype=str, index_col="submission")
    table.loc[row, column] = text
    study = Study("nowhere")
    study.__dict__["portal"] = table
    assert verdicts(study)[claim] == verdict


def test_bars_of_other_heights_turn_figure_4() -> None:
    study = Study("nowhere")
    bars = study.bars.copy()
    bars.loc["pure ViT"] = [0.80, 0.70]
    study.__dict__["bars"] = bars
    turned = verdicts(study)
    assert (turned[["hybrids_lead", "imagenette_inflates"]] == "does not hold").all()


def test_appendix_a_is_in_the_order_of_the_digitised_matrix() -> None:
    study = Study("nowhere")
    assert tuple(study.listed["model"]) == study.drawn["S4"][0]
