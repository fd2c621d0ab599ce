"""Trivial baselines: what a prompt is worth to somebody who does not look at the image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sammed_bench.types import ImagePrompts, ModelFacts, Prediction
from sammed_data.corpus import VIEWS, Row

# Used only where a corpus has no training masks to take the radius from.
FALLBACK_RADIUS = 0.1

Shape = tuple[int, int]
Rule = Callable[[ImagePrompts, Shape], Tensor]


class Baseline:
    """A rule from prompts to masks, behind the two methods of a model.

    Args:
        name: label.
        accepts: the prompt kinds it answers; it needs all of them.
        rule: prompts and (H, W) -> (M, H, W) bool.
        detail: numbers that change its answers, part of its identity.
    """

    def __init__(self, name: str, accepts: tuple[str, ...], rule: Rule, detail: str = "") -> None:
        self._rule = rule
        self.facts = ModelFacts(
            name=name,
            kind="trivial",
            recipe="trivial",
            weights_sha256=hashlib.sha256(f"{name}/1/{detail}".encode()).hexdigest(),
            accepts=frozenset(accepts),
            needs=accepts if len(accepts) > 1 else (),
            source=detail or "rule",
        )

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """Only the sizes of the images."""
        return [image.shape[:2] for image in images]

    def predict(self, state: Any, prompts: Sequence[ImagePrompts]) -> list[Prediction]:
        """Logits of 1 and -1."""
        masks = (self._rule(p, shape) for p, shape in zip(prompts, state, strict=True))
        return [Prediction(logits_MHW=mask.float() * 2 - 1) for mask in masks]


def _grid(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixel centres: y (H, 1) and x (1, W)."""
    y = torch.arange(shape[0], device=device, dtype=torch.float32)[:, None]
    return y, torch.arange(shape[1], device=device, dtype=torch.float32)[None]


def box_full(prompts: ImagePrompts, shape: Shape) -> Tensor:
    """Every pixel whose centre lies in the half-open box."""
    x0, y0, x1, y1 = _corners(prompts)
    y, x = _grid(shape, x0.device)
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def box_ellipse(prompts: ImagePrompts, shape: Shape) -> Tensor:
    """The ellipse inscribed in the box, pixel centres inside."""
    x0, y0, x1, y1 = _corners(prompts)
    y, x = _grid(shape, x0.device)
    # A half-open box covers [x0 - 0.5, x1 - 0.5] in coordinates of pixel centres.
    dx = (x - (x0 + x1 - 1) / 2) / ((x1 - x0) / 2).clamp(min=0.5)
    dy = (y - (y0 + y1 - 1) / 2) / ((y1 - y0) / 2).clamp(min=0.5)
    inside: Tensor = dx.square() + dy.square() <= 1
    return inside


def _corners(prompts: ImagePrompts) -> tuple[Tensor, ...]:
    if prompts.boxes_M4 is None:
        return tuple(torch.zeros(4, 0, 1, 1))
    return tuple(prompts.boxes_M4.float().T[:, :, None, None])


def click_disc(radius_fraction: float) -> Rule:
    """Pixels within a radius of an object click, unless a background click is nearer.

    Args:
        radius_fraction: of the short side of the image.
    """

    def rule(prompts: ImagePrompts, shape: Shape) -> Tensor:
        background, object = _squared_distances(prompts, shape)
        # At least the clicked pixel itself.
        radius = max(radius_fraction * min(shape), 0.5)
        return (object <= radius**2) & (object <= background)

    return rule


def _squared_distances(prompts: ImagePrompts, shape: Shape) -> tuple[Tensor, Tensor]:
    """(M, H, W) squared px to the nearest background and the nearest object click."""
    points, labels = prompts.points_MN2, prompts.point_labels_MN
    if points is None or labels is None:
        nothing = torch.full((len(prompts), *shape), math.inf)
        return nothing, nothing
    y, x = _grid(shape, points.device)
    far = torch.full((len(points), *shape), math.inf, device=points.device)
    distance = [far, far]
    for n in range(points.shape[1]):
        px, py = points[:, n, 0, None, None], points[:, n, 1, None, None]
        squared = (x - px).square() + (y - py).square()
        for label, best in enumerate(distance):
            given = (labels[:, n] == label)[:, None, None]
            distance[label] = torch.where(given, torch.minimum(best, squared), best)
    return distance[0], distance[1]


def box_clicks(prompts: ImagePrompts, shape: Shape) -> Tensor:
    """The ellipse in the box; around each click a disc of a quarter of the box has its label."""
    x0, y0, x1, y1 = _corners(prompts)
    background, object = _squared_distances(prompts, shape)
    radius = (torch.minimum(x1 - x0, y1 - y0) / 4).clamp(min=0.5)
    clicked = torch.minimum(background, object) <= radius.square()
    return torch.where(clicked, object <= background, box_ellipse(prompts, shape))


def mask_copy(prompts: ImagePrompts, shape: Shape) -> Tensor:
    """The mask prompt itself."""
    if prompts.masks_MHW is None:
        return torch.zeros(0, *shape, dtype=torch.bool)
    return prompts.masks_MHW


def training_radius(rows: Sequence[Row]) -> float | None:
    """Median radius of the disc as large as a training mask, as a share of the short side.

    Args:
        rows: of the train split; masks of the view ``sam-med2d`` are what training sees, all masks
            count where it keeps none.
    """
    for view in (VIEWS["sam-med2d"], VIEWS["all"]):
        shares = [
            math.sqrt(mask.area_px / math.pi) / min(row.height, row.width)
            for row in rows
            if view.keeps_image(row.height, row.width)
            for mask in row.masks
            if view.keeps_mask(mask, row.height, row.width)
        ]
        if shares:
            return median(shares)
    return None


# Labels that no model may have.
TRIVIAL_NAMES = ("box-full", "box-ellipse", "click-disc", "box-clicks", "mask-copy")


def trivial_baselines(radius_fraction: float) -> list[Baseline]:
    """All of them."""
    detail = f"radius {radius_fraction:.6f} of the short side"
    return [
        Baseline("box-full", ("box",), box_full),
        Baseline("box-ellipse", ("box",), box_ellipse),
        Baseline("click-disc", ("point",), click_disc(radius_fraction), detail),
        Baseline("box-clicks", ("box", "point"), box_clicks),
        Baseline("mask-copy", ("mask",), mask_copy),
    ]
