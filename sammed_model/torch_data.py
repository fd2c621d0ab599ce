"""A corpus as datasets of torch, for training code that is not ours.

``CorpusDataset`` gives any row by number, ``CorpusStream`` all rows of an epoch in a shuffled
order, shared out to ranks and to the workers of a DataLoader. Both give ``CorpusItem``, and
``collate`` makes a ``CorpusBatch`` of some.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from sammed_data.corpus import SPLITS, VIEWS, Corpus, Row, View
from sammed_data.index import CorpusIndex, open_index
from sammed_data.stream import Page, Stream, StreamRow
from sammed_data.types import CorpusError, UsageError, nearest
from sammed_model.torch_items import CorpusItem, Place, boxes_around

_PAGES = 8


class _Chosen:
    """Rows of a corpus that are wanted; opened anew in every process that asks.

    Args:
        root: folder or URL of a built corpus.
        splits: one or several of ``SPLITS``.
        view: which masks count, or a name of ``VIEWS``; rows without a mask are left out.
        datasets: ids; default all.
    """

    def __init__(
        self,
        root: Path | str,
        splits: str | Sequence[str],
        view: View | str,
        datasets: Sequence[str] | None,
    ) -> None:
        self.root = root
        self.splits = [splits] if isinstance(splits, str) else list(splits)
        for split in self.splits:
            if split not in SPLITS:
                raise UsageError(f"unknown split {split!r}: {nearest(split, SPLITS)}")
        if isinstance(view, str) and view not in VIEWS:
            raise UsageError(f"unknown view {view!r}: {nearest(view, VIEWS)}")
        self.view = VIEWS[view] if isinstance(view, str) else view
        self._process: int | None = None
        self._open()
        self.content_hash = self.corpus.content_hash
        self.numbers_E = self._select(datasets)

    def _open(self) -> None:
        """Parquet files and maps belong to one process: a worker opens its own."""
        if self._process != os.getpid():
            self._corpus = Corpus(self.root)
            self._index = open_index(self._corpus)
            self._pages: OrderedDict[tuple[int, int], Page] = OrderedDict()
            self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker gets: no open file."""
        opened = {"_corpus", "_index", "_pages", "_process"}
        return {k: v for k, v in vars(self).items() if k not in opened} | {"_process": None}

    @property
    def corpus(self) -> Corpus:
        """Opened by this process."""
        self._open()
        return self._corpus

    @property
    def index(self) -> CorpusIndex:
        """Of the corpus."""
        self._open()
        return self._index

    def _select(self, datasets: Sequence[str] | None) -> NDArray[np.int64]:
        found = self.index.select(self.corpus, self.splits, self.view)
        if datasets is not None:
            names = self.index.names["dataset"]
            for name in datasets:
                if name not in names:
                    raise UsageError(f"{self.root} has no dataset {name!r}: {nearest(name, names)}")
            codes = [names.index(name) for name in datasets]
            found = found[np.isin(self.index.rows_N["dataset"][found], codes)]
        if not len(found):
            raise CorpusError(
                f"expected rows of {', '.join(self.splits)} with a mask under the view "
                f"{self.view.name!r} in {self.root}, found none: choose other splits or view"
            )
        return found

    def read(self, number: int) -> StreamRow:
        """Any row; the last few row groups are held, so that neighbours cost one reading."""
        row = self.index.rows_N[number]
        place = (int(row["shard"]), int(row["group"]))
        page = self._pages.pop(place, None) or Page.read(self.corpus, *place)
        self._pages[place] = page
        if len(self._pages) > _PAGES:
            self._pages.popitem(last=False)
        return StreamRow(number=number, epoch=0, offset=0, page=page, position=int(row["position"]))

    def item(self, row: StreamRow, place: Place | None = None) -> CorpusItem:
        """The tensors and names of a row."""
        index, said = self.index, self.index.rows_N[row.number]
        keys = index.mask_keys(row.number, self.view)
        first = int(said["first_mask"])
        names = [index.names["structure"][index.masks_M["structure"][first + k]] for k in keys]
        organs, groups, kinds = zip(*(index.about[name] for name in names), strict=True)
        image = row.image()
        masks_MHW = torch.from_numpy(np.stack([row.mask_HW(k) for k in keys]))
        ignore = row.ignore_HW()
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        return CorpusItem(
            image_CHW=torch.from_numpy(np.array(planes, order="C")),
            masks_MHW=masks_MHW,
            boxes_M4=boxes_around(masks_MHW),
            ignore_HW=torch.zeros(masks_MHW.shape[1:], dtype=torch.bool)
            if ignore is None
            else torch.from_numpy(np.array(ignore)),
            structures=tuple(names),
            organs=tuple(organs),
            groups=tuple(groups),
            kinds=tuple(kinds),
            mask_keys=tuple(keys),
            sample_id=row.sample_id,
            dataset=index.names["dataset"][said["dataset"]],
            modality=index.names["modality"][said["modality"]],
            split=self.corpus.shards[int(said["shard"])].parent.name,
            number=row.number,
            place=place,
        )


