from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest

from sammed_data.geometry import same_grid
from sammed_data.readers import dicom, dicom_header, dicom_seg, rtstruct
from sammed_data.readers.registry import read_label_map, read_volume
from sammed_data.types import Geometry, GeometryError, ReadError
from tests.data.anatomy import (
    SHAPE,
    answer_geometry,
    answer_image,
    answer_labels,
    contours,
    seg_dataset,
    series,
    stored,
    write_rtstruct,
    write_series,
)

AXIAL = {"order": (0, 1, 2), "flips": (False, False, False)}


def _mask(region, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[region.voxels_N] = True
    return mask


# Series


def test_series_header_facts_and_files_without_ending(tmp_path):
    write_series(tmp_path / "s", answer_image(), suffix="")
    (tmp_path / "s/LICENSE.txt").write_text("not DICOM")
    (tmp_path / "s/.hidden").touch()
    volume = read_volume(tmp_path / "s")
    assert (volume.bits, volume.modality, volume.array.dtype) == (12, "CT", np.int16)
    np.testing.assert_array_equal(volume.array, answer_image())


def test_a_list_of_files_is_a_series(tmp_path):
    folder = write_series(tmp_path / "s", answer_image(), **AXIAL)
    volume = dicom.read(sorted(folder.iterdir(), reverse=True))
    np.testing.assert_array_equal(volume.array, answer_image())


def test_rescale_is_per_slice(tmp_path):
    def edit(ds, k):
        ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "PT", f"{0.01 * (k + 1):g}", "-2"

    folder = write_series(tmp_path / "s", answer_image(), edit=edit, **AXIAL)
    volume = read_volume(folder)
    slopes = 0.01 * (np.arange(10) + 1)[:, None, None]
    np.testing.assert_allclose(volume.array, (answer_image() + 1000) * slopes - 2, rtol=1e-6)
    assert (volume.array.dtype, volume.modality) == (np.float32, "PT")


def test_mr_without_rescale(tmp_path):
    folder = write_series(tmp_path / "s", answer_image() + 300, modality="MR", intercept=None)
    np.testing.assert_array_equal(read_volume(folder).array, answer_image() + 300)


def test_signed_and_full_range_pixels(tmp_path):
    def signed(ds, k):
        ds.PixelRepresentation, ds.RescaleIntercept = 1, 0
        stored_unsigned = np.frombuffer(ds.PixelData, "<u2").astype(np.int32)
        ds.PixelData = (stored_unsigned - 1000).astype("<i2").tobytes()

    folder = write_series(tmp_path / "s", answer_image(), edit=signed)
    np.testing.assert_array_equal(read_volume(folder).array, answer_image())

    def wide(ds, k):
        ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 16, 15, 0
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") + 60000).astype("<u2").tobytes()

    folder = write_series(tmp_path / "w", answer_image(), edit=wide)
    np.testing.assert_array_equal(read_volume(folder).array, answer_image().astype(int) + 61000)


def test_monochrome1_is_inverted(tmp_path):
    def edit(ds, k):
        ds.PhotometricInterpretation = "MONOCHROME1"
        ds.PixelData = (4095 - np.frombuffer(ds.PixelData, "<u2")).astype("<u2").tobytes()

    folder = write_series(tmp_path / "s", answer_image(), edit=edit)
    np.testing.assert_array_equal(read_volume(folder).array, answer_image())


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLSLossless"])
def test_compressed_pixels(tmp_path, syntax):
    import pydicom.uid

    def edit(ds, k):
        if syntax == "RLELossless":
            ds.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
            return
        import imagecodecs
        from pydicom.encaps import encapsulate

        plane = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        code = (
            imagecodecs.jpeg2k_encode(plane, codecformat="j2k", reversible=True, level=0)
            if syntax == "JPEG2000Lossless"
            else imagecodecs.jpegls_encode(plane)
        )
        ds.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        ds.PixelData = encapsulate([code])
        ds["PixelData"].VR = "OB"

    folder = write_series(tmp_path / "s", answer_image(), edit=edit, **AXIAL)
    np.testing.assert_array_equal(read_volume(folder).array, answer_image())


def test_two_series_are_named_by_count_and_modality(tmp_path):
    folder = write_series(tmp_path / "s", answer_image(), **AXIAL)
    other = write_series(tmp_path / "o", answer_image()[:4], modality="MR", series_uid="9.8.7")
    for file in other.iterdir():
        shutil.move(file, folder / f"z{file.name}")
    with pytest.raises(ReadError, match=r"found 2 \(10 x CT and \d+ x MR slices\)") as caught:
        read_volume(folder)
    assert "folder of its own" in str(caught.value)
    for private in ("1.2.3", "9.8.7", "Secret", "secret-id", "1970"):
        assert private not in str(caught.value).replace(str(tmp_path), "")


def test_objects_that_are_no_image_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "s", answer_image(), **AXIAL)
    write_rtstruct(folder / "rs.dcm", {"a": contours(answer_labels() == 1, answer_geometry())})
    np.testing.assert_array_equal(read_volume(folder).array, answer_image())
    with pytest.raises(ReadError, match="DICOM image series, found none"):
        read_volume(folder / "rs.dcm")


