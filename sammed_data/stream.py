"""Rows of a corpus for training: shuffled, shared out to ranks, resumed at any row, not loaded.

The order of an epoch is a function of ``(seed, epoch)``. 48 shards chosen at random are open at a
time; their row groups are shuffled among each other, and the rows of about 128 MB of row groups are
shuffled together, which is what a reader holds.
Ranks take equal, contiguous parts of that one order: no row is seen twice in an epoch, nothing is
exchanged, and a rank reads little more than its own row groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sammed_data.codecs import decode_image, decode_mask
from sammed_data.corpus import Corpus
from sammed_data.index import CorpusIndex, open_index, order_keys
from sammed_data.types import CorpusError, UsageError

WINDOW_BYTES = 128 << 20
# A footer costs milliseconds and megabytes: each shard is opened once an epoch, few are open.
SHARDS_TOGETHER = 48
_PIXEL_COLUMNS = [
    "sample_id",
    "image.bytes",
    "ignore.bytes",
    "masks.list.element.side",
    "masks.list.element.structure",
    "masks.list.element.mask.bytes",
]
# A row's number and how often it was seen before in an epoch, in one integer to hash.
_REPEAT_BIT = np.uint64(40)


class Page:
    """The encoded pixels of one row group, without a Python object per row."""

    def __init__(self, table: pa.Table) -> None:
        masks = table.column("masks").combine_chunks()
        self.sample_ids = table.column("sample_id").combine_chunks()
        self._image = _Bytes(_field(table, "image"))
        self._ignore = _Bytes(_field(table, "ignore"))
        self._masks = _Bytes(masks.values.field("mask").field("bytes"))
        self._sides = masks.values.field("side")
        self._structures = masks.values.field("structure")
        self._first = np.asarray(masks.offsets)

    @classmethod
    def read(cls, corpus: Corpus, shard: int, group: int) -> Page:
        """That of a row group of an opened corpus."""
        return cls(corpus.row_group(shard, group, _PIXEL_COLUMNS))

    def image(self, position: int) -> NDArray[Any]:
        """(H, W) or (H, W, 3) uint8."""
        return decode_image(self._image[position])

    def mask_HW(self, position: int, mask: int) -> NDArray[np.bool_]:
        """Mask ``mask`` of the row."""
        return decode_mask(self._masks[int(self._first[position]) + mask])

    def sided(self, position: int, mask: int) -> bool:
        """Whether a mask is of the left or the right one of two."""
        at = int(self._first[position]) + mask
        if self._sides[at].as_py():
            return True
        name = self._structures[at].as_py() or ""
        return not {"left", "right"}.isdisjoint(name.split("_"))

    def ignore_HW(self, position: int) -> NDArray[np.bool_] | None:
        """Pixels that count as neither, or None."""
        data = self._ignore[position]
        return decode_mask(data) if len(data) else None


class _Bytes:
    """A binary column as views of one buffer."""

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        start = column.offset
        self._offsets = np.frombuffer(offsets, np.int32)[start : start + len(column) + 1]
        self._data = np.frombuffer(data or b"", np.uint8)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._data[self._offsets[index] : self._offsets[index + 1]]


def _field(table: pa.Table, name: str) -> pa.Array:
    return table.column(name).combine_chunks().field("bytes")


@dataclass(frozen=True, kw_only=True)
class StreamRow:
    """One row whose pixels are decoded when they are asked for.

    Attributes:
        number: of the row in the index.
        epoch: of this visit.
        offset: of this rank's rows of the epoch; ``(epoch, offset + 1)`` continues after it.
        repeat: how often the row was seen before in the epoch (balanced sampling).
    """

    number: int
    epoch: int
    offset: int
    page: Page
    position: int
    repeat: int = 0

    @property
    def sample_id(self) -> str:
        """Name of the row."""
        return str(self.page.sample_ids[self.position].as_py())

    def image(self) -> NDArray[Any]:
        """(H, W) or (H, W, 3) uint8."""
        return self.page.image(self.position)

    def mask_HW(self, index: int) -> NDArray[np.bool_]:
        """The mask with this key (``MaskRow.index``)."""
        return self.page.mask_HW(self.position, index)

    def sided(self, index: int) -> bool:
        """Whether the mask with this key is of the left or the right one of two."""
        return self.page.sided(self.position, index)

    def ignore_HW(self) -> NDArray[np.bool_] | None:
        """Pixels that count as neither, or None."""
        return self.page.ignore_HW(self.position)


class Stream:
    """Chosen rows of a corpus, endlessly, from any position.

    Args:
        corpus: opened corpus; the stream opens it once more for its reading thread.
        numbers_E: ascending rows of its index (see ``CorpusIndex.select``), (E,) int64.
        seed: of the order.
        rank: this process among ``world`` of them.
        window_bytes: encoded bytes whose rows are shuffled together; about twice as much is held.
        counts: epoch -> how often each row is seen in it, (E,) with the sum E; default once.

    Raises:
        CorpusError: there are fewer rows than ranks.
        UsageError: no such rank.
    """

    def __init__(
        self,
        corpus: Corpus,
        numbers_E: NDArray[np.int64],
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        window_bytes: int = WINDOW_BYTES,
        counts: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        if not 0 <= rank < world:
            raise UsageError(f"expected a rank from 0 to {world - 1}, found {rank}")
        self.index: CorpusIndex = open_index(corpus)
        self.seed = seed
        self._corpus = Corpus(corpus.root)
        self.numbers_E = numbers_E
        if len(numbers_E) < world:
            raise CorpusError(
                f"expected at least {world} images of {corpus.root}, one for each process, "
                f"found {len(numbers_E)}: train with fewer processes"
            )
        share = len(self.numbers_E) // world
        self._range = (rank * share, (rank + 1) * share)
        self._counts = counts
        self._window_bytes = window_bytes
        self._visits = self._visits_of(0)

    def __len__(self) -> int:
        """Rows of one epoch for this rank; up to ``world - 1`` rows wait for another epoch."""
        return self._range[1] - self._range[0]

    def _visits_of(self, epoch: int) -> _Visits:
        counts_E = None if self._counts is None else self._counts(epoch)
        return _Visits.of(self.index.rows_N, self.numbers_E, counts_E, self._window_bytes, epoch)

    def order(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.int64]]:
        """This rank's row numbers of an epoch from ``first`` on, one array a window."""
        for numbers_W, _ in self._order(epoch, first):
            yield numbers_W

    def _order(
        self, epoch: int, first: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The same, and how often each was seen before."""
        if self._counts is not None and self._visits.epoch != epoch:
            self._visits = self._visits_of(epoch)
        visits = self._visits
        low, high = self._range[0] + first, self._range[1]
        key = (self.seed, epoch)
        for start, visits_W in visits.groups.windows(key, low, high):
            numbers_W, repeat_W = visits.number_E[visits_W], visits.repeat_E[visits_W]
            named_W = numbers_W.astype(np.uint64) | (repeat_W.astype(np.uint64) << _REPEAT_BIT)
            part = np.argsort(order_keys(named_W, "row", *key))[max(low - start, 0) : high - start]
            yield numbers_W[part], repeat_W[part]

    def rows(self, epoch: int = 0, offset: int = 0) -> Iterator[StreamRow]:
        """Rows from a position on, for ever; the next window is read while this one is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as reader:
            waiting: Future[_Window] | None = None
            for window in self._windows(epoch, offset):
                coming = reader.submit(self._read, *window)
                if waiting is not None:
                    yield from waiting.result()
                waiting = coming

    def fetch(self, number: int, corpus: Corpus) -> StreamRow:
        """Any one row of the index, read by the caller's own opened corpus."""
        row = self.index.rows_N[number]
        page = Page.read(corpus, int(row["shard"]), int(row["group"]))
        return StreamRow(number=number, epoch=0, offset=0, page=page, position=int(row["position"]))

    def _windows(
        self, epoch: int, offset: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], int, int]]:
        while True:
            for numbers_W, repeat_W in self._order(epoch, offset):
                yield numbers_W, repeat_W, epoch, offset
                offset += len(numbers_W)
            epoch, offset = epoch + 1, 0

    def _read(
        self, numbers_W: NDArray[np.int64], repeat_W: NDArray[np.int64], epoch: int, offset: int
    ) -> _Window:
        rows = self.index.rows_N[numbers_W]
        places = list(zip(rows["shard"].tolist(), rows["group"].tolist(), strict=True))
        pages = {place: Page.read(self._corpus, *place) for place in sorted(set(places))}
        held = [pages[place] for place in places]
        return _Window(numbers_W, repeat_W, rows["position"], held, epoch, offset)


