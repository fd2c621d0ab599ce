"""Defects planted in the corpus' own rows, in memory, to measure the checks that look for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.defects import by_area, image_defect, measure_masks
from sammed_data.audit.gathered import Gathered
from sammed_data.audit.misplaced import LACKS, WAYS, Misplaced, Tried, remade
from sammed_data.audit.planted import choose, reencoded, wilson
from sammed_data.audit.unlike import UNLIKE
from sammed_data.corpus import Row

SAMPLE = 30


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """One way to plant a defect, and what the checks say.

    Attributes:
        defect: as findings name it.
        planted, found: spoilt rows or cases, and those reported; under another name counts too.
        untouched, alarms: the same sample as it is, and those already reported as this defect.
        beside, beside_found: those planted and found in datasets with like cases to judge beside.
    """

    defect: str
    how: str
    planted: int
    found: int
    untouched: int
    alarms: int
    beside: int = 0
    beside_found: int = 0

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
        return LACKS.get(self.how, "all of the sample has a defect already")


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
    return replace(row, masks=remade(mask, ~np.asarray(mask.mask_HW)))


def filled(row: Row, seed: int) -> Row:
    """One mask of the row, over the whole picture."""
    mask = row.masks[seed % len(row.masks)]
    return replace(row, masks=remade(mask, np.ones((row.height, row.width), bool)))


Spoil = Callable[[Row, int], Row]
PICTURES: dict[tuple[str, str], Spoil] = {
    ("constant-image", "one grey but for a pixel"): constant,
    ("image-is-mask", "its own masks, white on black"): own_masks,
    ("image-is-mask", "the same through JPEG"): own_masks_jpeg,
    ("inverted-mask", "one mask inverted"): inverted,
    ("whole-image-mask", "one mask filled"): filled,
}
KINDS = (*dict.fromkeys(defect for defect, _ in PICTURES), UNLIKE)


def plant_defects(found: Gathered, n: int) -> tuple[Spoilt, ...]:
    """Spoil up to ``n`` rows in each way, and up to ``n`` cases, and run the same checks on them.

    Raises:
        CorpusError: a shard is missing or damaged.
    """
    masked = np.unique(found.masks_M["row"])
    rows = [(found.row(r), _seed(found, r)) for r in _sample(found, masked, n)]
    single = [_try_rows(defect, how, spoil, rows) for (defect, how), spoil in PICTURES.items()]
    return (*single, *_try_cases(found, n))


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


def _try_cases(found: Gathered, n: int) -> list[Spoilt]:
    """What is said of up to n cases, whose masks are misplaced in each way."""
    misplaced = Misplaced(found)
    firsts = misplaced.cases["row"].astype(np.int64)
    sample = np.flatnonzero(np.isin(firsts, _sample(found, firsts, n)))
    tried = list(misplaced.tried(set(sample.tolist())))
    return [_of_cases(how, tried) for how in WAYS]


def _of_cases(how: str, tried: list[Tried]) -> Spoilt:
    planted = [t for t in tried if t.ways.get(how) is not None]
    beside = [t for t in planted if t.beside]
    return Spoilt(
        defect=UNLIKE, how=how, planted=len(planted), found=sum(bool(t.ways[how]) for t in planted),
        untouched=len(tried), alarms=sum(bool(t.as_it_is) for t in tried),
        beside=len(beside), beside_found=sum(bool(t.ways[how]) for t in beside),
    )  # fmt: skip
