"""Which rows of a corpus are looked at: filters over the mapped index, never over the rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_app.page.library import Library
from sammed_bench.tables import SIZE_BINS
from sammed_data.corpus import SPLITS
from sammed_data.index import CorpusIndex, name_hash
from sammed_data.types import UsageError, nearest

_KEPT = 8
FLAGGED = ("no", "yes")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What is asked for; '' = everything.

    Attributes:
        size: name of a bin of object size; an image fits with one object in it.
        flagged: 'yes' = only what the exclude list leaves out, 'no' = only what it keeps.
        text: an exact sample or patient id, or part of a dataset, modality, structure or organ.
    """

    dataset: str = ""
    modality: str = ""
    organ: str = ""
    split: str = ""
    size: str = ""
    flagged: str = ""
    text: str = ""


class Finder:
    """Numbers of the rows of a filter; the last few answers are kept.

    Args:
        library: whose rows.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._kept: OrderedDict[tuple[Any, ...], NDArray[np.int64]] = OrderedDict()
        # The index was made under the list as it stood then.
        self._before = _hashes(library.corpus.exclusions.entries)

    def numbers(self, asked: Filter) -> NDArray[np.int64]:
        """Row numbers in the order of the corpus, (K,) int64.

        Raises:
            UsageError: a name that the corpus does not know.
        """
        flagged = tuple(self._library.flags.samples()) if asked.flagged else ()
        key = (*astuple(asked), flagged)
        found = self._kept.get(key)
        if found is None:
            found = np.flatnonzero(self._fits(asked))
            self._kept[key] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _fits(self, asked: Filter) -> NDArray[np.bool_]:
        index, rows = self._library.index, self._library.index.rows_N
        keep: NDArray[np.bool_] = np.ones(len(rows), bool)
        for kind, name in (("dataset", asked.dataset), ("modality", asked.modality)):
            if name:
                keep &= rows[kind] == _code(index.names[kind], name, kind)
        if asked.split:
            _code(SPLITS, asked.split, "split")
            shards = self._library.corpus.shards
            keep &= np.array([s.parent.name == asked.split for s in shards], bool)[rows["shard"]]
        if asked.organ:
            _code(organs(index), asked.organ, "organ")
            keep &= _with_mask(index, _of_structures(index, _of_organ(index, asked)))
        if asked.size:
            _code([name for _, name in SIZE_BINS], asked.size, "size")
            keep &= _with_mask(index, _of_size(index, asked.size))
        if asked.flagged:
            _code(FLAGGED, asked.flagged, "flagged")
            keep &= self._left_out() == (asked.flagged == "yes")
        return keep & self._says(asked.text.strip()) if asked.text.strip() else keep

    def _left_out(self) -> NDArray[np.bool_]:
        """By the list as it is now: its samples, and the cases and patients of the index."""
        rows = self._library.index.rows_N
        now = np.array([name_hash(name) for name in self._library.flags.samples()], np.uint64)
        whole = rows["excluded"] & ~np.isin(rows["sample"], self._before)
        found: NDArray[np.bool_] = whole | np.isin(rows["sample"], now)
        return found

    def _says(self, text: str) -> NDArray[np.bool_]:
        index, rows = self._library.index, self._library.index.rows_N
        found = rows["sample"] == name_hash(text)
        people = [name_hash(name, text) for name in index.names["dataset"]]
        found |= np.isin(rows["patient"], np.array(people, np.uint64))
        for kind in ("dataset", "modality"):
            found |= np.isin(rows[kind], _containing(index.names[kind], text))
        structures = [
            code
            for code, name in enumerate(index.names["structure"])
            if text.lower() in f"{name} {index.about.get(name, ('',))[0]}".lower()
        ]
        if structures:
            found |= _with_mask(index, _of_structures(index, structures))
        return found


def organs(index: CorpusIndex) -> list[str]:
    """Organs that the masks name, sorted."""
    return sorted({organ for organ, _, _ in index.about.values() if organ})


def _hashes(entries: Sequence[Any]) -> NDArray[np.uint64]:
    return np.array([name_hash(e.id) for e in entries if e.level == "sample"], np.uint64)


def _code(names: Sequence[str], name: str, kind: str) -> int:
    if name not in names:
        raise UsageError(f"unknown {kind} {name[:80]!r}; {nearest(name[:80], names)}")
    return list(names).index(name)


def _containing(names: Sequence[str], text: str) -> list[int]:
    return [code for code, name in enumerate(names) if text.lower() in name.lower()]


def _of_organ(index: CorpusIndex, asked: Filter) -> list[int]:
    return [
        code
        for code, name in enumerate(index.names["structure"])
        if index.about.get(name, ("",))[0] == asked.organ
    ]


def _of_structures(index: CorpusIndex, codes: Sequence[int]) -> NDArray[np.bool_]:
    wanted = np.zeros(len(index.names["structure"]), bool)
    wanted[list(codes)] = True
    found: NDArray[np.bool_] = wanted[index.masks_M["structure"]]
    return found


def _of_size(index: CorpusIndex, size: str) -> NDArray[np.bool_]:
    edges = [0.0, *(edge for edge, _ in SIZE_BINS)]
    place = [name for _, name in SIZE_BINS].index(size)
    share = index.masks_M["area_fraction"]
    found: NDArray[np.bool_] = (share >= edges[place]) & (share < edges[place + 1])
    return found


def _with_mask(index: CorpusIndex, fits_M: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether a row has one of some masks."""
    before = np.concatenate([[0], np.cumsum(fits_M, dtype=np.int64)])
    first = index.rows_N["first_mask"]
    found: NDArray[np.bool_] = before[first + index.rows_N["n_masks"]] > before[first]
    return found
