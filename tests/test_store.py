"""Files are whole or absent; keys are made of every ingredient."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from realign_utils import store
from realign_utils.errors import UserError, unknown


def test_a_failed_write_leaves_what_stood_there_and_no_other_file(tmp_path: Path) -> None:
    path = store.write_text(tmp_path / "a.txt", "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*a.txt: No space left on device"):
        store.write_atomically(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_fault_of_the_system_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = store.write_text(tmp_path / "a.txt", "old")

    def fault(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, fault)
    with pytest.raises(UserError, match="Input/output error"):
        store.write_text(path, "new")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_place_of_a_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        store.write_text(tmp_path / "file" / "a.txt", "text")


def test_the_key_does_not_depend_on_the_order_of_ingredients() -> None:
    assert store.key_of({"a": 1, "b": [2]}) == store.key_of({"b": [2], "a": 1})


def test_every_ingredient_changes_the_key() -> None:
    made_of = {"model": "a", "layer": "b", "size": 32}
    keys = {store.key_of(made_of | {name: "other"}) for name in made_of} | {store.key_of(made_of)}
    assert len(keys) == 4


def test_nothing_is_cached_with_an_ingredient_unknown() -> None:
    with pytest.raises(ValueError, match="weights"):
        store.key_of({"model": "a", "weights": None})


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    error = unknown("model", "resnet5O", ["resnet50", "vgg11"])
    assert (
        str(error) == "unknown model 'resnet5O'; did you mean 'resnet50'?; allowed: resnet50, vgg11"
    )
