"""Patients of the 3D phantoms: abdomen CT, cardiac MR, thorax CT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sammed_data.phantoms.shapes import Blob, Bools, Floats, Rng, Size, arc, band, lobes
from sammed_data.phantoms.textures import bias_field, clouds, smooth

SIZE: Size = (88, 104)
_DRIFT_PX = 2.5


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A volume and its masks, rows A to P, columns R to L, slices I to S.

    Attributes:
        image_ZYX: int16.
        masks_ZYX: raw label -> mask; masks do not overlap.
        spacing_zyx_mm: voxel size.
    """

    image_ZYX: NDArray[np.int16]
    masks_ZYX: Mapping[str, Bools]
    spacing_zyx_mm: tuple[float, float, float]


class Slicer:
    """Grows and moves a patient's shapes from slice to slice."""

    def __init__(self, rng: Rng, n_slices: int) -> None:
        self.n = n_slices
        self.drift_yx = rng.uniform(-_DRIFT_PX, _DRIFT_PX, 2)

    def cut(self, shape: Blob, z: int, *, taper: float = 0.8) -> Bools:
        """The shape in slice ``z``: widest in the middle, moved along."""
        t = (2 * z + 1 - self.n) / self.n
        turned = replace(shape, lobes=tuple((k, a, phase + 0.6 * t) for k, a, phase in shape.lobes))
        scale = float(np.sqrt(max(1 - (taper * t) ** 2, 0.05)))
        return turned.mask(SIZE, scale=scale, shift_yx=tuple(self.drift_yx * t))


def abdomen_ct(rng: Rng) -> Anatomy:
    """Liver with a tumour, spleen, kidneys, aorta; bowel that looks like them."""
    n = int(rng.integers(4, 7))
    place = _Placer(rng)
    liver = place.blob((42, 34), (26, 15), 0.6, 0.16, bite=(0.5, 0.85, 0.85))
    spleen = place.blob((44, 84), (18, 11), 1.1, 0.14, bite=(1.6, 0.8, 0.85))
    kidneys = [
        place.blob((64, 36), (13, 8), 0.8, 0.12, bite=(-1.5, 0.8, 0.75)),
        place.blob((64, 72), (13, 8), -0.8, 0.12, bite=(-1.6, 0.8, 0.75)),
    ]
    tumour = place.blob((42, 27), (14, 9), 0.8, 0.25, bite=(float(rng.uniform(0, 6)), 1.0, 0.6))
    bowel = [
        place.blob((float(rng.uniform(22, 60)), float(rng.uniform(44, 70))), (7, 5), 0.0, 0.25)
        for _ in range(4)
    ]
    vessel = arc((54, 54), (float(rng.uniform(8, 12)), 7.0), 0.3, float(rng.uniform(3.2, 4.2)))
    vessel = vessel + rng.normal(0, 2, 2)
    width = float(rng.uniform(3.5, 5.5))
    hu = {
        "liver": 75 + rng.normal(0, 12),
        "spleen": 85 + rng.normal(0, 12),
        "kidney": 130 + rng.normal(0, 25),
        "aorta": 150 + rng.normal(0, 30),
        "tumour": -75 + rng.normal(0, 10),
        "bowel": 60 + rng.normal(0, 25),
    }
    slicer = Slicer(rng, n)
    planes, labels = [], []
    for z in range(n):
        body = Blob(centre_yx=(46, 52), radii=(50, 40)).mask(SIZE)
        image = np.where(body, -60 + 45 * clouds(rng, SIZE, 3.0), -1000.0)
        for piece in bowel:
            image[slicer.cut(piece, z) & body] = hu["bowel"]
        label = np.zeros(SIZE, np.int16)
        cuts = {1: slicer.cut(liver, z), 2: slicer.cut(spleen, z)}
        cuts |= {3 + i: slicer.cut(kidney, z) for i, kidney in enumerate(kidneys)}
        cuts[5] = band(SIZE, vessel + slicer.drift_yx * z / n, width)
        for value, name in (
            (1, "liver"),
            (2, "spleen"),
            (3, "kidney"),
            (4, "kidney"),
            (5, "aorta"),
        ):
            image[cuts[value] & body] = hu[name]
            label[cuts[value] & body] = value
        lesion = slicer.cut(tumour, z, taper=1.1) & (label == 1)
        label[lesion] = 6
        image[lesion] += hu["tumour"]
        planes.append(smooth(image + 10 * clouds(rng, SIZE, 1.5), 0.8) + rng.normal(0, 18, SIZE))
        labels.append(label)
    names = ("liver", "spleen", "kidney_right", "kidney_left", "aorta", "liver_tumor")
    return _anatomy(planes, np.stack(labels), names, (5.0, 3.2, 3.4))


