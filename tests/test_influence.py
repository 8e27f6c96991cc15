"""Groups of images that alone decide a model's values are named, and no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from realign_utils.comparison import compare
from realign_utils.influence import (
    INFLUENCE,
    SHARE,
    TIMES,
    identifiers_text,
    influence_sentence,
    influence_table,
)

GROUPS = [f"cell {place // 4}" for place in range(80)]
IDENTIFIERS = [f"image{place}" for place in range(80)]
MODELS = list("abcde")


def table_of(odd: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Five models of one world, of which "c" answers the images of cell 7 so many times as strongly."""
    rng = np.random.default_rng(0)
    world = rng.standard_normal((80, 6))
    features = [world @ rng.standard_normal((6, 8)) for _ in MODELS]
    features[2][28:32] *= odd
    found = compare(features, names=MODELS, groups=GROUPS, resamples=5, sizes=())["biased"]
    table = influence_table({"x": found}, {"x": GROUPS}, {"x": IDENTIFIERS})
    return table, found.similarity.numpy()


def test_the_group_that_decides_a_model_is_named_with_its_images() -> None:
    table, similarity = table_of(60.0)
    row = table.iloc[0]
    assert table[["images", "model", "group"]].to_numpy().tolist() == [["x", "c", "cell 7"]]
    assert row["identifiers"].split() == IDENTIFIERS[28:32]
    assert (row["in_group"], row["groups"]) == (4, 20)
    assert row["times"] > TIMES
    assert row["share"] > SHARE
    assert row["mean"] == pytest.approx((similarity[2].sum() - 1) / 4)
    assert row["without"] - row["mean"] == pytest.approx(row["change"])
    assert row["without"] > row["mean"] + 0.2
    assert "`image28`, `image29`" in identifiers_text(table)[0]


def test_where_no_group_stands_out_none_is_named() -> None:
    table, similarity = table_of(1.0)
    assert table.empty
    assert list(table.columns) == INFLUENCE
    assert influence_sentence(table, {}, similarity, MODELS, "x").startswith("No group")


def test_the_submissions_that_hold_such_a_model_are_named() -> None:
    table, similarity = table_of(60.0)
    sets = {"S1": ["a", "b"], "S2": ["b", "c"]}
    text = influence_sentence(table, sets, similarity, MODELS, "x")
    assert "hold such a model: S2 (c)." in text
    assert f"by up to {table['change'].abs().max():.3f} (`c`)." in text
    left = np.delete(np.delete(similarity, 2, 0), 2, 1)[np.triu_indices(4, 1)]
    assert f"without the named models {left.mean():.3f}" in text
