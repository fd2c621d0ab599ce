"""One small anatomy with a known answer, written by other libraries into every format.

10 x 11 x 12 voxels of 1 x 2 x 3 mm, slightly oblique; stored with axes permuted and flipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sammed_data.types import Geometry

SHAPE = (10, 11, 12)


def answer_geometry() -> Geometry:
    angle = np.deg2rad(7.0)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([turn[:, 2] * 1, turn[:, 1] * 2, turn[:, 0] * 3], axis=1)
    affine[:3, 3] = (-17.5, 23.25, -41.0)
    return Geometry(affine_lps=affine, shape_zyx=SHAPE)


def answer_image() -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return (z * 200 + y * 15 + x - 300).astype(np.int16)


def answer_labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:7, 3:8, 2:5] = 1
    labels[4:9, 1:4, 7:11] = 5
    return labels


def stored(
    array: np.ndarray, order=(2, 0, 1), flips=(True, False, True)
) -> tuple[np.ndarray, np.ndarray]:
    """The array with axes in another order and direction, and the LPS affine of those axes."""
    affine = answer_geometry().affine_lps[:, [*order, 3]].copy()
    array = array.transpose(order)
    for k, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, k] * (array.shape[k] - 1)
            affine[:3, k] *= -1
            array = np.flip(array, k)
    return np.ascontiguousarray(array), affine


def write_nifti(path: Path, array: np.ndarray, *, qform_only=False, **how) -> Path:
    import nibabel as nib

    data, affine = stored(array, **how)
    image = nib.Nifti1Image(data, np.diag([-1.0, -1, 1, 1]) @ affine)
    if qform_only:
        image.set_qform(image.affine, 1)
        image.set_sform(np.diag([5.0, 5, 5, 1]), 0)
    nib.save(image, path)
    return path


def write_itk(path: Path, array: np.ndarray, **how) -> Path:
    import SimpleITK as sitk

    data, affine = stored(array, **how)
    image = sitk.GetImageFromArray(data)
    axes = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_series(folder: Path, array: np.ndarray, *, edit=None, suffix=".dcm", **how) -> Path:
    """One file a slice; names say nothing about the order. ``edit(dataset, k)`` may change one."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(series(array, **how)):
        if edit is None or edit(data, k) is not False:
            data.save_as(folder / f"{(k * 7) % len(array)}-{k}{suffix}", enforce_file_format=True)
    return folder


def series(array: np.ndarray, *, modality="CT", intercept=-1000, series_uid="1.2.3", **how):
    """The slices of ``array`` as DICOM data sets in stored order."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    data, affine = stored(array, **how)
    down, along = affine[:3, 1], affine[:3, 2]
    for k, plane in enumerate(data):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.3.4.{k + 1}"
        ds.SeriesInstanceUID, ds.StudyInstanceUID = series_uid, "1.2"
        ds.FrameOfReferenceUID = "1.2.9"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Secret^Person", "secret-id", "19700101"
        ds.PatientSex, ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "O", "1", 1, 1
        ds.AccessionNumber = ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ""
        ds.Modality, ds.SamplesPerPixel, ds.PhotometricInterpretation = modality, 1, "MONOCHROME2"
        ds.Rows, ds.Columns = plane.shape
        ds.PixelSpacing = [_ds(np.linalg.norm(down)), _ds(np.linalg.norm(along))]
        ds.ImageOrientationPatient = [_ds(v) for v in (*_unit(along), *_unit(down))]
        ds.ImagePositionPatient = [_ds(v) for v in affine[:3, 3] + k * affine[:3, 0]]
        ds.SliceThickness = "9.5"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        if intercept is not None:
            ds.RescaleSlope, ds.RescaleIntercept = 1, intercept
        ds.PixelData = (plane.astype(np.int32) - (intercept or 0)).astype("<u2").tobytes()
        yield ds


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _ds(value: float) -> str:
    return f"{value:.10g}"


def contours(mask: np.ndarray, geometry: Geometry, plane_axis: int = 0) -> list[list[float]]:
    """Closed pixel outlines of a mask (outer and inner), slice by slice, as LPS points in mm."""
    from skimage.measure import find_contours

    found = []
    moved = np.moveaxis(mask, plane_axis, 0)
    for k, plane in enumerate(moved):
        for line in find_contours(np.pad(plane.astype(float), 1), 0.5):
            points = np.insert(line[:-1] - 1, plane_axis, k, axis=1)
            mm = points @ geometry.affine_lps[:3, :3].T + geometry.affine_lps[:3, 3]
            found.append([round(float(v), 4) for v in mm.ravel()])
    return found


def write_rtstruct(
    path: Path, rois: dict[str, list[list[float]]], frame="1.2.9", kind=None
) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = RTStructureSetStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.77"
    ds.Modality, ds.PatientName = "RTSTRUCT", "Secret^Person"
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    ds.ReferencedFrameOfReferenceSequence = [reference]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, lines) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for line in lines:
            item = Dataset()
            item.ContourGeometricType = kind or "CLOSED_PLANAR"
            item.NumberOfContourPoints, item.ContourData = len(line) // 3, line
            drawn.ContourSequence.append(item)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    ds.save_as(path, enforce_file_format=True)
    return path


def seg_dataset(slices: list, masks: dict[str, np.ndarray]):
    """A DICOM SEG by highdicom; masks are (slices, rows, columns) in the order of ``slices``."""
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    described = [
        hd.seg.SegmentDescription(
            segment_number=k,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for k, name in enumerate(masks, start=1)
    ]
    return hd.seg.Segmentation(
        source_images=slices,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="sammed tests",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
        omit_empty_frames=True,
    )
