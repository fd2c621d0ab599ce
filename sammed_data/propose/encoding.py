"""How the pixels of a group's labels say what they mean, from a sample of the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.propose.carriers import Doubt, Group, Item, worst
from sammed_data.propose.documents import OUTLINES
from sammed_data.propose.formats import MAX_LOOK_BYTES, Look, describe, segment_names
from sammed_data.propose.roles import spread
from sammed_data.types import SammedError

_LOOKS, _LOOK_BYTES = 24, 400 << 20
_MANY_LOOKS, _SMALL_BYTES = 120, 32 << 20  # so many where all of them are small
_MANY_OBJECTS, _MANY_FLAT, _MAX_COLOURS = 8, 40, 64


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
class _Seen:
    item: Item
    array: NDArray[Any]
    look: Look


def find_encoding(root: Path, group: Group, told: str | None = None) -> Coding:
    """Infer the encoding of a group's labels.

    Args:
        root: surveyed folder.
        group: with its label patterns.
        told: the type, where the user said it.
    """
    labels = list({p.labels[0].path: p.labels[0] for p in group.pairs}.values())
    by_header = _of_dicom(labels) or _of_segments(root, labels) or _of_outlines(labels)
    if by_header is not None:
        return by_header
    images = {p.labels[0].path: p.image.path for p in group.pairs}
    seen, bad = _look(root, labels, images)
    if not seen:
        why = bad[0][1] if bad else "no label file could be looked at"
        return Coding(type="index", evidence=why, doubt="high", unreadable=tuple(bad))
    said = f"{len(seen)} of {len(labels)} label files looked at"
    tail = " ".join(p for p, _ in group.label_patterns)
    if told is not None:
        found = _told(told, seen, group)
    elif "{structure}" in tail:
        found = _one_mask_a_file("file_per_class", seen, group.structures)
    elif "{instance}" in tail:
        found = _one_mask_a_file("file_per_instance", seen, ("1",))
    else:
        found = _map(seen)
    doubt = found.doubt if len(seen) == len(labels) else worst(found.doubt, _sampled(found))
    return _with(found, evidence=f"{said}: {found.evidence}", doubt=doubt, unreadable=tuple(bad))


def _told(told: str, seen: Sequence[_Seen], group: Group) -> Coding:
    """The user's type, with the values that the files hold."""
    values: tuple[str, ...] = ("1",)
    options: dict[str, Any] = {}
    if told in ("binary", "file_per_class", "file_per_instance"):
        options = _binary(seen) or {"threshold": 127 if max(s.look.high for s in seen) > 1 else 0}
        values = group.structures if told == "file_per_class" else values
    elif told in ("index", "values"):
        values = tuple(str(v) for v in sorted({v for s in seen for v in s.look.counts} - {0}))
    elif told == "instance_ids":
        values = ("*",)
    elif told == "rgb":
        return _with(_coloured(seen), evidence="told", doubt="low")
    return Coding(type=told, options=options, values=values, evidence="told")


def _with(coding: Coding, **changes: Any) -> Coding:
    return replace(coding, **changes)


def _sampled(found: Coding) -> Doubt:
    """Files not looked at may hold other values; where there are only two that is unlikely."""
    return "medium" if found.type in ("index", "values", "rgb") else "low"


def _of_dicom(labels: Sequence[Item]) -> Coding | None:
    kinds = {i.kind for i in labels}
    if kinds not in ({"seg"}, {"rtstruct"}):
        return None
    what = "dicom_seg" if kinds == {"seg"} else "rtstruct"
    names = sorted({n for i in labels for n in i.names})
    part = "segment labels" if what == "dicom_seg" else "ROI names"
    return Coding(
        type=what,
        values=tuple(names),
        names={n: n for n in names},
        evidence=f"DICOM modality of {len(labels)} label objects; {part} of their headers",
    )


def _of_outlines(labels: Sequence[Item]) -> Coding | None:
    kind = labels[0].kind
    if kind not in OUTLINES:
        return None
    names = sorted({n for i in labels for n in i.names})
    return Coding(
        type="polygons",
        options={"format": kind},
        values=tuple(names),
        names={n: n for n in names},
        evidence=f"{len(labels)} {kind} files with their class names",
    )


def _of_segments(root: Path, labels: Sequence[Item]) -> Coding | None:
    if not all(i.path.lower().endswith(".seg.nrrd") for i in labels):
        return None
    names = sorted({n for i in spread(labels, _LOOKS) for n in segment_names(root, i)})
    if not names:
        return None
    return Coding(
        type="seg_nrrd",
        values=tuple(names),
        names={n: n for n in names},
        evidence=f"segment names in the headers of {min(len(labels), _LOOKS)} .seg.nrrd files",
    )


