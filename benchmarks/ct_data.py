"""Made-up CT volumes with a 13-label map, as the build benchmark reads them.

Noise is correlated as a reconstruction's is, so that deflate leaves of it what it leaves of a CT
(about 0.46 of the bytes at gzip level 6); some structures are torn into several parts a slice.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

N_LABELS = 13
SPACING_XYZ_MM = (0.75, 0.75, 2.5)
LABELS = (
    "liver", "spleen", "kidney_right", "kidney_left", "pancreas", "stomach", "gallbladder",
    "esophagus", "aorta", "duodenum", "urinary_bladder", "adrenal_gland_right",
    "adrenal_gland_left",
)  # fmt: skip
CATALOGUE = """
id: made_up_ct
name: Made-up CT for speed
modality: CT
dims: 3D
layout:
  images: [{pattern: "images/{case}.nii.gz"}]
  labels: [{pattern: "labels/{case}.nii.gz"}]
label_encoding: {type: index}
labels: {%s}
patient: {regex: "images/(ct[0-9]+)"}
license: CC0-1.0
homepage: https://example.org/made-up
"""


def volume(
    seed: int, shape_zyx: tuple[int, int, int]
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """An abdomen-like image in HU and its label map, (Z, Y, X)."""
    rng = np.random.default_rng(seed)
    z, y, x = shape_zyx
    yy, xx = np.meshgrid(
        np.linspace(-1, 1, y, dtype=np.float32),
        np.linspace(-1, 1, x, dtype=np.float32),
        indexing="ij",
    )
    body = (yy / 0.72) ** 2 + (xx / 0.9) ** 2
    spine = (yy - 0.5) ** 2 + xx**2 < 0.015
    tissue = np.select([spine, body < 0.8, body < 0.93, body < 1], [700, 45, -80, 40], -1000)
    organs = [_organ(rng, yy, xx) for _ in range(N_LABELS)]
    image, label = np.empty(shape_zyx, np.int16), np.zeros(shape_zyx, np.uint8)
    for k, height in enumerate(np.linspace(-1, 1, z)):
        plane = tissue.astype(np.float32)
        for value, (hu, region) in enumerate(organs, start=1):
            hit = region(height) & (body < 0.8)
            label[k][hit], plane[hit] = value, hu
        noise = gaussian_filter(rng.standard_normal((y, x), np.float32), 0.8)
        noise *= np.where(body < 1, 14, 5) / noise.std()
        image[k] = np.rint(np.clip(plane + noise, -1024, 3071))
    return image, label


def _organ(rng, yy, xx):
    """Its HU, and a function from height (-1 to 1) to the pixels it covers."""
    cz, cy, cx = rng.uniform(-0.5, 0.5, 3)
    rz, ry, rx = rng.uniform(0.45, 0.95), *rng.uniform(0.1, 0.32, 2)
    phase = rng.uniform(0, 2 * np.pi, 4)
    angle = np.arctan2(yy - cy, xx - cx)
    distance = np.sqrt(((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2)
    slow, fast = 0.25 * np.sin(3 * angle + phase[0]), 0.35 * np.sin(7 * angle + phase[1])
    torn = np.sin(14 * xx + phase[2]) > -0.75 if rng.random() < 0.4 else True

    def region(height):
        along = (height - 0.6 * cz) / rz
        if abs(along) >= 1:
            return np.zeros(yy.shape, bool)
        edge = np.sqrt(1 - along**2) * (1 + slow + fast * np.sin(9 * height + phase[3]))
        return (distance < edge) & torn

    return rng.uniform(-60, 180), region


def write(root: Path, n_volumes: int, shape_zyx: tuple[int, int, int]) -> tuple[Path, Path]:
    """Catalogue folder and data folder of ``n_volumes`` cases; volumes there already stay."""
    catalogs, data = root / "catalogs", root / "data" / "made_up_ct"
    catalogs.mkdir(parents=True, exist_ok=True)
    names = ", ".join(f'"{v}": {name}' for v, name in enumerate(LABELS, start=1))
    (catalogs / "made_up_ct.yaml").write_text(CATALOGUE % names)
    for seed in range(n_volumes):
        paths = [data / kind / f"ct{seed:02d}.nii.gz" for kind in ("images", "labels")]
        if not all(path.exists() for path in paths):
            for path, array in zip(paths, volume(seed, shape_zyx), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part")
                part.write_bytes(gzip.compress(nifti_bytes(array), 6))
                part.replace(path)
    return catalogs, root / "data"


def nifti_bytes(array_ZYX: NDArray) -> bytes:
    """One NIfTI-1 file in RAS axes."""
    head = bytearray(352)
    code, bits = {"int16": (4, 16), "uint8": (2, 8)}[array_ZYX.dtype.name]
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *array_ZYX.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1, *SPACING_XYZ_MM, 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    struct.pack_into("<2h", head, 252, 0, 1)
    for row in range(3):
        step = [0.0] * 4
        step[row] = SPACING_XYZ_MM[row]
        struct.pack_into("<4f", head, 280 + 16 * row, *step)
    head[344:348] = b"n+1\0"
    return bytes(head) + array_ZYX.tobytes()
