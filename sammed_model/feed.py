"""A corpus as batches for training: in an order fixed by hashes, from any position, streamed.

Nothing is drawn from a stream of random numbers: the order of an epoch, the masks of an image and
the image of a permuted control are hashes of names, so position ``(epoch, batch)`` is all that a
resumed run needs to see the same batches again. No row is held: what is known of the rows before
they are read are the mapped arrays of :mod:`sammed_data.index`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sammed_data.corpus import VIEWS, Corpus, View
from sammed_data.index import CorpusIndex
from sammed_data.stream import Stream, StreamRow
from sammed_model.balance import Balance
from sammed_model.dataset import Batch, Draw, Position, prepare
from sammed_model.frame import Preprocessing
from sammed_model.prompts import prompt_seed

_LOOK_AHEAD = 2
# The first visit of an epoch has the number of the epoch; further ones are far from any epoch.
_REPEAT_BIT = 32


class TrainingSet:
    """The rows to train on, and the masks of each that a view keeps.

    Args:
        corpus: opened corpus.
        numbers_E: rows of its index.
        view: which masks count.
        images_N: row -> row whose image is used instead (the permuted control), or None.
        seed: of the order of an epoch.
        rank: this process among ``world``, each of which gets an equal part.
        balance: how often each row is seen in an epoch; default once.
    """

    def __init__(
        self,
        corpus: Corpus,
        numbers_E: NDArray[np.int64],
        *,
        view: View = VIEWS["sam-med2d"],
        images_N: NDArray[np.int64] | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        balance: Balance | None = None,
    ) -> None:
        self.corpus = corpus
        self.view = view
        self.images_N = images_N
        self.stream = Stream(
            corpus,
            numbers_E=numbers_E,
            seed=seed,
            rank=rank,
            world=world,
            counts=None if balance is None else balance.counts,
        )
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self.stream)

    @property
    def index(self) -> CorpusIndex:
        """Of the corpus."""
        return self.stream.index

    @property
    def n_images(self) -> int:
        """Images of all ranks."""
        return len(self.stream.numbers_E)

    @property
    def n_masks(self) -> int:
        """Masks kept by the view, of all ranks."""
        return int(self.index.kept_masks(self.view)[self.stream.numbers_E].sum())

    @property
    def n_patients(self) -> int:
        """Patients of all ranks."""
        return len(np.unique(self.index.rows_N["patient"][self.stream.numbers_E]))

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets that have a row here."""
        codes = np.unique(self.index.rows_N["dataset"][self.stream.numbers_E])
        return sorted(self.index.names["dataset"][code] for code in codes)

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities that have a row here."""
        codes = np.unique(self.index.rows_N["modality"][self.stream.numbers_E])
        return sorted(self.index.names["modality"][code] for code in codes)

    @property
    def structures(self) -> list[str]:
        """Names of the structures that have a mask in a row here."""
        chosen = self.index.rows_N[self.stream.numbers_E]
        steps = np.zeros(len(self.index.masks_M) + 1, np.int64)  # +1 where a row's masks begin
        np.add.at(steps, chosen["first_mask"], 1)
        np.add.at(steps, chosen["first_mask"] + chosen["n_masks"], -1)
        codes = np.unique(self.index.masks_M["structure"][np.cumsum(steps[:-1]) > 0])
        return sorted(self.index.names["structure"][code] for code in codes)

    def image(self, row: StreamRow) -> tuple[NDArray[np.uint8], str]:
        """The image to train on with the masks of ``row``, and the name of that image."""
        if self.images_N is None:
            return row.image(), row.sample_id
        if not hasattr(self._local, "corpus"):  # a ParquetFile is not safe to share
            self._local.corpus = Corpus(self.corpus.root)
        other = self.stream.fetch(int(self.images_N[row.number]), self._local.corpus)
        return other.image(), other.sample_id


class Loader:
    """Batches of a training set, endlessly, from any position.

    Args:
        rows: to train on.
        preprocessing: of the model that is trained.
        batch_images: images per batch; the last batch of an epoch may be smaller.
        draw: which masks.
        workers: threads that prepare batches ahead; 0 prepares in the caller's thread.
        pin: leave batches in memory that a GPU copies from by itself.
        keep_empty: give a batch whose masks all vanish too, empty, so that processes keep step.
    """

    def __init__(
        self,
        rows: TrainingSet,
        preprocessing: Preprocessing,
        *,
        batch_images: int,
        draw: Draw,
        workers: int = 1,
        pin: bool = False,
        keep_empty: bool = False,
    ) -> None:
        self.rows = rows
        self.pin = pin
        self.keep_empty = keep_empty
        self.preprocessing = preprocessing
        self.batch_images = batch_images
        self.draw = draw
        self.workers = workers

    @property
    def batches_per_epoch(self) -> int:
        """Batches that cover every image once."""
        return -(-len(self.rows) // self.batch_images)

    def batches(self, start: Position = (0, 0)) -> Generator[Batch, None, None]:
        """Batches from ``start`` on; one whose masks all vanish at model size is left out."""
        plan = self._plan(start)
        if not self.workers:
            yield from filter(None, map(self._make, plan))
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        waiting: deque[Future[Batch | None]] = deque()
        try:
            while True:
                while len(waiting) < self.workers + _LOOK_AHEAD:
                    waiting.append(pool.submit(self._make, next(plan)))
                batch = waiting.popleft().result()
                if batch is not None:
                    yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            plan.close()

    def _plan(self, start: Position) -> Generator[tuple[Position, list[StreamRow]], None, None]:
        epoch, number = start
        rows: list[StreamRow] = []
        for row in self.rows.stream.rows(epoch, number * self.batch_images):
            rows.append(row)
            if len(rows) == self.batch_images or row.offset + 1 == len(self.rows):
                yield (row.epoch, row.offset // self.batch_images), rows
                rows = []

    def _make(self, planned: tuple[Position, list[StreamRow]]) -> Batch | None:
        position, rows = planned
        parts = [part for row in rows if (part := self._sample(row)) is not None]
        if not parts:
            return Batch.empty(position) if self.keep_empty else None
        counts = torch.tensor([len(p.seeds) for p in parts])
        batch = Batch(
            images_B3SS=torch.stack([p.image_3SS for p in parts]),
            masks_M1SS=torch.cat([p.masks_M1SS for p in parts]),
            valid_B1SS=torch.cat([p.valid_11SS for p in parts]),
            image_index_M=torch.repeat_interleave(torch.arange(len(parts)), counts),
            seeds_M=torch.tensor([s for p in parts for s in p.seeds], dtype=torch.int64),
            keys=tuple(p.key for p in parts),
            position=position,
            visit_seeds_B=torch.tensor([p.visit_seed for p in parts], dtype=torch.int64),
            sided_B=torch.tensor([p.sided for p in parts]),
        )
        return batch.pinned() if self.pin else batch

    def _sample(self, row: StreamRow) -> _Sample | None:
        keys = self.rows.index.mask_keys(row.number, self.rows.view)
        visit = row.epoch + (row.repeat << _REPEAT_BIT)
        chosen = self.draw.choose(row.sample_id, keys, visit)
        masks_MHW = np.stack([row.mask_HW(key) for key, _ in chosen])
        image, key = self.rows.image(row)
        image_3SS, frame = prepare(self.preprocessing, masks_MHW.shape[1:], image)
        ignore_HW = row.ignore_HW()
        valid_HW = np.ones(masks_MHW.shape[1:], bool) if ignore_HW is None else ~ignore_HW
        masks_M1SS = frame.masks_to_model(masks_MHW)
        seen = masks_M1SS.flatten(1).any(dim=1)
        if not seen.any():
            return None
        return _Sample(
            image_3SS=image_3SS,
            masks_M1SS=masks_M1SS[seen],
            valid_11SS=frame.masks_to_model(valid_HW[None]),
            seeds=[seed for (_, seed), kept in zip(chosen, seen.tolist(), strict=True) if kept],
            key=key,
            visit_seed=prompt_seed(row.sample_id, 0, "augment", visit, self.draw.seed),
            sided=any(row.sided(key) for key, _ in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class _Sample:
    image_3SS: Tensor
    masks_M1SS: Tensor
    valid_11SS: Tensor
    seeds: list[int]
    key: str
    visit_seed: int
    sided: bool
