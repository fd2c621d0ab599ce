"""An inferred encoding, the label files looked at, and what their values allow at first sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sammed_data.propose.arrays import label_maps
from sammed_data.propose.carriers import Doubt, Item
from sammed_data.propose.formats import MAX_LOOK_BYTES, Look, describe
from sammed_data.propose.roles import spread
from sammed_data.types import SammedError

LOOKS, _LOOK_BYTES = 24, 400 << 20
_MANY_LOOKS, _SMALL_BYTES = 120, 32 << 20  # so many where all of them are small


@dataclass(frozen=True, kw_only=True)
class Coding:
    """An encoding with what it was inferred from.

    Attributes:
        type: of the catalogue's encodings.
        options: further keys of ``label_encoding``.
        values: raw labels found (numbers, 'r,g,b', segment or ROI names, structures), sorted.
        names: raw label -> name that the files themselves give it.
        notes: what is odd, for the entry's quirks.
        unreadable: (path, why).
    """

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    evidence: str = ""
    doubt: Doubt = "low"
    notes: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A label file that was read."""

    item: Item
    array: NDArray[Any]
    look: Look


def look_at(
    root: Path, labels: Sequence[Item], images: Mapping[str, str]
) -> tuple[list[Seen], list[tuple[str, str]]]:
    """Read some label files; more where all are small. Also (path, why) of unreadable ones."""
    from sammed_data.readers.picture_stack import read_picture_stack
    from sammed_data.readers.registry import read_label_map

    seen: list[Seen] = []
    bad: list[tuple[str, str]] = []
    budget = _LOOK_BYTES
    wanted = _MANY_LOOKS if sum(i.size for i in labels) <= _SMALL_BYTES else LOOKS
    for item in spread(labels, 2 * wanted):
        if len(seen) == wanted or budget < 0:
            break
        if item.size > MAX_LOOK_BYTES and seen:
            continue
        budget -= 8 * item.size
        try:
            place = root / item.path.rstrip("/")
            if item.kind == "stack":
                found = [read_picture_stack(place, root / images[item.path])[0]]
            elif item.kind == "array":
                found = list(label_maps(root, item))
            else:
                found = [read_label_map(place)[0]]
        except SammedError as err:
            bad.append((item.path, str(err).replace(f"{root}/", "")))
            continue
        seen += [Seen(item=item, array=array, look=describe(array)) for array in found]
    return seen, bad


def is_jpeg(item: Item) -> bool:
    """Whether a file is JPEG by its ending."""
    return item.path.lower().endswith((".jpg", ".jpeg"))


def levels(seen: Sequence[Seen]) -> str:
    """The values found, in words."""
    values = sorted({v for s in seen for v in s.look.counts})
    if len(values) > 8:
        return f"values from {values[0]} to {values[-1]}"
    return "values " + ", ".join(map(str, values)) if values else "many values"


def threshold_of(seen: Sequence[Seen], *, one_value: bool = True) -> dict[str, Any] | None:
    """Threshold of masks of one class; None if they are something else.

    ``one_value``: the foreground has the same value in all files.
    """
    if any(s.look.colours or not s.look.whole for s in seen):
        return None
    top = max(s.look.high for s in seen)
    if any(s.look.low < 0 for s in seen):
        return None
    if all(s.look.n_values <= 2 for s in seen):
        ends = {s.look.high for s in seen if s.look.n_values == 2} | {0.0}
        lows = {s.look.low for s in seen if s.look.n_values == 2}
        if lows - {0.0} or (len(ends) > 2 and one_value):
            return None
        return {"threshold": 127 if top == 255 and len(ends) <= 2 else 0}
    bright = all(s.look.lossy or s.look.n_values < 2 or s.look.high > 127 for s in seen)
    if bright and all(s.look.lossy or s.look.n_values <= 2 for s in seen):
        return {"threshold": 127}
    return None
