"""The notebooks in sequence: papermill runs them, this module keeps what they leave."""

from __future__ import annotations

import ast
import json
import logging
import os
import platform
import re
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from realign_utils.blog import write_post
from realign_utils.errors import KINDS, NotebookFailed, UserError, unknown
from realign_utils.in_step import require_choice, require_in_step, require_reference
from realign_utils.parameters import Parameters
from realign_utils.progress import STATUS_VARIABLE, read_status
from realign_utils.report import render
from realign_utils.results import model_counts, read_results
from realign_utils.store import publish, write_json, write_text

NOTEBOOKS = (
    "0_zoo",
    "1_extract",
    "2_cka",
    "3_select",
    "4_calibrate",
    "5_figures",
    "7_report",
)
"""In the order in which they run; `0_zoo` only where a profile has a zoo."""

PACKAGES = ("realign-utils", "torch", "torchvision", "timm", "numpy", "pandas", "papermill")


logging.getLogger("papermill").setLevel(logging.ERROR)  # its warnings on parameters: see the tests


def notebooks_of(parameters: Parameters, *, first: str | None = None) -> list[str]:
    """Names of the notebooks that a profile runs, from `first` on."""
    names = [name for name in NOTEBOOKS if parameters.zoo or name != "0_zoo"]
    if first is None:
        return names
    if first not in names:
        raise unknown("notebook", first, names)
    return names[names.index(first) :]


