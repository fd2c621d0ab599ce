"""Stored intensities to 8-bit pixels by a named policy; one object for build, train and bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data import native
from sammed_data.slices import in_memory_order
from sammed_data.stages import stage
from sammed_data.types import UsageError, nearest

SOFT_TISSUE = (-160.0, 240.0)
LUNG = (-1350.0, 150.0)
BONE = (-450.0, 1050.0)
_U16_MAX = 65535
# Elements counted at once: OpenCV's counts are floats, exact up to 2^24.
_BLOCK = 1 << 23


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Extremes and percentiles of a whole volume, in its own units (HU, SUV, counts)."""

    minimum: float
    maximum: float
    p0_5: float
    p99_5: float


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """A linear map from ``low..high`` to 0..255; None bounds are taken from each slice."""

    policy: str
    low: float | None = None
    high: float | None = None

    def bounds(self, values: NDArray[Any]) -> tuple[float, float]:
        """The bounds used for one slice."""
        low = float(values.min()) if self.low is None else self.low
        high = float(values.max()) if self.high is None else self.high
        return low, high

    @stage("window")
    def to_uint8(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Map (H, W) values to uint8, clipped and rounded; colour passes unchanged."""
        if values.ndim == 3 and values.dtype == np.uint8:
            return values
        low, high = self.bounds(values)
        if values.dtype == np.uint8 and (low, high) == (0.0, 255.0):
            return np.asarray(values)
        deep = values.dtype in (np.int16, np.uint16) and values.size > _U16_MAX
        if deep and None not in (self.low, self.high):
            return _windowed(values, low, high)
        return _scaled(values, low, high)


@dataclass(frozen=True, kw_only=True)
class Depth16:
    """Lossless or finest 16-bit storage: ``value = slope * stored + intercept``."""

    slope: float
    intercept: float

    @stage("window")
    def store(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """(H, W) values to uint16."""
        if self.slope == 1 and values.dtype in (np.int16, np.uint16):  # exact modulo 2^16
            return np.asarray(values.view(np.uint16) - np.uint16(int(self.intercept) & _U16_MAX))
        scaled = (values.astype(np.float64) - self.intercept) / self.slope
        return np.asarray(np.clip(np.rint(scaled), 0, _U16_MAX).astype(np.uint16))

    def restore(self, stored: NDArray[np.uint16]) -> NDArray[np.float32]:
        """uint16 back to values in the units of the source."""
        return np.asarray(stored * np.float32(self.slope) + np.float32(self.intercept))


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= _scale(low, high)
    np.clip(scaled, 0.0, 255.0, out=scaled)
    return np.asarray(np.rint(scaled).astype(np.uint8))


def _scale(low: float, high: float) -> np.float32:
    return np.float32(255.0 / max(high - low, 1e-12))


def _windowed(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`_scaled` of 16-bit values, faster."""
    compiled = native.planes()
    if compiled is not None and values.flags.c_contiguous:
        return compiled.window(values, low, float(_scale(low, high)))
    return _look_up(_table(low, high, values.dtype.str), values.view(np.uint16))


@lru_cache(maxsize=8)
def _table(low: float, high: float, dtype: str) -> NDArray[np.uint8]:
    """What each 16-bit pattern becomes: the same numbers as `_scaled`, for a tenth of the time."""
    return _scaled(np.arange(_U16_MAX + 1, dtype=np.uint16).view(dtype), low, high)


def _look_up(table: NDArray[np.uint8], codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    import cv2

    if codes.ndim == 2 and int(cv2.__version__.split(".")[0]) >= 5:  # older ones know 8 bits only
        return np.asarray(cv2.LUT(codes, table[None]))
    return np.asarray(table[codes])


@stage("statistics")
def statistics(array: NDArray[Any]) -> Statistics:
    """Extremes and the 0.5 and 99.5 percentiles (nearest rank) of a volume of any shape."""
    flat = in_memory_order(array).reshape(-1)
    ranks = [round(0.005 * (flat.size - 1)), round(0.995 * (flat.size - 1))]
    counted = counts(flat)
    if counted is None:
        low, high = flat.min(), flat.max()
        picks = np.partition(flat, ranks)[ranks]
    else:
        first, found = counted
        low, high = np.flatnonzero(found)[[0, -1]] + first
        picks = np.searchsorted(np.cumsum(found), ranks, side="right") + first
    return Statistics(
        minimum=float(low), maximum=float(high), p0_5=float(picks[0]), p99_5=float(picks[1])
    )


def counts(flat: NDArray[Any]) -> tuple[int, NDArray[np.int64]] | None:
    """A value, and how often it and each one above it stands in an integer array.

    None where values are no integers, or span more than 65,535.
    """
    if flat.dtype.kind not in "ui":
        return None
    if flat.dtype.itemsize == 1:
        return int(np.iinfo(flat.dtype).min), _rolled(_histogram(flat.view(np.uint8), 256), flat)
    if flat.dtype.itemsize == 2:
        found = _histogram(flat.view(np.uint16), _U16_MAX + 1)
        return int(np.iinfo(flat.dtype).min), _rolled(found, flat)
    low, high = int(flat.min()), int(flat.max())
    if high - low > _U16_MAX:
        return None
    return low, _histogram((flat - flat.dtype.type(low)).astype(np.uint16), high - low + 1)


def _histogram(codes: NDArray[Any], bins: int) -> NDArray[np.int64]:
    compiled = native.planes()
    # Of a small picture the compiled tables would take longer than the counting.
    if compiled is not None and codes.dtype == np.uint16 and codes.size > _U16_MAX:
        return compiled.counts(codes)[:bins]
    import cv2

    found = np.zeros(bins, np.int64)
    for start in range(0, codes.size, _BLOCK):
        block = codes[None, start : start + _BLOCK]
        found += cv2.calcHist([block], [0], None, [bins], [0, bins]).ravel().astype(np.int64)
    return found


def _rolled(found: NDArray[np.int64], flat: NDArray[Any]) -> NDArray[np.int64]:
    """Counts of bit patterns, brought into the order of the signed values they are."""
    return np.roll(found, len(found) // 2) if flat.dtype.kind == "i" else found


def depth16(array: NDArray[Any], stats: Statistics) -> Depth16:
    """The 16-bit map of a volume: exact for integers that span at most 65,535."""
    span = stats.maximum - stats.minimum
    whole = array.dtype.kind in "uib" or all(bool((p == np.rint(p)).all()) for p in array)
    if span <= _U16_MAX and whole:
        return Depth16(slope=1.0, intercept=stats.minimum)
    return Depth16(slope=max(span, 1e-12) / _U16_MAX, intercept=stats.minimum)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a policy may look at.

    Attributes:
        modality: catalogue modality.
        window: the entry's (low, high), or None.
        bits: significant bits of the source; 8 means stored as displayed.
        wish: the entry's own ``intensity`` key, used by ``auto``.
    """

    modality: str
    window: tuple[float, float] | None
    bits: int
    wish: str = "auto"


def _auto(context: Context, stats: Statistics) -> Intensity:
    if context.wish != "auto":
        return POLICIES[context.wish](context, stats)
    if context.modality == "CT" and context.bits > 8:
        return _window(context, stats)
    if context.modality in ("MR", "PET") or context.bits > 8:
        return _percentile(context, stats)
    return _identity(context, stats)


def _window(context: Context, stats: Statistics) -> Intensity:
    low, high = context.window or SOFT_TISSUE
    return Intensity(policy="window", low=low, high=high)


def _percentile(context: Context, stats: Statistics) -> Intensity:
    low, high = stats.p0_5, stats.p99_5
    if high <= low:  # nearly all voxels are one value, as in label-like volumes
        low, high = stats.minimum, stats.maximum
    return Intensity(policy="percentile", low=low, high=high)


def _identity(context: Context, stats: Statistics) -> Intensity:
    if stats.minimum < 0 or stats.maximum > 255:
        return _paper(context, stats)
    return Intensity(policy="identity", low=0.0, high=255.0)


def _paper(context: Context, stats: Statistics) -> Intensity:
    return Intensity(policy="paper", low=stats.minimum, high=stats.maximum)


def _released(context: Context, stats: Statistics) -> Intensity:
    return Intensity(policy="released")


def _fixed(name: str, bounds: tuple[float, float]) -> Callable[[Context, Statistics], Intensity]:
    def policy(context: Context, stats: Statistics) -> Intensity:
        if context.modality != "CT" or context.bits <= 8:
            return _auto(context, stats)
        return Intensity(policy=name, low=bounds[0], high=bounds[1])

    return policy


POLICIES: dict[str, Callable[[Context, Statistics], Intensity]] = {
    "auto": _auto,
    "window": _window,
    "percentile": _percentile,
    "identity": _identity,
    "paper": _paper,
    "released": _released,
    "ct-soft": _fixed("ct-soft", SOFT_TISSUE),
    "ct-lung": _fixed("ct-lung", LUNG),
    "ct-bone": _fixed("ct-bone", BONE),
}


def check_policy(name: str) -> str:
    """The name, if it is a known policy.

    Raises:
        UsageError: unknown policy.
    """
    if name not in POLICIES:
        raise UsageError(f"unknown intensity policy {name!r}; {nearest(name, POLICIES)}")
    return name


def choose(policy: str, context: Context, stats: Statistics) -> Intensity:
    """The map that ``policy`` means for one volume."""
    return POLICIES[check_policy(policy)](context, stats)


def reapply(
    policy: str, image_u16: NDArray[np.uint16], stored: Mapping[str, Any], modality: str
) -> NDArray[np.uint8]:
    """8-bit pixels by another policy, from a row's ``image_u16`` and its ``intensity`` record."""
    stats = Statistics(
        minimum=stored["volume_min"],
        maximum=stored["volume_max"],
        p0_5=stored["volume_p0_5"],
        p99_5=stored["volume_p99_5"],
    )
    depth = Depth16(slope=stored["u16_slope"], intercept=stored["u16_intercept"])
    context = Context(modality=modality, window=None, bits=16)
    if policy == stored["policy"]:
        chosen = Intensity(policy=policy, low=stored["low"], high=stored["high"])
    else:
        chosen = choose(policy, context, stats)
    return chosen.to_uint8(depth.restore(image_u16))
