"""Profiles: a fault stops before any work, in one line with the nearest match."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from realign_utils import cli
from realign_utils.errors import UserError
from realign_utils.parameters import Parameters, documentation, image_sources
from realign_utils.profile_files import read_yaml
from realign_utils.profiles import load
from realign_utils.registry import choose, read_registry
from realign_utils.submission import portal_json

ROOT = Path(__file__).parent.parent
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))

FAULTS = {
    "restart=5": "restart: unknown parameter 'restart'; did you mean 'restarts'?",
    "K=5": "K: unknown parameter 'K'; did you mean 'k'?",
    "profile=my run": "profile: the name 'my run' (of the file, where it gives none) is not allowed: letters",
    "models=vgg11.tv_in1k": "models: 'vgg11.tv_in1k' is no query; names of models need a list: [vgg11",
    "seed={a: 1, a: 2}": "-p 'seed={a: 1, a: 2}': line 1: the key 'a' stands already in line 1",
    "proxies.cifar100.numbr=3": "proxies.cifar100.numbr: unknown parameter 'numbr'; did you mean 'number'?",
    "proxies.cifar100.classes=brick": "classes: unknown value 'brick'; allowed: all, or a list of names",
    "proxies.cifar100.classes=al": "did you mean 'all'?; allowed: all, or a list of names",
    "proxies.cifar100.classes=[1]": "classes: a name in the list should be a string, not 1",
    "models=3": "models: should be a string, or a list of names, not 3",
    "pools.cnn=[a, 3]": "pools.cnn: a name in the list should be a string, not 3",
    "proxis.cifar100.number=9": (
        "-p 'proxis.cifar100.number=9': unknown parameter 'proxis'; did you mean 'proxies'?"
    ),
    "tittle.x=9": "unknown parameter 'tittle'; did you mean 'title'?",
    "zo.epochs=9": "unknown parameter 'zo'; did you mean 'zoo'?",
    "proxies.cifar10.number=9": "proxies: unknown parameter 'cifar10'; did you mean 'cifar100'?",
    "submissions.S1.constrains.include=[a]": (
        "submissions.S1: unknown parameter 'constrains'; did you mean 'constraints'?"
    ),
    "k.x.y=3": "-p 'k.x.y=3': k has no parts",
    "larger.cifar10=2000": "larger: unknown proxy 'cifar10'; did you mean 'cifar100'?",
    "proxies.cifar100.kind=cifar10": "proxies.cifar100.kind: unknown kind of images 'cifar10'; did you mean",
    "proxies.cifar100.number=-3": "proxies.cifar100.number: should be greater than or equal to 8, not -3",
    "proxies.cifar100.number=7": "proxies.cifar100.number: should be greater than or equal to 8, not 7",
    "k=50": "submissions.S4: k = 50 is larger than the pool 'cnn_and_light_hybrids' of 41 models",
    "k=2.5": "k: should be a valid integer, not 2.5",
    "batch_size=many": "batch_size: should be a valid integer, not 'many'",
    "dtype=float31": "dtype: unknown value 'float31'; did you mean 'float32'?",
    "estimator=unbiased": (
        "paper.yaml: estimator: unknown estimator 'unbiased'; "
        "CKA of the unbiased HSIC is 'debiased' here; allowed: biased, debiased"
    ),
    "estimator=debias": "estimator: unknown estimator 'debias'; did you mean 'debiased'?",
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
    "proxies={pool: {kind: cifar100}}": "proxies: the name 'pool' is taken by a column of the tables; try",
    "calibration_proxies={missing: {kind: cifar100}}": "proxies: the name 'missing' is taken by a column",
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
    assert first.startswith(("paper.yaml: ", "-p "))
    assert FAULTS[override] in str(error.value)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("name,real\nS1,0.7\n", "no column 'submission' among name, real; submission and real are"),
        ("submission\nS1\n", "no column 'real' among submission; submission and real are needed"),
        ("submission,real\nS1,high\n", "the column 'real' has text: scores are numbers"),
        ("", "is not a CSV file in UTF-8: No columns"),
    ],
)
def test_a_portal_table_without_its_columns_is_told(table: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "portal.csv").write_text(table)
    with pytest.raises(UserError) as error:
        load("paper", [f"portal={tmp_path}/portal.csv"], root=ROOT)
    assert str(error.value).startswith(f"paper.yaml: portal: {tmp_path}/portal.csv")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_names_of_portal_rows_are_text(tmp_path: Path) -> None:
    for name in ("1", "NA"):
        (tmp_path / "portal.csv").write_text(f"submission,real\n{name},0.7\n2,0.6\n")
        changed = [f"portal={tmp_path}/portal.csv"]
        rows = [f"submissions.{s}.portal='{name}'" for s in ("S1", "S2", "S3")]
        rows += [f"submissions.{s}.portal='2'" for s in ("S4", "S4_published")]
        load("paper", [*changed, *rows], root=ROOT)
        with pytest.raises(UserError, match=r"unknown row of the portal table '3'.*: 1, 2|NA, 2"):
            load("paper", [*changed, *rows, "submissions.S1.portal='3'"], root=ROOT)


def test_an_unknown_profile_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown profile 'papr'; did you mean 'paper'"):
        load("papr", root=ROOT)


@pytest.mark.parametrize("text", ["a: [1", "title: 2024-13-45"])
def test_a_file_that_is_not_yaml_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"my.yaml: not valid YAML") as error:
        load(str(path), root=ROOT)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: demo\nk: 5\nseed: 1\nk: 7", "line 4: the key 'k' stands already in line 2"),
        ("zoo: {epochs: 1, epochs: 2}", "line 1: the key 'epochs' stands already in line 1"),
        ("tags: [{a: 1,\na: 2}]", "line 2: the key 'a' stands already in line 1"),
        ("a: &a {b: 1}\nc: {<<: *a, b: 2,\nb: 3}", "line 3: the key 'b' stands already in line 2"),
    ],
)
def test_a_key_that_stands_twice_is_told_with_its_line(text: str, told: str, tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load(str(path), root=ROOT)
    assert str(error.value) == f"{path}: {told}"
    path.write_text(
        "extends: demo\npools: {full: &a {x: 1}, b: {<<: *a, x: 2}}"
    )  # one is merged in
    with pytest.raises(UserError, match="pools"):
        load(str(path), root=ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "z: &z {k: 0}\nx: {a: &a {<<: *z, k: 1}}\nb: {<<: *a}",
        "z: &z {k: 0}\na: &a\n  <<: *z\n  k: 1\nb: {<<: [*a, *z], k: 2}\nc: *a",
        "a: &a {k: [1, {k: 2}]}\nb: [*a, *a]",
        "- k\n- k",
        "",
    ],
)
def test_what_is_merged_or_stands_in_two_mappings_stands_twice_in_none(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)


def test_a_profile_that_extends_none_is_told_how(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("profile: my\nk: five\nzoo: {}")
    with pytest.raises(UserError) as error:
        load(str(path), root=ROOT)
    first, *others = str(error.value).splitlines()
    assert first.startswith("my.yaml: title, registry, proxies, pools, ")
    assert first.endswith("are missing; 'extends: demo' takes what is not given from the demo")
    assert others[0] == "my.yaml: k: should be a valid integer, not 'five'"
    assert others[1] == "my.yaml: zoo.table: is missing"


def test_yaml_may_not_make_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("profile: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not valid YAML"):
        load(str(path), root=ROOT)


def test_a_profile_may_extend_another(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("extends: paper\nseed: 3")
    parameters, _ = load(str(path), root=ROOT)
    assert parameters.seed == 3
    assert (parameters.profile, parameters.runs) == ("my", "runs/my")


@pytest.mark.parametrize(
    "base", ["{path}", "my.yaml", "../{folder}/my.yaml", "link.yaml", "heir.yaml"]
)
def test_a_profile_may_not_extend_itself_by_any_path(base: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"extends: {base.format(path=path, folder=tmp_path.name)}")
    (tmp_path / "link.yaml").symlink_to(path)
    (tmp_path / "heir.yaml").write_text(f"extends: ../{tmp_path.name}/my.yaml")
    with pytest.raises(UserError, match="extends itself") as error:
        load(str(path), root=ROOT)
    assert "\n" not in str(error.value)


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    """A project with a variant of the demo that was run as k6."""
    for name in ("params", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    parameters, _ = load("demo", ["k=6", "profile=k6"], root=tmp_path)
    (tmp_path / "runs" / "k6").mkdir(parents=True)
    values = parameters.model_dump(mode="json")
    (tmp_path / "runs" / "k6" / "parameters.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def test_a_variant_is_called_by_its_name_where_nothing_is_computed(variant: Path) -> None:
    parameters, _ = load("k6", root=variant, kept=True)
    assert (parameters.profile, parameters.k, parameters.runs) == ("k6", 6, "runs/k6")
    assert load("demo", root=variant, kept=True)[0].k == 8


def test_a_variant_is_no_profile_to_run_but_its_record_is(variant: Path, monkeypatch) -> None:
    monkeypatch.chdir(variant)
    told = r"unknown profile 'k6': it is a run in runs/k6; .* or runs/k6/parameters.yaml to have it"
    with pytest.raises(UserError, match=told):
        load("k6", root=variant)
    assert load("runs/k6/parameters.yaml", root=variant)[0].profile == "k6"


def test_a_submission_of_a_variant_is_checked_by_its_name(variant: Path, monkeypatch, capsys):
    zoo = variant / "runs" / "k6" / "zoo"
    zoo.mkdir()
    (zoo / "registry.csv").symlink_to(ROOT / "params" / "zoo.csv")
    models = load("demo", root=ROOT)[0].submissions["S2"].models[:6]
    entered = portal_json(models, read_registry(zoo / "registry.csv"))
    (variant / "S2.json").write_text(json.dumps(entered))
    monkeypatch.chdir(variant)
    cli.main(["check", "S2.json", "--profile", "k6"])
    assert "S2.json: valid, 6 entries" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_a_profile_may_not_have_the_name_of_one_of_the_project(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text("extends: demo\nk: 5")
    with pytest.raises(UserError) as error:
        load(str(path), root=ROOT)
    told = f"{name}.yaml: profile: '{name}' is the name of a profile that the project ships"
    assert str(error.value).startswith(told)
    assert str(error.value).endswith("rename the file, or give another name")
    assert load(str(path), ["profile=mine"], root=ROOT)[0].runs == "runs/mine"


def test_a_shipped_profile_keeps_its_name_by_its_path_and_its_record(variant: Path) -> None:
    for profile in ("params/demo.yaml", "runs/demo/parameters.yaml"):
        path = variant / profile
        if not path.exists():
            path.parent.mkdir()
            path.write_text("extends: ../../params/demo.yaml\nprofile: demo\nruns: runs/demo")
        assert load(str(path), root=variant)[0].profile == "demo"
    with pytest.raises(UserError, match="profile: 'quick' is the name of a profile"):
        load("demo", ["profile=quick"], root=variant)


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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the tables, images and weights that the README's own models are said to have."""
    (tmp_path / "params").symlink_to(ROOT / "params")
    for name in ("weights", "images/coarse", "images/fine", "images/held_out"):
        (tmp_path / "my" / name).mkdir(parents=True)
    registry = (ROOT / "README.md").read_text().partition("```csv\n")[2].partition("```")[0]
    (tmp_path / "my" / "registry.csv").write_text(registry)
    return tmp_path


