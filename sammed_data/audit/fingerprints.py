"""Signatures of 256 bits that survive re-encoding, resizing, windowing, small crops and flips.

A picture becomes a 64 x 64 thumbnail, its grey levels become ranks (a monotone window changes
little), and the signs of its 16 x 16 lowest cosine terms are the bits. A flip changes the sign of
every odd term along its axis, so all flips of a signature are XORs with constants; crops are
signatures of windows of the same thumbnail. A volume has 4 x 8 x 8 terms of 16 x 32 x 32 means.
A few hundred signs do not give a picture back.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sammed_data.slices import straight
from sammed_data.stages import stage

THUMB_PX = 64
WORDS = 4
_TERMS = 16
_VOLUME_GRID, _VOLUME_TERMS = (16, 32, 32), (4, 8, 8)
_HASHED_SLICES = 16
_CHUNK = 512
CROP = 0.06

Window = tuple[float, float, float, float]
# (top, left, bottom, right) shares of the picture: the whole, and crops by about 6 %.
VIEWS: tuple[Window, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    *(
        (top, left, top + 1 - CROP, left + 1 - CROP)
        for top in (0.0, CROP / 2, CROP)
        for left in (0.0, CROP / 2, CROP)
    ),
)
# (rows reversed, columns reversed)
FLIPS: tuple[tuple[bool, bool], ...] = ((False, False), (False, True), (True, False), (True, True))


def grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) RGB uint8 to (H, W) uint8."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image)


def thumbnail(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(64, 64) uint8 means of the picture."""
    import cv2

    small = min(image.shape[:2]) < THUMB_PX
    kind = cv2.INTER_LINEAR if small else cv2.INTER_AREA
    return np.asarray(cv2.resize(grey(image), (THUMB_PX, THUMB_PX), interpolation=kind))


