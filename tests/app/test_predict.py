"""``sammed predict``: geometry there and back, following, formats, prompt files, the command."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from predict_fakes import BrightPixels, ball_ijk, image_of, oblique_flipped

import sammed
from sammed_app.predict import run as run_module
from sammed_app.predict.prompts import from_file, from_options
from sammed_app.predict.run import Options, run, split_model
from sammed_app.predict.scan import Window, find_images, read_scan
from sammed_app.predict.types import Asked, Following
from sammed_data.types import GeometryError, ModelError, ReadError, UsageError


@pytest.fixture(autouse=True)
def _no_digest(monkeypatch):
    """The oracle has no weights."""
    monkeypatch.setattr(run_module, "weight_digest", lambda model: "oracle")
    monkeypatch.setattr(BrightPixels, "device", "cpu", raising=False)


@pytest.fixture
def predictor():
    made = BrightPixels()
    made.model.preprocessing = type("P", (), {"to_dict": staticmethod(dict)})
    return made


def _nifti(path, array, affine, *, sform=2, qform=1, image_class=nib.Nifti1Image):
    made = image_class(array, affine)
    made.set_sform(affine, sform)
    made.set_qform(affine, qform)
    made.header["descrip"] = "a name that must not pass"
    nib.save(made, path)
    return path


def _prompts(path, axis):
    """The box of the truth on its largest slice, found through the same view as users see."""
    scan = read_scan(path, Window(), orientation="lps", channel=None)
    areas = [(scan.picture(axis, k) > 128).sum() for k in range(scan.count(axis))]
    index = int(np.argmax(areas))
    rows, columns = np.nonzero(scan.picture(axis, index) > 128)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return Asked(object="ball", index=index, box_xyxy=tuple(float(v) for v in box))


GRID_FIELDS = [
    "sform_code", "qform_code", "srow_x", "srow_y",
    "srow_z", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "pixdim",
    "xyzt_units",
]  # fmt: skip


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("codes", [(2, 1), (0, 1), (4, 0)])
def test_nifti_is_truth_on_the_grid_of_an_oblique_flipped_volume(tmp_path, predictor, axis, codes):
    truth = ball_ijk()
    path = _nifti(tmp_path / "scan.nii.gz", image_of(truth), oblique_flipped(), sform=codes[0],
                  qform=codes[1])  # fmt: skip
    options = Options(
        inputs=(path,),
        out=tmp_path / "mask.nii.gz",
        asked=(_prompts(path, axis),),
        axis=axis,
        following=Following(on=True, least_share=0.0, least_px=1, least_overlap=0.0),
    )
    report = run(options, predictor)
    image, mask = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), truth.astype(np.uint8))
    for name in GRID_FIELDS:
        assert image.header[name].tobytes() == mask.header[name].tobytes(), name
    assert np.array_equal(image.affine, mask.affine)
    assert b"must not pass" not in mask.header.binaryblock
    assert mask.header.get_intent()[0] == "label"
    ended = report.images[0]["objects"][0]["following_ended"]
    assert set(ended) == {"upwards", "downwards"}
    assert "vanishes" in ended["upwards"]
    record = json.loads((tmp_path / "mask.predict.json").read_text())
    assert record["options"]["axis"] == axis


def test_following_stays_in_its_range(tmp_path, predictor):
    path = _nifti(tmp_path / "scan.nii", image_of(ball_ijk()), np.diag([1.5, 0.8, 3, 1]))
    asked = _prompts(path, "axial")
    following = Following(on=True, first=asked.index - 1, last=asked.index + 2)
    out = tmp_path / "m.nii.gz"
    report = run(Options(inputs=(path,), out=out, asked=(asked,), following=following), predictor)
    found = report.images[0]["objects"][0]
    assert [s["slice"] for s in found["slices"]] == list(range(asked.index - 1, asked.index + 3))
    assert [s["prompted"] for s in found["slices"]] == [False, True, False, False]
    assert "range ends" in found["following_ended"]["upwards"]
    assert len(predictor.encoded) == 4  # a slice is encoded once
    step = found["slices"][1]["position_mm"] - found["slices"][0]["position_mm"]
    assert step == pytest.approx(3)


def test_following_stops_where_a_mask_leaks_or_jumps(tmp_path, predictor):
    """Slice 6 spreads over the image, and on slice 0..2 the object is elsewhere."""
    array = np.full((22, 25, 9), 30, np.uint8)
    array[8:14, 9:16, 3:6] = 200
    array[5:17, 6:19, 6] = 200
    array[14:17, 16:19, :3] = 200
    path = _nifti(tmp_path / "scan.nii", array, np.diag([-1.5, -0.8, 3, 1]))
    asked = Asked(object="a", index=4, box_xyxy=(8, 9, 14, 16))
    options = Options(inputs=(path,), out=tmp_path / "m.nii.gz", asked=(asked,),
                      following=Following(on=True))  # fmt: skip
    found = run(options, predictor).images[0]["objects"][0]
    assert [s["slice"] for s in found["slices"]] == [3, 4, 5]
    assert "grows to 3.7 times the prompted area on slice 6" in found["following_ended"]["upwards"]
    assert "Dice 0.00 only on slice 2" in found["following_ended"]["downwards"]


def test_nrrd_and_nifti2_come_back_on_their_grid(tmp_path, predictor):
    import SimpleITK as sitk

    truth = ball_ijk()
    image = sitk.GetImageFromArray(image_of(truth).transpose(2, 1, 0))
    image.SetSpacing((1.5, 0.8, 3.0))
    image.SetOrigin((4, -7, 31))
    image.SetDirection((0, 0, 1, -1, 0, 0, 0, -1, 0))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    _nifti(tmp_path / "b.nii", image_of(truth), oblique_flipped(), image_class=nib.Nifti2Image)
    for name, read in (("a.nrrd", "a_mask.nrrd"), ("b.nii", "b_mask.nii.gz")):
        asked = _prompts(tmp_path / name, "axial")
        options = Options(
            inputs=(tmp_path / name,), out=tmp_path / "out", asked=(asked,),
            following=Following(on=True, least_share=0.0, least_px=1, least_overlap=0.0),
        )  # fmt: skip
        run(options, predictor)
        assert (tmp_path / "out" / read).is_file()
    mask = sitk.ReadImage(str(tmp_path / "out" / "a_mask.nrrd"))
    assert mask.GetDirection() == image.GetDirection()
    assert mask.GetOrigin() == image.GetOrigin()
    assert np.array_equal(sitk.GetArrayFromImage(mask), truth.transpose(2, 1, 0))
    second = nib.load(tmp_path / "out" / "b_mask.nii.gz")
    assert isinstance(second, nib.Nifti2Image)
    assert np.array_equal(np.asarray(second.dataobj), truth)


def _series(folder, array_FRC, axes, spacing, origin):
    """A CT series written in scrambled file order."""
    import highdicom
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    folder.mkdir()
    series, study, place = (highdicom.UID() for _ in range(3))
    normal = np.cross(axes[0], axes[1])
    for k, plane in enumerate(array_FRC):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        meta.MediaStorageSOPInstanceUID = highdicom.UID()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        d = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = (
            meta.MediaStorageSOPClassUID,
            meta.MediaStorageSOPInstanceUID,
        )
        d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = series, study, place
        d.PatientID, d.PatientName, d.PatientBirthDate, d.PatientSex = "p", "p", "", ""
        d.StudyDate = d.StudyTime = d.StudyID = d.AccessionNumber = ""
        d.ReferringPhysicianName = d.PositionReferenceIndicator = ""
        d.Modality, d.SeriesNumber, d.InstanceNumber = "CT", 1, k + 1
        d.Rows, d.Columns = plane.shape
        d.ImageOrientationPatient = [float(v) for v in axes.ravel()]
        at = origin + normal * spacing[0] * k
        d.ImagePositionPatient = [round(float(v), 6) for v in at]
        d.PixelSpacing, d.SliceThickness = list(spacing[1:]), spacing[0]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation = 15, 0
        d.RescaleSlope, d.RescaleIntercept = 1, 0
        d.PixelData = plane.astype(np.uint16).tobytes()
        d.save_as(folder / f"{(k * 7) % len(array_FRC):03d}.dcm")
    return folder


def test_dicom_seg_reads_back_identical_by_highdicom(tmp_path, predictor):
    import highdicom

    angle = np.deg2rad(9)
    axes = np.array([[0, np.cos(angle), np.sin(angle)], [0, np.sin(angle), -np.cos(angle)]])
    truth = ball_ijk().transpose(2, 1, 0)[:13]  # 13 frames: 7 is no divisor
    folder = _series(tmp_path / "series", image_of(truth), axes, (3.0, 0.75, 1.5),
                     np.array([12.0, -40.0, 77.0]))  # fmt: skip
    asked = _prompts(folder, "sagittal")
    other = Asked(object="my thing", index=asked.index, box_xyxy=asked.box_xyxy)
    liver = Asked(object="liver", index=asked.index, box_xyxy=asked.box_xyxy)
    options = Options(
        inputs=(folder,), out=tmp_path / "m.dcm", asked=(liver, other), axis="sagittal",
        window=Window(bounds=(0.0, 255.0)),
        following=Following(on=True, least_share=0.0, least_px=1, least_overlap=0.0),
    )  # fmt: skip
    run(options, predictor)
    seg = highdicom.seg.segread(tmp_path / "m.dcm")
    volume = seg.get_volume(segment_numbers=[1, 2])
    described = seg.get_segment_description(1)
    assert described.segment_label == "liver"
    assert described.segmented_property_type.value == "10200004"
    assert seg.get_segment_description(2).segmented_property_type.meaning == "Tissue"
    import pydicom

    files = sorted(folder.iterdir(), key=lambda p: pydicom.dcmread(p).InstanceNumber)
    uids = [pydicom.dcmread(p).SOPInstanceUID for p in files]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for k in range(2):
        assert np.array_equal(pixels[..., k], truth)
    assert volume.array[..., 0].sum() == truth.sum()
    assert seg.PatientID == "p"


def test_pictures_boxes_points_png_and_overlaps(tmp_path, predictor):
    import cv2

    image = np.full((40, 61), 20, np.uint8)
    image[5:15, 8:30] = 220
    image[22:35, 40:55] = 210
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "b.tif"), image[::-1].copy())
    (tmp_path / "notes.txt").write_text("not an image")
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "object", "box", "point", "label"])
        writer.writerow(["a.png", "left", "7,4,31,16", "", ""])
        writer.writerow(["a.png", "right", "39,21,56,36", "", ""])
        writer.writerow(["a.png", "right", "", "45,30", "1"])
        writer.writerow(["b", "right", "", "45,10", "1"])
    options = Options(
        inputs=(tmp_path,), out=tmp_path / "out", asked=tuple(from_file(tmp_path / "p.csv"))
    )
    report = run(options, predictor)
    assert not report.failed
    labels = cv2.imread(str(tmp_path / "out" / "a_mask.png"), -1)
    assert np.array_equal(labels, np.where(image == 220, 1, np.where(image == 210, 2, 0)))
    assert report.images[0]["objects"][0]["slices"][0]["box_xyxy"] == [8, 5, 30, 15]
    options = Options(
        inputs=(tmp_path / "a.png",), out=tmp_path / "each", asked=options.asked, per_object=True,
        overlays=True,
    )  # fmt: skip
    files = run(options, predictor).images[0]["files"]
    assert [Path(f).name for f in files] == [
        "a_mask_left.png", "a_mask_right.png", "a_mask_native-0000_overlay.png"
    ]  # fmt: skip
    assert set(np.unique(cv2.imread(files[1], -1))) == {0, 255}


def test_a_failed_image_among_others_is_reported(tmp_path, predictor):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 31), 200, np.uint8))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    asked = tuple(from_options(["1,1,30,19"], [], [], None))
    report = run(Options(inputs=(tmp_path,), out=tmp_path / "o", asked=asked), predictor)
    assert len(report.images) == 1
    assert "b.png" in report.failed[0]["error"]
    with pytest.raises(ReadError, match="b.png"):
        run(Options(inputs=(tmp_path / "b.png",), out=tmp_path / "o", asked=asked), predictor)


@pytest.mark.parametrize("form", ["box", "point"])
def test_a_coarse_mask_prompts_every_component(tmp_path, predictor, form):
    truth = ball_ijk()
    path = _nifti(tmp_path / "scan.nii.gz", image_of(truth), oblique_flipped())
    coarse = truth.astype(np.uint8) * 3
    coarse[0, 0, 0] = 3  # a speck
    # The coarse mask may be stored along other axes: only the place in the patient counts.
    turned, affine = coarse[::-1], oblique_flipped()
    affine[:3, 3] += affine[:3, 0] * (coarse.shape[0] - 1)
    affine[:3, 0] *= -1
    _nifti(tmp_path / "coarse.nii.gz", turned, affine)
    options = Options(
        inputs=(path,), out=tmp_path / "m.nii.gz", coarse=tmp_path / "coarse.nii.gz",
        coarse_form=form,
    )  # fmt: skip
    report = run(options, predictor)
    mask = np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj)
    assert not (mask.astype(bool) & ~truth).any()
    assert mask.sum() > 0.97 * truth.sum()  # end caps under 4 px are left out, and counted
    assert report.images[0]["components_left_out"] >= 1
    assert report.images[0]["objects"][0]["object"] == "label 3"
    shifted = oblique_flipped()
    shifted[0, 3] += 2
    _nifti(tmp_path / "coarse.nii.gz", coarse, shifted)
    with pytest.raises(GeometryError, match=r"coarse.nii.gz: expected the grid of"):
        run(options, predictor)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,box\na.png,1\n", "4 numbers"),
        ("image,slice\na.png,1\n", "box or point"),
        ('image,box,colour\na.png,"1,1,5,5",red\n', "found colour"),
        ('image,box\na.png,"5,5,1,1"\n', "with an area"),
        ('image,box,slice\na.png,"1,1,5,5",x\n', "slice number"),
        ("image,box,point\na.png,,\n", "found neither"),
        ('image,box\na,"1,1,5,5"\na,"2,2,6,6"\n', "one box of an object"),
    ],
)
def test_wrong_prompt_files_are_sentences(tmp_path, text, words):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        from_file(tmp_path / "p.csv")


def test_json_prompts_and_model_names(tmp_path):
    rows = [
        {"image": "a", "slice": 4, "object": "x", "box": [1, 2.5, 9, 8]},
        {"image": "a", "slice": 4, "object": "x", "point": [3, 4], "label": 0},
    ]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    (one,) = from_file(tmp_path / "p.json")
    assert one.box_xyxy == (1, 2.5, 9, 8)
    assert one.points == ((3, 4, 0),)
    assert split_model("weights/a.pth:sam") == (Path("weights/a.pth"), "sam")
    assert split_model("a.safetensors") == (Path("a.safetensors"), None)


def test_the_window_is_that_of_the_weights_unless_said(tmp_path):
    from types import SimpleNamespace

    from sammed_app.predict.cli import _window

    trained = SimpleNamespace(model=SimpleNamespace(metadata={"intensity_policy": "paper"}))
    assert _window(None, "MR", trained) == Window(policy="paper", modality="MR")
    assert _window("ct-lung", "CT", trained).policy == "ct-lung"
    assert _window("-100,300", "CT", None).bounds == (-100, 300)
    for text, words in (("ct-lungs", "ct-lung"), ("5,1", "low < high"), ("5", "2 numbers")):
        with pytest.raises(UsageError, match=words):
            _window(text, "", None)
    path = _nifti(tmp_path / "ct.nii", np.linspace(-1000, 1100, 19 * 26 * 14).reshape(
        19, 26, 14).astype(np.int16), np.diag([1.5, 0.8, 3, 1]))  # fmt: skip
    scan = read_scan(path, Window(modality="CT"), orientation="lps", channel=None)
    assert (scan.intensity.low, scan.intensity.high) == (-160, 240)
    scan = read_scan(path, Window(), orientation="lps", channel=None)
    assert "--modality CT" in scan.warnings[0]


def test_prompts_outside_and_slices_missing_are_sentences(tmp_path, predictor):
    path = _nifti(tmp_path / "scan.nii", image_of(ball_ijk()), np.diag([1.5, 0.8, 3, 1]))
    out = tmp_path / "m.nii.gz"
    for asked, words in (
        (Asked(object="a", box_xyxy=(1, 1, 5, 5)), "14 axial slices: say which"),
        (Asked(object="a", index=14, box_xyxy=(1, 1, 5, 5)), r"a slice 0\.\.13"),
        (Asked(object="a", index=-1, box_xyxy=(1, 1, 5, 5)), r"a slice 0\.\.13"),
        (Asked(object="a", index=3, box_xyxy=(1, 1, 20, 5)), "within 19 x 26 px"),
        (Asked(object="a", index=3, axis="coronal", box_xyxy=(1, 1, 5, 5)), None),
    ):
        options = Options(inputs=(path,), out=out, asked=(asked,))
        if words is None:
            assert run(options, None).images[0]["axis"] == "coronal"
            continue
        with pytest.raises(UsageError, match=words):
            run(options, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="found none"):
        find_images([tmp_path / "empty"])


def test_an_input_is_never_written_over(tmp_path, predictor):
    path = _nifti(tmp_path / "scan.nii", image_of(ball_ijk()), np.diag([1.5, 0.8, 3, 1]))
    before = path.read_bytes()
    link = tmp_path / "link.nii"
    link.symlink_to(path)
    asked = (Asked(object="a", index=3, box_xyxy=(1, 1, 5, 5)),)
    for out in (path, link, tmp_path / "x" / ".." / "scan.nii"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="is an input"):
            run(Options(inputs=(path,), out=out, asked=asked), predictor)
    folder = tmp_path / "series"
    folder.mkdir()
    other = folder / "0001.dcm"
    other.write_bytes(b"a slice")
    with pytest.raises(UsageError, match="among the files"):
        run_module._spare(other, [folder])
    coarse = _nifti(tmp_path / "coarse.nii", ball_ijk().astype(np.uint8), np.diag([1.5, 0.8, 3, 1]))
    with pytest.raises(UsageError, match="is an input"):
        run(Options(inputs=(path,), out=coarse, coarse=coarse), predictor)
    assert path.read_bytes() == before
    again = tmp_path / "mask.nii"
    for _ in range(2):  # one's own output may be made again
        run(Options(inputs=(path,), out=again, asked=asked), predictor)


def test_an_unknown_modality_is_refused_with_its_neighbour(tmp_path):
    path = _nifti(tmp_path / "scan.nii", image_of(ball_ijk()), np.diag([1.5, 0.8, 3, 1]))
    command = ["predict", str(path), "--model", "vit_tiny_scenes", "--slice", "3"]
    command += ["--box", "1,1,9,9", "--out", str(tmp_path / "m.nii"), "--modality", "CTT"]
    found = CliRunner().invoke(sammed.app, command)
    assert found.exit_code != 0
    assert "'CT'" in str(found.exception)


def test_weights_that_give_no_numbers_are_said(tmp_path, predictor, monkeypatch):
    path = _nifti(tmp_path / "scan.nii", image_of(ball_ijk()), np.diag([1.5, 0.8, 3, 1]))
    answer = predictor.predict_batch

    def nothing(prompts):
        return [replace(a, iou_C=np.full_like(a.iou_C, np.nan)) for a in answer(prompts)]

    monkeypatch.setattr(predictor, "predict_batch", nothing)
    asked = (Asked(object="a", index=3, box_xyxy=(1, 1, 5, 5)),)
    with pytest.raises(ModelError, match="weights are damaged"):
        run(Options(inputs=(path,), out=tmp_path / "m.nii", asked=asked), predictor)
    assert not (tmp_path / "m.nii").exists()


def test_the_command_with_the_shipped_weights(tmp_path):
    import sammed
    from sammed_model.cards import SHIPPED

    weights = next(SHIPPED.glob("*.safetensors"))
    path = _nifti(tmp_path / "scan.nii.gz", image_of(ball_ijk()), oblique_flipped())
    asked = _prompts(path, "axial")
    box = ",".join(str(v) for v in asked.box_xyxy)
    line = ["predict", str(path), "--model", str(weights), "--slice", str(asked.index), "--box"]
    line += [box, "--object", "ball", "--follow", "--out", str(tmp_path / "o"), "--json"]
    dry = CliRunner().invoke(sammed.app, [*line, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert not (tmp_path / "o").exists()
    done = CliRunner().invoke(sammed.app, line)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["images"][0]["objects"][0]["voxels"] > 50
    assert (tmp_path / "o" / "predict.json").is_file()
    mask = nib.load(tmp_path / "o" / "scan_mask.nii.gz")
    assert np.array_equal(mask.affine, nib.load(path).affine)
    wrong = CliRunner().invoke(sammed.app, [*line, "--prompts", "x.csv", "--format", "jpg"])
    assert isinstance(wrong.exception, UsageError)
    assert "--format" in str(wrong.exception)
    assert "found --box or --point and --prompts" in str(wrong.exception)


def test_the_model_is_the_newest_run_and_a_run_is_named_by_its_folder(tmp_path):
    from sammed_app.predict.run import newest_run
    from sammed_data.types import ModelError
    from sammed_model.cards import find_place

    with pytest.raises(ModelError, match="sammed train"):
        newest_run(tmp_path)
    for name, control in (("001-lora", "none"), ("002-ft-sam", "none"), ("003-x", "permuted")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"")
        (tmp_path / name / "run.json").write_text(json.dumps({"control": control}))
    assert newest_run(tmp_path) == tmp_path / "002-ft-sam" / "model.safetensors"
    assert find_place(tmp_path / "001-lora") == tmp_path / "001-lora" / "model.safetensors"
