from __future__ import annotations

import subprocess
import sys

import pyarrow as pa

from sammed_data import columns
from sammed_data.corpus import SCHEMA

KINDS = pa.schema(
    [
        ("name", pa.string()),
        ("data", pa.binary()),
        ("size", pa.int32()),
        ("mm", pa.float64()),
        ("yes", pa.bool_()),
        ("box", pa.list_(pa.int32(), 4)),
        ("tags", pa.list_(pa.string())),
        ("parts", pa.list_(pa.struct([("box", pa.list_(pa.int32(), 4)), ("n", pa.int64())]))),
        ("inner", pa.struct([("a", pa.string()), ("b", pa.float64())])),
    ]
)
ROWS = [
    {"name": "Größe", "data": b"\0\1", "size": -3, "mm": 0.1, "yes": False, "box": [1, 2, 3, 4],
     "tags": ["ä", None], "parts": [{"box": [0, 1, 2, 3], "n": 1 << 40}, {"n": 0}],
     "inner": {"a": "", "b": -0.0}},
    {"name": "", "data": b"", "size": 0, "mm": float("inf"), "yes": True, "box": None, "tags": [],
     "parts": [], "inner": {"a": None, "b": 2.5}},
    {},
]  # fmt: skip


def test_tables_are_those_of_pyarrow():
    for rows in (ROWS, ROWS[:1], ROWS[2:], []):
        found = columns.table(rows, KINDS)
        found.validate(full=True)
        assert found.to_pylist() == pa.Table.from_pylist(rows, schema=KINDS).to_pylist()


def test_writing_a_shard_leaves_pandas_out(tmp_path):
    row = {f.name: None for f in SCHEMA} | {
        "image": {"bytes": b"x", "path": None},
        "masks": [],
        "content_sha256": "0",
        "patient_id": "p",
    }
    code = (
        "import sys; from pathlib import Path; from sammed_data.shards import ShardWriter\n"
        f"w = ShardWriter(Path({str(tmp_path / 'a.parquet')!r})); w.add({row!r}); w.close()\n"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
