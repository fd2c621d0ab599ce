"""The text of a row is that of `json.dumps`, however much of it was made before."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from sammed_data import columns
from sammed_data.masks import Part
from sammed_data.row_text import RowText, mask_template, mask_text

SAME = {
    "label": '5 % of "Größe"\n',
    "structure": "liver",
    "organ": "",
    "source_index": None,
    "raw_value": "%d",
}


def _part(number: int) -> Part:
    return Part(
        raw="%d", instance=number, annotator=2, layer=0, n_components=3, area_px=1 << 33,
        box_xyxy=(0, 7, 12, 9), touches_border=number == 0, shape_hw=(9, 31),
        bits=np.full((2, 2), 255, np.uint8),
    )  # fmt: skip


def _as_dict(part: Part) -> dict:
    names = ("instance", "annotator", "n_components", "area_px", "touches_border")
    return SAME | {n: getattr(part, n) for n in names} | {"box_xyxy": list(part.box_xyxy)}


def test_masks_and_rows():
    parts = [_part(0), _part(1)]
    texts = [mask_text(mask_template(SAME), part) for part in parts]
    said = [_as_dict(part) for part in parts]
    assert texts == [json.dumps(m, sort_keys=True) for m in said]

    source = {"role": "image", "path": "a/ü.nii", "sha256": "0"}
    shared = {"sources": [source | {"member": "channel 1 in x.zip"}], "notes": [], "role": None}
    rows = RowText(shared)
    row = shared | {"masks": said, "height": 9, "spacing": 0.1, "intensity": {"b": -0.0, "a": None}}
    odd = row | {"spacing": float("inf"), "height": True}
    for changed in (
        row,
        row | {"spacing": np.float64(-0.1)},
        row | {"notes": ["100 %s"]},
        row,
        odd,
    ):
        wanted = changed | {"sources": [source | {"member": "channel 1"}]}
        assert rows.text(changed, texts) == json.dumps(wanted, sort_keys=True)


def test_structs_by_field_are_lists_of_dicts():
    kind = pa.struct(
        [("n", pa.int32()), ("s", pa.string()), ("in", pa.struct([("b", pa.binary())]))]
    )
    schema = pa.schema([("masks", pa.list_(kind))])
    inner = columns.Structs({"b": [b"1", None, b"33"]})
    fast = columns.Structs({"n": [1, None, 3], "s": ["a", "", None], "in": inner})
    plain = list(fast)
    assert plain[2] == {"n": 3, "s": None, "in": {"b": b"33"}}
    for rows in ([fast, fast], [[], fast, None], [plain, fast]):
        found = columns.table([{"masks": r} for r in rows], schema)
        found.validate(full=True)
        listed = [{"masks": r if r is None else list(r)} for r in rows]
        assert found.to_pylist() == pa.Table.from_pylist(listed, schema=schema).to_pylist()
