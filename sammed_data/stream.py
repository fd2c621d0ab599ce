"""Rows of a corpus for training: shuffled, shared out to ranks, resumed at any row, not loaded.

The order of an epoch is a function of ``(seed, epoch)``. 48 shards chosen at random are open at a
time; their row groups are shuffled among each other, and the rows of about 128 MB of row groups are
shuffled together, which is what a reader holds.
Ranks take equal, contiguous parts of that one order: no row is seen twice in an epoch, nothing is
exchanged, and a rank reads little more than its own row groups.
"""

from __future__ import annotations

from collections.abc import Iterator
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
_PIXEL_COLUMNS = ["sample_id", "image.bytes", "ignore.bytes", "masks.list.element.mask.bytes"]


class Page:
    """The encoded pixels of one row group, without a Python object per row."""

    def __init__(self, table: pa.Table) -> None:
        masks = table.column("masks").combine_chunks()
        self.sample_ids = table.column("sample_id").combine_chunks()
        self._image = _Bytes(_field(table, "image"))
        self._ignore = _Bytes(_field(table, "ignore"))
        self._masks = _Bytes(masks.values.field("mask").field("bytes"))
        self._first = np.asarray(masks.offsets)

    def image(self, position: int) -> NDArray[Any]:
        """(H, W) or (H, W, 3) uint8."""
        return decode_image(self._image[position])

    def mask_HW(self, position: int, mask: int) -> NDArray[np.bool_]:
        """Mask ``mask`` of the row."""
        return decode_mask(self._masks[int(self._first[position]) + mask])

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
    """

    number: int
    epoch: int
    offset: int
    page: Page
    position: int

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
        self._groups = _Groups.of(self.index.rows_N, numbers_E, window_bytes)

    def __len__(self) -> int:
        """Rows of one epoch for this rank; up to ``world - 1`` rows wait for another epoch."""
        return self._range[1] - self._range[0]

    def order(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.int64]]:
        """This rank's row numbers of an epoch from ``first`` on, one array a window."""
        low, high = self._range[0] + first, self._range[1]
        key = (self.seed, epoch)
        for start, rows_W in self._groups.windows(key, low, high):
            numbers_W = self.numbers_E[rows_W].astype(np.uint64)
            shuffled_W = self.numbers_E[rows_W][np.argsort(order_keys(numbers_W, "row", *key))]
            yield shuffled_W[max(low - start, 0) : high - start]

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
        page = Page(corpus.row_group(int(row["shard"]), int(row["group"]), _PIXEL_COLUMNS))
        return StreamRow(number=number, epoch=0, offset=0, page=page, position=int(row["position"]))

    def _windows(self, epoch: int, offset: int) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        while True:
            for numbers_W in self.order(epoch, offset):
                yield numbers_W, epoch, offset
                offset += len(numbers_W)
            epoch, offset = epoch + 1, 0

    def _read(self, numbers_W: NDArray[np.int64], epoch: int, offset: int) -> _Window:
        rows = self.index.rows_N[numbers_W]
        places = list(zip(rows["shard"].tolist(), rows["group"].tolist(), strict=True))
        pages = {
            place: Page(self._corpus.row_group(*place, _PIXEL_COLUMNS))
            for place in sorted(set(places))
        }
        held = [pages[place] for place in places]
        return _Window(numbers_W, rows["position"], held, epoch, offset)


class _Window:
    """Rows that were read together."""

    def __init__(
        self,
        numbers_W: NDArray[np.int64],
        positions_W: NDArray[np.int64],
        pages: list[Page],
        epoch: int,
        offset: int,
    ) -> None:
        self._numbers, self._positions = numbers_W.tolist(), positions_W.tolist()
        self._pages, self._epoch, self._offset = pages, epoch, offset

    def __iter__(self) -> Iterator[StreamRow]:
        for n, (number, position) in enumerate(zip(self._numbers, self._positions, strict=True)):
            yield StreamRow(
                number=number,
                epoch=self._epoch,
                offset=self._offset + n,
                page=self._pages[n],
                position=position,
            )


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Row groups of the eligible rows: where each starts among them, its rows and bytes."""

    shard_G: NDArray[np.int64]
    first_G: NDArray[np.int64]
    rows_G: NDArray[np.int64]
    bytes_G: NDArray[np.int64]
    window_bytes: int

    @classmethod
    def of(cls, rows: NDArray[Any], numbers_E: NDArray[np.int64], window_bytes: int) -> _Groups:
        """The row groups of some rows. Their bytes are bounded by their pixels, one byte each."""
        shard, group = rows["shard"][numbers_E], rows["group"][numbers_E]
        new = np.flatnonzero((np.diff(shard) != 0) | (np.diff(group) != 0)) + 1
        first = np.concatenate([[0], new]).astype(np.int64)
        pixels = rows["height"][numbers_E].astype(np.int64) * rows["width"][numbers_E]
        return cls(
            shard_G=shard[first].astype(np.int64),
            first_G=first,
            rows_G=np.diff(np.append(first, len(numbers_E))),
            bytes_G=np.add.reduceat(pixels, first),
            window_bytes=window_bytes,
        )

    def windows(
        self, key: tuple[int, int], low: int, high: int
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(rows before it, its rows) of each window that has rows in ``[low, high)``."""
        shards = np.arange(int(self.shard_G[-1]) + 1, dtype=np.uint64)
        turn_S = np.argsort(np.argsort(order_keys(shards, "shard", *key)))
        turn_G = turn_S[self.shard_G] // SHARDS_TOGETHER
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
