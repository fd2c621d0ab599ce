"""A corpus as batches for training: in an order fixed by hashes, from any position, streamed.

Nothing is drawn from a stream of random numbers: the order of an epoch, the masks of an image and
the image of a permuted control are hashes of names, so position ``(epoch, batch)`` is all that a
resumed run needs to see the same batches again.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sammed_data.corpus import VIEWS, Corpus, MaskRow, Row, View
from sammed_data.types import CorpusError
from sammed_model.frame import Frame, Preprocessing
from sammed_model.prompts import prompt_seed

Position = tuple[int, int]
_LOOK_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images with some of their masks, in model pixels.

    Attributes:
        images_B3SS: normalised float32.
        masks_M1SS: bool, none of them empty.
        valid_B1SS: bool; False in the padding and where the corpus says 'ignore'.
        image_index_M: which image each mask belongs to, int64.
        seeds_M: int64, one per drawn mask; every prompt derives from it.
        keys: names of the images (of the pixels, not of the masks under a permuted control).
        position: ``(epoch, batch)`` of this batch.
    """

    images_B3SS: Tensor
    masks_M1SS: Tensor
    valid_B1SS: Tensor
    image_index_M: Tensor
    seeds_M: Tensor
    keys: tuple[str, ...]
    position: Position = (0, 0)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; seeds stay, they are cheap to draw from on the CPU."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("images_B3SS", "masks_M1SS", "valid_B1SS", "image_index_M")
        }
        return replace(self, **moved)


def hash_unit(*parts: object) -> float:
    """[0, 1) from names, the same everywhere."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56


class Samples:
    """The rows of some splits with the masks that a view keeps; reads and remembers pixels.

    Args:
        corpus: opened corpus.
        rows: index rows (without pixels).
        view: which images and masks count.
        cache_bytes: decoded pixels kept up to this size.
        images: ``sample_id -> row`` whose image is used instead (the permuted control).
    """

    def __init__(
        self,
        corpus: Corpus,
        rows: Sequence[Row],
        *,
        view: View = VIEWS["sam-med2d"],
        cache_bytes: int = 1 << 30,
        images: Mapping[str, Row] | None = None,
    ) -> None:
        self.corpus = corpus
        self.view = view
        self.masks = {row.sample_id: _kept(row, view) for row in rows}
        self.rows = [row for row in rows if self.masks[row.sample_id]]
        self.images = images or {}
        self._cache: dict[str, Row] = {}
        self._room = cache_bytes
        self._local = threading.local()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_masks(self) -> int:
        """Masks kept by the view."""
        return sum(len(self.masks[row.sample_id]) for row in self.rows)

    def pixels(self, row: Row) -> tuple[Row, NDArray[np.uint8], str]:
        """The row with pixels, the image to train on, and the name of that image."""
        full = self._read(row)
        other = self.images.get(row.sample_id)
        source = full if other is None else self._read(other)
        if source.image is None:
            raise CorpusError(f"row {row.sample_id!r} of {self.corpus.root} has no image: rebuild")
        return full, source.image, source.sample_id

    @staticmethod
    def prepare(
        preprocessing: Preprocessing, row: Row, image: NDArray[np.uint8]
    ) -> tuple[Tensor, Frame]:
        """The tensor of an image, and the Frame of the row's own pixels and masks."""
        image_3SS, frame = preprocessing.prepare(image)
        if image.shape[:2] != (row.height, row.width):  # a control's image of another size
            frame = preprocessing.frame(row.height, row.width)
        return image_3SS, frame

    def _read(self, row: Row) -> Row:
        found = self._cache.get(row.sample_id)
        if found is not None:
            return found
        # A ParquetFile is not safe to share: each loader thread opens its own.
        if not hasattr(self._local, "corpus"):
            self._local.corpus = Corpus(self.corpus.root)
        full: Row = self._local.corpus.read(row)
        size = sum(m.mask_HW.nbytes for m in full.masks if m.mask_HW is not None)
        size += 0 if full.image is None else full.image.nbytes
        with self._lock:
            if size <= self._room and row.sample_id not in self._cache:
                self._room -= size
                self._cache[row.sample_id] = full
        return full


def _kept(row: Row, view: View) -> tuple[MaskRow, ...]:
    if not view.keeps_image(row.height, row.width):
        return ()
    return tuple(m for m in row.masks if view.keeps_mask(m, row.height, row.width))


def patient_of(row: Row) -> str:
    """The unit that must not be on both sides of anything: patient, or the image itself."""
    return str(row.meta.get("patient_id") or row.meta.get("case_id") or row.sample_id)


