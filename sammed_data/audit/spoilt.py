"""Defects planted in the corpus' own rows, in memory, to measure the checks that look for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.defects import Usual, by_area, by_case, image_defect, measure_masks
from sammed_data.audit.gathered import Gathered
from sammed_data.audit.planted import choose, reencoded, wilson
from sammed_data.corpus import MaskRow, Row

SAMPLE = 30
_CASE_ROWS = 8  # of a case whose masks are spoilt
_FAR = 0.25  # of a side of the picture


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """One way to plant a defect, and what the checks say.

    Attributes:
        defect: as findings name it.
        planted, found: spoilt rows or cases, and those reported; under another name counts too.
        untouched, alarms: the same sample as it is, and those already reported as this defect.
    """

    defect: str
    how: str
    planted: int
    found: int
    untouched: int
    alarms: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share found."""
        return wilson(self.found, self.planted)

    @property
    def why_not(self) -> str:
        """Why nothing was planted; empty if something was."""
        if self.planted:
            return ""
        if not self.untouched:
            return "nothing was to be planted, or no image has masks to judge"
        return _LACKS.get(self.how, "all of the sample has a defect already")


def constant(row: Row, seed: int) -> Row:
    """One grey but for a pixel: a build refuses images of one value."""
    assert row.image is not None  # rows come with pixels
    image = np.full_like(row.image, int(np.median(row.image)))
    image[0, 0] = 255 - image[0, 0]
    return replace(row, image=image)


def own_masks(row: Row, seed: int) -> Row:
    """The image is its masks, drawn white on black."""
    drawn = np.zeros((row.height, row.width), np.uint8)
    for mask in row.masks:
        drawn[np.asarray(mask.mask_HW)] = 255
    return replace(row, image=drawn)


def own_masks_jpeg(row: Row, seed: int) -> Row:
    """The same through JPEG."""
    drawn = own_masks(row, seed).image
    assert drawn is not None  # just drawn
    return replace(row, image=reencoded(drawn, np.random.default_rng(seed)))


def inverted(row: Row, seed: int) -> Row:
    """One mask of the row, inverted."""
    mask = row.masks[seed % len(row.masks)]
    return replace(row, masks=_remade(mask, ~np.asarray(mask.mask_HW)))


def filled(row: Row, seed: int) -> Row:
    """One mask of the row, over the whole picture."""
    mask = row.masks[seed % len(row.masks)]
    return replace(row, masks=_remade(mask, np.ones((row.height, row.width), bool)))


Spoil = Callable[[Row, int], Row]
PICTURES: dict[tuple[str, str], Spoil] = {
    ("constant-image", "one grey but for a pixel"): constant,
    ("image-is-mask", "its own masks, white on black"): own_masks,
    ("image-is-mask", "the same through JPEG"): own_masks_jpeg,
    ("inverted-mask", "one mask inverted"): inverted,
    ("whole-image-mask", "one mask filled"): filled,
}
UNLIKE = "mask-unlike-image"
_TURNED, _SHIFTED, _DONATED = CASES = (
    "masks turned", "masks shifted far", "masks of another patient",
)  # fmt: skip
KINDS = (*dict.fromkeys(defect for defect, _ in PICTURES), UNLIKE)
# Why a sample of cases cannot be spoilt in some way.
_LACKS = {
    _SHIFTED: "no mask leaves room to be moved",
    _DONATED: "no structure has masks of two patients",
}


def plant_defects(found: Gathered, n: int) -> tuple[Spoilt, ...]:
    """Spoil up to ``n`` rows in each way, and up to ``n`` cases, and run the same checks on them.

    Raises:
        CorpusError: a shard is missing or damaged.
    """
    masked = np.unique(found.masks_M["row"])
    rows = [(found.row(r), _seed(found, r)) for r in _sample(found, masked, n)]
    single = [_try_rows(defect, how, spoil, rows) for (defect, how), spoil in PICTURES.items()]
    return (*single, *_Cases(found).tried(n))


def _sample(found: Gathered, rows_R: NDArray[Any], n: int) -> list[int]:
    """Up to n of some rows, one of each dataset in turn, by hashed ids."""
    own = found.rows_N[rows_R]
    no_flat = np.zeros(len(rows_R), bool)
    picked = choose(own["sample"], found.dataset_C[own["case"]], no_flat, n)
    return [int(r) for r in rows_R[picked]]


def _seed(found: Gathered, row: int) -> int:
    return int(found.rows_N["sample"][row])


def _try_rows(defect: str, how: str, spoil: Spoil, rows: list[tuple[Row, int]]) -> Spoilt:
    before = [_said(row) for row, _ in rows]
    tried = [spoil(*row) for row, said in zip(rows, before, strict=True) if not said]
    return Spoilt(
        defect=defect, how=how, planted=len(tried), found=sum(bool(_said(row)) for row in tried),
        untouched=len(rows), alarms=sum(defect in said for said in before),
    )  # fmt: skip


def _said(row: Row) -> set[str]:
    """Kinds of defects of a row and its masks by themselves."""
    picture = image_defect(row)
    masks = by_area(measure_masks(row, 0, [0] * len(row.masks)))
    return {kind for kind, *_ in masks} | ({picture} if picture else set())


