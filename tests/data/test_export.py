"""Exports hold the corpus' pixels, and what a layout cannot say is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sammed_data.build import build
from sammed_data.cli import app
from sammed_data.codecs import decode_image
from sammed_data.corpus import VIEWS, Corpus
from sammed_data.export import Chosen, Writer, coco, export, nnunet, samed2d
from sammed_data.phantom import write_phantoms
from sammed_data.types import CorpusError, UsageError
from tests.data import build_fakes as fakes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("export")
    write_phantoms(folder, n_patients=12, seed=2, only=("phantom_ct", "phantom_fundus"))
    build(folder / "catalogs", folder / "data", folder / "corpus")
    return Corpus(folder / "corpus")


def read(path: Path):
    return json.loads(path.read_text())


def picture(path: Path) -> np.ndarray:
    return decode_image(path.read_bytes())


def test_sam_med2d_as_its_training_script_reads_it(corpus: Corpus, tmp_path: Path) -> None:
    written = export(corpus, tmp_path / "data_demo", samed2d.write, Chosen())
    rows = {row.sample_id: corpus.read(row) for row in corpus.index()}
    assert written.images == len(rows)
    assert written.masks == sum(len(row.masks) for row in rows.values())
    train = read(tmp_path / "data_demo" / "image2label_train.json")
    test = read(tmp_path / "data_demo" / "label2image_test.json")
    assert len(train) == sum(row.split == "train" for row in rows.values())
    assert len(test) == sum(len(r.masks) for r in rows.values() if r.split == "test")
    for image, masks in train.items():
        assert image.startswith("data_demo/images/")  # relative to the parent folder
        row = rows[Path(image).stem]
        np.testing.assert_array_equal(picture(tmp_path / image), row.image)
        for name, mask in zip(masks, row.masks, strict=True):
            found = picture(tmp_path / name)
            assert set(np.unique(found)) <= {0, 255}
            np.testing.assert_array_equal(found > 0, mask.mask_HW)
            assert name.startswith(f"data_demo/masks/{row.sample_id}--{mask.structure}_")
    for mask_name, image in test.items():
        assert (tmp_path / mask_name).is_file()
        assert rows[Path(image).stem].split == "test"
    # No patient is on both sides.
    patients = [{rows[Path(i).stem].meta["patient_id"] for i in s} for s in (train, test.values())]
    assert not patients[0] & patients[1]


def test_nnunet_has_one_label_map_an_image(corpus: Corpus, tmp_path: Path) -> None:
    chosen = Chosen(datasets=("phantom_ct",))
    written = export(corpus, tmp_path / "raw", nnunet.write, chosen)
    inner = tmp_path / "raw" / "Dataset001_phantom_ct"
    said = read(inner / "dataset.json")
    rows = {r.sample_id: corpus.read(r) for r in corpus.index() if r.dataset == "phantom_ct"}
    training = {k: r for k, r in rows.items() if r.split in ("train", "validation")}
    assert said["numTraining"] == len(training) == len(list((inner / "imagesTr").iterdir()))
    assert said["channel_names"] == {"0": "grey"}
    assert sorted(said["labels"].values()) == list(range(len(said["labels"])))
    (fold,) = read(inner / "splits_final.json")
    assert sorted(fold["train"] + fold["val"]) == sorted(training)
    sides = [{training[c].meta["patient_id"] for c in fold[k]} for k in ("train", "val")]
    assert not sides[0] & sides[1]
    covered = 0
    for case, row in rows.items():
        part = "Tr" if case in training else "Ts"
        image = picture(inner / f"images{part}" / f"{case}_0000.png")
        np.testing.assert_array_equal(image, row.image)
        plane = picture(inner / f"labels{part}" / f"{case}.png")
        everything = np.zeros(plane.shape, bool)
        for mask in row.masks:
            assert mask.mask_HW is not None
            everything |= mask.mask_HW
            wrong = mask.mask_HW & (plane != said["labels"][mask.structure])
            covered += int(wrong.sum())
        np.testing.assert_array_equal(plane > 0, everything)
    assert covered == written.lost["mask pixels under a smaller structure"]


def test_nnunet_draws_the_cup_on_the_disc(corpus: Corpus, tmp_path: Path) -> None:
    chosen = Chosen(datasets=("phantom_fundus",))
    written = export(corpus, tmp_path / "raw", nnunet.write, chosen)
    inner = tmp_path / "raw" / "Dataset001_phantom_fundus"
    said = read(inner / "dataset.json")
    assert said["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert written.lost["mask pixels under a smaller structure"] > 0
    row = next(r for r in corpus.index(["test"]) if r.dataset == "phantom_fundus")
    plane = picture(inner / "labelsTs" / f"{row.sample_id}.png")
    cup = next(m for m in corpus.read(row).masks if m.structure == "optic_cup")
    values = plane[cup.mask_HW]
    vessel = said["labels"].get("retinal_vessel")
    assert set(np.unique(values)) <= {said["labels"]["optic_cup"], vessel}


def test_nnunet_refuses_what_it_cannot_mean(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="phantom_ct, phantom_fundus.*--dataset"):
        export(corpus, tmp_path / "raw", nnunet.write, Chosen())
    assert not list(tmp_path.iterdir())


def test_coco_masks_decode_to_the_stored_ones(corpus: Corpus, tmp_path: Path) -> None:
    export(corpus, tmp_path / "coco", coco.write, Chosen(splits=("train", "test")))
    assert not (tmp_path / "coco" / "annotations" / "instances_validation.json").exists()
    rows = {row.sample_id: corpus.read(row) for row in corpus.index()}
    seen = 0
    for split in ("train", "test"):
        said = read(tmp_path / "coco" / "annotations" / f"instances_{split}.json")
        names = {c["id"]: c["name"] for c in said["categories"]}
        images = {i["id"]: i for i in said["images"]}
        masks = {key: iter(row.masks) for key, row in rows.items()}
        for found in said["annotations"]:
            image = images[found["image_id"]]
            mask = next(masks[image["sample_id"]])
            decoded = decode(found["segmentation"])
            np.testing.assert_array_equal(decoded, mask.mask_HW)
            x, y, w, h = found["bbox"]
            assert (x, y, x + w, y + h) == mask.box_xyxy
            assert names[found["category_id"]] == mask.structure
            seen += 1
        for image in images.values():
            assert (tmp_path / "coco" / "images" / image["file_name"]).is_file()
    assert seen == sum(len(r.masks) for r in rows.values() if r.split in ("train", "test"))


def decode(segmentation: dict) -> np.ndarray:
    """COCO's run lengths, read by the letter of their definition."""
    counts, values, place = [], segmentation["counts"], 0
    while place < len(values):
        number, shift, more = 0, 0, True
        while more:
            code = ord(values[place]) - 48
            number |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            place, shift = place + 1, shift + 5
            if not more and code & 0x10:
                number |= -1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
    height, width = segmentation["size"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 7))
