"""The whole pipeline in miniature, with the network refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realign_utils.intervals import VERDICTS
from realign_utils.matrices import read_matrix

ROOT = Path(__file__).parent.parent
OFFLINE = """
import socket
connect = socket.socket.connect
def refuse(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the network is refused: {address}")
    return connect(self, address)
socket.socket.connect = refuse
"""


def realign(folder: Path, *arguments: object, where: Path = ROOT) -> subprocess.CompletedProcess:
    """Run the command as a user does, in an environment that lets nothing out of the machine."""
    environment = os.environ | {"PYTHONPATH": str(folder / "offline"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "realign_utils.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def overrides(folder: Path, **more: object) -> list[str]:
    values = {
        "runs": folder / "runs",
        "figures": folder / "figures",
        "store": folder / "store",
    }
    return [part for key, value in (values | more).items() for part in ("-p", f"{key}={value}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniature")
    (folder / "offline").mkdir()
    (folder / "offline" / "sitecustomize.py").write_text(OFFLINE)
    done = realign(folder, "run", "tests/miniature.yaml", *overrides(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def test_the_network_is_really_refused(folder: Path) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    environment = os.environ | {"PYTHONPATH": str(folder / "offline")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "the network is refused" in done.stderr


def test_the_run_ends_with_a_summary_of_what_was_made(folder: Path) -> None:
    text = (folder / "stdout.txt").read_text()
    assert re.search(r"^S4 +0\.\d{4} +0\.\d{4} +0\.\d{4} +\d\.\d{4}$", text, re.MULTILINE)
    assert "models: 10 of 10" in text
    assert f"{folder}/runs/report.html" in text


def test_every_notebook_leaves_an_executed_copy_and_its_duration(folder: Path) -> None:
    record = json.loads((folder / "runs" / "run.json").read_text())
    copies = {path.stem for path in (folder / "runs" / "notebooks").iterdir()}
    assert copies == set(record["notebooks"])
    assert len(copies) == 7


def test_the_matrices_are_cka(folder: Path) -> None:
    for images in ("cifar100_like", "imagenette_like", "evaluation"):
        names, biased = read_matrix(folder / "runs" / "cka" / f"{images}_biased.csv")
        _, debiased = read_matrix(folder / "runs" / "cka" / f"{images}_debiased.csv")
        pairs = np.triu_indices(len(names), 1)
        assert np.allclose(np.diag(biased), 1)
        assert biased[pairs].mean() > debiased[pairs].mean()


def test_the_calibration_is_that_of_the_matrices_and_the_submitted_sets(folder: Path) -> None:
    table = pd.read_csv(folder / "runs" / "calibration.csv", index_col="submission")
    names, similarity = read_matrix(folder / "runs" / "cka" / "evaluation_biased.csv")
    for name in table.index:
        models = pd.read_csv(folder / "runs" / "submissions" / f"{name}.csv")["model"]
        rows = [names.index(model) for model in models]
        pairs = [similarity[i, j] for i in rows for j in rows if i < j]
        assert table["real"][name] == pytest.approx(np.mean(pairs))


def test_the_intervals_are_those_of_the_scores(folder: Path) -> None:
    table = pd.read_csv(folder / "runs" / "calibration.csv", index_col="submission")
    intervals = pd.read_csv(folder / "runs" / "submission_intervals.csv")
    for row in intervals[intervals["estimator"] == "biased"].itertuples():
        assert row.mean == pytest.approx(table[row.images][row.submission])
        assert row.low < row.mean < row.high


def test_every_cell_has_its_interval_and_chance_level(folder: Path) -> None:
    for stem in ("evaluation_biased", "cifar100_like_debiased"):
        paths = (
            folder / "runs" / "cka" / f"{stem}{e}.csv" for e in ("_lower", "", "_upper", "_chance")
        )
        tables = (pd.read_csv(path, index_col="model").to_numpy() for path in paths)
        low, value, high, chance = (table[np.triu_indices(10, 1)] for table in tables)
        assert ((low < value) & (value < high)).all()
        assert (chance < value).all()


def test_calibration_proxies_are_compared_and_nothing_is_chosen_on_them(folder: Path) -> None:
    variants = {"pixels_4", "pixels_32", "classes_2"}
    quality = pd.read_csv(folder / "runs" / "proxy_quality.csv")
    assert set(quality.loc[quality["role"] == "calibration proxy", "proxy"]) == variants
    choices = pd.read_csv(folder / "runs" / "selection" / "choices.csv")
    assert not variants & set(choices["chosen_on"])
    for name in ("submissions", "calibration", "submission_intervals", "regret"):
        assert not any(v in (folder / "runs" / f"{name}.csv").read_text() for v in variants)


def test_each_design_principle_and_each_step_of_the_pairs_has_a_verdict(folder: Path) -> None:
    principles = pd.read_csv(folder / "runs" / "principles.csv")
    assert principles["number"].tolist() == [1, 2, 3, 4]
    assert principles["verdict"].isin(VERDICTS).all()
    pairs = pd.read_csv(folder / "runs" / "homogeneity_pairs.csv", keep_default_na=False)
    assert set(pairs["given"]) == {"", "cifar100_like"}
    assert set(pairs["verdict"]) <= set(VERDICTS)


def test_no_set_of_the_pool_is_better_than_the_submitted_one(folder: Path) -> None:
    table = pd.read_csv(folder / "runs" / "submissions.csv", index_col="submission")
    _, similarity = read_matrix(folder / "runs" / "cka" / "imagenette_like_biased.csv")
    means = [
        similarity[np.ix_(s, s)][np.triu_indices(3, 1)].mean() for s in combinations(range(10), 3)
    ]
    assert table["objective"]["S1"] == pytest.approx(max(means))
    assert table["upper_bound"]["S1"] >= max(means)
    assert table["proved_optimal"]["S1"]


def test_every_submission_has_a_certificate_that_the_report_names_and_anyone_can_check(
    folder: Path,
) -> None:
    table = pd.read_csv(folder / "runs" / "submissions.csv", index_col="submission")
    page = (folder / "runs" / "report.html").read_text()
    html = page.replace("<wbr>", "")  # a name may break there
    assert list(table.index) == ["S1", "S2", "S3", "S4", "S5", "S6"]
    for name, row in table.iterrows():
        stem = folder / "runs" / "selection" / name
        assert row["certificate"] == f"selection/{name}.safetensors"
        assert row["certificate"] in html
        done = realign(folder, "check-certificate", f"{stem}.safetensors", f"{stem}_matrix.csv")
        assert done.returncode == 0, done.stderr
        assert f"above {row['upper_bound']!r}" in done.stdout


def test_the_worst_proxy_and_the_constraints_are_kept(folder: Path) -> None:
    table = pd.read_csv(folder / "runs" / "submissions.csv", index_col="submission")
    assert table["objective"]["S5"] == pytest.approx(
        min(table["cifar100_like"]["S5"], table["imagenette_like"]["S5"])
    )
    models = pd.read_csv(folder / "runs" / "submissions" / "S5.csv")["model"]
    assert "densenet_growth12_seed0" in set(models)
    assert models.str.contains("vit_|deit|beit").sum() == 1
    choices = pd.read_csv(folder / "runs" / "selection" / "choices.csv", index_col="chosen_on")
    best = choices["score"]["cifar100_like"]
    assert table["objective"]["S6"] < table["cifar100_like"]["S6"] <= best + 1e-12


def test_the_tables_on_pools_and_other_images_are_there(folder: Path) -> None:
    runs = folder / "runs"
    pools = pd.read_csv(runs / "pools.csv").set_index("pool")
    assert {"full registry", "convolution only", "attention only"} <= set(pools.index)
    assert (pools["score"] <= pools["score"]["full registry"] + 1e-12).all()
    shares = pd.read_csv(runs / "selection" / "membership.csv")
    assert shares.groupby("submission")["share"].sum().to_numpy() == pytest.approx([3] * 4)
    assert set(shares["submission"]) == {"S1", "S3", "S4", "S5"}
    regret = pd.read_csv(runs / "regret.csv")
    assert (regret["optimistic"] >= 0).all()
    known = regret.dropna(subset=["regret"])
    assert (known["regret"] <= known["optimistic"] + 1e-6).mean() > 0.5
    assert (known["chosen_on"] != known["judged_on"]).all()
    assert set(known.loc[known["chosen_on"] == "mean of proxies", "judged_on"]) == {"evaluation"}
    assert set(regret["judged_on"]) == {"cifar100_like", "imagenette_like", "evaluation"}


def test_the_report_is_one_file_that_loads_nothing(folder: Path) -> None:
    html = (folder / "runs" / "report.html").read_text()
    assert "<math" in html
    assert "¶" not in html
    assert not re.search(r"(src|srcset)\s*=\s*[\"']?(https?:)?//", html)
    assert not re.search(r"<link[^>]+href\s*=\s*[\"']?(https?:)?//", html)
    assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", html)


def test_the_report_s_numbers_are_the_files(folder: Path) -> None:
    html = (folder / "runs" / "report.html").read_text()
    table = pd.read_csv(folder / "runs" / "calibration.csv")
    for value in table[["cifar100_like", "imagenette_like", "real"]].to_numpy().ravel():
        assert f"{value:.4f}" in html


def test_the_pdf_is_there(folder: Path) -> None:
    assert (folder / "runs" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_every_figure_is_there_as_png_and_vector_with_what_it_answers(folder: Path) -> None:
    for number in (2, 3, 4, 5, 6, 7):
        kinds = {path.suffix for path in (folder / "figures").glob(f"fig{number}_*")}
        assert kinds == {".png", ".svg", ".pdf", ".json"}


def test_the_page_answers_for_every_model_and_stays_small(folder: Path) -> None:
    html = (folder / "runs" / "report.html").read_text()
    data = re.findall(r'<script type="application/json" class="places">(.*?)</script>', html, re.S)
    parts = {figure["name"]: figure["parts"] for figure in map(json.loads, data)}
    models, _ = read_matrix(folder / "runs" / "cka" / "cifar100_like_biased.csv")
    assert parts["Figure 5"][0]["names"] == list(models)
    submitted = pd.read_csv(folder / "runs" / "submissions" / "S4.csv")["model"]
    assert set(parts["Figure 2"][0]["names"]) == set(submitted)
    assert len(html) < 15e6


def test_the_post_s_links_lead_to_files_and_no_syntax_of_the_report_is_left(folder: Path) -> None:
    post = (folder / "runs" / "blog" / "post.md").read_text()
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", post)
    assert len(targets) > 2
    assert all((folder / "runs" / "blog" / target).is_file() for target in targets)
    assert not re.search(r"\[@|:::|<div|<span|\bnan\b", post)


def test_a_run_compared_with_itself_differs_in_nothing(folder: Path) -> None:
    done = realign(folder, "compare", folder / "runs", folder / "runs")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "no number differs")


def test_a_later_start_refuses_sets_that_were_not_scored(folder: Path) -> None:
    path = folder / "runs" / "submissions" / "S2.csv"
    before = path.read_text()
    command = ["run", "tests/miniature.yaml", *overrides(folder), "--from"]
    try:
        path.write_text(before.rsplit("\n", 2)[0] + "\n")
        done = realign(folder, *command, "5_figures")
    finally:
        path.write_text(before)
    assert done.returncode == 2
    assert done.stderr.startswith("realign: --from 5_figures: submissions.csv is not of the sets")
    assert done.stderr.count("\n") == 1
    done = realign(folder, *command, "7_report")
    assert done.returncode == 0, done.stderr


def test_a_submission_is_valid_and_scored_as_the_table_says(folder: Path) -> None:
    path = folder / "runs" / "submissions" / "S4.json"
    mine = f"extends: {ROOT / 'tests' / 'miniature.yaml'}\nruns: {folder / 'runs'}\n"
    (folder / "check.yaml").write_text(mine)
    assert realign(folder, "check", path, "--profile", folder / "check.yaml").returncode == 0
    done = realign(folder, "score", path, "--profile", "tests/miniature.yaml", *overrides(folder))
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(folder / "runs" / "calibration.csv", index_col="submission")
    assert float(done.stdout.split()[2]) == pytest.approx(table["real"]["S4"], abs=1e-4)


def test_images_are_scored_as_a_red_submission(folder: Path) -> None:
    manifest = pd.read_csv(folder / "runs" / "images" / "evaluation.csv").head(20)
    images = manifest[["dataset_name", "image_identifier"]].to_dict("records")
    (folder / "red.json").write_text(json.dumps({"differentiating_images": images}))
    options = ["--profile", "tests/miniature.yaml", *overrides(folder)]
    done = realign(folder, "score", folder / "red.json", *options)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout.split()[2]) < 1


@pytest.mark.slow
def test_a_second_run_computes_no_feature_and_gives_the_same_files(folder: Path) -> None:
    kinds = ("*.csv", "*.json", "*.md", "*.png", "*.svg")
    skipped = ("run.json", "features.csv")  # durations

    def contents() -> dict[Path, bytes]:
        paths = [path for kind in kinds for path in folder.rglob(kind) if path.name not in skipped]
        return {path: path.read_bytes() for path in paths if "store" not in path.parts}

    before = contents()
    done = realign(folder, "run", "tests/miniature.yaml", *overrides(folder))
    assert done.returncode == 0
    assert pd.read_csv(folder / "runs" / "features.csv")["cached"].all()
    changed = {str(p) for p, content in contents().items() if before.get(p) != content}
    assert not changed


@pytest.mark.slow
def test_a_profile_of_one_s_own_without_evaluation_runs_from_anywhere(folder: Path) -> None:
    mine = folder / "mine"
    mine.mkdir()
    base = ROOT / "tests" / "miniature.yaml"
    lines = [f"extends: {base}", "profile: mine", "evaluation: null", f"store: {folder / 'store'}"]
    lines += [f"runs: {mine / 'runs'}", f"figures: {mine / 'figures'}"]
    (mine / "my.yaml").write_text("\n".join(lines))
    done = realign(folder, "run", "my.yaml", where=mine)
    assert done.returncode == 0, done.stdout + done.stderr
    html = (mine / "runs" / "report.html").read_text()
    assert "no real score is known" in html
    assert not re.search(r"\bnan\b", re.sub(r"data:[^\"]*", "", html))


@pytest.mark.slow
def test_a_notebook_runs_alone_from_the_folder_that_jupyterlab_starts_it_in(folder: Path) -> None:
    code = (
        "import papermill; papermill.execute_notebook('2_cka.ipynb', '/dev/null', cwd='.',"
        f"parameters={{'runs': '{folder / 'runs'}', 'store': '{folder / 'store'}'}})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_broken_image_stops_before_any_features_and_is_named(folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    for index in range(8):
        Image.fromarray(np.full((40, 40, 3), index, np.uint8)).save(images / f"{index}.png")
    (images / "5.png").write_bytes((images / "5.png").read_bytes()[:60])
    source = f"{{kind: imagefolder, path: {images}, number: 8}}"
    values = overrides(folder, evaluation=source)
    done = realign(folder, "run", "tests/miniature.yaml", *values)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "5.png" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_gives_no_score(folder: Path) -> None:
    weights = folder / "other"
    weights.mkdir()
    for name in ("vit_width64_seed0", "deit_width64_seed0", "beit_width64_seed0"):
        (weights / f"{name}.safetensors").write_bytes(
            (folder / "runs" / "zoo" / "weights" / "resnet_eca_seed0.safetensors").read_bytes()
        )
    path = folder / "runs" / "submissions" / "S2.json"
    (folder / "my.yaml").write_text(
        f"extends: {ROOT / 'tests' / 'miniature.yaml'}\nzoo: null\nweights_dir: {weights}\n"
        f"registry: {folder / 'runs' / 'zoo' / 'registry.csv'}\nstore: {folder / 'store'}\n"
    )
    done = realign(folder, "score", path, "--profile", folder / "my.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("realign: no score: ")
    assert "does not fit" in done.stderr


MISTAKES = {
    "a misspelt key": (["-p", "restart=3"], "did you mean 'restarts'?"),
    "a misspelt model": (
        ["-p", "submissions.S2.models=[vit_width64_sed0, a, b]"],
        "did you mean 'vit_width64_seed0'",
    ),
    "a k larger than the pool": (
        ["-p", "k=11"],
        "k = 11 is larger than the pool 'full' of 10 models",
    ),
    "an unknown notebook": (["--from", "3_selct"], "did you mean '3_select'?"),
    "an unknown option": (["--frm", "3_select"], "--from"),
    "a folder that cannot be written": (["-p", "runs=README.md/runs"], "README.md/runs"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_lines_with_exit_code_2(folder: Path, mistake: str) -> None:
    arguments, told = MISTAKES[mistake]
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*") if p.is_file()}
    done = realign(folder, "run", "tests/miniature.yaml", *overrides(folder), *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*") if p.is_file()} == before


def test_an_unknown_profile_is_told_with_exit_code_2(folder: Path) -> None:
    done = realign(folder, "run", "demoo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean 'demo'?" in done.stderr
