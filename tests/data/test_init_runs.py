"""`sammed data init` on run-length tables: columns, both conventions, and what cannot be known."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.corpus import Corpus
from sammed_data.discover import discover
from sammed_data.encodings import read_labels
from sammed_data.ontology import load_ontology
from sammed_data.propose.carriers import Answers
from sammed_data.propose.inspect import Inspector
from sammed_data.propose.overlays import try_build
from sammed_data.readers.registry import read_image
from sammed_data.types import UsageError
from tests.data import init_folders as folders

load_ontology = functools.cache(load_ontology)
RULES = {"row,absolute,1": ("C", 1, False), "column,absolute,1": ("F", 1, False),
         "column,absolute,0": ("F", 0, False),
         "column,relative,0": ("F", 0, True), "row,relative,1": ("C", 1, True)}  # fmt: skip


def ellipse(k, shape=(60, 80)):
    mask = np.zeros(shape, np.uint8)
    return cv2.ellipse(mask, (20 + 2 * k, 32), (15, 6), 20, 0, 360, 1, -1)


def runs_of(mask, rule):
    order, first, relative = RULES[rule]
    flat = np.concatenate([[0], mask.ravel(order=order), [0]])
    edges = np.flatnonzero(np.diff(flat)).reshape(-1, 2)
    starts, lengths = edges[:, 0] + first, edges[:, 1] - edges[:, 0]
    if relative:
        before = np.concatenate([[0], starts[:-1] + lengths[:-1]])
        starts = starts - before
    return " ".join(f"{s} {n}" for s, n in zip(starts, lengths, strict=True))


def make(root, rule, *, n=6, shape=(60, 80), suffix="", touching=True, classes=()):
    lines = ["ImageId,class,EncodedPixels" if classes else "ImageId,EncodedPixels"]
    for k in range(n):
        mask = ellipse(k, shape)
        if touching:  # the first pixel, or the last: one of them tells where counting starts
            mask[0, 0] = mask[-1, -1] = 1
        noise = np.random.default_rng(k).integers(0, 40, shape)
        folders.save(
            root / f"train/q{k}.png", (90 * (ellipse(k, shape) > 0) + noise).astype(np.uint8)
        )
        name = f"q{k}{suffix}"
        for c in classes or [""]:
            lines.append(",".join([name, *([c] if c else []), runs_of(mask, rule)]))
    folders.save(root / f"train/q{n}.png", folders.picture(n)[: shape[0], : shape[1]])
    empty = [f"q{n}{suffix}", *([classes[0]] if classes else []), "-1"]
    (root / "train.csv").write_text("\n".join([*lines, ",".join(empty)]) + "\n")
    return root


def only(root, **answers):
    (proposal,) = Inspector(root, load_ontology(None)).proposals(Answers(**answers))
    entry = CatalogEntry.model_validate(proposal.entry)
    return entry, {i.key: i for i in proposal.inferences}, proposal


@pytest.mark.parametrize("suffix", ["", ".png"])
@pytest.mark.parametrize("rule", RULES)
def test_the_rules_are_found(tmp_path, rule, suffix):
    entry, said, proposal = only(make(tmp_path, rule, suffix=suffix))
    runs = entry.label_encoding.runs
    assert f"{runs.order},{runs.offsets},{runs.first}" == rule
    assert said["runs"].doubt == "low"
    assert entry.label_encoding.table.id == "{case}" + suffix
    cases = {c.case_id: c for c in discover(entry, tmp_path).cases}
    assert len(cases) == 7
    case = cases["q2"]
    got = read_labels(case, entry, read_image(case)).layers[0].array_ZYX[0] > 0
    wanted = ellipse(2)
    wanted[0, 0] = wanted[-1, -1] = 1
    assert (got == (wanted > 0)).all()
    assert try_build(proposal.entry, tmp_path, None).failure == ""


def test_classes_of_a_column(tmp_path):
    root = make(tmp_path, "row,absolute,1", classes=("liver", "stomach"))
    entry, said, _ = only(root)
    assert entry.label_encoding.table.class_column == "class"
    assert entry.labels == {"liver": "liver", "stomach": "stomach"}
    assert said["labels"].doubt == "low"


def test_what_the_numbers_do_not_say_is_in_doubt(tmp_path):
    root = make(tmp_path, "column,absolute,1", touching=False, shape=(60, 60), n=3)
    entry, said, _ = only(root)
    assert said["runs"].doubt == "high"  # three square images: row and column look alike
    assert said["runs"].flag == "--runs"
    assert "custom of absolute runs" in said["runs"].evidence
    told, said, _ = only(root, runs="row,absolute,0")
    assert (told.label_encoding.runs.order, told.label_encoding.runs.first) == ("row", 0)
    assert said["runs"].doubt == "low"
    with pytest.raises(UsageError, match="ORDER,OFFSETS,FIRST"):
        only(root, runs="rows")


@pytest.mark.parametrize("rule", ["row,absolute,1", "column,absolute,1"])
def test_square_pictures_tell_by_their_edges(tmp_path, rule):
    entry, said, _ = only(make(tmp_path, rule, touching=False, shape=(60, 60), n=9))
    assert entry.label_encoding.runs.order == rule.split(",")[0]
    assert said["runs"].doubt == "medium"


def test_images_without_a_line_are_said(tmp_path):
    root = make(tmp_path, "row,absolute,1")
    folders.save(root / "train/q99.png", folders.picture(9))
    _, said, proposal = only(root)
    assert said["pairs"].doubt == "medium"
    assert "1 images without a line" in said["pairs"].evidence
    trial = try_build(proposal.entry, root, None)
    assert sum(r.count for r in trial.rejected if r.level == "case") == 1


def test_tables_that_are_no_masks_are_left_alone(tmp_path):
    root = folders.pairs(tmp_path)
    rows = [f"c{k},{k} 2 3 4,{k}" for k in range(4)]
    (root / "boxes.csv").write_text("\n".join(["id,bbox,age", *rows]) + "\n")
    (root / "joined.csv").write_text("id,rle\nc0_liver,1 2 9 3\nc1_liver,4 2 9 1 30 4\n")
    inspector = Inspector(root, load_ontology(None))
    (proposal,) = inspector.proposals(Answers())
    assert proposal.entry["label_encoding"]["type"] == "binary"
    assert "image and class" in dict(inspector.unreadable)["joined.csv"]


def test_a_build_of_the_proposal(tmp_path):
    import yaml

    from sammed_data.build import build

    root = make(tmp_path / "d", "column,relative,0")
    _, _, proposal = only(root, labels="1=polyp", public=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/d.yaml").write_text(yaml.safe_dump(dict(proposal.entry)))
    build(tmp_path / "c", root, tmp_path / "corpus", workers=1)
    assert (
        Corpus(tmp_path / "corpus").manifest["counts"]["images"]["kept"] == 6
    )  # one image has no mask


def test_images_in_folders_of_their_own(tmp_path):
    lines = ["id,rle"]
    for k in range(4):
        folders.save(tmp_path / f"1.2.{k}/pat0{k % 2}/1.9.8.{k}.png", folders.picture(k))
        lines.append(f"1.9.8.{k},{runs_of(ellipse(k), 'row,absolute,1')}")
    (tmp_path / "masks.csv").write_text("\n".join(lines))
    entry, said, proposal = only(tmp_path)
    assert len(discover(entry, tmp_path).cases) == 4
    assert said["pairs"].doubt == "low"
    assert try_build(proposal.entry, tmp_path, None).masks == 4
