"""Batches: complete epochs in a fixed order, from any position, with the right pixels."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_corpus import write_corpus

from sammed_data.corpus import Corpus, View
from sammed_data.types import CorpusError
from sammed_model import dataset
from sammed_model.frame import Preprocessing


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def loader(corpus, *, workers=0, batch=5, k=1, images=None, replacement=False, view=None):
    rows = corpus.index(["train"])
    samples = dataset.Samples(corpus, rows, images=images, view=view or View())
    draw = dataset.Draw(masks_per_image=k, seed=3, replacement=replacement)
    return dataset.Loader(
        samples, Preprocessing.named("default", 32), batch_images=batch, draw=draw, workers=workers
    )


def take(batches, n):
    found = list(itertools.islice(batches, n))
    batches.close()
    return found


def same(a, b):
    fields = ("images_B3SS", "masks_M1SS", "valid_B1SS", "image_index_M", "seeds_M")
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in fields) and a.keys == b.keys


def test_an_epoch_holds_every_image_once_and_epochs_differ(corpus):
    made = loader(corpus)
    batches = take(made.batches(), 10)
    assert made.batches_per_epoch == 5
    assert [b.position for b in batches] == [(e, n) for e in range(2) for n in range(5)]
    epochs = [[k for b in half for k in b.keys] for half in (batches[:5], batches[5:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(r.sample_id for r in made.samples.rows)
    assert epochs[0] != epochs[1]
    assert not set(batches[0].seeds_M.tolist()) & set(batches[5].seeds_M.tolist())


def test_any_position_and_any_workers_give_the_same_batches(corpus):
    whole = take(loader(corpus).batches(), 12)
    resumed = take(loader(corpus, workers=3).batches((1, 2)), 5)
    assert all(same(a, b) for a, b in zip(whole[7:], resumed, strict=True))


def test_masks_belong_to_their_images(corpus):
    made = loader(corpus, k=2)
    for batch in take(made.batches(), 5):
        assert batch.masks_M1SS.shape[0] == 2 * len(batch.keys)
        assert batch.image_index_M.tolist() == [i for i in range(len(batch.keys)) for _ in "ab"]
        for mask, index in zip(batch.masks_M1SS[:, 0], batch.image_index_M, strict=True):
            image, valid = batch.images_B3SS[index, 0], batch.valid_B1SS[index, 0]
            assert not (mask & ~valid).any()
            assert 0 < valid.sum() < 32 * 32
            assert image[mask].median() > image[valid & ~mask].median() + 0.1


def test_with_replacement_draws_as_many_as_asked(corpus):
    batch = take(loader(corpus, k=5, replacement=True).batches(), 1)[0]
    assert batch.masks_M1SS.shape[0] == 5 * len(batch.keys)
    assert len(set(batch.seeds_M.tolist())) == 25


def test_view_and_vanishing_masks(corpus):
    made = loader(corpus, view=View(min_area_fraction=0.1), k=2)
    assert 0 < made.samples.n_masks < 48
    for row in made.samples.rows:
        for mask in made.samples.masks[row.sample_id]:
            assert mask.area_px >= 0.1 * row.height * row.width


def test_cache_is_bounded_and_changes_nothing(corpus):
    rows = corpus.index(["train"])
    small = dataset.Samples(corpus, rows, view=View(), cache_bytes=30_000)
    for row in rows:
        full, image, key = small.pixels(row)
        assert key == row.sample_id
        assert image.shape == (row.height, row.width)
    assert 0 < len(small._cache) < len(rows)
    assert np.array_equal(small.pixels(rows[0])[1], corpus.read(rows[0]).image)


def test_permuted_control_gives_every_row_another_patients_image(corpus):
    rows = corpus.index(["train"])
    images = dataset.permute_images(rows, seed=0)
    by_id = {r.sample_id: r for r in rows}
    assert sorted(images) == sorted(r.sample_id for r in images.values()) == sorted(by_id)
    for name, other in images.items():
        assert dataset.patient_of(by_id[name]) != dataset.patient_of(other)
        assert (by_id[name].height, by_id[name].width) == (other.height, other.width)
    assert {k: v.sample_id for k, v in dataset.permute_images(rows[::-1], 0).items()} == {
        k: v.sample_id for k, v in images.items()
    }
    plain = take(loader(corpus).batches(), 1)[0]
    control = take(loader(corpus, images=images).batches(), 1)[0]
    assert torch.equal(plain.masks_M1SS, control.masks_M1SS)
    assert torch.equal(plain.seeds_M, control.seeds_M)
    assert Counter(plain.keys) != Counter(control.keys)


def test_permutation_of_odd_companies(corpus):
    rows = corpus.index(["train"])
    two_sizes = [rows[0], rows[1], rows[-1]]
    images = dataset.permute_images(two_sizes, 0)
    assert all(name != other.sample_id for name, other in images.items())
    with pytest.raises(CorpusError, match="at least two images"):
        dataset.permute_images(rows[:1], 0)
