"""A row leads back to its file, and the file gives the row again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sammed_data.build import build
from sammed_data.cli import app
from sammed_data.codecs import decode_image, decode_mask
from sammed_data.corpus import Corpus
from sammed_data.phantom import write_phantoms
from sammed_data.plan import BuildOptions
from sammed_data.trace import find_row, trace
from sammed_data.types import CorpusError, UsageError

KINDS = ("phantom_ct", "phantom_ct_rt", "phantom_endo")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace")
    write_phantoms(folder, n_patients=4, seed=5, only=KINDS)
    options = BuildOptions(depth=16, orientation="stored")
    build(folder / "catalogs", folder / "data", folder / "corpus", options=options)
    return folder


def traced(made: Path, sample_id: str, corpus: str = "corpus"):
    return trace(Corpus(made / corpus), sample_id, source=made / "catalogs", root=made / "data")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_its_rows_again(made: Path, kind: str) -> None:
    rows = [row for row in Corpus(made / "corpus").index() if row.dataset == kind]
    for row in (rows[0], rows[-1]):
        found = traced(made, row.sample_id)
        assert found.differences == ()
        assert all(file.same for file in found.files)
        assert {file.role for file in found.files} == {"image", "label"}
        stored = found.row.image
        assert stored is not None
        np.testing.assert_array_equal(found.image, stored)


def test_the_verb_prints_writes_and_compares(made: Path, tmp_path: Path) -> None:
    row = next(r for r in Corpus(made / "corpus").index() if r.dataset == "phantom_endo")
    where = ["--corpus", str(made / "corpus"), "--source", str(made / "catalogs")]
    where += ["--root", str(made / "data")]
    run = CliRunner().invoke(app, ["trace", row.sample_id, *where, "--out", str(tmp_path / "o")])
    assert run.exit_code == 0, run.output
    assert "pixel for pixel" in run.output
    assert row.meta["sources"][0]["path"] in run.output
    full = Corpus(made / "corpus").read(row)
    image = decode_image((tmp_path / "o" / "image.png").read_bytes())
    np.testing.assert_array_equal(image, full.image)
    mask = decode_mask((tmp_path / "o" / "mask-0.png").read_bytes())
    np.testing.assert_array_equal(mask, full.masks[0].mask_HW)
    run = CliRunner().invoke(app, ["trace", row.sample_id, *where, "--json"])
    said = json.loads(run.stdout)
    assert said["differences"] == []
    assert [f["same"] for f in said["files"]] == [True] * len(row.meta["sources"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_of_own_entries_needs_no_folder_of_them(made: Path, kind: str) -> None:
    corpus = Corpus(made / "corpus")
    row = next(row for row in corpus.index() if row.dataset == kind)
    found = trace(corpus, row.sample_id, source=None, root=made / "data")
    assert (found.entry.origin, found.differences) == ("kept", ())


def test_a_changed_or_lost_source_is_said(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    row = next(r for r in Corpus(made / "corpus").index() if r.dataset == "phantom_endo")
    image = next(s for s in row.meta["sources"] if s["role"] == "image")
    place = tmp_path / "data" / "phantom_endo" / image["path"]
    pixels = decode_image(place.read_bytes())
    import cv2

    cv2.imwrite(str(place), 255 - pixels)
    found = trace(
        Corpus(made / "corpus"), row.sample_id, source=made / "catalogs", root=tmp_path / "data"
    )
    assert found.differences == ("image",)
    assert [file.same for file in found.files if file.role == "image"] == [False]
    place.rename(place.with_name("renamed" + place.suffix))
    with pytest.raises(CorpusError, match="gone or renamed"):
        trace(
            Corpus(made / "corpus"), row.sample_id, source=made / "catalogs", root=tmp_path / "data"
        )


def test_an_unknown_sample_names_its_neighbours(made: Path) -> None:
    corpus = Corpus(made / "corpus")
    row = corpus.index()[0]
    with pytest.raises(UsageError, match=row.sample_id[:-1]):
        find_row(corpus, row.sample_id[:-1])
    with pytest.raises(UsageError, match="phantom_ct"):
        find_row(corpus, "phantom_xt--a--axial--0001")


def test_restricted_rows_are_traced_with_the_key_of_the_site(made: Path, tmp_path: Path) -> None:
    catalogs = tmp_path / "catalogs"
    shutil.copytree(made / "catalogs", catalogs)
    entry = catalogs / "phantom_ct.yaml"
    entry.write_text(entry.read_text() + "\nprivacy: restricted\n")
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(b"k" * 32)
    other.write_bytes(b"o" * 32)
    build(catalogs, made / "data", tmp_path / "c", only=["phantom_ct"], key_file=key)
    corpus = Corpus(tmp_path / "c")
    row = corpus.index()[0]
    found = trace(corpus, row.sample_id, source=catalogs, root=made / "data", key_file=key)
    assert found.differences == ()
    # The site sees its own path; the corpus holds a pseudonym.
    assert (made / "data" / "phantom_ct" / found.files[0].path).exists()
    assert row.meta["sources"][0]["path"].startswith("f")
    with pytest.raises(CorpusError, match="not the key"):
        trace(corpus, row.sample_id, source=catalogs, root=made / "data", key_file=other)
    with pytest.raises(UsageError, match="--key"):
        trace(corpus, row.sample_id, source=catalogs, root=made / "data")


def test_a_corpus_is_named_by_argument_or_option(made: Path, tmp_path: Path) -> None:
    corpus = str(made / "corpus")
    row = next(r for r in Corpus(corpus).index() if r.dataset == "phantom_endo")
    where = ["--source", str(made / "catalogs"), "--root", str(made / "data")]
    for call in (
        ["trace", row.sample_id, corpus, *where],
        ["describe", corpus],
        ["describe", "--corpus", corpus],
        ["export", str(tmp_path / "e"), corpus, "--dry-run"],
        ["export", str(tmp_path / "e"), "--corpus", corpus, "--dry-run"],
        ["export", corpus, "--out", str(tmp_path / "e"), "--dry-run"],
        ["export", "--out", str(tmp_path / "e"), "--corpus", corpus, "--dry-run"],
    ):
        run = CliRunner().invoke(app, call)
        assert run.exit_code == 0, run.output
    for call in (
        ["describe", corpus, "--corpus", str(tmp_path)],
        ["export", "--corpus", corpus],
        ["export", corpus, corpus, "--out", str(tmp_path / "e")],
    ):
        assert isinstance(CliRunner().invoke(app, call).exception, UsageError)


def test_a_dataset_without_test_patients_is_said(made: Path) -> None:
    from sammed_data.describe import counts_lines

    manifest = json.loads((made / "corpus" / "manifest.json").read_text(encoding="utf-8"))
    assert not any("test on" in line for line in counts_lines(manifest))
    splits = manifest["datasets"][0]["splits"]
    splits |= {"test": 0, "validation": 0, "train": 5}
    said = [line for line in counts_lines(manifest) if "test on" in line]
    assert len(said) == 1
    assert manifest["datasets"][0]["id"] in said[0]
