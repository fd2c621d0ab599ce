"""Batches: complete epochs in a fixed order, from any position, with the right pixels."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_corpus import write_corpus

from sammed_data.corpus import VIEWS, Corpus, View
from sammed_data.index import open_index
from sammed_data.types import CorpusError
from sammed_model.control import permute_images
from sammed_model.dataset import Draw
from sammed_model.feed import Loader, TrainingSet
from sammed_model.frame import Preprocessing
from sammed_model.selection import Selection, choose_rows, rows_of, split_rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def training_numbers(corpus, view=VIEWS["all"]):
    return open_index(corpus).select(corpus, ["train"], view)


def loader(corpus, *, workers=0, batch=5, k=1, images=None, replacement=False, view=None, **ranks):
    view = view or View()
    numbers = training_numbers(corpus, view)
    rows = TrainingSet(corpus, numbers, images_N=images, view=view, **ranks)
    draw = Draw(masks_per_image=k, seed=3, replacement=replacement)
    return Loader(
        rows, Preprocessing.named("default", 32), batch_images=batch, draw=draw, workers=workers
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
    wanted = sorted(row.sample_id for row in corpus.index(["train"]))
    assert sorted(epochs[0]) == sorted(epochs[1]) == wanted
    assert epochs[0] != epochs[1]
    assert not set(batches[0].seeds_M.tolist()) & set(batches[5].seeds_M.tolist())


def test_any_position_and_any_workers_give_the_same_batches(corpus):
    whole = take(loader(corpus).batches(), 12)
    resumed = take(loader(corpus, workers=3).batches((1, 2)), 5)
    assert all(same(a, b) for a, b in zip(whole[7:], resumed, strict=True))


def test_ranks_train_on_different_images_and_as_many_batches(corpus):
    shares = [loader(corpus, rank=rank, world=2) for rank in range(2)]
    assert [share.batches_per_epoch for share in shares] == [3, 3]
    names = [{k for b in take(share.batches(), 3) for k in b.keys} for share in shares]
    assert len(names[0] | names[1]) == 24
    assert not names[0] & names[1]


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


def test_masks_outside_the_view_are_never_drawn(corpus):
    view = View(min_area_fraction=0.1)
    made = loader(corpus, view=view, k=2)
    rows = {row.sample_id: row for row in corpus.index(["train"])}
    kept = {k: [m for m in r.masks if view.keeps_mask(m, 48, r.width)] for k, r in rows.items()}
    assert 0 < made.rows.n_masks < 48
    for batch in take(made.batches(), made.batches_per_epoch):
        drawn = Counter(batch.image_index_M.tolist())
        assert [drawn[n] for n in range(len(batch.keys))] == [len(kept[k]) for k in batch.keys]


def test_permuted_control_gives_every_row_another_patients_image(corpus):
    index, numbers = open_index(corpus), training_numbers(corpus)
    images = permute_images(index, numbers, seed=0)
    assert sorted(images[numbers]) == numbers.tolist()
    own, other = index.rows_N[numbers], index.rows_N[images[numbers]]
    assert (own["patient"] != other["patient"]).all()
    assert (own["height"] == other["height"]).all()
    assert (own["width"] == other["width"]).all()
    assert (permute_images(index, numbers, seed=1) != images).any()
    plain = take(loader(corpus).batches(), 1)[0]
    control = take(loader(corpus, images=images).batches(), 1)[0]
    assert torch.equal(plain.masks_M1SS, control.masks_M1SS)
    assert torch.equal(plain.seeds_M, control.seeds_M)
    assert not set(plain.keys) & set(control.keys) or plain.keys != control.keys
    names = rows_of(corpus, index, numbers)
    by_name = {row.sample_id: n for row, n in zip(names, numbers.tolist(), strict=True)}
    wanted = [names[numbers.tolist().index(images[by_name[k]])].sample_id for k in plain.keys]
    assert list(control.keys) == wanted


def test_permutation_of_odd_companies(corpus):
    index, numbers = open_index(corpus), training_numbers(corpus)
    three = numbers[[0, 1, -1]]  # the last one has a size of its own
    images = permute_images(index, three, seed=0)
    assert (images[three] != three).all()
    assert sorted(images[three]) == three.tolist()
    with pytest.raises(CorpusError, match="at least two images"):
        permute_images(index, numbers[:1], 0)


def test_rows_of_keeps_the_order_asked_for(corpus):
    rows = corpus.index()
    numbers = np.array([17, 3, 40, 0])
    found = rows_of(corpus, open_index(corpus), numbers)
    assert [r.sample_id for r in found] == [rows[n].sample_id for n in numbers]
    assert found[0] == rows[17]


def test_validation_rows_are_spread_over_patients_and_do_not_move(corpus):
    index, numbers = open_index(corpus), training_numbers(corpus)
    few = choose_rows(index, numbers, 8)
    assert len(set(index.rows_N["patient"][few])) == 8
    assert choose_rows(index, numbers, 100)[:8].tolist() == few.tolist()
    assert sorted(choose_rows(index, numbers, 100)) == numbers.tolist()


def test_patients_are_held_out_whole_where_there_is_no_validation_split(tmp_path):
    corpus = Corpus(write_corpus(tmp_path, patients={"train": 5}))
    said: list[str] = []
    chosen = Selection.of(corpus, said.append)
    patients = chosen.index.rows_N["patient"]
    assert not set(patients[chosen.training_E]) & set(patients[chosen.held_out_E])
    assert len(set(patients[chosen.held_out_E])) == 1
    assert "patients of the train split are held out" in said[0]
    rest, held = split_rows(chosen.index, chosen.training_E[:3])  # three slices of one patient
    assert len(rest) == 3
    assert not len(held)


def test_nothing_to_train_on_is_a_sentence(tmp_path):
    corpus = Corpus(write_corpus(tmp_path / "a", patients={"test": 2}))
    with pytest.raises(CorpusError, match="expected images in the train split"):
        Selection.of(corpus, print)
    long = Corpus(write_corpus(tmp_path / "b", patients={"train": 2}, size=(20, 90)))
    with pytest.raises(CorpusError, match="all 12 train images .* outside the view sam-med2d"):
        Selection.of(long, print)