def declared(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Names and default values of a notebook's parameters cell.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        With one cell tagged ``parameters`` that holds plain assignments of literals.

    Returns
    -------
    dict
        In the order of the cell; empty where no cell is tagged.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return {
        target.id: ast.literal_eval(statement.value)
        for cell in cells
        for statement in ast.parse(cell.source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def run(
    parameters: Parameters,
    root: Path,
    *,
    first: str | None = None,
    overrides: Sequence[str] = (),
    progress: bool | None = None,
) -> dict[str, Any]:
    """Execute the notebooks of a profile in sequence.

    Parameters
    ----------
    parameters : Parameters
        As checked by `profiles.load`.
    root : path
        The project's folder: working directory of the notebooks.
    first : str, optional
        Notebook to start with; what earlier ones left must be there.
    overrides : sequence of str
        What was changed on the command line, for the record.
    progress : bool, optional
        Show a bar (True) or plain lines (False); by default a bar on a terminal.

    Returns
    -------
    dict
        The record of the run, as written to ``run.json``.

    Raises
    ------
    UserError
        If a parameter or a file is wrong.
    NotebookFailed
        If a notebook ended in an error or its kernel was killed.
    """
    names = notebooks_of(parameters, first=first)
    runs = root / parameters.runs
    values = parameters.model_dump(mode="json")
    record = _provenance(parameters, root) | {"overrides": list(overrides)}
    record["notebooks"] = _earlier(parameters, values, root, names) if first else {}
    with _Display(names, progress) as display:
        for name in names:
            display.start(name)
            started = time.monotonic()
            read = _execute(name, values, root, runs)
            seconds = round(time.monotonic() - started, 1)
            record["notebooks"][name] = {"seconds": seconds, "ended": _now(), "parameters": read}
            write_json(runs / "run.json", record)
            write_text(runs / "parameters.yaml", yaml.safe_dump(values, sort_keys=False))
            display.end(name, seconds)
    return record


def _earlier(
    parameters: Parameters, values: Mapping[str, Any], root: Path, names: list[str]
) -> dict[str, Any]:
    """Records of the notebooks that are not run again; their parameters must still be the same."""
    path = root / parameters.runs / "run.json"
    if not path.is_file() and notebooks_of(parameters) != names:
        raise UserError(
            f"--from {names[0]}: {parameters.profile} has no earlier run of its own in "
            f"{parameters.runs}: leave out --from (features come from the store)"
        )
    record = json.loads(path.read_text())["notebooks"] if path.is_file() else {}
    kept = {}
    for name in notebooks_of(parameters):
        if name in names:
            break
        if name not in record:
            raise UserError(f"--from {names[0]}: {name} has not been run yet: start there")
        for key, value in record[name]["parameters"].items():
            if values.get(key) != value:
                raise UserError(
                    f"--from {names[0]}: {name} was last run with another {key}: start there"
                )
        kept[name] = record[name]
    try:
        _still_belongs(kept, values, root)
    except UserError as error:
        raise UserError(f"--from {names[0]}: {error}") from None
    return kept


def _still_belongs(kept: Collection[str], values: Mapping[str, Any], root: Path) -> None:
    """What is kept must be of one run: a notebook that was run by hand has left no record."""
    runs = root / values["runs"]
    if "3_select" in kept:
        require_choice(runs, values["k"], values["submissions"])
        last = "4_calibrate" if "4_calibrate" in kept else "3_select"
        figures = root / values["figures"] if "5_figures" in kept else None
        options = {"figures": figures, "proxies": values["proxies"]}
        require_in_step(runs, values["estimator"], last=last, **options)
    if "4_calibrate" in kept:
        require_reference(runs, values["reference_proxy"])


def render_report(parameters: Parameters, root: Path) -> tuple[Path, Path, Path]:
    """Set `report.html`, `report.pdf` and `blog/post.md` from the executed `7_report`.

    Nothing is computed.

    Parameters
    ----------
    parameters : Parameters
        The profile.
    root : path
        The project's folder.

    Returns
    -------
    tuple of path
        The HTML, the PDF and the post.

    Raises
    ------
    UserError
        If the report's notebook has not been executed.
    """
    runs = root / parameters.runs
    executed = runs / "notebooks" / "7_report.ipynb"
    if not executed.is_file():
        raise UserError(f"{executed} is missing: realign run with this profile makes it")
    if not (runs / "run.json").is_file():
        raise UserError(f"{runs / 'run.json'} is missing: realign run with this profile makes it")
    record = json.loads((runs / "run.json").read_text())
    html, pdf = runs / "report.html", runs / "report.pdf"
    origin = {
        "date": record["started"][:10],
        "commit": record["commit"],
        "source_url": _web_page(record["repository"]),
        "root": root,
    }
    render(
        executed,
        html=html,
        pdf=pdf,
        subtitle=f"profile {parameters.profile}: {parameters.title}",
        authors=parameters.authors,
        **origin,
    )
    return html, pdf, write_post(executed, runs / "blog", **origin)


def _web_page(remote: str | None) -> str | None:
    """Web page of a git remote; None where it has none, as for a folder."""
    match = re.fullmatch(r"(?:https://|git@)([\w.-]+)[:/]([\w./-]+?)(?:\.git)?", remote or "")
    return f"https://{match[1]}/{match[2]}" if match else None


def summary(parameters: Parameters, root: Path, record: Mapping[str, Any]) -> str:
    """What a run made, where it lies, the submissions' scores, and what failed: for the terminal.

    Parameters
    ----------
    parameters : Parameters
        The profile.
    root : path
        The project's folder.
    record : mapping
        As `run` returns it.

    Returns
    -------
    str
        Several lines.
    """
    results = read_results(root / parameters.runs)
    compared, tried = model_counts(results)
    entries = record["notebooks"].values()
    seconds = sum(e["seconds"] for e in entries if e["ended"] >= record["started"])
    columns = [*parameters.proxies, "real", "ratio"]
    failures = [f"failed: {row.model} ({row.images}), {row.stage}: {row.reason}"
                for row in results.failures.itertuples()]  # fmt: skip
    return "\n".join(
        [
            "",
            results.calibration[columns].to_string(float_format="{:.4f}".format, na_rep="-"),
            "",
            f"models: {compared} of {tried}; notebooks: {seconds:.0f} s",
            *failures,
            f"figures: {parameters.figures}",
            f"tables, submissions, executed notebooks: {parameters.runs}",
            f"report: {parameters.runs}/report.html and {parameters.runs}/report.pdf",
            f"blog post: {parameters.runs}/blog/post.md",
        ]
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _provenance(parameters: Parameters, root: Path) -> dict[str, Any]:
    return {
        "profile": parameters.profile,
        "started": _now(),
        "commit": _git(root, "rev-parse", "HEAD"),
        "changed_files": (
            _git(root, "status", "--porcelain", "--", ".", ":!figures") or ""
        ).splitlines(),
        "repository": _git(root, "remote", "get-url", "origin"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: version(name) for name in PACKAGES},
        "seed": parameters.seed,
    }


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command, or None outside a repository or without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def _execute(name: str, values: Mapping[str, Any], root: Path, runs: Path) -> dict[str, Any]:
    """Run one notebook into a copy of its own, which replaces the last good one when whole.

    Returns the values of the parameters that it reads.
    """
    source = root / "notebooks" / f"{name}.ipynb"
    executed = runs / "notebooks" / f"{name}.ipynb"
    failed = executed.with_suffix(".failed.ipynb")
    partial = executed.with_name(f".{name}.{uuid.uuid4().hex}.ipynb")
    try:
        executed.parent.mkdir(parents=True, exist_ok=True)
        read = {key: values[key] for key in declared(nbformat.read(source, as_version=4))}
        papermill.execute_notebook(
            source,
            partial,
            parameters=read,
            kernel_name="python3",
            language="python",
            cwd=root,
            progress_bar=False,
            # Its errors are of the protocol, such as the interrupt that comes before each shutdown;
            # what a cell raises is told by papermill.
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
        publish(partial, executed)
        failed.unlink(missing_ok=True)
        return read
    except PapermillExecutionError as error:
        partial.replace(failed)
        raise _failure(name, error, failed) from None
    except DeadKernelError as error:
        partial.replace(failed)
        raise _dead(name, failed) from error
    except OSError as error:
        raise UserError(f"{error.filename or executed}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True) if executed.parent.is_dir() else None


def _failure(name: str, error: PapermillExecutionError, failed: Path) -> Exception:
    if error.ename in KINDS:
        return UserError(f"{name}: {error.evalue}")
    return NotebookFailed(
        f"{name}, cell {error.exec_count}: {error.ename}: {error.evalue}\n"
        f"the executed copy, up to the error: {failed}\n"
        f"open it with: .venv/bin/jupyter lab {failed}"
    )


def _dead(name: str, failed: Path) -> NotebookFailed:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    gib = peak / 2 ** (30 if sys.platform == "darwin" else 20)
    return NotebookFailed(
        f"{name}: the kernel was killed, likely for memory; the largest process had {gib:.1f} GiB\n"
        f"the executed copy, up to then: {failed}\n"
        "what was computed stays: run again, with a smaller batch_size or fewer images"
    )


class _Display:
    """One bar over the notebooks on a terminal, plain lines elsewhere.

    A running notebook tells its progress in a status file; a thread shows what stands there.
    """

    def __init__(self, names: list[str], bar: bool | None) -> None:
        self.bar = sys.stderr.isatty() if bar is None else bar
        self.names = names
        self.tqdm = tqdm(total=len(names), unit="notebook", disable=not self.bar, file=sys.stderr)
        self.folder = TemporaryDirectory(prefix="realign-")
        self.status = Path(self.folder.name) / "status.json"
        self.stopped = Event()
        self.thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Display:
        os.environ[STATUS_VARIABLE] = str(self.status)
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # of timm, in each process
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(STATUS_VARIABLE, None)
        self.stopped.set()
        self.thread.join()
        self.tqdm.close()
        self.folder.cleanup()

    def start(self, name: str) -> None:
        self.status.unlink(missing_ok=True)
        self.tqdm.set_description(name)
        if not self.bar:
            print(f"{name} ({self.names.index(name) + 1} of {len(self.names)})", flush=True)

    def end(self, name: str, seconds: float) -> None:
        self.tqdm.update()
        if not self.bar:
            print(f"{name} done in {seconds:.0f} s", flush=True)

    def _watch(self) -> None:
        """Show the status: each second on a bar, when it is new each 20 seconds on lines."""
        shown = ""
        while not self.stopped.wait(1 if self.bar else 20):
            text = read_status(self.status)
            if not text or text == shown:
                continue
            shown = text
            if self.bar:
                self.tqdm.set_postfix_str(text)
            else:
                print(f"  {text}", flush=True)
