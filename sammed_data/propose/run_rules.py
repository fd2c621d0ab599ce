"""How the runs of a table are written: what the numbers rule out, and what the pictures say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sammed_data.encodings.run_lengths import decode
from sammed_data.entry_parts import RunLengths
from sammed_data.patterns import compile_pattern
from sammed_data.propose.carriers import Doubt, Group, Inference, worst
from sammed_data.propose.coding import Coding
from sammed_data.propose.run_tables import RunTable, id_of
from sammed_data.tables import Line
from sammed_data.types import SammedError, UsageError

_LOOKS, _FEW, _MOST = 24, 5, 0.8
_Order = Literal["row", "column"]
_Offsets = Literal["absolute", "relative"]


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Runs of one image, and the image as (Y, X) numbers."""

    text: str
    plane_YX: NDArray[np.float64]

    @property
    def numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        values = np.array(self.text.split(), dtype=np.int64)
        return values[::2], values[1::2]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """One of the three rules, with what it was inferred from."""

    value: Any
    why: str
    doubt: Doubt


def coding_of_runs(root: Path, group: Group, table: RunTable, told: str | None) -> Coding:
    """The encoding of a group of images that a table speaks of.

    Raises:
        UsageError: ``told`` is no such rule.
    """
    names, doubt, template = _template(group, table)
    samples = _samples(root, group, table)
    rules = _told(told) if told is not None else _rules(samples)
    said = "; ".join(f"{k} {r.value} ({r.why})" for k, r in rules.items())
    runs: dict[str, Any] = {k: r.value for k, r in rules.items()}
    if set(table.empty) - {"", "-1"}:
        runs["empty"] = list(table.empty)
    options: dict[str, Any] = {"table": _table(table, template), "runs": runs}
    images = len({p.image.path for p in group.pairs})
    strange = sorted(set(table.ids) - names)
    notes = [f"{len(strange)} ids of {table.path} have no image, such as {n}" for n in strange[:1]]
    return Coding(
        type="rle_csv",
        options=options,
        values=table.classes or ("1",),
        names={c: c for c in table.classes if not c.isdigit()},
        evidence=f"{table.path}: runs of {images} images in {table.rle_column!r}; {said}",
        doubt=worst(doubt, *(r.doubt for r in rules.values())),
        notes=tuple(notes),
    )


def runs_inference(coding: Coding, *, told: bool) -> Inference | None:
    """How runs are written, as a thing that the user can settle; None for other encodings."""
    if coding.type != "rle_csv":
        return None
    runs = coding.options["runs"]
    value = ",".join(str(runs[k]) for k in ("order", "offsets", "first"))
    return Inference(key="runs", value=value, evidence="told" if told else coding.evidence,
                     doubt="low" if told else coding.doubt, flag="--runs")  # fmt: skip


def _table(table: RunTable, template: str) -> dict[str, Any]:
    out: dict[str, Any] = {"pattern": table.path, "id": template, "id_column": table.id_column}
    if table.class_column is not None:
        out["class_column"] = table.class_column
    if table.separator != ",":
        out["separator"] = table.separator
    return out | {"rle_column": table.rle_column}


def _template(group: Group, table: RunTable) -> tuple[set[str], Doubt, str]:
    """Ids of the group's images, and the text that makes them of the pattern's fields."""
    pattern, _ = group.image_patterns[0]
    last = pattern.rpartition("/")[2]
    text = last if table.suffixed else last.rpartition(".")[0] or last
    compiled = compile_pattern(pattern)
    ids, right = set(), True
    for pair in group.pairs:
        ids.add(id_of(table, pair.image.path))
        made = text
        for field, value in (compiled.fields_of(pair.image.path) or {}).items():
            made = made.replace("{" + field + "}", value)
        right &= made == id_of(table, pair.image.path)
    return ids, "low" if right else "high", text


def _samples(root: Path, group: Group, table: RunTable) -> list[_Sample]:
    """Images with the longest of their runs."""
    from sammed_data.propose.roles import spread
    from sammed_data.readers.registry import read_volume

    images = {
        p.image.path: p.image for p in group.pairs if id_of(table, p.image.path) in table.texts
    }
    out = []
    for item in spread(list(images.values()), _LOOKS):
        try:
            array = read_volume(root / item.path.rstrip("/")).array
        except SammedError:
            continue
        plane = array[0].astype(np.float64)
        plane = plane.mean(axis=-1) if plane.ndim == 3 else plane
        texts = table.texts[id_of(table, item.path)]
        out.append(_Sample(text=max(texts, key=len), plane_YX=plane))
    return out


def _told(text: str) -> dict[str, _Found]:
    parts = [p.strip().lower() for p in text.split(",")]
    known = (("row", "column"), ("absolute", "relative"), ("0", "1"))
    if len(parts) != 3 or any(p not in k for p, k in zip(parts, known, strict=True)):
        raise UsageError(
            f"--runs {text!r}: expected ORDER,OFFSETS,FIRST, such as column,absolute,1 (row or "
            "column; absolute or relative; number of the first pixel, 0 or 1)"
        )
    values = (parts[0], parts[1], int(parts[2]))
    return {
        k: _Found(value=v, why="told", doubt="low")
        for k, v in zip(("order", "offsets", "first"), values, strict=True)
    }


