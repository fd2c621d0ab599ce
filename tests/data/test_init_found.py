"""`sammed data init` on what people's folders really hold: each case was once wrong."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from sammed_data.build import absent_sentence
from sammed_data.discover import discover, find_root
from sammed_data.ontology import load_ontology
from sammed_data.presence import possible
from sammed_data.propose.inspect import Inspector
from sammed_data.propose.overlays import try_build
from sammed_data.propose.patients import candidates
from sammed_data.types import Geometry, ReadError, UsageError
from sammed_data.writers import nifti
from tests.data import anatomy
from tests.data import build_fakes as fakes
from tests.data import init_folders as folders
from tests.data.test_init import only, propose


def test_a_long_name_without_a_number_costs_no_time():
    started = time.monotonic()
    found = candidates([f"images/{'segmentation' * 5}_{'abc' * 20}_{k}.png" for k in "xyz"])
    assert found[-1].unit == "image"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "name", ["pat{}_scan{}", "Müller {} Aufnahme {}", "患者{}_{}", "a_b-{}_{}"]
)
def test_the_first_number_of_a_name_in_any_script(name):
    found = candidates([f"images/{name.format(p, k)}.png" for p in (11, 12) for k in (1, 2)])
    assert (found[0].unit, found[0].groups, found[0].doubt) == ("patient", 2, "medium")


def test_numbers_of_a_camera_are_no_channels(tmp_path):
    folders.pairs(tmp_path, image="photos/IMG_000{}.JPG", mask="masks/IMG_000{}.png")
    entry, _, cases, _ = only(tmp_path)
    assert [p.pattern for p in entry.layout.images] == ["photos/{case}.JPG"]
    assert len(cases) == 4


def test_links_to_folders_are_followed_as_a_build_does(tmp_path):
    real = folders.pairs(tmp_path / "real")
    root = tmp_path / "real2"  # its path begins with that of a link's target
    (root / "masks").mkdir(parents=True)
    for file in (real / "masks").iterdir():
        (root / "masks" / file.name).symlink_to(file)
    (root / "images").symlink_to(real / "images")
    (root / "all").symlink_to(real)
    (root / "again").symlink_to(root)  # would never end
    (root / "gone.png").symlink_to(root / "nothing")
    entry, _, cases, proposal = only(root, images="images/c{n}.png", masks="masks/c{n}.png")
    assert len(cases) == 4
    assert "leads nowhere" in str(proposal.inferences)


def test_a_link_to_a_folder_whose_path_begins_alike_is_no_loop(tmp_path):
    folders.pairs(tmp_path / "set", image="images/p{}.png", mask="m/p{}.png")
    (tmp_path / "set2").mkdir()
    (tmp_path / "set2/inner").symlink_to(tmp_path / "set")
    entry = fakes.make_entry(
        layout={"images": [{"pattern": "inner/images/p{n}.png"}],
                "labels": [{"pattern": "inner/m/p{n}.png"}]}
    )  # fmt: skip
    assert find_root(entry, tmp_path / "set2") == tmp_path / "set2"
    assert len(discover(entry, tmp_path / "set2").cases) == 4
    assert possible({entry.id: entry}, tmp_path / "set2") == {entry.id}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_said(tmp_path):
    folders.pairs(tmp_path)
    (tmp_path / "more").mkdir(mode=0)
    _, _, _, proposal = only(tmp_path)
    assert "cannot be listed" in str(proposal.inferences)


def _paletted(path, classes, palette):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(classes.astype(np.uint8), "P")
    image.putpalette(sum(palette, ()))
    image.save(path)


RED, BLUE, BLACK = (200, 0, 0), (0, 0, 200), (0, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ([BLACK, RED, BLUE], [BLACK, RED, BLUE], "index"),
        ([RED, BLACK, BLUE], [RED, BLACK, BLUE], "rgb"),  # black, the background, is not 0
        ([BLACK, RED, BLUE], [BLACK, BLUE, RED], "rgb"),  # a number of two colours
        ([(9, 9, 9), RED, BLUE], [(9, 9, 9), RED, BLUE], "index"),  # no black at all
    ],
)
def test_palettes_that_mislead_are_read_as_colours(tmp_path, first, second, kind):
    folders.pairs(tmp_path)
    for k, palette in enumerate((first, second, first, second)):
        classes = np.full(folders.SHAPE, palette.index(BLACK) if BLACK in palette else 0)
        classes[10:20, 10:25] = palette.index(RED)
        classes[30:40, 5:15] = palette.index(BLUE)
        _paletted(tmp_path / f"masks/c{k}.png", classes, palette)
    entry, doubts, _, _ = only(tmp_path)
    assert entry.label_encoding.type == kind
    if kind == "rgb":
        assert set(entry.labels) == {"200,0,0", "0,0,200"}
        assert doubts["encoding"] == "medium"
        assert "mislead" in entry.quirks[0]


def test_told_colours_of_a_palette(tmp_path):
    folders.pairs(tmp_path)
    for k in range(4):
        _paletted(tmp_path / f"masks/c{k}.png", folders.disc(k, 1), [BLACK, RED])
    entry, _, _, _ = only(tmp_path, encoding="rgb")
    assert set(entry.labels) == {"200,0,0"}


def _photograph(path, array, orientation):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(path, exif=exif)


@pytest.mark.parametrize(("orientation", "doubt"), [(1, "low"), (3, "medium")])
def test_photographs_that_are_to_be_shown_turned_are_in_doubt(tmp_path, orientation, doubt):
    folders.pairs(tmp_path)
    for k in range(4):
        (tmp_path / f"images/c{k}.png").unlink()
        _photograph(tmp_path / f"images/c{k}.jpg", folders.picture(k, True), orientation)
    _, doubts, _, proposal = only(tmp_path)
    assert doubts["pairs"] == doubt
    assert ("EXIF" in str(proposal.inferences)) == (orientation == 3)


def test_a_mask_drawn_on_the_turned_photograph_is_told_from_another_size(tmp_path):
    folders.pairs(tmp_path)
    for k in range(4):
        (tmp_path / f"images/c{k}.png").unlink()
        turned = np.ascontiguousarray(np.rot90(folders.picture(k, True)))
        _photograph(tmp_path / f"images/c{k}.jpg", turned, 6)
    assert "EXIF orientation 6 is not applied" in try_build(only(tmp_path)[3].entry, tmp_path,
                                                            None).failure  # fmt: skip


def test_pictures_of_two_sizes_are_not_told_to_be_resampled_in_space(tmp_path):
    folders.pairs(tmp_path, lambda k: np.kron(folders.disc(k), np.ones((2, 2), np.uint8)))
    failure = try_build(only(tmp_path)[3].entry, tmp_path, None).failure
    assert "grid: resize_image" in failure
    folders.pairs(tmp_path, lambda k: np.pad(folders.disc(k), 9))
    failure = try_build(only(tmp_path)[3].entry, tmp_path, None).failure
    assert failure
    assert "resize_image" not in failure


@pytest.mark.parametrize("name", ["my-study", "Meine Studie é"])
def test_a_build_finds_the_folder_from_the_one_above(tmp_path, name):
    root = folders.pairs(tmp_path / name)
    entry, _, _, _ = only(root, public=True)
    assert find_root(entry, tmp_path) == root
    assert find_root(entry, root) == root


def test_two_entries_of_one_folder_are_said_and_so_is_a_key_that_nothing_uses(tmp_path):
    fakes.write_source(tmp_path / "data", n=2)
    fakes.write_catalog(tmp_path / "c", fakes.entry_dict(), fakes.entry_dict("twin", root=[
        "fake_mr"]))  # fmt: skip
    said = ["data", "build", "--source", "c", "--root", "data", "--workers", 1]
    wrong = fakes.call_cli(*said, "--key", "site.key", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "cannot read the key file site.key" in wrong.stderr
    (tmp_path / "site.key").write_bytes(bytes(range(32)))
    run = fakes.call_cli(*said, "--key", "site.key", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "built more than once: fake_mr, twin" in run.stdout
    assert "--key was not used" in run.stdout
    one = fakes.call_cli(*said, "--only", "twin", "--out", "one", cwd=tmp_path)
    assert "built more than once" not in one.stdout


def test_commands_to_copy_are_quoted(tmp_path):
    fakes.write_source(tmp_path / "data", n=2)
    fakes.write_catalog(tmp_path / "c")
    said = [
        "data",
        "build",
        "--source",
        "c",
        "--root",
        "data",
        "--workers",
        1,
        "--out",
        "my corpus",
    ]
    run = fakes.call_cli(*said, "--part", "0/1", cwd=tmp_path)
    assert "sammed data merge 'my corpus'" in run.stdout


def test_ones_own_data_that_are_not_there_have_no_address(tmp_path):
    entry = fakes.make_entry(homepage="own data")
    assert "get it from" not in absent_sentence(entry, tmp_path)
    assert str(tmp_path / "fake_mr") in absent_sentence(entry, tmp_path)


def test_pictures_of_several_formats_are_one_dataset(tmp_path):
    endings = ("png", "jpg", "JPG", "bmp", "tif", "png")
    for k, (image, mask) in enumerate(zip(endings, reversed(endings), strict=True)):
        mask = "png" if mask.lower() == "jpg" and k % 2 else mask
        folders.save(tmp_path / f"images/c{k}.{image}", folders.picture(k))
        folders.save(tmp_path / f"masks/c{k}.{mask}", folders.disc(k))
    (tmp_path / "images/notes.txt").write_text("no image")
    entry, doubts, cases, proposal = only(tmp_path)
    assert len(cases) == 6
    assert (entry.label_encoding.type, entry.label_encoding.threshold) == ("binary", 127)
    assert doubts["pairs"] == doubts["encoding"] == "low"
    trial = try_build(proposal.entry, tmp_path, None)
    assert (trial.images, trial.unpaired, trial.failure) == (6, 0, "")


def test_one_image_in_two_formats_is_not_taken_twice(tmp_path):
    folders.pairs(tmp_path)
    for k in range(4):
        folders.save(tmp_path / f"images/c{k}.jpg", folders.picture(k))
    proposals = propose(tmp_path, public=True)
    assert len(proposals) == 2
    assert all(len(p.entry["layout"]["images"]) == 1 for p in proposals)


def test_blurred_masks_beside_masks_of_zero_and_one_are_in_doubt(tmp_path):
    folders.pairs(tmp_path, lambda k: folders.disc(k, 1))
    for k in range(2):
        (tmp_path / f"masks/c{k}.png").unlink()
        folders.save(tmp_path / f"masks/c{k}.jpg", folders.disc(k))
    assert only(tmp_path)[1]["encoding"] == "high"


def test_where_nothing_is_marked_there_is_no_picture_to_look_at(tmp_path):
    folders.pairs(tmp_path / "empty", lambda k: 0 * folders.disc(k), n=1)
    run = fakes.call_cli("data", "init", "empty", "--yes", "--public", cwd=tmp_path)
    assert run.returncode == 3
    assert "cases: nothing was kept: images/c0: slices on which" in run.stdout
    assert "1 image with 1 mask by" in run.stdout
    assert "next: mend what is in doubt" in run.stdout


def _volumes(root, n, edit):
    """Volumes with labels; ``edit`` changes labels and affine of some."""
    for k in range(n):
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(exist_ok=True)
        anatomy.write_nifti(root / f"imagesTr/c{k}.nii.gz", folders.scan(k))
        labels, affine = edit(k, anatomy.answer_labels(), anatomy.answer_geometry().affine_lps)
        lps = Geometry(affine_lps=affine, shape_zyx=labels.shape)
        nifti.write(root / f"labelsTr/c{k}.nii.gz", labels, lps)


def _padded(k, labels, affine):
    """Case 1 has a larger field of view."""
    if k != 1:
        return labels, affine
    moved = affine.copy()
    moved[:3, 3] = (affine @ [-2, -3, -1, 1])[:3]
    return np.pad(labels, ((2, 1), (3, 2), (1, 4))), moved


def _mirrored(k, labels, affine):
    """Case 1 lies mirrored at the edge of its image."""
    moved = affine.copy()
    moved[:3, 2] *= -1 if k == 1 else 1
    return labels, moved


def test_one_pair_on_two_grids_does_not_resample_a_dataset(tmp_path):
    _volumes(tmp_path, 4, _padded)
    entry, _, _, proposal = only(tmp_path)
    assert entry.grid == "same"
    said = next(i for i in proposal.inferences if i.key == "grid")
    assert "1 of 4 pairs looked at lie on two grids" in said.evidence
    assert [r.rule for r in try_build(proposal.entry, tmp_path, None).rejected][0] == "grid"


def test_resampling_refuses_labels_beside_their_image(tmp_path):
    _volumes(tmp_path, 3, _mirrored)
    entry = {**only(tmp_path)[3].entry, "grid": "resample_image"}
    rejected = try_build(entry, tmp_path, None).rejected
    assert (rejected[0].rule, rejected[0].count) == ("grid", 1)
    assert "of the labelled voxels outside it" in rejected[0].reason
    _volumes(tmp_path, 3, _padded)
    assert "case" not in [r.level for r in try_build(entry, tmp_path, None).rejected]


ANSWERS = {
    "an unknown encoding": ({"encoding": "indx"}, "unknown --encoding 'indx'.*index"),
    "one that needs more than flags": ({"encoding": "instance_csv"}, "by hand"),
    "a brace alone": ({"images": "images/c{n.png", "masks": "masks/c{n}.png"}, "a brace alone"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_that_make_no_entry_are_one_sentence(tmp_path, kind):
    answers, sentence = ANSWERS[kind]
    folders.pairs(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        propose(tmp_path, **answers)


def test_told_binary_takes_all_classes_of_small_numbers(tmp_path):
    folders.pairs(tmp_path, lambda k: folders.disc(k, 1) + 2 * (folders.disc(k + 9) > 0))
    entry, _, _, proposal = only(tmp_path, encoding="binary")
    assert entry.label_encoding.threshold == 0
    assert try_build(proposal.entry, tmp_path, None).images == 4


def test_an_archive_is_not_a_folder(tmp_path):
    folders.pairs(tmp_path / "set")
    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "set")
    with pytest.raises(UsageError, match=r"set\.zip: unpack it"):
        propose(tmp_path / "set.zip")


def test_two_series_in_one_folder_are_why_there_is_no_image(tmp_path):
    for k in (1, 2):
        for n, ds in enumerate(anatomy.series(folders.scan(k), series_uid=f"1.2.{k}")):
            (tmp_path / "all").mkdir(exist_ok=True)
            ds.save_as(tmp_path / f"all/{k}-{n}.dcm", enforce_file_format=True)
    contours = anatomy.contours(anatomy.answer_labels() == 1, anatomy.answer_geometry())
    anatomy.write_rtstruct(tmp_path / "all/rs.dcm", {"Liver": contours})
    with pytest.raises(ReadError, match=r"no image.* all: 2 DICOM series in one folder"):
        propose(tmp_path)


def test_what_init_and_build_made_in_the_folder_is_no_data(tmp_path):
    folders.pairs(tmp_path)
    said = ["--yes", "--public"]
    assert fakes.call_cli("data", "init", ".", *said, cwd=tmp_path).returncode == 0
    built = fakes.call_cli("data", "build", "--source", "catalogs", "--root", ".", "--workers", 1,
                           cwd=tmp_path)  # fmt: skip
    assert built.returncode == 0, built.stderr
    entry, doubts, cases, proposal = only(tmp_path)
    assert (len(cases), doubts["format"], doubts["pairs"]) == (4, "low", "low")
    assert Inspector(tmp_path, load_ontology(None)).found.n_files == 9  # with the entry itself


def test_a_damaged_photograph_does_not_end_the_survey(tmp_path):
    folders.pairs(tmp_path)
    (tmp_path / "images/c1.png").write_bytes(b"")
    _, _, _, proposal = only(tmp_path)
    assert [r.rule for r in try_build(proposal.entry, tmp_path, None).rejected] == ["unreadable"]
