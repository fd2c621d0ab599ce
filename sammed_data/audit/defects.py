"""What is wrong with a picture or a mask by itself, or beside others of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fingerprints import grey
from sammed_data.corpus import MaskRow, Row

WHOLE_SHARE, INVERTED_SHARE = 0.98, 0.5
_FLAT_SHARE = 0.999
# An image that is a mask: so many pixels near its darkest or brightest, its bright part so alike.
_TWO_ENDS, _MASK_IOU = 0.97, 0.9
_MIN_PEERS = 8
# A turned outline must lie on edges this sharp, sharper by this than the true one (logs).
_SHARP, _TURNED = 0.15, 0.25
_WEAK, _OUTLIER = 0.05, -5.0
_MIN_MASKS, _SURE = 5, 4.0

# Ways a mask may have been turned against its image.
TURNS = ("left-right", "up-down", "both ways", "transposed")
_BAND_PX = 5
Indices = NDArray[np.intp]
# area: share of the picture. inverted: covers the rim, encloses the rest. edge: log of the image's
# slope on the outline over that 3 and 4 pixels beside it; turns: by how much each turn raises it.
MASK = np.dtype(
    [
        ("row", "<i4"), ("mask", "<i4"), ("structure", "<i4"), ("area", "<f4"),
        ("inverted", "?"), ("edge", "<f4"), ("turns", "<f4", (len(TURNS),)),
    ]
)  # fmt: skip
# row, mask: the first of n. edge, turns: means over them; spread: of turns.
CASE = np.dtype(
    [
        ("case", "<i4"), ("dataset", "<i4"), ("row", "<i4"), ("mask", "<i4"), ("n", "<i4"),
        ("edge", "<f8"), ("turns", "<f8", (len(TURNS),)), ("spread", "<f8", (len(TURNS),)),
    ]
)  # fmt: skip


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
    import cv2

    assert row.image is not None  # rows come with pixels
    plain = cv2.GaussianBlur(grey(row.image), (3, 3), 0)
    slope = cv2.magnitude(cv2.Sobel(plain, cv2.CV_32F, 1, 0), cv2.Sobel(plain, cv2.CV_32F, 0, 1))
    found = np.zeros(len(row.masks), MASK)
    for place, (mask, code) in enumerate(zip(row.masks, codes, strict=True)):
        edge, turns = _edges(np.asarray(mask.mask_HW), mask.box_xyxy, np.asarray(slope))
        share = mask.area_px / (row.height * row.width)
        inverted = share > INVERTED_SHARE and share < WHOLE_SHARE and _encloses(mask)
        found[place] = (number, mask.index, code, share, inverted, edge, turns)
    return found


def _encloses(mask: MaskRow) -> bool:
    """Whether what the mask leaves out does not reach the border of the picture."""
    inside = np.asarray(mask.mask_HW)
    rim = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    return all(bool(side.all()) for side in rim)


def _edges(
    mask_HW: NDArray[np.bool_], box_xyxy: tuple[int, int, int, int], slope_HW: NDArray[Any]
) -> tuple[float, list[float]]:
    import cv2

    height, width = mask_HW.shape
    x0, y0, x1, y1 = box_xyxy
    top, left = max(y0 - _BAND_PX, 0), max(x0 - _BAND_PX, 0)
    inside = mask_HW[top : y1 + _BAND_PX, left : x1 + _BAND_PX].astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

    def ring(size: int) -> NDArray[np.uint8]:
        kernel = cross if size == 3 else np.ones((size, size), np.uint8)
        border = cv2.BORDER_REPLICATE  # the picture's border is no outline
        return np.asarray(cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, kernel, borderType=border))

    rim = np.nonzero(ring(3))
    beside = np.nonzero(ring(2 * _BAND_PX - 1) & ~ring(_BAND_PX))
    if not len(rim[0]) or not len(beside[0]):
        return 0.0, [0.0] * len(TURNS)
    floor = float(slope_HW.mean()) * 0.1 + 1e-3

    def sharpness(turn: Callable[[Indices, Indices], tuple[Indices, Indices]]) -> float:
        on, off = (turn(ys + top, xs + left) for ys, xs in (rim, beside))
        ratio = (float(slope_HW[on].mean()) + floor) / (float(slope_HW[off].mean()) + floor)
        return float(np.log(ratio))

    own = sharpness(lambda ys, xs: (ys, xs))
    turned = (
        sharpness(lambda ys, xs: (ys, width - 1 - xs)),
        sharpness(lambda ys, xs: (height - 1 - ys, xs)),
        sharpness(lambda ys, xs: (height - 1 - ys, width - 1 - xs)),
        sharpness(lambda ys, xs: (xs * (height - 1) // max(width - 1, 1),
                                  ys * (width - 1) // max(height - 1, 1))),
    )  # fmt: skip
    return own, [t - own for t in turned]


def mask_defects(
    masks_M: NDArray[Any], case_of_row: NDArray[np.int32], dataset_of_case: NDArray[np.int32]
) -> list[tuple[str, int, int, str]]:
    """(kind, row, mask, detail) of masks that are wrong, and of one mask of each wrong case."""
    found = by_area(masks_M)
    cases_C = by_case(masks_M, case_of_row, dataset_of_case)
    for dataset in np.unique(cases_C["dataset"]):
        own = cases_C[cases_C["dataset"] == dataset]
        usual = Usual(own)
        for case in own:
            said = usual.says(case)
            if said:
                found.append(("mask-unlike-image", int(case["row"]), int(case["mask"]), said))
    return found


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


def unjudged(
    masks_M: NDArray[Any], case_of_row: NDArray[np.int32], dataset_of_case: NDArray[np.int32]
) -> list[int]:
    """Datasets whose outlines follow no sharp edge, so that a wrong mask would not be seen."""
    datasets = dataset_of_case[case_of_row[masks_M["row"]]]
    return [
        int(number)
        for number in np.unique(datasets)
        if np.median(masks_M["edge"][datasets == number]) < _SHARP
    ]


def by_case(
    masks_M: NDArray[Any], case_of_row: NDArray[np.int32], dataset_of_case: NDArray[np.int32]
) -> NDArray[Any]:
    """(C,) see ``CASE``: the cases that have masks whose outlines can be judged."""
    usable = masks_M[(masks_M["area"] < INVERTED_SHARE) & ~masks_M["inverted"]]
    if not len(usable):
        return np.empty(0, CASE)
    cases = case_of_row[usable["row"]]
    order = np.argsort(cases, kind="stable")
    usable, cases = usable[order], cases[order]
    starts = np.flatnonzero(np.r_[True, cases[1:] != cases[:-1]])
    sizes = np.diff(np.r_[starts, len(cases)])
    turns = usable["turns"].astype(np.float64)
    mean = np.add.reduceat(turns, starts) / sizes[:, None]
    square = np.add.reduceat(turns**2, starts) / sizes[:, None]
    found = np.empty(len(starts), CASE)
    found["case"], found["dataset"] = cases[starts], dataset_of_case[cases[starts]]
    found["row"], found["mask"], found["n"] = usable["row"][starts], usable["mask"][starts], sizes
    found["edge"] = np.add.reduceat(usable["edge"].astype(np.float64), starts) / sizes
    found["turns"], found["spread"] = mean, np.sqrt(np.maximum(square - mean**2, 0))
    return found


class Usual:
    """How the masks of a dataset's cases (C,) usually lie, beside which one case is judged."""

    def __init__(self, cases_C: NDArray[Any]) -> None:
        self.peers = len(cases_C)
        self.middle = float(np.median(cases_C["edge"]))
        self.scale = max(1.4826 * float(np.median(np.abs(cases_C["edge"] - self.middle))), 0.05)
        self.turns = np.median(cases_C["turns"], axis=0)

    def says(self, case: Any) -> str:
        """What is wrong with the masks of a case, a row of ``by_case``; empty if nothing is."""
        outlier = (case["edge"] - self.middle) / self.scale
        return _verdict(case["edge"], outlier, case["turns"], case["spread"], int(case["n"]),
                        self.turns, self.peers)  # fmt: skip


def _verdict(
    edge: float, outlier: float, turns: NDArray[Any], spread: NDArray[Any], n: int,
    usual: NDArray[Any], peers: int,
) -> str:  # fmt: skip
    best = int(np.argmax(turns))
    sure = turns[best] > _SURE * spread[best] / np.sqrt(n) if n >= _MIN_MASKS else turns[best] > 0.7
    # A dataset whose every case fits better turned is as wrong as one case; one whose masks do not
    # follow edges at all (usual near 0 in every turn) says nothing.
    fits = edge + turns[best] > _SHARP and turns[best] > _TURNED
    if fits and sure and (usual[best] < 0 or usual[best] > _TURNED):
        return f"its {n} masks fit the image better turned {TURNS[best]}"
    if peers >= _MIN_PEERS and outlier < _OUTLIER and edge < _WEAK:
        return f"the outlines of its {n} masks lie on weaker edges than in all like cases"
    return ""
