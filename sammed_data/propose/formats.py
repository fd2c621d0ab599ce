"""What a file holds, by its header and its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.propose.arrays import pick_of
from sammed_data.propose.axes import images_in
from sammed_data.propose.carriers import Item, Role
from sammed_data.types import SammedError

MAX_LOOK_BYTES = 96 << 20
_FEW_VALUES, _HANDFUL, _SMOOTH, _BIMODAL = 300, 16, 0.6, 0.97


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one file turned out to hold.

    Attributes:
        shape: (Z, Y, X) as read.
        channels: length of the fourth axis of a 4D file, else 1.
        colours: three channels that differ.
        counts: value -> pixels, for up to 300 distinct whole values; empty for more.
        n_values: distinct values (colours are packed r, g, b).
        low: least value.
        high: greatest value.
        whole: all values are whole numbers.
        smooth: share of neighbours with equal value, background pairs left out.
        bimodal: share of pixels near the two ends of the range.
        dark_border: share of black pixels in the four corners (16 x 16 each).
        mean_rgb: of a colour image, else empty.
    """

    shape: tuple[int, ...]
    channels: int
    colours: bool
    counts: Mapping[int, int]
    n_values: int
    low: float
    high: float
    whole: bool
    smooth: float
    bimodal: float
    dark_border: float
    mean_rgb: tuple[float, ...] = ()

    @property
    def role(self) -> Role | None:
        """Label or image by content, None where it does not say (an empty mask, a flat image)."""
        if self.n_values == 1:
            return None
        if not self.whole:
            return "image"
        if self.n_values <= _HANDFUL or (self.n_values <= _FEW_VALUES and self.smooth >= _SMOOTH):
            return "label"
        if self.n_values <= 4096 and self.whole and self.smooth >= 0.9:
            return "label"  # many instances
        return "label" if self.lossy else "image"

    @property
    def lossy(self) -> bool:
        """A mask of two values whose edges a lossy format or a resize has blurred."""
        wide = self.low < 24 and 200 <= self.high < 256
        return self.n_values > 2 and wide and self.bimodal >= _BIMODAL and not self.colours


def channels_of(root: Path, item: Item) -> int:
    """Length of the fourth axis, from the header alone."""
    if item.kind == "nifti":
        import nibabel
        from nibabel.filebasedimages import ImageFileError

        try:
            shape = nibabel.load(root / item.path).shape  # type: ignore[attr-defined]
        except (OSError, ValueError, ImageFileError):
            return 1
        return int(np.prod(shape[3:])) if len(shape) > 3 else 1
    if item.kind == "itk":
        reader = _itk_header(root / item.path)
        if reader is None:
            return 1
        size = reader.GetSize()
        return int(np.prod(size[3:]) * reader.GetNumberOfComponents())
    return 1


