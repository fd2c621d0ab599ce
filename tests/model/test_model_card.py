"""The README beside exported weights: from the file and its run alone, nothing filled in."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_corpus
import torch
import yaml

from sammed_model.about import about
from sammed_model.cards import file_sha256
from sammed_model.checkpoint import save_model
from sammed_model.config import TrainConfig
from sammed_model.model_card import model_card, read_record, write_model_card
from sammed_model.naming import published_state
from sammed_model.sam import build_sam, spec_for
from sammed_model.train import train
from sammed_model.weights import merge

QUICK = {
    "method": "ft-sam", "image_size": 64, "steps": 1, "passes": 1, "batch_images": 1,
    "masks_per_image": 1, "validation_images": 1, "modes": ("bbox", "1pt"), "workers": 0,
    "threads": 1, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("card")
    root = tiny_corpus.write_corpus(
        base / "c", patients={"train": 2, "validation": 1}, slices=1, size=(30, 41)
    )
    return train(root, TrainConfig(**QUICK), runs=base / "runs").folder


def _front(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_run_leaves_a_card_that_says_what_its_record_says(run):
    text = (run / "README.md").read_text()
    record = json.loads((run / "run.json").read_text())
    assert record["modalities"] == ["ct", "mr"]
    assert record["structures"] == ["ball", "egg"]
    front = _front(text)
    assert front["pipeline_tag"] == "mask-generation"
    assert "license" not in front  # nobody has declared one for weights trained here
    values = {m["name"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert values["Dice, box"] == round(record["best_dice"]["bbox"], 4)
    for fact in (
        file_sha256(run / "model.safetensors"),
        record["corpus_sha256"],
        record["base_sha256"],
        record["weights_sha256"],
        "| method | ft-sam |",
        "seed 3",
        "`vit_tiny_scenes`",
        "| ellipses_a | unknown |",
        "trained on, or chosen by: ellipses_a, ellipses_b",
        "its start had seen: no dataset (small SAM of procedural scenes)",
        "preprocessing: `default` at 64 px",
        "others are untested",
        "no medical device",
    ):
        assert fact in text, fact
    assert str(run.parent) not in text


def test_the_hub_reads_the_front_matter(run):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(run / "README.md", ignore_metadata_errors=False).data
    assert data.library_name == "sammed"
    assert {r.metric_type for r in data.eval_results} == {"dice"}


def test_a_merged_export_has_it_and_spares_other_peoples_readme(run, tmp_path):
    (tmp_path / "merged").mkdir()
    merge(run / "trained.safetensors", tmp_path / "merged" / "liver.safetensors")
    text = (tmp_path / "merged" / "README.md").read_text()
    assert "`liver.safetensors`" in text
    assert "| method | ft-sam |" in text
    assert file_sha256(tmp_path / "merged" / "liver.safetensors") in text
    # Another export may take the place of its own card, nobody else's README.
    (tmp_path / "merged" / "README.md").write_text("# mine\n")
    again = write_model_card(run / "model.safetensors", tmp_path / "merged")
    assert again.name == "model.README.md"
    assert (tmp_path / "merged" / "README.md").read_text() == "# mine\n"


def test_what_is_not_recorded_is_said_and_not_filled_in(tmp_path):
    path = tmp_path / "sam.pth"
    torch.save(published_state(build_sam(spec_for("vit_tiny", image_size=64), 4)), path)
    text = model_card(about(path), {}, ("sam.pth",))
    assert "of kind not recorded" in text
    assert "take no test set for clean" in text
    assert "Validation numbers: not recorded" in text
    assert "model-index" not in _front(text)
    save_model(build_sam(spec_for("vit_tiny", image_size=64), 5), tmp_path / "model.safetensors")
    (tmp_path / "run.json").write_text(json.dumps({"init": "gone.pth", "datasets": ["hc18"]}))
    text = write_model_card(tmp_path / "model.safetensors", tmp_path).read_text()
    assert "its start had seen: not recorded (the start is not here)" in text
    assert read_record(tmp_path / "model.safetensors")["datasets"] == ["hc18"]


def test_overlaps_and_controls_are_facts_of_the_card(run, tmp_path):
    shutil.copy(run / "model.safetensors", tmp_path)
    record = json.loads((run / "run.json").read_text())
    record |= {"datasets": ["msd_task09_spleen"], "control": "permuted"}
    text = model_card(about(tmp_path / "model.safetensors"), record, ("model.safetensors",))
    assert "may hold the same patients (by the catalogue):" in text
    assert "A control, of no use" in text


def test_the_onnx_verb_leaves_a_card_beside_its_files(run, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import sammed
    from sammed_model import onnx_model

    def export(model, folder):  # the exporter itself takes seconds a block: see test_onnx.py
        folder.mkdir()
        spec = model.spec
        return {"architecture": spec.name, "kind": model.kind, "image_size": spec.image_size,
                "weights_sha256": "0" * 64}  # fmt: skip

    monkeypatch.setattr(onnx_model, "export_onnx", export)
    words = ["export-onnx", "--model", run / "model.safetensors", "--out", tmp_path / "onnx",
             "--image-size", "128"]  # fmt: skip
    result = CliRunner().invoke(sammed.app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    text = (tmp_path / "onnx" / "README.md").read_text()
    assert "`encoder.onnx`, `decoder.onnx`" in text
    assert "vit_tiny at 128 px" in text
    assert file_sha256(run / "model.safetensors") in text
