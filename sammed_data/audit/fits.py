"""How the masks of a case lie on their pictures, summed row by row: what a judgement needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.outlines import (
    FEATURES,
    TURNS,
    Ground,
    Outline,
    fit,
    make_ground,
    margins,
    place,
)
from sammed_data.audit.outlines import trace as outline_of
from sammed_data.audit.shifts import Shifts
from sammed_data.corpus import MaskRow, Row

#: A mask over more of its picture is not judged by its outline.
LARGE_SHARE = 0.5
_F, _T = len(FEATURES), len(TURNS)
# row, mask: of the largest mask. margin: by how much outlines fit better as they lie than moved a
# little, mean over structures. turns, beside: by how much better turned, and on the slice before
# and after; .._sure: that over its standard error over rows. own, best, shift: see `shifts.Peak`.
CASE = np.dtype(
    [
        ("case", "<i4"), ("dataset", "<i4"), ("row", "<i4"), ("mask", "<i4"), ("rows", "<i4"),
        ("n", "<i4"), ("structures", "<i4"), ("margin", "<f4"), ("turns", "<f4", (_T,)),
        ("turns_sure", "<f4", (_T,)), ("beside_rows", "<i4"), ("beside", "<f4", (2,)),
        ("beside_sure", "<f4", (2,)), ("own", "<f4"), ("best", "<f4"), ("shift", "<f4", (2,)),
    ]
)  # fmt: skip
# The masks of one structure in a case. own: mean features; at, around: mean and variance of the
# middles of their boxes, (y, x) as shares of the picture.
PART = np.dtype(
    [
        ("case", "<i4"), ("structure", "<i4"), ("n", "<i4"), ("own", "<f4", (_F,)),
        ("at", "<f4", (2,)), ("around", "<f4", (2,)),
    ]
)  # fmt: skip
# Sums of features and of their products over the masks of a structure, as they lie and elsewhere.
MOMENT = np.dtype(
    [
        ("structure", "<i4"), ("n", "<f8"), ("own", "<f8", (_F,)), ("own2", "<f8", (_F, _F)),
        ("n_else", "<f8"), ("elsewhere", "<f8", (_F,)), ("elsewhere2", "<f8", (_F, _F)),
    ]
)  # fmt: skip


@dataclass
class _Part:
    own: list[NDArray[np.float32]] = field(default_factory=list)
    at: list[tuple[float, float]] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


class _Slices:
    """How outlines fit the pictures before and after their own."""

    def __init__(self) -> None:
        self._last: tuple[Row, Ground, list[Outline], float] | None = None
        self.gains: tuple[list[float], list[float]] = ([], [])

    def add(self, row: Row, ground: Ground, outlines: list[Outline], own: float) -> None:
        if self._last is not None and _next_to(self._last[0], row):
            _, before, lines, their_own = self._last
            self.gains[0].append(_mean_fit(outlines, before) - own)
            self.gains[1].append(_mean_fit(lines, ground) - their_own)
        self._last = (row, ground, outlines, own)


def _next_to(row: Row, other: Row) -> bool:
    if (row.height, row.width) != (other.height, other.width):
        return False
    if None in (row.meta["slice_index"], other.meta["slice_index"]):
        return False
    apart = other.meta["slice_index"] - row.meta["slice_index"]
    return bool(apart == 1 and row.meta["axis"] == other.meta["axis"])


def _mean_fit(outlines: list[Outline], ground: Ground) -> float:
    return float(fit(place(outlines, ground, places=1)).mean())


class CaseFit:
    """Measures the rows of one case, one after the other."""

    def __init__(self, case: int) -> None:
        self._case = case
        self._parts: dict[int, _Part] = {}
        self._gains: list[NDArray[np.float64]] = []  # by row
        self._largest = (0, -1, -1)
        self._shifts, self._slices = Shifts(), _Slices()

    def add(
        self, row: Row, number: int, codes: Sequence[int], moments: dict[int, NDArray[Any]]
    ) -> None:
        """One row; ``codes`` are the structures of its masks, whose ``moments`` grow."""
        judged = [(m, c) for m, c in zip(row.masks, codes, strict=True) if _small(m, row)]
        if not judged:
            return
        assert row.image is not None  # rows come with pixels
        ground = make_ground(row.image)
        lines = [(m, c, outline_of(np.asarray(m.mask_HW), m.box_xyxy)) for m, c in judged]
        drawn = [(mask, code, outline) for mask, code, outline in lines if outline is not None]
        if not drawn:
            return
        outlines = [outline for *_, outline in drawn]
        features_MKF = place(outlines, ground)
        fit_MK = fit(features_MKF)
        for (mask, code, _), features_KF, gap in zip(
            drawn, features_MKF, margins(fit_MK), strict=True
        ):
            _count(moments, code, features_KF)
            part = self._parts.setdefault(code, _Part())
            part.own.append(features_KF[0])
            part.at.append(_middle(mask, row))
            part.margins.append(float(gap))
            self._largest = max(self._largest, (mask.area_px, number, mask.index))
        self._gains.append((fit_MK[:, 1 : 1 + _T] - fit_MK[:, :1]).mean(0, dtype=np.float64))
        self._shifts.add(ground, outlines)
        self._slices.add(row, ground, outlines, float(fit_MK[:, 0].mean()))

    def close(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """((0 or 1,) ``CASE``, (S,) ``PART``) of all rows so far."""
        parts = np.zeros(len(self._parts), PART)
        margins = []
        for at, (code, part) in enumerate(sorted(self._parts.items())):
            middles = np.array(part.at)
            parts[at] = (self._case, code, len(part.own), np.mean(part.own, axis=0),
                         middles.mean(0), middles.var(0))  # fmt: skip
            known = [m for m in part.margins if np.isfinite(m)]
            margins += [np.mean(known)] if known else []
        if not len(parts):
            return np.empty(0, CASE), parts
        case = np.zeros(1, CASE)
        _, row, mask = self._largest
        peak = self._shifts.peak()
        turns, sure = _gain(np.array(self._gains))
        beside = np.array(self._slices.gains).T
        case[0] = (
            self._case, -1, row, mask, len(self._gains), parts["n"].sum(), len(parts),
            np.mean(margins) if margins else np.nan, turns, sure, len(beside), *_gain(beside),
            peak.own, peak.best, (peak.dy, peak.dx),
        )  # fmt: skip
        return case, parts


def _small(mask: MaskRow, row: Row) -> bool:
    return mask.area_px < LARGE_SHARE * row.height * row.width


def _middle(mask: MaskRow, row: Row) -> tuple[float, float]:
    x0, y0, x1, y1 = mask.box_xyxy
    return (y0 + y1) / 2 / row.height, (x0 + x1) / 2 / row.width


def _gain(gains_RT: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Means over rows, and those over their standard errors; 0 where too few rows say."""
    rows = len(gains_RT)
    mean = gains_RT.mean(0) if rows else np.zeros(gains_RT.shape[1])
    if rows < 2:
        return mean, np.zeros_like(mean)
    error = gains_RT.std(0, ddof=1) / np.sqrt(rows)
    return mean, mean / np.maximum(error, 1e-3)


def _count(moments: dict[int, NDArray[Any]], code: int, features_KF: NDArray[np.float32]) -> None:
    if code not in moments:
        moments[code] = np.zeros((), MOMENT)
        moments[code]["structure"] = code
    moment, values = moments[code], features_KF.astype(np.float64)
    moment["n"] += 1
    moment["own"] += values[0]
    moment["own2"] += np.outer(values[0], values[0])
    elsewhere = values[1:]
    elsewhere = elsewhere[np.isfinite(elsewhere[:, 0])]
    moment["n_else"] += len(elsewhere)
    moment["elsewhere"] += elsewhere.sum(0)
    moment["elsewhere2"] += elsewhere.T @ elsewhere


def summed(moments: NDArray[Any]) -> NDArray[Any]:
    """One (S,) ``MOMENT`` a structure, rising."""
    codes, at = np.unique(moments["structure"], return_inverse=True)
    found = np.zeros(len(codes), MOMENT)
    for name in (MOMENT.names or ())[1:]:
        np.add.at(found[name], at, moments[name])
    found["structure"] = codes
    return found
