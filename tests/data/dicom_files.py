"""DICOM files with many frames, in colour, with regions, compressed: written by pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
)


def image(frames: np.ndarray, photometric="MONOCHROME2", modality="US", bits=8) -> Dataset:
    """An image object without a place in space; ``frames`` is (F, Y, X) or (F, Y, X, 3)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = UltrasoundMultiFrameImageStorage if modality == "US" else CTImageStorage
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3.4.5"
    ds.SeriesInstanceUID, ds.Modality = "1.2.3", modality
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames.shape[:3]
    ds.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = photometric, 0
    if frames.ndim == 4:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit = bits, bits - 1
    data = frames.astype("u1" if bits <= 8 else "<u2").tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits <= 8 else "OW"
    return ds


def write(path: Path, ds: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def compressed(ds: Dataset, syntax: str, codes: list[bytes]) -> Dataset:
    from pydicom.uid import UID

    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.PixelData = encapsulate(codes)
    ds["PixelData"].VR = "OB"
    return ds


def region(x0, y0, x1, y1, *, delta=(0.02, 0.05), units=3, kind=1, form=1) -> Dataset:
    """An ultrasound region; corners are inclusive, deltas are (x, y)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, kind, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x0, y0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x1, y1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta
    return item


def enhanced(parts: list[Dataset], order: list[int], facts: dict | None = None) -> Dataset:
    """One enhanced object of single slices, in the given order of frames.

    ``facts``: group -> tag -> one value for each frame.
    """
    whole = parts[0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = whole.PixelSpacing
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = whole.ImageOrientationPatient
    whole.SharedFunctionalGroupsSequence, groups = [shared], []
    for number, k in enumerate(order):
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PixelValueTransformationSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = parts[k].ImagePositionPatient
        values = frame.PixelValueTransformationSequence[0]
        values.RescaleSlope, values.RescaleIntercept = parts[k].RescaleSlope, -1000
        for group, tags in (facts or {}).items():
            item = Dataset()
            for tag, given in tags.items():
                setattr(item, tag, given[number])
            setattr(frame, group, [item])
        groups.append(frame)
    pixels = b"".join(parts[k].PixelData for k in order)
    whole.PerFrameFunctionalGroupsSequence, whole.NumberOfFrames = groups, len(order)
    whole.PixelData = pixels
    del whole.RescaleSlope, whole.RescaleIntercept, whole.PixelSpacing
    del whole.ImageOrientationPatient, whole.ImagePositionPatient
    return whole
