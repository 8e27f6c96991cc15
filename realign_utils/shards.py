"""A profile's extraction without the notebooks: whole, in shards, or as a job array of Slurm."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from realign_utils.architectures import require_architectures
from realign_utils.arithmetic import IMAGES, arithmetics, examined
from realign_utils.errors import UserError
from realign_utils.features import Extraction, extract
from realign_utils.images import first, load_images
from realign_utils.parameters import Parameters
from realign_utils.profiles import models_of, registry_files, sources_under
from realign_utils.settings import PLAIN
from realign_utils.words import counted
from realign_utils.workers import largest_first

SLURM = """#!/bin/bash
# The features of the profile {profile} on a Slurm cluster: {tasks} tasks, one GPU each. Made by
#   {made_by}
# which is also how to have another number of tasks: the array below must stay as it is.
#   bash FILE        on a machine with a network: fetches weights and images, then submits this file
#   sbatch FILE      submits it; sbatch --array=3 FILE does one task again, and computes only what is missing
# Afterwards, on a machine with such a GPU, all features are found computed by
#   {run}
# Change the other lines below to what your cluster wants.
#SBATCH --job-name=realign-{profile}
#SBATCH --array=1-{tasks}
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --output={logs}/%A_%a.txt
set -euo pipefail
file=$(realpath "$0")
cd {root}
if [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    {fetch} || echo "what is missing will be a row of failures.csv" >&2
    exec sbatch "$file"
fi
export HF_HUB_OFFLINE=1
{extract} --shard "$SLURM_ARRAY_TASK_ID/{tasks}"
"""


def read_shard(text: str) -> tuple[int, int]:
    """Number and count of a shard written ``i/n``; `UserError` unless 1 ≤ i ≤ n."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--shard {text!r} is not allowed: i/n with i from 1 to n, e.g. 3/8")
    return number, count


def shard_of(registry: pd.DataFrame, number: int, count: int) -> pd.DataFrame:
    """The models of one shard, about as heavy as any other.

    The largest model first, each goes to the shard that has the fewest parameters so far. All
    shards together are the registry, and no model is in two.

    Parameters
    ----------
    registry : pandas.DataFrame
        With the column params_m.
    number, count : int
        The shard from 1, and how many there are.

    Returns
    -------
    pandas.DataFrame
        In the order of the registry; empty where there are more shards than models.
    """
    loads, mine = [0.0] * count, []
    for row in largest_first(registry):
        lightest = loads.index(min(loads))
        loads[lightest] += row["params_m"]
        if lightest == number - 1:
            mine.append(row.name)
    return registry[registry.index.isin(mine)]


def extract_profile(
    parameters: Parameters, root: Path, *, shard: tuple[int, int] | None = None
) -> Extraction:
    """Extract the features of a profile, or of a shard of its models, into its store.

    Those in other arithmetic, which the report compares, are among them.

    Parameters
    ----------
    parameters : Parameters
        The profile.
    root : path
        Folder to which its paths refer.
    shard : tuple of int, optional
        Number from 1, and count.

    Returns
    -------
    Extraction

    Raises
    ------
    UserError
        If a file is missing or wrong, or the store cannot be written.
    """
    registry = models_of(parameters, root)
    require_architectures(registry, registry_files(parameters))
    probes = examined(registry, parameters.arithmetic_models)
    if shard:
        registry = shard_of(registry, *shard)
    sources = sources_under(parameters, root)
    sets = {name: load_images(source, name=name) for name, source in sources.items()}
    used = {key: getattr(parameters, key) for key in PLAIN}
    shared = {
        "store": root / parameters.store,
        "weights_dir": root / parameters.weights_dir if parameters.weights_dir else None,
        "device": parameters.device,
        "cluster": parameters.cluster,
        "batch_size": parameters.batch_size,
        "token_pooling": parameters.token_pooling,
        "interpolation": parameters.interpolation,
    }
    done = extract(registry, sets, **shared, **used)
    probes = probes[probes.index.isin(registry.index)]
    ways = arithmetics(parameters.arithmetic, used)
    few = first(sets[parameters.reference_proxy], IMAGES)
    for arithmetic in [PLAIN, *ways.values()] if ways and len(probes) else []:
        extract(probes, {few.name: few}, **shared, **arithmetic)
    return done


def lines_of(extraction: Extraction) -> list[str]:
    """What an extraction did, for the terminal: a line, and one for each failure."""
    index, failures = extraction.index, extraction.failures
    cached = int(index["cached"].sum())
    models = counted(index["model"].nunique(), "model")
    files = f"{counted(len(index), 'feature file')}: {len(index) - cached} computed, {cached}"
    return [
        f"{models}, {files} there already; failures: {len(failures)}",
        *(f"failed: {f.model} ({f.images}), {f.stage}: {f.reason}" for f in failures.itertuples()),
    ]


def slurm_script(
    profile: str, parameters: Parameters, root: Path, *, overrides: Sequence[str], tasks: int
) -> str:
    """A script for `sbatch`: a job array of shards with a GPU each, the weights fetched first.

    Also makes the folder for the tasks' output.

    Parameters
    ----------
    profile : str
        As given on the command line.
    parameters : Parameters
        The same, checked.
    root : path
        The project's folder, the same on all machines of the cluster.
    overrides : sequence of str
        ``key=value``, as given on the command line.
    tasks : int
        Size of the array.

    Returns
    -------
    str
        Executable by bash, too: it then fetches, and submits itself.

    Raises
    ------
    UserError
        If something cannot be written into one line of a script.
    """
    if any(not text.isprintable() for text in (profile, *overrides, str(root))):
        raise UserError("--print-slurm: a name or a value with a line break cannot be in a script")
    logs = root / parameters.runs / "slurm"
    logs.mkdir(parents=True, exist_ok=True)  # without it Slurm drops a task without a word
    program = str(Path(sys.executable).with_name("realign"))
    given = [
        Path(profile).absolute().as_posix() if profile.endswith((".yaml", ".yml")) else profile
    ]
    for override in overrides:
        given += ["-p", override]

    def command(name: str) -> str:
        return shlex.join([program, name, *given])

    return SLURM.format(
        profile=parameters.profile,
        tasks=tasks,
        made_by=shlex.join(["realign", "extract", *given, "--print-slurm", "--tasks", str(tasks)]),
        run=shlex.join(["realign", "run", *given]),
        logs=shlex.quote(logs.as_posix()),
        root=shlex.quote(root.as_posix()),
        fetch=command("fetch"),
        extract=command("extract"),
    )
