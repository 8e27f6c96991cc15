"""What a claim is judged by: the files of a run and of the paper, and the number taken from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.comparison import Comparison
from realign_utils.comparison_files import RESAMPLES, read_comparison
from realign_utils.intervals import Sign, call
from realign_utils.matrices import read_matrix
from realign_utils.registry import choose, read_registry
from realign_utils.results import read_table

WRITTEN_BY = {
    "features.csv": "1_extract",
    "failures.csv": "1_extract",
    "cka": "2_cka",
    "submissions": "3_select",
    "submissions.csv": "3_select",
    "selection": "3_select",
    "calibration.csv": "4_calibrate",
    "rank_agreement.csv": "4_calibrate",
    "submission_intervals.csv": "4_calibrate",
    "submission_differences.csv": "4_calibrate",
    "learning_curve.csv": "4_calibrate",
    "family_similarity.csv": "4_calibrate",
    "pools.csv": "4_calibrate",
    "homogeneity.csv": "4_calibrate",
    "prediction_quality.csv": "4_calibrate",
    "principles.csv": "4_calibrate",
}
"""The notebook that writes a file, or a folder, of a run."""
IMAGES, MODELS, BOTH = "images", "models", "images and models"
PERMUTATIONS, POOLS = "permutations", "images and pools"
ROUNDING, READING = "rounding", "reading"
OVER = (IMAGES, MODELS, BOTH, PERMUTATIONS, POOLS, ROUNDING, READING)
"""What may vary within an interval: the images, these models being given, or other things too."""


@dataclass(frozen=True)
class Difference:
    """A number of which the sign matters, with its interval.

    Attributes
    ----------
    value, low, high : float
    degrees : float
        Of freedom of its standard error.
    exact : bool
        The ends are bounds, as of rounding, not those of a confidence interval. They are open:
        rounding keeps the order, so that a gap of numbers printed apart is never zero.
    p : float, optional
        Two-sided error of the sign where the interval does not give it.
    """

    value: float
    low: float
    high: float
    degrees: float = inf
    exact: bool = False
    p: float | None = None

    def above(self, least: float, *, strict: bool) -> Sign:
        """Whether it is above `least` (1), below it (−1), or may be either (0); NaN if not known.

        Parameters
        ----------
        least : float
        strict : bool
            An exact number that equals `least` is below it if so, else above.
        """
        value, low, high = (round(float(x) - least, 9) for x in (self.value, self.low, self.high))
        if isnan(low) or isnan(high):
            return Sign(nan, nan)
        if self.exact:
            below = high <= 0 and (value < 0 or strict)
            return Sign(int(low >= 0 and (value > 0 or not strict)) - int(below))
        sign = call(low, high, self.degrees)
        return sign if self.p is None else Sign(sign, self.p)


@dataclass(frozen=True)
class Evidence:
    """A number that a claim is judged by.

    Attributes
    ----------
    value : float
        NaN where there is none; `why` then says why not.
    why : str
        What was compared, in a sentence without the claim.
    file : str
        That holds it: below the run's folder, or in ``params/`` or ``realign_utils/``.
    low, high : float, optional
        Its 95 % interval; of several comparisons that of the weakest, whose value this is.
    comparisons : sequence of Difference
        Of several numbers that all have to be above the published one: all. The verdict is then
        on all of them.
    ruled : str, optional
        A verdict by a rule of its own, one of `realign_utils.intervals.VERDICTS`.
    over : str
        What the interval is over, one of `OVER`; empty where there is none.
    images : sequence of str
        The run's sets of images from which the number comes.
    """

    value: float
    why: str
    file: str
    low: float | None = None
    high: float | None = None
    comparisons: Sequence[Difference] = ()
    ruled: str | None = None
    over: str = ""
    images: Sequence[str] = ()


def untestable(why: str, file: str = "") -> Evidence:
    """No number, with the reason."""
    return Evidence(float("nan"), why, file)


@dataclass(frozen=True)
class Study:
    """A run's files, read when a claim needs them, and the parameters that say what they are.

    Parameters
    ----------
    runs : path
        The folder of the run's results.
    proxies, reference_proxy, evaluation, estimator, registry, submissions, families, pools, \
    highlight, contrast
        As in the profile (`realign_utils.parameters.Parameters`). A notebook that shows a claim
        or two gives those that these need.
    params : path
        The folder of what was published.
    """

    runs: str | Path
    proxies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference_proxy: str = ""
    evaluation: Mapping[str, Any] | None = None
    estimator: str = "biased"
    registry: str | Sequence[str] = "params/registry.csv"
    submissions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    families: Mapping[str, Any] = field(default_factory=dict)
    pools: Mapping[str, Any] = field(default_factory=dict)
    highlight: str = ""
    contrast: str = ""
    params: str | Path = "params"
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def table(self, file: str, index: str | None = None) -> pd.DataFrame:
        """A CSV of the run; a UserError that names the notebook to run where it is missing."""
        if file not in self._kept:
            notebook = WRITTEN_BY[file.split("/")[0]]
            self._kept[file] = read_table(Path(self.runs) / file, notebook)
        return self._kept[file].set_index(index) if index else self._kept[file]

    def comparison(self, images: str) -> Comparison:
        """All pairs of models on a set of images, by the run's estimator."""
        if images not in self._kept:
            folder = Path(self.runs) / "cka"
            self._kept[images] = read_comparison(folder, images, self.estimator)
        return self._kept[images]

    def resamples_file(self, images: str) -> str:
        return f"cka/{images}_{self.estimator}{RESAMPLES}"

    def of(self, file: str) -> pd.DataFrame:
        """The rows of a table of scores that are by the run's estimator."""
        table = self.table(file)
        return table[table["estimator"] == self.estimator]

    @property
    def coarse(self) -> str | None:
        """The proxy that stands for Imagenette: the first that is not the reference."""
        return next((name for name in self.proxies if name != self.reference_proxy), None)

    @property
    def judge(self) -> str | None:
        """The images on which nothing was chosen; without them the proxy that is not the reference."""
        return "evaluation" if self.evaluation else self.coarse

    @cached_property
    def known(self) -> pd.DataFrame:
        """The run's registry."""
        return read_registry(self.registry)

    @cached_property
    def compared(self) -> set[str]:
        """The models with features on every set of images."""
        table = self.table("features.csv")
        sets = table.groupby("model")["images"].nunique()
        return set(sets.index[sets == table["images"].nunique()])

    @cached_property
    def listed(self) -> pd.DataFrame:
        """Appendix A as published: model, layer, architecture_type."""
        return pd.read_csv(Path(self.params) / "published" / "appendix_a.csv")

    @cached_property
    def portal(self) -> pd.DataFrame:
        """The table of section 3.1 by submission, as printed: text."""
        return pd.read_csv(Path(self.params) / "portal.csv", dtype=str, index_col="submission")

    @cached_property
    def bars(self) -> pd.DataFrame:
        """Figure 4, read off: by family."""
        return pd.read_csv(Path(self.params) / "published" / "fig4_bars_read.csv", index_col=0)

    @cached_property
    def drawn(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Names and matrix of the paper's S4 and S1, read off its Figures 2 and 3."""
        folder = Path(self.params) / "published"
        return {s: read_matrix(folder / drawn_file(s).split("/")[-1]) for s in ("S4", "S1")}

    def members(self, submission: str) -> list[str]:
        """The models of a submission."""
        return self.table(f"submissions/{submission}.csv")["model"].tolist()

    def mechanisms(self, submission: str) -> pd.Series:
        """How many models of each mechanism a submission holds."""
        return self.known.loc[self.members(submission), "mechanism"].value_counts()

    def of_mechanism(self, mechanism: str, images: str) -> list[str]:
        """The compared models of a mechanism."""
        names = list(self.comparison(images).names)
        return [model for model in names if self.known["mechanism"][model] == mechanism]

    def families_of(self, mechanism: str) -> list[str]:
        """The families of Figure 4 whose models are all of one mechanism."""
        kinds = {f: set(choose(self.known, w)["mechanism"]) for f, w in self.families.items()}
        return [family for family, found in kinds.items() if found == {mechanism}]

    def family_means(self, images: str) -> pd.DataFrame:
        """Each family's mean and its interval over other images: mean, low, high; only known ones."""
        rows = self.table("family_similarity.csv")
        rows = rows[rows["images"] == images].dropna(subset=["mean"]).set_index("family")
        rows = rows[["mean", "images_low", "images_high"]]
        return rows.set_axis(["mean", "low", "high"], axis=1)

    def chosen_on(self, submission: str) -> set[str]:
        """The sets of images by which a submission was chosen; none of one that is not known."""
        return set(self.submissions.get(submission, {}).get("proxies") or {})


def drawn_file(submission: str) -> str:
    """Where a matrix of the paper lies."""
    return f"params/published/{submission.lower()}_cifar100_cka_digitised.csv"


def shared_models(first: Sequence[str], second: Sequence[str]) -> str:
    """How many of the first set's models the second has, such as "7 of its 8 models"."""
    return f"{len(set(first) & set(second))} of its {len(first)} models"
