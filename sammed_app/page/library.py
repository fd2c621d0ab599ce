"""The corpus as the page reads it: rows by their number in the index, a few of them kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_app.page.flags import Flags
from sammed_data.corpus import Corpus, Row
from sammed_data.index import CorpusIndex, name_hash, open_index
from sammed_data.types import UsageError

_KEPT_ROWS = 48


class Library:
    """An opened corpus that many threads ask.

    Args:
        root: of the corpus; None = there is none, and every question says so.
        exclude: list of flagged samples; None = that of the corpus.

    Raises:
        CorpusError: no corpus there, or a damaged one.
    """

    def __init__(self, root: Path | None, exclude: Path | None = None) -> None:
        self._corpus = None if root is None else Corpus(root)
        self._index = None if self._corpus is None else open_index(self._corpus)
        self._flags = None if self._corpus is None else Flags(self._corpus, exclude)
        self._starts = np.zeros(0, np.int64) if self._index is None else _starts(self._index)
        # A ParquetFile is not safe to share between threads.
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Row] = OrderedDict()

    @property
    def there(self) -> bool:
        """Whether there is a corpus."""
        return self._corpus is not None

    @property
    def corpus(self) -> Corpus:
        """The corpus; its readers need :attr:`lock`.

        Raises:
            UsageError: there is none.
        """
        if self._corpus is None:
            raise UsageError("no corpus is open: start `sammed app --corpus FOLDER`")
        return self._corpus

    @property
    def index(self) -> CorpusIndex:
        """Of all rows, mapped."""
        if self._index is None:
            raise UsageError("no corpus is open: start `sammed app --corpus FOLDER`")
        return self._index

    @property
    def flags(self) -> Flags:
        """The samples that are left out."""
        if self._flags is None:
            raise UsageError("no corpus is open: start `sammed app --corpus FOLDER`")
        return self._flags

    @property
    def lock(self) -> threading.Lock:
        """Held by whoever reads the corpus itself."""
        return self._lock

    def row(self, number: int) -> Row:
        """A row with pixels by its number.

        Raises:
            UsageError: no such row.
        """
        if not 0 <= number < len(self.index.rows_N):
            raise UsageError(f"expected a row from 0 to {len(self.index.rows_N) - 1}")
        with self._lock:
            found = self._kept.get(number)
            if found is None:
                found = self.corpus.at(*self.place(number))
                self._kept[number] = found
                if len(self._kept) > _KEPT_ROWS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
        return found

    def place(self, number: int) -> tuple[int, int]:
        """(shard, position in it) of a row."""
        shard = int(self.index.rows_N["shard"][number])
        return shard, number - int(self._starts[shard])

    def number(self, sample_id: str) -> int | None:
        """The number of a row by its name, or None."""
        found = np.flatnonzero(self.index.rows_N["sample"] == name_hash(sample_id))
        return int(found[0]) if len(found) else None


def _starts(index: CorpusIndex) -> NDArray[np.int64]:
    """The first row of each shard; looked for once, not at every question."""
    shards = np.ascontiguousarray(index.rows_N["shard"])
    last = int(shards[-1]) if len(shards) else -1
    return np.searchsorted(shards, np.arange(last + 1)).astype(np.int64)
