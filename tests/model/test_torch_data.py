"""A corpus under torch's own DataLoader: shapes, sharing out, exact resumption."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tiny_corpus
import torch
from torch.utils.data import DataLoader

from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError, UsageError
from sammed_model import CorpusBatch, CorpusDataset, CorpusStream, collate

SIZE = (20, 31)
HERE = {"patients": {"train": 5, "validation": 1, "test": 1}, "slices": 3, "size": SIZE}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_corpus.write_corpus(tmp_path_factory.mktemp("torch") / "c", **HERE)


def _loader(dataset, workers, batch=2, **more):
    return DataLoader(dataset, batch, num_workers=workers, collate_fn=collate, **more)


def _names(batches):
    return [[item.sample_id for item in batch.items] for batch in batches]


def test_an_item_is_the_row_as_tensors(root):
    rows = CorpusDataset(root, "train", view="all")
    assert len(rows) == 2 * 5 * 3
    for index in (len(rows) - 1, 0, 17):
        item, row = rows[index], rows.row(index)
        assert (item.sample_id, item.dataset, item.split) == (row.sample_id, row.dataset, "train")
        assert item.image_CHW.shape == (1, row.height, row.width)
        assert item.image_CHW.dtype == torch.uint8
        np.testing.assert_array_equal(item.image_CHW[0], row.image)
        assert item.structures == tuple(m.structure for m in row.masks)
        assert item.organs == tuple(m.organ for m in row.masks)
        assert [tuple(b) for b in item.boxes_M4.tolist()] == [m.box_xyxy for m in row.masks]
        for mask_HW, mask in zip(item.masks_MHW, row.masks, strict=True):
            np.testing.assert_array_equal(mask_HW, mask.mask_HW)
        assert not item.ignore_HW.any()
        assert row.meta["spacing_x_mm"] == 1.25


def test_datasets_views_and_transforms_choose_what_comes(root):
    rows = CorpusDataset(root, ["test", "validation"], datasets=["ellipses_b"])
    assert {rows[n].dataset for n in range(len(rows))} == {"ellipses_b"}
    assert CorpusDataset(root, transform=lambda item: item.split)[1] == "train"
    with pytest.raises(UsageError, match="validation"):
        CorpusDataset(root, "valid")
    with pytest.raises(UsageError, match="sam-med2d"):
        CorpusDataset(root, view="sammed2d")
    with pytest.raises(UsageError, match="ellipses_a"):
        CorpusDataset(root, datasets=["ellipse_a"])
    with pytest.raises(CorpusError, match="held_out with a mask"):
        CorpusDataset(root, "held_out")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_map_under_a_loader_is_padded_to_one_size(root, workers):
    rows = CorpusDataset(root, "train", view="all")
    generator = torch.Generator().manual_seed(3)
    batches = list(_loader(rows, workers, batch=7, shuffle=True, generator=generator))
    names = [name for batch in _names(batches) for name in batch]
    assert sorted(names) == sorted(rows[n].sample_id for n in range(len(rows)))
    batch = next(b for b in batches if len(set(b.sizes_B2[:, 1].tolist())) == 2)
    assert isinstance(batch, CorpusBatch)
    assert batch.images_B3HW.shape == (7, 3, 20, 39)
    assert batch.masks_MHW.shape == (14, 20, 39)
    assert batch.image_index_M.tolist() == sorted([*range(7), *range(7)])
    assert batch.valid_BHW.sum(dim=(1, 2)).tolist() == batch.sizes_B2.prod(dim=1).tolist()
    inside = batch.valid_BHW[batch.image_index_M]
    assert not (batch.masks_MHW & ~inside).any()
    assert batch.to("cpu").boxes_M4.shape == (14, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_share_an_epoch_out(root, workers):
    whole = {i.sample_id for i in CorpusStream(root)}
    seen: list[str] = []
    for rank in (0, 1):
        stream = CorpusStream(root, rank=rank, world=2, seed=5)
        seen += [name for batch in _names(_loader(stream, workers)) for name in batch]
    assert len(seen) == len(set(seen))
    assert len(whole) - len(seen) < 2 * max(workers, 1)  # the rest waits for another epoch
    assert set(seen) <= whole
    stream = CorpusStream(root, seed=5)
    first = _names(_loader(stream, 0))
    stream.set_epoch(1)
    assert _names(_loader(stream, 0)) != first
    assert _names(_loader(CorpusStream(root, seed=5), 0)) == first


@pytest.mark.parametrize(("workers", "stop"), [(0, 4), (2, 3), (2, 4)])
def test_a_stream_goes_on_with_exactly_the_batches_to_come(root, workers, stop):
    stream = CorpusStream(root, seed=2)
    stream.set_epoch(1)
    all_names, state = [], None
    for number, batch in enumerate(_loader(stream, workers), 1):
        all_names += _names([batch])
        stream.seen(batch)
        if number == stop:
            state = json.loads(json.dumps(stream.state_dict()))
    again = CorpusStream(root, seed=2)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert _names(_loader(again, workers)) == all_names[stop:]
    again.load_state_dict(stream.state_dict())  # at the end nothing is left
    assert list(_loader(again, workers)) == []


def test_a_state_of_something_else_is_refused(root):
    stream = CorpusStream(root)
    stream.seen(next(iter(_loader(stream, 2))))
    state = stream.state_dict()
    with pytest.raises(UsageError, match="seed 1, found 0"):
        CorpusStream(root, seed=1).load_state_dict(state)
    other = CorpusStream(root)
    other.load_state_dict(state)
    with pytest.raises(UsageError, match="2 workers .* found 1"):
        next(iter(other))
    with pytest.raises(UsageError, match="both rank and world"):
        CorpusStream(root, rank=1)
    with pytest.raises(UsageError, match="found one of a CorpusDataset"):
        stream.seen(CorpusDataset(root)[0])


def test_what_a_spawned_worker_gets_is_small_and_opens_anew(root):
    rows = CorpusDataset(root)
    sent = pickle.dumps(rows)
    assert len(sent) < 4000
    assert pickle.loads(sent)[3].sample_id == rows[3].sample_id


def test_the_package_stays_light_until_a_name_is_used():
    code = (
        "import sys, sammed_model; assert 'torch' not in sys.modules; "
        "from sammed_model import CorpusDataset, SammedPredictor, load_model; "
        "heavy = {'SimpleITK', 'nibabel', 'pydicom', 'datasets', 'pydantic'} & set(sys.modules); "
        "print(sorted(heavy), SammedPredictor.__name__, sammed_model.__all__ == dir(sammed_model))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] SammedPredictor True"


def test_the_order_of_a_map_is_what_the_corpus_reads(root):
    corpus = Corpus(root)
    rows = CorpusDataset(root, "train", view="all")
    wanted = [row.sample_id for row in corpus.index(["train"])]
    assert [rows[n].sample_id for n in range(len(rows))] == wanted
