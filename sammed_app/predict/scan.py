"""The images: which ones a command line names, their voxels, and their slices as 8-bit pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.intensity import Context, Intensity, check_policy, choose, statistics
from sammed_data.readers.limits import first_bytes
from sammed_data.readers.registry import file_format, read_volume
from sammed_data.slices import Slice, cut, place, straight
from sammed_data.types import Geometry, ReadError, UsageError, Volume

_MODALITY = {
    "PT": "PET", "NM": "PET", "US": "ultrasound", "CR": "X-ray", "DX": "X-ray", "MG": "mammography"
}  # fmt: skip
AXES = ("axial", "coronal", "sagittal", "native")
_ENDINGS = (".nii.gz", ".ppm.gz", ".pgm.gz")
_AIR_HU = -900


@dataclass(frozen=True, kw_only=True)
class Window:
    """How intensities become 8 bits: what the corpus of the weights did.

    Attributes:
        policy: of ``sammed_data.intensity``.
        modality: CT, MR, PET ...; '' = as the header says.
        bounds: fixed (low, high), before any policy.
    """

    policy: str = "auto"
    modality: str = ""
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """An image with its slices.

    Attributes:
        path: file or series folder.
        format: nifti, itk, dicom, raster, array or video.
        volume: in canonical axes.
        intensity: to 8 bits.
        orientation: lps or stored, see ``sammed_data.slices``.
        warnings: what the user should know.
    """

    path: Path
    format: str
    volume: Volume
    intensity: Intensity
    orientation: str
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name without its ending, or the folder's."""
        return stem_of(self.path)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Of the canonical array."""
        z, y, x = self.volume.array.shape[:3]
        return int(z), int(y), int(x)

    @property
    def offset_xy(self) -> tuple[int, int]:
        """Where the volume begins in the stored picture (ultrasound is cut to its region)."""
        crop = self.volume.crop
        return (0, 0) if crop is None else (crop.left, crop.top)

    def axis_of(self, wanted: str) -> str:
        """The axis meant: 2D pictures have one only."""
        if self.volume.geometry is None:
            return "native"
        return wanted or "axial"

    def count(self, axis: str) -> int:
        """Number of slices along an axis."""
        return self.shape_zyx[
            ("axial", "coronal", "sagittal").index(axis) if axis in AXES[:3] else 0
        ]

    def size(self, axis: str) -> tuple[int, int]:
        """Height and width of the slices along an axis, of the whole stored picture."""
        if self.volume.crop is not None:
            return self.volume.crop.whole_yx
        height, width = self.view(self.volume.array, axis, 0).shape[:2]
        return height, width

    def view(self, array: NDArray[Any], axis: str, index: int) -> NDArray[Any]:
        """A slice of a canonical array as shown: a view, so writing to it writes the array."""
        return cut(array, axis, index, self.orientation)

    def picture(self, axis: str, index: int) -> NDArray[np.uint8]:
        """A slice as the model sees it: uint8, (H, W) or (H, W, 3)."""
        plane = self.view(self.volume.array, axis, index)
        return np.ascontiguousarray(self.intensity.to_uint8(straight(plane)))

    def place(self, axis: str, index: int) -> Slice:
        """Where a slice lies in the patient."""
        return place(self.volume, axis, index)


def read_scan(path: Path, window: Window, *, orientation: str, channel: int | None) -> Scan:
    """Read an image and choose its window.

    Raises:
        ReadError, GeometryError: the file is damaged, or no grid.
    """
    volume = read_volume(path, channel=channel)
    warnings = list(volume.warnings)
    values = volume.array
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        volume = replace(volume, array=np.nan_to_num(values, nan=float(np.nanmin(values))))
        warnings.append("values that are no numbers were replaced by the lowest")
    chosen, hint = intensity_of(volume, window)
    return Scan(
        path=path,
        format=file_format(path),
        volume=volume,
        intensity=chosen,
        orientation=orientation,
        warnings=(*warnings, *([hint] if hint else [])),
    )


def intensity_of(volume: Volume, window: Window) -> tuple[Intensity, str]:
    """The map to 8 bits that a window means for a volume, and a hint where it may be wrong."""
    modality = window.modality or _MODALITY.get(volume.modality or "", volume.modality or "")
    stats = statistics(volume.array)
    hint = ""
    if not modality and volume.geometry is not None and stats.minimum <= _AIR_HU:
        hint = "values look like HU: say --modality CT for its soft-tissue window"
    context = Context(modality=modality, window=window.bounds, bits=volume.bits)
    chosen = choose("window" if window.bounds else check_policy(window.policy), context, stats)
    return chosen, hint


def stem_of(path: Path) -> str:
    """``scan`` of ``scan.nii.gz``."""
    lower = path.name.lower()
    for ending in _ENDINGS:
        if lower.endswith(ending):
            return path.name[: -len(ending)]
    return path.name if path.is_dir() else path.stem


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """The images that files and folders on the command line mean, without repeats.

    A folder of DICOM files is one series; of other images, all of them; of folders, each of them.

    Raises:
        UsageError: a path is missing, or a folder holds no image.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise UsageError(f"expected an image at {path}, found nothing: check the path")
        found += _in_folder(path) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _in_folder(folder: Path) -> list[Path]:
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    files = [p for p in entries if p.is_file() and p.stat().st_size]
    formats = {p: _format(p) for p in files}
    if "dicom" in formats.values():
        return [folder]
    images = [p for p in files if formats[p] in ("nifti", "itk", "raster")]
    if not images:
        images = [found for p in entries if p.is_dir() for found in _in_folder(p)]
    if not images:
        raise UsageError(
            f"expected images in {folder}, found none: PNG, JPEG, TIFF, NIfTI, NRRD or DICOM"
        )
    return images


def _format(path: Path) -> str:
    try:
        return file_format(path)
    except ReadError:  # a text file beside the images
        return "dicom" if first_bytes(path)[128:132] == b"DICM" else ""


def geometry_of(scan: Scan, what: str) -> Geometry:
    """The grid in the patient.

    Raises:
        ReadError: a picture has none.
    """
    if scan.volume.geometry is None:
        raise ReadError(
            f"{scan.path}: expected an image with a place in the patient for {what}, found a "
            "picture; write PNG (--format png)"
        )
    return scan.volume.geometry
