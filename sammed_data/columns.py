"""Rows to an Arrow table, buffer by buffer.

Every list that `pyarrow.array` is given makes it import pandas (49 MB in every worker), to ask
whether it is a series; and its growing buffers cost 16-bit builds two fifths of their Parquet time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa


class Structs:
    """A list of structs, field by field: 13,000 masks need no dict each to become columns."""

    def __init__(self, fields: Mapping[str, Sequence[Any] | Structs]) -> None:
        """``fields``: name -> the values of all items; a nested struct is :class:`Structs` too."""
        self.fields = fields
        self._len = len(next(iter(fields.values())))

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for values in zip(*self.fields.values(), strict=True):
            yield dict(zip(self.fields, values, strict=True))


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows as a table; a key that a row lacks is null there.

    Args:
        rows: values as Python objects; lists of lists and dicts as the types say.
        schema: of strings, bytes, numbers, booleans, and lists and structs of them.
    """
    columns = [_column([row.get(f.name) for row in rows], f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    family = _family(kind)
    if family in _NESTED and len(values) > 1 and len({*map(id, values)}) == 1:
        # What all rows of a case share.
        return pa.concat_arrays([_column(values[:1], kind)] * len(values))
    lacks = None in (set(values) if family == "text" else values)
    valid = _bits([v is not None for v in values]) if lacks else None
    buffers, children = _PARTS[family](values, kind, lacks)
    return pa.Array.from_buffers(kind, len(values), [valid, *buffers], children=children)


_Parts = tuple[list[pa.Buffer], list[pa.Array]]


def _bytes(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    packed = [v or b"" for v in values] if lacks else values
    return [_offsets(packed), pa.py_buffer(b"".join(packed))], []


def _text(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    known = {v: b"" if v is None else v.encode() for v in set(values)}  # few are distinct
    return _bytes([*map(known.__getitem__, values)], kind, False)


def _numbers(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    known = [v or 0 for v in values] if lacks else values
    return [pa.py_buffer(np.array(known, kind.to_pandas_dtype()))], []


def _truths(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    return [_bits(list(map(bool, values)))], []


def _lists(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    known = [v or () for v in values]
    return [_offsets(known)], [_joined(known, kind.value_type)]


def _joined(lists: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The items of all lists as one column."""
    full = [v for v in lists if len(v)]
    if not full or not all(isinstance(v, Structs) for v in full):
        return _column(list(chain.from_iterable(full)), kind)
    children = [_joined([v.fields[f.name] for v in full], f.type) for f in kind]
    return pa.Array.from_buffers(kind, sum(map(len, full)), [None], children=children)


def _tuples(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    blank = (None,) * kind.list_size
    flat = chain.from_iterable(blank if v is None else v for v in values)
    return [], [_column(list(flat), kind.value_type)]


def _structs(values: list[Any], kind: pa.DataType, lacks: bool) -> _Parts:
    known = [v or {} for v in values]
    return [], [_column([v.get(f.name) for v in known], f.type) for f in kind]


def _bits(values: list[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(values, bool), bitorder="little"))


def _offsets(values: list[Any]) -> pa.Buffer:
    ends = np.zeros(len(values) + 1, np.int32)
    np.fromiter(map(len, values), np.int32, len(values)).cumsum(out=ends[1:])
    return pa.py_buffer(ends)


_NESTED = ("lists", "tuples", "structs")
_PARTS = {
    "bytes": _bytes,
    "text": _text,
    "numbers": _numbers,
    "truths": _truths,
    "lists": _lists,
    "tuples": _tuples,
    "structs": _structs,
}


@lru_cache(maxsize=1024)
def _family(kind: pa.DataType) -> str:
    tests = {
        "bytes": pa.types.is_binary,
        "text": pa.types.is_string,
        "truths": pa.types.is_boolean,
        "lists": pa.types.is_list,
        "tuples": pa.types.is_fixed_size_list,
        "structs": pa.types.is_struct,
    }
    return next((name for name, test in tests.items() if test(kind)), "numbers")
