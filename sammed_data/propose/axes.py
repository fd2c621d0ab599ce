"""What the axes of arrays are taken for: by shapes, by each other, or as the user says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sammed_data.entry_parts import AXIS_LETTERS
from sammed_data.propose.carriers import ArrayPart, Doubt, Group, Inference, Item, Pair, worst
from sammed_data.types import UsageError

SIDE = 16  # an image has at least so many rows and columns
_VOLUMES = ("nifti", "itk", "dicom")

_Guess = tuple[str, Doubt, str]


def agreed(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose mask has the axes of its image, where their shapes allow it."""
    out = []
    for pair in pairs:
        image, label = pair.image.array, pair.labels[0].array
        if label is not None and pair.image.kind in _VOLUMES and label.axes in ("YXC", "CYX"):
            why = f"{label.why}; beside a volume, so slices rather than colours"
            slices = replace(label, axes=label.axes.replace("C", "Z"), why=why,
                          doubt=worst(label.doubt, "medium"))  # fmt: skip
            pair = replace(pair, labels=(replace(pair.labels[0], array=slices),))
        if image is not None and label is not None and label.axes != image.axes:
            axes = axes_like(image, label.shape)
            if axes is not None:
                new = replace(pair.labels[0], array=replace(label, axes=axes))
                pair = replace(pair, labels=(new,))
        out.append(pair)
    return out


def told_axes(group: Group, text: str) -> Group:
    """The group with the user's axes: of the image, or ``IMAGE,MASK``.

    Raises:
        UsageError: no such letters, or not as many as the arrays have axes.
    """
    first, comma, second = (t.strip().upper() for t in text.partition(","))
    for letters in filter(None, (first, second)):
        if set(letters) - set(AXIS_LETTERS) or len(set(letters)) != len(letters):
            raise UsageError(
                f"--axes {text!r}: expected different letters of {AXIS_LETTERS} (N images, Z "
                "slices, Y rows, X columns, C colours), of the image or as IMAGE,MASK, such as NYXC"
            )
    pairs = []
    for pair in group.pairs:
        image, label = pair.image, pair.labels[0]
        if first and image.array is not None:
            image = _told(image, image.array, first, text)
        if comma and label.array is not None:
            label = _told(label, label.array, second, text)
        pairs.append(replace(pair, image=image, labels=(label,)))
    return replace(group, pairs=tuple(pairs if comma else agreed(pairs)))


def axes_inference(group: Group, *, told: bool) -> Inference | None:
    """What the axes of a group's arrays are taken for; None without arrays."""
    images = [p.image.array for p in group.pairs if p.image.array is not None]
    labels = [a for p in group.pairs if (a := p.labels[0].array) is not None]
    if not images and not labels:
        return None
    first = next(iter(images), None), next(iter(labels), None)
    value = " with ".join(_words(part) for part in first if part is not None)
    parts = images or labels
    doubt: Doubt = "low" if told else worst(*(p.doubt for p in parts))
    evidence = "told" if told else "; ".join(sorted({p.why for p in parts})[:3])
    odd = next((p for p in group.pairs if not _fit(p)), None)
    if odd is not None and not told:
        doubt, found = "high", [a.shape for a in (odd.image.array, odd.labels[0].array) if a]
        evidence += f"; shapes that do not fit: {' and '.join(map(str, found))}"
    return Inference(key="axes", value=value, evidence=evidence, doubt=doubt, flag="--axes")


def images_in(item: Item) -> int | None:
    """Length of the axis N, None where there is none."""
    part = item.array
    return None if part is None or "N" not in part.axes else part.shape[part.axes.index("N")]


def guess_axes(shape: tuple[int, ...], kind: str) -> _Guess:
    """(axes, doubt, why) by a shape alone; no axes where the reader knows them."""
    if len(shape) == 2:
        return "", "low", "two axes"
    if len(shape) == 4:
        return _guess_of_four(shape)
    first, middle, last = shape
    if last in (1, 3, 4) and min(first, middle) >= SIDE:
        known = last == 1 or kind in "ub"
        return ("YXZ" if last == 1 else "YXC"), "low" if known else "medium", f"shape {shape}"
    if first == 1:
        return "", "low", f"shape {shape}"
    if first in (3, 4) and min(middle, last) >= SIDE and kind in "ub":
        return "CYX", "high", f"shape {shape}: colour planes, or {first} slices"
    if middle == last != first:
        return "ZYX", "medium", f"shape {shape}: two equal sides"
    if first == middle != last:
        return "YXZ", "medium", f"shape {shape}: two equal sides"
    if len(set(shape)) == 3 and min(shape) != middle:
        axes = "ZYX" if min(shape) == first else "YXZ"
        return axes, "medium", f"shape {shape}: the shortest axis taken for slices"
    return "ZYX", "high", f"shape {shape} does not tell slices from rows"


def _guess_of_four(shape: tuple[int, ...]) -> _Guess:
    said = f"shape {shape}"
    if shape[3] in (3, 4) or shape[3] == 1:
        axes = "NYXZ" if shape[3] == 1 else "NYXC"
        return axes, "medium", f"{said}: many images, one after the other"
    if shape[1] == 1:
        return "NZYX", "medium", f"{said}: many images, one after the other"
    if shape[1] in (3, 4):
        return "NCYX", "high", f"{said}: colour planes, or slices"
    return "NZYX", "high", f"{said}: many volumes, or channels of one"


def axes_like(image: ArrayPart, shape: tuple[int, ...]) -> str | None:
    """Axes of a mask of this shape by those of its image; None if they do not fit."""
    letters = image.axes or {2: "YX", 3: "ZYX"}[len(image.shape)]
    sizes = dict(zip(letters, image.shape, strict=True))
    bare = letters.replace("C", "")
    for axes in (letters, bare, letters.replace("C", "Z"), letters.replace("Z", ""), bare + "Z",
                 bare.replace("N", "NZ")):  # fmt: skip
        wanted = tuple(sizes.get(a, 1) if a != "C" else sizes["C"] for a in axes)
        extra = "Z" in axes and "Z" not in letters
        unique = len(set(axes)) == len(axes)
        lost = "Z" in letters and "Z" not in axes and sizes["Z"] != 1
        if unique and not lost and wanted == shape and (not extra or shape[axes.index("Z")] == 1):
            return "" if axes in ("YX", "ZYX") else axes
    return None


def _fit(pair: Pair) -> bool:
    image, label = pair.image.array, pair.labels[0].array
    if image is None or label is None:
        return True
    return axes_like(image, label.shape) is not None


def _words(part: ArrayPart) -> str:
    named = f"{part.variable}: " if part.variable else ""
    return f"{named}{part.axes or {2: 'YX', 3: 'ZYX'}.get(len(part.shape), '?')} {part.shape}"


def _told(item: Item, part: ArrayPart, axes: str, text: str) -> Item:
    if len(axes) != len(part.shape):
        raise UsageError(
            f"--axes {text!r}: expected {len(part.shape)} letters for the shape {part.shape} of "
            f"{item.path}, found {len(axes)}"
        )
    return replace(item, array=replace(part, axes=axes))
