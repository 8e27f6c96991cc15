"""What a run found of calibration and homogeneity, read back and laid out for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from realign_utils.figure_style import number
from realign_utils.intervals import ERROR, FAILS, HOLDS
from realign_utils.results import read_table

FILES = {
    "by_pool": "calibration_by_pool",
    "sets": "calibration_sets",
    "ratios": "family_ratios",
    "quality": "proxy_quality",
    "prediction": "prediction_quality",
    "predictions": "predictions",
    "pairs": "homogeneity_pairs",
    "influence": "influence",
    "principles": "principles",
}
"""Attribute of `CalibrationResults` and name of its file."""
_MEASURES = {"spearman": "rank correlation", "slope": "slope", "ratio": "ratio"}


@dataclass(frozen=True)
class CalibrationResults:
    """Tables that `4_calibrate` left.

    Attributes
    ----------
    by_pool, sets, ratios : pandas.DataFrame
        From `calibration_sets`: `by_pool_table`, `set_score_table`, `family_ratio_table`.
    quality : pandas.DataFrame
        From `proxy_quality.proxy_quality_table`.
    prediction, predictions : pandas.DataFrame
        From `prediction.prediction_tables`.
    pairs : pandas.DataFrame
        From `homogeneity_pairs.homogeneity_pairs_table`.
    influence : pandas.DataFrame
        From `influence.influence_table`.
    principles : pandas.DataFrame
        From `principles.principles_table`.
    """

    by_pool: pd.DataFrame
    sets: pd.DataFrame
    ratios: pd.DataFrame
    quality: pd.DataFrame
    prediction: pd.DataFrame
    predictions: pd.DataFrame
    pairs: pd.DataFrame
    influence: pd.DataFrame
    principles: pd.DataFrame


def read_calibration(runs: str | Path) -> CalibrationResults:
    """Read the tables.

    Raises
    ------
    UserError
        If a file is missing: one line that names the notebook that writes it.
    """
    tables = {
        attribute: read_table(Path(runs) / f"{name}.csv", "4_calibrate")
        for attribute, name in FILES.items()
    }
    return CalibrationResults(**tables)


def reach_text(low: float, high: float, digits: int = 2) -> str:
    """An interval in a table's cell; nothing where it is not known."""
    known = np.isfinite(low) and np.isfinite(high)
    return f"{_end(low, digits)} to {_end(high, digits)}" if known else ""


def _end(value: float, digits: int) -> str:
    """An end of an interval, with more digits where it would else be a zero with a minus sign."""
    text = number(value, digits)
    has_sign_alone = value < 0 and not text.strip("−0.")
    return _end(value, digits + 1) if has_sign_alone and digits < 6 else text


def with_reach(value: float, low: float, high: float, digits: int = 2) -> str:
    """A number with its interval, as text; nothing where it is not known."""
    if not np.isfinite(value):
        return ""
    reach = reach_text(low, high, digits)
    return f"{number(value, digits)} ({reach})" if reach else number(value, digits)


def by_pool_shown(by_pool: pd.DataFrame, proxy: str) -> pd.DataFrame:
    """Rank correlation, slope and ratio of each pool's sets on one proxy, with intervals."""
    here = by_pool[by_pool["proxy"] == proxy]
    rows = []
    for (pool, kind), part in here.groupby(["pool", "kind"], sort=False):
        measures = part.set_index("measure")
        row = {
            "pool": pool,
            "models": part["models"].iloc[0],
            "sets": f"{part['sets'].iloc[0]} {kind}",
        }
        for measure, label in _MEASURES.items():
            one = measures.loc[measure]
            digits = 3 if measure == "ratio" else 2
            row[label] = with_reach(one["value"], one["low"], one["high"], digits)
            if measure == "spearman":
                row["without one"] = one["without"]
            if not np.isfinite(one["low"]):  # no error from models: that from images alone
                row[label] = with_reach(one["value"], one["images_low"], one["images_high"], digits)
                row[label] += "*" if row[label] else ""
        rows.append(row)
    return pd.DataFrame(rows)


def ratios_shown(ratios: pd.DataFrame, proxy: str) -> pd.DataFrame:
    """Calibration ratio of each kind of architecture on one proxy, with both intervals."""
    here = ratios[ratios["proxy"] == proxy].reset_index(drop=True)
    shown = here[["kind", "group", "models", "pairs", "ratio"]]
    for over, prefix in {"other models too": "", "other images": "images_"}.items():
        ends = zip(here[f"{prefix}low"], here[f"{prefix}high"], strict=True)
        known = [reach_text(low, high, 3) or "–" for low, high in ends]
        shown = shown.assign(**{f"95 %, {over}": known})
    return shown


