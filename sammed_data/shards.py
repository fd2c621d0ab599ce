"""Shard files: rows to Parquet that `datasets` opens with pictures, and rejections beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray

from sammed_data import columns
from sammed_data.audit.fingerprints import CaseMark
from sammed_data.corpus import CONTENT_KEY, GROUP_BYTES, ROWS_PER_GROUP, SCHEMA
from sammed_data.stages import stage
from sammed_data.stores import parquet_source
from sammed_data.types import CorpusError, Rejection

# In a shard's footer: fingerprints of its cases, so that they travel with the rows.
CASES_KEY = b"sammed_cases"
_BUFFER_BYTES = 1 << 16
_PIXEL_COLUMNS = ("image", "image_u16", "ignore")
# PNG bytes do not shrink further: compressing them again only costs time.
_PACKED = {"image.bytes", "image_u16.bytes", "ignore.bytes", "masks.list.element.mask.bytes"}
REJECTION_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("case_id", pa.string()),
        ("level", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("slice_index", pa.int32()),
        ("axis", pa.string()),
        ("label", pa.string()),
        ("count", pa.int64()),
    ]
)


def _feature(kind: pa.DataType, name: str = "") -> Any:
    """The `datasets` feature of an Arrow type; image structs become pictures."""
    if name in (*_PIXEL_COLUMNS, "mask"):
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {f.name: _feature(f.type, f.name) for f in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {pa.float64(): "float64", pa.bool_(): "bool"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


@cache
def schema_with_features() -> pa.Schema:
    """SCHEMA with the `huggingface` description, so that plain load_dataset shows images."""
    features = {field.name: _feature(field.type, field.name) for field in SCHEMA}
    return SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@cache
def _leaf_columns() -> tuple[str, ...]:
    empty = pa.BufferOutputStream()
    pq.write_table(columns.table([], SCHEMA), empty)
    schema = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return tuple(schema.column(i).path for i in range(len(schema)))


@stage("content digest")
def pixel_digest(array: NDArray[Any]) -> str:
    """BLAKE3 of an image, as safe as SHA-256; taken while it is in the processor's cache."""
    found = blake3(f"{array.shape}{array.dtype.str}".encode())
    found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()


@stage("content digest")
def row_digest(text: str, pixels: Sequence[str], packed: Iterable[NDArray[np.uint8]]) -> str:
    """SHA-256 over metadata, decoded pixels and masks; independent of how PNG bytes were made.

    Args:
        text: the metadata by `row_text`; its boxes say where the masks lie.
        pixels: `pixel_digest` of each stored image.
        packed: the bits of each `Part`, then the plane to ignore, if any.
    """
    whole = ", ".join([text, *map(json.dumps, pixels)])
    found = hashlib.sha256(f"[{whole}]".encode())
    for bits in packed:
        found.update(bits.data)
    return found.hexdigest()


