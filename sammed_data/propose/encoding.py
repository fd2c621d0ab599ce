"""How the pixels of a group's labels say what they mean, from a sample of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sammed_data.propose.carriers import Doubt, Group, Item, worst
from sammed_data.propose.coding import LOOKS, Coding, Seen, levels, look_at, threshold_of
from sammed_data.propose.documents import OUTLINES
from sammed_data.propose.formats import segment_names
from sammed_data.propose.maps import of_colours, of_map
from sammed_data.propose.palettes import of_palettes, with_colours
from sammed_data.propose.roles import spread


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
    seen, bad = look_at(root, labels, images)
    if not seen:
        why = bad[0][1] if bad else "no label file could be looked at"
        return Coding(type="index", evidence=why, doubt="high", unreadable=tuple(bad))
    said = f"{len(seen)} of {len(labels)} label files looked at"
    tail = " ".join(p for p, _ in group.label_patterns)
    if told is not None:
        found = _told(told, with_colours(root, seen) if told == "rgb" else seen, group)
    elif "{structure}" in tail:
        found = _one_mask_a_file("file_per_class", seen, group.structures)
    elif "{instance}" in tail:
        found = _one_mask_a_file("file_per_instance", seen, ("1",))
    else:
        found = of_palettes(root, seen) or of_map(seen)
    doubt = found.doubt if len(seen) == len(labels) else worst(found.doubt, _sampled(found))
    return _with(found, evidence=f"{said}: {found.evidence}", doubt=doubt, unreadable=tuple(bad))


def _told(told: str, seen: Sequence[Seen], group: Group) -> Coding:
    """The user's type, with the values that the files hold."""
    values: tuple[str, ...] = ("1",)
    options: dict[str, Any] = {}
    if told in ("binary", "file_per_class", "file_per_instance"):
        options = threshold_of(seen) or {
            "threshold": 127 if max(s.look.high for s in seen) > 127 else 0
        }
        values = group.structures if told == "file_per_class" else values
    elif told in ("index", "values"):
        values = tuple(str(v) for v in sorted({v for s in seen for v in s.look.counts} - {0}))
    elif told == "instance_ids":
        values = ("*",)
    elif told == "rgb":
        return _with(of_colours(seen), evidence="told", doubt="low")
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
    names = sorted({n for i in spread(labels, LOOKS) for n in segment_names(root, i)})
    if not names:
        return None
    return Coding(
        type="seg_nrrd",
        values=tuple(names),
        names={n: n for n in names},
        evidence=f"segment names in the headers of {min(len(labels), LOOKS)} .seg.nrrd files",
    )


def _one_mask_a_file(kind: str, seen: Sequence[Seen], values: tuple[str, ...]) -> Coding:
    cut = threshold_of(seen, one_value=False)
    doubt: Doubt = "low"
    notes: tuple[str, ...] = ()
    if cut is None:
        odd = max(seen, key=lambda s: s.look.n_values)
        cut = {"threshold": 0}
        notes = (f"{odd.item.path} holds {odd.look.n_values} values although a file is one mask",)
        doubt = "high"
    what = "one file a class" if kind == "file_per_class" else "one file an object"
    evidence = f"{what}; {levels(seen)}"
    return Coding(type=kind, options=cut, values=values, evidence=evidence, doubt=doubt,
                  notes=notes)  # fmt: skip


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
