"""Masks of the corpus' own cases, put where they do not belong, to measure the check for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fits import CaseFit
from sammed_data.audit.gathered import Gathered
from sammed_data.audit.outlines import DIRECTIONS
from sammed_data.audit.unlike import Usual, by_dataset
from sammed_data.corpus import MaskRow, Row

ROWS = 24  # of a case whose masks are misplaced, in a row
_FAR, _TENTH = 0.25, 0.1  # of a side of the picture
_MIN_SLICES = 4
_HELD_ROWS = 64
Masks = tuple[MaskRow, ...]
Coded = list[tuple[MaskRow, int]]  # with their structures


def remade(mask: MaskRow, mask_HW: NDArray[np.bool_]) -> Masks:
    """The mask with other pixels; none where nothing is left of it."""
    ys, xs = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    if not len(ys):
        return ()
    box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
    area = int(np.count_nonzero(mask_HW))
    return (replace(mask, mask_HW=np.ascontiguousarray(mask_HW), box_xyxy=box, area_px=area),)


def shifted(mask: MaskRow) -> Masks:
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
    return remade(mask, moved)


def moved_a_tenth(mask: MaskRow, seed: int) -> Masks:
    """The mask moved by a tenth of the sides; what leaves the picture is cut."""
    plane = np.asarray(mask.mask_HW)
    height, width = plane.shape
    way_y, way_x = DIRECTIONS[seed % len(DIRECTIONS)]
    dy, dx = round(way_y * _TENTH * height), round(way_x * _TENTH * width)
    moved = np.zeros_like(plane)
    to_y, from_y = _overlap(height, dy)
    to_x, from_x = _overlap(width, dx)
    moved[to_y, to_x] = plane[from_y, from_x]
    return remade(mask, moved)


def _overlap(side: int, by: int) -> tuple[slice, slice]:
    return slice(max(by, 0), side + min(by, 0)), slice(max(-by, 0), side + min(-by, 0))


def turned(mask: MaskRow, seed: int) -> Masks:
    """The mask mirrored left-right, up-down, or both."""
    plane = np.asarray(mask.mask_HW)
    return remade(mask, (plane[:, ::-1], plane[::-1], plane[::-1, ::-1])[seed % 3])


def transposed(mask: MaskRow) -> Masks:
    """The mask with its axes exchanged; none where the picture is not square."""
    plane = np.asarray(mask.mask_HW)
    return remade(mask, plane.T) if plane.shape[0] == plane.shape[1] else ()


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One case: what is said of it.

    Attributes:
        dataset: its id.
        beside: whether its dataset has enough cases to judge it beside them.
        as_it_is: empty if nothing is.
        ways: misplaced in each way; None where it cannot be. Nothing if it has a defect already.
    """

    dataset: str
    beside: bool
    as_it_is: str
    ways: dict[str, str | None]


