"""What the figures say is what the data say, and every word of it can be read."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

from realign_utils.calibration_set_figures import proxy_quality, set_scatter
from realign_utils.embedding import align, embed
from realign_utils.figure_style import SMALLEST_TEXT, mark_models, marks_of, shorten
from realign_utils.figures import (
    Panel,
    average_similarity,
    calibration_ratios,
    calibration_scatter,
    embedding_map,
    family_bars,
    heatmap,
    heatmaps,
    learning_curves,
    overview,
    registry_heatmap,
    save,
    trajectory,
)
from realign_utils.homogeneity import COLUMNS
from realign_utils.matrices import read_matrix
from realign_utils.pair_figures import pairs_and_capacity
from realign_utils.registry import read_registry
from realign_utils.selection_figures import firmness, pools

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "params" / "published"
NAMES, S4 = read_matrix(PUBLISHED / "s4_cifar100_cka_digitised.csv")
_, S1 = read_matrix(PUBLISHED / "s1_cifar100_cka_digitised.csv")
REGISTRY = read_registry(ROOT / "params" / "registry.csv")
LONGEST = sorted(REGISTRY.index, key=len)[-36:]
LONG_TITLE = "S3: a submission with a title that is far too long for the width of any column"


def similarity_of(models: int, seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(models, 8)) + 0.8
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


def marks(names: list[str]) -> dict:
    return mark_models({name: REGISTRY.loc[name, "mechanism"] for name in names})


def map_of(names: list[str], chosen: int, draws: int = 0) -> Figure:
    found = embed(similarity_of(len(names)), restarts=0)
    noise = np.random.default_rng(0).normal(scale=0.02, size=(draws, len(names), 2))
    clouds = np.array([align(found.coordinates + shift, found.coordinates) for shift in noise])
    families = dict(zip(names, np.arange(len(names)) % 5, strict=True))
    families = {name: f"family {number}" for name, number in families.items()}
    return embedding_map(
        names, found, marks=marks(names), chosen=names[:chosen], title=LONG_TITLE,
        families=families, resampled=clouds if draws else None,
    )  # fmt: skip


def family_table(families: int, images: int) -> pd.DataFrame:
    rows = [
        (f"family of long name {f}", f"images {i}", 0.9 / (f + 1) - 0.1 * i, 10 * f + 1, np.nan, np.nan)
        for f in range(families)
        for i in range(images)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["family", "images", "mean", "pairs", "low", "high"])
    table["low"], table["high"] = table["mean"] - 0.03, table["mean"] + 0.05
    table.loc[0, ["mean", "pairs", "low", "high"]] = [np.nan, 0, np.nan, np.nan]
    return table


def scores(submissions: int = 5) -> pd.DataFrame:
    random = np.random.default_rng(3)
    table = pd.DataFrame({name: random.uniform(0.6, 0.95, submissions) for name in ("p", "q", "r")})
    table["real"] = [*random.uniform(0.68, 0.73, submissions - 1), np.nan]
    table.insert(0, "submission", [f"S{i + 1}" for i in range(submissions)])
    return table.assign(title=LONG_TITLE)


def score_intervals() -> pd.DataFrame:
    columns = ["submission", "images", "low", "high"]
    table = scores().assign(evaluation=scores()["real"])
    rows = [(row["submission"], name, row[name] - 0.02, row[name] + 0.03)
            for row in table.to_dict("records") for name in ("p", "q", "evaluation")]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def pool_rows(number: int) -> pd.DataFrame:
    kinds = ("all", "mechanism", "family", "capacity", "pool", "mixed")
    random = np.random.default_rng(4)
    rows = [(f"pool of a long name {i}", kinds[i % 6], 20 + i) for i in range(number)]
    rows += [(f"random {i}", "random", 20 + i // 3) for i in range(3 * number)]
    table = pd.DataFrame(rows, columns=["pool", "kind", "candidates"])
    table["p"], table["held out"] = random.uniform(0.5, 0.9, (2, len(table)))
    return table.assign(upper_bound=table["p"] + 0.01)


def versus_rows(mechanisms: int) -> pd.DataFrame:
    rows = [
        (f"mechanism {i}", 20 - i, judge, 0.7, 150, 0.7, 0.65, 0.75, 9, 0.6, 0.5, 0.7, 0.1,
         0.05, 0.0, 0.08, True)
        for i in range(mechanisms)
        for judge in ("q", "held out")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def share_rows(submissions: int, models: int = 30) -> pd.DataFrame:
    rows = [
        (f"S{s}", f"model {m}", m < 20, 1 / (1 + np.exp((m - 20) / (s + 1))))
        for s in range(submissions)
        for m in range(models)
    ]
    return pd.DataFrame(rows, columns=["submission", "model", "in_set", "share"])


def regret_rows(ways: int = 5) -> pd.DataFrame:
    rows = [
        (f"way {w} of a long name", judge, 0.002 * w + 0.001 * j)
        for w in range(ways)
        for j, judge in enumerate(("cifar100_like", "imagenette_like", "evaluation"))
    ]
    return pd.DataFrame(rows, columns=["chosen_on", "judged_on", "regret"])


def curve_table(submissions: int, images: int, most: int) -> pd.DataFrame:
    numbers = [n for n in (50, 100, 200, 500, 1000, 2000, 5000) if n < most] + [most]
    rows = [
        (f"images {i}", kind, f"S{s}", n, 0.9 - 0.05 * s + shift / n, 1 / n)
        for i in range(images)
        for kind, shift in (("biased", 2), ("debiased", 0))
        for s in range(submissions)
        for n in numbers
    ]
    table = pd.DataFrame(rows, columns=["images", "estimator", "submission", "n", "mean", "chance"])
    error = 0.3 / table["n"] ** 0.5
    return table.assign(low=table["mean"] - error, high=table["mean"] + error)


def set_rows(pools: int, submissions: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(6)
    rows = [
        (f"pool of a long name {pool}", kind, x, 0.1 + 0.8 * x + random.normal(0, 0.02))
        for pool in range(pools)
        for kind in ("random", "optimised")
        for x in random.uniform(0.5, 0.9, 50)
    ]
    points = pd.DataFrame(rows, columns=["pool", "kind", "proxy_score", "held_out_score"])
    rows = [(f"S{s}", "p", "held out", 0.7, 0.6 + 0.01 * s) for s in range(submissions)]
    columns = ["submission", "proxy", "judged_on", "score", "actual"]
    line = pd.DataFrame([("p", "held out", "proxy", 0.1, 0.8, 0.05 if submissions else np.nan)])
    line.columns = ["proxy", "judged_on", "predictors", "intercept", "slope", "reach"]
    return points, pd.DataFrame(rows, columns=columns), line


def quality_rows() -> pd.DataFrame:
    rows = [(f"p{p}", "proxy", 8.0 * p, 19, 500) for p in (1, 2)]
    rows += [(f"p{p}", "subset", 8.0 * p, 19, n) for p in (1, 2) for n in (50, 100, 200)]
    rows += [(f"r{r}", "calibration proxy", r, 19, 250) for r in (4.0, 8.0, 16.0, 32.0)]
    rows += [(f"c{c}", "calibration proxy", 32.0, c, 250) for c in (2, 4, 8)]
    rows += [(f"c{c}{p}", "calibration proxy", 32.0, c, 160) for c in (2, 4, 8) for p in "abc"]
    table = pd.DataFrame(rows, columns=["proxy", "role", "resolution", "classes", "images"])
    table = table.assign(groups=table["images"] // 4, judged_on="evaluation")
    value = np.linspace(0.5, 0.9, len(table))
    reach = {"low": value - 0.2, "high": value + 0.05}
    reach |= {"images_low": value - 0.1, "images_high": value + 0.03}
    return table.assign(spearman=value, **reach)


def pair_rows(images: int) -> pd.DataFrame:
    rows = [
        (f"images {i}", "biased", grouping, given, adjusted, 0.05, 0.01, 0.09)
        for i in range(images)
        for grouping in ("mechanism", "family")
        for given in ("", "images 0")
        for adjusted in ("nothing", "capacity", "capacity and dimension")
    ]
    columns = ["images", "estimator", "grouping", "given", "adjusted_for"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "low", "high"])


def pairs_of(table: pd.DataFrame) -> Figure:
    kinds, sizes = ["a"] * 10 + ["b"] * 10, np.geomspace(0.1, 30, 20)
    case = {"images": "images 0", "estimator": "biased"}
    return pairs_and_capacity(similarity_of(20), kinds, sizes, table, **case)


def with_unknown(similarity: np.ndarray) -> np.ndarray:
    similarity = similarity.copy()
    similarity[0, 2] = similarity[2, 0] = np.nan
    return similarity


def many() -> Panel:
    return Panel(LONG_TITLE, similarity_of(36), LONGEST)


FIGURES: dict[str, Callable[[], Figure]] = {
    "heatmap of the published set": lambda: heatmap(Panel("S4", S4, NAMES), marks(NAMES)),
    "heatmap of eight": lambda: heatmap(
        Panel(LONG_TITLE, with_unknown(similarity_of(8)), LONGEST[-8:]), marks(LONGEST)
    ),
    "heatmap of thirty-six": lambda: heatmap(many(), marks(LONGEST)),
    "heatmap of two": lambda: heatmap(Panel("pair", similarity_of(2), LONGEST[:2])),
    "comparison as published": lambda: heatmaps(
        [Panel("S4", S4, NAMES), Panel("S1", S1)], marks(NAMES)
    ),
    "comparison of eight": lambda: heatmaps(
        [Panel(LONG_TITLE, similarity_of(8, seed), LONGEST[-8:]) for seed in (0, 1)], marks(LONGEST)
    ),
    "comparison of twenty": lambda: heatmaps(
        [Panel("A", with_unknown(similarity_of(20, s)), LONGEST[-20:]) for s in (0, 1)],
        mark_models({name: f"group {i % 11}" for i, name in enumerate(LONGEST)}),
    ),
    "all of thirty-six": lambda: registry_heatmap(many(), marks(LONGEST)),
    "all of the registry": lambda: registry_heatmap(
        Panel(LONG_TITLE, with_unknown(similarity_of(141)), list(REGISTRY.index)),
        marks(list(REGISTRY.index)),
    ),
    "overview": lambda: overview(
        {f"S{s}": {i: similarity_of(8, s) for i in ("one", "two", "three")} for s in range(4)}
    ),
    "overview of one": lambda: overview({"S1": {"one": with_unknown(similarity_of(8))}}),
    "families": lambda: family_bars(family_table(3, 2)),
    "many families": lambda: family_bars(family_table(8, 3)),
    "map of the demo": lambda: map_of(LONGEST, 8, draws=5),
    "map of the registry": lambda: map_of(list(REGISTRY.index[:138]), 20),
    "averages as published": lambda: average_similarity(NAMES, S4, title="S4", marks=marks(NAMES)),
    "averages of eight": lambda: average_similarity(
        LONGEST[-8:], with_unknown(similarity_of(8)), title=LONG_TITLE
    ),
    "learning curves": lambda: learning_curves(curve_table(4, 3, 500)),
    "learning curves to ten thousand": lambda: learning_curves(curve_table(4, 2, 10_000)),
    "learning curves on many sets": lambda: learning_curves(curve_table(9, 4, 2000)),
    "trajectory": lambda: trajectory(range(2, 21), np.linspace(0.9, 0.7612, 19), title=LONG_TITLE),
    "trajectory with bound": lambda: trajectory(
        [2, 3], [0.9, 0.7612], title="S4", final=0.7613, upper_bound=0.7614
    ),
    "calibration on one proxy": lambda: calibration_scatter(scores(), ["p"], real="portal"),
    "calibration on two proxies": lambda: calibration_scatter(scores(), ["p", "q"], real="portal"),
    "calibration with intervals": lambda: calibration_scatter(
        scores().assign(evaluation=scores()["real"]),
        ["p", "q"],
        real="held-out images",
        intervals=score_intervals(),
    ),
    "calibration on three proxies": lambda: calibration_scatter(
        scores(), ["p", "q", "r"], real="portal"
    ),
    "calibration without real scores": lambda: calibration_scatter(
        scores().assign(real=np.nan), ["p"], real="portal"
    ),
    "ratios without real scores": lambda: calibration_ratios(scores().assign(real=np.nan), ["p"]),
    "map of four": lambda: map_of(LONGEST[:4], 2),
    "comparison of two and three": lambda: heatmaps(
        [Panel("two", similarity_of(2), LONGEST[:2]), Panel("three", similarity_of(3), LONGEST[:3])]
    ),
    "pools": lambda: pools(pool_rows(12), versus_rows(3), ["p", "held out"]),
    "pools of one proxy": lambda: pools(pool_rows(3), versus_rows(0), ["p"]),
    "firmness": lambda: firmness(share_rows(3), regret_rows()),
    "firmness of many": lambda: firmness(share_rows(6), regret_rows(2)),
    "firmness of fixed lists": lambda: firmness(share_rows(0), regret_rows()),
    "ratios": lambda: calibration_ratios(scores(), ["p", "q", "r"]),
    "thousands of sets": lambda: set_scatter(*set_rows(5, 4), proxy="p", judge="held out"),
    "sets of one pool": lambda: set_scatter(*set_rows(1, 9), proxy="p", judge="held out"),
    "sets without a line": lambda: set_scatter(*set_rows(2, 0), proxy="p", judge="held out"),
    "proxy quality": lambda: proxy_quality(quality_rows()),
    "proxy quality without variants": lambda: proxy_quality(
        quality_rows().query("role != 'calibration proxy'")
    ),
    "pairs": lambda: pairs_of(pair_rows(3)),
    "pairs of one set of images": lambda: pairs_of(pair_rows(1)),
    "pairs without coefficients": lambda: pairs_of(pair_rows(0)),
}
every_figure = pytest.mark.parametrize("name", FIGURES)


@cache
def drawn(name: str) -> Figure:
    with warnings.catch_warnings(action="error"):
        figure = FIGURES[name]()
        figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> list[Text]:
    """All that can be read; ticks beyond the limits of an axis are never drawn."""
    found = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
    ]
    unseen = {
        label
        for axes in figure.axes
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not axes.axison or not min(limits) - 1e-9 <= tick.get_loc() <= max(limits) + 1e-9
    }
    return [text for text in found if text not in unseen]


@every_figure
def test_no_text_is_too_small(name: str) -> None:
    assert min(text.get_fontsize() for text in texts(drawn(name))) >= SMALLEST_TEXT


@every_figure
def test_every_text_is_inside_the_figure(name: str) -> None:
    figure = drawn(name)
    width, height = figure.bbox.size
    boxes = {text.get_text(): Text.get_window_extent(text) for text in texts(figure)}
    outside = [
        t for t, box in boxes.items() if min(box.min) < 0 or box.x1 > width or box.y1 > height
    ]
    assert not outside


@every_figure
def test_no_text_lies_on_another(name: str) -> None:
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts(drawn(name))]
    overlapping = [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.5
    ]
    assert not overlapping


def test_the_heatmap_of_the_published_set_states_its_mean_and_lowest_pair() -> None:
    axes = drawn("heatmap of the published set").axes[0]
    facts = axes.get_title(loc="left").split("\n")[1]
    assert facts.startswith("mean 0.761, minimum 0.713 (models ")
    places = [int(word) for word in facts.replace(")", "").split() if word.isdigit()]
    labels = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    lowest = {labels[place - 1] for place in places}
    assert lowest == {"bat_resnext26ts.ch_in1k", "gernet_l.idstcv_in1k"}


def test_the_cells_follow_the_names() -> None:
    axes = drawn("heatmap of the published set").axes[0]
    mesh = next(item for item in axes.collections if isinstance(item, QuadMesh))
    names = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    rows = [NAMES.index(name) for name in names]
    expected = S4[np.ix_(rows, rows)]
    cells = mesh.get_array().reshape(expected.shape).filled(1.0)
    np.testing.assert_array_equal(cells, expected)


@pytest.mark.parametrize("name", ["comparison as published", "comparison of eight", "overview"])
def test_compared_matrices_share_one_colour_scale(name: str) -> None:
    meshes = [m for a in drawn(name).axes for m in a.collections if isinstance(m, QuadMesh)]
    matrices = [
        mesh for mesh in meshes if mesh.get_array().size > 20 and mesh.get_array().ndim == 2
    ]
    scales = {mesh.get_clim() for mesh in matrices if mesh.get_array().shape[0] > 1}
    assert len(scales) == 1
    low, high = scales.pop()
    assert all(low <= mesh.get_array().min() <= mesh.get_array().max() <= high for mesh in matrices)


def test_an_unknown_pair_is_hatched() -> None:
    patches = drawn("heatmap of eight").axes[0].patches
    hatched = [p for p in patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert len(hatched) == 2


def test_the_published_averages_have_the_paper_s_top_three() -> None:
    labels = [t.get_text() for t in drawn("averages as published").axes[0].get_yticklabels()]
    top = ["resnetblur50.bt_in1k", "cspresnext50.ra_in1k", "ecaresnetlight.miil_in1k"]
    assert labels[:3] == top
    assert labels[-1] == "cspdarknet53.ra_in1k"


def test_the_published_averages_are_those_of_the_matrix() -> None:
    axes = drawn("averages as published").axes[0]
    shown = [float(text.get_text()) for text in axes.texts]
    expected = sorted((S4.sum(axis=1) - 1) / (len(S4) - 1), reverse=True)
    np.testing.assert_allclose(shown, expected, atol=0.00051)


@pytest.mark.parametrize("name", ["families", "many families"])
def test_bars_start_at_zero(name: str) -> None:
    axes = drawn(name).axes[0]
    assert all(bar.get_x() == 0 for bars in axes.containers for bar in bars if bar.get_width() > 0)
    assert axes.get_xlim()[0] <= 0


def test_bars_say_how_many_pairs() -> None:
    said = [text.get_text() for text in drawn("families").axes[0].texts]
    assert said[0] == "no pairs"
    assert said[1].endswith("(11 pairs)")


def test_every_chosen_model_is_a_named_star() -> None:
    whole, part = drawn("map of the registry").axes
    stars = sum(len(line.get_xdata()) for line in part.lines if line.get_marker() == "*")
    names = {text.get_text() for text in part.texts}
    assert stars == 20
    assert names == set(shorten(list(REGISTRY.index[:20])))
    assert f"stress {embed(similarity_of(138), restarts=0).stress:.3f}" in whole.get_title(
        loc="left"
    )


def test_lines_to_labels_do_not_cross() -> None:
    labels = [t for t in drawn("map of the registry").axes[1].texts if isinstance(t, Annotation)]
    ends = [(np.array(label.xy), np.array(label.get_position())) for label in labels]
    assert not any(_cross(*one, *other) for one, other in combinations(ends, 2))


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return np.linalg.det(np.stack([q - p, r - p]))

    return side(a, b, c) * side(a, b, d) < -1e-12 and side(c, d, a) * side(c, d, b) < -1e-12


def test_the_trajectory_states_all_three_scores() -> None:
    labels = [text.get_text() for text in drawn("trajectory with bound").legends[0].get_texts()]
    told = [label.split(": ")[1].split()[0] for label in labels[:3]]
    assert told == ["0.7612", "0.7613", "0.7614"]


def test_near_optimal_is_a_band_below_the_bound() -> None:
    figure = drawn("trajectory with bound")
    band = next(p for p in figure.axes[0].patches if isinstance(p, Rectangle))
    assert band.get_y() == pytest.approx(0.99 * 0.7614)
    assert band.get_y() + band.get_height() == pytest.approx(0.7614)
    assert "within 1 % of the bound" in {t.get_text() for t in figure.legends[0].get_texts()}


def test_without_a_bound_the_band_says_from_where_the_curve_is_level() -> None:
    means = np.linspace(0.9, 0.7612, 19)
    level = min(n for n in range(2, 21) if (np.abs(means[n - 2 :] / means[-1] - 1) <= 0.01).all())
    labels = {text.get_text() for text in drawn("trajectory").legends[0].get_texts()}
    assert f"within 1 % of the last mean: from {level} models on" in labels


def test_intervals_of_both_scores_are_crosses_through_the_points() -> None:
    axes, table = drawn("calibration with intervals").axes[0], score_intervals()
    lines = [
        line for drawn_ in axes.collections for line in drawn_.get_segments() if len(line) == 2
    ]
    down = sorted(tuple(line[:, 1]) for line in lines if line[0, 0] == line[1, 0])
    expected = table.query("images == 'evaluation'")[["low", "high"]].dropna().to_numpy()
    np.testing.assert_allclose(down, sorted(map(tuple, expected)))
    assert len(lines) == 2 * len(expected)  # the submission without a real score has none


def test_learning_curves_are_drawn_to_the_last_number_of_images() -> None:
    table = curve_table(2, 1, 10_000)
    upper, lower = FIGURES["learning curves"]().axes[0], learning_curves(table).axes[1]
    labels = [text.get_text() for text in lower.get_xticklabels()]
    assert labels[0] == "10,000"
    assert len(upper.get_lines()) == 2 * 4
    biased = table[(table["estimator"] == "biased") & (table["submission"] == "S0")]
    np.testing.assert_array_equal(lower.get_lines()[0].get_ydata(), biased["chance"])


def test_calibration_panels_share_their_axes_and_show_known_scores() -> None:
    panels = drawn("calibration on two proxies").axes
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in panels}) == 1
    table = scores().dropna()
    drawn_at = [line.get_xydata()[0] for line in panels[1].lines if line.get_marker() != "None"]
    shown = [place for place in drawn_at if np.isfinite(place).all()]
    np.testing.assert_allclose(shown, table[["q", "real"]].to_numpy())


def hashes(folder: Path, name: str = "figure") -> list[str]:
    return [
        hashlib.sha256((folder / f"{name}.{kind}").read_bytes()).hexdigest()
        for kind in ("png", "svg", "pdf")
    ]


@pytest.mark.parametrize("name", ["comparison of eight", "map of the demo"])
def test_equal_data_give_equal_files(name: str, tmp_path: Path) -> None:
    stem = save(FIGURES[name](), tmp_path / "one", "figure")
    with rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.facecolor": "red"}):
        save(FIGURES[name](), tmp_path / "two", "figure")
    assert stem == tmp_path / "one" / "figure"
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_files_bear_no_date(tmp_path: Path) -> None:
    stem = save(FIGURES["trajectory"](), tmp_path, "figure")
    content = b"".join(stem.with_suffix(f".{kind}").read_bytes() for kind in ("png", "svg", "pdf"))
    assert not any(word in content for word in (b"CreationDate", b"<dc:date>", b"Software"))


def test_eight_groups_have_colours_and_markers_of_their_own() -> None:
    looks = marks_of([f"group {i}" for i in range(8)]).values()
    assert len({look.marker for look in looks}) == 8
    assert len({to_hex(look.colour) for look in looks}) == 8


def test_more_groups_than_can_be_told_apart_are_merged_the_rarest_first() -> None:
    looks = marks_of([name for i, name in enumerate("abcdefghij") for _ in range(10 - i)])
    assert [label for label, look in looks.items() if look.label == "other"] == ["i", "j"]


def test_short_names_stay_different() -> None:
    names = ["vit.one", "vit.two", "resnet50.a1_in1k", "x" * 50]
    assert shorten(names, 11) == ["vit.one", "vit.two", "resnet50", "xxxxx…xxxxx"]
    assert shorten(["a" * 20 + "1" + "b" * 20, "a" * 20 + "2" + "b" * 20], 9)[0].count("1") == 1


def test_every_pool_stands_at_its_score_on_the_range_of_its_random_pools() -> None:
    table, axes = pool_rows(12), drawn("pools").axes[0]
    dots = {
        round(float(line.get_xdata()[0]), 9) for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert dots == {round(value, 9) for value in table["p"][:12]}
    segments = axes.collections[0].get_segments()
    drawn_from = table[table["kind"] == "random"].groupby("candidates")["p"]
    ends = drawn_from.agg(["min", "max"]).to_numpy()
    assert np.array(segments)[:, :, 0] == pytest.approx(ends)


def test_the_shares_are_drawn_in_falling_order_with_the_set_filled() -> None:
    axes = drawn("firmness").axes[0]
    inside, outside = axes.lines[:2]
    shares = share_rows(3).query("submission == 'S0'")
    assert inside.get_ydata() == pytest.approx(shares["share"][:20])
    assert outside.get_ydata() == pytest.approx(shares["share"][20:30])
    assert outside.get_markerfacecolor() == "white"
