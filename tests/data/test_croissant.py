"""`croissant.json` says what the shards hold; the official validator reads rows through it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sammed_data.build import build
from sammed_data.corpus import SCHEMA, Corpus
from sammed_data.phantom import write_phantoms


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("croissant")
    write_phantoms(folder, n_patients=4, seed=6, only=("phantom_ct", "phantom_endo"))
    build(folder / "catalogs", folder / "data", folder / "corpus")
    return Corpus(folder / "corpus")


def test_every_column_is_described_and_splits_are_those_present(corpus: Corpus) -> None:
    said = json.loads((corpus.root / "croissant.json").read_text())
    splits, images = said["recordSet"]
    assert [f["name"] for f in images["field"]] == SCHEMA.names
    present = {path.parent.name for path in corpus.shards}
    assert {row["splits/name"] for row in splits["data"]} == present
    assert said["identifier"] == f"sha256:{corpus.content_hash}"
    assert {d["name"] for d in said["isBasedOn"]} == {
        d["name"] for d in corpus.manifest["datasets"]
    }


def test_the_official_reader_accepts_it_and_reads_a_row(corpus: Corpus) -> None:
    croissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant to validate")
    opened = croissant.Dataset(str(corpus.root / "croissant.json"))
    rows = {row.sample_id: row for row in corpus.index()}
    record = next(iter(opened.records("images")))
    full = corpus.read(rows[record["images/sample_id"].decode()])
    np.testing.assert_array_equal(np.asarray(record["images/image"]), full.image)
    masks = record["images/masks"]
    assert len(masks) == len(full.masks)
    for found, mask in zip(masks, full.masks, strict=True):
        picture = np.asarray(found["images/masks/mask"])
        np.testing.assert_array_equal(picture > 0, mask.mask_HW)
        assert found["images/masks/area_px"] == mask.area_px
        assert tuple(found["images/masks/box_xyxy"]) == mask.box_xyxy
