"""A corpus that was damaged after its build: one sentence with the file, and a build mends it."""

from __future__ import annotations

import json
import shutil

import pytest

from sammed_data.corpus import SCHEMA_VERSION, Corpus
from sammed_data.types import CorpusError
from tests.data import build_fakes as fakes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    base = tmp_path_factory.mktemp("damage")
    fakes.write_source(base / "data", n=12)
    fakes.write_catalog(base / "catalogs")
    assert fakes.call_cli(*_build(), cwd=base).returncode == 0
    return base


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "w")
    return tmp_path / "w"


def _build(*more):
    return ("data", "build", "--source", "catalogs", "--workers", 1, *more)


def _said(folder, *args, words=()):
    run = fakes.call_cli(*args, cwd=folder)
    assert run.returncode == 1, run.stdout + run.stderr
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    for word in words:
        assert word in run.stderr


def _shard(folder):
    return sorted((folder / "corpus/data/train").glob("*.parquet"))[0]


def _delete(folder):
    _shard(folder).unlink()


def _truncate(folder):
    _shard(folder).write_bytes(_shard(folder).read_bytes()[:5000])


@pytest.mark.parametrize("damage", [_delete, _truncate])
def test_a_missing_or_cut_shard_is_named_and_built_again(folder, damage):
    before = fakes.tree(folder / "corpus")
    damage(folder)
    name = _shard(folder).name if damage is _truncate else "fake_mr-00000.parquet"
    _said(folder, "data", "describe", words=[name, "data build"])
    _said(folder, "data", "show", words=[name, "data build"])
    assert fakes.call_cli(*_build(), cwd=folder).returncode == 0
    assert fakes.tree(folder / "corpus") == before


def test_damaged_pixels_inside_a_shard_are_a_sentence(folder):
    path = _shard(folder)
    data = bytearray(path.read_bytes())
    start = data.find(b"\x89PNG")
    data[start : start + 3000] = bytes(3000)
    path.write_bytes(bytes(data))
    corpus = Corpus(folder / "corpus")
    with pytest.raises(CorpusError, match=path.name):
        _ = [corpus.read(row) for row in corpus.index(["train"])]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_a_sentence_everywhere(folder, text):
    path = folder / "corpus/manifest.json"
    path.write_text(text)
    _said(folder, "data", "describe", words=["manifest.json", "remove"])
    _said(folder, *_build(), words=["manifest.json", "remove"])
    path.unlink()
    assert fakes.call_cli(*_build(), cwd=folder).returncode == 0
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION


def test_damaged_rejections_are_a_sentence(folder):
    path = sorted((folder / "corpus/rejections").glob("*.parquet"))[0]
    path.write_bytes(b"PAR1")
    _said(folder, "data", "describe", words=[path.name, "data build"])


def test_a_half_written_record_is_built_again(folder):
    record = sorted((folder / "corpus/.partial").glob("*.json"))[0]
    before = fakes.tree(folder / "corpus")
    record.write_text('{"plan_hash": ')
    assert fakes.call_cli(*_build(), cwd=folder).returncode == 0
    assert fakes.tree(folder / "corpus") == before


def test_strict_refuses_what_an_earlier_build_quarantined(folder):
    image = folder / "data/fake_mr/images/p001.nii.gz"
    image.write_bytes(image.read_bytes()[:500])
    assert fakes.call_cli(*_build(), cwd=folder).returncode == 3
    before = _published(folder)
    _said(folder, *_build("--strict"), words=["p001.nii.gz"])
    assert _published(folder) == before


def _published(folder):
    found = fakes.tree(folder / "corpus")
    return {name: digest for name, digest in found.items() if not name.startswith(".partial/")}
