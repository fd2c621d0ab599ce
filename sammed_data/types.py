"""Carriers and errors that every room of sammed shares.

Axis letters: Z slices, Y or H rows, X or W columns, C channels, M masks. Coordinates are LPS
millimetres; boxes are half-open ``xyxy`` in pixels of the stored slice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sammed_data.runs import PlaneRuns, VolumeRuns

#: What is known of writing in the pixels of an image.
Writing = Literal["", "burned-in", "no-region"]


class SammedError(Exception):
    """A sentence for the user: what was expected, what was found, where, what to do."""


class UsageError(SammedError, ValueError):
    """The command line or configuration asks for something that cannot be done (exit code 2)."""


class CatalogError(SammedError, ValueError):
    """A catalogue entry or the ontology is wrong."""


class ReadError(SammedError, ValueError):
    """A file cannot be read as what it claims to be."""


class GeometryError(SammedError, ValueError):
    """Grids, positions or orientations do not agree."""


class CorpusError(SammedError, ValueError):
    """A corpus on disk is missing, damaged or of an unknown version."""


class ModelError(SammedError, ValueError):
    """A weight file or a model does not fit."""


class FetchError(SammedError, RuntimeError):
    """A download or an archive is missing, incomplete, unsafe or not what was expected."""


class InterruptedRun(SammedError):
    """The user or the scheduler asked to stop; what was finished stays (exit code 130)."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return a phrase that names the nearest known names, for 'unknown name' errors."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=n, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known names: {shown or 'none'}"


def counted(n: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 case``, ``2,000 cases``; ``many`` where no s makes it."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the voxels of a volume lie.

    Attributes:
        affine_lps: (4, 4) float64; maps (z, y, x, 1) array indices to LPS mm (x, y, z, 1).
        shape_zyx: array shape.
    """

    affine_lps: NDArray[np.float64]
    shape_zyx: tuple[int, int, int]

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Voxel size along each array axis in mm."""
        norms = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(norms[0]), float(norms[1]), float(norms[2])

    def corners_mm(self) -> NDArray[np.float64]:
        """(8, 3) LPS positions of the corner voxel centres."""
        last = np.array(self.shape_zyx, dtype=np.float64) - 1
        grid = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, 8).T * last
        return np.asarray(grid @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3])

    def describe(self) -> str:
        """Shape, spacing and origin in words, for error sentences."""
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_zyx_mm)
        origin = ", ".join(f"{v:.4g}" for v in self.affine_lps[:3, 3])
        shape = " x ".join(str(s) for s in self.shape_zyx)
        return f"{shape} voxels (z, y, x) of {spacing} mm from ({origin}) LPS"


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The part of a stored picture that an image is: masks of the whole picture are cut alike.

    Attributes:
        top, left: stored pixel where the part begins.
        whole_yx: size of the stored picture.
    """

    top: int
    left: int
    whole_yx: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An image: intensities on a grid.

    Attributes:
        array: (Z, Y, X) real values after rescale, or (Z, Y, X, 3) uint8 RGB; a 2D image has Z = 1.
        geometry: None for raster images, whose pixel size is unknown.
        bits: significant bits of the stored source, 8 or more.
        spacing_yx_mm: pixel size of a 2D image where its format states one, else None.
        modality: modality code read from the header where one exists (DICOM), else None.
        warnings: recorded oddities that are not errors (a UID mismatch with agreeing geometry).
        crop: which part of the stored picture this is; None = all of it.
        text: 'burned-in' where the header says that writing is in the pixels, 'no-region' for an
            ultrasound that does not say where its writing ends, else ''.
    """

    array: NDArray[Any]
    geometry: Geometry | None = None
    bits: int = 8
    spacing_yx_mm: tuple[float, float] | None = None
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    crop: Crop | None = None
    text: Writing = ""


