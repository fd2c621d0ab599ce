"""Procedural scenes like natural pictures: coloured, textured shapes in front of each other.

Pre-training material for the small SAM. Nothing medical is in it: the phantoms must leave something
to learn. A scene depends on its name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sammed_model.dataset import Batch
from sammed_model.frame import Preprocessing
from sammed_model.prompts import prompt_seed

Rng = np.random.Generator
Floats = NDArray[np.float32]

_SHORTEST = 0.65
_RADII = (0.05, 0.33)
_SHAPES = (3, 10)
_SMALLEST_SHARE = 0.003
_SUBPIXEL = 4


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and the visible part of each of its objects.

    Attributes:
        name: all that it was made from.
        image_HW3: uint8 RGB.
        masks_MHW: bool, at least one; they do not overlap.
    """

    name: str
    image_HW3: NDArray[np.uint8]
    masks_MHW: NDArray[np.bool_]


def make_scene(name: str, side: int = 128) -> Scene:
    """The scene of a name, ``side`` px on its longer side."""
    for attempt in range(100):
        digest = hashlib.sha256(f"{name}\0{attempt}".encode()).digest()
        scene = _try_scene(name, side, np.random.default_rng(list(digest)))
        if scene is not None:
            return scene
    raise AssertionError(f"no scene of the name {name!r} shows an object")


def scene_batches(
    preprocessing: Preprocessing,
    *,
    name: str = "0",
    seed: int,
    batch_images: int,
    masks_per_image: int,
) -> Iterator[Batch]:
    """Training batches without end; batch ``k`` depends on the arguments and ``k`` alone."""
    number = 0
    while True:
        names = [f"train/{name}/{number * batch_images + i}" for i in range(batch_images)]
        scenes = [make_scene(each, preprocessing.image_size) for each in names]
        yield collate(preprocessing, scenes, masks_per_image, seed, (0, number))
        number += 1


def collate(
    preprocessing: Preprocessing,
    scenes: Sequence[Scene],
    masks_per_image: int,
    seed: int,
    position: tuple[int, int] = (0, 0),
) -> Batch:
    """Scenes as a batch; every object is equally likely to be a target."""
    images, masks, valid, index, seeds = [], [], [], [], []
    for number, scene in enumerate(scenes):
        image_3SS, frame = preprocessing.prepare(scene.image_HW3)
        order = sorted(
            range(len(scene.masks_MHW)), key=lambda m: prompt_seed(scene.name, m, "order", 0, seed)
        )[:masks_per_image]
        images.append(image_3SS)
        masks.append(frame.masks_to_model(scene.masks_MHW[order]))
        valid.append(frame.masks_to_model(np.ones((1, *scene.masks_MHW.shape[1:]), bool)))
        index += [number] * len(order)
        seeds += [prompt_seed(scene.name, m, "scenes", 0, seed) for m in order]
    return Batch(
        images_B3SS=torch.stack(images),
        masks_M1SS=torch.cat(masks),
        valid_B1SS=torch.cat(valid),
        image_index_M=torch.tensor(index),
        seeds_M=torch.tensor(seeds, dtype=torch.int64),
        keys=tuple(scene.name for scene in scenes),
        position=position,
    )


def _try_scene(name: str, side: int, rng: Rng) -> Scene | None:
    short = int(side * rng.uniform(_SHORTEST, 1))
    size = (short, side) if rng.random() < 0.5 else (side, short)
    image = _texture(rng, size)
    owner_HW = np.zeros(size, np.int32)
    n = int(rng.integers(*_SHAPES))
    for label in range(1, n + 1):
        cover_HW = _shape(rng, size)
        owner_HW[cover_HW > 0.5] = label
        image += (_texture(rng, size) - image) * cover_HW[:, :, None]
    smallest = _SMALLEST_SHARE * owner_HW.size
    masks = [owner_HW == label for label in range(1, n + 1)]
    masks = [mask for mask in masks if mask.sum() >= smallest]
    if not masks:
        return None
    return Scene(name=name, image_HW3=_photograph(rng, image), masks_MHW=np.stack(masks))


