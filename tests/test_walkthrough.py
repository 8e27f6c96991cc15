"""The README's changes of a parameter, made in a real browser against a running JupyterLab.

Slow, and only where `playwright` (pip) and Chromium (the system's) are installed and the demo has
been run; everything happens in a copy of the project.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
ROW = re.compile(r"^\| `(\d_\w+)` \| `` ?(.+?) ?`` \| `` ?(.+?) ?`` \|", re.MULTILINE)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine"),
    pytest.mark.skipif(not (ROOT / "runs/demo/report.html").exists(), reason="no run of the demo"),
]


def changes() -> list[tuple[str, str, str]]:
    """Notebook, line of its parameters cell, and what to make of it, as the README's table says."""
    return ROW.findall((ROOT / "README.md").read_text())


def test_the_readme_walks_through_three_changes() -> None:
    assert len(changes()) == 3
    for notebook, before, after in changes():
        text = (ROOT / "notebooks" / f"{notebook}.py").read_text()
        cell = text.split('tags=["parameters"')[1].split("# %%")[0]
        assert cell.count(before) == 1
        assert before != after


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project after its demo; of the store only a link, since it is large."""
    for name in ("notebooks", "params", "runs/demo", "figures/demo"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "runs/store").symlink_to((ROOT / "runs/store").resolve())
    return tmp_path


@pytest.fixture
def lab(project: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves the copy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
    ]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=walk"]
    command += [
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(project), "JUPYTER_CONFIG_DIR": str(project)}
    with (project / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: urlopen(f"{address}/api?token=walk").status == 200, 60)
            yield address
        finally:
            server.terminate()
            server.wait(20)


def wait_for(ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"not ready within {seconds} s")


def idle_for(address: str, seconds: int) -> bool:
    """Whether the only kernel has nothing to do for some seconds: more than between two cells."""
    for _ in range(seconds):
        sessions = json.load(urlopen(f"{address}/api/sessions?token=walk"))
        if not sessions or sessions[0]["kernel"]["execution_state"] != "idle":
            return False
        time.sleep(1)
    return True


def change_and_run(
    address: str, project: Path, notebook: str, before: str, after: str
) -> list[Any]:
    """Change one line in the browser, run all cells, save; the cells of the saved notebook."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    file = project / "notebooks" / f"{notebook}.ipynb"
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{address}/lab/tree/notebooks/{notebook}.ipynb?token=walk")
        line = page.locator(".jp-CodeCell .cm-line", has_text=before)
        page.locator(".jp-CodeCell .cm-line").first.wait_for(timeout=60_000)
        for _ in range(60):
            if line.count():
                break
            page.locator(".jp-WindowedPanel-outer").first.hover()
            page.mouse.wheel(0, 300)
            page.wait_for_timeout(200)
        text = line.first.inner_text()
        line.first.click()
        page.keyboard.press("Home")
        page.keyboard.press("Home")
        page.keyboard.press("Shift+End")
        page.keyboard.insert_text(text.replace(before, after))
        page.screenshot(path=str(project / f"{notebook}_changed.png"))
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

        # After "Run All" the view stands at the last cells: they wait, "[*]", until all is done.
        waiting = page.locator(".jp-InputArea-prompt", has_text="[*]")
        wait_for(lambda: not waiting.count() and idle_for(address, 3), 900)
        page.screenshot(path=str(project / f"{notebook}_run.png"))
        page.keyboard.press("Control+s")
        wait_for(lambda: before not in file.read_text().replace('\\"', '"'), 30)
        page.wait_for_timeout(2_000)
        browser.close()
    return json.loads(file.read_text())["cells"]


@pytest.mark.parametrize("place", range(3))
def test_a_change_in_the_browser_runs_alone_and_changes_its_results(
    place: int, lab: str, project: Path
) -> None:
    notebook, before, after = changes()[place]
    tables = ("submissions.csv", "calibration.csv")
    old = {name: pd.read_csv(project / "runs/demo" / name) for name in tables}
    cells = change_and_run(lab, project, notebook, before, after)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in code)
    assert not [output for output in outputs if output["output_type"] == "error"]
    new = {name: pd.read_csv(project / "runs/demo" / name) for name in tables}
    assert any(not old[name].equals(new[name]) for name in tables)
