"""Patients of the 2D phantoms: breast ultrasound, fundus, dermoscopy, endoscopy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sammed_data.phantoms.shapes import Blob, Bools, Rng, Size, arc, band, lobes
from sammed_data.phantoms.textures import bias_field, clouds, colour, smooth, speckle, to_bytes

SIZE: Size = (120, 144)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image and its masks, which may overlap.

    Attributes:
        image: (H, W) or (H, W, 3) RGB uint8.
        masks_HW: raw label -> mask.
    """

    image: NDArray[np.uint8]
    masks_HW: Mapping[str, Bools]


def ultrasound(rng: Rng) -> Picture:
    """A lobulated dark lesion in layered tissue, with cysts and shadows that are as dark."""
    lesion = _lesion(rng, (22, 11), 0.28)
    mask = lesion.mask(SIZE)
    y = np.arange(SIZE[0])[:, None]
    layers = np.sin((y + 7 * clouds(rng, SIZE, 12.0)) / rng.uniform(5, 9))
    image = 105 + 22 * layers + 20 * clouds(rng, SIZE, 4.0)
    for _ in range(int(rng.integers(2, 5))):
        cyst = _lesion(rng, (8, 5), 0.2)
        image[cyst.mask(SIZE)] = 50
    for _ in range(2):  # shadows run from the probe downwards
        start, width = int(rng.integers(0, SIZE[1] - 14)), int(rng.integers(4, 14))
        image[int(rng.integers(20, 60)) :, start : start + width] *= 0.6
    image = np.where(mask, rng.uniform(38, 62) + 9 * clouds(rng, SIZE, 3.0), image)
    image = smooth(image, 1.2) * speckle(rng, SIZE) * np.exp(-0.006 * y)
    return Picture(image=to_bytes(image), masks_HW={"lesion": mask})


def fundus(rng: Rng) -> Picture:
    """Optic disc with an eccentric cup and four vessel arcades; bright patches as distractors."""
    eye = Blob(centre_yx=(60, 72), radii=(66, 58)).mask(SIZE)
    centre = (60 + float(rng.normal(0, 8)), float(rng.choice([48.0, 96.0]) + rng.normal(0, 6)))
    a = float(rng.uniform(13, 18))
    disc = Blob(
        centre_yx=centre,
        radii=(a * 1.2, a * 0.75),
        angle=float(rng.uniform(0.5, 1.0) * rng.choice([-1, 1])),
        lobes=lobes(rng, 0.12),
    )
    cup = Blob(
        centre_yx=(centre[0] + float(rng.normal(0, 2)), centre[1] + float(rng.normal(0, 2))),
        radii=(a * 0.8, a * 0.42),
        angle=disc.angle + float(rng.normal(0, 0.2)),
        lobes=lobes(rng, 0.15),
        bite=(float(rng.uniform(0, 6)), 1.0, 0.6),
    )
    disc_HW = disc.mask(SIZE)
    cup_HW = cup.mask(SIZE) & disc_HW
    vessels = _arcades(rng, centre) & eye
    image = np.ones((*SIZE, 1)) * colour(176, 78, 38, rng, 9)
    image += clouds(rng, SIZE, 8.0)[:, :, None] * np.array([14, 9, 5])
    for _ in range(4):
        patch = _lesion(rng, (7, 5), 0.25).mask(SIZE)
        image[patch] = colour(214, 158, 84, rng, 8)
    image[disc_HW] = colour(226, 160, 92, rng, 8)
    image[cup_HW] = colour(242, 204, 142, rng, 8)
    image[vessels] = image[vessels] * 0.55
    image = smooth(image, 0.9) * bias_field(rng, SIZE, 0.15)[:, :, None]
    image = image * eye[:, :, None] + rng.normal(0, 5, image.shape)
    masks = {"disc": disc_HW, "cup": cup_HW, "vessels": vessels}
    return Picture(image=to_bytes(image), masks_HW=masks)


