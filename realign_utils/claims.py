"""The paper's claims, each with a verdict that is computed: the scorecard.

``params/claims.csv`` says of each claim what the paper publishes and by which quantity it is
judged; a function of `QUANTITIES` finds that quantity in the files of the paper or of a run; one
rule, `judge`, gives the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from realign_utils.claims_alike import ALIKE
from realign_utils.claims_evidence import WRITTEN_BY, Evidence, Study
from realign_utils.claims_proxies import PROXIES
from realign_utils.claims_published import PUBLISHED
from realign_utils.claims_sets import SETS
from realign_utils.errors import UserError, unknown
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE, VERDICTS, verdict

QUANTITIES: Mapping[str, Callable[[Study, str], Evidence]] = {
    function.__name__: function for function in (*PUBLISHED, *PROXIES, *SETS, *ALIKE)
}
"""How each quantity of ``params/claims.csv`` is found."""
SETTLED_BY = ("own figures", "registry", "arithmetic", "run", "nothing here")
COLUMNS = ["claim", "topic", "text", "place", "settled_by", "relation", "published", "tolerance"]
COLUMNS += ["quantity", "of"]
_SIGNS = {"equal": "", "at least": "≥ ", "at most": "≤ ", "greater than": "> ", "less than": "< "}


def read_claims(path: str | Path = "params/claims.csv") -> pd.DataFrame:
    """Read the table of claims and check it.

    Parameters
    ----------
    path : path
        A CSV file with the columns claim (its name), topic, text, place (in the paper), settled_by
        (one of `SETTLED_BY`), relation (equal, at least, at most, greater than, less than),
        published, tolerance, quantity (a name in `QUANTITIES`), of (what the quantity is of).

    Returns
    -------
    pandas.DataFrame
        Indexed by claim.

    Raises
    ------
    UserError
        If the file is missing, or a name is unknown or stands twice, in one line.
    """
    try:
        claims = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    for column in COLUMNS:
        if column not in claims:
            raise unknown(f"column of {path}", column, claims.columns)
    doubles = claims.loc[claims["claim"].duplicated(), "claim"]
    if len(doubles):
        raise UserError(f"{path}: the claim {doubles.iloc[0]!r} stands twice")
    allowed = {"quantity": QUANTITIES, "relation": _SIGNS, "settled_by": SETTLED_BY}
    for column, names in allowed.items():
        for claim, name in zip(claims["claim"], claims[column], strict=True):
            if name not in names:
                raise unknown(f"{column} of the claim {claim!r}", name, names)
    return claims.set_index("claim")


def judge(relation: str, published: float, tolerance: float, evidence: Evidence) -> str:
    """The verdict on a claim.

    Parameters
    ----------
    relation : {"equal", "at least", "at most", "greater than", "less than"}
        Of the number that was found to the published one.
    published, tolerance : float
        Numbers up to `tolerance` beyond the published one still agree.
    evidence : Evidence
        With an interval, the claim holds if all of it agrees, fails if none of it does, and is too
        close to call otherwise. Several comparisons are judged by their calls.

    Returns
    -------
    str
        One of `realign_utils.intervals.VERDICTS`; not testable where there is no number, or no
        interval where there should be one.
    """
    if not np.isfinite(evidence.value):
        return UNTESTABLE
    if evidence.ruled:
        return evidence.ruled
    if evidence.calls is not None:
        return verdict(evidence.calls)
    ends = [evidence.value if end is None else end for end in (evidence.low, evidence.high)]
    if not np.isfinite(ends).all():
        return UNTESTABLE
    low, high = (float(end) - published for end in ends)
    least = {"equal": -tolerance, "at least": -tolerance, "greater than": tolerance}
    most = {"equal": tolerance, "at most": tolerance, "less than": -tolerance}
    lower, upper = least.get(relation, -np.inf), most.get(relation, np.inf)
    slack = 1e-12 if relation in ("equal", "at least", "at most") else -1e-12  # rounding of floats
    if low >= lower - slack and high <= upper + slack:
        return HOLDS
    return FAILS if high < lower - slack or low > upper + slack else CLOSE


def scorecard(study: Study, claims: pd.DataFrame) -> pd.DataFrame:
    """Every claim with what was found and the verdict.

    Parameters
    ----------
    study : Study
        The run.
    claims : pandas.DataFrame
        From `read_claims`.

    Returns
    -------
    pandas.DataFrame
        Indexed by claim: the columns of `claims`, then value, low, high (of the number that was
        found; NaN where there is none), verdict, why, file (that holds the number, below the run's
        folder or in the project), notebook (that wrote it), images (sets of images, by blanks).
    """
    rows = []
    for row in claims.itertuples():
        found = QUANTITIES[row.quantity](study, row.of)
        rows.append(
            {
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "verdict": judge(row.relation, row.published, row.tolerance, found),
                "why": found.why,
                "file": found.file,
                "notebook": WRITTEN_BY.get(found.file.split("/")[0], ""),
                "images": " ".join(found.images),
            }
        )
    found = pd.DataFrame(rows, index=claims.index)
    numbers = found[["value", "low", "high"]].astype(float)
    return pd.concat([claims, found.assign(**numbers)], axis=1)


# ------------------------------------------------------------------ laid out


def published_text(row: pd.Series) -> str:
    """What the paper says, with the tolerance, such as "0.7613 ± 0.002" or "> 0"."""
    within = f" ± {_number(row['tolerance'])}" if row["tolerance"] >= 5e-5 else ""
    return f"{_SIGNS[row['relation']]}{_number(row['published'])}{within}"


def found_text(row: pd.Series) -> str:
    """What was found, with its interval; a dash where nothing was."""
    if np.isnan(row["value"]):
        return "–"
    has_ends = not np.isnan(row["low"])
    ends = f" ({_number(row['low'])} to {_number(row['high'])})" if has_ends else ""
    return f"{_number(row['value'])}{ends}"


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


def counts(card: pd.DataFrame) -> pd.DataFrame:
    """How many claims have which verdict, by what settles them, and in all."""
    table = pd.crosstab(card["settled_by"], card["verdict"])
    rows = [name for name in SETTLED_BY if name in table.index]
    table = table.reindex(index=rows, columns=VERDICTS, fill_value=0)
    table.loc["all"] = table.sum()
    table["claims"] = table.sum(axis=1)
    return table.rename_axis("settled by").rename_axis(None, axis=1)


def listed(card: pd.DataFrame, outcome: str, settled_by: str | None = None) -> list[str]:
    """The texts of the claims with a verdict, by what settled them where that is given."""
    rows = card[card["verdict"] == outcome]
    return rows.loc[rows["settled_by"] == (settled_by or rows["settled_by"]), "text"].tolist()


def against_sentence(card: pd.DataFrame) -> str:
    """Which claims came out against the paper, on the run and by its own figures."""
    own = [text for by in SETTLED_BY if by != "run" for text in listed(card, FAILS, by)]
    parts = {
        "On this run": listed(card, FAILS, "run"),
        "By the paper's own figures, tables and registry": own,
    }
    sentences = [
        f"{what} these do not hold: {'; '.join(f'“{text}”' for text in texts)}."
        for what, texts in parts.items()
        if texts
    ]
    return " ".join(sentences) or "None came out against the paper."


@dataclass(frozen=True)
class ShownClaim:
    """One claim with its verdict; a notebook shows it as a small table."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown


def show_claim(name: str, study: Study, *, path: str | Path = "params/claims.csv") -> ShownClaim:
    """Show in place whether a claim holds: published, found, interval or tolerance, verdict, why.

    Parameters
    ----------
    name : str
        In the column ``claim`` of ``params/claims.csv``.
    study : Study
        The run, as far as the claim needs it.
    path : path
        The table of claims.

    Raises
    ------
    UserError
        If there is no such claim, or a file of the run that it needs is missing.
    """
    claims = read_claims(path)
    if name not in claims.index:
        raise unknown("claim", name, claims.index)
    row = scorecard(study, claims.loc[[name]]).iloc[0]
    cells = (published_text(row), found_text(row), f"**{row['verdict']}**", row["why"])
    lines = [f"*{row['text']}* ({row['place']})", "", "| published | found here | verdict | why |"]
    shown = " | ".join(cell.replace("|", "\\|") for cell in cells)
    return ShownClaim("\n".join([*lines, "|---|---|---|---|", f"| {shown} |"]))
