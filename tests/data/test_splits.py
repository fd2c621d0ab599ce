from __future__ import annotations

from pathlib import Path

import pytest

from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.phantom import write_phantoms
from sammed_data.plan import BuildOptions
from sammed_data.privacy import Pseudonyms, pseudonyms
from sammed_data.splits import assign_splits, fraction, hash_split, overlap_groups
from sammed_data.types import Case, LabelFile, UsageError
from tests.data.build_fakes import make_entry

ROOT = Path("/data/set")


def _cases(n, *, patients=None, official=None):
    return [
        Case(
            dataset="fake",
            case_id=f"case{i:03d}",
            patient_key=None if patients is None else f"p{i % patients:03d}",
            image_path=ROOT / f"images/{i:03d}.nii",
            labels=(LabelFile(path=ROOT / f"labels/{i:03d}.nii"),),
            root=ROOT,
            official_split=None if official is None else official(i),
        )
        for i in range(n)
    ]


def test_the_hash_splits_near_the_stated_shares():
    splits = [hash_split("set", f"patient{i}") for i in range(4000)]
    shares = {s: splits.count(s) / 4000 for s in ("test", "validation", "train")}
    assert abs(shares["test"] - 0.2) < 0.02
    assert abs(shares["validation"] - 0.1) < 0.02
    assert 0 <= fraction("set", "x") < 1


def test_the_split_is_a_fact_of_name_and_key_only():
    assert fraction("msd", "p1") == fraction("msd", "p1") != fraction("msd", "p2")
    assert fraction("msd", "p1") == pytest.approx(0.7467468, abs=1e-7)


def test_all_images_of_a_patient_share_a_split():
    cases = _cases(90, patients=15)
    splits = assign_splits(make_entry(), cases)
    for patient in {c.patient_key for c in cases}:
        assert len({splits[c.case_id] for c in cases if c.patient_key == patient}) == 1
    assert len(set(splits.values())) > 1


def test_under_ten_patients_nothing_is_split():
    assert set(assign_splits(make_entry(), _cases(40, patients=9)).values()) == {"train"}


def test_held_out_sets_stay_out():
    entry = make_entry(role="held_out")
    assert set(assign_splits(entry, _cases(30, patients=15)).values()) == {"held_out"}


def test_an_official_test_split_wins():
    cases = _cases(30, official=lambda i: "test" if i >= 25 else "train")
    splits = assign_splits(make_entry(), cases)
    assert [splits[f"case{i:03d}"] for i in (0, 24, 25, 29)] == ["train", "train", "test", "test"]


def test_a_patient_in_two_official_splits_goes_to_test():
    cases = _cases(30, patients=15, official=lambda i: "test" if i == 29 else "train")
    splits = assign_splits(make_entry(), cases)
    assert splits["case014"] == splits["case029"] == "test"


def test_official_train_alone_is_no_split():
    splits = assign_splits(make_entry(), _cases(60, official=lambda i: "train"))
    assert set(splits.values()) == {"train", "validation", "test"}


def test_patients_are_digests_and_restricted_names_are_keyed(tmp_path):
    public = Pseudonyms(dataset="set")
    assert "smith" not in public.patient("smith")
    assert public.case("case1") == "case1"
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    keyed = pseudonyms(make_entry(privacy="restricted"), key)
    assert keyed.case("case1") != "case1"
    assert "case1" not in keyed.path("images/case1.nii")
    assert keyed.patient("smith") != public.patient("smith")


def test_restricted_data_need_a_key(tmp_path):
    with pytest.raises(UsageError, match="--key"):
        pseudonyms(make_entry(privacy="restricted"), None)
    (tmp_path / "short").write_bytes(b"1234")
    with pytest.raises(UsageError, match="at least 16"):
        pseudonyms(make_entry(privacy="restricted"), tmp_path / "short")


def test_datasets_that_share_patients_form_groups_of_the_whole_catalogue():
    entries = {
        name: make_entry().model_copy(update={"id": name, "overlaps": overlaps})
        for name, overlaps in {"a": ["b"], "b": [], "c": ["b"], "d": [], "e": ["gone"]}.items()
    }
    groups = overlap_groups(entries)
    assert groups["a"] == groups["b"] == groups["c"] == ("a", "b", "c")
    assert (groups["d"], groups["e"]) == (("d",), ("e",))


def test_a_group_goes_to_one_split_and_a_held_out_member_takes_all(tmp_path):
    write_phantoms(tmp_path, n_patients=12, seed=1, only=("phantom_derm", "phantom_us"))
    catalogs = tmp_path / "catalogs"
    path = catalogs / "phantom_derm.yaml"
    path.write_text(path.read_text() + "\noverlaps: [phantom_us]\n")
    options = BuildOptions(split_by="overlap-group")

    def splits(name):
        build(catalogs, tmp_path / "data", tmp_path / name, options=options)
        return {row.split for row in Corpus(tmp_path / name).index()}

    assert splits("one") == {hash_split("overlap-group", "phantom_derm")}
    path = catalogs / "phantom_us.yaml"
    path.write_text(path.read_text().replace("role: train", "") + "\nrole: held_out\n")
    assert splits("two") == {"held_out"}
    with pytest.raises(UsageError, match="--split-by is patient or overlap-group"):
        BuildOptions(split_by="group").check()