def _edit_position(change):
    def edit(ds, k):
        position = np.array([float(v) for v in ds.ImagePositionPatient])
        moved = change(position, k)
        if moved is None:
            return False
        ds.ImagePositionPatient = [f"{v:.10g}" for v in moved]
        return True

    return edit


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p, k: None if k == 4 else p, r"of 1 mm, found 2 mm between slices 4 and 5 of 9"),
        (lambda p, k: p + (0, 0, 0.3 * (k > 6)), r"found 1.3 mm between slices 7 and 8"),
        (lambda p, k: p - (0, 0, 1.0 * (k == 5)), r"two at -37.000 mm \(gap 0 mm, slices 5 and 6"),
        (lambda p, k: p + (0, 0.2 * k, 0), r"sideways shift of 0.2 mm a slice .* \(gantry tilt\)"),
    ],
)  # fmt: skip
def test_slices_that_form_no_grid_are_refused_in_mm(tmp_path, change, sentence):
    folder = write_series(tmp_path / "s", answer_image(), edit=_edit_position(change), **AXIAL)
    with pytest.raises(GeometryError, match=sentence):
        read_volume(folder)


def test_rounded_positions_are_no_gap(tmp_path):
    rounding = _edit_position(lambda p, k: p + (0, 0, 0.004 * (-1) ** k))
    volume = read_volume(write_series(tmp_path / "s", answer_image(), edit=rounding, **AXIAL))
    np.testing.assert_array_equal(volume.array, answer_image())


def test_a_localizer_in_the_series_is_refused(tmp_path):
    def turn(ds, k):
        if k == 2:
            ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]

    folder = write_series(tmp_path / "s", answer_image(), edit=turn, **AXIAL)
    with pytest.raises(GeometryError, match="separate the localizer"):
        read_volume(folder)

    def crop(ds, k):
        if k == 2:
            ds.Rows, ds.PixelData = 5, ds.PixelData[: 5 * 12 * 2]

    folder = write_series(tmp_path / "c", answer_image(), edit=crop, **AXIAL)
    with pytest.raises(GeometryError, match="slices of one size"):
        read_volume(folder)


def test_a_truncated_slice_is_a_sentence(tmp_path):
    folder = write_series(tmp_path / "s", answer_image(), **AXIAL)
    file = sorted(folder.iterdir())[3]
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(ReadError, match=r"3-9\.dcm|\.dcm: expected"):
        read_volume(folder)


def test_a_slice_cut_before_its_image_size_is_not_passed_over(tmp_path):
    folder = write_series(tmp_path / "s", answer_image(), **AXIAL)
    last = sorted(folder.iterdir())[-1]
    whole = last.read_bytes()
    for size in (360, whole.find(b"\x20\x00\x32\x00") + 10):
        last.write_bytes(whole[:size])
        with pytest.raises(ReadError, match=f"{last.name}.*fetch it again"):
            read_volume(folder)