def cardiac_mr(rng: Rng) -> Anatomy:
    """Left ventricle in its muscular ring with a scar, crescent of the right one; a bias field."""
    n = int(rng.integers(4, 7))
    place = _Placer(rng)
    radius = float(rng.uniform(15, 20))
    ring = place.blob((46, 60), (radius * 1.25, radius), 0.5, 0.08)
    wall = float(rng.uniform(0.5, 0.6))
    cavity = replace(
        ring,
        radii=(ring.radii[0] * wall, ring.radii[1] * wall),
        lobes=lobes(rng, 0.1),
        bite=(float(rng.uniform(0, 2 * np.pi)), 1.0, 0.6),
    )
    right = place.blob((46, 34), (26, 15), 1.3, 0.1, bite=(-1.3, 1.0, 0.95))
    scar = place.blob((46, 60), (13, 9), float(rng.uniform(0, 3)), 0.3)
    turn = float(rng.uniform(0, 2 * np.pi))
    scar = replace(
        scar,
        centre_yx=(
            ring.centre_yx[0] + radius * np.sin(turn),
            ring.centre_yx[1] + radius * np.cos(turn),
        ),
    )
    vessels = [
        place.blob((float(rng.uniform(8, 80)), float(rng.uniform(8, 96))), (6, 4), 0.0, 0.25)
        for _ in range(5)
    ]
    blood, muscle = 620 + rng.normal(0, 60), 190 + rng.normal(0, 30)
    slicer = Slicer(rng, n)
    gain = bias_field(rng, SIZE, 0.18)
    planes, labels = [], []
    for z in range(n):
        image = 380 + 70 * clouds(rng, SIZE, 5.0)
        for vessel in vessels:
            image[slicer.cut(vessel, z)] = blood * 0.9
        outer, inner = slicer.cut(ring, z, taper=0.6), slicer.cut(cavity, z, taper=0.6)
        label = np.zeros(SIZE, np.int16)
        label[slicer.cut(right, z)] = 3
        label[outer] = 1
        label[inner & outer] = 2
        label[slicer.cut(scar, z) & (label == 1)] = 4
        for value, level in ((1, muscle), (2, blood), (3, blood), (4, 0.75 * blood)):
            image[label == value] = level
        image = smooth(image, 0.9) * gain
        planes.append(np.hypot(image + rng.normal(0, 40, SIZE), rng.normal(0, 40, SIZE)))
        labels.append(label)
    names = ("myocardium", "LV", "RV", "scar")
    return _anatomy(planes, np.stack(labels), names, (8.0, 1.6, 1.5))


def thorax_ct(rng: Rng) -> Anatomy:
    """Lungs with vessels and a spiculated tumour, heart between them with little contrast."""
    n = int(rng.integers(4, 7))
    place = _Placer(rng)
    lungs = [
        place.blob((44, 28), (28, 15), 1.45, 0.12, bite=(-1.2, 0.9, 0.85)),
        place.blob((44, 76), (28, 15), 1.7, 0.12, bite=(1.2, 0.9, 0.85)),
    ]
    heart = place.blob((44, 54), (17, 11), 0.6, 0.16, bite=(2.5, 0.9, 0.75))
    side = int(rng.integers(2))
    home = lungs[side].centre_yx
    tumour = place.blob(
        (home[0] + float(rng.uniform(-9, 9)), home[1]),
        (14, 10),
        float(rng.choice([-0.8, 0.8])),
        0.25,
    )
    slicer = Slicer(rng, n)
    levels = {"lung": -820 + rng.normal(0, 40), "heart": 70 + rng.normal(0, 15)}
    planes, labels = [], []
    for z in range(n):
        body = Blob(centre_yx=(45, 52), radii=(50, 41)).mask(SIZE)
        image = np.where(body, -110 + 45 * clouds(rng, SIZE, 2.5), -1000.0)
        label = np.zeros(SIZE, np.int16)
        for value, shape in ((3, heart), (1, lungs[0]), (2, lungs[1])):
            label[slicer.cut(shape, z) & body] = value
        label[slicer.cut(tumour, z, taper=1.0) & (label == 1 + side)] = 4
        image[label == 3] = levels["heart"]
        in_lung = (label == 1) | (label == 2)
        image[in_lung] = levels["lung"]
        image[in_lung & (clouds(rng, SIZE, 1.0) > 2.3)] = -350
        image[label == 4] = 40
        planes.append(smooth(image, 0.8) + rng.normal(0, 25, SIZE))
        labels.append(label)
    names = ("Lung_R", "Lung_L", "Heart", "GTV")
    return _anatomy(planes, np.stack(labels), names, (6.0, 3.5, 3.3))


class _Placer:
    """Shapes of one patient: all a little larger, moved and turned from where they belong."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.size = float(rng.uniform(0.85, 1.12))

    def blob(
        self,
        centre_yx: tuple[float, float],
        radii: tuple[float, float],
        angle: float,
        strength: float,
        bite: tuple[float, float, float] | None = None,
    ) -> Blob:
        rng = self.rng
        grown = radii[0] * self.size * rng.uniform(0.85, 1.15), radii[1] * self.size
        if bite is not None:
            bite = (bite[0] + rng.normal(0, 0.3), bite[1], bite[2] * rng.uniform(0.85, 1.15))
        return Blob(
            centre_yx=(centre_yx[0] + rng.normal(0, 2.5), centre_yx[1] + rng.normal(0, 2.5)),
            radii=(float(grown[0]), float(grown[1] * rng.uniform(0.85, 1.15))),
            angle=angle + float(rng.normal(0, 0.2)),
            lobes=lobes(rng, strength),
            bite=bite,
        )


def _anatomy(
    planes: list[Floats],
    label_ZYX: NDArray[np.int16],
    names: tuple[str, ...],
    spacing_zyx_mm: tuple[float, float, float],
) -> Anatomy:
    image = np.clip(np.round(np.stack(planes)), -1024, 3000).astype(np.int16)
    masks = {name: label_ZYX == value for value, name in enumerate(names, 1)}
    return Anatomy(image_ZYX=image, masks_ZYX=masks, spacing_zyx_mm=spacing_zyx_mm)
