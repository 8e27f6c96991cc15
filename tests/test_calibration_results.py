"""What the report says of calibration follows from the tables, and holes in them stay silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_homogeneity_pairs import analysed

from realign_utils.calibration_results import (
    FILES,
    by_pool_shown,
    pairs_sentence,
    pairs_shown,
    quality_sentence,
    quality_shown,
    read_calibration,
    transfer_shown,
    with_reach,
)
from realign_utils.calibration_sets import BY_POOL
from realign_utils.errors import UserError
from realign_utils.homogeneity_pairs import PAIRS
from realign_utils.proxy_quality import QUALITY


def pairs(**causes: float) -> pd.DataFrame:
    return analysed(1, **causes).reset_index()


def test_a_missing_table_is_named_with_the_notebook_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"calibration_by_pool.csv is missing: run 4_calibrate"):
        read_calibration(tmp_path)


def test_tables_survive_their_files(tmp_path: Path) -> None:
    for name in FILES.values():
        pairs(by_kind=0.0, by_capacity=0.05).to_csv(tmp_path / f"{name}.csv", index=False)
    found = read_calibration(tmp_path).pairs
    text = pairs_sentence(found, "proxy", "biased")
    assert "at equal capacity models of one mechanism are not, or hardly, more alike" in text
    assert pairs_shown(found)["verdict"].tolist() == ["does not hold"]


def test_the_sentence_on_homogeneity_follows_the_verdict() -> None:
    text = pairs_sentence(pairs(by_kind=0.08, by_capacity=0.05), "proxy", "biased")
    assert "models of one mechanism are more alike than their capacities explain" in text
    nothing = pd.DataFrame(columns=PAIRS)
    assert "nothing to compare" in pairs_sentence(nothing, "proxy", "biased")
    assert pairs_shown(nothing).empty
    assert transfer_shown(nothing).empty


def test_a_number_without_an_interval_stands_alone_and_an_unknown_one_is_left_out() -> None:
    assert with_reach(0.5, 0.4, 0.6) == "0.50 (0.40 to 0.60)"
    assert with_reach(0.5, np.nan, np.nan) == "0.50"
    assert with_reach(np.nan, 0.4, 0.6) == ""


def test_an_end_just_below_zero_has_the_digits_that_show_it() -> None:
    assert with_reach(0.5, -0.0004, 1.0, 3) == "0.500 (−0.0004 to 1.000)"
    assert with_reach(0.5, 0.0004, 1.0, 3) == "0.500 (0.000 to 1.000)"
    assert with_reach(0.5, -1e-12, 1.0, 3) == "0.500 (−0.000000 to 1.000)"


def test_without_an_error_from_models_that_from_images_stands_with_an_asterisk() -> None:
    rows = [
        (
            "all",
            9,
            "p",
            "q",
            "optimised",
            99,
            measure,
            0.5,
            np.nan,
            np.nan,
            0.4,
            0.6,
            np.nan,
            np.nan,
        )
        for measure in ("spearman", "kendall", "slope", "ratio")
    ]
    shown = by_pool_shown(pd.DataFrame(rows, columns=BY_POOL), "p")
    assert shown["rank correlation"].tolist() == ["0.50 (0.40 to 0.60)*"]
    assert shown["ratio"].tolist() == ["0.500 (0.400 to 0.600)*"]


def test_the_best_proxy_and_those_surely_behind_are_named() -> None:
    rows = [
        (
            *(name, role, 8, 4, n, 40, "q", 99, value, 0.1, 0.9, 0.2, 0.8, odd, np.nan, behind),
            *(0.01, 2.0, p, 0.7, 0.8),
        )
        for name, role, n, value, behind, p, odd in (
            ("good", "proxy", 500, 0.8, 0.0, 1.0, "m1"),
            ("bad", "proxy", 500, 0.3, 1.0, 0.01, "m2"),
            ("fair", "proxy", 500, 0.7, 0.1, 0.06, "m1"),
            ("good", "subset", 50, 0.6, np.nan, np.nan, np.nan),
        )
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=QUALITY)
    text = quality_sentence(table)
    assert "`good` ranks sets most as `q` does" in text
    assert "with all 2 others considered together: `bad`." in text
    assert "Surely behind it: `bad`." in quality_sentence(table[table["proxy"] != "fair"])
    assert "With 50 instead of 500 images `good` has 0.60 instead of 0.80." in text
    assert "The model that matters most is `m1`, for 2 of the 3 proxies." in text
    behind = quality_shown(table)["behind"].tolist()
    assert behind == ["the best", "surely", "not surely"]
    assert quality_shown(table)["groups"].tolist() == [40] * 3
    assert "groups" not in quality_shown(table.assign(groups=table["images"]))
