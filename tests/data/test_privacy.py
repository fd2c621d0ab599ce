"""What identifies a patient is looked for in every byte that a build leaves or prints."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.privacy import Pseudonyms
from sammed_data.splits import assign_splits, group_key, hash_split
from sammed_data.types import ReadError
from tests.data import dicom_files as made
from tests.data.anatomy import (
    answer_geometry,
    answer_image,
    answer_labels,
    contours,
    series,
    write_rtstruct,
    write_series,
)
from tests.data.build_fakes import REPO, entry_dict, make_entry

AXIAL = {"order": (0, 1, 2), "flips": (False, False, False)}
TEXTS = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientAddress",
    "PatientBirthName", "PatientMotherBirthName", "PatientComments", "AdditionalPatientHistory",
    "PatientTelephoneNumbers", "MilitaryRank", "Occupation", "EthnicGroup", "AccessionNumber",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
    "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "RequestingPhysician", "OperatorsName", "StudyID", "StudyDescription",
    "SeriesDescription", "ProtocolName", "ImageComments", "DeviceSerialNumber",
    "ManufacturerModelName", "RequestedProcedureDescription", "DerivationDescription",
    "AdmissionID", "BodyPartExamined",
)  # fmt: skip
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
DATE, UID_ROOT, PRIVATE = "19470313", "1.2.999.4711", "cnyPrivate"


def _marked(ds, number=0):
    """Canaries in every identifying element, in private tags and in a nested sequence."""
    from pydicom.dataset import Dataset

    for k, name in enumerate(TEXTS):
        setattr(ds, name, f"cny{k:02d}x")
    for name in DATES:
        setattr(ds, name, DATE)
    for k, name in enumerate(UIDS):
        setattr(ds, name, f"{UID_ROOT}.{k}.{number if name.startswith('SOP') else 0}")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.private_block(0x0011, "cnyCreator", create=True).add_new(1, "LO", PRIVATE)
    request = Dataset()
    request.RequestedProcedureID, request.AccessionNumber = "cnyNested", "cnyNested2"
    ds.RequestAttributesSequence = [request]
    return ds


def _write_series(folder: Path, edit=lambda ds, k: None, **how) -> Path:
    def both(ds, k):
        _marked(ds, k)
        return edit(ds, k)

    return write_series(folder, answer_image(), edit=both, **AXIAL, **how)


def _write_data(root: Path) -> None:
    """Good and bad cases: two series, a cut file, missing tags, writing, a strange class."""
    lines = {"Liver": contours(answer_labels() == 1, answer_geometry())}
    names = ("good", "good2", "two", "cut", "nopos", "burned", "odd", "packed", "stranger")
    (root / "rs").mkdir(parents=True)
    for name in names:
        write_rtstruct(root / f"rs/cnyfile{name}.dcm", lines, frame=f"{UID_ROOT}.3.0")
    folders = {name: root / f"ct/cnyfile{name}" for name in names}
    _write_series(folders["good"])
    parts = [_marked(ds, k) for k, ds in enumerate(series(answer_image() + 5, **AXIAL))]
    made.write(folders["good2"] / "e.dcm", made.enhanced(parts, list(range(10))[::-1]))
    _write_series(folders["two"])

    def other(ds, k):
        ds.SeriesInstanceUID, ds.Modality = f"{UID_ROOT}.77", "cnyModality"
        ds.SOPClassUID = f"{UID_ROOT}.88"

    for file in _write_series(root / "other", other).iterdir():
        file.rename(folders["two"] / f"z{file.name}")
    (root / "other").rmdir()
    cut = sorted(_write_series(folders["cut"]).iterdir())[2]
    cut.write_bytes(cut.read_bytes()[:-90])

    def unplaced(ds, k):
        ds.ImagePositionPatient = ["1", "2"]
        ds.PixelSpacing = None

    _write_series(folders["nopos"], unplaced)
    _write_series(folders["burned"], lambda ds, k: setattr(ds, "BurnedInAnnotation", "YES"))
    _write_series(folders["odd"], lambda ds, k: setattr(ds, "SOPClassUID", f"{UID_ROOT}.66"))
    _write_series(folders["packed"], lambda ds, k: setattr(ds, "BitsAllocated", 12))
    lines = {"cnyRoi": lines["Liver"]}
    write_rtstruct(root / "rs/cnyfilestranger.dcm", lines, frame=f"{UID_ROOT}.3.0")
    _write_series(folders["stranger"])
    _write_series(root / "ct/cnyfileunpaired")


ENTRY = entry_dict(
    name="site_ct",
    modality="CT",
    layout={
        "images": [{"pattern": "ct/{case}/"}],
        "labels": [{"pattern": "rs/{case}.dcm"}],
    },
    label_encoding={"type": "rtstruct"},
    labels={"Liver": "liver"},
    patient={"regex": r"ct/([^/]+)"},
)


def _strings(folder: Path) -> str:
    """Every file of a folder: its name, its bytes, and of Parquet also the decoded columns."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found += [str(path.relative_to(folder)), path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path)
            found += [repr(table.read().to_pylist()), repr(table.metadata.metadata)]
    return "\n".join(found)


