"""Score rows of a results folder: a few coded columns in memory, the rows themselves on disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sammed_bench.scores import SCHEMA, parts
from sammed_data.types import CorpusError, UsageError, nearest

FACETS = ("model", "mode", "dataset", "structure", "status")
_OPEN_PARTS = 16
_SAME = ("sample_id", "mask_index", "mode")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A page of score rows; '' = all.

    Attributes:
        order: 'worst' or 'best' first by Dice.
    """

    model: str = ""
    mode: str = ""
    dataset: str = ""
    structure: str = ""
    status: str = ""
    order: str = "worst"


class ScoresTable:
    """Rows by number: parts in the order of their names, rows in the order of each part.

    Args:
        results: folder of ``sammed bench``.

    Raises:
        CorpusError: no score rows there, or damaged ones.
    """

    def __init__(self, results: Path) -> None:
        self._parts = parts(results)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, pa.Table] = OrderedDict()
        self._last: tuple[Asked, NDArray[np.int64]] | None = None
        columns = {name: _Coded() for name in FACETS}
        dice, starts = [], [0]
        for path in self._parts:
            table = _read(path, [*FACETS, "dice"])
            starts.append(starts[-1] + table.num_rows)
            dice.append(np.asarray(table.column("dice").to_numpy(), np.float32))
            for name, column in columns.items():
                column.add(table.column(name))
        self._starts = np.array(starts, np.int64)
        self._dice_N = np.concatenate(dice)
        self._codes = {name: column.whole() for name, column in columns.items()}
        self.names = {name: list(column.names) for name, column in columns.items()}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def numbers(self, asked: Asked) -> NDArray[np.int64]:
        """Row numbers in the order asked for; rows that were not supported have no Dice, last.

        Raises:
            UsageError: an unknown name.
        """
        with self._lock:
            if self._last is not None and self._last[0] == asked:
                return self._last[1]
        keep: NDArray[np.bool_] = np.ones(len(self), bool)
        for name in FACETS:
            value = getattr(asked, name)
            if value:
                if value not in self.names[name]:
                    near = nearest(value[:80], self.names[name])
                    raise UsageError(f"unknown {name} {value[:80]!r}; {near}")
                keep &= self._codes[name] == self.names[name].index(value)
        found = np.flatnonzero(keep)
        by = self._dice_N[found] * (1 if asked.order == "worst" else -1)
        found = found[np.argsort(by, kind="stable")]  # NaN goes last
        with self._lock:
            self._last = (asked, found)
        return found

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Whole rows, each with its ``number``.

        Raises:
            UsageError: no such row.
        """
        found = []
        for number in numbers:
            part, position = self._place(number)
            row = dict(self._part(part).slice(position, 1).to_pylist()[0])
            found.append(row | {"number": number})
        return found

    def row(self, number: int) -> dict[str, Any]:
        """One row."""
        return self.rows([number])[0]

    def part_path(self, number: int) -> Path:
        """The file of a row; its name is that of its clicks and kept predictions."""
        return self._parts[self._place(number)[0]]

    def same(self, number: int) -> list[dict[str, Any]]:
        """The rows of all models about the same mask in the same mode, in the order of parts.

        Parts with one number at the end of their names hold the same images.
        """
        row, end = self.row(number), self.part_path(number).stem.rpartition("-")[2]
        found = []
        for part, path in enumerate(self._parts):
            if path.stem.rpartition("-")[2] == end:
                found += self._find(part, row)
        return found

    def find(self, model: str, sample_id: str, mask_index: int, mode: str) -> int | None:
        """The number of a row by what it is about."""
        wanted = {"sample_id": sample_id, "mask_index": mask_index, "mode": mode}
        for part in range(len(self._parts)):
            for row in self._find(part, wanted):
                if row["model"] == model:
                    return int(row["number"])
        return None

    def _find(self, part: int, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        table = self._part(part)
        fits = pc.equal(table.column("sample_id"), wanted["sample_id"])
        for name in _SAME[1:]:
            fits = pc.and_(fits, pc.equal(table.column(name), wanted[name]))
        places = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
        return self.rows([int(self._starts[part] + place) for place in places])

    def _place(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise UsageError(f"expected a score row from 0 to {len(self) - 1}")
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return part, int(number - self._starts[part])

    def _part(self, part: int) -> pa.Table:
        with self._lock:
            table = self._open.pop(part, None)
        if table is None:
            table = _read(self._parts[part], SCHEMA.names)
        with self._lock:
            self._open[part] = table
            if len(self._open) > _OPEN_PARTS:
                self._open.popitem(last=False)
        return table


class _Coded:
    """A column of few different words as whole numbers over all parts."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._codes: list[NDArray[np.int32]] = []

    def add(self, column: pa.ChunkedArray) -> None:
        coded = column.combine_chunks().dictionary_encode()
        own = [self.names.setdefault(n, len(self.names)) for n in coded.dictionary.to_pylist()]
        self._codes.append(np.asarray(own, np.int32)[np.asarray(coded.indices)])

    def whole(self) -> NDArray[np.int32]:
        return np.concatenate(self._codes)


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a part; those that an older version did not have are left out.

    Raises:
        CorpusError: damaged.
    """
    try:
        file = pq.ParquetFile(path)
        return file.read(columns=[name for name in columns if name in file.schema_arrow.names])
    except (OSError, pa.ArrowException) as err:
        raise CorpusError(
            f"expected score rows in {path}, found {err}: run `sammed bench` again"
        ) from err
