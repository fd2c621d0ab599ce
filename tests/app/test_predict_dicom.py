"""``--prompts-from`` with SEG and RTSTRUCT; outputs read back by ITK on the grid of the input."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from predict_fakes import BrightPixels, ball_ijk, image_of, oblique_flipped

from sammed_app.predict import run as run_module
from sammed_app.predict.coarse import from_coarse
from sammed_app.predict.run import Options, run
from sammed_app.predict.scan import Window, read_scan
from sammed_data.phantom import write_phantoms
from sammed_data.types import GeometryError, ReadError, UsageError
from tests.app.test_predict import _nifti, _series

AXES = np.array([[0, np.cos(0.2), np.sin(0.2)], [0, np.sin(0.2), -np.cos(0.2)]])
SPACING, ORIGIN = (3.0, 0.75, 1.5), np.array([12.0, -40.0, 77.0])
WINDOW = Window(bounds=(0.0, 255.0))


@pytest.fixture
def predictor(monkeypatch):
    monkeypatch.setattr(run_module, "weight_digest", lambda model: "oracle")
    monkeypatch.setattr(BrightPixels, "device", "cpu", raising=False)
    made = BrightPixels()
    made.model.preprocessing = type("P", (), {"to_dict": staticmethod(dict)})
    return made


def _truth():
    return ball_ijk().transpose(2, 1, 0)[:13]


def _seg(path, folder, masks, labels):
    """A SEG of highdicom, made without any code of ours."""
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    images = sorted(
        (pydicom.dcmread(p) for p in folder.iterdir()), key=lambda d: int(d.InstanceNumber)
    )
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=k + 1, segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for k, label in enumerate(labels)
    ]  # fmt: skip
    highdicom.seg.Segmentation(
        source_images=images, pixel_array=np.stack(masks, -1).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described, series_instance_uid=highdicom.UID(), series_number=7,
        sop_instance_uid=highdicom.UID(), instance_number=1, manufacturer="a hospital",
        manufacturer_model_name="by hand", software_versions="1", device_serial_number="1",
    ).save_as(path)  # fmt: skip
    return path


@pytest.fixture
def series(tmp_path):
    return _series(tmp_path / "ct", image_of(_truth()), AXES, SPACING, ORIGIN)


@pytest.mark.parametrize("form", ["box", "point"])
def test_segments_of_a_seg_prompt_by_name_and_may_overlap(tmp_path, series, predictor, form):
    truth = _truth()
    # Where no pixel of a slice is set highdicom leaves the frame out.
    upper = truth & (np.arange(truth.shape[1]) < 15)[None, :, None]
    coarse = _seg(tmp_path / "seg.dcm", series, [truth, upper], ["ball", "ball"])
    options = Options(
        inputs=(series,), out=tmp_path / "m.nii.gz", coarse=coarse, coarse_form=form,
        window=WINDOW, per_object=True,
    )  # fmt: skip
    report = run(options, predictor)
    names = [found["object"] for found in report.images[0]["objects"]]
    assert names == ["ball (1)", "ball (2)"]
    whole = report.images[0]["objects"][0]["voxels"]
    assert 0.95 * truth.sum() < whole <= truth.sum()  # end caps under 4 px are left out
    # The one DICOM object of a folder serves as well as its file.
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "1.2.3").write_bytes(coarse.read_bytes())
    scan = read_scan(series, WINDOW, orientation="lps", channel=None)
    again = from_coarse(tmp_path / "masks", scan, "axial", form)
    assert [a.object for a in again.asked] == [a["object"] for a in report.images[0]["prompts"]]


def test_a_seg_of_another_grid_is_refused(tmp_path, series, predictor):
    coarse = _seg(tmp_path / "seg.dcm", series, [_truth()], ["ball"])
    other = _series(tmp_path / "other", image_of(_truth()), AXES, SPACING, ORIGIN + (0, 0.4, 0))
    with pytest.raises(GeometryError, match="seg.dcm: expected frame 1 in the grid"):
        run(Options(inputs=(other,), out=tmp_path / "m.nii.gz", coarse=coarse), predictor)


def test_contours_of_an_rtstruct_prompt_by_the_name_of_their_roi(tmp_path, predictor):
    import pydicom

    write_phantoms(tmp_path, n_patients=4, seed=4, only=("phantom_ct_rt",))
    folder = tmp_path / "data" / "phantom_ct_rt" / "train" / "p001"
    scan = read_scan(folder / "CT", Window(), orientation="lps", channel=None)
    found = from_coarse(folder / "RS.dcm", scan, "axial", "box")
    assert found.warnings == ()
    # The extent of each ROI's contours on a slice, in pixels, read by pydicom alone.
    structures = pydicom.dcmread(folder / "RS.dcm")
    names = {r.ROINumber: r.ROIName for r in structures.StructureSetROISequence}
    first = pydicom.dcmread(min((folder / "CT").iterdir()))
    dz, dy, dx = (float(v) for v in (first.SliceThickness, *first.PixelSpacing))
    boxes: dict[tuple[str, int], list[float]] = {}
    for drawn in structures.ROIContourSequence:
        for contour in drawn.ContourSequence:
            x, y, z = np.reshape(contour.ContourData, (-1, 3)).astype(float).T
            x, y, index = (x + 170) / dx, (y + 140) / dy, round(z[0] / dz)
            old = boxes.get((names[drawn.ReferencedROINumber], index), [1e9, 1e9, -1e9, -1e9])
            boxes[names[drawn.ReferencedROINumber], index] = [
                min(old[0], x.min()), min(old[1], y.min()),
                max(old[2], x.max()), max(old[3], y.max()),
            ]  # fmt: skip
    asked: dict[tuple[str, int], list[float]] = {}
    for one in found.asked:
        key, box = (one.object, one.index), one.box_xyxy
        old = asked.get(key, [1e9, 1e9, -1e9, -1e9])
        asked[key] = [*np.minimum(old[:2], box[:2]), *np.maximum(old[2:], box[2:])]
    assert len({name for name, _ in asked}) >= 3
    for key, (x0, y0, x1, y1) in asked.items():
        inside = [np.ceil(boxes[key][0]), np.ceil(boxes[key][1]),
                  np.floor(boxes[key][2]) + 1, np.floor(boxes[key][3]) + 1]  # fmt: skip
        assert [x0, y0, x1, y1] == inside, key
    options = Options(inputs=(folder / "CT",), out=tmp_path / "m", coarse=folder / "RS.dcm")
    report = run(options, None)  # a dry run: the same prompts
    assert [p["object"] for p in report.images[0]["prompts"]] == [a.object for a in found.asked]


def test_dicom_objects_want_an_image_in_space_and_a_mask_in_them(tmp_path, series, predictor):
    import cv2

    coarse = _seg(tmp_path / "seg.dcm", series, [_truth()], ["ball"])
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 31), 90, np.uint8))
    with pytest.raises(ReadError, match="expected an image with a place in the patient for a SEG"):
        run(Options(inputs=(tmp_path / "a.png",), out=tmp_path / "o", coarse=coarse), predictor)
    (tmp_path / "two").mkdir()
    for name in ("1", "2"):
        (tmp_path / "two" / name).write_bytes(coarse.read_bytes())
    with pytest.raises(UsageError, match="expected one mask named ct"):
        run(Options(inputs=(series,), out=tmp_path / "o", coarse=tmp_path / "two"), predictor)


def _corner_mm(image, index_ijk):
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(v) for v in index_ijk]))


def test_itk_finds_the_mask_where_it_finds_the_image(tmp_path, predictor):
    """NIfTI in, NIfTI out: ITK, which reads quaternions in its own way, sees one grid."""
    import SimpleITK as sitk

    truth = ball_ijk()
    path = _nifti(tmp_path / "scan.nii.gz", image_of(truth), oblique_flipped())
    coarse = _nifti(tmp_path / "coarse.nii.gz", truth.astype(np.uint8), oblique_flipped())
    with pytest.raises(ReadError, match=r"found none; write the format of the input"):
        run(Options(inputs=(path,), out=tmp_path / "m.dcm", coarse=coarse), predictor)
    run(Options(inputs=(path,), out=tmp_path / "m.nii.gz", coarse=coarse), predictor)
    image, mask = (sitk.ReadImage(str(tmp_path / n)) for n in ("scan.nii.gz", "m.nii.gz"))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetSpacing() == image.GetSpacing()
    assert mask.GetOrigin() == image.GetOrigin()
    assert mask.GetDirection() == image.GetDirection()
    found = sitk.GetArrayFromImage(mask).transpose(2, 1, 0) > 0
    assert not (found & ~truth).any()
    assert found.sum() > 0.97 * truth.sum()
    # The same voxel in nibabel's RAS is the same place in ITK's LPS.
    at = nib.affines.apply_affine(nib.load(path).affine, (3, 20, 9)) * (-1, -1, 1)
    np.testing.assert_allclose(_corner_mm(mask, (3, 20, 9)), at, atol=1e-4)


def test_itk_finds_the_mask_of_a_series_in_the_place_of_its_slices(tmp_path, series, predictor):
    """DICOM in, NIfTI out: each voxel lies where the slice it came from says that it lies."""
    import pydicom
    import SimpleITK as sitk

    truth = _truth()
    coarse = _seg(tmp_path / "seg.dcm", series, [truth], ["ball"])
    options = Options(
        inputs=(series,), out=tmp_path / "m.nii.gz", coarse=coarse, axis="sagittal", window=WINDOW
    )
    run(options, predictor)
    mask = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    found = sitk.GetArrayFromImage(mask) > 0
    assert found.sum() > 0.97 * truth.sum()
    for file in series.iterdir():
        slice_ = pydicom.dcmread(file)
        at = np.array(slice_.ImagePositionPatient, float)
        right, down = np.array(slice_.ImageOrientationPatient, float).reshape(2, 3)
        frame = truth[int(slice_.InstanceNumber) - 1]
        for row, column in [(2, 3), (9, 12), (15, 7), (14, 9)]:
            mm = at + right * column * SPACING[2] + down * row * SPACING[1]
            x, y, z = mask.TransformPhysicalPointToIndex([float(v) for v in mm])
            assert found[z, y, x] <= frame[row, column]
            if truth.sum() == found.sum():
                assert found[z, y, x] == frame[row, column]


def test_a_seg_that_we_wrote_prompts_again_and_gives_the_same(tmp_path, series, predictor):
    """SEG out, read by highdicom, and taken as the next coarse mask: no voxel moves."""
    import highdicom

    coarse = _seg(tmp_path / "seg.dcm", series, [_truth()], ["ball"])
    first = tmp_path / "first.dcm"
    run(Options(inputs=(series,), out=first, coarse=coarse, window=WINDOW), predictor)
    options = Options(inputs=(series,), out=tmp_path / "2.dcm", coarse=first, window=WINDOW)
    report = run(options, predictor)
    assert report.images[0]["objects"][0]["object"] == "ball"
    volumes = [
        highdicom.seg.segread(path).get_volume(segment_numbers=[1], combine_segments=True)
        for path in (first, tmp_path / "2.dcm")
    ]
    np.testing.assert_array_equal(volumes[0].array, volumes[1].array)
    np.testing.assert_allclose(volumes[0].affine, volumes[1].affine)
