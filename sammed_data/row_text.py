"""The metadata of a row as the text its digest is taken over: `json.dumps` with sorted keys.

Nearly all of that text is the same for every mask of a label and every row of a case, so it is made
once for them: a tenth of the time of encoding 13,000 dicts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from sammed_data.masks import Part

#: What two masks of one label and one layer can differ in.
CHANGING = {
    "instance": "%d",
    "annotator": "%d",
    "n_components": "%s",
    "area_px": "%d",
    "box_xyxy": "[%d, %d, %d, %d]",
    "touches_border": "%s",
}
_encode = json.JSONEncoder(sort_keys=True).encode


def _dumps(value: Any) -> str:
    """JSON; numbers by themselves, for which the encoder takes ten times as long."""
    if type(value) is int:
        return repr(value)
    if isinstance(value, float) and isfinite(value):  # those of numpy show their type in `repr`
        return float.__repr__(value)
    return _encode(value)


def mask_template(same: Mapping[str, Any]) -> str:
    """A format for :func:`mask_text`: what masks share stands in it already."""
    texts = {key: _fixed(key, value) for key, value in same.items()} | CHANGING
    return _joined(texts)


def mask_text(template: str, part: Part) -> str:
    """One mask; the values come in the order of their sorted names."""
    return template % (
        part.annotator,
        part.area_px,
        *part.box_xyxy,
        part.instance,
        "null" if part.n_components is None else part.n_components,
        "true" if part.touches_border else "false",
    )


class RowText:
    """Texts of the rows of one case."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        """``shared``: what nearly all rows of the case hold, the same objects in each."""
        self._shared = dict(shared)
        # The other names, and a text with a place for each of them.
        self._changing: tuple[str, ...] = ()
        self._template = ""

    def text(self, row: Mapping[str, Any], masks: Sequence[str]) -> str:
        """A row without pixels; ``masks``: each by `mask_text`."""
        other = [key for key, value in self._shared.items() if row[key] is not value]
        if other or not self._template:
            for key in other:
                del self._shared[key]
            self._changing = tuple(sorted({*row, "masks"} - {*self._shared}))
            fixed = {key: _fixed(key, value) for key, value in self._shared.items()}
            texts = dict.fromkeys(self._changing, "%s") | fixed
            self._template = _joined(texts)
        return self._template % tuple(
            f"[{', '.join(masks)}]" if key == "masks" else _dumps(_digested(key, row[key]))
            for key in self._changing
        )


def _joined(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'"{key}": {texts[key]}' for key in sorted(texts)) + "}"


def _fixed(key: str, value: Any) -> str:
    return _dumps(_digested(key, value)).replace("%", "%%")


def _digested(key: str, value: Any) -> Any:
    """Which archive a file was read from is no part of what the row is."""
    if key != "sources":
        return value
    return [s | {"member": s["member"].partition("in ")[0].strip()} for s in value]
