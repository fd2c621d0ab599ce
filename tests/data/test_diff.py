"""Two corpora are compared by hashes; a fingerprint file holds no picture and says the same."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.diff import compare, fingerprint_lines, open_side
from sammed_data.types import UsageError
from tests.data import build_fakes as fakes


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """The same dataset twice; B has another mask, another image, one case less and one renamed."""
    base = tmp_path_factory.mktemp("sides")
    catalogs = fakes.write_catalog(base / "catalogs")
    for side in "ab":
        for i in range(5):
            image, label = fakes.volume_pair(i)
            name = f"p{i:03d}"
            if side == "b" and i == 0:
                label = np.where(label == 2, 0, label)
            if side == "b" and i == 1:
                image = image + 40 * (label == 1)
            if side == "b" and i == 2:
                continue
            if side == "b" and i == 3:
                name = "p009"
            fakes.write_case(base / side / "fake_mr", name, image, label)
        build(catalogs, base / side, base / f"corpus_{side}")
    return base / "corpus_a", base / "corpus_b"


def counts(found):
    return {name: len(members) for name, members in found.found.items()}


def test_every_relation_is_told_by_dataset(sides):
    found = compare(*map(open_side, sides))
    n = counts(found)
    assert found.differs
    assert n["same_image_other_masks"] + n["only_a"] >= 5
    assert n["same_id_other_pixels"] == 5
    assert n["same_image_other_id"] == 5
    assert n["only_b"] == 0
    assert found.same == {"fake_mr": 5}
    _, said = found.found["same_image_other_masks"][0]
    assert (said["masks_a"], said["masks_b"]) == (["spleen"], [])
    _, twin = found.found["same_image_other_id"][0]
    assert "p003" in twin["id"]
    assert "p009" in twin["id_b"]
    total = sum(found.by_dataset()["fake_mr"].values())
    assert total == len(Corpus(sides[0]).index())


def test_a_corpus_equals_itself_and_its_fingerprint(sides, tmp_path):
    path = tmp_path / "a.jsonl.gz"
    lines = list(fingerprint_lines(Corpus(sides[0])))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert not compare(open_side(sides[0]), open_side(path)).differs
    assert max(map(len, lines)) < 600  # hashes only
    assert set(json.loads(lines[1])) == {"id", "dataset", "content", "pixels", "masks"}


def test_files_and_folders_give_the_same_answer(sides, tmp_path):
    a, b = sides
    for name, side in (("a", a), ("b", b)):
        done = fakes.call_cli("data", "diff", "--fingerprint", side)
        (tmp_path / f"{name}.jsonl").write_text(done.stdout)
    by_file = fakes.call_cli("data", "diff", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--json")
    by_folder = fakes.call_cli("data", "diff", a, b, "--json")
    assert by_file.returncode == by_folder.returncode == 3
    one, two = json.loads(by_file.stdout), json.loads(by_folder.stdout)
    assert one["by_dataset"] == two["by_dataset"]
    assert one["only_a"] == two["only_a"]
    same = fakes.call_cli("data", "diff", a, tmp_path / "a.jsonl")
    assert (same.returncode, "hold the same rows" in same.stdout) == (0, True)


def test_what_is_no_fingerprint_is_a_sentence(sides, tmp_path):
    wrong = tmp_path / "x.jsonl"
    wrong.write_text("{}")
    with pytest.raises(UsageError, match="expected a corpus folder or the output"):
        open_side(wrong)
    with pytest.raises(UsageError, match="expected a corpus folder"):
        open_side(tmp_path / "absent.jsonl")
    assert fakes.call_cli("data", "diff", sides[0]).returncode == 2