def look(root: Path, item: Item) -> Look | None:
    """Read one file and describe its values; None if it is too large.

    Raises:
        SammedError: the file cannot be read.
    """
    from sammed_data.readers.registry import read_volume

    if item.size > MAX_LOOK_BYTES:
        return None
    channels = channels_of(root, item)
    n = images_in(item)
    volume = read_volume(
        root / item.path.rstrip("/"),
        channel=0 if channels > 1 else None,
        pick=pick_of(item, None if n is None else n // 2),
    )
    return describe(volume.array, channels)


def describe(array: NDArray[Any], channels: int = 1) -> Look:
    """Describe (Z, Y, X) values or (Z, Y, X, 3) colours."""
    colours = False
    mean: tuple[float, ...] = ()
    corners = _corners(array)
    if array.ndim == 4:
        colours = bool((array != array[..., :1]).any())
        mean = tuple(float(v) for v in array.reshape(-1, array.shape[-1]).mean(axis=0))
        array = array.astype(np.int64) @ [1 << 16, 1 << 8, 1] if colours else array[..., 0]
    finite = array if array.dtype.kind in "uib" else array[np.isfinite(array)]
    whole = array.dtype.kind in "uib" or bool(
        finite.size == array.size and (finite == np.rint(finite)).all()
    )
    values, n = np.unique(finite, return_counts=True) if finite.size else (np.zeros(1), [0])
    low, high = float(values[0]), float(values[-1])
    near = max(1.0, 0.1 * (high - low))
    ends = (values <= low + near) | (values >= high - near)
    few = whole and len(values) <= _FEW_VALUES
    return Look(
        shape=tuple(int(v) for v in array.shape),
        channels=channels,
        colours=colours,
        counts={int(v): int(c) for v, c in zip(values, n, strict=True)} if few else {},
        n_values=len(values),
        low=low,
        high=high,
        whole=whole,
        smooth=_smooth(array, values[int(np.argmax(n))]),
        bimodal=float(np.asarray(n)[ends].sum() / max(1, finite.size)),
        dark_border=corners,
        mean_rgb=mean,
    )


def _corners(array: NDArray[Any]) -> float:
    plane = array[len(array) // 2]
    plane = plane.max(axis=-1) if plane.ndim == 3 else plane
    h, w = max(1, plane.shape[0] // 16), max(1, plane.shape[1] // 16)
    parts = [plane[:h, :w], plane[:h, -w:], plane[-h:, :w], plane[-h:, -w:]]
    return float(np.mean([(p <= 16).mean() for p in parts]))


def _smooth(array: NDArray[Any], background: Any) -> float:
    left, right = array[..., :-1], array[..., 1:]
    shown = (left != background) | (right != background)
    n = int(shown.sum())
    return float(((left == right) & shown).sum() / n) if n else 1.0


def grid_key(root: Path, item: Item) -> tuple[Any, ...] | None:
    """Size and corners in space, the same for two files on one grid in any stored order."""
    geometry = _geometry(root, item)
    if geometry is None:
        return None
    shape, corners = geometry
    unit = max(0.05, float(np.ptp(corners, axis=0).max()) / 2000)
    places = sorted(tuple(int(v) for v in np.rint(c / unit)) for c in corners)
    return (tuple(sorted(shape)), tuple(places[0]), tuple(places[-1]))


def _geometry(root: Path, item: Item) -> tuple[tuple[int, ...], NDArray[np.float64]] | None:
    path = root / item.path.rstrip("/")
    if item.kind == "nifti":
        import nibabel
        from nibabel.filebasedimages import ImageFileError

        try:
            image = nibabel.load(path)
        except (OSError, ValueError, ImageFileError):
            return None
        shape = tuple(int(n) for n in image.shape[:3])  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        return (shape, _box(affine, shape)) if len(shape) == 3 else None
    if item.kind == "itk":
        reader = _itk_header(path)
        if reader is None or reader.GetDimension() < 3:
            return None
        shape = tuple(int(n) for n in reader.GetSize()[:3])
        dims = reader.GetDimension()
        direction = np.array(reader.GetDirection()).reshape(dims, dims)[:3, :3]
        affine = np.eye(4)
        affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
        affine[:3, 3] = reader.GetOrigin()[:3]
        return shape, _box(affine, shape)
    if item.kind == "dicom":
        from sammed_data.readers import dicom

        try:
            found = dicom.read(path).geometry
        except SammedError:
            return None
        return None if found is None else (found.shape_zyx, found.corners_mm())
    return None


def _box(affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    last = np.array(shape[:3], dtype=np.float64) - 1
    grid = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, 8).T * last
    return np.asarray(grid @ affine[:3, :3].T + affine[:3, 3])


def _itk_header(path: Path) -> Any:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader


def segment_names(root: Path, item: Item) -> dict[str, str]:
    """Label value -> segment name of a 3D Slicer ``.seg.nrrd``; empty for other files."""
    reader = _itk_header(root / item.path) if item.kind == "itk" else None
    if reader is None:
        return {}
    names = {}
    for key in reader.GetMetaDataKeys():
        head, _, end = key.rpartition("_")
        if end == "LabelValue" and head.startswith("Segment"):
            name = f"{head}_Name"
            if name in reader.GetMetaDataKeys():
                names[str(int(reader.GetMetaData(key)))] = reader.GetMetaData(name)
    return names
