"""The paper's own figures, recomputed from the digitised matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realign_utils.matrices import read_matrix
from realign_utils.published import quantities, settle
from realign_utils.search import greedy

PARAMS = Path(__file__).parent.parent / "params"


@pytest.fixture(scope="module")
def verdicts() -> pd.DataFrame:
    s4, s1 = (
        read_matrix(PARAMS / "published" / f"{s}_cifar100_cka_digitised.csv")[1]
        for s in ("s4", "s1")
    )
    portal = pd.read_csv(PARAMS / "portal.csv", index_col="submission")
    claims = pd.read_csv(PARAMS / "claims.csv")
    return settle(claims, quantities(s4, s1, portal)).set_index(claims["quantity"])


def test_the_means_of_both_matrices_are_the_published_ones(verdicts: pd.DataFrame) -> None:
    assert verdicts.verdict[["s4_mean", "s1_mean"]].tolist() == ["holds", "holds"]
    assert verdicts.computed["s4_mean"] == pytest.approx(0.761, abs=5e-4)


@pytest.mark.parametrize("quantity", ["s4_minimum", "s4_fall_after_12"])
def test_the_claims_that_the_own_figures_contradict_do_not_hold(verdicts, quantity) -> None:
    assert verdicts.verdict[quantity] == "does not hold"


def test_the_greedy_trajectory_is_that_of_the_digitised_matrix() -> None:
    _, s4 = read_matrix(PARAMS / "published" / "s4_cifar100_cka_digitised.csv")
    first = [0.838, 0.836, 0.815, 0.807, 0.799, 0.795, 0.791, 0.787, 0.783, 0.779]
    last = [0.776, 0.774, 0.772, 0.770, 0.769, 0.766, 0.764, 0.762, 0.7606]
    assert np.allclose(greedy(s4, 20)[1], first + last, atol=5.2e-4)


def test_the_first_three_models_of_figure_6_are_the_paper_s() -> None:
    names, s4 = read_matrix(PARAMS / "published" / "s4_cifar100_cka_digitised.csv")
    first = [names[i].partition(".")[0] for i in np.argsort(-s4.sum(axis=0))[:3]]
    assert first == ["resnetblur50", "cspresnext50", "ecaresnetlight"]


def test_the_ratio_of_s1_is_within_the_rounding_of_its_real_score(verdicts: pd.DataFrame) -> None:
    assert verdicts.verdict["s1_ratio"] == "holds"
    assert round(verdicts.computed["s1_ratio"], 3) == 0.906


@pytest.mark.parametrize(
    ("relation", "value", "verdict"),
    [
        ("equal", 1.1, "holds"),
        ("equal", 1.11, "does not hold"),
        ("at least", 5.0, "holds"),
        ("at least", 0.89, "does not hold"),
        ("at most", 0.0, "holds"),
        ("at most", 1.11, "does not hold"),
    ],
)
def test_a_claim_holds_up_to_its_tolerance(relation: str, value: float, verdict: str) -> None:
    row = {"quantity": "x", "claim": "", "place": "", "relation": relation, "published": 1.0}
    claims = pd.DataFrame([row | {"tolerance": 0.1}])
    assert settle(claims, {"x": value}).verdict[0] == verdict