def test_run_lengths_of_any_mask_come_back(bits: list[bool], height: int) -> None:
    bits = bits[: max(height, len(bits) // height * height)]
    mask = np.resize(np.array(bits, bool), (height, max(1, len(bits) // height)))
    text = coco.compressed(coco.run_lengths(mask))
    np.testing.assert_array_equal(decode({"size": list(mask.shape), "counts": text}), mask)


def test_views_and_existing_folders(corpus: Corpus, tmp_path: Path) -> None:
    every = export(corpus, tmp_path / "a", samed2d.write, Chosen())
    large = export(corpus, tmp_path / "b", samed2d.write, Chosen(view=VIEWS["sam-med2d"]))
    assert 0 < large.masks < every.masks
    about = read(tmp_path / "b" / "about.json")
    assert about["view"] == "sam-med2d"
    assert about["masks"] == large.masks
    left = about["not_in_this_layout"]
    assert left["masks outside the view"] == every.masks - large.masks
    assert left.get("images without a mask that counts", 0) == every.images - large.images
    assert {d["id"] for d in about["datasets"]} == {"phantom_ct", "phantom_fundus"}
    with pytest.raises(UsageError, match="exists"):
        export(corpus, tmp_path / "a", samed2d.write, Chosen())
    with pytest.raises(UsageError, match="phantom_ct"):
        export(corpus, tmp_path / "c", samed2d.write, Chosen(datasets=("phantom_c",)))


def test_the_verb(corpus: Corpus, tmp_path: Path) -> None:
    command = ["export", str(tmp_path / "raw"), "--corpus", str(corpus.root), "--number", "7"]
    run = CliRunner().invoke(app, [*command, "--format", "nnunet", "--dataset", "phantom_fundus"])
    assert run.exit_code == 0, run.output
    assert "not in this layout" in run.output
    assert (tmp_path / "raw" / "Dataset007_phantom_fundus" / "dataset.json").is_file()
    run = CliRunner().invoke(app, [*command[:1], str(tmp_path / "x"), "--format", "coc"])
    assert isinstance(run.exception, CorpusError | UsageError)


@pytest.mark.parametrize("writer", [samed2d.write, nnunet.write, coco.write])
def test_two_samples_of_one_file_name_are_refused(tmp_path: Path, writer: Writer) -> None:
    for name in ("p01 a", "p01_a"):
        image, label = fakes.volume_pair(1)
        fakes.write_case(tmp_path / "data/fake_mr", name, image, label)
    fakes.write_catalog(tmp_path / "c")
    run = fakes.call_cli("data", "build", "--source", "c", "--root", "data", "--workers", 1,
                         cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    with pytest.raises(CorpusError, match="p01 a.*p01_a.*one file"):
        export(Corpus(tmp_path / "corpus"), tmp_path / "out", writer, Chosen())
    assert not (tmp_path / "out").exists()
