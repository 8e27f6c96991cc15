"""Profiles: a fault stops before any work, in one line with the nearest match."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from realign_utils import cli
from realign_utils.errors import UserError
from realign_utils.parameters import Parameters, documentation, image_sources
from realign_utils.profiles import load
from realign_utils.registry import choose, read_registry

ROOT = Path(__file__).parent.parent
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))

FAULTS = {
    "restart=5": "restart: unknown parameter 'restart'; did you mean 'restarts'?",
    "proxies.cifar100.numbr=3": "proxies.cifar100.numbr: unknown parameter 'numbr'; did you mean 'number'?",
    "proxies.cifar100.kind=cifar10": "proxies.cifar100.kind: unknown kind of images 'cifar10'; did you mean",
    "proxies.cifar100.number=-3": "proxies.cifar100.number: should be greater than or equal to 8, not -3",
    "proxies.cifar100.number=7": "proxies.cifar100.number: should be greater than or equal to 8, not 7",
    "k=50": "submissions.S4: k = 50 is larger than the pool 'cnn_and_light_hybrids' of 41 models",
    "k=2.5": "k: should be a valid integer, not 2.5",
    "batch_size=many": "batch_size: should be a valid integer, not 'many'",
    "dtype=float31": "dtype: unknown value 'float31'; did you mean 'float32'?",
    "device=gpu": "device: 'gpu' is not allowed: auto (all GPUs",
    "device=cuda:0,tpu": "device: 'cuda:0,tpu' is not allowed: auto (all GPUs",
    "cluster=host:8786": "cluster: 'host:8786' is not allowed: Dask cluster",
    "cluster=local:0": "cluster: 'local:0' is not allowed: Dask cluster",
    "arithmetic=[bfloat15]": "arithmetic: unknown value 'bfloat15'; did you mean 'bfloat16'?",
    "models=[resnet5]": "models: unknown model 'resnet5'",
    "pools.cnn=mechansm == 'x'": "pools.cnn: unknown column in the query",
    "submissions.S1.pool=ful": "submissions.S1: unknown pool 'ful'; did you mean 'full'?",
    "submissions.S1.proxies={cifar10: 1}": "submissions.S1: unknown proxy 'cifar10'; did you mean",
    "submissions.S1.proxies={cifar100: 0}": "submissions.S1: proxies: the weights sum to zero",
    "submissions.S1.models=[a, b]": "submissions.S1: give either models, or pool and proxies",
    "submissions.S2.models=[vgg11]": "submissions.S2: unknown model 'vgg11'; did you mean 'vgg11.tv_in1k'?",
    "submissions.S1.objective=wurst": "unknown value 'wurst'; did you mean 'worst'?",
    "submissions.S1.objective=worst": "submissions.S1: objective: worst needs two proxies or more",
    "submissions.S2.objective=worst": "submissions.S2: objective and constraints are of the search",
    "submissions.S1.constraints={inclde: [x]}": "constraints.inclde: unknown parameter",
    "submissions.S1.constraints={include: [vgg11]}": "constraints: unknown model 'vgg11'; did you mean",
    "submissions.S4.constraints={include: [vgg11.tv_in1k]}": "is not among the 41 models that can be chosen",
    "submissions.S1.constraints={counts: {famly == 'vit': {at_most: 1}}}": "unknown column in the query",
    "submissions.S1.constraints={counts: {family == 'vit': {at_mst: 1}}}": "did you mean 'at_most'?",
    "submissions.S1.constraints={counts: {mechanism == 'mlp': {at_least: 20}}}": (
        "no 20 of the 141 candidates can keep \"at least 20 of mechanism == 'mlp'\""
    ),
    "submissions.S1.constraints={params_m: {at_most: 3}}": "keep 'at most 3 M parameters in all'",
    "submissions.S1.constraints={include: [vgg11.tv_in1k], exclude: [vgg11.tv_in1k]}": (
        "can keep 'vgg11.tv_in1k fixed in' and 'vgg11.tv_in1k fixed out'"
    ),
    "larger={cifar10: 2000}": "larger: unknown proxy 'cifar10'; did you mean 'cifar100'?",
    "larger={cifar100: 500}": "larger.cifar100: 500 is not more than the proxy's own number, 500",
    "larger={cifar100: many}": "larger.cifar100: should be a valid integer, not 'many'",
    "calibration_proxies={imagenette: {kind: cifar100}}": "the name 'imagenette' is taken",
    "calibration_proxies={evaluation: {kind: cifar100}}": "the name 'evaluation' is taken",
    "calibration_proxies={a: {kind: cifar100, clases: [apple]}}": "did you mean 'classes'?",
    "reference_proxy=cifar10": "reference_proxy: unknown proxy 'cifar10'; did you mean 'cifar100'?",
    "highlight=S9": "highlight: unknown submission 'S9'",
    "portal=nowhere.csv": "portal: no such file: nowhere.csv",
    "registry=nowhere.csv": "nowhere.csv",
    "evaluation={kind: imagefolder}": "evaluation.path: is missing",
    "zoo={}": "zoo.table: is missing",
}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_of_the_project_is_valid(profile: str) -> None:
    parameters, root = load(profile, root=ROOT)
    assert parameters.profile == profile
    assert root == ROOT


def test_a_larger_set_is_its_proxy_with_more_images() -> None:
    parameters, _ = load("paper", ["larger={cifar100: 2000}"], root=ROOT)
    sources = image_sources(parameters)
    more = {"number": sources["cifar100_larger"].number}
    assert sources["cifar100_larger"].model_dump() == sources["cifar100"].model_dump() | more
    assert more == {"number": 2000}


@pytest.mark.parametrize("override", FAULTS)
def test_a_fault_is_one_line_with_what_is_allowed(override: str) -> None:
    with pytest.raises(UserError) as error:
        load("paper", [override], root=ROOT)
    first = str(error.value).splitlines()[0]
    assert first.startswith("paper.yaml: ")
    assert FAULTS[override] in str(error.value)


def test_an_unknown_profile_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown profile 'papr'; did you mean 'paper'"):
        load("papr", root=ROOT)


def test_a_file_that_is_not_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("a: [1")
    with pytest.raises(UserError, match=r"my.yaml: not valid YAML") as error:
        load(str(path), root=ROOT)
    assert "\n" not in str(error.value)


def test_yaml_may_not_make_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("profile: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not valid YAML"):
        load(str(path), root=ROOT)


def test_a_profile_may_extend_another_but_not_itself(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("extends: paper\nseed: 3")
    parameters, _ = load(str(path), root=ROOT)
    assert parameters.seed == 3
    assert (parameters.profile, parameters.runs) == ("my", "runs/my")
    path.write_text(f"extends: {path}")
    with pytest.raises(UserError, match="extends itself"):
        load(str(path), root=ROOT)


def test_a_profile_with_proxies_of_its_own_does_not_take_more_images_of_the_other_s(tmp_path):
    path = tmp_path / "my.yaml"
    proxy = "{kind: patches, split: proxy_full, number: 20}"
    path.write_text(f"extends: demo\nproxies: {{cifar100_like: {proxy}, imagenette_like: {proxy}}}")
    parameters, _ = load(str(path), root=ROOT)
    assert (parameters.larger, parameters.calibration_proxies) == ({}, {})
    path.write_text("extends: demo\nk: 5")
    assert load(str(path), root=ROOT)[0].larger == {"cifar100_like": 2000}


def readme_commands() -> list[list[str]]:
    lines = (ROOT / "README.md").read_text().splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("realign ")]


@pytest.mark.parametrize("command", readme_commands(), ids=" ".join)
def test_every_command_of_the_readme_is_understood(command: list[str]) -> None:
    name, *rest = command
    parsed = cli.commands.commands[name].make_context(name, rest).params
    if parsed.get("profile") in PROFILES:
        load(parsed["profile"], parsed.get("overrides", ()), root=ROOT)


def readme_profiles() -> list[str]:
    blocks = (ROOT / "README.md").read_text().split("```yaml\n")[1:]
    return [block.partition("```")[0] for block in blocks]


@pytest.mark.parametrize("text", readme_profiles())
def test_every_profile_of_the_readme_is_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(text)
    assert load(str(tmp_path / "my.yaml"), root=ROOT)[0].profile == "my"


def test_the_readme_has_no_gap_left_to_fill() -> None:
    assert "@" not in (ROOT / "README.md").read_text()


def test_an_override_reaches_inside() -> None:
    parameters, _ = load("paper", ["proxies.cifar100.number=1000"], root=ROOT)
    assert parameters.proxies["cifar100"].number == 1000


@pytest.mark.parametrize("override", ["k", "=3", "nothing.there=3", "k.x=3"])
def test_a_malformed_override_is_told(override: str) -> None:
    with pytest.raises(UserError, match=r"-p|unknown parameter"):
        load("paper", [override], root=ROOT)


def test_the_published_set_is_in_the_pool_that_the_paper_names() -> None:
    parameters, _ = load("paper", root=ROOT)
    pool = choose(
        read_registry(ROOT / parameters.registry), parameters.pools["cnn_and_light_hybrids"]
    )
    assert set(parameters.submissions["S4_published"].models) <= set(pool.index)


def test_the_documentation_names_every_parameter_with_its_meaning() -> None:
    text = documentation()
    for name, field in Parameters.model_fields.items():
        assert f"| `{name}` |" in text
        assert field.description in text
