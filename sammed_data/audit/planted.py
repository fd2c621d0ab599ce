"""Copies of the corpus' own pictures, altered as copies are in the wild, to measure the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fingerprints import CROP

_QUALITY = 75
Alteration = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


def reencoded(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Through JPEG at quality 75."""
    import cv2

    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))


def resized(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """To 0.5 to 1.5 times its sides."""
    import cv2

    factor = rng.uniform(0.5, 1.5)
    size = (max(8, round(image.shape[1] * factor)), max(8, round(image.shape[0] * factor)))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=kind))


def windowed(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Grey levels stretched so that up to 16 % at the dark and 22 % at the bright end are cut."""
    low, high = rng.uniform(0, 40), rng.uniform(200, 255)
    stretched = (image.astype(np.float32) - low) * (255 / (high - low))
    return np.asarray(np.clip(stretched, 0, 255).astype(np.uint8))


def cropped(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """To 94 % of its sides, anywhere."""
    height, width = image.shape[:2]
    top, left = (rng.uniform(0, CROP) * side for side in (height, width))
    y, x = round(top), round(left)
    return image[y : y + round(height * (1 - CROP)), x : x + round(width * (1 - CROP))]


def flipped(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Left-right or up-down."""
    return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image[::-1])


def all_together(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Cropped, windowed, resized, flipped and re-encoded."""
    for alter in (cropped, windowed, resized, flipped, reencoded):
        image = np.ascontiguousarray(alter(image, rng))
    return image


ALTERATIONS: dict[str, Alteration] = {
    "re-encoded": reencoded,
    "resized": resized,
    "windowed": windowed,
    "cropped by 6 %": cropped,
    "flipped": flipped,
    "all together": all_together,
}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One copy: of which row, altered how."""

    row: int
    kind: str
    sample: int

    def make(self, image: NDArray[Any]) -> NDArray[Any]:
        """The copy; the same for the same picture and kind."""
        seed = [self.sample, list(ALTERATIONS).index(self.kind)]
        return np.ascontiguousarray(ALTERATIONS[self.kind](image, np.random.default_rng(seed)))


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Copies planted and found, of one kind."""

    kind: str
    planted: int
    found: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share found."""
        return wilson(self.found, self.planted)


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share; (0, 1) where nothing was tried."""
    if not n:
        return 0.0, 1.0
    share, square = hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def choose(
    sample_N: NDArray[np.uint64], dataset_N: NDArray[np.int32], flat_N: NDArray[np.bool_], n: int
) -> NDArray[np.int64]:
    """Up to n rows with a shape to compare, one of each dataset in turn, by hashed ids."""
    alive = np.flatnonzero(~flat_N)
    order = alive[np.lexsort((sample_N[alive], dataset_N[alive]))]
    datasets = dataset_N[order]
    first = np.searchsorted(datasets, datasets, side="left")
    turn = np.arange(len(order)) - first
    picked = order[np.lexsort((datasets, turn))][:n]
    return np.asarray(np.sort(picked))
