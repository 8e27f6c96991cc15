"""The notebooks in sequence: what is kept, what a failure says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

import realign_utils.extraction
import realign_utils.weights  # noqa: F401  (both define kinds of mistakes)
from realign_utils import errors, pipeline
from realign_utils.errors import NotebookFailed, UserError

CELLS = {
    "1_good": ["", "k = 8", "assert k == 3; open('made.txt', 'a').write('x')"],
    "4_seeded": ["", "seed = 8", ""],
    "2_error": ["", "k = 8", "1 / 0"],
    "2_mistake": ["", "k = 8", "from realign_utils.errors import UserError as E; raise E('k: no')"],
    "2_killed": ["", "k = 8", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    for name, sources in CELLS.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells[1].metadata["tags"] = ["parameters"]
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def run(
    root: Path, monkeypatch: pytest.MonkeyPatch, *names: str, seed: int = 0, **options: object
) -> dict:
    monkeypatch.setattr(pipeline, "NOTEBOOKS", names)
    values = {"profile": "test", "runs": "runs", "k": 3, "zoo": None, "seed": seed}
    parameters = SimpleNamespace(**values, model_dump=lambda mode: values)
    return pipeline.run(parameters, root, progress=False, **options)


def test_a_notebook_gets_the_parameters_that_it_declares(root: Path, monkeypatch) -> None:
    record = run(root, monkeypatch, "1_good")
    assert (root / "made.txt").read_text() == "x"
    assert list(record["notebooks"]) == ["1_good"]
    assert json.loads((root / "runs" / "run.json").read_text()) == record


def test_declared_reads_values_of_any_literal() -> None:
    cell = nbformat.v4.new_code_cell(
        "a = 1  # one\nb = {'x': [None, 'y']}", metadata={"tags": ["parameters"]}
    )
    assert pipeline.declared(nbformat.v4.new_notebook(cells=[cell])) == {
        "a": 1,
        "b": {"x": [None, "y"]},
    }


def test_an_error_is_told_with_notebook_cell_and_the_executed_copy(root: Path, monkeypatch) -> None:
    with pytest.raises(NotebookFailed, match=r"2_error, cell \d+: ZeroDivisionError") as error:
        run(root, monkeypatch, "1_good", "2_error")
    copy = root / "runs" / "notebooks" / "2_error.failed.ipynb"
    assert str(copy) in str(error.value)
    assert copy.is_file()
    assert (root / "runs" / "notebooks" / "1_good.ipynb").is_file()


def test_a_user_s_mistake_stays_one_line(root: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"^2_mistake: k: no$"):
        run(root, monkeypatch, "2_mistake")


def test_a_killed_kernel_is_told_as_such(root: Path, monkeypatch) -> None:
    with pytest.raises(NotebookFailed, match=r"2_killed: the kernel was killed, likely for memory"):
        run(root, monkeypatch, "2_killed")


def test_a_failure_keeps_the_last_good_copy(root: Path, monkeypatch) -> None:
    run(root, monkeypatch, "1_good")
    good = root / "runs" / "notebooks" / "1_good.ipynb"
    before = good.read_bytes()
    (root / "notebooks" / "1_good.ipynb").write_bytes(
        (root / "notebooks" / "2_error.ipynb").read_bytes()
    )
    with pytest.raises(NotebookFailed):
        run(root, monkeypatch, "1_good")
    assert good.read_bytes() == before
    assert sorted(p.name for p in good.parent.iterdir()) == ["1_good.failed.ipynb", "1_good.ipynb"]


def test_a_run_may_start_later_and_keeps_the_record_of_the_earlier(root: Path, monkeypatch) -> None:
    run(root, monkeypatch, "1_good")
    (root / "notebooks" / "3_good.ipynb").write_bytes(
        (root / "notebooks" / "1_good.ipynb").read_bytes()
    )
    record = run(root, monkeypatch, "1_good", "3_good", first="3_good")
    assert list(record["notebooks"]) == ["1_good", "3_good"]
    assert (root / "made.txt").read_text() == "xx"


def test_a_later_start_refuses_what_was_run_with_other_parameters(root: Path, monkeypatch) -> None:
    run(root, monkeypatch, "1_good", "4_seeded")
    with pytest.raises(UserError, match=r"--from 5_good: 4_seeded was last run with another seed"):
        run(root, monkeypatch, "1_good", "4_seeded", "5_good", seed=1, first="5_good")
    with pytest.raises(UserError, match=r"--from 5_good: 2_error has not been run yet"):
        run(root, monkeypatch, "1_good", "2_error", "5_good", first="5_good")


def test_a_later_start_of_what_was_never_run_says_so(root: Path, monkeypatch) -> None:
    told = r"^--from 5_good: test has no earlier run of its own in runs: leave out --from"
    with pytest.raises(UserError, match=told):
        run(root, monkeypatch, "1_good", "5_good", first="5_good")
    assert run(root, monkeypatch, "1_good", first="1_good")["notebooks"]


def test_an_unknown_notebook_is_told_with_the_nearest(root: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"unknown notebook '1_god'; did you mean '1_good'"):
        run(root, monkeypatch, "1_good", first="1_god")


def test_an_unwritable_folder_is_one_line(root: Path, monkeypatch) -> None:
    (root / "runs").write_text("a file in the place of the folder")
    with pytest.raises(UserError, match=r"runs/notebooks: Not a directory"):
        run(root, monkeypatch, "1_good")


def test_every_kind_of_a_user_s_mistake_is_known_by_name() -> None:
    def kinds(of: type) -> set[str]:
        return {of.__name__}.union(*(kinds(sub) for sub in of.__subclasses__()))

    assert kinds(UserError) == set(errors.KINDS)
