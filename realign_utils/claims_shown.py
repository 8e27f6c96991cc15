"""The scorecard laid out: its tables and sentences.

A statement of the paper may be judged twice, by the paper's own figures and by a run, and by several
numbers each time; those are rows of one statement. Statements are counted, not rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from realign_utils.claims_evidence import Study, shared_models
from realign_utils.intervals import CLOSE, ERROR, FAILS, HOLDS, UNTESTABLE, VERDICTS
from realign_utils.words import counted

SIGNS = {"equal": "", "agrees with": "≈ ", "at least": "≥ ", "at most": "≤ "}
SIGNS |= {"greater than": "> ", "less than": "< "}
"""Relations of a number that was found to the published one."""
OWN, RUN, NOTHING = "the paper's own figures, tables and registry", "this run", "nothing here"
KINDS = {"own figures": OWN, "registry": OWN, "arithmetic": OWN, "run": RUN, NOTHING: NOTHING}
"""What settles a row, and under which head its statement is counted."""
TOOL = "the tool itself"
"""The topic of rows that check this project rather than the paper; they are not counted."""
MOST = 4
"""Statements that an abstract names."""


def published_text(row: pd.Series) -> str:
    """What the paper says, with the tolerance, such as "0.7613 ± 0.002" or "> 0"."""
    within = f" ± {_number(row['tolerance'])}" if row["tolerance"] >= 5e-5 else ""
    return f"{SIGNS[row['relation']]}{_number(row['published'])}{within}"


def found_text(row: pd.Series) -> str:
    """What was found, with its interval and what that is over; a dash where nothing was."""
    if np.isnan(row["value"]):
        return "–"
    if np.isnan(row["low"]):
        return _number(row["value"])
    ends = f"{_number(row['low'])} to {_number(row['high'])}"
    return f"{_number(row['value'])} ({ends}; {row['over']})"


def _number(value: float) -> str:
    return f"{round(value, 4) + 0.0:g}".replace("-", "−")


def scorecard_shown(card: pd.DataFrame, topic: str) -> pd.DataFrame:
    """The claims of one topic, for a page.

    Returns
    -------
    pandas.DataFrame
        Columns claim (and its place), published, found, by, verdict, why.
    """
    rows = card[card["topic"] == topic]
    return pd.DataFrame(
        {
            "claim": rows["text"] + " (" + rows["place"] + ")",
            "published": [published_text(row) for _, row in rows.iterrows()],
            "found here": [found_text(row) for _, row in rows.iterrows()],
            "by": rows["settled_by"],
            "verdict": rows["verdict"],
            "why": rows["why"],
        }
    ).reset_index(drop=True)


def on_the_paper(card: pd.DataFrame) -> pd.DataFrame:
    """The rows on statements of the paper, with `kind`: under which head they are counted."""
    rows = card[card["topic"] != TOOL]
    return rows.assign(kind=rows["settled_by"].map(KINDS))


def all_of(verdicts: Sequence[str]) -> str:
    """The verdict on a statement from those on its rows: it holds only if all of them do."""
    for outcome in (FAILS, UNTESTABLE, CLOSE):
        if outcome in list(verdicts):
            return outcome
    return HOLDS


def statements(card: pd.DataFrame) -> pd.Series:
    """Verdict by statement and kind of evidence, in the order of the table."""
    groups = on_the_paper(card).groupby(["statement", "kind"], sort=False)
    return groups["verdict"].agg(all_of)


def counts(card: pd.DataFrame) -> pd.DataFrame:
    """How many statements of the paper have which verdict, by what settles them."""
    found = statements(card).reset_index()
    table = pd.crosstab(found["kind"], found["verdict"])
    rows = [kind for kind in (OWN, RUN, NOTHING) if kind in table.index]
    table = table.reindex(index=rows, columns=VERDICTS, fill_value=0)
    table["statements"] = table.sum(axis=1)
    return table.rename_axis("settled by").rename_axis(None, axis=1)


def counts_sentence(card: pd.DataFrame) -> str:
    """How many statements were checked, and how they came out on either kind of evidence."""
    table, number = counts(card), on_the_paper(card)["statement"].nunique()
    parts = []
    for kind, how in (
        (OWN, "are checked on the paper's own figures, tables and registry"),
        (RUN, "are put to this run"),
    ):
        if kind in table.index:
            row = table.loc[kind]
            found = [counted(row[outcome], *w) for outcome, w in _VERBS.items() if row[outcome]]
            parts.append(f"{row['statements']} {how}: {', '.join(found)}")
    if NOTHING in table.index:
        parts.append(f"{table['statements'][NOTHING]} cannot be checked on anything published")
    kinds = statements(card).unstack()
    twice = kinds[[OWN, RUN]].notna().all(axis=1).sum() if {OWN, RUN} <= {*kinds} else 0
    both = f" {twice} of them are judged both ways." if twice else ""
    return f"Of {number} statements of the paper, {'; '.join(parts)}.{both}"


_VERBS = {
    HOLDS: ("holds", "hold"),
    FAILS: ("does not", "do not"),
    CLOSE: ("is too close to call", "are too close to call"),
    UNTESTABLE: ("cannot be tested with these models and images",) * 2,
}


def against_sentence(card: pd.DataFrame, outcome: str = FAILS) -> str:
    """The most important statements with a verdict, `MOST` in all, and how many others have it."""
    found = statements(card)
    total = int((found == outcome).sum())
    if not total:
        return "None came out against the paper." if outcome == FAILS else ""
    named, parts = _most_important(card, outcome), []
    one, many = _OUTCOMES[outcome]
    for kind, where in ((RUN, "on this run"), (OWN, "on the paper's own figures")):
        texts = [f"“{text}”" for by, text in named if by == kind]
        if texts:
            start = f"These {many}" if len(texts) > 1 else f"This {one}"
            parts.append(f"{start} {where}: {'; '.join(texts)}.")
    rest = total - len(named)
    if rest:
        more = f"One more {one}" if rest == 1 else f"{rest} more {many}"
        parts.append(f"{more} ([@tbl:scorecard] and the tables after it).")
    return " ".join(parts)


_OUTCOMES = {
    FAILS: ("does not hold", "do not hold"),
    CLOSE: ("is too close to call", "are too close to call"),
}


def _most_important(card: pd.DataFrame, outcome: str) -> list[tuple[str, str]]:
    """Kind and text of the most important statements with a verdict."""
    rows = on_the_paper(card)
    rows = rows[(rows["verdict"] == outcome) & rows["headline"].notna()].sort_values("headline")
    rows = rows.drop_duplicates(["statement", "kind"]).head(MOST)
    return list(zip(rows["kind"], rows["text"], strict=True))


def chance_sentence(card: pd.DataFrame) -> str:
    """How many of the run's verdicts would be wrong by chance, each having an error of its own."""
    rows = on_the_paper(card)
    rows = rows[(rows["kind"] == RUN) & rows["verdict"].isin([HOLDS, FAILS])]
    sure = int(rows["low"].notna().sum())
    return (
        f"Of the {len(rows)} rows that this run settles either way, {sure} rest on an interval and the "
        f"others on a number as it stands. Each interval has an error of its own, {100 * ERROR:.0f} %, "
        f"whatever the others: up to {sure * ERROR:.1f} of the {sure} would be wrong by chance."
    )


def composition_sentence(study: Study, names: Sequence[str] | None = None) -> str:
    """What sets hold, and which of them are nearly the same: pairs that share most of their models.

    Parameters
    ----------
    study : Study
    names : sequence of str, optional
        Submissions; by default all of the study.
    """
    names = list(names or study.submissions)
    sets = {name: study.members(name) for name in names}
    held = [
        f"{name} ({', '.join(f'{count} {kind}' for kind, count in study.mechanisms(name).items())})"
        for name in names
    ]
    shared = [
        f"{a} shares {shared_models(sets[a], sets[b])} with {b}"
        for a, b in combinations(names, 2)
        if 2 * len(set(sets[a]) & set(sets[b])) > len(sets[a])
    ]
    told = ["Models by mechanism: " + ", ".join(held), *(["; ".join(shared)] if shared else [])]
    return ". ".join(told) + "."
