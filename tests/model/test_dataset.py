"""Chosen rows with their pixels: read once, remembered up to a bound."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_corpus import write_corpus

from sammed_data.corpus import Corpus, View
from sammed_model import dataset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def test_cache_is_bounded_and_changes_nothing(corpus):
    rows = corpus.index(["train"])
    small = dataset.Samples(corpus, rows, view=View(), cache_bytes=30_000)
    for row in rows:
        full, image, key = small.pixels(row)
        assert key == row.sample_id
        assert image.shape == (row.height, row.width)
    assert 0 < len(small._cache) < len(rows)
    assert np.array_equal(small.pixels(rows[0])[1], corpus.read(rows[0]).image)


def test_a_view_leaves_small_masks_out(corpus):
    samples = dataset.Samples(corpus, corpus.index(["train"]), view=View(min_area_fraction=0.1))
    assert 0 < samples.n_masks < 48
    for row in samples.rows:
        for mask in samples.masks[row.sample_id]:
            assert mask.area_px >= 0.1 * row.height * row.width
