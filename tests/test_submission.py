"""What is submitted: the portal's JSON and its rules."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from realign_utils import submission
from realign_utils.errors import UserError
from realign_utils.registry import read_registry

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def registry() -> pd.DataFrame:
    return read_registry(ROOT / "params" / "registry.csv")


def blue(registry: pd.DataFrame, size: int = 20) -> dict:
    return submission.portal_json(list(registry.index[:size]), registry)


def judged(value: object, registry: pd.DataFrame, tmp_path: Path) -> list[str]:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(value))
    return submission.faults(submission.read_submission(path), registry)


def test_what_is_saved_is_valid_and_in_the_form_of_appendix_a(registry, tmp_path) -> None:
    table = submission.save_submission(tmp_path / "S1", list(registry.index[:20]), registry)
    read = submission.read_submission(tmp_path / "S1.json")
    assert submission.faults(read, registry) == []
    assert pd.read_csv(tmp_path / "S1.csv").equals(table)
    assert len((tmp_path / "S1.md").read_text().splitlines()) == 22


def test_the_form_of_2025_is_valid_too(registry, tmp_path) -> None:
    names = [
        {"model_name": m, "source": "timm", "model_parameters": None} for m in registry.index[:20]
    ]
    assert judged({"models": names}, registry, tmp_path) == []


def test_a_wrong_number_of_models_is_told(registry, tmp_path) -> None:
    assert judged(blue(registry, 19), registry, tmp_path) == ["19 models; exactly 20 are required"]


def test_every_fault_is_told_at_once(registry, tmp_path) -> None:
    value = blue(registry)
    value["models"][0]["model_name"] = "aimv2_1b_patch14_224.aple_pt"
    value["models"][1]["layer_name"] = "head"
    value["models"][2]["colour"] = "red"
    value["models"][3] = dict(value["models"][4])
    reasons = "\n".join(judged(value, registry, tmp_path))
    assert "did you mean 'aimv2_1b_patch14_224.apple_pt'" in reasons
    assert (
        "layer 'head' of bat_resnext26ts.ch_in1k; the registry's is 'head.global_pool'" in reasons
    )
    assert "model 3: the keys are" in reasons
    assert "is submitted 2 times" in reasons


def red(size: int) -> dict:
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, size + 1)]
    return {
        "differentiating_images": [
            {"dataset_name": "imagenet_val", "image_identifier": n} for n in names
        ]
    }


def test_a_thousand_images_of_the_catalog_are_valid(registry, tmp_path) -> None:
    value = red(999)
    name = "objectnet-1.0/images/air_freshener/0123456789abcde.png"
    value["differentiating_images"].append({"dataset_name": "objectnet", "image_identifier": name})
    assert judged(value, registry, tmp_path) == []


@pytest.mark.parametrize(
    ("dataset", "identifier", "reason"),
    [
        ("imagenet_vall", "ILSVRC2012_val_00000001.JPEG", "did you mean 'imagenet_val'"),
        ("imagenet_val", "val/ILSVRC2012_val_00000001.JPEG", "is not of the form"),
        ("objectnet", "objectnet-1.0/images/../../x/0123456789abcde.png", "is not of the form"),
        ("imagenet_val", "ILSVRC2012_val_00000007.JPEG", "is submitted twice"),
    ],
)
def test_a_wrong_image_is_told(registry, tmp_path, dataset, identifier, reason) -> None:
    value = red(1000)
    value["differentiating_images"][0] = {"dataset_name": dataset, "image_identifier": identifier}
    reasons = judged(value, registry, tmp_path)
    assert len(reasons) == 1
    assert reason in reasons[0]


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "{}", '{"models": 3}', '{"models": [1]}', "[" * 9000]
)
def test_a_file_that_is_no_submission_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        submission.read_submission(path)
    assert len(str(error.value).splitlines()) == 1
