"""Where a pointer finds what: the places written beside a figure are those of its ink."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import imread

from realign_utils import pointer
from realign_utils.embedding import embed
from realign_utils.figure_style import mark_models, save
from realign_utils.figures import Panel, embedding_map, heatmap, heatmaps, registry_heatmap

NAMES = [f"model_{i}" for i in range(9)]
MARKS = mark_models({name: f"group {i % 3}" for i, name in enumerate(NAMES)})


def similarity_of(models: int = 9, seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(models, 6)) + 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


def saved(figure: Figure, folder: Path) -> tuple[list[dict], np.ndarray]:
    """What was written beside the picture, and the picture (rows, columns, 3)."""
    stem = save(figure, folder, "figure")
    return json.loads(stem.with_suffix(".json").read_text()), imread(f"{stem}.png")[..., :3]


DRAWN = {
    "heatmap": lambda: heatmap(Panel("S", similarity_of(), NAMES), MARKS),
    "all models": lambda: registry_heatmap(Panel("all", similarity_of(), NAMES), MARKS),
    "second of two": lambda: heatmaps(
        [Panel(t, similarity_of(seed=s), NAMES) for s, t in enumerate("AB")], MARKS
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_colour_at_a_cell_s_place_is_that_of_its_value(name: str, tmp_path: Path) -> None:
    figure = DRAWN[name]()
    parts, picture = saved(figure, tmp_path)
    part, height, width = parts[-1], *picture.shape[:2]
    mesh = next(m for a in figure.axes[::-1] for m in a.collections
                if isinstance(m, QuadMesh) and m.get_array().shape == (9, 9))  # fmt: skip
    left, top, across, down = part["box"]
    for row, column in ((0, 1), (2, 7), (8, 3)):
        x, y = left + (column + 0.15) / 9 * across, top + (row + 0.15) / 9 * down
        expected = mesh.cmap(mesh.norm(part["values"][row][column]))[:3]
        seen = picture[int(y * height), int(x * width)]
        np.testing.assert_allclose(seen, expected, atol=0.03)


@pytest.mark.parametrize("name", DRAWN)
def test_cells_hold_every_pair_of_every_model(name: str, tmp_path: Path) -> None:
    for seed, part in enumerate(saved(DRAWN[name](), tmp_path)[0]):
        rows = [NAMES.index(model) for model in part["names"]]
        assert sorted(part["names"]) == NAMES
        expected = similarity_of(seed=seed)[np.ix_(rows, rows)]
        np.testing.assert_allclose(np.array(part["values"]), expected, atol=10.0**-pointer.DIGITS)


def map_figure() -> Figure:
    similarity = similarity_of()
    return embedding_map(
        NAMES, embed(similarity), marks=MARKS, chosen=NAMES[:3], title="S", similarity=similarity
    )


def test_every_model_of_the_map_answers_with_its_group_and_nearest(tmp_path: Path) -> None:
    whole, part = saved(map_figure(), tmp_path)[0]
    similarity = similarity_of() - 2 * np.eye(9)
    assert whole["names"] == NAMES
    assert {"model_0", "model_1", "model_2"} <= set(part["names"])
    for row, lines in enumerate(whole["lines"]):
        nearest = NAMES[int(similarity[row].argmax())]
        assert lines[0] == f"group {row % 3}"
        assert ("submitted" in lines) == (row < 3)
        assert lines[-1].startswith(f"most alike (CKA): {nearest} {similarity[row].max():.3f}")


def test_points_lie_where_the_picture_has_ink(tmp_path: Path) -> None:
    (whole, _), picture = saved(map_figure(), tmp_path)
    height, width = picture.shape[:2]
    inked = [picture[round(y * height), round(x * width)].min() < 0.95 for x, y in whole["at"]]
    assert all(inked)


def test_an_unknown_pair_is_null_and_a_place_outside_does_not_answer(tmp_path: Path) -> None:
    similarity = similarity_of()
    similarity[0, 2] = similarity[2, 0] = np.nan
    parts, _ = saved(heatmap(Panel("S", similarity, NAMES)), tmp_path)
    assert sum(value is None for row in parts[0]["values"] for value in row) == 2
    figure = Figure()
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    pointer.points(axes, np.array([[0.5, 0.5], [2, 0.5], [np.nan, 0]]), list("abc"), [[]] * 3)
    assert pointer.answers(figure)[0]["names"] == ["a"]


def test_a_figure_that_answers_nothing_leaves_no_places_of_an_earlier_one(tmp_path: Path) -> None:
    saved(map_figure(), tmp_path)
    stem = save(Figure(), tmp_path, "figure")
    assert not stem.with_suffix(".json").exists()
