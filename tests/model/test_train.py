"""A whole run: its files, its resumption, its control, and its sentences when it cannot go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import write_corpus
from typer.testing import CliRunner

import sammed
from sammed_data.types import CorpusError, InterruptedRun, ModelError, UsageError
from sammed_model.checkpoint import load_model, save_model, weight_digest
from sammed_model.config import TrainConfig
from sammed_model.sam import build_sam, spec_for
from sammed_model.setup import Silent
from sammed_model.train import train

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "image_size": 32,
    "init": "random",
    "steps": 6,
    "passes": 3,
    "batch_images": 3,
    "validate_every": 2,
    "validation_images": 3,
    "modes": ("bbox", "1pt"),
    "lr": 1e-3,
    "warmup": 2,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    counts = {"train": 3, "validation": 1, "test": 1}
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", patients=counts, size=(30, 40))


class Notes(Silent):
    def __init__(self):
        self.lines, self.scores, self.steps = [], [], 0

    def note(self, text):
        self.lines.append(text)

    def step(self, result, progress, done):
        self.steps += 1

    def validated(self, validation, progress):
        self.scores.append((progress.step, validation))


def log_of(folder: Path) -> list[dict]:
    """The log without what the clock says."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines]


def test_a_run_leaves_a_model_that_loads_and_says_what_it_is(corpus, tmp_path):
    notes = Notes()
    done = train(corpus, TrainConfig(**QUICK), runs=tmp_path, report=notes)
    assert done.folder == tmp_path / "001-sam-med2d"
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "README.md",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "run.json",
    ]
    model = load_model(done.weights)
    assert model.metadata["intensity_policy"] == "auto"
    assert (model.kind, model.metadata["recipe"]) == ("sam-med2d", "tiny")
    record = json.loads((done.folder / "run.json").read_text())
    assert record["weights_sha256"] == weight_digest(model)
    assert record["datasets"] == ["ellipses_a", "ellipses_b"]
    assert (
        record["corpus_sha256"]
        == json.loads((corpus / "manifest.json").read_text())["content_sha256"]
    )
    assert [step for step, _ in notes.scores] == [0, 2, 4, 6]
    assert notes.steps == 6
    best = max(notes.scores, key=lambda s: s[1].mean(("bbox", "1pt")))
    assert done.best_step == best[0]
    assert any("random numbers" in line for line in notes.lines)
    again = train(
        corpus, TrainConfig(**QUICK | {"init": str(done.weights), "steps": 1}), runs=tmp_path
    )
    assert again.folder.name == "002-sam-med2d"
    assert weight_digest(load_model(again.folder / "trained.safetensors")) == weight_digest(
        load_model(again.weights)
    )


@pytest.mark.parametrize("method", ["sam-med2d", "ft-sam"])
def test_stopped_and_resumed_equals_undisturbed(corpus, tmp_path, method):
    config = TrainConfig(**QUICK | {"method": method})
    whole = train(corpus, config, runs=tmp_path / "whole")
    asked = iter([False, False, True])
    with pytest.raises(InterruptedRun, match="--resume"):
        train(corpus, config, runs=tmp_path / "parts", should_stop=lambda: next(asked))
    folder = tmp_path / "parts" / f"001-{method}"
    # Lines after the state, as a kill between two states leaves them, are cut.
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0}\n')
    # What a killed process had half written, by safetensors' own name and by ours, goes away.
    for name in (".tmpab12Cd", "state-0000004.safetensors.partial"):
        (folder / name).write_bytes(b"half")
    parts = train(corpus, TrainConfig(), resume=folder)
    assert log_of(parts.folder) == log_of(whole.folder)
    names = [sorted(p.name for p in run.folder.iterdir()) for run in (whole, parts)]
    assert names[0] == names[1]
    a, b = load_file(whole.weights), load_file(parts.weights)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(UsageError, match="is finished"):
        train(corpus, TrainConfig(), resume=folder)


def test_colleagues_may_read_weights_as_they_may_read_the_record(corpus, tmp_path):
    done = train(corpus, TrainConfig(**QUICK | {"steps": 1}), runs=tmp_path)
    assert done.weights.stat().st_mode == (done.folder / "run.json").stat().st_mode


@pytest.mark.parametrize("recipe", ["mended", "released"])
def test_a_run_whose_loss_is_no_number_stops_and_keeps_the_best(corpus, tmp_path, recipe):
    changes = {"lr": 1e30, "clip_norm": 1e30, "warmup": 0, "recipe": recipe, "validate_every": 6}
    notes = Notes()
    done = train(corpus, TrainConfig(**QUICK | changes), runs=tmp_path, report=notes)
    assert done.steps < 6
    assert done.stopped.startswith("stopped: loss nan")
    assert "--lr" in notes.lines[-1] == done.stopped
    assert json.loads((done.folder / "run.json").read_text())["stopped"] == done.stopped
    assert all(value.isfinite().all() for value in load_file(done.weights).values())


def test_resume_takes_the_same_options_again_and_refuses_others(corpus, tmp_path):
    config = TrainConfig(**QUICK)
    asked = iter([True])
    with pytest.raises(InterruptedRun):
        train(corpus, config, runs=tmp_path / "runs", should_stop=lambda: next(asked))
    folder = tmp_path / "runs" / "001-sam-med2d"
    command = ["train", "--corpus", str(corpus), "--resume", str(folder), "--init", "random"]
    found = CliRunner().invoke(sammed.app, [*command, "--steps", "6", "--lr", "0.5"])
    assert found.exit_code != 0
    assert "lr 0.5 (the run has 0.001)" in str(found.exception)
    again = CliRunner().invoke(sammed.app, [*command, "--steps", "6", "--lr", "1e-3"])
    assert again.exit_code == 0, again.output
    assert (folder / "run.json").exists()


