"""Balanced sampling: exact shares, spread over the epoch, the same from any position and rank."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_corpus import write_corpus

from sammed_data.corpus import VIEWS, Corpus
from sammed_data.index import MASK, ROW, CorpusIndex, open_index
from sammed_model.balance import Balance
from sammed_model.dataset import Draw
from sammed_model.feed import Loader, TrainingSet
from sammed_model.frame import Preprocessing

VIEW = VIEWS["all"]


def index_of(sizes: dict[str, int], structures: dict[str, int] | None = None) -> CorpusIndex:
    """Rows without pixels: datasets of some sizes; every row of ``n`` masks has structure 0."""
    n = sum(sizes.values())
    rows = np.zeros(n, ROW)
    rows["dataset"] = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    rows["n_masks"] = 2
    rows["first_mask"] = 2 * np.arange(n)
    masks = np.zeros(2 * n, MASK)
    masks["area_fraction"], masks["annotator"] = 0.1, 1
    for code, count in enumerate((structures or {}).values(), 1):
        masks["structure"][1 : 2 * count : 2] = code
    names = {"dataset": list(sizes), "modality": ["ct"], "structure": ["all", *(structures or {})]}
    return CorpusIndex(rows_N=rows, masks_M=masks, names=names, about={})


def balance_of(index, by, *, temperature=1.0, seed=0, numbers=None):
    numbers = np.arange(len(index.rows_N)) if numbers is None else numbers
    return Balance.of(index, numbers, by, temperature=temperature, view=VIEW, seed=seed)


def shares(index, balance, epoch=0) -> list[int]:
    return np.bincount(index.rows_N["dataset"], weights=balance.counts(epoch)).astype(int).tolist()


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, [337, 337, 336]), (0.0, [900, 100, 10])]
)
def test_shares_are_exact(temperature, expected):
    index = index_of({"large": 900, "middle": 100, "small": 10})
    balance = balance_of(index, "dataset", temperature=temperature)
    for epoch in range(3):
        found = shares(index, balance, epoch)
        assert sum(found) == 1010
        assert found == pytest.approx(expected, abs=1)


def test_half_way_is_the_geometric_middle():
    index = index_of({"large": 900, "small": 100})
    found = shares(index, balance_of(index, "dataset", temperature=0.5))
    assert found == pytest.approx([750, 250], abs=1)


def test_rows_of_a_class_take_turns():
    """Of 900 rows with a share of 337, all are seen within a few epochs, none too often."""
    index = index_of({"large": 900, "middle": 100, "small": 10})
    balance = balance_of(index, "dataset")
    seen = sum(balance.counts(epoch) for epoch in range(20))
    assert (balance.counts(1) != balance.counts(2)).any()
    assert (balance.counts(1) == balance.counts(1)).all()
    assert (seen[:900] > 0).all()
    assert seen[:900].max() <= 18
    assert set(balance.counts(0)[1000:].tolist()) <= {33, 34}
    assert (balance_of(index, "dataset", seed=1).counts(0) != balance.counts(0)).any()


def test_a_row_counts_as_its_rarest_structure():
    index = index_of({"one": 100}, {"rare": 10})
    counts = balance_of(index, "structure").counts(0)
    assert counts[:10].sum() == pytest.approx(50, abs=1)
    some = np.arange(5, 100)
    found = balance_of(index, "structure", numbers=some).counts(0)
    assert len(found) == found.sum() == 95
    assert found[:5].sum() == pytest.approx(47.5, abs=1)


def test_millions_of_rows_take_seconds():
    index = index_of({"large": 1_900_000, "small": 100_000})
    balance = balance_of(index, "dataset")
    began = time.process_time()
    assert shares(index, balance) == pytest.approx([1_000_000, 1_000_000], abs=1)
    assert time.process_time() - began < 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Dataset a has 4 patients of 3 slices, b has one."""
    root = write_corpus(
        tmp_path_factory.mktemp("a") / "corpus",
        patients={"train": 4},
        datasets=("ellipses_a", "ellipses_b"),
    )
    return Corpus(root)


def loader(corpus, *, workers=0, by="dataset", rank=0, world=1, drop=9):
    index = open_index(corpus)
    numbers = index.select(corpus, ["train"], VIEW)
    small = numbers[index.rows_N["dataset"][numbers] == 1]
    numbers = np.setdiff1d(numbers, small[:drop])
    balance = Balance.of(index, numbers, by, temperature=1.0, view=VIEW, seed=2)
    rows = TrainingSet(corpus, numbers, view=VIEW, balance=balance, rank=rank, world=world)
    draw = Draw(masks_per_image=1, seed=0)
    return Loader(
        rows, Preprocessing.named("default", 32), batch_images=5, draw=draw, workers=workers
    )


def take(batches, n):
    found = list(itertools.islice(batches, n))
    batches.close()
    return found


def test_an_epoch_of_a_corpus_is_balanced_and_repeats_differ(corpus):
    made = take(loader(corpus).batches(), 3)
    assert loader(corpus).batches_per_epoch == 3
    keys = [key for batch in made for key in batch.keys]
    assert len(keys) == 15
    by_dataset = Counter(key.split("/")[0] for key in keys)
    assert sorted(by_dataset.values()) == [7, 8]
    assert max(Counter(keys).values()) <= 3
    prompts = [seed for batch in made for seed in batch.seeds_M.tolist()]
    visits = [seed for batch in made for seed in batch.visit_seeds_B.tolist()]
    assert len(set(prompts)) == len(set(visits)) == 15  # a repeat is another draw


def test_resume_and_workers_and_ranks(corpus):
    whole = take(loader(corpus).batches(), 9)
    again = take(loader(corpus, workers=2).batches((1, 1)), 5)
    for a, b in zip(whole[4:], again, strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.seeds_M, b.seeds_M)
        assert torch.equal(a.images_B3SS, b.images_B3SS)
    parts = [
        [k for b in take(loader(corpus, rank=r, world=3).batches(), 1) for k in b.keys]
        for r in range(3)
    ]
    epoch = [key for batch in whole[:3] for key in batch.keys]
    assert [key for part in parts for key in part] == epoch


def test_none_is_the_plain_order(corpus):
    index = open_index(corpus)
    numbers = index.select(corpus, ["train"], VIEW)
    balance = Balance.of(index, numbers, "none", temperature=1.0, view=VIEW, seed=0)
    plain = TrainingSet(corpus, numbers, view=VIEW)
    same = TrainingSet(corpus, numbers, view=VIEW, balance=balance)
    for epoch in range(2):
        orders = [np.concatenate(list(t.stream.order(epoch))).tolist() for t in (plain, same)]
        assert orders[0] == orders[1]