def quality_shown(quality: pd.DataFrame) -> pd.DataFrame:
    """Each proxy with all its images: rank correlation, how far behind the best, and its choice."""
    here = quality[quality["role"] != "subset"]
    grouped = (here["groups"] < here["images"]).any()
    rows = [
        {
            "proxy": row.proxy,
            "pixels": row.resolution,
            "classes": row.classes,
            "images": row.images,
            **({"groups": int(row.groups)} if grouped else {}),
            "rank correlation": with_reach(row.spearman, row.low, row.high),
            "without one": row.without,
            "behind": _behind_text(row.behind, row.behind_p),
            "score of its choice": row.chosen_score,
        }
        for row in here.itertuples()
    ]
    return pd.DataFrame(rows)


def _behind_text(behind: float, p: float) -> str:
    if behind == 0:
        return "the best"
    return "surely" if p <= ERROR else "not surely"


def quality_sentence(quality: pd.DataFrame) -> str:
    """Which proxy ranks best among those of each role, how surely, and what fewer images cost."""
    parts = []
    for role in ("proxy", "calibration proxy"):
        here = quality[quality["role"] == role]
        if len(here) < 2:
            continue
        best = here.loc[here["spearman"].idxmax()]
        sure = here[(here["behind_p"] <= ERROR) & (here["proxy"] != best["proxy"])]
        kind = "Of the proxies" if role == "proxy" else "Of the calibration proxies"
        value = with_reach(best["spearman"], best["low"], best["high"])
        behind = ", ".join(f"`{name}`" for name in sure["proxy"]) or "none"
        many = f", with all {len(here) - 1} others considered together" if len(here) > 2 else ""
        parts.append(
            f"{kind}, `{best['proxy']}` ranks sets most as `{best['judged_on']}` does, with a rank "
            f"correlation of {value}. Surely behind it{many}: {behind}."
        )
    weighty = quality["influential"].dropna().value_counts()
    if len(weighty):
        parts.append(
            f"The model that matters most is `{weighty.index[0]}`, for {weighty.iloc[0]} of the "
            f"{weighty.sum()} proxies."
        )
    for proxy, part in quality[quality["role"] != "calibration proxy"].groupby("proxy", sort=False):
        if len(part) > 1:
            few, all_ = part.loc[part["images"].idxmin()], part.loc[part["images"].idxmax()]
            parts.append(
                f"With {few['images']:,} instead of {all_['images']:,} images `{proxy}` has "
                f"{number(few['spearman'], 2)} instead of {number(all_['spearman'], 2)}."
            )
    return " ".join(parts)


def prediction_shown(prediction: pd.DataFrame) -> pd.DataFrame:
    """How well unseen models' scores are expected, by proxy and predictors, for a page."""
    columns = {"proxy": "proxy", "judged_on": "judged on", "predictors": "expected from"}
    columns |= {"error": "error", "reach": "95 % reach", "coverage": "held"}
    columns |= {"lowest_coverage": "held, worst of ten"}
    return prediction[list(columns)].rename(columns=columns)


def predictions_shown(predictions: pd.DataFrame) -> pd.DataFrame:
    """Expected and actual scores of the submissions on the judge's images."""
    ends = zip(predictions["low"], predictions["high"], strict=True)
    return pd.DataFrame(
        {
            "submission": predictions["submission"],
            "proxy": predictions["proxy"],
            "proxy score": predictions["score"],
            "expected": predictions["predicted"],
            "95 % of new sets": [reach_text(low, high, 3) for low, high in ends],
            "actual": predictions["actual"],
            "inside": ["" if pd.isna(is_in) else bool(is_in) for is_in in predictions["inside"]],
        }
    )


def prediction_sentence(prediction: pd.DataFrame, predictions: pd.DataFrame, proxy: str) -> str:
    """What the proxy score is worth for a new set, how honest the interval is, and how many fit."""
    here = prediction[prediction["proxy"] == proxy].drop_duplicates("predictors")
    here = here.set_index("predictors")
    if here.empty or here["error"].isna().any():
        return "There are too few models to set some aside, and so no interval for new sets."
    lines = here.drop(index="nothing")
    used = lines["error"].idxmin()
    text = (
        f"For sets of models that the line has not seen, the error of the expected score is "
        f"{number(here.loc['nothing', 'error'], 4)} without the score on `{proxy}`, "
        f"{number(here.loc['proxy', 'error'], 4)} with it, and "
        f"{number(here.loc['proxy and homogeneity', 'error'], 4)} with the set's homogeneity as "
        f"well. The 95 % interval by {used} reaches {number(here.loc[used, 'reach'], 4)} to either "
        f"side; "
    )
    held, worst = here.loc[used, ["coverage", "lowest_coverage"]]
    text += (
        f"of sets of models set aside it held {100 * held:.1f} % on average, and {100 * worst:.1f} "
        f"% in the worst of ten divisions."
        if np.isfinite(held)
        else "how many it holds is not known, for want of models to set aside."
    )
    own = predictions[predictions["proxy"] == proxy].dropna(subset=["low"])
    missed = own.loc[~own["actual"].between(own["low"], own["high"]), "submission"]
    outside = f" (not {', '.join(missed)})" if len(missed) else ""
    inside = f" Of the {len(own)} submissions, {len(own) - len(missed)} lie inside{outside}."
    return text + (inside if len(own) else "")