def test_one_slice_takes_its_thickness(tmp_path):
    folder = write_series(tmp_path / "s", answer_image()[:1], **AXIAL)
    assert read_volume(folder).geometry.spacing_zyx_mm[0] == pytest.approx(9.5)


def test_a_projection_has_no_geometry_but_a_pixel_size(tmp_path):
    def edit(ds, k):
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
        ds.Modality = "DX"

    folder = write_series(tmp_path / "s", answer_image()[:1], edit=edit, **AXIAL)
    volume = read_volume(next(folder.iterdir()))
    assert (volume.geometry, volume.modality) == (None, "DX")
    assert volume.spacing_yx_mm == pytest.approx((2, 3))
    np.testing.assert_array_equal(volume.array, answer_image()[:1])


def test_enhanced_multi_frame(tmp_path):
    from pydicom.dataset import Dataset

    parts = list(series(answer_image(), **AXIAL))
    order = [3, 0, 7, 1, 9, 2, 8, 4, 6, 5]
    whole = parts[0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = whole.PixelSpacing
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = whole.ImageOrientationPatient
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = (
            [Dataset()],
            [Dataset()],
        )
        frame.PlanePositionSequence[0].ImagePositionPatient = parts[k].ImagePositionPatient
        frame.PixelValueTransformationSequence[0].RescaleSlope = 1
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -1000
        whole.PerFrameFunctionalGroupsSequence.append(frame)
    whole.NumberOfFrames = 10
    whole.PixelData = b"".join(parts[k].PixelData for k in order)
    del whole.RescaleSlope, whole.RescaleIntercept, whole.PixelSpacing
    del whole.ImageOrientationPatient, whole.ImagePositionPatient
    whole.save_as(tmp_path / "e.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "e.dcm")
    np.testing.assert_array_equal(volume.array, answer_image())
    assert same_grid(volume.geometry, answer_geometry())


# DICOM SEG


def _segments():
    """Two that overlap (one in few slices, in two parts), in canonical axes."""
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[1:6, 2:9, 3:10] = True
    second[[2, 8], 5:10, 1:6] = True
    return {"Liver": first, "Tumour 2": second}


def _write_seg(path, edit=None, **how):
    masks = {name: stored(mask, **how)[0] for name, mask in _segments().items()}
    slices = list(series(answer_image(), **how))
    ds = seg_dataset(slices, masks)
    if edit:
        edit(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("how", [AXIAL, {}, {"order": (1, 2, 0)}])
def test_seg_segments_overlap_and_miss_slices(tmp_path, how):
    path = _write_seg(tmp_path / "s.seg", **how)
    regions = dicom_seg.read(path, answer_geometry())
    assert [(r.name, r.number) for r in regions] == [("Liver", 1), ("Tumour 2", 2)]
    for region, mask in zip(regions, _segments().values(), strict=True):
        np.testing.assert_array_equal(_mask(region), mask)


def test_seg_frames_in_any_order_with_bits_across_bytes(tmp_path):
    def shuffle(ds):
        n, size = int(ds.NumberOfFrames), ds.Rows * ds.Columns
        assert size % 8 != 0
        bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
        order = np.random.default_rng(5).permutation(n)
        frames = bits[: n * size].reshape(n, size)[order]
        packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
        ds.PixelData = packed + b"\0" * (len(packed) % 2)
        groups = list(ds.PerFrameFunctionalGroupsSequence)
        ds.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]

    path = _write_seg(tmp_path / "s.dcm", edit=shuffle, **AXIAL)
    for region, mask in zip(
        dicom_seg.read(path, answer_geometry()), _segments().values(), strict=True
    ):
        np.testing.assert_array_equal(_mask(region), mask)


def test_seg_off_the_grid_is_refused(tmp_path):
    path = _write_seg(tmp_path / "s.dcm", **AXIAL)
    here = answer_geometry()
    for shift in ((0, 0, 0.5), (1.5, 0, 0), (0, 0, 7.0)):
        affine = here.affine_lps.copy()
        affine[:3, 3] += shift
        with pytest.raises(GeometryError, match=r"expected frame \d+ in the grid of the image"):
            dicom_seg.read(path, Geometry(affine_lps=affine, shape_zyx=SHAPE))


def test_seg_truncated_or_another_object(tmp_path):
    def cut(ds):
        ds.PixelData = ds.PixelData[:20]

    with pytest.raises(ReadError, match="bytes of pixels, found 20"):
        dicom_seg.read(_write_seg(tmp_path / "s.dcm", edit=cut, **AXIAL), answer_geometry())
    folder = write_series(tmp_path / "s", answer_image())
    for read in (dicom_seg.read, rtstruct.read):
        with pytest.raises(ReadError, match="found modality CT"):
            read(next(folder.iterdir()), answer_geometry())


# RTSTRUCT


def _ring():
    mask = np.zeros(SHAPE, bool)
    mask[2:6, 1:10, 1:11] = True
    mask[2:6, 4:7, 4:8] = False
    mask[4, 0:3, 0:3] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rtstruct_holes_parts_and_orientations(tmp_path, axis):
    lines = contours(_ring(), answer_geometry(), axis)
    blob = contours(answer_labels() == 5, answer_geometry(), axis)
    path = write_rtstruct(tmp_path / "rs.dcm", {"Ring": lines, "Blob": blob, "Empty": []})
    regions, warnings = rtstruct.read(path, answer_geometry(), "1.2.9")
    assert [r.name for r in regions] == ["Ring", "Blob", "Empty"]
    np.testing.assert_array_equal(_mask(regions[0]), _ring())
    np.testing.assert_array_equal(_mask(regions[1]), answer_labels() == 5)
    assert not _mask(regions[2]).any()
    assert warnings == ()


def test_rtstruct_frame_of_reference_is_a_warning(tmp_path):
    lines = contours(_ring(), answer_geometry())
    path = write_rtstruct(tmp_path / "rs.dcm", {"Ring": lines}, frame="6.6.6")
    folder = write_series(tmp_path / "s", answer_image())
    frame = dicom_header.frame_of_reference(folder)
    regions, warnings = rtstruct.read(path, answer_geometry(), frame)
    np.testing.assert_array_equal(_mask(regions[0]), _ring())
    assert warnings == ("RTSTRUCT states another frame of reference than its image",)


def test_rtstruct_that_does_not_fit_is_refused(tmp_path):
    here = answer_geometry()
    lines = contours(_ring(), here)
    path = write_rtstruct(tmp_path / "rs.dcm", {"Ring": lines})
    far = here.affine_lps.copy()
    far[2, 3] += 8.0
    with pytest.raises(GeometryError, match="found one 6 mm beyond its last slice"):
        rtstruct.read(path, Geometry(affine_lps=far, shape_zyx=SHAPE))
    coarse = here.affine_lps.copy()
    coarse[:3, 0] *= 2
    near = here.affine_lps.copy()
    near[2, 3] += 0.25
    regions, warnings = rtstruct.read(path, Geometry(affine_lps=near, shape_zyx=SHAPE))
    np.testing.assert_array_equal(_mask(regions[0]), _ring())
    assert warnings == ("ROI 1: contours lie 0.25 mm off the slices",)
    with pytest.raises(GeometryError, match="two planes 2 mm apart on one slice"):
        rtstruct.read(path, Geometry(affine_lps=coarse, shape_zyx=SHAPE))
    tilt = here.affine_lps.copy()
    tilt[2, 1] = 0.8
    with pytest.raises(GeometryError, match="planar contours parallel to the slices"):
        rtstruct.read(path, Geometry(affine_lps=tilt, shape_zyx=SHAPE))


def test_rtstruct_points_enclose_nothing(tmp_path):
    path = write_rtstruct(tmp_path / "rs.dcm", {"Iso": [[1.0, 2.0, 3.0]]}, kind="POINT")
    regions, warnings = rtstruct.read(path, answer_geometry())
    assert regions[0].voxels_N.size == 0
    assert warnings == ("ROI 1: a contour of 1 points encloses nothing",)


def test_even_odd_takes_pixel_centres():
    square = np.array([[0.6, 0.6], [0.6, 3.4], [3.4, 3.4], [3.4, 0.6]])
    want = np.zeros((6, 5), bool)
    want[1:4, 1:4] = True
    np.testing.assert_array_equal(rtstruct.even_odd([square], 6, 5), want)
    want[1:4, 1:4] = False
    np.testing.assert_array_equal(rtstruct.even_odd([square, square], 6, 5), want)
    outside = square + (-2.0, 2.0)
    want[0:2, 3:5] = True
    np.testing.assert_array_equal(rtstruct.even_odd([outside], 6, 5), want)


def test_even_odd_equals_scikit_image_on_random_polygons():
    from skimage.draw import polygon2mask

    rng = np.random.default_rng(11)
    for _ in range(40):
        polygon = rng.uniform(-3, 27, (rng.integers(3, 9), 2))
        np.testing.assert_array_equal(
            rtstruct.even_odd([polygon], 21, 17), polygon2mask((21, 17), polygon)
        )


# Real files


@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_ibsi_contours_equal_the_reference_masks(samples, patient, modality):
    folder = samples / "ibsi_validation/dicom" / patient / modality
    image = read_volume(folder / "image")
    frame = dicom_header.frame_of_reference(folder / "image")
    regions, warnings = rtstruct.read(folder / "mask/RS.dcm", image.geometry, frame)
    nifti = samples / "ibsi_validation/nifti" / patient
    reference, geometry = read_label_map(nifti / f"{modality}_mask.nii.gz")
    assert same_grid(geometry, image.geometry)
    assert [r.name for r in regions] == [f"GTV_Mass_{modality}"]
    np.testing.assert_array_equal(_mask(regions[0], image.array.shape), reference > 0)
    assert regions[0].voxels_N.size == int((reference > 0).sum()) > 300
    assert warnings == ()
    if (nifti / f"{modality}_image.nii.gz").exists():
        other = read_volume(nifti / f"{modality}_image.nii.gz")
        np.testing.assert_allclose(image.array, other.array, atol=3e-6)


@pytest.mark.parametrize(
    ("image", "seg", "answer"),
    [
        ("ct-3slice", "liver.dcm", "liver_seg.nrrd"),
        ("24x38x3/image", "24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd"),
    ],
)
def test_dcmqi_segments_equal_their_nrrd(samples, image, seg, answer):
    folder = samples / "dcmqi/segmentations"
    volume = read_volume(folder / image)
    regions = dicom_seg.read(folder / seg, volume.geometry)
    reference, geometry = read_label_map(folder / answer)
    assert same_grid(geometry, volume.geometry)
    assert [r.name for r in regions] == ["Liver"]
    np.testing.assert_array_equal(_mask(regions[0], volume.array.shape), reference > 0)


def test_nothing_of_a_header_is_printed_whatever_is_wrong_with_it(tmp_path, capfd):
    """pydicom's own warnings quote values; nobody's name may reach a log by them."""

    def edit(data, k):
        data.SpecificCharacterSet = "NEEDLECS"
        data.FrameOfReferenceUID = "NEEDLE.UID"
        data.SliceThickness, data.Modality = "3.0", "CT"

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        folder = write_series(tmp_path / "s", answer_image(), edit=edit, **AXIAL)
        warnings.simplefilter("always")
        read_volume(folder)
        dicom_header.frame_of_reference(sorted(folder.iterdir())[0])

    assert not [w for w in said if "NEEDLE" in str(w.message)]
    assert "NEEDLE" not in "".join(capfd.readouterr())
