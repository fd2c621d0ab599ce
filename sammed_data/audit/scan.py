"""The one pass over all pixels: signatures, digests and measurements, shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.defects import MASK, image_defect, measure_masks
from sammed_data.audit.fingerprints import VIEWS, WORDS, signatures, thumbnail
from sammed_data.audit.fits import CASE, MOMENT, PART, CaseFit
from sammed_data.corpus import Corpus, Row
from sammed_data.engine import stop_if_asked

_MIN_SPREAD = 2.0  # grey levels; below it a thumbnail has no shape to compare
# sample: first 8 bytes of SHA-256(sample_id). pixels: of the decoded picture. case: into `cases`.
ROW = np.dtype(
    [
        ("shard", "<i4"), ("position", "<i4"), ("case", "<i4"), ("slice", "<i4"),
        ("sample", "<u8"), ("pixels", "V16"), ("flat", "?"),
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CaseKey:
    """Whose picture it is."""

    dataset: str
    case_id: str
    patient_id: str
    split: str
    cluster: str


@dataclass(frozen=True, kw_only=True)
class ScanTask:
    """One shard of a corpus, and where its arrays go."""

    root: Path
    shard: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class ShardScan:
    """What a shard holds beside the arrays in ``folder``.

    Attributes:
        cases: in the order in which rows name them.
        structures: names of the codes in the mask measurements.
        defects: (kind, position) of pictures that are wrong.
    """

    shard: int
    rows: int
    cases: tuple[CaseKey, ...]
    structures: tuple[str, ...]
    defects: tuple[tuple[str, int], ...]


def scan_shard(task: ScanTask) -> ShardScan:
    """Read every row of a shard once; arrays go to ``<folder>/<shard>.*.npy``.

    Raises:
        CorpusError: the shard is missing or damaged.
    """
    cases: dict[CaseKey, int] = {}
    structures: dict[str, int] = {}
    rows, thumbs, masks, defects = [], [], [], []
    fits = _Fits()
    views: list[NDArray[np.uint64]] = []
    for number, row in enumerate(Corpus(task.root).rows(task.shard)):
        if number % 64 == 0:
            stop_if_asked()
        assert row.image is not None  # rows come with pixels
        thumb = thumbnail(row.image)
        case = cases.setdefault(case_key(row), len(cases))
        rows.append(_row(row, task.shard, case, flat=float(thumb.std()) < _MIN_SPREAD))
        thumbs.append(thumb)
        wrong = image_defect(row)
        if wrong:
            defects.append((wrong, number))
        codes = [structures.setdefault(m.structure, len(structures)) for m in row.masks]
        masks.append(measure_masks(row, number, codes))
        fits.add(row, number, case, codes)
        if len(thumbs) == 512:
            views.append(signatures(np.stack(thumbs)))
            thumbs = []
    if thumbs:
        views.append(signatures(np.stack(thumbs)))
    _save(task, "rows", np.array(rows, ROW))
    _save(task, "masks", np.concatenate(masks) if masks else np.empty(0, MASK))
    for name, array in fits.arrays().items():
        _save(task, name, array)
    empty = np.empty((0, len(VIEWS), WORDS), np.uint64)
    _save(task, "views", np.concatenate(views) if views else empty)
    return ShardScan(
        shard=task.shard, rows=len(rows), cases=tuple(cases), structures=tuple(structures),
        defects=tuple(defects),
    )  # fmt: skip


class _Fits:
    """How masks lie, case by case; the rows of a case follow each other."""

    def __init__(self) -> None:
        self._moments: dict[int, NDArray[Any]] = {}
        self._cases: list[NDArray[Any]] = []
        self._parts: list[NDArray[Any]] = []
        self._open: tuple[int, CaseFit] | None = None

    def add(self, row: Row, number: int, case: int, codes: Sequence[int]) -> None:
        if self._open is None or self._open[0] != case:
            self._close()
            self._open = (case, CaseFit(case))
        self._open[1].add(row, number, codes, self._moments)

    def _close(self) -> None:
        if self._open is not None:
            cases, parts = self._open[1].close()
            self._cases.append(cases)
            self._parts.append(parts)
        self._open = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What to keep, by the names of its files."""
        self._close()
        moments = [m[None] for m in self._moments.values()]
        return {
            "fits": np.concatenate([np.empty(0, CASE), *self._cases]),
            "parts": np.concatenate([np.empty(0, PART), *self._parts]),
            "moments": np.concatenate([np.empty(0, MOMENT), *moments]),
        }


def case_key(row: Row) -> CaseKey:
    """Whose picture a row is."""
    return CaseKey(
        dataset=row.dataset,
        case_id=row.meta["case_id"],
        patient_id=row.meta["patient_id"],
        split=row.split,
        cluster=row.meta["cluster"],
    )


def _row(row: Row, shard: int, case: int, *, flat: bool) -> tuple[int | bytes | bool, ...]:
    assert row.image is not None  # rows come with pixels
    sample = int.from_bytes(hashlib.sha256(row.sample_id.encode()).digest()[:8], "little")
    pixels = hashlib.sha256(f"{row.image.shape}".encode())
    pixels.update(np.ascontiguousarray(row.image).data)
    place = (shard, int(row.meta["shard_row"]), case, int(row.meta["slice_index"] or 0))
    return (*place, sample, pixels.digest()[:16], flat)


def _save(task: ScanTask, name: str, array: NDArray[np.generic]) -> None:
    np.save(task.folder / f"{task.shard:06d}.{name}.npy", array)


def load(folder: Path, shard: int, name: str) -> NDArray[np.generic]:
    """One array of a scanned shard, mapped."""
    path = folder / f"{shard:06d}.{name}.npy"
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
