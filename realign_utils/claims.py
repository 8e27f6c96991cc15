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

from realign_utils.claims_again import AGAIN
from realign_utils.claims_alike import ALIKE
from realign_utils.claims_evidence import WRITTEN_BY, Evidence, Study
from realign_utils.claims_proxies import PROXIES
from realign_utils.claims_published import PUBLISHED
from realign_utils.claims_registry import REGISTRY
from realign_utils.claims_sets import SETS
from realign_utils.claims_shown import KINDS, SIGNS, found_text, published_text
from realign_utils.errors import UserError, unknown
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE, verdict

QUANTITIES: Mapping[str, Callable[[Study, str], Evidence]] = {
    function.__name__: function
    for function in (*PUBLISHED, *REGISTRY, *PROXIES, *SETS, *ALIKE, *AGAIN)
}
"""How each quantity of ``params/claims.csv`` is found."""
COLUMNS = ["claim", "statement", "headline", "topic", "text", "place", "settled_by", "relation"]
COLUMNS += ["published", "tolerance", "quantity", "of"]
COMPARED_BY = {"greater than": 1, "at least": -1}
"""Relations by which several numbers at once can be judged, and the sign of their tolerance."""


def read_claims(path: str | Path = "params/claims.csv") -> pd.DataFrame:
    """Read the table of claims and check it.

    Parameters
    ----------
    path : path
        A CSV file with the columns claim (its name), statement (of the paper; several claims may
        be on one), headline (rank among the most important, or nothing), topic, text, place (in the
        paper), settled_by (a key of `realign_utils.claims_shown.KINDS`), relation (a key of
        `realign_utils.claims_shown.SIGNS`), published, tolerance, quantity (a name in
        `QUANTITIES`), of (what the quantity is of).

    Returns
    -------
    pandas.DataFrame
        Indexed by claim.

    Raises
    ------
    UserError
        If the file is missing, a name is unknown or stands twice, or a headline is no rank, in one
        line.
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
    ranks = pd.to_numeric(claims["headline"], errors="coerce")
    odd = claims.loc[ranks.isna() & (claims["headline"] != ""), ["claim", "headline"]]
    if len(odd):
        claim, rank = odd.iloc[0]
        raise UserError(f"{path}: headline of the claim {claim!r} is {rank!r}; a rank or nothing")
    claims["headline"] = ranks
    allowed = {"quantity": QUANTITIES, "relation": SIGNS, "settled_by": KINDS}
    for column, names in allowed.items():
        for claim, name in zip(claims["claim"], claims[column], strict=True):
            if name not in names:
                raise unknown(f"{column} of the claim {claim!r}", name, names)
    return claims.set_index("claim")


def judge(relation: str, published: float, tolerance: float, evidence: Evidence) -> str:
    """The verdict on a claim.

    Parameters
    ----------
    relation : {"equal", "agrees with", "at least", "at most", "greater than", "less than"}
        Of the number that was found to the published one.
    published, tolerance : float
        Numbers up to `tolerance` beyond the published one still agree; to be greater or less they
        have to be beyond it by more.
    evidence : Evidence
        With an interval, the claim holds if all of it agrees, fails if none of it does, and is too
        close to call otherwise. To "agree with" the published number it is enough that a part of
        the interval does. Of several comparisons each is set against the published number.

    Returns
    -------
    str
        One of `realign_utils.intervals.VERDICTS`; not testable where there is no number, or no
        interval where there should be one.

    Raises
    ------
    UserError
        If several comparisons are to be judged by a relation that does not say "all are above".
    """
    if not np.isfinite(evidence.value):
        return UNTESTABLE
    if evidence.ruled:
        return evidence.ruled
    if evidence.comparisons:
        return _judge_all(relation, published, tolerance, evidence)
    ends = [evidence.value if end is None else end for end in (evidence.low, evidence.high)]
    if not np.isfinite(ends).all():
        return UNTESTABLE
    low, high = (float(end) - published for end in ends)
    if relation == "agrees with":
        return HOLDS if low <= tolerance and high >= -tolerance else FAILS
    least = {"equal": -tolerance, "at least": -tolerance, "greater than": tolerance}
    most = {"equal": tolerance, "at most": tolerance, "less than": -tolerance}
    lower, upper = least.get(relation, -np.inf), most.get(relation, np.inf)
    slack = 1e-12 if relation in ("equal", "at least", "at most") else -1e-12  # rounding of floats
    if low >= lower - slack and high <= upper + slack:
        return HOLDS
    return FAILS if high < lower - slack or low > upper + slack else CLOSE


def _judge_all(relation: str, published: float, tolerance: float, evidence: Evidence) -> str:
    """The verdict on "all these numbers are above the published one"."""
    if relation not in COMPARED_BY:
        raise unknown("relation of several comparisons", relation, COMPARED_BY)
    least, strict = published + COMPARED_BY[relation] * tolerance, relation == "greater than"
    return verdict([each.above(least, strict=strict) for each in evidence.comparisons])


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
        found; NaN where there is none), over (what may vary within the interval), verdict, why,
        file (that holds the number, below the run's folder or in the project), notebook (that
        wrote it), images (sets of images, by blanks).
    """
    rows = []
    for row in claims.itertuples():
        found = QUANTITIES[row.quantity](study, row.of)
        rows.append(
            {
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "over": found.over,
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