def test_killed_process_resumes(corpus, tmp_path):
    """SIGKILL at any time leaves a state that loads; SIGTERM saves and exits with 130."""
    command = [sys.executable, "-m", "sammed", "train", "--corpus", str(corpus), "--quiet"]
    command += ["--image-size", "32", "--init", "random", "--passes", "2", "--batch", "2"]
    command += ["--validation-images", "1", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = tmp_path / "runs"
    start = [*command, "--steps", "4000", "--validate-every", "3", "--out", str(runs)]
    process = subprocess.Popen(start, env=environment, cwd=tmp_path)
    folder = runs / "001-sam-med2d"
    deadline = time.monotonic() + 300  # a busy machine
    while not (folder / "state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = json.loads((folder / "state.json").read_text())["step"]
    resume = [*command, "--resume", str(folder)]
    process = subprocess.Popen(
        resume, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not any(line.get("step", 0) > step for line in log_of(folder)):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "sammed train --resume" in said
    assert json.loads((folder / "state.json").read_text())["step"] > step


def test_control_sees_other_images_with_the_same_prompts(corpus, tmp_path):
    plain = train(corpus, TrainConfig(**QUICK | {"steps": 1}), runs=tmp_path)
    control = train(
        corpus, TrainConfig(**QUICK | {"steps": 1, "control": "permuted"}), runs=tmp_path
    )
    assert log_of(plain.folder)[1]["loss"] != log_of(control.folder)[1]["loss"]
    assert json.loads((control.folder / "run.json").read_text())["control"] == "permuted"


def test_without_validation_some_patients_are_held_out(tmp_path):
    root = write_corpus(tmp_path / "corpus", patients={"train": 3}, size=(30, 40), slices=1)
    notes = Notes()
    train(root, TrainConfig(**QUICK | {"steps": 1}), runs=tmp_path / "runs", report=notes)
    assert any("held out" in line for line in notes.lines)
    assert any(line.startswith("5 training images with") for line in notes.lines)


def test_sentences(corpus, tmp_path):
    with pytest.raises(CorpusError, match="sammed data build"):
        train(tmp_path / "none", TrainConfig(**QUICK), runs=tmp_path)
    empty = write_corpus(tmp_path / "empty", patients={"test": 1})
    with pytest.raises(CorpusError, match="train split"):
        train(empty, TrainConfig(**QUICK), runs=tmp_path)
    with pytest.raises(UsageError, match="sammed weights fetch sam_vit_b"):
        train(corpus, TrainConfig(**QUICK | {"model": "vit_b", "init": "auto"}), runs=tmp_path)
    text = tmp_path / "notes.pth"
    text.write_text("these are not weights")
    with pytest.raises(ModelError, match=r"notes\.pth"):
        train(corpus, TrainConfig(**QUICK | {"init": str(text)}), runs=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out"):
        train(corpus, TrainConfig(**QUICK), runs=tmp_path / "file" / "runs")
    assert not list(tmp_path.glob("0*"))


def test_command_line(corpus, tmp_path):
    shown = CliRunner().invoke(sammed.app, ["train", "--help"]).output
    assert "sammed train --method ft-sam" in shown
    arguments = [
        "train",
        "--corpus",
        str(corpus),
        "--out",
        str(tmp_path),
        "--steps",
        "1",
    ]
    arguments += ["--init", "random", "--image-size", "32", "--passes", "1"]
    arguments += ["--validation-images", "1"]
    outcome = CliRunner().invoke(sammed.app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert str(tmp_path / "001-sam-med2d") in outcome.output.replace("\n", "")
    wrong = CliRunner().invoke(sammed.app, ["train", "--method", "ftsam", "--lr", "-1"])
    assert isinstance(wrong.exception, UsageError)
    assert "ft-sam" in str(wrong.exception)
    assert "--lr" in str(wrong.exception)


def _cli(*args):
    from sammed_data.types import SammedError

    result = CliRunner().invoke(sammed.app, ["train", *map(str, args)])
    assert isinstance(result.exception, SammedError), result.output
    return str(result.exception), result.output


def test_weights_of_another_model_or_kind_are_refused(corpus, tmp_path):
    file = tmp_path / "tiny.safetensors"
    save_model(build_sam(spec_for("vit_tiny", image_size=32), 0), file, recipe="tiny")
    said, output = _cli("--corpus", corpus, "--out", tmp_path, "--model", "vit_b", "--init", file)
    assert "expected weights of vit_b" in said
    assert "found vit_tiny: give --model vit_tiny" in said
    assert "%" not in output  # no bar where nobody looks
    said, _ = _cli("--corpus", corpus, "--out", tmp_path, "--init", f"{file}:samm")
    assert "did you mean 'sam'" in said
    said, _ = _cli("--corpus", corpus, "--out", tmp_path, "--device", "meta")
    assert "use auto, cpu or cuda" in said
    assert not list(tmp_path.glob("0*"))


def test_a_run_is_not_resumed_on_another_corpus(corpus, tmp_path):
    asked = iter([False, True])
    with pytest.raises(InterruptedRun):
        train(corpus, TrainConfig(**QUICK), runs=tmp_path, should_stop=lambda: next(asked))
    other = write_corpus(tmp_path / "other", patients={"train": 2, "validation": 1}, size=(30, 40))
    with pytest.raises(UsageError, match="give the same --corpus"):
        train(other, TrainConfig(), resume=tmp_path / "001-sam-med2d")
