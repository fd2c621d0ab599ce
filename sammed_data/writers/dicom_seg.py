"""Masks as a DICOM SEG object on the frames of the series they were made from, by highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.dicom_header import (
    NOT_IMAGES,
    frame_plane,
    parse_errors,
    silence_pydicom,
)
from sammed_data.readers.limits import first_bytes
from sammed_data.types import Geometry, ReadError
from sammed_data.writers.grid import plane_of

_TISSUE = ("85756007", "Tissue")
_ANATOMY = ("123037004", "Anatomical Structure")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One object.

    Attributes:
        label: shown by viewers.
        mask_ZYX: bool, in canonical axes; segments may overlap.
        code: SNOMED CT (code, meaning) of what it is; None = tissue.
    """

    label: str
    mask_ZYX: NDArray[np.bool_]
    code: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Author:
    """What made the masks: the name and version of an algorithm, and words about it."""

    algorithm: str
    version: str
    description: str


def write(
    path: Path, segments: Sequence[Segment], geometry: Geometry, source: Path, author: Author
) -> None:
    """Write a BINARY SEG and read it back; patient and study are those of the source.

    Args:
        path: ``.dcm``.
        segments: at least one.
        geometry: the canonical grid of the masks.
        source: series folder or file that the image was read from.
        author: who made them.

    Raises:
        ReadError: the source has no frames with a position, or what was written reads back
            as other masks.
        GeometryError: a frame of the source is not a plane of the grid.
    """
    import highdicom

    silence_pydicom()
    datasets = _sources(source)
    masks = [_frames(datasets, s.mask_ZYX, geometry, source) for s in segments]
    pixels_FRCS = np.stack(masks, axis=-1).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's quote the patient's name
        made = highdicom.seg.Segmentation(
            source_images=datasets,
            pixel_array=pixels_FRCS,
            segmentation_type="BINARY",
            segment_descriptions=[
                _described(k, s, author) for k, s in enumerate(segments, start=1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=900,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="sammed",
            manufacturer_model_name=author.algorithm,
            software_versions=author.version,
            device_serial_number="0",
            content_label="SAMMED",
            content_description=author.description[:64],
            series_description=author.description[:64],
            omit_empty_frames=bool(pixels_FRCS.any()),
        )
    made.save_as(path)
    _check(path, datasets, pixels_FRCS)


def _sources(source: Path) -> list[Any]:
    """Image objects of a series, in the order of their place."""
    import pydicom

    files = sorted(p for p in source.iterdir() if p.is_file()) if source.is_dir() else [source]
    found = []
    for file in files:
        named = file.suffix.lower() in (".dcm", ".ima", ".dicom")
        if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
            continue
        if not named and first_bytes(file)[128:132] != b"DICM":
            continue
        try:
            data = pydicom.dcmread(file, stop_before_pixels=True)
            if "SpecificCharacterSet" in data and not data.SpecificCharacterSet:
                del data.SpecificCharacterSet  # highdicom refuses an empty one
            if str(data.get("Modality", "")) not in NOT_IMAGES and "Rows" in data:
                found.append(data)
        except parse_errors() as err:
            raise ReadError(
                f"{file}: expected a whole DICOM file, found a damaged one "
                f"({type(err).__name__}); fetch it again"
            ) from err
    planes = [frame_plane(data, 0) for data in found]
    if not found or any(plane is None for plane in planes) or "FrameOfReferenceUID" not in found[0]:
        raise ReadError(
            f"{source}: expected DICOM images with a place in the patient, found none; write the "
            "format of the input (a folder as --out), or PNG (--format png)"
        )
    first = planes[0]
    normal = np.cross(first[1][:, 1], first[1][:, 0]) if first is not None else np.zeros(3)
    places = [float(plane[0] @ normal) for plane in planes if plane is not None]
    return [found[k] for k in np.argsort(places, kind="stable")]


def _frames(
    datasets: Sequence[Any], mask_ZYX: NDArray[np.bool_], geometry: Geometry, source: Path
) -> NDArray[np.bool_]:
    """(F, rows, columns): a mask as the frames of the source show it."""
    frames = []
    for data in datasets:
        for index in range(int(data.get("NumberOfFrames", 1) or 1)):
            plane = frame_plane(data, index)
            if plane is None:
                raise ReadError(f"{source}: expected a position of frame {index + 1}, found none")
            shape = (int(data.Rows), int(data.Columns))
            frames.append(plane_of(mask_ZYX, geometry, *plane, shape))
    return np.stack(frames)


def _described(number: int, segment: Segment, author: Author) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    code, meaning = segment.code or _TISSUE
    concept = highdicom.sr.CodedConcept
    category = (
        codes.SCT.Tissue if segment.code is None else concept(_ANATOMY[0], "SCT", _ANATOMY[1])
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=category,
        segmented_property_type=concept(code, "SCT", meaning[:64]),
        algorithm_type="SEMIAUTOMATIC",  # someone or something gave the prompts
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=author.algorithm[:64],
            version=author.version[:64],
            family=codes.cid7162.ArtificialIntelligence,
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=f"{segment.label[:48]} {number}",
    )


def _check(path: Path, datasets: Sequence[Any], pixels_FRCS: NDArray[np.uint8]) -> None:
    """Read the file as others will."""
    import highdicom

    seg = highdicom.seg.segread(path)
    first = datasets[0]
    if len(datasets) == 1 and "NumberOfFrames" in first:
        found = seg.get_pixels_by_source_frame(
            first.SOPInstanceUID,
            list(range(1, len(pixels_FRCS) + 1)),
            assert_missing_frames_are_empty=True,
        )
    else:
        found = seg.get_pixels_by_source_instance(
            [data.SOPInstanceUID for data in datasets], assert_missing_frames_are_empty=True
        )
    if not np.array_equal(found, pixels_FRCS):
        raise ReadError(
            f"{path}: expected the masks that were written, found others on reading back; "
            "this is our mistake, report it with the version of highdicom"
        )
