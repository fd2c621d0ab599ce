"""Answers -> the metric columns of score rows. A failure scores worst and is counted."""

from __future__ import annotations

from typing import Any

import torch

from sammed_bench import surface
from sammed_bench.ask import Answer, Asked
from sammed_bench.clicks import COLUMNS
from sammed_bench.conditions import Conditions
from sammed_bench.metric_cards import METRICS
from sammed_bench.metrics import OVERLAPS, overlap
from sammed_bench.surface import Ruler, surface_scores

_NOT_FINITE = "the model's answer holds values that are not finite"


def unsupported() -> dict[str, Any]:
    """The columns of a mask that the model cannot be asked about: no score, which is not 0."""
    empty = dict.fromkeys((*METRICS, "surface_unit", *COLUMNS))
    return empty | {"status": "unsupported", "error": "", "n_clicks": 0}


def measure(image: Asked, answer: Answer, conditions: Conditions) -> list[dict[str, Any]]:
    """Metrics and status of each mask of one image."""
    meta = image.row.meta
    ruler = Ruler.of(meta.get("spacing_y_mm"), meta.get("spacing_x_mm"), conditions.tolerance)
    asked = [name for name in surface.NAMES if name in conditions.metrics]
    fixed = dict.fromkeys(METRICS) | {"surface_unit": ruler.unit if asked else None}
    shape = (image.row.height, image.row.width)
    bad = surface.worst(shape, ruler)
    worst = fixed | {name: 0.0 for name in OVERLAPS} | {name: bad[name] for name in asked}
    if answer.masks_MHW is None or answer.finite_M is None or answer.clicks_M is None:
        lost = worst | {"status": "failed", "error": answer.error, "n_clicks": 0}
        return [lost] * len(image.masks)
    truth_MHW, valid_HW = image.target.truth_MHW, image.target.valid_HW
    counts = overlap(answer.masks_MHW, truth_MHW, valid_HW)
    shares = {name: metric(counts).tolist() for name, metric in OVERLAPS.items()}
    finite, clicks = answer.finite_M.tolist(), answer.clicks_M.tolist()
    outlines = _outlines(answer.masks_MHW & valid_HW, truth_MHW & valid_HW, ruler, asked)
    rows = []
    for i in range(len(image.masks)):
        if finite[i]:
            found = fixed | {name: share[i] for name, share in shares.items()} | outlines[i]
            rows.append(found | {"status": "ok", "error": "", "n_clicks": clicks[i]})
        else:
            rows.append(worst | {"status": "failed", "error": _NOT_FINITE, "n_clicks": clicks[i]})
    return rows


def _outlines(
    predicted_MHW: torch.Tensor, truth_MHW: torch.Tensor, ruler: Ruler, asked: list[str]
) -> list[dict[str, float]]:
    """Metrics of the outlines of each mask; nothing where none is asked for."""
    if not asked:
        return [{} for _ in predicted_MHW]
    pairs = zip(predicted_MHW.cpu().numpy(), truth_MHW.cpu().numpy(), strict=True)
    return [surface_scores(predicted, truth, ruler, asked) for predicted, truth in pairs]
