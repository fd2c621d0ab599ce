"""Worst, median and best cases of each model and mode as small pictures for the report."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sammed_bench.ask import Answer, Asked, answer_batch
from sammed_bench.conditions import Conditions
from sammed_bench.figures import CASE_COLOURS
from sammed_bench.tables import CONTROL_SUFFIX
from sammed_bench.types import ImagePrompts, Model
from sammed_data.codecs import encode_image
from sammed_data.corpus import Row
from sammed_model.dataset import Samples

if TYPE_CHECKING:
    import pandas as pd

_SIDE_PX = 384
# A small object is shown with this many times its own side around it, at least so many pixels.
_NEAR, _LEAST_PX = 4.0, 48.0
_TRUTH, _PREDICTION, _PROMPT = (
    tuple(bytes.fromhex(CASE_COLOURS[name][1:])) for name in ("truth", "prediction", "prompt")
)
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
                about: dict[str, Any] = {"model": facts.name, "rank": rank, "png": drawn}
                about |= {name: score[name] for name in ("mode", "dice", "sample_id")}
                about["mask_index"] = int(score["mask_index"])
                caption = f"{score['structure']}, {score['modality']}, {score['dataset']}"
                cases.append(about | {"caption": caption})
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
    """The image, or the part around a small object, with truth, prediction and prompts on it."""
    assert answer.masks_MHW is not None  # noqa: S101 - the caller checked
    truth_HW = asked.target.truth_MHW[0].cpu().numpy()
    x0, y0, x1, y1 = _window(truth_HW, answer.prompts)
    times = _SIDE_PX / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * times)), max(1, round((y1 - y0) * times)))
    part = image[y0:y1, x0:x1]
    rgb = part if part.ndim == 3 else np.repeat(part[:, :, None], 3, axis=2)
    smaller = cv2.INTER_AREA if times < 1 else cv2.INTER_NEAREST
    canvas: NDArray[np.uint8] = cv2.resize(rgb, size, interpolation=smaller).astype(np.uint8)
    prediction_HW = answer.masks_MHW[0].cpu().numpy()
    for mask_HW, colour, width in ((prediction_HW, _PREDICTION, 4), (truth_HW, _TRUTH, 2)):
        _contour(canvas, mask_HW[y0:y1, x0:x1], colour, width)
    if answer.prompts is not None:
        _prompts(canvas, answer.prompts, (x0, y0), times)
    return canvas


def _window(truth_HW: NDArray[np.bool_], prompts: ImagePrompts | None) -> tuple[int, ...]:
    """Half-open xyxy of what is shown: a square around a small object with all its clicks."""
    height, width = truth_HW.shape
    ys, xs = truth_HW.nonzero()
    corners = np.array([[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]], float)
    half = max(_NEAR * np.ptp(corners, axis=0).max(), _LEAST_PX) / 2
    middle = corners.mean(axis=0)
    if prompts is not None and prompts.points_MN2 is not None:
        away = np.abs(prompts.points_MN2[0].cpu().numpy() - middle)
        half = max(half, float(away.max()) + 2)
    if 2 * half > 0.7 * max(height, width):
        return 0, 0, width, height
    low = np.maximum(np.floor(middle - half), 0).astype(int)
    high = np.minimum(np.ceil(middle + half), (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _contour(
    canvas: NDArray[np.uint8], mask_HW: NDArray[np.bool_], colour: tuple[int, ...], width: int
) -> None:
    """The outline of a mask, enlarged to the canvas first so that it follows the pixels."""
    plane = cv2.resize(
        mask_HW.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST
    )
    found = cv2.findContours(plane, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(canvas, found, -1, colour, width)


def _prompts(
    canvas: NDArray[np.uint8], prompts: ImagePrompts, origin: tuple[int, int], times: float
) -> None:
    """Box; clicks as discs (object) and rings (background)."""

    def place(xy: torch.Tensor) -> tuple[int, int]:
        x, y = ((float(v) - o) * times for v, o in zip(xy, origin, strict=True))
        return round(x), round(y)

    if prompts.boxes_M4 is not None:
        box = prompts.boxes_M4[0]
        cv2.rectangle(canvas, place(box[:2]), place(box[2:]), _PROMPT, 2)
    if prompts.points_MN2 is None or prompts.point_labels_MN is None:
        return
    for xy, label in zip(prompts.points_MN2[0], prompts.point_labels_MN[0], strict=True):
        if int(label) >= 0:
            centre = place(xy + 0.5)
            cv2.circle(canvas, centre, 7, (255, 255, 255), -1 if int(label) else 5, cv2.LINE_AA)
            cv2.circle(canvas, centre, 6, _PROMPT, -1 if int(label) else 2, cv2.LINE_AA)
