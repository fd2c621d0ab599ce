"""Which models are meant: names, files, kinds, factories, the newest runs."""

from __future__ import annotations

import json

import pytest

from sammed_bench.choose import choose, load, parse_model
from sammed_data.types import ModelError, UsageError
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
