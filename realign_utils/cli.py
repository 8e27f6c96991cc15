"""The commands: ``realign run``, ``report``, ``fetch``, ``extract``, ``select``, ``score`` …"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realign_utils.errors import NotebookFailed, UserError
from realign_utils.store import write_json, write_text

if TYPE_CHECKING:
    from realign_utils.parameters import Parameters


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Which of many vision models see alike, how sure are we, and on which images do they part?"""


@commands.command()
@click.argument("profile", default="demo")
@click.option("--from", "first", metavar="NOTEBOOK", help="Start later, e.g. at 3_select.")
@click.option("-p", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a parameter.")
def run(profile: str, first: str | None, overrides: Sequence[str]) -> None:
    """Run the notebooks of PROFILE (a name in params/ or a YAML file) and render the report."""
    from realign_utils import pipeline, profiles

    parameters, root = profiles.load(profile, overrides)
    if "1_extract" in pipeline.notebooks_of(parameters, first=first):
        _say_what_is_missing(parameters, root)
    record = pipeline.run(parameters, root, first=first, overrides=overrides)
    pipeline.render_report(parameters, root)
    click.echo(pipeline.summary(parameters, root, record))


@commands.command()
@click.argument("profile", default="demo")
@click.option("-p", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a parameter.")
def report(profile: str, overrides: Sequence[str]) -> None:
    """Render report.html, report.pdf and the blog post of PROFILE again; nothing is computed."""
    from realign_utils import pipeline, profiles

    for path in pipeline.render_report(*profiles.load(profile, overrides, kept=True)):
        click.echo(path)


@commands.command()
@click.argument("profile", default="demo")
@click.option("-p", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a parameter.")
@click.option("--dry-run", is_flag=True, help="Only list what is missing.")
def fetch(profile: str, overrides: Sequence[str], dry_run: bool) -> None:
    """Bring the weights and images that PROFILE needs, so that a run needs no network."""
    from realign_utils import fetch as fetching
    from realign_utils import profiles

    planned = fetching.plan(*profiles.load(profile, overrides))
    click.echo(planned)
    for item in planned.downloads:
        click.echo(f"  {item}")
    lines = fetching.told(planned, planned.faults) if dry_run else fetching.fetch(planned)
    if lines:
        _stop("\n".join(lines), 1)
    if dry_run and planned.downloads:
        sys.exit(1)
    if planned.downloads:
        click.echo(f"{planned.profile}: all of it is here now; a run needs no network")


@commands.command()
@click.argument("profile", default="demo")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts of the models.")
@click.option("--print-slurm", is_flag=True, help="Print a job array for sbatch; compute nothing.")
@click.option("--tasks", default=8, show_default=True, type=click.IntRange(1), help="Its size.")
@click.option("-p", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a parameter.")
def extract(
    profile: str, shard: str | None, print_slurm: bool, tasks: int, overrides: Sequence[str]
) -> None:
    """Compute the features of PROFILE into its store, which is all that a cluster is needed for."""
    from realign_utils import profiles, shards

    part = shards.read_shard(shard) if shard else None
    parameters, root = profiles.load(profile, overrides)
    if print_slurm:
        options = {"overrides": overrides, "tasks": tasks}
        click.echo(shards.slurm_script(profile, parameters, root, **options), nl=False)
        return
    done = shards.extract_profile(parameters, root, shard=part)
    for line in shards.lines_of(done):
        click.echo(line)
    if done.index.empty and len(done.failures):
        raise UserError(f"no model gave features: {done.failures['reason'][0]}")


@commands.command()
def parameters() -> None:
    """Print the schema of a profile: every key, its type, its default and what it means."""
    from realign_utils.parameters import documentation

    click.echo(documentation())


@commands.command()
@click.argument("matrix", type=click.Path(path_type=Path))
@click.option("-k", required=True, type=int, help="Size of the set.")
@click.option("--include", metavar="NAME", multiple=True, help="An item that is in it in any case.")
@click.option("--exclude", metavar="NAME", multiple=True, help="An item that is not in it.")
@click.option(
    "--pool", type=click.Path(path_type=Path), help="File of the names to choose from, one a line."
)
@click.option("--restarts", default=500, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--certify", "prove", is_flag=True, help="Bound the best possible set.")
@click.option(
    "--save-certificate",
    "proof",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Certify, and keep the proof for check-certificate.",
)
@click.option(
    "--time-limit",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds for --certify, and as many for the search of a large matrix.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Stem of the CSV and JSON.")
def select(matrix: Path, proof: Path | None, out: Path | None, **options: Any) -> None:
    """Choose the k most similar items of a labelled similarity MATRIX (a square CSV)."""
    from realign_utils.certificate_files import save_certificate
    from realign_utils.matrices import read_matrix
    from realign_utils.select_command import choose_items

    stem = out or Path(f"{matrix.stem}_k{options['k']}")
    _spare_inputs([*_outputs(stem), *([proof] if proof else [])], matrix, options["pool"])
    names, similarity = read_matrix(matrix)
    if names == tuple(str(row) for row in range(1, len(names) + 1)):
        click.echo("no labels found: items are named by their rows, counted from 1", err=True)
    options["prove"] = options["prove"] or proof is not None
    result, certificate = choose_items(
        names, similarity, show=partial(click.echo, err=True), **options
    )
    if proof and certificate:
        click.echo(f"written: {save_certificate(proof, certificate)}")
    _write_selection(stem, {"matrix": str(matrix), **result})


@commands.command("check-certificate")
@click.argument("certificate", type=click.Path(path_type=Path))
@click.argument("matrix", type=click.Path(path_type=Path))
def check_certificate(certificate: Path, matrix: Path) -> None:
    """Check a saved CERTIFICATE against its MATRIX (a square CSV), without solving anything."""
    from realign_utils.certificate_files import load_certificate
    from realign_utils.matrices import read_matrix
    from realign_utils.select_command import what_is_proved

    for line in what_is_proved(load_certificate(certificate), *read_matrix(matrix)):
        click.echo(line)


@commands.command()
@click.argument("submission", type=click.Path(path_type=Path))
@click.option("--profile", default="demo", show_default=True, help="Whose models and images.")
@click.option("--images", default="evaluation", show_default=True, help="Name of an image set.")
@click.option("-p", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a parameter.")
def score(submission: Path, profile: str, images: str, overrides: Sequence[str]) -> None:
    """Score a Blue or Red SUBMISSION (JSON) as the portal does."""
    from realign_utils import profiles
    from realign_utils.scoring import score_file

    settings, root = profiles.load(profile, overrides, kept=True)
    for line in score_file(submission, settings, root, images=images):
        click.echo(line)


@commands.command()
@click.argument("submission", type=click.Path(path_type=Path))
@click.option("--profile", help="Check against its models and k; default: the challenge's rules.")
def check(submission: Path, profile: str | None) -> None:
    """Say whether a SUBMISSION (JSON) is valid, and every reason why not."""
    from realign_utils.profiles import load, project_root, registry_of
    from realign_utils.registry import read_registry
    from realign_utils.submission import faults, read_submission

    entered, size = read_submission(submission), None
    if profile:
        parameters, root = load(profile, kept=True)
        registry = registry_of(parameters, root)
        size = parameters.k if entered.track == "blue" else None
    else:
        registry = read_registry(project_root() / "params" / "registry.csv")
    reasons = faults(entered, registry, size=size)
    if reasons:
        raise UserError("\n".join(f"{submission}: {reason}" for reason in reasons))
    click.echo(f"{submission}: valid, {len(entered.entries)} entries, {entered.track} track")


@commands.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "file", type=click.Path(path_type=Path), help="All of it, as data.")
def compare(first: str, second: str, file: Path | None) -> None:
    """Say which numbers differ between two runs, by how much, and why.

    FIRST and SECOND are folders of results (runs/demo) or names of profiles. Scores come with
    their change in the first run's standard errors. Exit code 0: no number differs; 1: some do;
    2: a run is missing or damaged.
    """
    from realign_utils.compare_runs import compare_runs
    from realign_utils.compare_text import as_data, lines_of
    from realign_utils.run_files import find_run, read_run

    found = compare_runs(*(read_run(find_run(name)) for name in (first, second)))
    for line in lines_of(found):
        click.echo(line)
    if file:
        click.echo(f"written: {write_json(file, as_data(found))}")
    if found.differ:
        sys.exit(1)


def _say_what_is_missing(parameters: Parameters, root: Path) -> None:
    """One line on what a run will download, where it will; no network is asked for it."""
    from realign_utils.parameters import image_sources

    if parameters.zoo and not any(
        getattr(source, "download", False) for source in image_sources(parameters).values()
    ):
        return  # and neither torch nor timm need be imported here
    from realign_utils import fetch

    planned = fetch.plan(parameters, root, ask=False)
    if planned.downloads:
        click.echo(planned)


def _outputs(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(stem.name + ".csv"), stem.with_name(stem.name + ".json")


def _spare_inputs(outputs: Sequence[Path], *inputs: Path | None) -> None:
    """Refuse to write over what is read, or one file over another."""
    taken = {path.resolve() for path in inputs if path}
    for path in outputs:
        if path.resolve() in taken:
            raise UserError(
                f"{path} would be overwritten; give another name by -o or for the proof"
            )
        taken.add(path.resolve())


def _write_selection(stem: Path, result: dict[str, Any]) -> None:
    """Write a chosen set as CSV and JSON beside each other, and show it."""
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(result["models"], 1))
    table, record = _outputs(stem)
    for path in (write_text(table, "number,model\n" + rows), write_json(record, result)):
        click.echo(f"written: {path}")
    for key, value in result.items():
        click.echo(f"{key}: {', '.join(value) if key == 'models' else value}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake is one line and exit code 2, a failed notebook 1."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("ignore", FutureWarning)  # of timm, and nothing that a user could mend
    try:
        commands.main(args=arguments, prog_name="realign", standalone_mode=False)
    except UserError as error:
        _stop(str(error), 2)
    except click.Abort:
        _stop("interrupted; what was computed stays", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), 2)
    except NotebookFailed as error:
        _stop(str(error), 1)


def _show_warning(message: Warning | str, *_: object) -> None:
    click.echo(f"realign: {message}", err=True)


def _stop(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"realign: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
