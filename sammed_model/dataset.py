"""What a model is fed: a batch of images with masks, and chosen rows with their pixels."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sammed_data.corpus import VIEWS, Corpus, MaskRow, Row, View
from sammed_data.types import CorpusError
from sammed_model.frame import Frame, Preprocessing
from sammed_model.prompts import prompt_seed

Position = tuple[int, int]


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
        visit_seeds_B: int64, one a visit of an image; augmentation derives from it.
        sided_B: bool, whether a mask is of a sided structure, so that mirroring would lie.
    """

    images_B3SS: Tensor
    masks_M1SS: Tensor
    valid_B1SS: Tensor
    image_index_M: Tensor
    seeds_M: Tensor
    keys: tuple[str, ...]
    position: Position = (0, 0)
    visit_seeds_B: Tensor | None = None
    sided_B: Tensor | None = None

    @classmethod
    def empty(cls, position: Position) -> Batch:
        """A batch without images, which only has a place."""
        plane = torch.zeros(0, 1, 1, 1, dtype=torch.bool)
        none = torch.zeros(0, dtype=torch.int64)
        return cls(
            images_B3SS=torch.zeros(0, 3, 1, 1),
            masks_M1SS=plane,
            valid_B1SS=plane,
            image_index_M=none,
            seeds_M=none,
            keys=(),
            position=position,
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; seeds stay, they are cheap to draw from on the CPU."""
        return replace(self, **{n: t.to(device, non_blocking=True) for n, t in self.large.items()})

    def pinned(self) -> Batch:
        """The same batch in memory from which a GPU copies without the CPU."""
        return replace(self, **{name: value.pin_memory() for name, value in self.large.items()})

    @property
    def large(self) -> dict[str, Any]:
        """What is moved to a device, by name."""
        names = ("images_B3SS", "masks_M1SS", "valid_B1SS", "image_index_M")
        return {name: getattr(self, name) for name in names}


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


def prepare(
    preprocessing: Preprocessing, size: tuple[int, ...], image: NDArray[np.uint8]
) -> tuple[Tensor, Frame]:
    """The tensor of an image, and the Frame of a row whose masks are (H, W) = ``size``."""
    image_3SS, frame = preprocessing.prepare(image)
    if image.shape[:2] != size:  # a control's image of another size
        height, width = size
        frame = preprocessing.frame(height, width)
    return image_3SS, frame


def _kept(row: Row, view: View) -> tuple[MaskRow, ...]:
    if not view.keeps_image(row.height, row.width):
        return ()
    return tuple(m for m in row.masks if view.keeps_mask(m, row.height, row.width))


def patient_of(row: Row) -> str:
    """The unit that must not be on both sides of anything: patient, or the image itself."""
    return str(row.meta.get("patient_id") or row.meta.get("case_id") or row.sample_id)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How many masks of an image, and for which purpose (part of their seeds)."""

    masks_per_image: int
    seed: int
    protocol: str = "train"
    replacement: bool = False

    def choose(self, sample_id: str, keys: Sequence[int], epoch: int) -> list[tuple[int, int]]:
        """Mask keys of one image with their seeds, in one visit of it (a number as of an epoch)."""
        if self.replacement:
            chosen = [
                keys[int(hash_unit("mask", sample_id, epoch, n, self.seed) * len(keys))]
                for n in range(self.masks_per_image)
            ]
        else:
            ranked = sorted(keys, key=lambda k: hash_unit("mask", sample_id, k, epoch, self.seed))
            chosen = ranked[: self.masks_per_image]
        first = epoch * self.masks_per_image
        return [
            (key, prompt_seed(sample_id, key, self.protocol, first + n, self.seed))
            for n, key in enumerate(chosen)
        ]