def _remade(mask: MaskRow, mask_HW: NDArray[np.bool_]) -> tuple[MaskRow, ...]:
    """The mask with other pixels; none where nothing is left of it."""
    ys, xs = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    if not len(ys):
        return ()
    box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
    area = int(np.count_nonzero(mask_HW))
    return (replace(mask, mask_HW=np.ascontiguousarray(mask_HW), box_xyxy=box, area_px=area),)


def shifted(mask: MaskRow) -> tuple[MaskRow, ...]:
    """The mask at another place of the picture; none where there is no other place."""
    plane = np.asarray(mask.mask_HW)
    x0, y0, x1, y1 = mask.box_xyxy
    (height, width), (tall, wide) = plane.shape, (y1 - y0, x1 - x0)
    y = (y0 + height // 2) % (height - tall + 1)
    x = (x0 + width // 2) % (width - wide + 1)
    if abs(y - y0) < _FAR * height and abs(x - x0) < _FAR * width:
        return ()
    moved = np.zeros_like(plane)
    moved[y : y + tall, x : x + wide] = plane[y0:y1, x0:x1]
    return _remade(mask, moved)


def turned(mask: MaskRow, seed: int) -> tuple[MaskRow, ...]:
    """The mask mirrored left-right, up-down, or both."""
    plane = np.asarray(mask.mask_HW)
    return _remade(mask, (plane[:, ::-1], plane[::-1], plane[::-1, ::-1])[seed % 3])


class _Cases:
    """Cases whose masks are spoilt, a few rows of each, judged beside their dataset."""

    def __init__(self, found: Gathered) -> None:
        self._found, self._masks = found, found.masks_M
        self._cases = by_case(self._masks, found.rows_N["case"], found.dataset_C)
        self._order = np.argsort(self._masks["structure"], kind="stable")
        self._structures = self._masks["structure"][self._order]
        self._rows = self._masks["row"].astype(np.int64)  # rising

    def tried(self, n: int) -> list[Spoilt]:
        """What is said of up to n cases, spoilt in each way."""
        firsts = self._cases["row"].astype(np.int64)
        sample = set(_sample(self._found, firsts, n))
        before, after = [], []
        for place in np.flatnonzero(np.isin(firsts, list(sample))).tolist():
            rows = self._some_rows(place)
            before.append(self._said(place, rows, "untouched"))
            if not before[-1]:
                after.append([self._said(place, rows, how) for how in CASES])
        said = list(zip(*after, strict=True)) or [()] * len(CASES)
        return [
            Spoilt(
                defect=UNLIKE, how=how, planted=sum(s is not None for s in own),
                found=sum(bool(s) for s in own), untouched=len(before),
                alarms=sum(bool(s) for s in before),
            )
            for how, own in zip(CASES, said, strict=True)
        ]  # fmt: skip

    def _some_rows(self, place: int) -> list[tuple[int, Row]]:
        rows = self._found.rows_of(int(self._cases["case"][place]))
        rows = rows[self._rows.searchsorted(rows) < self._rows.searchsorted(rows, side="right")]
        chosen = rows[np.argsort(self._found.rows_N["sample"][rows], kind="stable")][:_CASE_ROWS]
        return [(int(r), self._found.row(int(r))) for r in np.sort(chosen)]

    def _said(self, place: int, rows: list[tuple[int, Row]], how: str) -> str | None:
        """What is wrong with a case whose masks were spoilt; None where they cannot be."""
        case = self._cases[place]
        spoilt = [replace(row, masks=self._spoilt(number, row, how)) for number, row in rows]
        measured = np.concatenate(
            [measure_masks(row, at, [0] * len(row.masks)) for at, row in enumerate(spoilt)]
        )
        alone = np.zeros(len(rows), np.int32)
        seen = by_case(measured, alone, np.array([case["dataset"]], np.int32))
        if not len(seen):
            return None
        same = self._cases["dataset"] == case["dataset"]
        peers = self._cases[same]
        peers[np.flatnonzero(same).searchsorted(place)] = seen[0]
        return Usual(peers).says(seen[0])

    def _spoilt(self, number: int, row: Row, how: str) -> tuple[MaskRow, ...]:
        first = int(self._rows.searchsorted(number))
        spoilt: list[MaskRow] = []
        for place, mask in enumerate(row.masks):
            if how == _TURNED:
                spoilt += turned(mask, _seed(self._found, self._first_row(number)))
            elif how == _SHIFTED:
                spoilt += shifted(mask)
            elif how == _DONATED:
                spoilt += self._donated(mask, number, int(self._masks["structure"][first + place]))
            else:
                spoilt.append(mask)
        return tuple(spoilt)

    def _first_row(self, number: int) -> int:
        return int(self._found.rows_of(int(self._found.rows_N["case"][number]))[0])

    def _donated(self, mask: MaskRow, number: int, structure: int) -> tuple[MaskRow, ...]:
        """A mask of the same structure of another patient of the dataset, fitted to this image."""
        import cv2

        found = self._found
        low, high = np.searchsorted(self._structures, [structure, structure + 1])
        members = self._order[low:high]
        patients = found.group_C[found.rows_N["case"][self._rows[members]]]
        own = found.group_C[found.rows_N["case"][number]]
        others = members[patients != own]
        if not len(others):
            return ()
        donor = self._masks[others[_seed(found, number) % len(others)]]
        plane = found.row(int(donor["row"])).masks[int(donor["mask"])].mask_HW
        height, width = np.asarray(mask.mask_HW).shape
        fitted = cv2.resize(
            np.asarray(plane, np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
        return _remade(mask, np.asarray(fitted) > 0)
