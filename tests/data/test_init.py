"""`sammed data init`: what is inferred from folders as people keep them, and with which doubt."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.ontology import load_ontology
from sammed_data.propose.carriers import Answers
from sammed_data.propose.inspect import Inspector
from sammed_data.propose.overlays import try_build
from sammed_data.types import ReadError, UsageError
from tests.data import anatomy
from tests.data import init_folders as folders

load_ontology = functools.cache(load_ontology)


def propose(root, **answers):
    return Inspector(root, load_ontology(None)).proposals(Answers(**answers))


def only(root, **answers):
    """The one proposal of a folder, its doubts, and its cases by the normal discovery."""
    (proposal,) = propose(root, **answers)
    entry = CatalogEntry.model_validate(proposal.entry)
    doubts = {i.key: i.doubt for i in proposal.inferences}
    return entry, doubts, discover(entry, root).cases, proposal


PICTURES = {
    "binary": (folders.disc, {}, "binary", {"1"}, "low"),
    "outline": (folders.outline, {}, "binary", {"1"}, "medium"),
    "jpeg": (folders.disc, {"image": "images/{}.jpg", "mask": "masks/{}.jpg"}, "binary", {"1"},
             "low"),
    "rgb": (folders.coloured, {}, "rgb", {"0,255,0", "255,0,0"}, "low"),
    "rgba": (folders.opaque, {}, "binary", {"1"}, "low"),
    "values": (folders.grey_levels, {}, "values", {"64", "128"}, "low"),
    "objects": (folders.objects, {"mask": "masks/c{}.tif"}, "instance_ids", {"*"}, "low"),
    "inverted": (lambda k: 255 - folders.disc(k), {}, "binary", {"1"}, "high"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_with_masks(tmp_path, kind):
    make, names, encoding, values, doubt = PICTURES[kind]
    root = folders.pairs(tmp_path, make, **names)
    entry, doubts, cases, proposal = only(root)
    assert entry.label_encoding.type == encoding
    assert set(entry.labels) == values
    assert doubts["encoding"] == doubt
    assert doubts["labels"] == "high"  # nothing in the data names what is drawn
    assert len(cases) == 4
    assert entry.dims == "2D"
    assert entry.label_encoding.fill == (kind == "outline")
    assert entry.label_encoding.inverted == (kind == "inverted")
    trial = try_build(proposal.entry, root, None, n=2)
    assert trial.failure == ""
    assert trial.images == 2


NAMINGS = {
    "parallel folders": ("images/c{}.png", "masks/c{}.png"),
    "a suffix": ("scan{}.png", "scan{}_mask.png"),
    "blanks and other letters": ("Bär {} links.png", "Bär {} links_seg.png"),
    "prefixes": ("img{}.png", "label{}.png"),
    "folders and suffix": ("train/img/x_{}.png", "train/gt/x_{}_annotation.png"),
    "a folder a case": ("case{}/image.png", "case{}/mask.png"),
    "folder named like the file": ("p{0}/p{0}.png", "p{0}/p{0}_gt.png"),
    "other endings": ("images/{}.jpg", "labels/{}.png"),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_namings(tmp_path, naming):
    image, mask = NAMINGS[naming]
    root = folders.pairs(tmp_path, image=image, mask=mask)
    entry, doubts, cases, _ = only(root)
    got = {
        (c.image_path.relative_to(root).as_posix(), x.path.relative_to(root).as_posix())
        for c in cases
        for x in c.labels
    }
    assert got == {(image.format(k), mask.format(k)) for k in range(4)}
    assert doubts["pairs"] != "high"
    assert entry.label_encoding.type == "binary"


def test_two_observers(tmp_path):
    root = folders.pairs(tmp_path, image="Image_0{}L.jpg", mask="Image_0{}L_1stHO.png")
    for k in range(4):
        folders.save(root / f"Image_0{k}L_2ndHO.png", folders.disc(k + 1))
    entry, _, cases, _ = only(root)
    assert [p.annotator for p in entry.layout.labels] == [1, 2]
    assert all(len(c.labels) == 2 for c in cases)


def test_observers_in_folders(tmp_path):
    root = folders.pairs(tmp_path, mask="manual1/c{}.png")
    for k in range(4):
        folders.save(root / f"manual2/c{k}.png", folders.disc(k + 1))
    entry, doubts, _, _ = only(root)
    assert [p.annotator for p in entry.layout.labels] == [1, 2]
    assert doubts["pairs"] == "medium"


def test_file_per_class(tmp_path):
    root = folders.pairs(tmp_path, image="images/pat{}.png", mask="masks/pat{}_liver.png")
    for k in range(4):
        folders.save(root / f"masks/pat{k}_left_kidney.png", folders.disc(k + 9))
    entry, doubts, cases, _ = only(root)
    assert entry.label_encoding.type == "file_per_class"
    assert entry.labels == {"liver": "liver", "left_kidney": "kidney_left"}
    assert doubts["labels"] == "low"
    assert all(len(c.labels) == 2 for c in cases)


def test_classes_in_folders_of_unknown_names(tmp_path):
    root = folders.pairs(tmp_path, mask="masks/quux/c{}.png")
    for k in range(4):
        folders.save(root / f"masks/liver/c{k}.png", folders.disc(k + 9))
    entry, doubts, _, proposal = only(root)
    assert entry.labels == {"liver": "liver", "quux": "unnamed_object"}
    assert doubts["labels"] == "high"
    assert "no structure" in proposal.label_comments["quux"]
    assert doubts["pairs"] == "medium"


def test_file_per_object(tmp_path):
    for k in range(3):
        folders.save(tmp_path / f"h{k}f00ba5e{k}/images/h{k}f00ba5e{k}.png", folders.picture(k))
        for n in range(5):
            path = tmp_path / f"h{k}f00ba5e{k}/masks/{k}{n}ab34cd56ef{n}{k}.png"
            folders.save(path, folders.disc(n + k))
    entry, _, cases, _ = only(tmp_path)
    assert entry.label_encoding.type == "file_per_instance"
    assert [len(c.labels) for c in cases] == [5, 5, 5]


def test_nnunet_channels_and_names(tmp_path):
    entry, doubts, cases, _ = only(folders.nnunet(tmp_path))
    assert [p.channel for p in entry.layout.images] == ["t1", "flair"]
    assert entry.labels == {"1": "liver", "5": "spleen"}
    assert entry.modality == "MR"
    assert len(cases) == 6
    assert {doubts[k] for k in ("pairs", "encoding", "labels", "modality")} == {"low"}


def test_four_dimensional_image(tmp_path):
    entry, _, cases, proposal = only(folders.four_channels(tmp_path))
    assert entry.layout.images[0].channel == ["c0", "c1", "c2"]
    assert len(cases) == 9
    assert try_build(proposal.entry, tmp_path, None, n=3).failure == ""


@pytest.mark.parametrize("one_folder", [False, True])
def test_dicom_with_rtstruct(tmp_path, one_folder):
    root = folders.rtstructs(tmp_path, one_folder=one_folder)
    entry, doubts, cases, proposal = only(root)
    assert entry.label_encoding.type == "rtstruct"
    assert entry.labels == {"Liver": "liver"}
    assert (entry.modality, doubts["modality"]) == ("CT", "low")
    assert len(cases) == 3
    assert try_build(proposal.entry, root, None, n=2).masks > 0


def test_dicom_with_seg(tmp_path):
    entry, doubts, cases, proposal = only(folders.segs(tmp_path))
    assert entry.label_encoding.type == "dicom_seg"
    assert doubts["pairs"] == "low"  # joined by references
    assert len(cases) == 2
    assert try_build(proposal.entry, tmp_path, None, n=2).masks > 0


def test_series_of_two_in_one_folder_are_said(tmp_path):
    folders.rtstructs(tmp_path)
    anatomy.write_series(tmp_path / "mixed", folders.scan(1), series_uid="1.9")
    more = anatomy.write_series(tmp_path / "more", folders.scan(2), series_uid="1.8")
    for k, path in enumerate(sorted(more.iterdir())):
        path.rename(tmp_path / "mixed" / f"other{k}.dcm")
    inspector = Inspector(tmp_path, load_ontology(None))
    assert any("2 DICOM series in one folder" in why for _, why in inspector.unreadable)


def test_volumes_without_common_names_are_joined_by_grid(tmp_path):
    anatomy.write_nifti(tmp_path / "thorax.nii.gz", folders.scan(1))
    anatomy.write_itk(tmp_path / "drawn.nrrd", anatomy.answer_labels())
    entry, doubts, cases, _ = only(tmp_path)
    assert len(cases) == 1
    assert doubts["pairs"] == "medium"
    assert set(entry.labels) == {"1", "5"}


@pytest.mark.parametrize(("make", "kind"), [(folders.coco, "coco"), (folders.labelme, "labelme")])
def test_outlines_in_documents(tmp_path, make, kind):
    entry, doubts, cases, proposal = only(make(tmp_path))
    assert entry.label_encoding.type == "polygons"
    assert entry.label_encoding.format == kind
    assert doubts["labels"] == "low"
    trial = try_build(proposal.entry, tmp_path, None)
    assert (trial.failure, trial.images) == ("", len(cases))


def test_official_splits_by_folder(tmp_path):
    for split in ("train", "test"):
        folders.pairs(tmp_path, image=f"{split}/images/{split}c{{}}.png",
                      mask=f"{split}/masks/{split}c{{}}.png")  # fmt: skip
    entry, _, cases, _ = only(tmp_path)
    assert {c.official_split for c in cases} == {"train", "test"}
    assert len(cases) == 8


def test_masks_of_an_own_alpha_channel_are_refused_in_words(tmp_path):
    root = folders.pairs(tmp_path, folders.in_alpha)
    _, doubts, _, proposal = only(root)
    assert doubts["encoding"] == "high"
    assert any("alpha" in q for q in proposal.entry["quirks"])
    assert "nothing is marked" in try_build(proposal.entry, root, None).failure


def test_unreadable_files_are_counted_and_named(tmp_path):
    root = folders.pairs(tmp_path)
    (root / "images/c8.png").write_bytes(b"junk" * 9)
    (root / "masks/c8.png").write_bytes(b"")
    inspector = Inspector(root, load_ontology(None))
    (proposal,) = inspector.proposals(Answers())
    doubts = {i.key: i for i in proposal.inferences}
    assert doubts["format"].doubt == "medium"
    assert "not read" in doubts["format"].evidence
    assert {p for p, _ in inspector.unreadable} == {"images/c8.png", "masks/c8.png"}
    trial = try_build(proposal.entry, root, None)
    assert [(r.rule, r.count) for r in trial.rejected] == [("unreadable", 1)]


def test_other_grid_is_seen(tmp_path):
    for k in range(2):
        anatomy.write_nifti(tmp_path / f"c{k}_image.nii.gz", folders.scan(k))
        anatomy.write_nifti(tmp_path / f"c{k}_seg.nii.gz", anatomy.answer_labels()[:, ::2])
    entry, _, _, _ = only(tmp_path)
    assert entry.grid == "resample_image"


PATIENTS = {
    "bids": (["sub-01_T1w.png", "sub-01_T2w.png", "sub-02_T1w.png"], 2, "patient", "low"),
    "slices": (["amos_04_75.png", "amos_04_76.png", "amos_06_9.png"], 2, "patient", "medium"),
    "eyes": (["a/Img_01L.jpg", "a/Img_01R.jpg", "a/Img_02L.jpg"], 2, "patient", "medium"),
    "folders": (["p/pat01/x1.png", "p/pat01/x2.png", "p/pat02/x1.png"], 2, "patient", "low"),
    "nothing": (["u/alpha.png", "u/beta.png", "u/gamma.png"], 3, "image", "high"),
}


@pytest.mark.parametrize("kind", PATIENTS)
def test_patient_candidates(kind):
    from sammed_data.propose.patients import candidates

    paths, groups, unit, doubt = PATIENTS[kind]
    best = candidates(paths)[0]
    assert (best.groups, best.unit, best.doubt) == (groups, unit, doubt)


def test_patient_image_says_that_there_is_no_patient(tmp_path):
    entry, doubts, cases, _ = only(folders.pairs(tmp_path), patient="image")
    assert (entry.patient.unit, doubts["patient"]) == ("image", "low")
    assert len({c.patient_key for c in cases}) == 4


def test_answers_settle_doubts(tmp_path):
    root = folders.pairs(tmp_path, image="images/p1_{}.png", mask="masks/p1_{}.png")
    entry, doubts, cases, _ = only(
        root, labels="1=liver", modality="ultrasound", patient=r"(p\d)_", public=True,
        license="CC0-1.0", id="own",
    )  # fmt: skip
    assert entry.id == "own"
    assert (entry.labels, entry.modality) == ({"1": "liver"}, "ultrasound")
    assert (entry.privacy, entry.license) == ("public", "CC0-1.0")
    assert {c.patient_key for c in cases} == {"p1"}
    assert "high" not in doubts.values()


def test_a_told_label_that_no_file_has_is_said(tmp_path):
    entry, doubts, _, proposal = only(folders.pairs(tmp_path), labels="1=liver,7=spleen")
    assert (entry.labels, doubts["labels"]) == ({"1": "liver"}, "medium")
    assert "no label file" in proposal.label_comments["7"]


def test_patterns_of_the_user(tmp_path):
    root = folders.pairs(tmp_path, image="a/q{}.png", mask="b/{}-z.png")
    entry, doubts, cases, _ = only(root, images="a/q{n}.png", masks="b/{n}-z.png")
    assert (len(cases), doubts["pairs"]) == (4, "low")
    assert entry.layout.images[0].pattern == "a/q{n}.png"


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ({"labels": "1"}, "VALUE=NAME"),
        ({"labels": "1=livre"}, "liver"),
        ({"modality": "xray"}, "X-ray"),
        ({"patient": "(nobody)"}, "must match every image"),
        ({"patient": "("}, "--patient"),
        ({"images": "images/{c}.png"}, "go together"),
        ({"images": "i/{c}.png", "masks": "m/{c}.png"}, "no file matches"),
        ({"group": "x"}, "no group"),
    ],
)
def test_wrong_answers(tmp_path, answers, word):
    with pytest.raises(UsageError, match=word):
        propose(folders.pairs(tmp_path), **answers)


def test_nothing_to_pair(tmp_path):
    with pytest.raises(ReadError, match="found 0 files"):
        propose(tmp_path)
    for k in range(3):
        folders.save(tmp_path / f"{k}.png", folders.picture(k))
    with pytest.raises(ReadError, match="3 images .* and no mask"):
        propose(tmp_path)
    with pytest.raises(UsageError, match="found none"):
        propose(tmp_path / "nowhere")


def test_listing_stops_and_says_so(tmp_path):
    root = folders.pairs(tmp_path, image="{}.png", mask="{}_mask.png", n=9)
    inspector = Inspector(root, load_ontology(None), max_files=10)
    assert "stopped at 10 files" in inspector.found.limit
    (proposal,) = inspector.proposals(Answers())
    assert {i.key: i.doubt for i in proposal.inferences}["format"] == "medium"


def test_content_wins_over_a_misleading_name(tmp_path):
    """Files called masks that hold photographs are said, not believed."""
    for k in range(3):
        folders.save(tmp_path / f"mask_{k}.png", folders.picture(k))
        folders.save(tmp_path / f"gt_{k}.png", folders.disc(k))
    inspector = Inspector(tmp_path, load_ontology(None))
    assert any("called a mask" in c for c in inspector.roles.conflicts)
    (proposal,) = inspector.proposals(Answers())
    assert proposal.group.image_patterns[0][0].startswith("mask_")


def test_many_names_stay_linear(tmp_path):
    """Pairing looks names up; nothing is compared with everything."""
    from sammed_data.propose.carriers import Item
    from sammed_data.propose.pairing import pair_up

    items = [
        Item(path=f"{kind}/p{k:05d}_{k % 7}.png", kind="raster")
        for kind in ("images", "masks")
        for k in range(4000)
    ]
    role = {i.path: "image" if i.path.startswith("images") else "label" for i in items}
    assert len(pair_up(tmp_path, items, role)) == 4000


def test_look_tells_masks_from_images():
    from sammed_data.propose.formats import describe

    flat = np.zeros((1, 40, 50), np.uint8)
    assert describe(flat).role is None
    assert describe(folders.picture(3)[None]).role == "image"
    assert describe(folders.disc(3)[None]).role == "label"
    assert describe(np.linspace(0, 1, 2000).reshape(1, 40, 50)).role == "image"
    jagged = cv2_blurred(folders.disc(3))[None]
    assert describe(jagged).lossy
    assert describe(jagged).role == "label"


def cv2_blurred(mask):
    import cv2

    return cv2.GaussianBlur(mask, (3, 3), 0)


@pytest.mark.parametrize(
    ("name", "structure"),
    [("Lung_L", "lung_left"), ("R_Kidney", "kidney_right"), ("Kidney Lt", "kidney_left")],
)
def test_sides_of_roi_names(name, structure):
    from sammed_data.propose.naming import resolve

    ontology = load_ontology(None)
    assert resolve(name, (), ontology, alone=False)[0] == structure
    found, comment, _ = resolve("QXZ", (), ontology, alone=False)
    assert found == "unnamed_object"
    assert "--labels" in comment
