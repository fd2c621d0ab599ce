"""Geometry and intensity headers of DICOM files; nothing that names a person is read.

UIDs are compared in memory to group files and are never stored, returned or printed.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.dicom_regions import Region, regions_of
from sammed_data.readers.dicom_stacks import separators
from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import ReadError

NOT_IMAGES = frozenset({"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC"})
# Codes of the standard. Anything else in this tag may name a person, and is not repeated.
_MODALITIES = frozenset((
    "AR", "AS", "BDUS", "BMD", "CR", "CT", "CTPROTOCOL", "DG", "DX", "ECG", "EPS", "ES", "GM",
    "HC", "HD", "IO", "IVOCT", "IVUS", "KER", "LEN", "LS", "MG", "MR", "NM", "OAM", "OCT", "OP",
    "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PLAN", "PT", "PX", "RESP", "RF", "RG",
    "SM", "SMR", "SRF", "ST", "STAIN", "TG", "US", "VA", "XA", "XC", *NOT_IMAGES,
))  # fmt: skip
_GEOMETRY = [
    "SOPClassUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "ImageType", "Rows",
    "Columns",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "NominalScannedPixelSpacing", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "SequenceOfUltrasoundRegions", "BurnedInAnnotation",
]  # fmt: skip
_INTENSITY = [
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PlanarConfiguration", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
]  # fmt: skip
_SEGMENTS = ["SegmentationType", "SegmentSequence", "MaximumFractionalValue"]
_CONTOURS = [
    "Modality", "StructureSetROISequence", "ROIContourSequence",
    "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID",
]  # fmt: skip
PALETTE = "PALETTE COLOR"
_PIXELS = ["PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable"]


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """One frame of an image object.

    Attributes:
        path: file that holds the frame.
        index: frame number within the file, from 0.
        series: SeriesInstanceUID, for grouping in memory only.
        position: (3,) LPS mm of the first pixel's centre, or None for a projection image.
        axes: (2, 3) unit directions along a row (x) and down a column (y), or None.
        spacing_yx: pixel size in mm, or None where the header states none.
        thickness_mm: distance of slices if stated, else their thickness, else None.
        spacing_tag: where the pixel size stands, by the name of the tag; '' where nowhere.
        slope: rescale factor (1 if absent).
        intercept: rescale offset (0 if absent).
        separators: what tells frames of several volumes in one file apart.
        regions: 2D tissue regions of an ultrasound.
        burned_in: whether the header says that writing is in the pixels.
        localizer: whether it is a view to plan the scan on, by its ImageType.
    """

    path: Path
    index: int
    series: str
    modality: str
    rows: int
    columns: int
    samples: int
    bits_stored: int
    signed: bool
    inverted: bool
    position: NDArray[np.float64] | None
    axes: NDArray[np.float64] | None
    spacing_yx: tuple[float, float] | None
    spacing_tag: str
    thickness_mm: float | None
    slope: float
    intercept: float
    separators: tuple[float | str | None, ...]
    regions: tuple[Region, ...]
    burned_in: bool
    localizer: bool


def modality_of(data: Any) -> str:
    """The modality if it is a code of the standard, else ''; safe to print and to store."""
    found = str(data.get("Modality", "")).strip()
    return found if found in _MODALITIES else ""


def parse_errors() -> tuple[type[Exception], ...]:
    """What a damaged file makes pydicom raise, at once or when a tag is first looked at."""
    from pydicom.errors import BytesLengthException

    return (
        OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError,
        NotImplementedError, RuntimeError, ArithmeticError, struct.error, BytesLengthException,
    )  # fmt: skip


def silence_pydicom() -> None:
    """Keep pydicom from printing what stands in a header: its warnings quote values."""
    import pydicom

    warnings.filterwarnings("ignore", module=r"pydicom\.")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def read_dataset(path: Path, *, contours: bool = False, pixels: bool = False) -> Any:
    """Parse the allowed tags of one DICOM file.

    Args:
        path: file, with or without an ending.
        contours: the tags of an RTSTRUCT instead of those of an image or SEG.
        pixels: read pixel data as well.

    Raises:
        ReadError: empty, not DICOM, or damaged.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    first_bytes(path)
    silence_pydicom()
    tags = _CONTOURS if contours else [*_GEOMETRY, *_INTENSITY, *_SEGMENTS]
    try:
        data = pydicom.dcmread(
            path, specific_tags=[*tags, *(_PIXELS if pixels else [])], stop_before_pixels=not pixels
        )
        data.get("Modality")  # tags are parsed when first looked at: let damage show here
        return data
    except InvalidDicomError as err:
        raise ReadError(
            f"{path}: expected a DICOM file, found other content; check what the file is"
        ) from err
    except parse_errors() as err:
        raise ReadError(
            f"{path}: expected a whole DICOM file, found a damaged one "
            f"({type(err).__name__}); fetch it again"
        ) from err


