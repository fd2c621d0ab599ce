"""Recipe, lock, and the update of one dataset of a corpus."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import yaml

from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.lock import read_lock
from sammed_data.plan import BuildOptions
from sammed_data.recipe import check_versions, read_recipe
from sammed_data.types import CatalogError, CorpusError, UsageError
from tests.data import build_fakes as fakes

NAMES = ("a_mr", "fake_mr", "z_mr")


@pytest.fixture
def source(tmp_path):
    for name, cases in zip(NAMES, (2, 12, 3), strict=True):
        fakes.write_source(tmp_path / "data", n=cases, name=name)
    fakes.write_catalog(tmp_path / "cat", *map(fakes.entry_dict, NAMES))
    return tmp_path / "cat", tmp_path / "data"


def _public(out):
    return {k: v for k, v in fakes.tree(out).items() if not k.startswith(".partial")}


def _change(data, name="fake_mr", case="p002"):
    """One more block of liver in one case, with a new date."""
    image, label = fakes.volume_pair(2)
    label[1:4, 8:10, 5] = 1
    fakes.write_case(data / name, case, image, label)
    for path in (data / name).rglob(f"{case}.nii.gz"):
        os.utime(path, (1_700_000_100, 1_700_000_100))


def _write(path, **recipe):
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_only_updates_one_dataset_and_keeps_the_others(source, tmp_path):
    out = tmp_path / "corpus"
    build(*source, out)
    _change(source[1])
    shutil.rmtree(source[1] / "z_mr")  # what stays needs no archive
    result = build(*source, out, only=["fake_mr"])
    assert (result.kept, result.dropped) == (("a_mr", "z_mr"), ())
    fakes.write_source(source[1], n=3, name="z_mr")
    fresh = build(*source, tmp_path / "fresh")
    assert fresh.manifest == result.manifest
    assert fakes.tree(out) == fakes.tree(tmp_path / "fresh")
    again = build(*source, out)
    assert again.built == 0


def test_a_corpus_grows_dataset_by_dataset(source, tmp_path):
    out = tmp_path / "corpus"
    for name in reversed(NAMES):
        build(*source, out, only=[name])
    build(*source, tmp_path / "fresh")
    assert _public(out) == _public(tmp_path / "fresh")


def test_drop_removes_one_dataset_and_only_that(source, tmp_path):
    out = tmp_path / "corpus"
    build(*source, out)
    result = build(*source, out, only=["fake_mr"], drop=["a_mr"])
    assert (result.kept, result.dropped) == (("z_mr",), ("a_mr",))
    assert not list(out.rglob("*a_mr-*"))
    build(*source, tmp_path / "fresh", drop=["a_mr"])
    assert fakes.tree(out) == fakes.tree(tmp_path / "fresh")
    with pytest.raises(UsageError, match="did you mean 'fake_mr'"):
        build(*source, out, drop=["fake_mri"])


def test_a_kept_dataset_must_be_whole_and_of_the_same_options(source, tmp_path):
    out = tmp_path / "corpus"
    build(*source, out)
    with pytest.raises(CorpusError, match="was built with min_part_px 4.*without --only"):
        build(*source, out, only=["a_mr"], options=BuildOptions(min_part_px=1))
    next((out / "data").rglob("z_mr-*.parquet")).unlink()
    with pytest.raises(CorpusError, match=r"z_mr-00000\.parquet.*without --only"):
        build(*source, out, only=["a_mr"])


def test_a_recipe_builds_what_it_says_and_the_corpus_holds_it(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = _write(
        tmp_path / "corpus.yaml",
        root="data",
        catalogs="cat",
        sources=["z_mr", {"id": "a_mr", "version": 1}],
        options={"min_part_px": 1, "axes": ["coronal"]},
    )
    out = tmp_path / "corpus"
    build(*source, out, options=BuildOptions(min_part_px=1, axes=("coronal",)))
    done = fakes.call_cli("data", "build", recipe, "--out", out, "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no longer in the corpus: fake_mr" in done.stdout
    assert {r.dataset for r in Corpus(out).index()} == {"a_mr", "z_mr"}
    held = read_recipe(out / "corpus.yaml")
    assert held.sources == {"a_mr": 1, "z_mr": 1}
    assert (held.options, held.root) == (read_recipe(recipe).options, None)
    clash = fakes.call_cli("data", "build", recipe, "--depth", 16, cwd=tmp_path)
    assert clash.returncode == 2
    assert "--depth" in clash.stderr


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"sources": []}, "sources"),
        ({"sources": ["a_mr"], "rood": "x"}, "rood"),
        ({"sources": ["a_mr", "a_mr"]}, "a_mr again"),
        ({"sources": ["a_mr"], "options": {"dept": 8}}, "did you mean 'depth'"),
        ({"sources": ["a_mr"], "options": {"depth": "8"}}, "depth is int"),
        ({"sources": ["a_mr"], "options": {"depth": 12}}, "8 or 16"),
    ],
)
def test_a_wrong_recipe_is_a_sentence(tmp_path, recipe, words):
    with pytest.raises(UsageError, match=words):
        read_recipe(_write(tmp_path / "corpus.yaml", **recipe))


def test_a_recipe_wants_the_versions_it_was_written_for(source, tmp_path):
    recipe = _write(tmp_path / "r.yaml", root="data", catalogs="cat",
                    sources=[{"id": "a_mr", "version": 3}, "fak_mr"])  # fmt: skip
    said = fakes.call_cli("data", "build", recipe, "--out", tmp_path / "c")
    assert said.returncode == 1
    assert "a_mr in version 1, the recipe wants 3" in said.stderr
    assert "did you mean 'fake_mr'" in said.stderr


def _locked(recipe, out):
    return fakes.call_cli("data", "build", recipe, "--out", out, "--locked", "--workers", 1)


def test_locked_refuses_what_differs_by_name_and_leaves_the_corpus(source, tmp_path):
    recipe = _write(tmp_path / "corpus.yaml", root="data", catalogs="cat", sources=list(NAMES))
    out = tmp_path / "corpus"
    missing = _locked(recipe, out)
    assert missing.returncode == 2
    assert "corpus.lock.yaml" in missing.stderr
    build(*source, out)
    shutil.copy(out / "corpus.lock.yaml", tmp_path / "corpus.lock.yaml")
    assert _locked(recipe, out).returncode == 0
    other = _locked(recipe, tmp_path / "again")
    assert other.returncode == 0, other.stderr
    before = _public(out)
    assert _public(tmp_path / "again") == before
    _change(source[1])
    refused = _locked(recipe, out)
    assert refused.returncode == 1
    assert "fake_mr: its 24 files have digest" in refused.stderr
    assert "z_mr" not in refused.stderr
    assert _public(out) == before
    for path in (source[1] / "z_mr").rglob("p002*"):
        path.unlink()
    early = _locked(recipe, out)
    assert "z_mr: had 3 cases, has 2" in early.stderr


def test_the_lock_does_not_depend_on_how_shards_are_cut_or_where_data_lie(source, tmp_path):
    build(*source, tmp_path / "c")
    shutil.copytree(source[1], tmp_path / "elsewhere")
    big = np.random.default_rng(5).normal(100, 20, (90, 70, 40)).astype(np.float32)
    for root in (source[1], tmp_path / "elsewhere"):
        fakes.write_case(root / "a_mr", "p009", big, (big > 130).astype(np.uint8))
    locks = []
    for root, size in ((source[1], 64), (tmp_path / "elsewhere", 1)):
        build(source[0], root, tmp_path / f"c{size}", options=BuildOptions(shard_mb=size))
        locks.append(read_lock(tmp_path / f"c{size}" / "corpus.lock.yaml"))
    assert locks[0] == locks[1]
    assert locks[0].sources["a_mr"].files == 6


def test_archive_hashes_of_fetch_are_in_the_lock_and_compared(source, tmp_path):
    from sammed_data.get.lock import Locked, add_to_lock

    def fetched(sha):
        row = Locked(dataset="a_mr", name="a.zip", bytes=9, sha256=sha, verified="entry",
                     fetched="2026-11-25")  # fmt: skip
        add_to_lock(source[1], {"https://example.org/a.zip": row})

    fetched("ab" * 32)
    out = tmp_path / "corpus"
    build(*source, out)
    assert read_lock(out / "corpus.lock.yaml").sources["a_mr"].archives == {"a.zip": "ab" * 32}
    fetched("cd" * 32)
    recipe = _write(tmp_path / "r.yaml", root="data", catalogs="cat", sources=list(NAMES))
    refused = _locked(recipe, out)
    assert "a_mr: archive a.zip had SHA-256 abab" in refused.stderr


def test_an_entry_that_changed_is_refused_but_a_new_citation_is_not(source, tmp_path):
    out = tmp_path / "corpus"
    build(*source, out)
    recipe = _write(tmp_path / "r.yaml", root="data", catalogs="cat", sources=list(NAMES))
    fakes.write_catalog(source[0], fakes.entry_dict("a_mr", citation="A. Uthor, 2026"))
    assert _locked(recipe, out).returncode == 0
    fakes.write_catalog(source[0], fakes.entry_dict("a_mr", labels={"1": "spleen", "2": "liver"}))
    assert "a_mr: its catalogue entry" in _locked(recipe, out).stderr


def test_other_rows_from_the_same_sources_are_refused(source, tmp_path):
    out = tmp_path / "corpus"
    build(*source, out)
    lock = yaml.safe_load((out / "corpus.lock.yaml").read_text())
    held = _write(tmp_path / "r.lock.yaml", **(lock | {"content_sha256": "0" * 64}))
    recipe = _write(tmp_path / "r.yaml", root="data", catalogs="cat", sources=list(NAMES))
    assert held.is_file()
    refused = _locked(recipe, out)
    assert "the same sources gave other rows" in refused.stderr


def test_a_lock_that_is_none_is_a_sentence(tmp_path):
    (tmp_path / "x.yaml").write_text("sources: 3\n")
    with pytest.raises(UsageError, match="expected the lock of a corpus"):
        read_lock(tmp_path / "x.yaml")


def test_unknown_source_in_the_catalogue_is_named(source, tmp_path):
    recipe = _write(tmp_path / "r.yaml", root="data", catalogs="cat", sources=["b_mr"])
    with pytest.raises(CatalogError, match="unknown source 'b_mr'"):
        check_versions(read_recipe(recipe))


def test_what_a_recipe_excludes_is_left_out_also_after_a_merge(source, tmp_path):
    (tmp_path / "bad.csv").write_text("dataset,case_id,reason\nfake_mr,p003,blurred\n")
    recipe = _write(tmp_path / "r.yaml", root="data", catalogs="cat", sources=list(NAMES),
                    exclude=["bad.csv"])  # fmt: skip
    out = tmp_path / "corpus"
    for more in (("--part", "0/2"), ("--part", "1/2")):
        assert (
            fakes.call_cli("data", "build", recipe, "--out", out, "--workers", 1, *more).returncode
            == 0
        )
    assert fakes.call_cli("data", "merge", out).returncode == 0
    assert ("fake_mr", "p003") not in {(r.dataset, r.meta["case_id"]) for r in Corpus(out).index()}
    held = read_recipe(out / "corpus.yaml")
    assert held.exclude == (out / "exclude.csv",)
    assert (
        fakes.call_cli("data", "build", recipe, "--out", tmp_path / "b", "--workers", 1).returncode
        == 0
    )
    assert _public(out) == _public(tmp_path / "b")


@pytest.mark.parametrize("found", [b"\xb9\x00", b"text", b"", b"- a\n- b\n"])
def test_what_is_no_recipe_or_lock_is_a_sentence(tmp_path, found):
    path = tmp_path / "x.yaml"
    path.write_bytes(found)
    for args in (("build", path), ("build", "--locked", path)):
        run = fakes.call_cli("data", *args, cwd=tmp_path)
        assert run.returncode == 2, run.stderr
        assert "x.yaml" in run.stderr
        assert "_file" not in run.stderr.lower()
