"""How the released corpora name modality, source, case, slice and class."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sammed_data.types import ReadError, nearest

#: Prefix of a SA-Med2D-20M file -> (modality, sequence).
PREFIXES: dict[str, tuple[str, str]] = {
    "ct_00": ("CT", ""),
    **{f"ct_{s}": ("CT", s.upper()) for s in ("cbf", "cbv", "mtt", "tmax")},
    "dermoscopy_00": ("dermoscopy", ""),
    "endoscopy_00": ("endoscopy", ""),
    "fundus_photography": ("fundus", ""),
    "mr_00": ("MR", ""),
    "mr_cmr": ("MR", "cine"),
    "mr_mprage": ("MR", "MPRAGE"),
    "mr_t1c": ("MR", "T1ce"),
    "mr_t1ce": ("MR", "T1ce"),
    "mr_t1gd": ("MR", "T1ce"),
    "mr_t1": ("MR", "T1"),
    "mr_t1w": ("MR", "T1w"),
    "mr_t2": ("MR", "T2"),
    "mr_t2w": ("MR", "T2w"),
    "mr_rcbf": ("MR", "rCBF"),
    "mr_rcbv": ("MR", "rCBV"),
    **{
        f"mr_{s}": ("MR", s.upper())
        for s in ("adc", "cbf", "cbv", "dwi", "flair", "hbv", "lge", "mtt", "pd", "tmax", "ttp")
    },
    "pet_00": ("PET", ""),
    "ultrasound_00": ("ultrasound", ""),
    "x_ray": ("X-ray", ""),
}
#: Axis letter of a SA-Med2D-20M slice -> axis of the corpus. The letter is the axis of the stored
#: array, which for volumes stored right to left, front to back, bottom to top is this one.
AXES = {"x": "sagittal", "y": "coronal", "z": "axial", "2d": "native"}
#: First word of a modality of IMed-361M -> modality.
WORDS = {
    "ct": "CT", "cta": "CT", "mr": "MR", "mri": "MR", "pet": "PET", "x": "X-ray", "xray": "X-ray",
    "cxr": "X-ray", "us": "ultrasound", "ultrasound": "ultrasound", "dermoscopy": "dermoscopy",
    "endoscopy": "endoscopy", "colonoscopy": "endoscopy", "fundus": "fundus", "oct": "OCT",
    "histopathology": "histopathology", "pathology": "histopathology", "microscopy": "microscopy",
    "mammography": "mammography",
}  # fmt: skip
_MASK = re.compile(r"(?P<class_id>\d{4,})_(?P<instance>\d{3,})\.png")


@dataclass(frozen=True, kw_only=True)
class ImageName:
    """The four parts of a SA-Med2D-20M image name, which two dashes join."""

    prefix: str
    source: str
    case: str
    place: str

    @property
    def axis(self) -> str:
        """Axis of the corpus; 'native' for pictures."""
        return AXES[self.place.partition("_")[0]]


def image_name(stem: str) -> ImageName:
    """Split the name of an image; a case may hold two dashes itself.

    Raises:
        ReadError: fewer than four parts, an unknown modality, or an unknown axis.
    """
    parts = stem.split("--")
    if len(parts) < 4 or not all(parts):
        raise ReadError(
            f"{stem}: expected a name modality--source--case--slice, found {len(parts)} parts"
        )
    if parts[0] not in PREFIXES:
        raise ReadError(f"{stem}: unknown modality {parts[0]!r}; {nearest(parts[0], PREFIXES)}")
    if parts[-1].partition("_")[0] not in AXES:
        raise ReadError(f"{stem}: expected a slice x_N, y_N, z_N or 2d_none, found {parts[-1]!r}")
    return ImageName(prefix=parts[0], source=parts[1], case="--".join(parts[2:-1]), place=parts[-1])


def class_id(mask: str) -> str | None:
    """Class id ('0003') of a mask's path, or None where it has none."""
    found = _MASK.fullmatch(mask.rpartition("--")[2])
    return None if found is None else found["class_id"]


def modality_word(text: str) -> str | None:
    """Modality of IMed-361M's word for it, or None."""
    return WORDS.get(re.split(r"[^a-z]+", text.strip().lower())[0])