def is_compressed(data: Any) -> bool:
    """Whether the pixels need a decoder; a damaged header that does not say counts as no."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    return bool(syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed)


def frames(path: Path) -> list[FrameHeader]:
    """Headers of the frames of one file; empty where the object is no image (SEG, RTSTRUCT).

    Raises:
        ReadError: not DICOM, damaged, or a tag of the image grid is missing.
    """
    data = read_dataset(path)
    try:
        if str(data.get("Modality", "")) in NOT_IMAGES:
            return []
        if "Rows" in data:
            return list(_frames(path, data))
        kind = data.file_meta.get("MediaStorageSOPClassUID") or data.get("SOPClassUID")
        name = str(getattr(kind, "name", ""))
    except parse_errors() as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected readable geometry and intensity tags, found a damaged header "
            f"({type(err).__name__}); fetch the file again"
        ) from err
    if name.endswith("Image Storage"):  # of an image class, without image tags: cut off
        raise ReadError(
            f"{path}: expected a whole DICOM file, found a {name.removesuffix(' Storage')} that "
            "ends before its image size; the file is truncated, fetch it again"
        )
    return []


_PIXEL_SIZES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_BITS = (1, 8, 16, 32, 64)


def _frames(path: Path, data: Any) -> Iterator[FrameHeader]:
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or []
    n = int(data.get("NumberOfFrames") or 1)
    rows, columns = int(data.Rows), int(data.Columns)
    samples = int(data.get("SamplesPerPixel") or 1)
    bits = int(data.get("BitsAllocated") or 8)
    if bits not in _BITS:
        raise ReadError(
            f"{path}: expected pixels in whole bytes (BitsAllocated 8, 16 or 32), found {bits} "
            "bits packed without gaps; write the file again with a current DICOM toolkit"
        )
    check_size(path, (n, rows, columns, samples), max(1, bits // 8))
    regions = regions_of(path, data)
    for index in range(n):
        groups = _Groups(data, per_frame[index] if index < len(per_frame) else None)
        position = groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
        if n > 1 and not per_frame:
            position = None  # a cine: one position for all frames says nothing about depth
        orientation = groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
        spacing, spacing_tag = _pixel_size(groups)
        thickness = groups.numbers("PixelMeasuresSequence", "SpacingBetweenSlices")
        if thickness is None:
            thickness = groups.numbers("PixelMeasuresSequence", "SliceThickness")
        slope = groups.numbers("PixelValueTransformationSequence", "RescaleSlope")
        intercept = groups.numbers("PixelValueTransformationSequence", "RescaleIntercept")
        yield FrameHeader(
            path=path,
            index=index,
            series=str(data.get("SeriesInstanceUID", "")),
            modality=modality_of(data),
            rows=rows,
            columns=columns,
            samples=3 if str(data.get("PhotometricInterpretation")) == PALETTE else samples,
            bits_stored=int(data.get("BitsStored") or bits),
            signed=int(data.get("PixelRepresentation") or 0) == 1,
            inverted=str(data.get("PhotometricInterpretation", "")) == "MONOCHROME1",
            position=position,
            axes=None if orientation is None else orientation.reshape(2, 3),
            spacing_yx=spacing,
            spacing_tag=spacing_tag,
            thickness_mm=None if thickness is None else abs(float(thickness[0])) or None,
            slope=1.0 if slope is None else float(slope[0]),
            intercept=0.0 if intercept is None else float(intercept[0]),
            separators=separators(groups.frame_groups),
            regions=regions,
            burned_in=str(data.get("BurnedInAnnotation", "")).strip().upper() == "YES",
            localizer=is_localizer(data),
        )


def is_localizer(data: Any) -> bool:
    """Whether the third value of ImageType, a code of the standard, says LOCALIZER."""
    value = data.get("ImageType")
    values = [value] if isinstance(value, str) else list(value or [])
    return "LOCALIZER" in (str(v).strip().upper() for v in values)


def _pixel_size(groups: _Groups) -> tuple[tuple[float, float] | None, str]:
    """Pixel size in mm, rows first, and the tag it stands in."""
    for tag in _PIXEL_SIZES:
        found = groups.numbers("PixelMeasuresSequence", tag, 2)
        if found is not None and np.isfinite(found).all() and (found > 0).all():
            return (float(found[0]), float(found[1])), tag
    return None, ""


class _Groups:
    """A tag of a frame, wherever it stands: per frame, shared, or at the top of the file."""

    def __init__(self, data: Any, frame: Any) -> None:
        shared = data.get("SharedFunctionalGroupsSequence") or []
        self.frame_groups = [g for g in (frame, shared[0] if shared else None) if g is not None]
        self._top = data

    def numbers(self, group: str, tag: str, count: int = 1) -> NDArray[np.float64] | None:
        """At least ``count`` numbers; None where the tag is absent or empty.

        Raises:
            ValueError: other than ``count`` numbers, where it asks for more than one.
        """
        value = self._value(group, tag)
        if value is None or value == "":
            return None
        found = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if found.size < count or (count > 1 and found.size != count):
            raise ValueError(f"{count} numbers were expected")
        return found

    def _value(self, group: str, tag: str) -> Any:
        for source in self.frame_groups:
            items = source.get(group) or []
            if items and items[0].get(tag) is not None:
                return items[0].get(tag)
        return self._top.get(tag)


def frame_plane(data: Any, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Plane of one frame of a SEG object.

    Returns:
        (3,) LPS position of the first pixel and (3, 2) mm steps of one row and one column, or
        None where the object does not state them.
    """
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or []
    groups = _Groups(data, per_frame[index] if index < len(per_frame) else None)
    position = groups.numbers("PlanePositionSequence", "ImagePositionPatient")
    orientation = groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = groups.numbers("PixelMeasuresSequence", "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        return None
    along_row, down_column = orientation.reshape(2, 3)
    return position, np.stack([down_column * spacing[0], along_row * spacing[1]], axis=1)


def only_file(path: Path) -> Path:
    """The one file of a folder that holds one SEG or RTSTRUCT object; a file is itself.

    Raises:
        ReadError: the folder holds no file or several.
    """
    if not path.is_dir():
        return path
    files = _visible_files(path)
    if len(files) != 1:
        raise ReadError(
            f"{path}: expected a folder of one label object, found {len(files)} files; "
            "let the label pattern name the file"
        )
    return files[0]


def _visible_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def frame_of_reference(path: Path) -> str | None:
    """Frame of reference of an image file or series folder, for comparison in memory only."""
    for file in _visible_files(path) if path.is_dir() else [path]:
        if first_bytes(file)[128:132] == b"DICM":
            value = read_dataset(file).get("FrameOfReferenceUID")
            return str(value) if value else None
    return None
