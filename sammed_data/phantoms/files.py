"""Phantom patients as files in true formats; the same bytes each time.

Nothing of the clock gets in: DICOM identifiers are hashes, DICOM dates are empty, gzip has no time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.phantoms.pictures import Picture
from sammed_data.phantoms.shapes import Bools
from sammed_data.phantoms.volumes import Anatomy

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_JPEG_QUALITY = 92


def write_nifti(folder: Path, patient: str, anatomy: Anatomy) -> None:
    """``images/`` and ``labels/`` with one index map."""
    import nibabel

    z, y, x = anatomy.spacing_zyx_mm
    affine = np.diag([-x, -y, z, 1.0])  # columns run to L, rows to P; NIfTI counts to R and A
    for kind, array in (("images", anatomy.image_ZYX), ("labels", index_map(anatomy.masks_ZYX))):
        path = folder / kind / f"{patient}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), path)


def write_nrrd(folder: Path, patient: str, anatomy: Anatomy) -> None:
    """``<patient>_image.nrrd`` and ``<patient>_label.nrrd``."""
    import SimpleITK

    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("image", anatomy.image_ZYX), ("label", index_map(anatomy.masks_ZYX))):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing([float(s) for s in anatomy.spacing_zyx_mm[::-1]])
        image.SetOrigin((-70.0, -60.0, 12.5))
        SimpleITK.WriteImage(image, str(folder / f"{patient}_{kind}.nrrd"), useCompression=True)


def write_dicom(folder: Path, patient: str, anatomy: Anatomy) -> None:
    """``<patient>/CT/*.dcm``, whose names are not in slice order, and ``<patient>/RS.dcm``."""
    series = folder / patient / "CT"
    series.mkdir(parents=True, exist_ok=True)
    uids = [_uid(patient, f"slice {k}") for k in range(len(anatomy.image_ZYX))]
    for k, plane in enumerate(anatomy.image_ZYX):
        data = _ct_slice(patient, uids[k], k, plane, anatomy.spacing_zyx_mm)
        data.save_as(series / f"{uids[k][-8:]}.dcm", enforce_file_format=True)
    _rtstruct(patient, anatomy).save_as(folder / patient / "RS.dcm", enforce_file_format=True)


def write_png(folder: Path, patient: str, picture: Picture) -> None:
    """Grey PNG image, one binary mask beside it."""
    _write_picture(folder / f"{patient}.png", picture.image)
    for mask_HW in picture.masks_HW.values():
        _write_picture(folder / f"{patient}_mask.png", mask_HW.astype(np.uint8) * 255)


def write_jpeg(folder: Path, patient: str, picture: Picture) -> None:
    """Colour JPEG under ``images/``, one PNG per class under ``masks/``."""
    _write_picture(folder / "images" / f"{patient}.jpg", picture.image)
    for name, mask_HW in picture.masks_HW.items():
        path = folder / "masks" / f"{patient}_{name}.png"
        _write_picture(path, mask_HW.astype(np.uint8) * 255)


def index_map(masks_ZYX: Mapping[str, Bools]) -> NDArray[np.uint8]:
    """Masks as one map of values 1, 2, ... in their order."""
    shape = next(iter(masks_ZYX.values())).shape
    found = np.zeros(shape, np.uint8)
    for value, mask in enumerate(masks_ZYX.values(), 1):
        found[mask] = value
    return found


def _write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    ready = image if image.ndim == 2 else np.ascontiguousarray(image[:, :, ::-1])
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    encoded = cv2.imencode(path.suffix, ready, quality)[1]
    path.write_bytes(encoded.tobytes())


# ---------------------------------------------------------------- DICOM


def _uid(*parts: str) -> str:
    """A UID under 2.25 (a number from a UUID-sized hash)."""
    digest = hashlib.sha256("\0".join(("phantom", *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def _dataset(sop_class: str, uid: str, patient: str) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
    data.PatientID, data.PatientName = patient, f"Phantom^{patient}"
    data.StudyInstanceUID = _uid(patient, "study")
    data.FrameOfReferenceUID = _uid(patient, "frame")
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
                 "StudyID", "ReferringPhysicianName"):  # fmt: skip
        setattr(data, name, "")
    return data


def _ct_slice(
    patient: str,
    uid: str,
    k: int,
    plane: NDArray[np.int16],
    spacing_zyx_mm: tuple[float, float, float],
) -> Any:
    data = _dataset(_CT_IMAGE, uid, patient)
    data.Modality, data.SeriesInstanceUID = "CT", _uid(patient, "series")
    data.InstanceNumber = k + 1
    data.ImagePositionPatient = [-170.0, -140.0, k * spacing_zyx_mm[0]]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = list(spacing_zyx_mm[1:]), spacing_zyx_mm[0]
    data.Rows, data.Columns = plane.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    stored = np.clip(plane.astype(np.int32) + 1024, 0, 4095)
    data.PixelData = stored.astype("<u2").tobytes()
    return data


def _rtstruct(patient: str, anatomy: Anatomy) -> Any:
    from pydicom.dataset import Dataset

    data = _dataset(_RTSTRUCT, _uid(patient, "structures"), patient)
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", _uid(patient, "rt series")
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "phantom", "", ""
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, mask_ZYX) in enumerate(anatomy.masks_ZYX.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "AUTOMATIC"
        roi.ReferencedFrameOfReferenceUID = data.FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for k, mask_YX in enumerate(mask_ZYX):
            for points_N3 in _contours(mask_YX, k, anatomy.spacing_zyx_mm):
                contour = Dataset()
                contour.ContourGeometricType = "CLOSED_PLANAR"
                contour.NumberOfContourPoints = len(points_N3)
                contour.ContourData = [f"{v:.3f}" for v in points_N3.ravel()]
                drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    return data


def _contours(
    mask_YX: Bools, k: int, spacing_zyx_mm: tuple[float, float, float]
) -> list[NDArray[np.float64]]:
    """Outlines halfway between pixel centres, in LPS mm; holes are contours of their own."""
    from skimage.measure import find_contours

    found = []
    for line in find_contours(np.pad(mask_YX, 1).astype(np.float64), 0.5):
        row_column = line[:-1] - 1
        x = -170.0 + row_column[:, 1] * spacing_zyx_mm[2]
        y = -140.0 + row_column[:, 0] * spacing_zyx_mm[1]
        found.append(np.stack([x, y, np.full(len(x), k * spacing_zyx_mm[0])], axis=1))
    return found