def _arcades(rng: Rng, centre: tuple[float, float]) -> Bools:
    """Vessels that leave the disc upwards and downwards, both ways."""
    found = np.zeros(SIZE, bool)
    for up in (-1, 1):
        for side in (-1, 1):
            radii = (float(rng.uniform(32, 52)), float(rng.uniform(30, 70)))
            path = arc((centre[0], centre[1] + side * radii[1]), radii, 0.0, np.pi * 0.6)
            path[:, 0] = centre[0] + up * (path[:, 0] - centre[0])
            path[:, 1] = centre[1] + side * abs(path[:, 1] - (centre[1] + 2 * side * radii[1]))
            path[:, 0] += np.cumsum(rng.normal(0, 0.25, len(path)))
            found |= band(SIZE, path, np.linspace(rng.uniform(3.5, 5), 2.2, len(path)))
    return found


def dermoscopy(rng: Rng) -> Picture:
    """A pigmented lesion of several colours under hair, with freckles beside it."""
    lesion = _lesion(rng, (36, 20), 0.26)
    mask = lesion.mask(SIZE)
    image = np.ones((*SIZE, 1)) * colour(212, 162, 138, rng, 12)
    image += clouds(rng, SIZE, 2.0)[:, :, None] * 6 + clouds(rng, SIZE, 20.0)[:, :, None] * 10
    for _ in range(int(rng.integers(3, 8))):
        freckle = _lesion(rng, (6, 4), 0.2).mask(SIZE)
        image[freckle] = colour(150, 100, 76, rng, 10)
    first, second = colour(146, 96, 72, rng, 14), colour(92, 60, 50, rng, 14)
    share = 1 / (1 + np.exp(-2 * clouds(rng, SIZE, 5.0)))
    image[mask] = (first + (second - first) * share[:, :, None])[mask]
    image = smooth(image, float(rng.uniform(1.0, 2.2)))
    for _ in range(int(rng.integers(4, 12))):
        centre = (float(rng.uniform(-60, 180)), float(rng.uniform(-60, 200)))
        radius = float(rng.uniform(60, 130))
        start = float(rng.uniform(0, 6))
        hair = band(SIZE, arc(centre, (radius, radius), start, start + 0.9), 1.4)
        image[hair] = colour(60, 45, 40, rng, 8)
    light = bias_field(rng, SIZE, 0.12)[:, :, None]
    return Picture(
        image=to_bytes(image * light + rng.normal(0, 4, image.shape)), masks_HW={"lesion": mask}
    )


def endoscopy(rng: Rng) -> Picture:
    """A polyp hardly redder than the mucosa, between folds and highlights."""
    polyp = _lesion(rng, (26, 15), 0.24)
    depth = polyp.field(SIZE)
    mask = depth > 0
    image = np.ones((*SIZE, 1)) * colour(190, 108, 90, rng, 10)
    folds = np.sin((clouds(rng, SIZE, 14.0) * 9 + np.arange(SIZE[1])[None]) / rng.uniform(7, 12))
    image += folds[:, :, None] * np.array([20, 16, 13]) + clouds(rng, SIZE, 3.0)[:, :, None] * 6
    dome = np.sqrt(np.clip(depth, 0, 1))[:, :, None]
    image = np.where(
        mask[:, :, None], colour(196, 88, 78, rng, 9) - 22 + 46 * dome, image
    ) + clouds(rng, SIZE, 2.0)[:, :, None] * np.array([4, 7, 6])
    image = smooth(image, 1.0) * bias_field(rng, SIZE, 0.3)[:, :, None]
    glints = smooth((rng.random(SIZE) > 0.997).astype(np.float64), 1.0) * 6
    image += np.clip(glints, 0, 1)[:, :, None] * 120
    return Picture(image=to_bytes(image + rng.normal(0, 4, image.shape)), masks_HW={"polyp": mask})


def _lesion(rng: Rng, radii: tuple[float, float], strength: float) -> Blob:
    """Somewhere, oblique, lobed; every second one has a bite."""
    grown = rng.uniform(0.65, 1.2)
    bite = (float(rng.uniform(0, 2 * np.pi)), 1.0, 0.65) if rng.random() < 0.5 else None
    return Blob(
        centre_yx=(
            float(rng.uniform(0.28, 0.72) * SIZE[0]),
            float(rng.uniform(0.25, 0.75) * SIZE[1]),
        ),
        radii=(radii[0] * grown, radii[1] * grown),
        angle=float(rng.uniform(0.35, 1.2) * rng.choice([-1, 1])),
        lobes=lobes(rng, strength),
        bite=bite,
    )