def _look(
    root: Path, labels: Sequence[Item], images: Mapping[str, str]
) -> tuple[list[_Seen], list[tuple[str, str]]]:
    from sammed_data.readers.picture_stack import read_picture_stack
    from sammed_data.readers.registry import read_label_map

    seen: list[_Seen] = []
    bad: list[tuple[str, str]] = []
    budget = _LOOK_BYTES
    wanted = _MANY_LOOKS if sum(i.size for i in labels) <= _SMALL_BYTES else _LOOKS
    for item in spread(labels, 2 * wanted):
        if len(seen) == wanted or budget < 0:
            break
        if item.size > MAX_LOOK_BYTES and seen:
            continue
        budget -= 8 * item.size
        try:
            place = root / item.path.rstrip("/")
            if item.kind == "stack":
                array, _ = read_picture_stack(place, root / images[item.path])
            else:
                array, _ = read_label_map(place)
        except SammedError as err:
            bad.append((item.path, str(err).replace(f"{root}/", "")))
            continue
        seen.append(_Seen(item=item, array=array, look=describe(array)))
    return seen, bad


def _jpeg(item: Item) -> bool:
    return item.path.lower().endswith((".jpg", ".jpeg"))


def _one_mask_a_file(kind: str, seen: Sequence[_Seen], values: tuple[str, ...]) -> Coding:
    cut = _binary(seen, one_value=False)
    doubt: Doubt = "low"
    notes: tuple[str, ...] = ()
    if cut is None:
        odd = max(seen, key=lambda s: s.look.n_values)
        cut = {"threshold": 0}
        notes = (f"{odd.item.path} holds {odd.look.n_values} values although a file is one mask",)
        doubt = "high"
    what = "one file a class" if kind == "file_per_class" else "one file an object"
    evidence = f"{what}; {_levels(seen)}"
    return Coding(type=kind, options=cut, values=values, evidence=evidence, doubt=doubt,
                  notes=notes)  # fmt: skip


def _levels(seen: Sequence[_Seen]) -> str:
    values = sorted({v for s in seen for v in s.look.counts})
    if len(values) > 8:
        return f"values from {values[0]} to {values[-1]}"
    return "values " + ", ".join(map(str, values)) if values else "many values"


def _binary(seen: Sequence[_Seen], *, one_value: bool = True) -> dict[str, Any] | None:
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
    if all(s.look.lossy or s.look.n_values <= 2 for s in seen):
        return {"threshold": 127}
    return None


def _map(seen: Sequence[_Seen]) -> Coding:
    colours = [s for s in seen if s.look.colours]
    if colours:
        return _coloured(seen)
    options = _binary(seen)
    if options is not None:
        return _one_class(seen, options)
    values = sorted({v for s in seen for v in s.look.counts} - {0})
    if any(s.look.n_values > 300 for s in seen) or not values:
        values = []
    if any(_jpeg(s.item) for s in seen):
        return Coding(
            type="index", values=tuple(map(str, values[:64])), doubt="high",
            evidence="JPEG label files of several values: their compression has changed them",
            notes=("masks saved as JPEG: class values cannot be trusted, ask for the originals",),
        )  # fmt: skip
    objects = _objects(seen)
    if objects is not None or not values:
        why = objects or "several hundred values a file"
        doubt: Doubt = "low" if len(seen) > 1 and objects else "medium"
        return Coding(type="instance_ids", values=("*",), evidence=why, doubt=doubt)
    return _classes(seen, values)


def _classes(seen: Sequence[_Seen], values: Sequence[int]) -> Coding:
    spaced = seen[0].item.kind == "raster" and values[-1] > 60 and len(values) <= 12
    shown = ", ".join(map(str, values[:24])) + (", ..." if len(values) > 24 else "")
    doubt: Doubt = "low"
    notes: list[str] = []
    if spaced and 255 in values and len(values) > 1 and max(values) - min(values) < 255:
        notes.append("255 may mark pixels to ignore; name it under `ignore` if so")
        doubt = "medium"
    if values[0] < 0:
        notes.append(f"the value {values[0]} is negative; name it under `ignore` if it is no class")
        doubt = "high"
    if len(values) > 40 and seen[0].item.kind == "raster":
        doubt = "high"
    return Coding(
        type="values" if spaced else "index",
        values=tuple(map(str, values)),
        evidence=f"one map of whole values {shown}",
        doubt=doubt,
        notes=tuple(notes),
    )


def _objects(seen: Sequence[_Seen]) -> str | None:
    """Words for why the values count objects; None if they rather are classes."""
    sets = [{v for v in s.look.counts if v} for s in seen if s.look.counts]
    largest = max(seen, key=lambda s: s.look.n_values)
    most = largest.look.n_values - 1
    if most < _MANY_OBJECTS or largest.look.low < 0:
        return None
    differ = len({frozenset(s) for s in sets}) > 1
    share, typical = _single(largest.array)
    flat = largest.array.shape[0] == 1
    numbered = all(not s or max(s) - len(s) <= 0.1 * len(s) + 1 for s in sets)
    small = typical < 0.05
    if share < 0.9 or not small:
        return None
    if (numbered and (flat or (differ and most > 30))) or (flat and most > _MANY_FLAT):
        return f"up to {most} values, {share:.0%} of them one connected part of small size each"
    return None


