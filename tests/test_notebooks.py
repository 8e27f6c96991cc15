"""The notebooks as files: paired, without outputs, with the parameters they read."""

from __future__ import annotations

import ast
from pathlib import Path

import jupytext
import nbformat
import pytest

from realign_utils.parameters import Parameters
from realign_utils.pipeline import NOTEBOOKS, declared
from realign_utils.profiles import load

FOLDER = Path(__file__).parent.parent / "notebooks"
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_after_parameters(name: str) -> ast.Module:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    place = next(i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    return ast.parse("\n".join(cell.source for cell in cells[place + 1 :]))


@every_notebook
def test_pair_is_in_step(name: str) -> None:
    text = jupytext.read(FOLDER / f"{name}.py")
    pairs = [
        [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]
        for notebook in (read(name), text)
    ]
    assert pairs[0] == pairs[1], f"run: jupytext --sync notebooks/{name}.py"


@every_notebook
def test_pair_holds_no_outputs(name: str) -> None:
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in read(name).cells)


def test_pair_is_complete() -> None:
    names = {path.stem for path in FOLDER.iterdir() if path.suffix in (".ipynb", ".py")}
    assert names == set(NOTEBOOKS)


@every_notebook
def test_the_second_code_cell_holds_the_parameters(name: str) -> None:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert "parameters" in cells[1].metadata.get("tags", [])


@every_notebook
def test_every_declared_parameter_is_in_the_schema_and_read(name: str) -> None:
    names = set(declared(read(name)))
    loads = {
        node.id
        for node in ast.walk(code_after_parameters(name))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert names <= set(Parameters.model_fields)
    assert names <= loads


def test_every_parameter_of_the_schema_is_read_by_a_notebook() -> None:
    assert set().union(*(declared(read(name)) for name in NOTEBOOKS)) == set(
        Parameters.model_fields
    )


@every_notebook
def test_the_defaults_are_the_demo_s(name: str) -> None:
    demo = load("demo")[0].model_dump(mode="json")
    for key, value in declared(read(name)).items():
        assert value == demo[key], f"{name}: the default of {key} is not that of params/demo.yaml"


@every_notebook
def test_no_computation_is_given_several_devices(name: str) -> None:
    calls = [n for n in ast.walk(code_after_parameters(name)) if isinstance(n, ast.Call)]
    given = [k.value for call in calls for k in call.keywords if k.arg == "device"]
    whole = [v for v in given if isinstance(v, ast.Name) and v.id == "device"]
    assert not whole or name == "1_extract"  # extraction shares the images out among them


@every_notebook
def test_no_notebook_defines_functions(name: str) -> None:
    defined = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    assert not any(isinstance(node, defined) for node in ast.walk(code_after_parameters(name)))


@every_notebook
def test_cells_are_short_and_prose_is_plenty(name: str) -> None:
    cells = read(name).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    lines = [c.source.count("\n") + 1 for c in code[2:]]  # after the imports and the parameters
    assert max(lines) <= 15
    assert 1 - len(code) / len(cells) >= 0.45