def ranks(thumb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of the pixels that are darker, -0.5 to 0.5; ties share their mean."""
    counts = np.bincount(thumb.reshape(-1), minlength=256)
    table = (np.cumsum(counts) - counts / 2) / thumb.size - 0.5
    return np.asarray(table.astype(np.float32)[thumb])


@cache
def _basis(terms: int, n: int, start: float = 0.0, stop: float = 1.0) -> NDArray[np.float32]:
    """(terms, n) cosines over the window ``start..stop`` of an axis of n means."""
    edges = np.clip(np.arange(n + 1) / n, start, stop)
    inside = np.diff(edges) * n
    place = ((edges[1:] + edges[:-1]) / 2 - start) / (stop - start)
    waves = np.cos(np.pi * np.arange(terms)[:, None] * place[None])
    return np.asarray((waves * inside).astype(np.float32))


def _pack(terms: NDArray[Any]) -> NDArray[np.uint64]:
    """(N, 256) signs to (N, 4) words; the constant term carries no bit."""
    bits = terms > 0
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view(np.uint64)


def signatures(
    thumbs_N6464: NDArray[np.uint8], views: Sequence[Window] = VIEWS
) -> NDArray[np.uint64]:
    """(N, views, 4) signatures of thumbnails seen through windows."""
    found = np.empty((len(thumbs_N6464), len(views), WORDS), np.uint64)
    for start in range(0, len(thumbs_N6464), _CHUNK):
        part = np.stack([ranks(t) for t in thumbs_N6464[start : start + _CHUNK]])
        for number, (top, left, bottom, right) in enumerate(views):
            rows = _basis(_TERMS, THUMB_PX, top, bottom)
            columns = _basis(_TERMS, THUMB_PX, left, right)
            terms = (rows @ part) @ columns.T
            found[start : start + len(part), number] = _pack(terms.reshape(len(part), -1))
    return found


def _odd_terms(shape: Sequence[int], flipped: Sequence[bool]) -> NDArray[np.uint64]:
    parity = np.zeros(tuple(shape), np.int64)
    for axis, (size, on) in enumerate(zip(shape, flipped, strict=True)):
        if on:
            parity += np.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.asarray(np.packbits((parity % 2).astype(bool).reshape(-1)).view(np.uint64))


@cache
def flip_masks(dims: int) -> NDArray[np.uint64]:
    """(4 or 8, 4): what to XOR onto a signature to get the signature of each flip."""
    shape = (_TERMS, _TERMS) if dims == 2 else _VOLUME_TERMS
    choices = FLIPS if dims == 2 else tuple(itertools.product((False, True), repeat=3))
    return np.stack([_odd_terms(shape, flipped) for flipped in choices])


@dataclass(frozen=True, kw_only=True)
class CaseMark:
    """The fingerprint of one case, made while its voxels are in memory.

    Attributes:
        case_id: as it stands in the rows (keyed where the source is restricted).
        patient_id: likewise.
        shape_zyx: of the canonical volume.
        voxels_blake3: over the real values of at most 16 evenly spread slices: equal volumes have
            equal digests, whatever format they came in (8-bit arrays among themselves).
        signature: 64 hex digits; '' where Z = 1: a picture's signature is taken from its row.
    """

    case_id: str
    patient_id: str
    shape_zyx: tuple[int, int, int]
    voxels_blake3: str
    signature: str

    def words(self) -> NDArray[np.uint64]:
        """(4,) the signature as words."""
        return np.frombuffer(bytes.fromhex(self.signature), np.uint64)


@stage("fingerprint")
def mark_case(array: NDArray[Any], case_id: str, patient_id: str) -> CaseMark:
    """Fingerprint of a volume (Z, Y, X) or (Z, Y, X, 3); costs a few slices' reading."""
    depth, height, width = array.shape[:3]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, _HASHED_SLICES)).round().astype(int))
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    digest = blake3(f"{array.shape} {np.dtype(kind).str}".encode())
    for index in chosen:
        digest.update(straight(array[index]).astype(kind, copy=False).view(np.uint8).data)
    return CaseMark(
        case_id=case_id,
        patient_id=patient_id,
        shape_zyx=(depth, height, width),
        voxels_blake3=digest.hexdigest(),
        signature="" if depth == 1 else volume_signature(array).tobytes().hex(),
    )


def volume_signature(array: NDArray[Any]) -> NDArray[np.uint64]:
    """(4,) words of a volume (Z, Y, X) or (Z, Y, X, 3)."""
    import cv2

    grid, terms = _VOLUME_GRID, _VOLUME_TERMS
    depth = len(array)
    planes = np.empty(grid, np.float32)
    for number in range(grid[0]):
        centre = (number + 0.5) * depth / grid[0] - 0.5
        low, high = max(0, int(np.floor(centre))), min(depth - 1, int(np.ceil(centre)))
        share = np.float32(centre - low)  # both neighbours by nearness: a flip gives the same means
        found = [
            cv2.resize(_plane(array[i]), grid[:0:-1], interpolation=cv2.INTER_AREA)
            for i in (low, high)
        ]
        planes[number] = (1 - share) * found[0] + share * found[1] if high > low else found[0]
    order = np.argsort(planes, axis=None)
    ordered = planes.reshape(-1)[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[first, planes.size])
    ranked = np.empty(planes.size, np.float32)
    ranked[order] = np.repeat((first + (counts - 1) / 2) / planes.size - 0.5, counts)
    cube = ranked.reshape(grid)
    for axis, (count, size) in enumerate(zip(terms, grid, strict=True)):
        cube = np.moveaxis(np.tensordot(_basis(count, size), cube, axes=(1, axis)), 0, axis)
    return _pack(cube.reshape(1, -1))[0]


def _plane(values: NDArray[Any]) -> NDArray[np.float32]:
    flat = values.mean(axis=2) if values.ndim == 3 else values
    return np.asarray(straight(flat).astype(np.float32, copy=False))