def _photograph(rng: Rng, image_HW3: Floats) -> NDArray[np.uint8]:
    """Light from one side, a lens, a sensor; some pictures are black and white."""
    size = (image_HW3.shape[0], image_HW3.shape[1])
    image = image_HW3 * (1 + 0.25 * _ramp(rng, size) * rng.random())[:, :, None]
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
    if rng.random() < 0.3:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(0, 0.05)
    return (np.clip(image + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- textures


def _texture(rng: Rng, size: tuple[int, int]) -> Floats:
    """(H, W, 3) in 0..1: two similar or different colours mixed by a pattern."""
    first = rng.random(3, np.float32)
    contrast = rng.choice([0.1, 0.3, 0.7])
    second = np.clip(first + contrast * rng.standard_normal(3), 0, 1).astype(np.float32)
    weight_HW1 = PATTERNS[int(rng.integers(len(PATTERNS)))](rng, size)[:, :, None]
    return np.asarray(first + (second - first) * weight_HW1, np.float32)


def _ramp(rng: Rng, size: tuple[int, int]) -> Floats:
    """-1..1 across the picture, in some direction."""
    height, width = size
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.asarray((np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2), np.float32)


def _flat(rng: Rng, size: tuple[int, int]) -> Floats:
    return np.full(size, rng.random(), np.float32)


def _gradient(rng: Rng, size: tuple[int, int]) -> Floats:
    return np.asarray(0.5 + 0.5 * _ramp(rng, size), np.float32)


def _stripes(rng: Rng, size: tuple[int, int]) -> Floats:
    waves = np.sin(_ramp(rng, size) * rng.uniform(10, 60) + rng.uniform(0, 6))
    return np.asarray(0.5 + 0.5 * waves, np.float32)


def _checks(rng: Rng, size: tuple[int, int]) -> Floats:
    both = np.sin(_ramp(rng, size) * rng.uniform(10, 50)) * np.sin(
        _ramp(rng, size) * rng.uniform(10, 50)
    )
    return np.asarray(both > 0, np.float32)


def _clouds(rng: Rng, size: tuple[int, int]) -> Floats:
    coarse = rng.random((int(rng.integers(3, 24)), int(rng.integers(3, 24))), np.float32)
    return np.asarray(
        np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1), np.float32
    )


def _grains(rng: Rng, size: tuple[int, int]) -> Floats:
    return np.asarray(rng.random(size, np.float32) < rng.uniform(0.1, 0.9), np.float32)


PATTERNS: tuple[Callable[[Rng, tuple[int, int]], Floats], ...] = (
    _flat, _gradient, _stripes, _checks, _clouds, _clouds, _grains,
)  # fmt: skip

# ---------------------------------------------------------------- shapes


def _shape(rng: Rng, size: tuple[int, int]) -> Floats:
    """(H, W) cover in 0..1 of one shape somewhere in the picture, maybe cut by its border."""
    radius = max(size) * float(np.exp(rng.uniform(*np.log(_RADII))))
    centre = rng.uniform(0, 1, 2) * np.array(size[::-1])
    points = SHAPES[int(rng.integers(len(SHAPES)))](rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cover = _fill(size, points @ turn.T * radius + centre)
    if rng.random() < 0.2:  # a hole, in the middle (ring) or beside it (bite, crescent)
        inner = SHAPES[int(rng.integers(len(SHAPES)))](rng) * rng.uniform(0.3, 0.7)
        shift = rng.uniform(-0.6, 0.6, 2)
        cover *= 1 - _fill(size, (inner + shift) @ turn.T * radius + centre)
    return cover


def _fill(size: tuple[int, int], points_N2: NDArray[np.float64]) -> Floats:
    cover = np.zeros(size, np.uint8)
    fixed = np.round(points_N2 * 2**_SUBPIXEL).astype(np.int32)
    cv2.fillPoly(cover, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL)
    return np.asarray(cover / 255, np.float32)


def _blob(rng: Rng) -> NDArray[np.float64]:
    """A closed curve of a few Fourier terms."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    r = np.ones_like(t)
    for k in range(1, 6):
        r += rng.normal(0, 0.35 / k) * np.cos(k * t + rng.uniform(0, 6))
    r = np.maximum(r, 0.15)
    return np.stack([r * np.cos(t), r * np.sin(t) * rng.uniform(0.4, 1)], axis=1)


def _ellipse(rng: Rng) -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([np.cos(t), np.sin(t) * rng.uniform(0.3, 1)], axis=1)


def _polygon(rng: Rng) -> NDArray[np.float64]:
    """Three to eight corners, often a star."""
    corners = int(rng.integers(3, 9))
    t = np.sort(rng.uniform(0, 2 * np.pi, corners))
    r = rng.uniform(0.35, 1.2, corners)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def _rectangle(rng: Rng) -> NDArray[np.float64]:
    h = rng.uniform(0.2, 1)
    return np.array([[-1, -h], [1, -h], [1, h], [-1, h]])


def _worm(rng: Rng) -> NDArray[np.float64]:
    """A bent band."""
    t = np.linspace(-1.3, 1.3, 24)
    y = rng.normal(0, 0.5) * t**2 + rng.normal(0, 0.5) * np.sin(3 * t)
    width = rng.uniform(0.1, 0.35)
    upper, lower = np.stack([t, y - width], axis=1), np.stack([t, y + width], axis=1)
    return np.concatenate([upper, lower[::-1]])


SHAPES: tuple[Callable[[Rng], NDArray[np.float64]], ...] = (
    _blob, _blob, _ellipse, _polygon, _rectangle, _worm,
)  # fmt: skip