class ShardWriter:
    """Writes rows in order, at most 64 of them or 8 MB a row group."""

    def __init__(self, path: Path) -> None:
        compression = {c: "NONE" if c in _PACKED else "SNAPPY" for c in _leaf_columns()}
        dictionary = [c for c in compression if c not in _PACKED]
        # Without a buffer every page header of every column is a call to the system of its own.
        self._sink = pa.BufferedOutputStream(pa.OSFile(str(path), "wb"), _BUFFER_BYTES)
        self._writer = pq.ParquetWriter(
            self._sink,
            schema_with_features(),
            compression=compression,
            use_dictionary=dictionary,
            write_statistics=dictionary,  # the least and the greatest picture help nobody
            memory_pool=pa.system_memory_pool(),
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._hashes: list[str] = []
        self._marks: list[CaseMark] = []
        self.patients: set[str] = set()
        self.rows = 0
        self.masks = 0

    def add(self, row: dict[str, Any]) -> None:
        """Queue one row; writes a row group when it is full."""
        size = len(row["image"]["bytes"]) + _mask_bytes(row["masks"])
        size += len(row["image_u16"]["bytes"]) if row["image_u16"] else 0
        if self._rows and (self._bytes + size > GROUP_BYTES or len(self._rows) >= ROWS_PER_GROUP):
            self._flush()
        self._rows.append(row)
        self._bytes += size
        self._hashes.append(row["content_sha256"])
        self.patients.add(row["patient_id"])
        self.rows += 1
        self.masks += len(row["masks"])

    def mark(self, mark: CaseMark) -> None:
        """Note the fingerprint of a case."""
        self._marks.append(mark)

    @stage("Parquet")
    def _flush(self) -> None:
        table = columns.table(self._rows, SCHEMA)
        self._rows.clear()  # the table has its own copy of their bytes
        self._bytes = 0
        self._writer.write_table(table, row_group_size=len(table))

    @stage("Parquet")
    def close(self) -> str:
        """Finish the file; returns the shard's content hash, which its footer also holds."""
        if self._rows:
            self._flush()
        content = hashlib.sha256("\n".join(self._hashes).encode()).hexdigest()
        marks = json.dumps([asdict(m) for m in self._marks], sort_keys=True)
        self._writer.add_key_value_metadata({CONTENT_KEY: content, CASES_KEY: marks})
        self._writer.close()
        self._sink.close()
        return content

    def abandon(self) -> None:
        """Close without finishing; the caller removes the file."""
        self._writer.close()
        self._sink.close()


def _mask_bytes(masks: columns.Structs | Sequence[dict[str, Any]]) -> int:
    if isinstance(masks, columns.Structs) and isinstance(masks.fields["mask"], columns.Structs):
        return sum(map(len, masks.fields["mask"].fields["bytes"]))
    return sum(len(m["mask"]["bytes"]) for m in masks)


def write_rejections(path: Path, rejections: Sequence[Rejection]) -> None:
    """One Parquet file of rejections."""
    table = columns.table([vars(r) for r in rejections], REJECTION_SCHEMA)
    with path.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd")


def read_rejections(folder: Path) -> pa.Table:
    """All rejections of a corpus, in the order of their files."""
    parts = sorted((folder / "rejections").glob("part-*.parquet"))
    tables = [_rejections(p) for p in parts]
    return pa.concat_tables(tables) if tables else REJECTION_SCHEMA.empty_table()


def read_rejections_of(path: Path) -> list[Rejection]:
    """The rejections in one file; none where there is no such file."""
    return [Rejection(**row) for row in _rejections(path).to_pylist()] if path.is_file() else []


def _rejections(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(parquet_source(path)).read()
    except (OSError, pa.ArrowException) as err:
        raise CorpusError(
            f"{path}: expected rejections of the build, found {str(err).splitlines()[0]}; remove "
            f"the file and run the same `sammed data build` again"
        ) from err


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A small Parquet file as dicts."""
    return list(pq.ParquetFile(parquet_source(path)).read().to_pylist())


def footer_content(path: Path) -> str | None:
    """The content hash in a shard's footer; None where the file is missing or is no such shard."""
    try:
        metadata = pq.ParquetFile(parquet_source(path)).metadata.metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    found = metadata.get(CONTENT_KEY)
    return found.decode() if found else None


def case_marks(path: Path) -> list[CaseMark] | None:
    """Fingerprints of a shard's cases; None where it was built before there were any such.

    Raises:
        CorpusError: the shard is damaged.
    """
    try:
        metadata = pq.ParquetFile(parquet_source(path)).metadata
        found = (metadata.metadata or {}).get(CASES_KEY)
        marks = None if found is None else json.loads(found)
        if marks and "voxels_sha256" in marks[0]:  # of schema version 2: equal to no other
            return None
        return marks and [CaseMark(**m | {"shape_zyx": tuple(m["shape_zyx"])}) for m in marks]
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as err:
        said = str(err).splitlines()[0]
        raise CorpusError(
            f"{path}: expected a shard with case fingerprints, found {said}; run the same "
            f"`sammed data build` again"
        ) from err


def content_hashes(path: Path) -> list[str]:
    """Row content hashes of a shard, in order."""
    table = pq.ParquetFile(parquet_source(path)).read(columns=["content_sha256"])
    return [str(h) for h in table.column(0).to_pylist()]