def _single(array: NDArray[Any]) -> tuple[float, float]:
    """Share of values that are one connected part; typical area as a share of the image."""
    from scipy.ndimage import find_objects, label

    values = [int(v) for v in np.unique(array) if v > 0][:40]
    boxes = find_objects(array.astype(np.int64)) if values and max(values) < 1 << 20 else []
    single, areas = 0, []
    for value in values:
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        part = array[box] == value
        single += int(label(part, np.ones((3, 3, 3)))[1] == 1)
        areas.append(int(part.sum()))
    if not areas:
        return 0.0, 1.0
    return single / len(areas), float(np.median(areas)) / array.size


def _one_class(seen: Sequence[_Seen], options: dict[str, Any]) -> Coding:
    doubt: Doubt = "low"
    notes: list[str] = []
    evidence = _levels(seen)
    if any(s.look.lossy for s in seen):
        evidence += "; blurred edges (a lossy format), cut at 127"
        notes.append("masks are not exactly of two values: cut at 127")
    drawn = [s for s in seen if s.look.n_values > 1]
    masks = [s.array > options["threshold"] for s in drawn]
    if masks and np.mean([_is_outline(m) for m in masks]) >= 0.8:
        options = options | {"fill": True}
        doubt = "medium"
        evidence += "; thin closed lines that enclose an area, to be filled"
        notes.append("masks are outlines; what they enclose is filled")
    elif masks and np.mean([_is_inverted(m) for m in masks]) >= 0.8:
        options = options | {"inverted": True}
        doubt = "high"
        evidence += "; foreground covers the border and most of the image, taken as inverted"
        notes.append("masks look inverted (object black on white); check the overlays")
    if not masks:
        doubt = "high"
        evidence = "every mask looked at is empty"
    return Coding(type="binary", options=options, values=("1",), evidence=evidence, doubt=doubt,
                  notes=tuple(notes))  # fmt: skip


def _is_outline(mask_ZYX: NDArray[np.bool_]) -> bool:
    from scipy.ndimage import binary_fill_holes, distance_transform_cdt

    if len(mask_ZYX) > 1:
        return False
    filled = binary_fill_holes(mask_ZYX[0])
    thick = int(distance_transform_cdt(np.pad(mask_ZYX[0], 1)).max())
    return bool(filled.sum() >= 2.5 * mask_ZYX.sum() and thick <= 4)


def _is_inverted(mask_ZYX: NDArray[np.bool_]) -> bool:
    plane = mask_ZYX[len(mask_ZYX) // 2]
    border = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    return bool(border.mean() > 0.9 and plane.mean() > 0.5)


def _coloured(seen: Sequence[_Seen]) -> Coding:
    codes: set[int] = set()
    for s in seen:
        if s.array.ndim == 3:  # grey: three equal channels
            codes |= {v << 16 | v << 8 | v for v in s.look.counts}
            continue
        flat = s.array.reshape(-1, 3).astype(np.int64) @ [1 << 16, 1 << 8, 1]
        codes |= {int(v) for v in np.unique(flat)[: 4 * _MAX_COLOURS]}
    named = [f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in sorted(codes - {0})]
    pure = {c for c in codes if all(v in (0, 255) for v in (c >> 16, c >> 8 & 255, c & 255))}
    near = all(
        min(v, 255 - v) <= 48 for c in codes for v in (c >> 16, c >> 8 & 255, c & 255)
    )  # fmt: skip
    lossy = any(_jpeg(s.item) for s in seen)
    if near and len(codes) > len(pure) and len(codes) > 8:
        rounded = sorted({_rounded(c) for c in codes} - {"0,0,0"})
        return Coding(
            type="rgb", options={"round_colours": True}, values=tuple(rounded), doubt="medium",
            evidence=f"{len(codes)} colours near the {len(rounded)} pure ones, rounded",
            notes=("colours are blurred: each channel counts as 0 or 255",),
        )  # fmt: skip
    if len(codes) > _MAX_COLOURS or lossy:
        why = "a lossy format has changed them" if lossy else "maybe one an object"
        return Coding(type="rgb", values=tuple(named[:_MAX_COLOURS]), doubt="high",
                      evidence=f"{len(codes)} or more colours: {why}")  # fmt: skip
    doubt: Doubt = "low" if 1 < len(named) <= 12 else "medium"  # one colour may be an object's
    return Coding(type="rgb", values=tuple(named), doubt=doubt,
                  evidence=f"{len(named)} colours beside black")  # fmt: skip


def _rounded(code: int) -> str:
    parts = (code >> 16, code >> 8 & 255, code & 255)
    return ",".join("255" if v > 127 else "0" for v in parts)


def empty_alpha(root: Path, items: Sequence[Item]) -> str | None:
    """A sentence if masks hide in the alpha channel, which no reader looks at."""
    from PIL import Image

    for item in spread([i for i in items if i.path.lower().endswith(".png")], 3):
        try:
            with Image.open(root / item.path) as image:
                if image.mode not in ("RGBA", "LA"):
                    return None
                array = np.asarray(image)
        except (OSError, SyntaxError, ValueError):
            return None
        if (array[..., :-1] == array[0, 0, :-1]).all() and array[..., -1].min() != array.max():
            return (
                f"{item.path}: colours are the same everywhere and the mask lies in the alpha "
                "channel, which is not read; save it as grey"
            )
    return None
