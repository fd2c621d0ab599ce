"""The official split of one's own data: by folders, by a table, by globs; never torn in silence."""

from __future__ import annotations

import functools

import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.ontology import load_ontology
from sammed_data.propose.carriers import Answers
from sammed_data.propose.inspect import Inspector
from sammed_data.propose.told_splits import find_splits
from sammed_data.splits import assign_splits
from sammed_data.types import UsageError
from tests.data import build_fakes as fakes
from tests.data import init_folders as folders

load_ontology = functools.cache(load_ontology)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Six patients of two images each, in one folder."""
    root = tmp_path_factory.mktemp("flat")
    for k in range(6):
        folders.pairs(root, image=f"images/pat{k}_{{}}.png", mask=f"masks/pat{k}_{{}}.png", n=2)
    return root


def only(root, **answers):
    (proposal,) = Inspector(root, load_ontology(None)).proposals(Answers(**answers))
    entry = CatalogEntry.model_validate(proposal.entry)
    cases = discover(entry, root).cases
    return entry, {i.key: i for i in proposal.inferences}, assign_splits(entry, cases)


@pytest.mark.parametrize(
    ("names", "count"),
    [("train val test", {"train": 4, "validation": 4, "test": 4}),
     ("training validation", {"train": 4, "validation": 4}),
     ("train valid testing", {"train": 4, "validation": 4, "test": 4})],
)  # fmt: skip
def test_folders_are_proposed_with_doubt(tmp_path, names, count):
    for n, name in enumerate(names.split()):
        folders.pairs(tmp_path, image=f"{name}/images/p{n}{{}}_x.png",
                      mask=f"{name}/masks/p{n}{{}}_x.png")  # fmt: skip
    _, said, splits = only(tmp_path)
    got = list(splits.values())
    assert {s: got.count(s) for s in set(got)} == count
    assert (said["splits"].doubt, said["splits"].flag) == ("medium", "--splits")
    assert "4 train" in said["splits"].evidence
    assert "splits" not in only(tmp_path, splits="none")[1]


def test_a_patient_on_two_sides_and_a_folder_of_no_split_are_in_high_doubt(tmp_path):
    for name in ("train", "test"):
        folders.pairs(tmp_path / "a", image=f"{name}/images/p{{}}_{name}.png",
                      mask=f"{name}/masks/p{{}}_{name}.png")  # fmt: skip
    _, said, splits = only(tmp_path / "a", patient=r"(p\d)_")
    assert said["splits"].doubt == "high"
    assert "4 patients lie in two splits, such as p0" in said["splits"].evidence
    assert set(splits.values()) == {"test"}
    found = find_splits(None, ["train/a1.png", "test/a2.png", "more/a3.png"], "(.*)", tmp_path)
    assert found.doubt == "high"
    assert "more is no split" in found.evidence


@pytest.mark.parametrize("column", ["patient", "image", "file"])
def test_a_table(flat, tmp_path, column):
    word = {0: "train", 1: "Training", 2: "train", 3: "val", 4: "test", 5: "test"}
    names = {"patient": ["pat{}"], "image": ["pat{}_0", "pat{}_1"],
             "file": ["images/pat{}_0.png", "pat{}_1.png"]}[column]  # fmt: skip
    lines = [f"{n.format(k)},{word[k]},x" for k in range(6) for n in names]
    table = tmp_path / "splits.csv"
    table.write_text("\n".join([f"{column},split,note", *lines]) + "\n")
    entry, said, splits = only(flat, splits=str(table), patient=r"(pat\d)_")
    assert splits["pat1_0"] == splits["pat2_1"] == "train"
    assert splits["pat3_0"] == splits["pat3_1"] == "validation"
    assert splits["pat5_1"] == "test"
    assert entry.splits["validation"] == ["images/pat3*"]  # one glob a patient
    assert (said["splits"].doubt, said["splits"].flag) == ("low", "")


def test_a_table_that_names_some(flat, tmp_path):
    table = tmp_path / "s.csv"
    table.write_text("case;set\npat4_0;test\npat9_0;train\n")
    entry, said, splits = only(flat, splits=str(table), patient=r"(pat\d)_")
    assert entry.splits == {"test": ["images/pat4_0.png"]}  # its other image is not named
    assert said["splits"].doubt == "medium"
    assert "such as pat9_0" in said["splits"].evidence
    assert "11 images in none" in said["splits"].evidence
    assert splits["pat4_1"] == "test"  # a patient is never torn


def test_globs_and_patterns(flat, tmp_path):
    entry, said, splits = only(flat, splits="test=images/pat4*,images/pat5*;val=images/pat0*")
    assert set(entry.splits) == {"validation", "test"}
    assert splits["pat5_0"] == "test"
    assert "8 images" not in said["splits"].evidence
    assert "6 images in none" in said["splits"].evidence
    for name in ("Tr", "Ts"):
        folders.pairs(tmp_path, image=f"x{name}/images/{name}{{}}.png",
                      mask=f"x{name}/masks/{name}{{}}.png")  # fmt: skip
    entry, said, _ = only(tmp_path, splits="x{split}/**")
    assert entry.splits == {"train": ["xTr/**"], "test": ["xTs/**"]}
    assert said["splits"].doubt == "low"


@pytest.mark.parametrize(
    ("text", "word"),
    [("nowhere.csv", "found no such file"), ("test=other/*", "names none of the 12 images"),
     ("hidden=images/*", "train, validation or test"), ("z{split}/**", "matches no image path"),
     ("test=images/*;train=images/pat1*", "name it once"),
     ("t1.csv", "column of cases"), ("t2.csv", "in train and in test"), ("t3.csv", "no image has"),
     ("t4.csv", "found 'fold1'")],
)  # fmt: skip
def test_what_cannot_be_used(flat, text, word):
    tables = {"t1": "who,split\na,train\n", "t2": "case,split\npat1_0,train\npat1_0,test\n",
              "t3": "case,split\n17,train\n", "t4": "case,split\npat1_0,fold1\n"}  # fmt: skip
    for name, lines in tables.items():
        (flat / f"{name}.csv").write_text(lines)  # a table may lie in the folder too
    with pytest.raises(UsageError, match=word):
        only(flat, splits=text)


def test_many_cases_stay_fast(tmp_path):
    paths = [f"images/p{k:05d}_{n}.png" for k in range(1500) for n in range(2)]
    lines = [f"p{k:05d},{'test' if k % 5 == 0 else 'train'}" for k in range(1500)]
    (tmp_path / "s.csv").write_text("\n".join(["patient,split", *lines]))
    found = find_splits("s.csv", paths, r"(p\d+)_", tmp_path)
    assert {s: len(g) for s, g in found.globs.items()} == {"train": 1200, "test": 300}
    assert found.doubt == "low"


def test_the_command_takes_it(flat, tmp_path):
    run = fakes.call_cli(
        "data", "init", flat, "--yes", "--splits", "test=images/pat4*", "--out", tmp_path / "c",
        "--id", "own", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "c/own.yaml").read_text()
    assert "splits:\n  test:\n  - images/pat4*" in text