def _rules(samples: Sequence[_Sample]) -> dict[str, _Found]:
    offsets = _offsets(samples)
    first = _first(samples, offsets.value)
    return {"order": _order(samples, offsets.value, first.value), "offsets": offsets,
            "first": first}  # fmt: skip


def _offsets(samples: Sequence[_Sample]) -> _Found:
    several = [s for s in samples if len(s.numbers[0]) > 1]
    if not several:
        return _Found(value="absolute", why="no image has two runs", doubt="high")
    absolute = all(_is_absolute(s) for s in several)
    relative = all(int(sum(n.sum() for n in s.numbers)) <= s.plane_YX.size + 1 for s in several)
    said = f"{len(several)} images looked at"
    if absolute and not relative:
        return _Found(value="absolute", why=f"starts only rise, {said}", doubt="low")
    if relative and not absolute:
        return _Found(value="relative", why=f"starts do not rise, sums fit, {said}", doubt="low")
    if absolute:
        return _Found(value="absolute", why=f"both fit, {said}", doubt="high")
    why = f"neither fits the size of the images, {said}"
    return _Found(value="absolute", why=why, doubt="high")


def _is_absolute(sample: _Sample) -> bool:
    starts, lengths = sample.numbers
    ends = starts + lengths
    return bool((starts[1:] >= ends[:-1]).all() and ends[-1] <= sample.plane_YX.size + 1)


def _first(samples: Sequence[_Sample], offsets: _Offsets) -> _Found:
    for sample in samples:
        starts, lengths = sample.numbers
        end = int(starts[-1] + lengths[-1] if offsets == "absolute" else (starts + lengths).sum())
        if starts[0] == 0:
            return _Found(value=0, why="a first run starts at 0", doubt="low")
        if end == sample.plane_YX.size + 1:
            return _Found(value=1, why="a last run ends at the number of pixels", doubt="low")
    if offsets == "relative":
        return _Found(value=0, why="custom of relative runs", doubt="medium")
    return _Found(value=1, why="custom of absolute runs", doubt="medium")


def _order(samples: Sequence[_Sample], offsets: _Offsets, first: Literal[0, 1]) -> _Found:
    """Runs in the wrong order are torn on oblong images, and turned over on square ones."""
    oblong = [s for s in samples if s.plane_YX.shape[0] != s.plane_YX.shape[1]]
    chosen = oblong or list(samples)
    votes = []
    for sample in chosen:
        made = [_mask(sample, order, offsets, first) for order in ("row", "column")]
        masks = [m for m in made if m is not None]
        if len(masks) < 2:
            continue
        score = _smoothness if oblong else _edges
        row, column = (score(m, sample.plane_YX) for m in masks)
        if row != column:
            votes.append("row" if row > column else "column")
    rows = votes.count("row")
    most: _Order = "row" if 2 * rows > len(votes) else "column"
    share = max(rows, len(votes) - rows) / len(votes) if votes else 0.0
    how = "whole shapes" if oblong else "edges of the square images"
    if share < _MOST or (not oblong and len(votes) < _FEW):
        return _Found(value="column", why=f"custom; {how} do not tell", doubt="high")
    why = f"{how} of {len(votes)} images, {share:.0%} agree"
    return _Found(value=most, why=why, doubt="low" if oblong and len(votes) > 2 else "medium")


def _mask(
    sample: _Sample, order: str, offsets: _Offsets, first: Literal[0, 1]
) -> NDArray[np.bool_] | None:
    rule = RunLengths.model_validate({"order": order, "offsets": offsets, "first": first})
    height, width = sample.plane_YX.shape
    try:
        flat = decode(sample.text, rule, (height, width), Line(path=Path(), number=0, cells=()))
    except SammedError:
        return None
    mask = np.zeros(height * width, np.bool_)
    mask[flat] = True
    return mask.reshape(height, width)


def _smoothness(mask_YX: NDArray[np.bool_], plane_YX: NDArray[np.float64]) -> float:
    """Less border is more."""
    return -float((mask_YX[1:] != mask_YX[:-1]).sum() + (mask_YX[:, 1:] != mask_YX[:, :-1]).sum())


def _edges(mask_YX: NDArray[np.bool_], plane_YX: NDArray[np.float64]) -> float:
    """Mean step of the picture across the border of the mask."""
    down = np.abs(np.diff(plane_YX, axis=0))[mask_YX[1:] != mask_YX[:-1]]
    along = np.abs(np.diff(plane_YX, axis=1))[mask_YX[:, 1:] != mask_YX[:, :-1]]
    steps = np.concatenate([down, along])
    return float(steps.mean()) if len(steps) else 0.0
