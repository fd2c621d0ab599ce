"""Three states of contamination: what nobody declared is unknown, never clean."""

from __future__ import annotations

import json

import pytest
import tiny_corpus

from sammed_bench import contamination
from sammed_bench.contamination import Known, Training, judge, training_of
from sammed_bench.types import ModelFacts
from sammed_data.corpus import Corpus
from sammed_data.lineage import Lineage, bundled_lineage, joined
from sammed_model.cards import bundled_cards

KNOWN = Known(
    lineages={
        "a": Lineage(overlaps=("b",), used_by=("sa_med2d_20m",)),
        "b": Lineage(overlaps=("c",)),
        "c": Lineage(),
        "d": Lineage(),
    },
    groups=joined({"a": ("b",), "b": ("c",), "c": (), "d": ()}),
)


def _judge(training, dataset, split="test", units=("patient",), corpus="H"):
    found = judge(training, KNOWN, dataset=dataset, split=split, units=units, corpus_sha256=corpus)
    return found.state, found.stamp


def test_a_published_collection_reaches_its_datasets_and_those_that_share_patients():
    published = contamination._of_sources(bundled_cards()["sam-med2d_b"].training_sources, KNOWN)
    assert published.datasets == {"a"}
    assert _judge(published, "a") == ("seen", "in-sample")
    assert _judge(published, "c") == ("seen", "overlapping")
    assert _judge(published, "d") == ("not seen", "")
    # Nobody can say whether a private dataset, or a copy under another name, is part of it.
    assert _judge(published, "private") == ("unknown", "unknown")


def test_the_bundled_catalogue_marks_what_sam_med2d_took():
    lineages = bundled_lineage()
    taken = [n for n, item in lineages.items() if "sa_med2d_20m" in item.used_by]
    assert len(taken) >= 76
    assert lineages["msd_task09_spleen"].overlaps


def test_photographs_are_declared_and_a_vague_collection_is_unknown():
    photographs = contamination._of_sources(bundled_cards()["sam_vit_b"].training_sources, KNOWN)
    assert _judge(photographs, "a") == ("not seen", "")
    vague = contamination._of_sources(bundled_cards()["medsam_vit_b"].training_sources, KNOWN)
    assert {_judge(vague, name)[0] for name in "abcd"} == {"unknown"}


def test_other_patients_are_clean_only_where_patients_are_known():
    own = Training(datasets=frozenset("a"), corpus="H", inside=frozenset("a"))
    assert _judge(own, "a") == ("not seen", "")
    assert _judge(own, "a", units=("patient", "image"))[0] == "unknown"
    assert _judge(own, "a", split="train") == ("seen", "in-sample")
    assert _judge(own, "a", split="validation") == ("seen", "in-sample")
    assert _judge(own, "a", corpus="other") == ("seen", "in-sample")
    assert _judge(own, "b", split="held_out") == ("seen", "overlapping")
    assert _judge(own, "d", split="held_out") == ("not seen", "")


@pytest.fixture
def run(tmp_path):
    def make(name, **record):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights of " + name.encode())
        (folder / "run.json").write_text(json.dumps({"init": "random"} | record))
        return str(folder / "model.safetensors")

    return make


def _facts(source, kind="sam-med2d", name="m"):
    return ModelFacts(name=name, kind=kind, recipe="tiny", weights_sha256="1", source=source)


def test_a_run_inherits_what_its_start_saw(run, tmp_path):
    first = run("001", datasets=["a", "d"], corpus_sha256="H")
    second = run("002", datasets=["a"], corpus_sha256="H", init=first)
    training = training_of(_facts(second), KNOWN)
    assert training.datasets == {"a", "d"}
    # The start may have seen other splits of the same dataset.
    assert _judge(training, "a") == ("seen", "in-sample")
    assert _judge(training_of(_facts(first), KNOWN), "a") == ("not seen", "")
    lost = run("003", datasets=["a"], corpus_sha256="H", init=str(tmp_path / "gone.pth"))
    assert _judge(training_of(_facts(lost), KNOWN), "d")[0] == "unknown"
    assert _judge(training_of(_facts(""), KNOWN), "d")[0] == "unknown"
    assert _judge(training_of(_facts("rule", kind="trivial"), KNOWN), "a")[0] == "not seen"


def test_records_stay_beside_the_rows(run, tmp_path):
    root = tiny_corpus.write_corpus(tmp_path / "c", patients={"train": 1, "test": 1}, slices=1)
    corpus = Corpus(root)
    rows = corpus.index(["test"])
    weights = run(
        "001", datasets=["ellipses_a"], corpus_sha256=corpus.content_hash, config={"seed": 3}
    )
    contamination.write(tmp_path, corpus, rows, [_facts(weights)])
    contamination.write(tmp_path, corpus, rows, [_facts("", name="other")])
    found = {(r["model"], r["dataset"]): r for r in contamination.read(tmp_path)}
    assert found["m", "ellipses_a"]["why"] == "trained on other patients of this dataset"
    assert found["m", "ellipses_b"]["state"] == "not seen"
    assert found["m", "ellipses_a"]["training_seed"] == 3
    assert found["other", "ellipses_a"]["state"] == "unknown"
