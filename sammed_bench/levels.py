"""Scores of whole images and whole volumes, made from kept predictions.

Image level: all masks of a structure in an image joined. Volume level: its slices restacked by
case, axis and slice number; slices in between that were not asked about are empty on both sides.
A mask without an answer is an empty one and is counted. Written to ``levels/*.parquet``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sammed_bench import predictions
from sammed_bench.ask import Answer
from sammed_bench.conditions import Conditions
from sammed_bench.files import whole
from sammed_bench.modes import POINTS, thread_of
from sammed_bench.predictions import Kept
from sammed_bench.surface import Ruler, surface_scores, worst
from sammed_bench.volume_metrics import diagonal, volume_scores
from sammed_data.corpus import MaskRow, Row
from sammed_model.dataset import Samples

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "levels"
LEVELS = ("images", "volumes")
_TEXT = (
    *("model", "recipe", "kind", "mode", "split", "dataset", "modality", "sample_id", "case_id"),
    *("axis", "patient_id", "cluster", "structure", "organ", "surface_unit"),
)
_COUNTS = ("slices", "masks", "failed", "interactions")
_SCORES = ("dice", "iou", "nsd", "hd95")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT),
        *((name, pa.int32()) for name in _COUNTS),
        *((name, pa.float64()) for name in _SCORES),
    ]
)
Mask: TypeAlias = NDArray[np.bool_]
Case: TypeAlias = tuple[str, str, str]
Plane: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """All masks of a structure in one image, bool (H, W), and what was asked for them."""

    row: Row
    structure: str
    organ: str
    predicted_HW: Mask
    truth_HW: Mask
    masks: int
    failed: int
    interactions: int


def write(results: Path, samples: Samples, conditions: Conditions) -> None:
    """Score images and volumes of every kept part and leave them in ``levels/``.

    Args:
        results: folder with ``predictions/``.
        samples: reader of the scored images.
        conditions: what is measured, and the tolerance.
    """
    by_model: dict[str, list[Path]] = {}
    for path in predictions.parts(results):
        by_model.setdefault(path.name.rpartition("-")[0], []).append(path)
    made: dict[str, list[dict[str, Any]]] = {level: [] for level in LEVELS}
    index = {row.sample_id: row for row in samples.rows}
    for paths in by_model.values():
        for mode in conditions.modes:
            # One part at a time: the masks of a whole corpus do not fit in memory.
            stacks = _Stacks(samples.rows)
            for part in map(Kept.open, paths):
                who = _who(part, mode)
                for joined in _images(part, samples, index, mode):
                    made["images"] += [who | _image_scores(one, conditions) for one in joined]
                    done = stacks.add(joined)
                    made["volumes"] += [who | _stack_scores(one, conditions) for one in done]
    for level, rows in made.items():
        path = results / FOLDER / f"{level}.parquet"
        with whole(path) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)


def read(results: Path, level: str) -> pd.DataFrame | None:
    """The rows of a level, or None where no predictions were kept."""
    path = results / FOLDER / f"{level}.parquet"
    found: pd.DataFrame | None = pq.ParquetFile(path).read().to_pandas() if path.is_file() else None
    return found


def _who(kept: Kept, mode: str) -> dict[str, Any]:
    facts = kept.facts
    return {"model": facts.name, "recipe": facts.recipe, "kind": facts.kind, "mode": mode}


def _case(row: Row) -> Case:
    return row.dataset, str(row.meta.get("case_id") or ""), str(row.meta.get("axis") or "")


class _Stacks:
    """Slices of the cases that are not whole yet; a case with one slice is no volume."""

    def __init__(self, rows: Sequence[Row]) -> None:
        slices: dict[Case, set[int]] = {}
        for row in rows:
            if row.meta.get("case_id") and row.meta.get("slice_index") is not None:
                slices.setdefault(_case(row), set()).add(int(row.meta["slice_index"]))
        self._left = {case: numbers for case, numbers in slices.items() if len(numbers) > 1}
        self._found: dict[Case, dict[Plane, dict[int, Joined]]] = {}

    def add(self, joined: Sequence[Joined]) -> list[list[tuple[int, Joined]]]:
        """The structures of one image; returns the volumes of its case once it is whole."""
        if not joined or _case(joined[0].row) not in self._left:
            return []
        case, number = _case(joined[0].row), int(joined[0].row.meta["slice_index"])
        found = self._found.setdefault(case, {})
        for one in joined:
            plane = (one.structure, one.row.height, one.row.width)
            found.setdefault(plane, {})[number] = one
        self._left[case].discard(number)
        if self._left[case]:
            return []
        return [sorted(stack.items()) for _, stack in sorted(self._found.pop(case).items())]


def _images(
    kept: Kept, samples: Samples, index: Mapping[str, Row], mode: str
) -> Iterator[list[Joined]]:
    """The structures of each image of a part; nothing where the model was not asked."""
    for sample_id in kept.found:
        masks = kept.asked(sample_id, samples.masks.get(sample_id, ()))
        answer = kept.answer(sample_id, mode, [mask.index for mask in masks])
        if answer is not None and sample_id in index:
            yield list(_joined(index[sample_id], masks, answer, samples, mode))


def _joined(
    index: Row, masks: Sequence[MaskRow], answer: Answer, samples: Samples, mode: str
) -> Iterator[Joined]:
    row = samples.pixels(index)[0]
    valid = np.ones((row.height, row.width), bool)
    if row.ignore_HW is not None:
        valid = ~row.ignore_HW
    nothing = np.zeros((len(masks), row.height, row.width), bool)
    given = nothing if answer.masks_MHW is None else answer.masks_MHW.numpy()
    good = np.zeros(len(masks), bool) if answer.finite_M is None else answer.finite_M.numpy()
    clicks = [0] * len(masks) if answer.clicks_M is None else answer.clicks_M.tolist()
    for structure in dict.fromkeys(mask.structure for mask in masks):
        own = [i for i, mask in enumerate(masks) if mask.structure == structure]
        yield Joined(
            row=index,
            structure=structure,
            organ=masks[own[0]].organ,
            predicted_HW=(given[own] & good[own, None, None]).any(axis=0) & valid,
            truth_HW=_truth(row, [masks[i] for i in own]) & valid,
            masks=len(own),
            failed=int((~good[own]).sum()),
            interactions=sum(interactions(mode, clicks[i]) for i in own),
        )


def _truth(row: Row, masks: Sequence[MaskRow]) -> Mask:
    planes = [row.masks[mask.index].mask_HW for mask in masks]
    found = np.zeros((row.height, row.width), bool)
    for plane in planes:
        if plane is not None:
            found |= plane
    return found


def interactions(mode: str, clicks: int) -> int:
    """What a person does for one mask: every click, and a box, a mask or a scribble as one."""
    thread = thread_of(mode)
    if thread == POINTS:
        return clicks
    return 1 if thread in ("mask", "scribble") else 1 + clicks


def _about(joined: Joined) -> dict[str, Any]:
    row, meta = joined.row, joined.row.meta
    found = {name: str(meta.get(name) or "") for name in ("case_id", "axis", "patient_id")}
    return found | {
        "split": row.split,
        "dataset": row.dataset,
        "modality": row.modality,
        "cluster": str(meta.get("cluster") or "unknown"),
        "structure": joined.structure,
        "organ": joined.organ,
    }


def _image_scores(joined: Joined, conditions: Conditions) -> dict[str, Any]:
    """Dice and IoU of one image, and what else was asked for."""
    meta = joined.row.meta
    ruler = Ruler.of(meta.get("spacing_y_mm"), meta.get("spacing_x_mm"), conditions.tolerance)
    predicted, truth = joined.predicted_HW, joined.truth_HW
    both, total = int((predicted & truth).sum()), int(predicted.sum() + truth.sum())
    names = [name for name in ("nsd", "hd95") if name in conditions.metrics]
    counts = {name: getattr(joined, name) for name in ("masks", "failed", "interactions")}
    lost = joined.failed == joined.masks
    overlaps = {
        "dice": 2 * both / total if total else float(not lost),
        "iou": both / (total - both) if total else float(not lost),
    }
    outlines = surface_scores(predicted, truth, ruler, names) if names else {}
    if lost:
        bad = worst((joined.row.height, joined.row.width), ruler)
        outlines = {name: bad[name] for name in names}
    return {
        **_about(joined),
        **counts,
        "sample_id": joined.row.sample_id,
        "slices": 1,
        "surface_unit": ruler.unit,
        **overlaps,
        **outlines,
    }


def _stack_scores(stack: Sequence[tuple[int, Joined]], conditions: Conditions) -> dict[str, Any]:
    """Metrics of one structure of one volume."""
    first, last = stack[0][0], stack[-1][0]
    example = stack[0][1]
    shape = (last - first + 1, example.row.height, example.row.width)
    predicted, truth = np.zeros(shape, bool), np.zeros(shape, bool)
    for number, one in stack:
        predicted[number - first], truth[number - first] = one.predicted_HW, one.truth_HW
    spacing, unit = voxel(example.row.meta)
    slices = [one for _, one in stack]
    found = {
        name: sum(getattr(one, name) for one in slices)
        for name in ("masks", "failed", "interactions")
    }
    scores = volume_scores(predicted, truth, spacing, conditions.tolerance)
    if found["failed"] == found["masks"]:
        scores = {"dice": 0.0, "iou": 0.0, "nsd": 0.0, "hd95": diagonal(shape, spacing)}
    return {
        **_about(example),
        **found,
        **scores,
        "sample_id": f"{example.row.dataset}/{example.row.meta['case_id']}",
        "slices": len(slices),
        "surface_unit": unit,
    }


def voxel(meta: Mapping[str, Any]) -> tuple[tuple[float, float, float], str]:
    """(z, y, x) size and its unit: mm where all three are known, else voxels as 1."""
    values = [meta.get(name) for name in ("spacing_slice_mm", "spacing_y_mm", "spacing_x_mm")]
    known = [float(v) for v in values if v is not None and math.isfinite(v) and v > 0]
    if len(known) < len(values):
        return (1.0, 1.0, 1.0), "px"
    z, y, x = known
    return (z, y, x), "mm"
