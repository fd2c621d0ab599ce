"""Worst, median and best cases of each model and mode as small pictures for the report."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sammed_bench.ask import Answer, Asked, Conditions, answer_batch
from sammed_bench.tables import CONTROL_SUFFIX
from sammed_bench.types import Model
from sammed_data.codecs import encode_image
from sammed_data.corpus import Row
from sammed_model.dataset import Samples

if TYPE_CHECKING:
    import pandas as pd

_SIDE_PX = 256
_TRUTH, _PREDICTION = (0, 200, 83), (255, 145, 0)
_OBJECT, _BACKGROUND = (64, 156, 255), (255, 60, 60)
_LEFT_OUT = ("trivial", "oracle")


def write_gallery(
    out: Path,
    rows: pd.DataFrame,
    models: Sequence[Model],
    samples: Samples,
    conditions: Conditions,
    device: str,
) -> int:
    """Draw the cases anew and leave them in ``out/gallery/gallery.json``; returns how many.

    Args:
        out: results folder.
        rows: its score rows.
        models: those that were scored; trivial baselines, oracle and controls get no pictures.
        samples: reader of the scored images.
        conditions: of the benchmark; the same prompts are made again.
        device: where to run.
    """
    index = {row.sample_id: row for row in samples.rows}
    cases = []
    for model in models:
        facts = model.facts
        if facts.kind in _LEFT_OUT or facts.name.endswith(CONTROL_SUFFIX):
            continue
        own = rows[(rows["model"] == facts.name) & (rows["status"] == "ok")]
        for rank, score in _chosen(own, conditions.modes):
            drawn = _draw(model, index[score["sample_id"]], score, samples, conditions, device)
            if drawn is not None:
                caption = (
                    f"{facts.name}, {score['mode']}, {rank}: Dice {100 * score['dice']:.1f}, "
                    f"{score['structure']}, {score['dataset']} {score['sample_id']}"
                )
                cases.append({"caption": caption, "png": drawn})
    folder = out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gallery.json").write_text(json.dumps(cases), encoding="utf-8")
    return len(cases)


def _chosen(rows: pd.DataFrame, modes: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(worst | median | best, score row)`` of each mode."""
    for mode in modes:
        ordered = rows[rows["mode"] == mode].sort_values(
            ["dice", "sample_id", "mask_index"], kind="stable"
        )
        if len(ordered) < 3:
            continue
        places = {"worst": 0, "median": len(ordered) // 2, "best": len(ordered) - 1}
        for rank, place in places.items():
            row = ordered.iloc[place]
            yield rank, {str(name): row[name] for name in ordered.columns}


def _draw(
    model: Model,
    row: Row,
    score: dict[str, Any],
    samples: Samples,
    conditions: Conditions,
    device: str,
) -> str | None:
    """A PNG as base64, or None where the model does not answer any more."""
    full = samples.pixels(row)[0]
    masks = [m for m in samples.masks[row.sample_id] if m.index == score["mask_index"]]
    asked = Asked.of(full, masks, conditions, device)
    only = replace(conditions, modes=(score["mode"],))
    answer = answer_batch(model, [asked], only)[score["mode"]][0]
    if answer.masks_MHW is None or full.image is None:
        return None
    picture = _picture(full.image, asked, answer)
    return base64.b64encode(encode_image(picture)).decode()


def _picture(image: NDArray[np.uint8], asked: Asked, answer: Answer) -> NDArray[np.uint8]:
    """The image, enlarged, with truth, prediction and prompts on it."""
    height, width = image.shape[:2]
    times = max(1, round(_SIDE_PX / max(height, width)))
    grey = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    canvas = grey.repeat(times, axis=0).repeat(times, axis=1).copy()
    assert answer.masks_MHW is not None  # noqa: S101 - the caller checked
    for mask, colour in ((asked.target.truth_MHW, _TRUTH), (answer.masks_MHW, _PREDICTION)):
        plane = mask[0].cpu().numpy().repeat(times, axis=0).repeat(times, axis=1)
        canvas[_outline(plane)] = colour
    prompts = answer.prompts
    if prompts is None:
        return canvas
    if prompts.boxes_M4 is not None:
        _rectangle(canvas, prompts.boxes_M4[0] * times)
    if prompts.points_MN2 is not None and prompts.point_labels_MN is not None:
        for xy, label in zip(prompts.points_MN2[0], prompts.point_labels_MN[0], strict=True):
            if int(label) >= 0:
                _spot(canvas, (xy + 0.5) * times, _OBJECT if int(label) else _BACKGROUND)
    return canvas


def _outline(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask with a neighbour outside it."""
    padded = np.pad(mask_HW, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: NDArray[np.bool_] = mask_HW & ~inner
    return outline


def _rectangle(canvas: NDArray[np.uint8], box: torch.Tensor) -> None:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in box.round())
    x0, x1 = max(0, x0), min(width, x1) - 1
    y0, y1 = max(0, y0), min(height, y1) - 1
    for y in (y0, y1):
        canvas[y, x0 : x1 + 1] = _OBJECT
    for x in (x0, x1):
        canvas[y0 : y1 + 1, x] = _OBJECT


def _spot(canvas: NDArray[np.uint8], xy: torch.Tensor, colour: tuple[int, int, int]) -> None:
    x, y = int(xy[0]), int(xy[1])
    canvas[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = (255, 255, 255)
    canvas[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = colour