def pairs_shown(pairs: pd.DataFrame) -> pd.DataFrame:
    """Within against between kinds, by estimator and images: as it is, and beside capacity."""
    rows = []
    key = ["grouping", "images", "estimator"]
    for (grouping, images, estimator), part in _given(pairs, False).groupby(key, sort=False):
        steps = part.set_index("adjusted_for")
        plain, beside = steps.loc["nothing"], steps.loc["capacity"]
        row = {"of one": grouping, "images": images, "estimator": estimator}
        row |= {"within": plain["within"]}
        for name, step in {"difference": plain, "at equal capacity": beside}.items():
            row[name] = with_reach(step["difference"], step["low"], step["high"], 3)
        rows.append(row | {name: one for name, one in _test(beside).items() if name != "p"})
    table = pd.DataFrame(rows, columns=None if rows else ["of one", "estimator"])
    order = table.sort_values(["of one", "estimator"], ascending=[False, True], kind="stable")
    return order.reset_index(drop=True)


def transfer_shown(pairs: pd.DataFrame) -> pd.DataFrame:
    """The same at equal CKA on the reference proxy, by grouping."""
    here = _given(pairs, True)
    rows = [
        {"of one": step["grouping"], "images": step["images"], "estimator": step["estimator"]}
        | {"difference": with_reach(step["difference"], step["low"], step["high"], 3)}
        | _test(step)
        for _, step in here[here["adjusted_for"] == "capacity"].iterrows()
    ]
    return pd.DataFrame(rows)


def _given(pairs: pd.DataFrame, proxy: bool) -> pd.DataFrame:
    """Rows with, or without, a proxy's CKA among the regressors."""
    given = pairs["given"].notna() & (pairs["given"] != "")
    return pairs[given == proxy]


def _test(step: pd.Series) -> dict[str, object]:
    names = {"partial_correlation": "partial correlation", "p": "p", "p_holm": "p, Holm"}
    names |= {"verdict": "verdict"}
    return {label: step[name] for name, label in names.items()}


def pairs_sentence(pairs: pd.DataFrame, images: str, estimator: str) -> str:
    """What is left of the difference between kinds when capacity is considered, in words."""
    here = _given(pairs, False)
    here = here[(here["images"] == images) & (here["estimator"] == estimator)]
    parts = []
    for grouping, part in here.groupby("grouping", sort=False):
        steps = part.set_index("adjusted_for")
        plain, beside = steps.loc["nothing"], steps.loc["capacity"]
        if not np.isfinite(beside["difference"]):
            continue
        conclusion = {
            HOLDS: f"models of one {grouping} are more alike than their capacities explain",
            FAILS: f"at equal capacity models of one {grouping} are not, or hardly, more alike",
        }.get(
            beside["verdict"],
            f"it is not settled that models of one {grouping} are more alike at equal capacity",
        )
        parts.append(
            f"On *{images}* ({estimator} estimator) the CKA of two models of one {grouping} is "
            f"higher by {with_reach(plain['difference'], plain['low'], plain['high'], 3)} than that "
            f"of two of different ones. At equal parameters the difference is "
            f"{with_reach(beside['difference'], beside['low'], beside['high'], 3)}, "
            f"{100 * beside['share_left']:.0f} % of that; partial correlation "
            f"{number(beside['partial_correlation'], 2)}, permutation p\u00a0=\u00a0"
            f"{beside['p']:.3f} ({beside['p_holm']:.3f} with all tests of the table considered): "
            f"{conclusion}."
        )
    return (
        " ".join(parts) or "No two models are of one kind, or all are: there is nothing to compare."
    )


def principles_shown(principles: pd.DataFrame) -> pd.DataFrame:
    """The design principles with their tests and verdicts."""
    ends = zip(principles["value"], principles["low"], principles["high"], strict=True)
    found = [with_reach(*values, 3) if np.isfinite(values[0]) else "" for values in ends]
    shown = principles[["principle", "test", "verdict"]]
    shown.insert(2, "found (95 %)", found)
    return shown
