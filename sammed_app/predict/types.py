"""Carriers of ``sammed predict``. Imports no sibling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Format = Literal["auto", "png", "nifti", "nrrd", "seg"]
FORMATS: tuple[Format, ...] = ("auto", "png", "nifti", "nrrd", "seg")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One mask that is asked for, in pixels ``(x, y)`` of its slice.

    Attributes:
        image: name, file name or path of the image; '' = every image.
        axis: axial, coronal, sagittal, native; '' = that of the command line.
        index: slice along the axis; None = the only one.
        object: what the mask is of; several asks of one object are joined.
        box_xyxy: half-open, or None.
        points: ``(x, y, label)``, label 1 object, 0 background.
    """

    object: str
    image: str = ""
    axis: str = ""
    index: int | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Following:
    """How a mask is followed from slice to slice.

    Attributes:
        on: whether it is.
        first, last: slices not to be left, both included; None = the ends of the volume.
        least_overlap: stop where the Dice overlap with the slice before falls below.
        least_share: stop where the area falls below this share of the prompted slice's.
        least_px: stop below this area.
        most_share: stop where the area is more than this many times the prompted slice's.
    """

    on: bool = False
    first: int | None = None
    last: int | None = None
    least_overlap: float = 0.3
    least_share: float = 0.02
    least_px: int = 4
    most_share: float = 3.0


@dataclass(kw_only=True)
class Found:
    """What was found of one object of an image.

    Attributes:
        mask_ZYX: bool in canonical axes.
        iou: slice -> highest predicted IoU of its masks.
        prompted: slices that were asked about.
        ended: why following ended, by direction.
    """

    name: str
    mask_ZYX: NDArray[np.bool_]
    iou: dict[int, float] = field(default_factory=dict)
    prompted: set[int] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """An image done.

    Attributes:
        objects: in the order in which they were asked for.
        axis: of the slices.
        seconds: without reading and writing.
        encoded: slices that went through the encoder.
    """

    objects: list[Found]
    axis: str
    seconds: float
    encoded: int


@dataclass(kw_only=True)
class Report:
    """The document of ``--json``."""

    images: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