def permute_images(rows: Sequence[Row], seed: int) -> dict[str, Row]:
    """Give every row the image of another one, of another patient where that is possible.

    Rows of one size are shifted against themselves by the largest patient's number of rows, in an
    order of hashed patients; rows whose size nobody shares are shifted together.

    Raises:
        CorpusError: fewer than two rows.
    """
    if len(rows) < 2:
        raise CorpusError("the permuted control needs at least two images, found one: add images")
    by_size: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        by_size.setdefault((row.height, row.width), []).append(row)
    groups = [group for group in by_size.values() if len(group) > 1]
    single = [group[0] for group in by_size.values() if len(group) == 1]
    if len(single) == 1:
        # Nobody to swap with: it joins the first group, whatever its size.
        groups[0].append(single[0])
    elif single:
        groups.append(single)
    images: dict[str, Row] = {}
    for group in groups:
        ordered = sorted(
            group, key=lambda r: (hash_unit("control", patient_of(r), seed), r.sample_id)
        )
        largest = max(Counter(patient_of(r) for r in ordered).values())
        shift = min(largest, len(ordered) - 1)
        moved = ordered[shift:] + ordered[:shift]
        images |= {row.sample_id: other for row, other in zip(ordered, moved, strict=True)}
    return images


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How many masks of an image, and for which purpose (part of their seeds)."""

    masks_per_image: int
    seed: int
    protocol: str = "train"
    replacement: bool = False

    def choose(self, row: Row, masks: Sequence[MaskRow], epoch: int) -> list[tuple[MaskRow, int]]:
        """Masks of one image with their seeds."""
        if self.replacement:
            chosen = [
                masks[int(hash_unit("mask", row.sample_id, epoch, n, self.seed) * len(masks))]
                for n in range(self.masks_per_image)
            ]
        else:
            ranked = sorted(
                masks, key=lambda m: hash_unit("mask", row.sample_id, m.index, epoch, self.seed)
            )
            chosen = ranked[: self.masks_per_image]
        first = epoch * self.masks_per_image
        return [
            (m, prompt_seed(row.sample_id, m.index, self.protocol, first + n, self.seed))
            for n, m in enumerate(chosen)
        ]


class Loader:
    """Batches of a corpus, endlessly, from any position.

    Args:
        samples: rows and pixels.
        preprocessing: of the model that is trained.
        batch_images: images per batch; the last batch of an epoch may be smaller.
        draw: which masks.
        workers: threads that prepare batches ahead; 0 prepares in the caller's thread.
    """

    def __init__(
        self,
        samples: Samples,
        preprocessing: Preprocessing,
        *,
        batch_images: int,
        draw: Draw,
        workers: int = 1,
    ) -> None:
        self.samples = samples
        self.preprocessing = preprocessing
        self.batch_images = batch_images
        self.draw = draw
        self.workers = workers

    @property
    def batches_per_epoch(self) -> int:
        """Batches that cover every image once."""
        return -(-len(self.samples) // self.batch_images)

    def batches(self, start: Position = (0, 0)) -> Generator[Batch, None, None]:
        """Batches from ``start`` on; one whose masks all vanish at model size is left out."""
        if not self.workers:
            yield from filter(None, map(self._make, self._plan(start)))
            return
        plan = self._plan(start)
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

    def _plan(self, start: Position) -> Iterator[tuple[Position, list[Row]]]:
        epoch, first = start
        while True:
            order = sorted(
                self.samples.rows,
                key=lambda r: (hash_unit("order", r.sample_id, epoch, self.draw.seed), r.sample_id),  # noqa: B023
            )
            for number in range(first, self.batches_per_epoch):
                chunk = order[number * self.batch_images : (number + 1) * self.batch_images]
                yield (epoch, number), chunk
            epoch, first = epoch + 1, 0

    def _make(self, planned: tuple[Position, list[Row]]) -> Batch | None:
        position, rows = planned
        parts = [part for row in rows if (part := self._sample(row, position[0])) is not None]
        if not parts:
            return None
        counts = torch.tensor([len(p.seeds) for p in parts])
        return Batch(
            images_B3SS=torch.stack([p.image_3SS for p in parts]),
            masks_M1SS=torch.cat([p.masks_M1SS for p in parts]),
            valid_B1SS=torch.cat([p.valid_11SS for p in parts]),
            image_index_M=torch.repeat_interleave(torch.arange(len(parts)), counts),
            seeds_M=torch.tensor([s for p in parts for s in p.seeds], dtype=torch.int64),
            keys=tuple(p.key for p in parts),
            position=position,
        )

    def _sample(self, row: Row, epoch: int) -> _Sample | None:
        full, image, key = self.samples.pixels(row)
        chosen = self.draw.choose(row, self.samples.masks[row.sample_id], epoch)
        image_3SS, frame = self.samples.prepare(self.preprocessing, row, image)
        planes = [full.masks[m.index].mask_HW for m, _ in chosen]
        masks_MHW = np.stack([plane for plane in planes if plane is not None])
        valid_HW = np.ones((row.height, row.width), bool)
        if full.ignore_HW is not None:
            valid_HW &= ~full.ignore_HW
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
        )


@dataclass(frozen=True, kw_only=True)
class _Sample:
    image_3SS: Tensor
    masks_M1SS: Tensor
    valid_11SS: Tensor
    seeds: list[int]
    key: str
