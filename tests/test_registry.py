from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realign_utils.errors import UserError
from realign_utils.registry import MECHANISMS, choose, describe, read_registry

PARAMS = Path(__file__).parents[1] / "params"

APPENDIX_A = {  # the table of Appendix A: model, architecture type
    "ecaresnetlight.miil_in1k": "ECA-ResNet",
    "cspdarknet53.ra_in1k": "CSP-DarkNet",
    "resnetblur50.bt_in1k": "ResNet + blur pool",
    "ecaresnet101d.miil_in1k": "ECA-ResNet",
    "tresnet_l.miil_in1k": "TResNet",
    "cs3darknet_focus_l.c2ns_in1k": "CSP-DarkNet v3",
    "darknetaa53.c2ns_in1k": "DarkNet + anti-alias",
    "bat_resnext26ts.ch_in1k": "BAT-ResNeXt (attn hybrid)",
    "cspresnext50.ra_in1k": "CSP-ResNeXt",
    "botnet26t_256.c1_in1k": "BotNet (attn hybrid)",
    "lambda_resnet26rpt_256.c1_in1k": "Lambda-ResNet (attn hybrid)",
    "halo2botnet50ts_256.a1h_in1k": "HaloBotNet (attn hybrid)",
    "cspresnet50.ra_in1k": "CSP-ResNet",
    "repvit_m0_9.dist_300e_in1k": "RepViT (mobile hybrid)",
    "eca_botnext26ts_256.c1_in1k": "ECA-BotNeXt (attn hybrid)",
    "densenet121.ra_in1k": "DenseNet",
    "densenetblur121d.ra_in1k": "DenseNet + blur pool",
    "halonet26t.a1h_in1k": "HaloNet (attn hybrid)",
    "darknet53.c2ns_in1k": "DarkNet",
    "gernet_l.idstcv_in1k": "GERNet",
}

HEADER = "model,layer,resize,crop,mean,std,family,mechanism,params_m"
CELLS = "resnet18,global_pool,36,32,0.5 0.5 0.5,0.2 0.2 0.2,resnet,convolution,11.2"


@pytest.fixture(scope="module")
def registry() -> pd.DataFrame:
    return read_registry(PARAMS / "registry.csv")


@pytest.fixture
def write(tmp_path: Path):
    def write_registry(*lines: str) -> Path:
        path = tmp_path / "registry.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_registry


# Reading