def _sammed(*args: str, cwd: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "sammed", "data", *args],
        cwd=cwd, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1",
             "HOME": str(cwd), "COLUMNS": "400"},
    )  # fmt: skip
    assert "Traceback" not in run.stderr, run.stderr
    return f"{run.stdout}\n{run.stderr}"


@pytest.fixture(scope="module", params=["public", "restricted"])
def site(request, tmp_path_factory) -> tuple[Path, str, str]:
    """A folder, its kind of privacy, and all that the build said."""
    folder = tmp_path_factory.mktemp("site")
    _write_data(folder / "data/site_ct")
    (folder / "catalogs").mkdir()
    text = yaml.safe_dump(ENTRY | {"privacy": request.param})
    (folder / "catalogs/site_ct.yaml").write_text(text)
    (folder / "key").write_bytes(bytes(range(32)))
    where = ("--source", "catalogs", "--root", "data", "--key", "key")
    said = [
        _sammed("build", *where, "--out", "corpus", "--workers", "1", "--profile", cwd=folder),
        _sammed("build", *where, "--out", "part", "--part", "0/1", "--workers", "1", cwd=folder),
        _sammed("status", "part", cwd=folder),
        _sammed("build", *where, "--out", "strict", "--strict", "--workers", "1", cwd=folder),
        _sammed("audit", "corpus", cwd=folder),
        _sammed("describe", "corpus", cwd=folder),
    ]
    return folder, request.param, "\n".join(said)


def _canaries(privacy: str) -> list[str]:
    found = [*(f"cny{k:02d}x" for k in range(len(TEXTS))), DATE, UID_ROOT, PRIVATE]
    found += ["cnyNested", "cnyModality", "cnyCreator"]
    return [*found, "cnyfile", "cnyRoi"] if privacy == "restricted" else found


def test_no_canary_in_files_or_output(site):
    folder, privacy, said = site
    written = "\n".join(_strings(folder / n) for n in ("corpus", "part", "strict"))
    assert "site_ct" in written  # the search looks at something
    assert "liver" in said + written
    for canary in _canaries(privacy):
        assert canary not in written, canary
        assert canary not in said, canary


def test_every_bad_case_is_set_aside_with_its_rule(site):
    folder, privacy, _ = site
    tables = [pq.ParquetFile(p).read() for p in (folder / "corpus/rejections").glob("*.parquet")]
    rows = [r for t in tables for r in t.to_pylist() if r["level"] == "case"]
    rules = sorted(r["rule"] for r in rows)
    assert rules == ["burned-in", "unpaired", *["unreadable"] * 5]
    kept = {row.meta["case_id"] for row in Corpus(folder / "corpus").index()}
    assert len(kept) == 3  # good, good2 and the one of an unknown class
    if privacy == "public":
        assert "cnyfilegood" in kept
        burned = next(r for r in rows if r["rule"] == "burned-in")
        assert "`burned_in: keep`" in burned["reason"]


def test_trace_finds_the_file_with_the_key_alone(site):
    folder, privacy, _ = site
    row = Corpus(folder / "corpus").index()[0]
    where = ["--corpus", "corpus", "--source", "catalogs", "--root", "data"]
    said = _sammed("trace", row.sample_id, *where, "--key", "key", "--json", cwd=folder)
    assert json.loads(said.strip())["differences"] == []
    assert "cnyfile" in said  # this is what the verb is for
    for canary in _canaries("public"):
        assert canary not in said
    if privacy == "restricted":
        refused = _sammed("trace", row.sample_id, *where, cwd=folder)
        assert "pass --key FILE" in refused
        (folder / "key2").write_bytes(bytes(range(1, 33)))
        refused = _sammed("trace", row.sample_id, *where, "--key", "key2", cwd=folder)
        assert "not the key it was built with" in refused
        assert "cnyfile" not in refused


def test_a_split_cannot_be_computed_without_the_key():
    from tests.data.test_splits import _cases

    entry = make_entry(privacy="restricted")
    cases = _cases(300)
    splits = [
        assign_splits(entry, cases, Pseudonyms(dataset=entry.id, secret=bytes([n]) * 32))
        for n in (1, 2)
    ]
    plain = {c.case_id: hash_split(entry.id, group_key(c)) for c in cases}
    for one, other in ((splits[0], splits[1]), (splits[0], plain)):
        differ = sum(one[c] != other[c] for c in one)
        assert differ > 0.2 * len(one)
    assert assign_splits(make_entry(), cases) == plain
    shares = [list(splits[0].values()).count(s) / 300 for s in ("test", "validation", "train")]
    np.testing.assert_allclose(shares, (0.2, 0.1, 0.7), atol=0.08)