@dataclass(frozen=True, kw_only=True)
class LabelLayer:
    """Masks that do not overlap each other, as one integer map.

    Attributes:
        array_ZYX: (Z, Y, X) integers, 0 = background.
        names: value in the array -> raw label of the entry (a key of its ``labels``).
        instances: value in the array -> instance number, for encodings with one object per value;
            empty where values are classes.
        annotator: 1 unless the source has several observers.
        runs: of the array it was made with, where they were looked for.
    """

    array_ZYX: NDArray[Any]
    names: Mapping[int, str]
    instances: Mapping[int, int] = field(default_factory=dict)
    annotator: int = 1
    runs: VolumeRuns | None = None

    @property
    def plane_runs(self) -> Sequence[PlaneRuns] | None:
        """Those of each plane, unless the map was changed since they were looked for."""
        known = self.runs is not None and self.runs.array_ZYX is self.array_ZYX
        return self.runs.planes if self.runs is not None and known else None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A mask file that an encoding set aside while it took the others: rule, class and reason."""

    rule: str
    label: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LabelVolume:
    """All masks of a case; layers may overlap. A type of its own so that no one interpolates it.

    Attributes:
        layers: at least one.
        geometry: None for raster labels.
        ignore_ZYX: bool map of pixels that count neither as object nor as background, or None.
        warnings: recorded oddities.
        without_area: kind -> how many marks of the source enclose no pixel (a point, a line).
        refused: masks that could not be taken, one by one.
    """

    layers: tuple[LabelLayer, ...]
    geometry: Geometry | None = None
    ignore_ZYX: NDArray[np.bool_] | None = None
    warnings: tuple[str, ...] = ()
    without_area: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Array shape shared by all layers."""
        z, y, x = self.layers[0].array_ZYX.shape
        return int(z), int(y), int(x)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Which part of a file is meant; empty for a file that holds one image or one label map.

    Attributes:
        variable: name of the array in a npz or mat file.
        axes: letters of the array's axes, outermost first.
        item: index along the axis N of an array.
        half: 'left' or 'right' half of a picture.
        rows, columns, dtype, bits, white_is_zero: of a file without a header; rows 0 = it has one.
    """

    variable: str | None = None
    axes: str | None = None
    item: int | None = None
    half: str | None = None
    rows: int = 0
    columns: int = 0
    dtype: str = ""
    bits: int = 16
    white_is_zero: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file a row came from: ``path`` is relative to the dataset root, POSIX style.

    A DICOM series is one SourceFile whose path is its folder.
    """

    role: str
    path: str


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """One label file (or series folder, SEG or RTSTRUCT object) of a case.

    Attributes:
        path: absolute path.
        structure: the value of ``{structure}`` in the pattern, for file_per_class encodings.
        annotator: observer number, 1 unless the pattern says otherwise.
        channel: index in the last axis of a 4D file, or None.
        pick: which part of the file.
    """

    path: Path
    structure: str | None = None
    annotator: int = 1
    channel: int | None = None
    pick: Pick = Pick()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its labels, found on disk, not yet read.

    Attributes:
        dataset: entry id.
        case_id: stable within the dataset (from the pattern's fields, or the relative path).
        patient_key: raw patient key from the entry's rule, or None where there is none.
        image_path: absolute path of the file or series folder.
        channel: index in the last axis of a 4D file, or None.
        sequence: MR sequence / CT phase / view, '' if the entry does not say.
        official_split: 'train', 'validation', 'test' where the entry's layout states it, else None.
        archive: file name of the zip or tar that its files were taken out of, else ''.
        damage: why they could not be taken out, else ''.
        pick: which part of the image file.
        fields: values of the image pattern's fields, by which tables name the image.
        tables: files of the entry's tables, which speak of this and other images.
        modality: where the images of an entry differ in it, else ''.
    """

    dataset: str
    case_id: str
    patient_key: str | None
    image_path: Path
    labels: tuple[LabelFile, ...]
    root: Path
    channel: int | None = None
    sequence: str = ""
    official_split: str | None = None
    archive: str = ""
    damage: str = ""
    pick: Pick = Pick()
    fields: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[Path, ...] = ()
    modality: str = ""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why something did not become a mask or an image: ``level`` is 'case', 'image' or 'mask'.

    ``count`` candidates share this row (parts under 4 px are one counted row a class and slice).
    """

    dataset: str
    case_id: str
    level: str
    rule: str
    reason: str
    slice_index: int | None = None
    axis: str | None = None
    label: str | None = None
    count: int = 1
