"""Every verb that writes takes `--dry-run`, which says what it would do and leaves no trace."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import typer
from test_talk import LEAVES
from typer.testing import CliRunner

import sammed
from sammed_data.phantom import write_phantoms
from sammed_model.cards import SHIPPED

START = str(SHIPPED / "vit_tiny_scenes.safetensors")
# What each verb is called with, in a folder that holds a corpus, results and so on (`tree`).
WRITES: dict[str, tuple[str, ...]] = {
    "train": ("--init", START, "--steps", "2", "--out", "new"),
    "export-onnx": ("--model", START, "--out", "new"),
    "report": ("results",),
    "demo": ("--dir", "new", "--quick"),
    "predict": ("picture.png", "--model", START, "--box", "1,1,9,9", "--out", "new"),
    "data audit": ("corpus", "--out", "new"),
    "data exclude": ("corpus", "list.csv"),
    "data withdraw": ("corpus", "--reason", "asked", "--patient"),  # and whom, see below
    "data build": ("--source", "catalogs", "--root", "data", "--out", "new"),
    "data describe": ("corpus", "--out", "new"),
    "data show": ("corpus", "--out", "new.png"),
    "data export": ("new", "corpus"),
    "data fetch": ("phantom_derm", "--source", "catalogs", "--root", "data"),
    "data init": ("own", "--yes", "--out", "new"),
    "data licenses": ("corpus", "--write", "new.yaml"),
    "data merge": ("parts", "--build"),
    "data phantom": ("new", "--patients", "4"),
    "data push": ("lab/c",),
    "data trace": ("corpus", "--root", "data", "--out", "new"),  # and which sample, see below
    "weights fetch": ("sam_vit_b", "sam-med2d_b"),
    "weights add": ("mine", START, "--kind", "sam", "--replace"),
    "weights merge": ("trained.safetensors", "--out", "new.safetensors"),
    "bench": ("--model", "oracle", "--out", "new"),
    "bench freeze": ("corpus", "--out", "new.yaml"),
    "bench phantoms": ("--dir", "new", "--patients", "4"),
    "bench merge": ("scored",),
}
# They read, and print what they found; `app` serves what is there.
READS = {
    "app", "bench suites", "bench verify", "compare", "data check", "data diff", "data list",
    "data plan", "data probe", "data reconcile", "data schema", "data status", "doctor", "seeds",
    "weights list", "weights show",
}  # fmt: skip
_OUT = {"--out", "--write", "--dir"}
GROUP = typer.main.get_command(sammed.app)


def options(verb: str) -> set[str]:
    command = GROUP
    for word in verb.split():
        command = command.commands[word]
    return {name for p in command.params for name in p.opts}


def test_every_verb_is_known_to_write_or_to_read_alone():
    assert {" ".join(v) for v in LEAVES} | {"bench"} == {*WRITES} | READS
    assert not {*WRITES} & READS


@pytest.mark.parametrize("verb", sorted({*WRITES, *READS}))
def test_what_names_an_output_can_be_run_dry(verb):
    named = options(verb)
    assert ("--dry-run" in named) == (verb in WRITES)
    if named & _OUT:
        assert verb in WRITES


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder with something of everything."""
    from sammed_data.corpus import Corpus
    from sammed_model.adapters import train_only
    from sammed_model.checkpoint import save_model, save_trained, weight_digest
    from sammed_model.lora import add_lora
    from tests.data import init_folders
    from tests.model.small_models import small

    root = tmp_path_factory.mktemp("dry")
    before = Path.cwd()
    os.chdir(root)
    try:
        write_phantoms(root, n_patients=4, seed=3, only=("phantom_derm",))
        order = ("data", "build", "--source", "catalogs", "--root", "data", "--workers", "1")
        call(*order, "--out", "corpus")
        call(*order, "--out", "parts", "--part", "0/2")
        split = ("--model", "oracle", "--split", "train", "--limit", "4")
        call("bench", *split, "--out", "results")
        call("bench", *split, "--out", "scored", "--part", "0/2")
        init_folders.pairs(root / "own", n=3)
        init_folders.save(root / "picture.png", init_folders.picture(1))
        first = Corpus(root / "corpus").index()[0]
        (root / "list.csv").write_text(f"sample_id,reason\n{first.sample_id},blurred\n")
        base = small("ft-sam")
        save_model(base, root / "base.safetensors")
        digest = weight_digest(base)
        add_lora(base, rank=2, alpha=4.0)
        save_trained(base, root / "trained.safetensors", digest, names=train_only(base, "lora"),
                     base_path="base.safetensors",
                     extra={"lora": json.dumps({"rank": 2, "alpha": 4.0})})  # fmt: skip
        yield root, first
    finally:
        os.chdir(before)


def call(*words: str, codes=(0,)) -> str:
    result = CliRunner().invoke(sammed.app, list(words))
    assert result.exit_code in codes, (words, result.output, result.exception)
    return result.stdout


def snapshot(*folders: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for folder in folders
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("verb", WRITES)
def test_a_dry_run_leaves_no_trace(verb, tree, tmp_path, monkeypatch):
    root, first = tree
    weights = tmp_path / "weights"
    monkeypatch.setenv("SAMMED_WEIGHTS", str(weights))
    monkeypatch.setenv("SAMMED_DATA", str(root / "data"))
    words = [*verb.split(), *WRITES[verb]]
    if verb == "data withdraw":
        words.append(f"{first.dataset}:{first.meta['patient_id']}")
    if verb == "data trace":
        words.insert(2, first.sample_id)
        words += ["--source", "catalogs"]
    before = snapshot(root, tmp_path)
    by_hand = verb in ("data fetch", "weights fetch")  # steps for a person are exit code 1
    codes = (1,) if by_hand else (0, 3)
    shown = call(*words, "--dry-run", codes=codes)
    document = json.loads(call(*words, "--dry-run", "--json", codes=codes))
    assert snapshot(root, tmp_path) == before
    assert document
    assert shown.strip()


@pytest.mark.parametrize("verb", ["data audit", "data describe", "data show", "data trace"])
def test_not_even_the_index_of_a_corpus_is_made(verb, tree, tmp_path):
    root, first = tree
    shutil.copytree(root / "corpus", tmp_path / "corpus")
    shutil.rmtree(tmp_path / "corpus" / "index")
    words = [*verb.split(), "--corpus", str(tmp_path / "corpus"), "--dry-run"]
    if verb == "data trace":
        words += [first.sample_id, "--source", "catalogs", "--root", "data"]
    before = snapshot(tmp_path)
    call(*words)
    assert snapshot(tmp_path) == before


def test_it_says_what_the_run_does(tree, tmp_path):
    """Files that a dry run names are those that the run writes."""
    for words in (
        ("data", "describe", "corpus", "--out", str(tmp_path / "d")),
        ("data", "audit", "corpus", "--planted", "0", "--out", str(tmp_path / "a")),
        ("data", "show", "corpus", "--n", "3", "--out", str(tmp_path / "s.png")),
        ("weights", "merge", "trained.safetensors", "--out", str(tmp_path / "w/m.safetensors")),
        ("bench", "freeze", "corpus", "--split", "train", "--out", str(tmp_path / "f.yaml")),
    ):
        (tmp_path / "w").mkdir(exist_ok=True)
        before = snapshot(tmp_path)
        named = json.loads(call(*words, "--dry-run", "--json"))["would_write"]
        call(*words, codes=(0, 1, 3))
        new = {p for p in set(snapshot(tmp_path)) - set(before) if Path(p).is_file()}
        assert set(named) == new, words