class Misplaced:
    """Cases whose masks are misplaced, a few rows of each, judged beside their dataset."""

    def __init__(self, found: Gathered) -> None:
        self._found, self._masks, self.cases = found, found.masks_M, found.fits_C
        self._order = np.argsort(self._masks["structure"], kind="stable")
        self._structures = self._masks["structure"][self._order]
        self._rows = self._masks["row"].astype(np.int64)  # rising
        self._held: dict[int, Row] = {}

    def tried(self, sample_C: set[int]) -> Iterator[Tried]:
        """What is said of some of the cases, as they are and misplaced.

        Raises:
            CorpusError: a shard is missing or damaged.
        """
        found = self._found
        for usual, places in by_dataset(self.cases, found.parts_P, found.moments_S):
            for at, place in enumerate(places.tolist()):
                if place in sample_C:
                    yield self._tried(usual, at, int(self.cases["case"][place]))

    def _tried(self, usual: Usual, at: int, case: int) -> Tried:
        rows = self._some_rows(case)
        as_it_is = self._judged(usual, at, rows, _untouched) or ""
        ways = {} if as_it_is else self._ways(case)
        return Tried(
            dataset=self._found.cases[case].dataset,
            beside=usual.enough,
            as_it_is=as_it_is,
            ways={how: self._judged(usual, at, rows, way) for how, way in ways.items()},
        )

    def _masked_rows(self, case: int) -> NDArray[np.int64]:
        rows = self._found.rows_of(case)
        has = self._rows.searchsorted(rows) < self._rows.searchsorted(rows, side="right")
        return np.asarray(rows[has])

    def _some_rows(self, case: int) -> list[tuple[int, Row]]:
        rows = self._masked_rows(case)
        first = max(len(rows) - ROWS, 0) // 2
        return [(int(r), self._read(int(r))) for r in rows[first : first + ROWS]]

    def _coded(self, number: int, row: Row) -> Coded:
        first = int(self._rows.searchsorted(number))
        codes = self._masks["structure"][first : first + len(row.masks)].tolist()
        return list(zip(row.masks, codes, strict=True))

    def _judged(self, usual: Usual, at: int, rows: list[tuple[int, Row]], way: Way) -> str | None:
        """What is wrong with a case whose masks were misplaced; None where they cannot be."""
        measured = CaseFit(0)
        for number, row in rows:
            spoilt = way(number, row, self._coded(number, row))
            changed = replace(row, masks=tuple(m for m, _ in spoilt))
            measured.add(changed, number, [code for _, code in spoilt], {})
        cases, parts = measured.close()
        return usual.says_instead(at, cases[0], parts) if len(cases) else None

    def _ways(self, case: int) -> dict[str, Way]:
        seed = self._found.rows_N["sample"][self._found.rows_of(case)[0]].item()
        single: dict[str, Callable[[MaskRow], Masks]] = {
            TURNED: lambda mask: turned(mask, seed),
            TRANSPOSED: transposed,
            SHIFTED: shifted,
            A_TENTH: lambda mask: moved_a_tenth(mask, seed),
        }
        return {how: _each(move) for how, move in single.items()} | {
            NEXT_SLICE: self._of_the_next_slice,
            OTHER_SLICE: self._of_another_slice,
            DONATED: self._donated,
        }

    def _of_the_next_slice(self, number: int, row: Row, coded: Coded) -> Coded:
        rows = self._masked_rows(int(self._found.rows_N["case"][number]))
        at = int(rows.searchsorted(number)) + 1
        return self._of(int(rows[at]), row) if at < len(rows) else []

    def _of_another_slice(self, number: int, row: Row, coded: Coded) -> Coded:
        """The masks of the slice half the case away."""
        rows = self._masked_rows(int(self._found.rows_N["case"][number]))
        if len(rows) < _MIN_SLICES:
            return []
        at = (int(rows.searchsorted(number)) + len(rows) // 2) % len(rows)
        return self._of(int(rows[at]), row)

    def _of(self, other: int, row: Row) -> Coded:
        """The masks of another row, if it is of the same size."""
        there = self._read(other)
        same = (there.height, there.width) == (row.height, row.width)
        return self._coded(other, there) if same else []

    def _donated(self, number: int, row: Row, coded: Coded) -> Coded:
        """Masks of the same structures of another patient of the dataset, fitted to this image."""
        import cv2

        found = self._found
        own = found.group_C[found.rows_N["case"][number]]
        donated: Coded = []
        for mask, structure in coded:
            low, high = np.searchsorted(self._structures, [structure, structure + 1])
            members = self._order[low:high]
            patients = found.group_C[found.rows_N["case"][self._rows[members]]]
            others = members[patients != own]
            if len(others):
                seed = found.rows_N["sample"][number].item()
                donor = self._masks[others[seed % len(others)]]
                plane = self._read(int(donor["row"])).masks[int(donor["mask"])].mask_HW
                fitted = cv2.resize(np.asarray(plane, np.uint8), (row.width, row.height),
                                    interpolation=cv2.INTER_NEAREST)  # fmt: skip
                donated += [(m, structure) for m in remade(mask, np.asarray(fitted) > 0)]
        return donated

    def _read(self, number: int) -> Row:
        """A row; the last ones stay in memory, for they are asked for again and again."""
        if number not in self._held:
            if len(self._held) >= _HELD_ROWS:
                self._held.pop(next(iter(self._held)))
            self._held[number] = self._found.row(number)
        return self._held[number]


Way = Callable[[int, Row, Coded], Coded]
TURNED, TRANSPOSED, SHIFTED, A_TENTH, NEXT_SLICE, OTHER_SLICE, DONATED = WAYS = (
    "masks mirrored", "masks transposed", "masks shifted far", "masks shifted by a tenth",
    "masks of the next slice", "masks of another slice", "masks of another patient",
)  # fmt: skip
# Why a sample of cases cannot be spoilt in some way.
LACKS = {
    TRANSPOSED: "no picture is square",
    SHIFTED: "no mask leaves room to be moved",
    A_TENTH: "every mask would leave its picture",
    NEXT_SLICE: "no case has two slices with masks",
    OTHER_SLICE: f"no case has {_MIN_SLICES} slices with masks",
    DONATED: "no structure has masks of two patients",
}


def _untouched(number: int, row: Row, coded: Coded) -> Coded:
    return coded


def _each(move: Callable[[MaskRow], Masks]) -> Way:
    return lambda number, row, coded: [(m, code) for mask, code in coded for m in move(mask)]