def test_columns_are_typed(registry: pd.DataFrame) -> None:
    row = registry.loc["bat_resnext26ts.ch_in1k"]
    assert (row["resize"], row["crop"], row["params_m"]) == (284, 256, 10.73)
    assert (row["mean"], row["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_optional_columns_have_defaults(write) -> None:
    row = read_registry(write(HEADER, CELLS)).loc["resnet18"]
    assert (row["architecture"], row["arguments"], row["alias"]) == ("resnet18", {}, "")
    assert np.isnan(row["accuracy"])


def test_optional_columns_are_read(write) -> None:
    columns = f"{HEADER},architecture,arguments,accuracy"
    row = read_registry(write(columns, f'{CELLS},test_resnet,"{{""in_chans"": 1}}",0.8')).iloc[0]
    assert (row["architecture"], row["accuracy"]) == ("test_resnet", 0.8)
    assert row["arguments"] == {"in_chans": 1}


def test_other_columns_are_numbers_where_every_cell_is_one(write) -> None:
    registry = read_registry(write(f"{HEADER},top1,remark", f"{CELLS},76.1,old"))
    assert choose(registry, "top1 > 76 and remark == 'old'").index.tolist() == ["resnet18"]


def test_what_a_spreadsheet_saves_is_read(tmp_path: Path) -> None:
    path = tmp_path / "registry.csv"
    path.write_bytes(f"{HEADER}\r\n{CELLS}\r\n,,,,,,,,\r\n".encode("utf-8-sig"))
    assert read_registry(path).index.tolist() == ["resnet18"]


@pytest.mark.parametrize(
    ("old", "new", "column", "reason"),
    [
        ("resnet18", "", "model", "is empty"),
        ("global_pool", "", "layer", "is empty"),
        ("36", "36.5", "resize", "is not a whole number of pixels"),
        ("32", "0", "crop", "is not a whole number of pixels"),
        ("32", "40", "crop", "is larger than the resized image (36)"),
        ("0.5 0.5 0.5", "0.5 0.5", "mean", "is not three numbers"),
        ("0.5 0.5 0.5", "0.5 0.5 nan", "mean", "is not a number"),
        ("0.2 0.2 0.2", "0.2 0.2 0", "std", "is not above 0"),
        ("convolution", "convolutional", "mechanism", "is none of convolution, attention"),
        ("11.2", "11M", "params_m", "is not a number"),
    ],
)
def test_a_bad_cell_is_named(write, old: str, new: str, column: str, reason: str) -> None:
    path = write(HEADER, CELLS.replace("resnet18", "other"), CELLS.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        read_registry(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line 3, column {column!r}: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("arguments", ["{", "[1]", "{'img_size': 32}"])
def test_arguments_that_are_no_json_object_are_refused(write, arguments: str) -> None:
    with pytest.raises(UserError, match=r"line 2, column 'arguments': .* is not (a )?JSON"):
        read_registry(write(f"{HEADER},arguments", f'{CELLS},"{arguments}"'))


def test_a_model_listed_twice_is_refused(write) -> None:
    with pytest.raises(UserError, match=r"line 3, column 'model': 'resnet18' stands .* line 2"):
        read_registry(write(HEADER, CELLS, CELLS))


def test_a_missing_column_is_named_with_its_nearest_match(write) -> None:
    with pytest.raises(UserError, match=r"line 1: the column 'layer' is missing; is it 'layers'"):
        read_registry(write(HEADER.replace("layer", "layers"), CELLS))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((f"{HEADER},crop", f"{CELLS},32"), "line 1: the column 'crop' stands there twice"),
        ((HEADER, f"{CELLS},1"), "line 2: 10 cells under 9 column names"),
        ((HEADER,), "no models"),
        ((HEADER, f'"{CELLS}'), "is not a CSV file"),
    ],
)
def test_a_misshapen_table_is_refused(write, lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_registry(write(*lines))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the registry .*none\.csv: No such file"):
        read_registry(tmp_path / "none.csv")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a CSV file in UTF-8"):
        read_registry(path)


# Choosing


def test_all_chooses_every_model(registry: pd.DataFrame) -> None:
    assert choose(registry, "all").index.equals(registry.index)


def test_a_list_keeps_its_own_order(registry: pd.DataFrame) -> None:
    names = ["vgg11.tv_in1k", "dla102.in1k"]
    assert choose(registry, names).index.tolist() == names


@pytest.mark.parametrize(
    "query",
    [
        "mechanism == 'hybrid' and params_m < 20",
        "mechanism=='hybrid' & params_m<20",
        "mechanism in ['hybrid'] and not params_m >= 20",
        "mechanism.isin(['hybrid']) and 0 < params_m < 20",
        "mechanism.str.contains('HYB', case=False)\n and params_m < 20\n",
    ],
)
def test_a_query_chooses_what_a_loop_would(registry: pd.DataFrame, query: str) -> None:
    expected = [
        name
        for name, row in registry.iterrows()
        if row["mechanism"] == "hybrid" and row["params_m"] < 20
    ]
    assert choose(registry, query).index.tolist() == expected


def test_a_query_may_use_the_model_names(registry: pd.DataFrame) -> None:
    assert choose(registry, "model.str.startswith('vgg')").index.tolist() == ["vgg11.tv_in1k"]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("famly == 'vit'", "did you mean 'family'?"),
        ("family == 'resnt'", "did you mean 'resnet' by 'resnt'?"),
        ("mechanism in ['mlp', 'hybird']", "did you mean 'hybrid'?"),
        ("mechanism == hybrid", "write 'hybrid' in quotes"),
        ("params_m < '20'", "cannot be evaluated"),
        ("family.str.contains('(')", "cannot be evaluated"),
        ("mechanism = 'hybrid'", "cannot be understood"),
        ("params_m", "is not true or false for each model"),
        ("vgg11.tv_in1k", "names of models need a list: [vgg11.tv_in1k]"),
        ("vgg11, dla102.in1k", "names of models need a list: [vgg11, dla102.in1k]"),
        ("resnet", "write 'resnet' in quotes"),
        ("params_m < 0", "chooses none of 141 models"),
        (["resnet101"], "did you mean 'resnet101.a1_in1k'?"),
        (["VGG11.TV_in1k"], "did you mean 'vgg11.tv_in1k'?"),
        (["vgg12.tv_in1k"], "did you mean 'vgg11.tv_in1k'?"),
        (["vgg11.tv_in1k", "vgg11.tv_in1k"], "is listed twice"),
        ([], "an empty list"),
        (20, "unknown model '20'"),
        ([{"model": "vgg11"}], "unknown model"),
    ],
)
def test_a_mistaken_choice_is_one_line(registry: pd.DataFrame, which: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        choose(registry, which)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "query",
    [
        "@registry",
        "family.__class__ == 1",
        "family.to_csv('evil')",
        "family.str.contains('vit', flags=family.to_csv('evil'))",
        "__import__('pathlib').Path('evil').touch()",
        "[open('evil', 'w') for _ in family]",
        "(lambda: family.to_csv('evil'))()",
        "f'{family.to_csv(chr(101))}' == ''",
        "params_m ** 9 ** 9 > 1",
    ],
)
def test_a_query_runs_no_code(
    registry: pd.DataFrame, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is not allowed|cannot be understood|unknown column"):
        choose(registry, query)
    assert list(tmp_path.iterdir()) == []


# What the paper and the challenge say of the models


def test_the_architecture_types_are_those_of_appendix_a(registry: pd.DataFrame) -> None:
    rows = choose(registry, list(APPENDIX_A))
    assert [describe(row) for _, row in rows.iterrows()] == list(APPENDIX_A.values())


def test_a_family_of_ones_own_is_described_as_written() -> None:
    assert describe({"family": "mynet", "mechanism": "mlp"}) == "Mynet"


def test_every_mechanism_occurs_and_is_explained(registry: pd.DataFrame) -> None:
    assert set(registry["mechanism"]) == set(MECHANISMS)


@pytest.mark.parametrize(("column", "text"), [("layer", "pooling"), ("model", "tnt_s_patch16_224")])
def test_what_a_newer_timm_renamed_has_an_alias(
    registry: pd.DataFrame, column: str, text: str
) -> None:
    renamed = registry.reset_index().query("alias.str.startswith(@column)")
    assert renamed[column].tolist() == [text]


# What was published


@pytest.fixture(scope="module")
def published() -> dict[str, pd.DataFrame]:
    folder = PARAMS / "published"
    s1 = pd.read_csv(folder / "s1_cifar100_cka_digitised.csv", header=None)
    s4 = pd.read_csv(folder / "s4_cifar100_cka_digitised.csv", index_col=0)
    return {"S1": s1, "S4": s4}


@pytest.mark.parametrize("name", ["S1", "S4"])
def test_a_digitised_matrix_is_exactly_symmetric(published, name: str) -> None:
    matrix = published[name].to_numpy()
    assert matrix.shape == (20, 20)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)


@pytest.mark.parametrize(("name", "mean"), [("S1", 0.7495), ("S4", 0.7606)])
def test_a_digitised_matrix_keeps_its_mean(published, name: str, mean: float) -> None:
    matrix = published[name].to_numpy()
    assert matrix[np.triu_indices(20, 1)].mean() == pytest.approx(mean, abs=5e-5)


def test_the_lowest_digitised_pair_of_s4_is_far_above_the_papers(published) -> None:
    lowest = published["S4"].stack()
    assert set(lowest.idxmin()) == {"bat_resnext26ts.ch_in1k", "gernet_l.idstcv_in1k"}
    assert lowest.min() == pytest.approx(0.713, abs=5e-4)


def test_the_models_that_agree_most_in_the_digitised_s4_are_figure_6s(published) -> None:
    mean_with_others = (published["S4"].sum() - 1) / 19
    top = mean_with_others.nlargest(3).index.str.partition(".").get_level_values(0)
    assert top.tolist() == ["resnetblur50", "cspresnext50", "ecaresnetlight"]
    assert mean_with_others.min() == pytest.approx(0.746, abs=5e-4)
    assert mean_with_others.max() == pytest.approx(0.792, abs=6e-4)


def test_the_digitised_s4_is_in_the_order_of_appendix_a(published) -> None:
    assert published["S4"].index.tolist() == published["S4"].columns.tolist() == list(APPENDIX_A)


def test_the_portals_ratios_are_real_over_proxy() -> None:
    portal = pd.read_csv(PARAMS / "portal.csv", index_col="submission")
    assert portal.index.tolist() == ["S1", "S2", "S3", "S4"]
    np.testing.assert_allclose(portal["ratio"], portal["real"] / portal["cifar100"], atol=1e-3)