def test_writing_is_kept_only_where_the_entry_says_so(tmp_path):
    lines = {"Liver": contours(answer_labels() == 1, answer_geometry())}
    (tmp_path / "data/site_ct/rs").mkdir(parents=True)
    write_rtstruct(tmp_path / "data/site_ct/rs/a.dcm", lines)
    _write_series(
        tmp_path / "data/site_ct/ct/a", lambda ds, k: setattr(ds, "BurnedInAnnotation", "YES")
    )
    (tmp_path / "catalogs").mkdir()
    path = tmp_path / "catalogs/site_ct.yaml"
    path.write_text(yaml.safe_dump(ENTRY))
    with pytest.raises(Exception, match="BurnedInAnnotation=YES"):
        build(tmp_path / "catalogs", tmp_path / "data", tmp_path / "corpus")
    path.write_text(yaml.safe_dump(ENTRY | {"burned_in": "keep"}))
    built = build(tmp_path / "catalogs", tmp_path / "data", tmp_path / "corpus")
    assert built.quarantined == 0


def test_masks_of_an_ultrasound_are_cut_like_the_picture(tmp_path):
    import cv2

    root = tmp_path / "data/us"
    rng = np.random.default_rng(3)
    mask = np.zeros((40, 50), np.uint8)
    mask[12:20, 15:30] = 255
    places = {"whole": mask, "part": mask[6:36, 10:44]}
    for name, drawn in places.items():
        ds = _marked(made.image(rng.integers(0, 255, (1, 40, 50)).astype(np.uint8)))
        ds.SequenceOfUltrasoundRegions = [made.region(10, 6, 43, 35)]
        made.write(root / f"images/{name}.dcm", ds)
        (root / "labels").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"labels/{name}.png"), drawn)
    entry = entry_dict(
        name="us",
        modality="ultrasound",
        dims="2D",
        layout={
            "images": [{"pattern": "images/{case}.dcm"}],
            "labels": [{"pattern": "labels/{case}.png"}],
        },
        label_encoding={"type": "binary"},
        labels={"1": "liver"},
        patient={"regex": r"images/(\w+)"},
    )
    (tmp_path / "catalogs").mkdir()
    path = tmp_path / "catalogs/us.yaml"
    path.write_text(yaml.safe_dump(entry))
    build(tmp_path / "catalogs", tmp_path / "data", tmp_path / "corpus")
    corpus = Corpus(tmp_path / "corpus")
    rows = [corpus.read(row) for row in corpus.index()]
    assert len(rows) == 2
    for row in rows:
        assert row.image.shape == (30, 34)
        np.testing.assert_array_equal(row.masks[0].mask_HW, mask[6:36, 10:44] > 0)
        assert (row.meta["spacing_y_mm"], row.meta["spacing_x_mm"]) == pytest.approx((0.5, 0.2))
        assert row.meta["notes"] == ["pixel size is that of the ultrasound region"]


def test_text_of_other_formats_is_never_stored(tmp_path):
    import nibabel as nib
    from PIL import Image, PngImagePlugin

    root = tmp_path / "data"
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "cnyText")
    rng = np.random.default_rng(8)
    (root / "pics").mkdir(parents=True)
    picture = Image.fromarray(rng.integers(0, 255, (20, 31, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "cnyText"
    picture.save(root / "pics/a.png", pnginfo=info)
    picture.save(root / "pics/b.jpg", exif=exif)
    picture.save(root / "pics/c.tif", description="cnyText")
    mask = np.zeros((20, 31), np.uint8)
    mask[3:9, 4:20] = 255
    for name in "abc":
        Image.fromarray(mask).save(root / f"pics/{name}_m.png", pnginfo=info)
    pictures = entry_dict(
        name="pics", modality="dermoscopy", dims="2D", label_encoding={"type": "binary"},
        labels={"1": "liver"}, patient={"regex": r"(\w)\."},
        layout={"images": [{"pattern": f"{{case}}.{s}"} for s in ("png", "jpg", "tif")],
                "labels": [{"pattern": "{case}_m.png"}]},
    )  # fmt: skip
    (root / "vols").mkdir()
    volume = nib.Nifti1Image(
        rng.normal(100, 9, (12, 13, 5)).astype(np.float32), np.diag([2, 1.5, 3, 1])
    )
    label = nib.Nifti1Image(
        (np.indices((12, 13, 5)).sum(0) % 9 < 4).astype(np.uint8), volume.affine
    )
    for image in (volume, label):
        image.header["descrip"], image.header["db_name"] = b"cnyText", b"cnyText"
        image.header["aux_file"], image.header["intent_name"] = b"cnyText", b"cnyText"
    nib.save(volume, root / "vols/a.nii")
    nib.save(label, root / "vols/a_m.nii")
    volumes = entry_dict(
        name="vols", patient={"regex": r"(\w)\."}, labels={"1": "liver"},
        layout={"images": [{"pattern": "{case}.nii"}], "labels": [{"pattern": "{case}_m.nii"}]},
    )  # fmt: skip
    (tmp_path / "catalogs").mkdir()
    for entry in (pictures, volumes):
        (tmp_path / f"catalogs/{entry['id']}.yaml").write_text(yaml.safe_dump(entry))
    with contextlib.suppress(ReadError):
        build(tmp_path / "catalogs", root, tmp_path / "corpus")
    rows = Corpus(tmp_path / "corpus").index()
    assert {row.dataset for row in rows} == {"pics", "vols"}
    assert "cnyText" not in _strings(tmp_path / "corpus")
