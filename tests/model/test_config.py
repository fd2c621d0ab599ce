"""A configuration is checked as a whole and survives its file."""

from __future__ import annotations

import json

import pytest

from sammed_data.types import UsageError
from sammed_model.config import TrainConfig


def test_all_problems_are_reported_together():
    with pytest.raises(UsageError) as caught:
        TrainConfig(method="sam-med3d", model="vit_x", lr=0, batch_images=0, steps=3, epochs=2)
    said = str(caught.value)
    for part in ("did you mean 'sam-med2d'", "vit_x", "--lr", "--batch", "not both"):
        assert part in said


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"modes": ("box",)}, "bbox"),
        ({"best": ("5pt",), "modes": ("bbox",)}, "must be among"),
        ({"minutes": -1.0}, "--minutes"),
        ({"image_size": 7}, "--image-size"),
        ({"lr": float("inf")}, "--lr must be finite"),
        ({"weight_decay": float("nan")}, "--weight-decay must be at least 0"),
    ],
)
def test_each_problem_names_its_option(changes, part):
    with pytest.raises(UsageError, match=part):
        TrainConfig(**changes)


def test_round_trip_and_strict_reading(tmp_path):
    config = TrainConfig(method="ft-sam", steps=7, modes=("bbox", "1pt"), lr=3e-4)
    path = tmp_path / "config.json"
    config.save(path)
    assert TrainConfig.load(path) == config
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"seeed": 3}))
    with pytest.raises(UsageError, match="did you mean 'seed'"):
        TrainConfig.load(path)
    path.write_text("weights")
    with pytest.raises(UsageError, match="--resume"):
        TrainConfig.load(path)
    with pytest.raises(UsageError, match="expected the configuration"):
        TrainConfig.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "change",
    [{"steps": "six"}, {"lr": None}, {"modes": "bbox"}, {"method": 5}, {"seed": 1.5},
     {"fast": "no"}, {"modes": [["bbox"]]}, {"steps": True}],
)  # fmt: skip
def test_a_value_of_another_type_is_named(tmp_path, change):
    path = tmp_path / "config.json"
    TrainConfig(steps=7).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=f"wrong type: {next(iter(change))} "):
        TrainConfig.load(path)


@pytest.mark.parametrize("content", [b"[1]", b"3", b"\x80\xff", b'{"a":'])
def test_what_is_no_configuration_is_said(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="expected the configuration of a training run"):
        TrainConfig.load(path)
