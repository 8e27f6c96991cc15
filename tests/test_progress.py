"""progress.py: what a running notebook tells of the time left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realign_utils import progress


def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: list[float], **options: int
) -> list[float | None]:
    """The time left after each of some items that took so long."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv(progress.STATUS_VARIABLE, str(tmp_path / "status.json"))

    def items():
        for each in seconds:
            clock[0] += each
            yield each

    left = []
    for _ in progress.track(items(), "training", len(seconds), **options):
        left.append(json.loads((tmp_path / "status.json").read_text())["seconds_left"])
    left.append(json.loads((tmp_path / "status.json").read_text())["seconds_left"])
    return left


def test_the_time_left_is_that_of_the_items_so_far(tmp_path: Path, monkeypatch) -> None:
    assert told(tmp_path, monkeypatch, [2, 4, 3]) == [None, 4, 3, 0]


def test_the_start_of_several_processes_is_not_taken_for_their_pace(
    tmp_path: Path, monkeypatch
) -> None:
    seconds = [80, 0, 2, 2, 2, 2]
    left = told(tmp_path, monkeypatch, seconds, together=2)
    assert left == [None, None, None, None, 4, 2, 0]


def test_few_items_of_many_processes_have_no_time_left(tmp_path: Path, monkeypatch) -> None:
    assert told(tmp_path, monkeypatch, [9, 1, 1], together=3) == [None] * 4


def test_a_status_is_one_line(tmp_path: Path) -> None:
    state = {"label": "training", "done": 4, "total": 6, "seconds_left": 61.0}
    (tmp_path / "s.json").write_text(json.dumps(state))
    assert progress.read_status(tmp_path / "s.json") == "training: 4 of 6, 01:01 left"
    assert progress.read_status(tmp_path / "none.json") == ""
