"""The table of claims, the rule that judges them, and the scorecard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_world import write_world

from realign_utils.claims import COLUMNS, QUANTITIES, judge, read_claims, scorecard, show_claim
from realign_utils.claims_evidence import OVER, Difference, Evidence, Study, untestable
from realign_utils.claims_shown import (
    MOST,
    RUN,
    TOOL,
    against_sentence,
    all_of,
    chance_sentence,
    composition_sentence,
    counts,
    counts_sentence,
    published_text,
    scorecard_shown,
    statements,
)
from realign_utils.errors import UserError
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE, VERDICTS

ROW = dict.fromkeys(COLUMNS, "x") | {
    "settled_by": "run",
    "relation": "equal",
    "published": 1,
    "tolerance": 0,
    "headline": "",
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
    pd.DataFrame([ROW | {"headline": "first"}]).to_csv(path, index=False)
    with pytest.raises(UserError, match="headline of the claim 'x' is 'first'; a rank or nothing"):
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
    unknown = [Difference(1, np.nan, np.nan), Difference(0.15, 0.1, 0.2)]
    assert judge("greater than", 0.0, 0.0, found(1.0, 0.1, comparisons=unknown)) == UNTESTABLE


def several(*values: float, reach: float = 0.1, **rest) -> Evidence:
    each = [Difference(value, value - reach, value + reach, **rest) for value in values]
    return found(min(values), reach, comparisons=each)


def test_several_comparisons_are_judged_together() -> None:
    values = {HOLDS: [1, 1], CLOSE: [1, 0.05], FAILS: [1, -1]}
    for verdict, each in values.items():
        assert judge("greater than", 0.0, 0.0, several(*each)) == verdict


@pytest.mark.parametrize("shift", [-0.5, 0.0, 2.0])
def test_several_comparisons_are_set_against_the_published_number(shift: float) -> None:
    for value, verdict in ((0.3, HOLDS), (0.05, CLOSE), (-0.3, FAILS)):
        assert judge("greater than", shift, 0.0, several(shift + value, shift + 1)) == verdict


def test_a_match_within_the_margin_holds_and_to_exceed_takes_the_margin() -> None:
    assert judge("at least", 0.0, 0.01, several(0.0, reach=0.005)) == HOLDS
    assert judge("at least", 0.0, 0.01, several(-0.02, reach=0.005)) == FAILS
    assert judge("greater than", 0.0, 0.01, several(0.008, reach=0.005)) == CLOSE


def test_equal_exact_numbers_match_but_do_not_lead() -> None:
    equal = several(0.0, reach=0.0, exact=True)
    assert judge("at least", 0.0, 0.0, equal) == HOLDS
    assert judge("greater than", 0.0, 0.0, equal) == FAILS


@pytest.mark.parametrize("relation", ["equal", "agrees with", "at most", "less than"])
def test_a_relation_that_comparisons_cannot_judge_is_refused(relation: str) -> None:
    with pytest.raises(UserError, match="unknown relation of several comparisons"):
        judge(relation, 0.0, 0.0, several(1.0))


def test_rounding_keeps_the_order_so_bounds_that_touch_zero_do_not_hold_it() -> None:
    assert judge("greater than", 0.0, 0.0, several(0.01, reach=0.01, exact=True)) == HOLDS
    assert judge("greater than", 0.0, 0.0, several(-0.01, reach=0.01, exact=True)) == FAILS
    assert judge("greater than", 0.0, 0.0, several(0.009, reach=0.01, exact=True)) == CLOSE


def test_the_range_of_a_few_permutations_does_not_fail_one_of_three_statements() -> None:
    three = [Difference(v, v - 0.1, v + 0.1, p=0.05) for v in (1, 1, -1)]
    assert judge("greater than", 0.0, 0.0, found(-1.0, 0.1, comparisons=three)) == CLOSE


@pytest.mark.parametrize(("value", "verdict"), [(1.0, HOLDS), (1.25, HOLDS), (1.4, FAILS)])
def test_a_number_agrees_if_a_part_of_its_interval_does(value: float, verdict: str) -> None:
    assert judge("agrees with", 1.0, 0.1, found(value, 0.2)) == verdict


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


def test_every_interval_says_what_it_is_over(card: pd.DataFrame) -> None:
    assert set(card.loc[card["low"].notna(), "over"]) <= set(OVER)
    assert (card.loc[card["low"].isna(), "over"] == "").all()
    assert card["over"]["best_here"] == "images"
    for claim in ("hybrids_lead_here", "within_above_across", "reference_underestimates_vit"):
        assert card["over"][claim] == "images and models"


def test_statements_are_counted_once_for_each_kind_of_evidence(card: pd.DataFrame) -> None:
    table, ours = counts(card), card[card["topic"] != TOOL]
    by_run = ours["settled_by"] == "run"
    assert table.loc[RUN, "statements"] == ours.loc[by_run, "statement"].nunique()
    assert table["statements"].sum() == len(statements(card))
    assert (table.drop(columns="statements").sum(axis=1) == table["statements"]).all()
    text = counts_sentence(card)
    assert text.startswith(f"Of {ours['statement'].nunique()} statements of the paper, ")
    assert f"; {table.loc[RUN, 'statements']} are put to this run: " in text
    kinds = ours.assign(kind=ours["settled_by"] == "run").query("settled_by != 'nothing here'")
    twice = (kinds.groupby("statement")["kind"].nunique() == 2).sum()
    assert text.endswith(f" {twice} of them are judged both ways.")


def test_one_statement_of_an_outcome_is_told_in_the_singular(card: pd.DataFrame) -> None:
    ours = statements(card).xs(RUN, level=1).index[:3]
    few = card[(card["settled_by"] == "run") & card["statement"].isin(ours)].copy()
    for verdict, told in ((HOLDS, "1 holds, 2 do not"), (FAILS, "2 hold, 1 does not")):
        first = few["statement"] == ours[0]
        few["verdict"] = np.where(first, verdict, FAILS if verdict == HOLDS else HOLDS)
        assert f": {told}." in counts_sentence(few)


def test_checks_of_the_tool_are_not_counted(card: pd.DataFrame) -> None:
    tool = card[card["topic"] == TOOL]
    assert {"invariance", "near_optimal", "cluster_tight", "registry_size"} == set(tool.index)
    assert set(statements(card).index.get_level_values(0)).isdisjoint(tool["statement"])


def test_a_statement_holds_only_if_all_its_rows_do() -> None:
    assert all_of([HOLDS, HOLDS]) == HOLDS
    assert all_of([HOLDS, CLOSE]) == CLOSE
    assert all_of([CLOSE, HOLDS, UNTESTABLE]) == UNTESTABLE
    assert all_of([UNTESTABLE, FAILS]) == FAILS


def test_the_abstract_names_the_most_important_that_fail_and_counts_the_rest(card) -> None:
    failing = card.assign(verdict=FAILS)
    text = against_sentence(failing)
    first = failing.sort_values("headline")["text"].iloc[0]
    assert text.count("“") == MOST
    assert f"“{first}”" in text
    assert f"{len(statements(failing)) - MOST} more do not hold" in text
    assert against_sentence(card.assign(verdict=HOLDS)) == "None came out against the paper."
    assert against_sentence(card.assign(verdict=HOLDS), CLOSE) == ""


def test_where_nothing_important_fails_the_abstract_still_says_how_many_do(card) -> None:
    one = card.assign(verdict=HOLDS)
    one.loc["most_dimensions", "verdict"] = FAILS
    assert "One more does not hold" in against_sentence(one)


def test_the_errors_by_chance_are_counted_over_the_run_s_intervals(card: pd.DataFrame) -> None:
    settled = card[(card["topic"] != TOOL) & (card["settled_by"] == "run")]
    sure = settled[settled["verdict"].isin([HOLDS, FAILS])]["low"].notna().sum()
    assert f"up to {sure * 0.05:.1f} of the {sure}" in chance_sentence(card)


def test_sets_that_share_most_of_their_models_are_named(tmp_path: Path) -> None:
    study = write_world(tmp_path, sets={"S1": ["c0", "c1", "c2", "v0"]})
    text = composition_sentence(study)
    assert "S1 (3 convolution, 1 attention)" in text
    assert text.endswith("S1 shares 3 of its 4 models with S4.")
    two = composition_sentence(study, ["S2", "S3"])
    assert two == "Models by mechanism: S2 (4 attention), S3 (4 hybrid)."


def test_every_claim_is_in_one_of_the_report_s_tables(card: pd.DataFrame) -> None:
    shown = [scorecard_shown(card, topic) for topic in card["topic"].unique()]
    assert sum(map(len, shown)) == len(card)


def test_the_statements_are_named_by_what_the_paper_says_and_no_row_is_a_straw_man() -> None:
    texts = read_claims()["text"]
    assert texts["s4_lowest_average"] == "No per-model average of S4 is below 0.73"
    assert "20 models" not in texts["s4_homogeneous"]


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