@pytest.mark.parametrize("text", readme_profiles())
def test_every_profile_of_the_readme_is_valid(text: str, project: Path) -> None:
    (project / "my.yaml").write_text(text)
    assert load(str(project / "my.yaml"), root=project)[0].profile == "my"


def test_the_readme_s_own_models_take_no_image_or_model_from_the_demo(project: Path) -> None:
    text = next(text for text in readme_profiles() if "registry:" in text)
    (project / "my.yaml").write_text(text)
    parameters, _ = load(str(project / "my.yaml"), root=project)
    assert {source.kind for source in image_sources(parameters).values()} == {"imagefolder"}
    assert (parameters.zoo, parameters.registry) == (None, "my/registry.csv")
    assert parameters.title != load("demo", root=ROOT)[0].title


@pytest.mark.parametrize("key", ["registry", "weights_dir"])
def test_what_a_zoo_would_replace_is_refused(key: str, project: Path) -> None:
    path = project / "my.yaml"
    path.write_text(f"extends: demo\n{key}: my/own")
    told = (
        rf"^my.yaml: {key} \(my/own\) would be ignored, .*zoo \(of params/zoo.csv\): set zoo: null"
    )
    with pytest.raises(UserError, match=told):
        load(str(path), root=ROOT)
    path.write_text("extends: paper\nzoo: {table: params/zoo.csv, images: {kind: patches}}")
    with pytest.raises(UserError) as error:  # the paper's registry is none of this profile's own
        load(str(path), root=ROOT)
    assert "would be ignored" not in str(error.value)


def test_the_readme_has_no_gap_left_to_fill() -> None:
    assert "@" not in (ROOT / "README.md").read_text()


def test_an_override_reaches_inside() -> None:
    parameters, _ = load("paper", ["proxies.cifar100.number=1000"], root=ROOT)
    assert parameters.proxies["cifar100"].number == 1000


@pytest.mark.parametrize(
    ("override", "group", "kept"),
    [
        ("larger.cifar100=2000", "larger", {"cifar100": 2000}),
        ("evaluation.kind=cifar100", "evaluation", {"kind": "cifar100"}),
        ("submissions.S1.constraints.params_m.at_most=900", "submissions", {"at_most": 900}),
    ],
)
def test_an_override_reaches_inside_what_the_profile_does_not_give(override, group, kept) -> None:
    values = load("paper", [override], root=ROOT)[0].model_dump(exclude_unset=True)[group]
    if group == "submissions":
        values = values["S1"]["constraints"]["params_m"]
    assert values == kept


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
