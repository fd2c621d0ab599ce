"""What is wrong with a picture or a mask by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fingerprints import grey
from sammed_data.corpus import MaskRow, Row

WHOLE_SHARE, INVERTED_SHARE = 0.98, 0.5
_FLAT_SHARE = 0.999
# An image that is a mask: so many pixels near its darkest or brightest, its bright part so alike.
_TWO_ENDS, _MASK_IOU = 0.97, 0.9
# area: share of the picture. inverted: covers the rim, encloses the rest.
MASK = np.dtype(
    [("row", "<i4"), ("mask", "<i4"), ("structure", "<i4"), ("area", "<f4"), ("inverted", "?")]
)


def image_defect(row: Row) -> str | None:
    """The name of what is wrong with the picture of a row, or None."""
    assert row.image is not None  # rows come with pixels
    plain = grey(row.image)
    counts = np.bincount(plain.reshape(-1), minlength=256)
    if counts.max() >= _FLAT_SHARE * plain.size:
        return "constant-image"
    if np.count_nonzero(counts) == 2:
        return "image-is-mask"
    low, high = int(plain.min()), int(plain.max())
    rim = (high - low) // 8  # JPEG spreads the two values of a mask about so far
    ends = counts[: low + rim + 1].sum() + counts[high - rim :].sum()
    if np.count_nonzero(counts) > 8 and ends < _TWO_ENDS * plain.size:
        return None
    drawn = np.zeros(plain.shape, bool)
    for mask in row.masks:
        drawn |= np.asarray(mask.mask_HW)
    bright = plain > (low + high) / 2
    iou = (drawn & bright).sum() / max(int((drawn | bright).sum()), 1)
    return "image-is-mask" if iou >= _MASK_IOU else None


def measure_masks(row: Row, number: int, codes: Sequence[int]) -> NDArray[Any]:
    """(M,) measurements of the masks of a row; ``codes`` are their structures."""
    found = np.zeros(len(row.masks), MASK)
    for place, (mask, code) in enumerate(zip(row.masks, codes, strict=True)):
        share = mask.area_px / (row.height * row.width)
        inverted = share > INVERTED_SHARE and share < WHOLE_SHARE and _encloses(mask)
        found[place] = (number, mask.index, code, share, inverted)
    return found


def _encloses(mask: MaskRow) -> bool:
    """Whether what the mask leaves out does not reach the border of the picture."""
    inside = np.asarray(mask.mask_HW)
    rim = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    return all(bool(side.all()) for side in rim)


def by_area(masks_M: NDArray[Any]) -> list[tuple[str, int, int, str]]:
    """(kind, row, mask, detail) of whole-image and inverted masks."""
    found = [
        ("whole-image-mask", int(m["row"]), int(m["mask"]), f"{m['area']:.1%} of the picture")
        for m in masks_M[masks_M["area"] >= WHOLE_SHARE]
    ]
    found += [
        ("inverted-mask", int(m["row"]), int(m["mask"]),
         f"{m['area']:.1%} of the picture, along its whole border")
        for m in masks_M[masks_M["inverted"]]
    ]  # fmt: skip
    return found
