"""The weights we ship have seen drawn scenes alone, and so has whatever starts from them."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_corpus

from sammed_bench.contamination import Known, judge, training_of
from sammed_bench.types import ModelFacts
from sammed_data.corpus import Corpus
from sammed_model import load_model
from sammed_model.about import about
from sammed_model.cards import SHIPPED, bundled_cards, file_sha256, find_card, located
from sammed_model.config import TrainConfig
from sammed_model.train import train

NAME = "vit_tiny_scenes"
QUICK = {
    "method": "ft-sam", "image_size": 64, "steps": 1, "passes": 1, "batch_images": 1,
    "masks_per_image": 1, "validation_images": 1, "modes": ("bbox",), "best": ("bbox",),
    "workers": 0, "threads": 1,
}  # fmt: skip
PATIENTS = {"train": 1, "validation": 1, "test": 1}


def _state(source, corpus, dataset, split="test"):
    facts = ModelFacts(name="m", kind="sam", recipe="tiny", weights_sha256="1", source=str(source))
    known = Known.of(corpus)
    return judge(
        training_of(facts, known),
        known,
        dataset=dataset,
        split=split,
        units=["patient"],
        corpus_sha256=corpus.content_hash,
    ).state


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("shipped") / "c"
    return Corpus(tiny_corpus.write_corpus(root, patients=PATIENTS, slices=1))


def test_the_card_is_of_the_file_that_is_shipped():
    card, path = bundled_cards()[NAME], located(NAME)
    assert path.parent == SHIPPED
    assert (card.sha256, card.bytes) == (file_sha256(path), path.stat().st_size)
    assert find_card(path) == card
    model, found = load_model(NAME), about(path)
    assert (model.kind, model.preprocessing.name) == (card.kind, card.preprocessing)
    assert (found.spec.name, found.spec.image_size) == (card.architecture, card.image_size)


def test_it_has_seen_no_dataset_wherever_it_lies(corpus, tmp_path):
    copy = shutil.copy(located(NAME), tmp_path / "copy.safetensors")
    for source in (NAME, located(NAME), copy):
        assert _state(source, corpus, "ellipses_a") == "not seen"
        assert _state(source, corpus, "hc18") == "not seen"


@pytest.mark.parametrize("init", ["auto", NAME])
def test_a_run_that_starts_from_it_has_seen_its_own_corpus_alone(corpus, tmp_path, init):
    done = train(corpus.root, TrainConfig(init=init, **QUICK), runs=tmp_path)
    record = json.loads((done.folder / "run.json").read_text())
    assert record["init"] == NAME
    again = train(
        corpus.root, TrainConfig(init=str(done.weights), **QUICK), runs=tmp_path
    )  # and so has a run of a run
    for weights in (done.weights, again.weights):
        assert _state(weights, corpus, "hc18") == "not seen"
        assert _state(weights, corpus, "ellipses_a", "train") == "seen"
    assert _state(done.weights, corpus, "ellipses_a") == "not seen"
