"""Pixels on their way to the page: PNG for images, run lengths for masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.codecs import encode_image
from sammed_data.corpus import Row
from sammed_data.types import CorpusError

# Okabe and Ito, told apart by colour-blind readers; the page uses the same in this order.
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167),
           (213, 94, 0), (0, 114, 178))  # fmt: skip
_VEIL = 0.25


def image_of(row: Row) -> NDArray[np.uint8]:
    """The picture of a row.

    Raises:
        CorpusError: it has none.
    """
    if row.image is None:
        raise CorpusError(f"row {row.sample_id!r} has no image: build the corpus again")
    return np.asarray(row.image, np.uint8)


def thumbnail(row: Row, side: int) -> bytes:
    """A PNG of the image with its masks outlined, its longer side ``side`` pixels."""
    import cv2

    image = image_of(row)
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    scale = side / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    drawn = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas: NDArray[np.uint8] = np.ascontiguousarray(drawn, np.uint8)
    for number, mask in enumerate(row.masks):
        _draw(canvas, np.asarray(mask.mask_HW, np.uint8), COLOURS[number % len(COLOURS)])
    return encode_image(canvas)


def _draw(
    canvas: NDArray[np.uint8], mask_HW: NDArray[np.uint8], colour: tuple[int, int, int]
) -> None:
    """A veil and an edge with a dark rim; no mask is too small to leave a mark."""
    import cv2

    height, width = canvas.shape[:2]
    # A share of the area, so that a part below one pixel of the tile still shows.
    share = cv2.resize(mask_HW * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    inside = share >= min(128, max(1, int(share.max())))
    veil = canvas[inside] * (1 - _VEIL) + np.array(colour) * _VEIL
    canvas[inside] = veil.astype(np.uint8)
    edges, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, edges, -1, (0, 0, 0), 3)
    cv2.drawContours(canvas, edges, -1, colour, 2)


def about_masks(row: Row) -> list[dict[str, Any]]:
    """What the masks of a row are, without pixels."""
    return [
        {
            "index": mask.index,
            "structure": mask.structure,
            "label": mask.label,
            "organ": mask.organ,
            "group": mask.group,
            "side": mask.side,
            "kind": mask.kind,
            "annotator": mask.annotator,
            "area_px": mask.area_px,
            "share": mask.area_px / (row.height * row.width),
            "box_xyxy": list(mask.box_xyxy),
        }
        for mask in row.masks
    ]
