"""The table of claims, the rule that judges them, and the scorecard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_world import write_world

from realign_utils.claims import (
    COLUMNS,
    QUANTITIES,
    counts,
    judge,
    listed,
    published_text,
    read_claims,
    scorecard,
    scorecard_shown,
    show_claim,
)
from realign_utils.claims_evidence import Evidence, Study, untestable
from realign_utils.errors import UserError
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE, VERDICTS, call

ROW = dict.fromkeys(COLUMNS, "x") | {
    "settled_by": "run",
    "relation": "equal",
    "published": 1,
    "tolerance": 0,
    "quantity": "invariance",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def card(study: Study) -> pd.DataFrame:
    return scorecard(study, read_claims())


# ------------------------------------------------------------------ the table


def test_every_claim_has_a_function_and_every_function_a_claim() -> None:
    assert set(read_claims()["quantity"]) == set(QUANTITIES)


def test_claims_have_names_texts_and_places_of_their_own() -> None:
    claims = read_claims()
    assert claims["text"].is_unique
    assert (claims[["topic", "text", "place"]] != "").all(axis=None)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("quantity", "invarianse", "unknown quantity of the claim 'x' 'invarianse'; did you mean"),
        ("relation", "below", "unknown relation of the claim 'x' 'below'"),
        ("settled_by", "ran", "unknown settled_by of the claim 'x' 'ran'; did you mean 'run'?"),
    ],
)
def test_an_unknown_name_in_the_table_is_one_line(tmp_path: Path, column, value, told) -> None:
    pd.DataFrame([ROW | {column: value}]).to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(UserError) as error:
        read_claims(tmp_path / "claims.csv")
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_a_claim_that_stands_twice_or_lacks_a_column_is_told(tmp_path: Path) -> None:
    path = tmp_path / "claims.csv"
    pd.DataFrame([ROW, ROW]).to_csv(path, index=False)
    with pytest.raises(UserError, match="'x' stands twice"):
        read_claims(path)
    pd.DataFrame([ROW]).drop(columns="place").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"unknown column of .* 'place'"):
        read_claims(path)
    with pytest.raises(UserError, match="is missing"):
        read_claims(tmp_path / "none.csv")


# ------------------------------------------------------------------ the rule


def found(value: float, reach: float | None = None, **rest) -> Evidence:
    ends = {} if reach is None else {"low": value - reach, "high": value + reach}
    return Evidence(value, "", "", **ends, **rest)


@pytest.mark.parametrize("relation", ["equal", "at least", "at most"])
@pytest.mark.parametrize("beyond", [-2, -1, 0, 1, 2])
def test_a_number_holds_up_to_its_tolerance(relation: str, beyond: int) -> None:
    agrees = {"equal": abs(beyond) <= 1, "at least": beyond >= -1, "at most": beyond <= 1}
    verdict = judge(relation, 1.0, 0.1, found(1.0 + 0.1 * beyond))
    assert verdict == (HOLDS if agrees[relation] else FAILS)


@pytest.mark.parametrize(("relation", "sign"), [("greater than", 1), ("less than", -1)])
def test_a_strict_relation_excludes_the_published_number(relation: str, sign: int) -> None:
    verdicts = [judge(relation, 1.0, 0.0, found(1.0 + sign * d)) for d in (1e-9, 0.0, -1e-9)]
    assert verdicts == [HOLDS, FAILS, FAILS]


@pytest.mark.parametrize("relation", ["equal", "at least", "at most", "greater than", "less than"])
@pytest.mark.parametrize("seed", range(20))
def test_of_an_interval_all_must_agree_or_none(relation: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    value, reach = rng.uniform(0.7, 1.3), rng.uniform(0.001, 0.2)
    points = np.linspace(value - reach, value + reach, 1001)
    each = {judge(relation, 1.0, 0.1, found(point)) for point in points}
    verdict = judge(relation, 1.0, 0.1, found(value, reach))
    assert verdict == (each.pop() if len(each) == 1 else CLOSE)


def test_what_is_not_known_is_not_testable() -> None:
    assert judge("equal", 1.0, 0.1, untestable("no images")) == UNTESTABLE
    assert judge("greater than", 0.0, 0.0, found(1.0, np.nan)) == UNTESTABLE
    unknown = [call(np.nan, np.nan), call(0.1, 0.2)]
    assert judge("greater than", 0.0, 0.0, found(1.0, 0.1, calls=unknown)) == UNTESTABLE


def test_several_comparisons_are_judged_together() -> None:
    signs = {HOLDS: [1, 1], CLOSE: [1, 0], FAILS: [1, -1]}
    for verdict, calls in signs.items():
        assert judge("greater than", 0.0, 0.0, found(1.0, 0.5, calls=calls)) == verdict


# ------------------------------------------------------------------ the scorecard


def test_every_claim_gets_a_verdict_and_a_reason(card: pd.DataFrame) -> None:
    assert set(card["verdict"]) <= set(VERDICTS)
    assert (card["why"].str.len() > 5).all()
    assert not card["why"].str.contains(r"nan|\bTrue\b|\bFalse\b|np\.").any()
    assert (card["value"].isna() <= (card["verdict"] == UNTESTABLE)).all()


def test_every_file_that_is_named_is_there(card: pd.DataFrame, study: Study) -> None:
    for file in card.loc[card["value"].notna(), "file"]:
        assert Path(file).is_file() or (Path(study.runs) / file).is_file(), file


def test_what_the_paper_s_own_figures_say_does_not_hang_on_the_run(
    card: pd.DataFrame, tmp_path: Path
) -> None:
    other = scorecard(write_world(tmp_path, noise=0.05, held_out=False), read_claims())
    own = card["settled_by"].isin(["own figures", "registry", "arithmetic"])
    pd.testing.assert_frame_equal(card[own], other[own])


def test_the_counts_add_up(card: pd.DataFrame) -> None:
    table = counts(card)
    assert table.loc["all", "claims"] == len(card) == table["claims"].iloc[:-1].sum()
    assert table.loc["all", FAILS] == len(listed(card, FAILS))
    assert table.loc["run", FAILS] == len(listed(card, FAILS, "run"))


def test_every_claim_is_in_one_of_the_report_s_tables(card: pd.DataFrame) -> None:
    shown = [scorecard_shown(card, topic) for topic in card["topic"].unique()]
    assert sum(map(len, shown)) == len(card)


def test_the_published_number_is_shown_with_its_relation() -> None:
    row = {"relation": "at least", "published": 0.73, "tolerance": 0.002}
    assert published_text(pd.Series(row)) == "≥ 0.73 ± 0.002"
    strict = row | {"relation": "greater than", "published": 0, "tolerance": 0}
    assert published_text(pd.Series(strict)) == "> 0"


def test_a_claim_shown_in_place_says_what_the_scorecard_says(card, study: Study) -> None:
    text = show_claim("s4_minimum", study)._repr_markdown_()
    assert "| 0.55 ± 0.02 | 0.7126 | **does not hold** |" in text
    assert card["why"]["s4_minimum"] in text
    with pytest.raises(UserError, match="unknown claim 's4_minimun'; did you mean 's4_minimum'"):
        show_claim("s4_minimun", study)


def test_a_claim_whose_file_is_missing_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trajectories\.csv is missing: run 3_select first"):
        show_claim("flat_here", Study(tmp_path, highlight="S4", reference_proxy="fine"))
