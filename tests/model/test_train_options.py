"""Options of a run: early stop, resumption with everything on, records, extras, advice, profile."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file
from tiny_corpus import write_corpus
from typer.testing import CliRunner

import sammed
from sammed_data.types import InterruptedRun, UsageError
from sammed_model import train as train_module
from sammed_model.adapters import add_adapters, train_only
from sammed_model.advice import advice_on_size
from sammed_model.config import TrainConfig
from sammed_model.mends import MENDS
from sammed_model.sam import SamModel, spec_for
from sammed_model.setup import Silent
from sammed_model.train import train
from sammed_model.validate import Validation

QUICK = {
    "image_size": 32,
    "init": "random",
    "steps": 6,
    "passes": 2,
    "batch_images": 2,
    "validate_every": 4,
    "validation_images": 1,
    "modes": ("bbox", "1pt"),
    "lr": 1e-3,
    "warmup": 2,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    counts = {"train": 3, "validation": 1}
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", patients=counts, size=(30, 40))


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines]


@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        (5, {"method": "lora", "accumulate": 2, "augment": "strong", "balance": "dataset"}),
        (1, {"method": "sam-med2d", "recipe": "released", "balance": "structure"}),
        (3, {"method": "ft-sam", "precision": "bf16", "augment": "light", "workers": 0}),
    ],
)
def test_stopped_anywhere_and_resumed_is_undisturbed(corpus, tmp_path, changes, stop):
    config = TrainConfig(**QUICK | changes)
    whole = train(corpus, config, runs=tmp_path / "whole")
    asked = iter([False] * (stop - 1) + [True])
    with pytest.raises(InterruptedRun):
        train(corpus, config, runs=tmp_path / "parts", should_stop=lambda: next(asked))
    parts = train(corpus, TrainConfig(), resume=tmp_path / "parts" / f"001-{config.method}")
    assert log_of(parts.folder) == log_of(whole.folder)
    a, b = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    """What a test throws in place of SIGKILL: nothing may catch it."""


def test_killed_between_validations_it_continues_from_the_last_saved_step(corpus, tmp_path):
    config = TrainConfig(**QUICK | {"save_every": 1})
    whole = train(corpus, config, runs=tmp_path / "whole")

    def kill():
        if (tmp_path / "parts/001-sam-med2d/log.jsonl").read_text().count("rate") == 3:
            raise Killed
        return False

    with pytest.raises(Killed):
        train(corpus, config, runs=tmp_path / "parts", should_stop=kill)
    folder = tmp_path / "parts" / "001-sam-med2d"
    assert json.loads((folder / "state.json").read_text())["step"] == 3
    parts = train(corpus, TrainConfig(), resume=folder)
    assert log_of(parts.folder) == log_of(whole.folder)


def test_patience_ends_a_run_and_keeps_the_best(corpus, tmp_path, monkeypatch):
    """Dice falls after the second validation: two worse ones in a row end the run."""
    dice = iter([0.1, 0.5, 0.4, 0.45, 0.9])

    def falling(*args, **kwargs):
        value = next(dice)
        return Validation(dice={"bbox": value, "1pt": value}, n_masks=1, n_patients=1)

    monkeypatch.setattr(train_module, "validate", falling)
    notes = Notes()
    config = TrainConfig(**QUICK | {"validate_every": 1, "patience": 2})
    done = train(corpus, config, runs=tmp_path, report=notes)
    assert (done.steps, done.best_step, done.best) == (3, 1, 0.5)
    assert any("stopped early: 2 validations" in line for line in notes.lines)


def test_the_record_says_what_was_trained_on_what(corpus, tmp_path):
    config = TrainConfig(
        **QUICK | {"recipe": "released", "mends": ("clip",), "steps": 2, "method": "ft-sam"}
    )
    record = json.loads((train(corpus, config, runs=tmp_path).folder / "run.json").read_text())
    assert record["licenses"] == {"ellipses_a": "unknown", "ellipses_b": "unknown"}
    assert record["mends"] == ["clip"]
    assert record["config"]["batch_images"] == 2
    assert record["images_seen"] == 4
    assert record["patients"] == 6
    assert re.fullmatch(r"[0-9a-f]{64}", record["corpus_manifest_sha256"])
    assert re.fullmatch(r"[0-9a-f]{40}|", record["code_commit"])
    assert TrainConfig(**config_values(record["config"])).recipe_name == "released recipe + clip"


def config_values(raw: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}


def test_tensorboard_is_an_extra(corpus, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"sammed\[tensorboard\]"):
        train(corpus, TrainConfig(**QUICK), runs=tmp_path, tensorboard=True)
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_scalars(corpus, tmp_path, monkeypatch):
    from sammed_model import tensorboard

    scalars: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder, purge_step=None):
            assert folder.endswith("tensorboard")

        def add_scalar(self, name, value, step):
            scalars.append((name, step))

        def flush(self):
            pass

    monkeypatch.setattr(tensorboard, "require_tensorboard", lambda: Writer)
    monkeypatch.setattr(train_module, "require_tensorboard", lambda: Writer)
    train(corpus, TrainConfig(**QUICK | {"steps": 2}), runs=tmp_path, tensorboard=True)
    assert [step for name, step in scalars if name == "loss/mean"] == [1, 2]
    assert [step for name, step in scalars if name == "dice/1pt"] == [0, 2]


def test_profile_names_speed_stages_memory_and_utilisation(corpus, tmp_path):
    notes = Notes()
    train(corpus, TrainConfig(**QUICK | {"steps": 2}), runs=tmp_path, report=notes, profile=True)
    text = "\n".join(notes.lines)
    for part in ("images/s", "waiting for data", "encode", "decode", "backward", "optimiser"):
        assert part in text
    assert re.search(r"peak memory \d+\.\d\d GiB", text)
    used = re.search(r"utilisation (\d+\.\d)%.*CPU threads, measured now", text)
    assert used is not None
    assert 0 < float(used[1]) < 100
    shares = [float(x) for x in re.findall(r" s +(\d+\.\d)%", text)]
    assert sum(shares) == pytest.approx(100, abs=2)


def test_advice_where_patients_are_few():
    with torch.device("meta"):
        model = add_adapters(SamModel(spec_for("vit_b", image_size=256)))
    train_only(model, "sam-med2d")
    said = list(advice_on_size(30, model, "sam-med2d"))
    assert len(said) == 1
    assert "184.6 M parameters learn from 30 patients" in said[0]
    assert "--method lora or --method ft-sam" in said[0]
    assert not list(advice_on_size(2000, model, "sam-med2d"))
    train_only(model, "ft-sam")
    assert not list(advice_on_size(60, model, "ft-sam"))


def test_every_option_has_an_example_and_help_fits_80_columns():
    shown = CliRunner().invoke(sammed.app, ["train", "--help"], env={"COLUMNS": "80"}).output
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    train_command = typer.main.get_command(sammed.app).get_command(None, "train")
    for parameter in train_command.params:
        if parameter.name != "help" and not parameter.is_flag:
            assert f"{parameter.opts[0]} " in parameter.help, parameter.name


def test_mends_are_listed():
    shown = CliRunner().invoke(sammed.app, ["train", "--mend", "list"])
    assert shown.exit_code == 0
    assert all(f"{name}: " in shown.output for name in MENDS)


def test_fit_memory_on_the_command_line(corpus, tmp_path):
    arguments = ["train", "--corpus", str(corpus), "--out", str(tmp_path), "--init", "random"]
    arguments += ["--image-size", "32", "--steps", "1", "--passes", "1"]
    arguments += ["--validation-images", "1", "--fit-memory", "60MB", "--device", "cpu"]
    outcome = CliRunner().invoke(sammed.app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "--method" in outcome.output
    config = json.loads(next(tmp_path.glob("*/config.json")).read_text())
    assert config["batch_images"] * config["accumulate"] >= 50