class CorpusDataset(Dataset[Any]):
    """Rows of a corpus by number, for a DataLoader with a sampler.

    Neighbours lie in one row group of a file: a random order reads a group for every row. For
    training over a large corpus take :class:`CorpusStream`.

    Args:
        root: folder or URL of a built corpus.
        splits: one or several of train, validation, test, held_out.
        view: which masks count (``sam-med2d``, ``all``, or a ``View``); rows without one are left
            out, as are those of ``exclude.csv``.
        datasets: ids; default all.
        transform: applied to each item.

    Raises:
        CorpusError: no corpus, or no row.
        UsageError: an unknown split, view or dataset.
    """

    def __init__(
        self,
        root: Path | str,
        splits: str | Sequence[str] = "train",
        *,
        view: View | str = "sam-med2d",
        datasets: Sequence[str] | None = None,
        transform: Callable[[CorpusItem], Any] | None = None,
    ) -> None:
        self.rows = _Chosen(root, splits, view, datasets)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows.numbers_E)

    def __getitem__(self, index: int) -> Any:
        """The ``index``-th item, or what ``transform`` makes of it."""
        item = self.rows.item(self.rows.read(int(self.rows.numbers_E[index])))
        return item if self.transform is None else self.transform(item)

    def row(self, index: int) -> Row:
        """All that the corpus knows of the ``index``-th item: spacing, patient, sources, 16 bit."""
        return self.rows.corpus.at(*self.rows.index.place(int(self.rows.numbers_E[index])))


class CorpusStream(IterableDataset[Any]):
    """One epoch of a corpus in shuffled order, each row once, at the speed of reading in order.

    The order is a function of ``(seed, epoch)``. Ranks, and the workers of a DataLoader within a
    rank, take equal parts of it; what does not divide waits for another epoch. To stop and go on:
    call ``seen(batch)`` after each batch and keep ``state_dict()``; a new stream with
    ``load_state_dict`` and the same number of workers gives exactly the batches that were to come.

    Args:
        root, splits, view, datasets, transform: as of :class:`CorpusDataset`; what a transform
            gives must keep ``place`` where ``seen`` is called.
        seed: of the order.
        rank, world: default those of ``torch.distributed``, else of ``torchrun``'s environment.
    """

    def __init__(
        self,
        root: Path | str,
        splits: str | Sequence[str] = "train",
        *,
        view: View | str = "sam-med2d",
        datasets: Sequence[str] | None = None,
        transform: Callable[[CorpusItem], Any] | None = None,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        super().__init__()
        self.chosen = _Chosen(root, splits, view, datasets)
        self.transform = transform
        self.seed = seed
        self.rank, self.world = _ranks(rank, world)
        self.set_epoch(0)

    @property
    def n_images(self) -> int:
        """Images of all ranks."""
        return len(self.chosen.numbers_E)

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch with the next iteration; call it before each."""
        self._start = self._now = _Standing(epoch=epoch)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        start = self._start
        if start.offsets and len(start.offsets) != workers:
            raise UsageError(
                f"expected the {len(start.offsets)} workers that the state is of, found {workers}: "
                "give the DataLoader the same num_workers"
            )
        # The DataLoader asks its first worker first: that one goes on where the turn was.
        part = (worker + start.turn) % workers
        offset = start.offsets[part] if start.offsets else 0
        stream = Stream(
            self.chosen.corpus,
            self.chosen.numbers_E,
            seed=self.seed,
            rank=self.rank * workers + part,
            world=self.world * workers,
        )
        if offset >= len(stream):
            return
        for row in stream.rows(start.epoch, offset):
            item = self.chosen.item(row, (start.epoch, part, workers, row.offset))
            yield item if self.transform is None else self.transform(item)
            if row.offset + 1 == len(stream):
                return

    def seen(self, batch: Any) -> None:
        """Note that a batch (or item) has been used, in the process that gets the batches."""
        if batch.place is None:
            raise UsageError("expected a batch of a CorpusStream, found one of a CorpusDataset")
        epoch, part, workers, offset = batch.place
        before = self._now
        known = before.epoch == epoch and len(before.offsets) == workers
        offsets = list(before.offsets) if known else [0] * workers
        offsets[part] = offset + 1
        self._now = _Standing(epoch=epoch, turn=(part + 1) % workers, offsets=tuple(offsets))

    def state_dict(self) -> dict[str, Any]:
        """Where to go on after the last batch that was ``seen``.

        Raises:
            UsageError: asked in a worker, which does not know what was used.
        """
        if get_worker_info() is not None:
            raise UsageError(
                "expected state_dict in the process that gets the batches, found a worker: call "
                "seen(batch) and state_dict() there"
            )
        return self._identity() | {
            "epoch": self._now.epoch,
            "turn": self._now.turn,
            "offsets": list(self._now.offsets),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state with the next iteration.

        Raises:
            UsageError: it is of another corpus, seed, rank or number of processes.
        """
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise UsageError(
                    f"expected the state of a stream with {name} {own!r}, found "
                    f"{state.get(name)!r}: make the stream as it was made"
                )
        self._start = self._now = _Standing(
            epoch=int(state["epoch"]),
            turn=int(state["turn"]),
            offsets=tuple(map(int, state["offsets"])),
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "corpus": self.chosen.content_hash,
            "images": self.n_images,
            "seed": self.seed,
            "rank": self.rank,
            "world": self.world,
        }


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """How far each worker is, and whose batch comes next; no offsets = all at the start."""

    epoch: int
    turn: int = 0
    offsets: tuple[int, ...] = ()


def _ranks(rank: int | None, world: int | None) -> tuple[int, int]:
    if (rank is None) != (world is None):
        raise UsageError("expected both rank and world, or none of them")
    if rank is None or world is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return rank, world
