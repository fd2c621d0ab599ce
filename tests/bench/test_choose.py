"""Which models are meant: names, files, kinds, factories, the newest runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sammed_bench.choose import choose, load, parse_model
from sammed_bench.types import ImagePrompts
from sammed_data.types import ModelError, UsageError
from sammed_model.adapters import add_adapters
from sammed_model.checkpoint import save_model
from sammed_model.sam import build_sam, spec_for


def _run(runs, number, method, **record):
    folder = runs / f"{number:03d}-{method}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    content = {"method": method, "control": "none", "init": "random"} | record
    (folder / "run.json").write_text(json.dumps(content))
    return folder / "model.safetensors"


def test_forms_of_a_model(tmp_path):
    file = tmp_path / "w.pth"
    file.write_bytes(b"x")
    assert parse_model("oracle").label == "oracle"
    found = parse_model(f"mine={file}:sam")
    assert (found.label, found.path, found.kind) == ("mine", file, "sam")
    assert parse_model(f"mine={file}").path == file
    assert parse_model("mine=bench_fakes:make_bright").factory == "bench_fakes:make_bright"
    assert parse_model("bench_fakes:make_bright").label == "make_bright"
    for bad in ("", "=x", "mine="):
        with pytest.raises(UsageError, match="LABEL=PATH"):
            parse_model(bad)
    with pytest.raises(ModelError, match=r"'samm'.*did you mean 'sam'"):
        parse_model(f"mine={file}:samm")


def test_the_newest_runs_and_their_start(tmp_path):
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"")
    runs = tmp_path / "runs"
    _run(runs, 1, "ft-sam")
    ft = _run(runs, 2, "ft-sam", init=str(start))
    med = _run(runs, 3, "sam-med2d", init=str(start))
    control = _run(runs, 4, "ft-sam", control="permuted", init=str(start))
    (runs / "005-ft-sam").mkdir()  # not finished
    found = choose([], runs)
    assert [(w.label, w.path) for w in found] == [
        ("sam", start),
        ("ft-sam", ft),
        ("sam-med2d", med),
        ("ft-sam-permuted", control),
    ]
    assert choose(["sam-med2d", "sam"], runs)[0].path == med
    with pytest.raises(UsageError, match="did you mean 'ft-sam'"):
        choose(["ftsam"], runs)
    with pytest.raises(UsageError, match="'sam' twice"):
        choose(["sam", "sam=x.pth"], runs)
    with pytest.raises(ModelError, match="sammed train"):
        choose([], tmp_path / "nothing")
    with pytest.raises(ModelError, match="--model medsam=PATH"):
        choose(["medsam"], runs)


def test_loading(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(build_sam(spec_for("vit_tiny"), 0, kind="ft-sam"), path, recipe="tiny")
    facts = load(parse_model(f"mine={path}"), "cpu").facts
    assert (facts.name, facts.kind, facts.recipe) == ("mine", "ft-sam", "tiny")
    assert load(parse_model("b=bench_fakes:make_bright"), "cpu").facts.name == "b"
    assert load(parse_model("oracle"), "cpu").facts.name == "oracle"


def test_loading_says_what_is_wrong(tmp_path):
    text = tmp_path / "notes.pth"
    text.write_text("not weights")
    with pytest.raises(ModelError, match=r"notes\.pth"):
        load(parse_model(f"sam={text}:sam"), "cpu")
    with pytest.raises(ModelError, match="found no file"):
        load(parse_model(f"sam={tmp_path / 'no.pth'}"), "cpu")
    with pytest.raises(ModelError, match="without facts, encode, predict"):
        load(parse_model("x=bench_fakes:make_nothing"), "cpu")
    with pytest.raises(ModelError, match="package.module:function"):
        load(parse_model("x=bench_fakes:nothing_here"), "cpu")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_broken_record_of_a_run_is_a_sentence(tmp_path, text):
    runs = tmp_path / "runs"
    _run(runs, 1, "ft-sam")
    (runs / "001-ft-sam/run.json").write_text(text)
    with pytest.raises(ModelError, match=r"001-ft-sam/run\.json, found .*train again"):
        choose([], runs)


def test_near_names_are_said_once(tmp_path):
    _run(tmp_path, 1, "sam-med2d")
    with pytest.raises(UsageError) as err:
        choose(["sam-med2"], tmp_path)
    assert str(err.value).count("'sam-med2d'") == 1


def test_no_model_takes_the_label_of_a_baseline(tmp_path):
    from sammed_bench.baselines import TRIVIAL_NAMES, trivial_baselines

    assert tuple(b.facts.name for b in trivial_baselines(0.1)) == TRIVIAL_NAMES
    with pytest.raises(UsageError, match=r"'box-full'.*another label"):
        choose(["box-full=x.pth"], tmp_path)
    with pytest.raises(ModelError, match="without arguments"):
        load(parse_model("x=json:loads"), "cpu")


def test_sam_med2d_without_its_adapters(tmp_path):
    model = add_adapters(build_sam(spec_for("vit_tiny"), kind="sam-med2d"), zero_init=False)
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    with_them = load(parse_model(f"a={path}"), "cpu")
    star = load(parse_model(f"star={path}:sam-med2d-star"), "cpu")
    assert star.facts.name == "star"
    assert star.facts.weights_sha256 != with_them.facts.weights_sha256
    assert "adapters left out" in star.facts.recipe
    assert (with_them.model.spec.adapters, star.model.spec.adapters) == ("sam-med2d", "none")
    save_model(build_sam(spec_for("vit_tiny"), kind="sam-med2d"), path)
    with pytest.raises(ModelError, match="found none: give it as sam-med2d"):
        load(parse_model(f"star={path}:sam-med2d-star"), "cpu")


def test_the_example_of_the_guide_is_a_model(tmp_path, monkeypatch):
    guide = Path(__file__).parents[2] / "docs" / "models.md"
    code = guide.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "mine_of_the_guide.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    model = load(parse_model("mine=mine_of_the_guide:factory"), "cpu")
    image = np.zeros((20, 30), np.uint8)
    image[5:9, 10:15] = 200
    asked = ImagePrompts(boxes_M4=torch.tensor([[8.0, 3.0, 18.0, 12.0]]))
    (found,) = model.predict(model.encode([image]), [asked])
    assert np.array_equal(found.logits_MHW[0].numpy() > 0, image > 0)
    assert model.facts.name == "mine"


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("make_peeks", "shown the true masks"),
        ("make_trivial", "'trivial'"),
        ("make_broken", "raised RuntimeError: no weights here"),
    ],
)
def test_a_factory_that_fails_or_would_not_be_fair_is_refused(factory, said):
    with pytest.raises(ModelError, match=said):
        load(parse_model(f"mine=bench_fakes:{factory}"), "cpu")