class _Window:
    """Rows that were read together."""

    def __init__(
        self,
        numbers_W: NDArray[np.int64],
        repeat_W: NDArray[np.int64],
        positions_W: NDArray[np.int64],
        pages: list[Page],
        epoch: int,
        offset: int,
    ) -> None:
        self._numbers, self._positions = numbers_W.tolist(), positions_W.tolist()
        self._repeats = repeat_W.tolist()
        self._pages, self._epoch, self._offset = pages, epoch, offset

    def __iter__(self) -> Iterator[StreamRow]:
        for n, (number, position) in enumerate(zip(self._numbers, self._positions, strict=True)):
            yield StreamRow(
                number=number,
                epoch=self._epoch,
                offset=self._offset + n,
                page=self._pages[n],
                position=position,
                repeat=self._repeats[n],
            )


@dataclass(frozen=True, kw_only=True)
class _Visits:
    """The rows of an epoch, before they are shuffled, with how often each came before.

    A row that is seen several times stands in as many copies of its row group, which are shuffled
    as row groups of their own: repeats are spread over the epoch.
    """

    number_E: NDArray[np.int64]
    repeat_E: NDArray[np.int64]
    groups: _Groups
    epoch: int

    @classmethod
    def of(
        cls,
        rows: NDArray[Any],
        numbers_E: NDArray[np.int64],
        counts_E: NDArray[np.int64] | None,
        window_bytes: int,
        epoch: int,
    ) -> _Visits:
        """Each row as often as ``counts_E`` says, or once."""
        repeat_E = np.zeros(len(numbers_E), np.int64)
        if counts_E is not None:
            before = np.cumsum(counts_E) - counts_E
            numbers_E = np.repeat(numbers_E, counts_E)
            repeat_E = np.arange(len(numbers_E)) - np.repeat(before, counts_E)
            order = np.lexsort((numbers_E, repeat_E))
            numbers_E, repeat_E = numbers_E[order], repeat_E[order]
        groups = _Groups.of(rows, numbers_E, repeat_E, window_bytes)
        return cls(number_E=numbers_E, repeat_E=repeat_E, groups=groups, epoch=epoch)


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Row groups of the rows of an epoch: where each starts among them, its rows and bytes."""

    shard_G: NDArray[np.int64]
    repeat_G: NDArray[np.int64]
    first_G: NDArray[np.int64]
    rows_G: NDArray[np.int64]
    bytes_G: NDArray[np.int64]
    window_bytes: int

    @classmethod
    def of(
        cls,
        rows: NDArray[Any],
        numbers_E: NDArray[np.int64],
        repeat_E: NDArray[np.int64],
        window_bytes: int,
    ) -> _Groups:
        """The row groups of some rows. Their bytes are bounded by their pixels, one byte each."""
        shard, group = rows["shard"][numbers_E], rows["group"][numbers_E]
        changes = (np.diff(shard) != 0) | (np.diff(group) != 0) | (np.diff(repeat_E) != 0)
        new = np.flatnonzero(changes) + 1
        first = np.concatenate([[0], new]).astype(np.int64)
        pixels = rows["height"][numbers_E].astype(np.int64) * rows["width"][numbers_E]
        return cls(
            shard_G=shard[first].astype(np.int64),
            repeat_G=repeat_E[first],
            first_G=first,
            rows_G=np.diff(np.append(first, len(numbers_E))),
            bytes_G=np.add.reduceat(pixels, first),
            window_bytes=window_bytes,
        )

    def windows(
        self, key: tuple[int, int], low: int, high: int
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(rows before it, its rows) of each window that has rows in ``[low, high)``."""
        named_G = self.shard_G.astype(np.uint64) | (self.repeat_G.astype(np.uint64) << _REPEAT_BIT)
        shards, shard_G = np.unique(named_G, return_inverse=True)
        turn_S = np.argsort(np.argsort(order_keys(shards, "shard", *key)))
        turn_G = turn_S[shard_G] // SHARDS_TOGETHER
        groups = np.arange(len(self.shard_G), dtype=np.uint64)
        order_G = np.lexsort((order_keys(groups, "group", *key), turn_G))
        window_G = np.cumsum(self.bytes_G[order_G]) // self.window_bytes
        ends_G = np.cumsum(self.rows_G[order_G])
        borders = np.append(np.flatnonzero(np.diff(window_G)) + 1, len(order_G))
        begin = 0
        for end in borders.tolist():
            before = int(ends_G[begin - 1]) if begin else 0
            if before < high and int(ends_G[end - 1]) > low:
                yield before, self._members(order_G[begin:end])
            begin = end

    def _members(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        parts = [np.arange(self.first_G[g], self.first_G[g] + self.rows_G[g]) for g in groups]
        return np.concatenate(parts)
