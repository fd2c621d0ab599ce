"""Writers of tiny files in the true formats of the catalogue. Grids are LPS-canonical (Z, Y, X)."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

SPACING_ZYX = (2.5, 0.75, 0.5)
ORIGIN_XYZ = (-11.0, 7.0, -30.0)
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
_DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


def write_volume(
    path: Path,
    array_ZYX: np.ndarray,
    modality: str = "CT",
    spacing_zyx: tuple[float, float, float] = SPACING_ZYX,
) -> None:
    """Write by suffix; ``(C, Z, Y, X)`` becomes a 4D NIfTI; a folder becomes a DICOM series."""
    name = path.name.lower()
    if not path.suffix or path.suffix[1].isdigit():
        write_series(path, array_ZYX, modality)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".dcm"):
        folder = path.with_name(path.name + ".d")
        write_series(folder, array_ZYX, modality)
        next(folder.iterdir()).replace(path)
        folder.rmdir()
        return
    if name.endswith((".nii", ".nii.gz")):
        _write_nifti(path, array_ZYX, spacing_zyx)
    elif name.endswith((".nrrd", ".mha", ".mhd")):
        _write_itk(path, array_ZYX, spacing_zyx)
    else:
        raise ValueError(f"no writer for {path}")


def write_picture(path: Path, array_HW: np.ndarray) -> None:
    """PNG, JPEG, TIFF, GIF, PGM: grey or RGB."""
    import cv2
    import tifffile
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, array_HW)
        return
    if path.suffix.lower() == ".gz":
        plain = io.BytesIO()  # PIL would write past the gzip object, to its file
        Image.fromarray(array_HW).save(plain, format="PPM")
        path.write_bytes(gzip.compress(plain.getvalue()))
        return
    if path.suffix.lower() in (".gif", ".pgm"):
        Image.fromarray(array_HW).save(path)
        return
    ready = array_HW if array_HW.ndim == 2 else np.ascontiguousarray(array_HW[..., ::-1])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix.lower() in (".jpg", ".jpeg") else []
    if not cv2.imwrite(str(path), ready, quality):
        raise ValueError(f"OpenCV did not write {path}")


def write_stack(folder: Path, array_ZYX: np.ndarray) -> None:
    """One PNG a slice, in the order of the DICOM instance numbers of ``write_series``."""
    for k, plane in enumerate(array_ZYX):
        write_picture(folder / f"mask_{k:03d}.png", plane.astype(np.uint8))


def _write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    import nibabel as nib

    z, y, x = spacing
    affine = np.diag([-x, -y, z, 1.0])
    affine[:3, 3] = (-ORIGIN_XYZ[0], -ORIGIN_XYZ[1], ORIGIN_XYZ[2])
    axes = (3, 2, 1, 0) if array.ndim == 4 else (2, 1, 0)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array.transpose(axes)), affine), path)


def _write_itk(
    path: Path, array_ZYX: np.ndarray, spacing_zyx: tuple[float, float, float] = SPACING_ZYX
) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array_ZYX)
    image.SetSpacing([float(s) for s in spacing_zyx[::-1]])
    image.SetOrigin(ORIGIN_XYZ)
    sitk.WriteImage(image, str(path))


def write_series(folder: Path, array_ZYX: np.ndarray, modality: str = "CT") -> None:
    """A DICOM series, one file a slice; file order is not slice order."""
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"CT": ("CT", _CT_IMAGE), "MR": ("MR", _MR_IMAGE), "PET": ("PT", _PET_IMAGE)}
    kinds["X-ray"] = ("DX", _DX_IMAGE)
    series = generate_uid(entropy_srcs=[str(folder), "series"])
    for k, plane in enumerate(array_ZYX):
        name, sop_class = kinds[modality]
        data = _dataset(sop_class, generate_uid(entropy_srcs=[str(folder), str(k)]))
        data.Modality = name
        data.SeriesInstanceUID = series
        data.FrameOfReferenceUID = generate_uid(entropy_srcs=[series, "frame"])
        data.InstanceNumber = k + 1
        data.ImagePositionPatient = [*ORIGIN_XYZ[:2], ORIGIN_XYZ[2] + k * SPACING_ZYX[0]]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = list(SPACING_ZYX[1:])
        data.SliceThickness = SPACING_ZYX[0]
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = plane.astype("<i2").tobytes()
        data.save_as(folder / f"i{(k * 7) % 10}_{k:03d}.dcm", enforce_file_format=True)


def _dataset(sop_class: str, uid: str):  # noqa: ANN202  pydicom has no stubs
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
    data.PatientID, data.PatientName, data.StudyInstanceUID = "fake", "Fake^Fake", "1.2.3.4"
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = ""
    data.AccessionNumber = data.StudyID = data.ReferringPhysicianName = ""
    return data


def write_rtstruct(path: Path, series: Path, masks_ZYX: dict[str, np.ndarray]) -> None:
    """Closed planar contours around the boxes of the masks, half a pixel outside their centres."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    first = _read_sorted(series)[0]
    data = _dataset(_RTSTRUCT, generate_uid(entropy_srcs=[str(path)]))
    data.Modality = "RTSTRUCT"
    data.StructureSetLabel = "fake"
    data.FrameOfReferenceUID = first.FrameOfReferenceUID
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, mask) in enumerate(masks_ZYX.items(), start=1):
        roi, contour_set = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = (
            first.FrameOfReferenceUID,
            "",
        )
        contour_set.ReferencedROINumber, contour_set.ContourSequence = number, []
        for k in np.flatnonzero(mask.any((1, 2))):
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
            contour.ContourData = _box_mm(mask[k], int(k))
            contour_set.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(contour_set)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def _box_mm(mask_YX: np.ndarray, k: int) -> list[float]:
    ys, xs = np.nonzero(mask_YX)
    z = ORIGIN_XYZ[2] + k * SPACING_ZYX[0]
    left, right = (ORIGIN_XYZ[0] + SPACING_ZYX[2] * (v) for v in (xs.min() - 0.5, xs.max() + 0.5))
    top, bottom = (ORIGIN_XYZ[1] + SPACING_ZYX[1] * (v) for v in (ys.min() - 0.5, ys.max() + 0.5))
    return [float(v) for v in (left, top, z, right, top, z, right, bottom, z, left, bottom, z)]


def write_seg(path: Path, series: Path, masks_ZYX: dict[str, np.ndarray]) -> None:
    """A binary DICOM SEG of the series, made by highdicom."""
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept
    from pydicom.uid import generate_uid

    organ = CodedConcept("85756007", "SCT", "Tissue")
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=organ,
            segmented_property_type=organ,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks_ZYX, start=1)
    ]
    pixels = np.stack(list(masks_ZYX.values()), axis=-1).astype(np.uint8)
    data = hd.seg.Segmentation(
        source_images=_read_sorted(series),
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="fake",
        manufacturer_model_name="fake",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)


def _read_sorted(series: Path):  # noqa: ANN202  pydicom has no stubs
    import pydicom

    read = [pydicom.dcmread(p) for p in sorted(series.iterdir())]
    return sorted(read, key=lambda d: int(d.InstanceNumber))
