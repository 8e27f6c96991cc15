"""The paper's design principles, each in a world where it holds and in one where it does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from worlds import resampled, symmetric

from realign_utils.homogeneity_pairs import PAIRS
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE
from realign_utils.principles import ALIKE, differ, difference_of_levels, principles_table
from realign_utils.set_samples import composed_sets

MECHANISMS = ["convolution"] * 15 + ["attention"] * 15
SETS = composed_sets(MECHANISMS, 5, 300, 0)
FACTS = pd.DataFrame(
    {
        "resolution": [8.0] + [32.0] * 7,
        "classes": [19] * 2 + [8] * 3 + [2] * 3,
        "images": [250] * 8,
    },
    index=["low", "full", "many a", "many b", "many c", "few a", "few b", "few c"],
).assign(groups=8)


def verdicts_of(
    seed: int, *, suppressed: float = 1.0, blind: float = 0.0, ratio: float = 1.0
) -> pd.Series:
    """Verdicts by number in a world of those properties."""
    rng = np.random.default_rng(seed)
    own, kind = rng.normal(0, 0.05, 30), np.array(MECHANISMS) == "attention"
    truth = 0.6 + np.add.outer(own, own)
    both = np.outer(kind, kind)
    matrices = {
        "evaluation": np.where(both, ratio, 1.0) * truth,
        "full": truth,
        "low": np.where(both, suppressed, 1.0) * truth,
    }
    matrices |= {f"many {c}": truth for c in "abc"}
    matrices |= {f"few {c}": truth + symmetric(rng, 30, blind)[0] for c in "abc"}
    compared = {n: resampled(m, 0.005, seed + i) for i, (n, m) in enumerate(matrices.items())}
    roles = {"reference_proxy": "low", "judge": "evaluation", "estimator": "biased"}
    pairs = pd.DataFrame(columns=PAIRS)
    table = principles_table(compared, FACTS, MECHANISMS, SETS, pairs, **roles)
    return table.set_index("number")["verdict"]


def test_low_resolution_that_suppresses_attention_is_found_and_its_reverse_refused() -> None:
    assert verdicts_of(0, suppressed=0.8)[1] == HOLDS
    assert verdicts_of(0, suppressed=1.2)[1] == FAILS


def test_few_classes_that_hide_differences_are_found() -> None:
    assert verdicts_of(1, blind=0.3)[2] == HOLDS
    assert verdicts_of(1, blind=0.0)[2] == CLOSE


def test_one_choice_of_classes_at_a_level_or_another_judge_cannot_test_the_second_principle() -> (
    None
):
    compared = {n: resampled(0.5 + np.eye(30) / 2, 0.01, i) for i, n in enumerate(FACTS.index)}
    compared |= {"evaluation": resampled(0.5 + np.eye(30) / 2, 0.01, 99)}
    roles = {"reference_proxy": "low", "estimator": "biased"}
    pairs = pd.DataFrame(columns=PAIRS)
    single = FACTS.drop(index=["few b", "few c"])
    for facts, judge in ((single, "evaluation"), (FACTS, "low")):
        table = principles_table(compared, facts, MECHANISMS, SETS, pairs, judge=judge, **roles)
        assert table["verdict"][1] == UNTESTABLE
        assert "two random choices" in table["test"][1]


def test_which_classes_were_chosen_is_part_of_the_interval() -> None:
    """Choices that differ among themselves as much as the levels do leave it open."""
    rng = np.random.default_rng(3)
    truth = 0.6 + np.add.outer(own := rng.normal(0, 0.05, 30), own)
    noise = {"many a": 0.02, "many b": 0.3, "few a": 0.1, "few b": 0.4, "evaluation": 0}
    compared = {
        n: resampled(truth + symmetric(rng, 30, size)[0], 0.001, i)
        for i, (n, size) in enumerate(noise.items())
    }
    names = [*noise][:4]
    found = difference_of_levels(compared, names[:2], names[2:], "evaluation", SETS)
    low, high = found.interval(models=False)
    assert low < 0 < high
    assert found.value > 0


def test_ratios_that_differ_hold_either_way_and_equal_ones_do_not() -> None:
    assert verdicts_of(2, ratio=1.2)[4] == HOLDS
    assert verdicts_of(2, ratio=0.8)[4] == HOLDS
    assert verdicts_of(2, ratio=1.0)[4] == FAILS


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.02, 0.03, HOLDS),
        (-0.03, -0.02, HOLDS),
        (-ALIKE / 2, ALIKE / 2, FAILS),
        (ALIKE / 4, ALIKE / 2, FAILS),
        (-0.02, 0.005, CLOSE),
        (np.nan, np.nan, UNTESTABLE),
    ],
)
def test_ratios_differ_only_by_more_than_matters(low: float, high: float, expected: str) -> None:
    assert differ(low, high) == expected


def test_what_there_are_no_images_for_is_not_testable_and_says_what_it_takes() -> None:
    compared = {"low": resampled(0.5 + np.eye(30) / 2, 0.005, 0)}
    roles = {"reference_proxy": "low", "judge": None, "estimator": "biased"}
    pairs = pd.DataFrame(columns=PAIRS)
    table = principles_table(compared, FACTS.loc[["low"]], MECHANISMS, SETS, pairs, **roles)
    assert (table["verdict"] == UNTESTABLE).all()
    assert table["test"].str.startswith("needs").all()
    assert table["value"].isna().all()
