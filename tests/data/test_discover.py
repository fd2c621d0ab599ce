from __future__ import annotations

import time
from pathlib import Path

import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover, find_root
from sammed_data.patterns import compile_pattern, glob_regex, walk_matching
from sammed_data.types import CatalogError


def _entry(image_rules, label_rules, **changes) -> CatalogEntry:
    as_rule = [p if isinstance(p, dict) else {"pattern": p} for p in image_rules]
    as_label = [p if isinstance(p, dict) else {"pattern": p} for p in label_rules]
    layout = {"images": as_rule, "labels": as_label, "exclude": changes.pop("exclude", [])}
    raw = {
        "id": "mine", "name": "Mine", "modality": "CT", "dims": "3D", "layout": layout,
        "label_encoding": {"type": "index"}, "labels": {1: "liver"}, "license": "CC0-1.0",
        "homepage": "https://example.org", **changes,
    }  # fmt: skip
    return CatalogEntry.model_validate(raw)


def _touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def _names(case) -> list[str]:
    return [label.path.relative_to(case.root).as_posix() for label in case.labels]


def test_equal_fields_have_equal_values(tmp_path):
    _touch(tmp_path, "a/a_t1.nii.gz", "a/b_t1.nii.gz", "a/a_seg.nii.gz", "b/b_seg.nii.gz")
    entry = _entry(["{case}/{case}_t1.nii.gz"], ["{case}/{case}_seg.nii.gz"])
    found = discover(entry, tmp_path)
    assert [c.case_id for c in found.cases] == ["a"]
    assert [p.case_id for p in found.problems] == ["b/b_seg.nii.gz"]
    assert "looked for 'b/b_t1.nii.gz'" in found.problems[0].reason


def test_an_image_without_its_label_says_where_it_looked(tmp_path):
    _touch(tmp_path, "img/1.png", "img/2.png", "seg/2.png")
    found = discover(_entry(["img/{n}.png"], ["seg/{n}.png", "seg2/{n}.png"]), tmp_path)
    assert [c.case_id for c in found.cases] == ["2"]
    (problem,) = found.problems
    assert (problem.level, problem.rule) == ("case", "unpaired")
    assert "'seg/1.png' or 'seg2/1.png'" in problem.reason


def test_hidden_and_excluded_files_are_no_cases_and_no_problems(tmp_path):
    _touch(
        tmp_path, "i/a.png", "i/._a.png", "i/b.png", "s/a.png", "s/._a.png", "s/b.png", ".x/i/c.png"
    )
    found = discover(_entry(["i/{n}.png"], ["s/{n}.png"], exclude=["i/b*"]), tmp_path)
    assert [c.case_id for c in found.cases] == ["a"]
    assert found.problems == ()


def test_a_mask_beside_its_image_is_not_an_image(tmp_path):
    _touch(tmp_path, "x.png", "x_mask.png", "x_mask_1.png", "y.png", "y_mask.png")
    found = discover(_entry(["{n}.png"], ["{n}_mask.png", "{n}_mask_{instance}.png"]), tmp_path)
    assert {c.case_id: _names(c) for c in found.cases} == {
        "x": ["x_mask.png", "x_mask_1.png"],
        "y": ["y_mask.png"],
    }
    assert found.problems == ()


def test_known_structures_settle_where_a_field_ends(tmp_path):
    _touch(
        tmp_path, "i/s_0_32.png", "m/s_0_32_lung_left_000.png", "m/s_0_32_lung_left_001.png",
        "m/s_0_32_liver_000.png", "m/s_0_32_spleen_000.png", "m/s_0_32_odd_thing_000.png",
    )  # fmt: skip
    entry = _entry(
        ["i/{case}.png"], ["m/{case}_{structure}_{instance}.png"],
        labels={"left": "lung_left", "lung_left": "lung_left", "liver": "liver"},
    )  # fmt: skip
    found = discover(entry, tmp_path)
    # an unknown structure of one word still pairs, so that reading it can be refused
    structures = [f.structure for f in found.cases[0].labels]
    assert structures == ["liver", "lung_left", "lung_left", "spleen"]
    assert "no key of 'labels' fits" in found.problems[0].reason
    assert found.problems[0].case_id == "m/s_0_32_odd_thing_000.png"


def test_a_dicom_folder_is_one_image(tmp_path):
    _touch(tmp_path, "P1/CT/image/1.dcm", "P1/CT/image/2.dcm", "P1/CT/mask/RS.dcm", "P1/note.txt")
    found = discover(_entry(["{case}/CT/image/"], ["{case}/CT/mask/RS.dcm"]), tmp_path)
    assert [c.image_path for c in found.cases] == [tmp_path / "P1/CT/image"]
    assert found.problems == ()


def test_channels_observers_and_sequences(tmp_path):
    _touch(tmp_path, "a.nii.gz", "a_o1.nii.gz", "a_o2.nii.gz")
    entry = _entry(
        [{"pattern": "{c}.nii.gz", "channel": ["T2", "ADC"]}],
        ["{c}_o1.nii.gz", {"pattern": "{c}_o2.nii.gz", "annotator": 2}],
    )
    cases = discover(entry, tmp_path).cases
    assert [(c.case_id, c.channel, c.sequence) for c in cases] == [
        ("a-ADC", 1, "ADC"), ("a-T2", 0, "T2"),
    ]  # fmt: skip
    assert [[f.annotator for f in c.labels] for c in cases] == [[1, 2], [1, 2]]


def test_patient_keys_join_groups_and_a_path_without_one_is_an_error(tmp_path):
    _touch(tmp_path, "S1/p7_a.png", "S1/p7_a_m.png")
    rule = {"regex": r"(S\d)/(p\d)_"}
    entry = _entry(["{s}/{c}.png"], ["{s}/{c}_m.png"], patient=rule)
    assert discover(entry, tmp_path).cases[0].patient_key == "S1_p7"
    _touch(tmp_path, "S1/q_a.png", "S1/q_a_m.png")
    with pytest.raises(CatalogError, match=r"'S1/q_a\.png'.*found none; mend the regex"):
        discover(entry, tmp_path)


def test_official_splits_are_globs_on_the_image_path(tmp_path):
    _touch(tmp_path, "Tr/a.png", "Tr/a_m.png", "Te/b.png", "Te/b_m.png", "c/c.png", "c/c_m.png")
    layout = (["{s}/{c}.png"], ["{s}/{c}_m.png"])
    entry = _entry(*layout, splits={"train": ["Tr/*"], "test": ["Te/**"]})
    cases = discover(entry, tmp_path).cases
    assert {c.case_id: c.official_split for c in cases} == {
        "Tr_a": "train", "Te_b": "test", "c_c": None,
    }  # fmt: skip
    with pytest.raises(CatalogError, match="train and test"):
        discover(_entry(*layout, splits={"train": ["T*/*"], "test": ["Te/*"]}), tmp_path)


def test_equal_case_ids_become_paths(tmp_path):
    _touch(tmp_path, "x/ct/1.png", "x/ct/1_m.png", "y/ct/1.png", "y/ct/1_m.png")
    found = discover(_entry(["*/ct/{n}.png"], ["*/ct/{n}_m.png"]), tmp_path)
    assert [c.case_id for c in found.cases] == ["x/ct/1.png", "y/ct/1.png"]


def test_the_most_specific_root_wins(tmp_path):
    entry = _entry(["i/{n}.png"], ["s/{n}.png"], root=["Mine_v2"])
    assert find_root(entry, tmp_path) is None
    assert find_root(entry, tmp_path / "nowhere") is None
    _touch(tmp_path, "i/a.png")
    assert find_root(entry, tmp_path) == tmp_path / "."
    _touch(tmp_path, "Mine_v2/i/a.png")
    assert find_root(entry, tmp_path) == tmp_path / "Mine_v2"
    _touch(tmp_path, "mine/i/a.png")
    assert find_root(entry, tmp_path) == tmp_path / "mine"


def test_the_walk_stays_inside_what_patterns_can_match(tmp_path, monkeypatch):
    _touch(tmp_path, "a/img/1.png", "b/deep/er/1.png", "a/other/1.png")
    seen = []
    import os

    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda p: seen.append(Path(p).name) or real(p))
    assert list(walk_matching(tmp_path, [compile_pattern("a/img/{n}.png")])) == [
        ("a/img/1.png", False)
    ]
    assert seen == [tmp_path.name, "a", "img"]


def test_a_link_to_a_folder_above_ends(tmp_path):
    _touch(tmp_path, "a/1.png", "a/1_m.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = discover(_entry(["**/{n}.png"], ["**/{n}_m.png"]), tmp_path)
    assert [c.case_id for c in found.cases] == ["1"]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/x.png", "x.png", True),
        ("**/x.png", "a/b/x.png", True),
        ("a/**", "a/b/c.png", True),
        ("a/*", "a/b/c.png", False),
        ("a[0-4]?.png", "a31.png", True),
        ("a[!0-4].png", "a3.png", False),
        ("a(1).png", "a(1).png", True),
    ],
)
def test_globs(pattern, path, matches):
    assert (glob_regex([pattern]).fullmatch(path) is not None) == matches
    assert (compile_pattern(pattern).fields_of(path) is not None) == matches


def test_time_grows_with_the_number_of_files(tmp_path, monkeypatch):
    """20 000 images and labels, listed from memory, pair in about a second."""
    n = 20_000
    listing = [(f"{kind}/{i:06d}.png", False) for kind in ("i", "s") for i in range(n)]
    monkeypatch.setattr("sammed_data.discover.walk_matching", lambda *_: iter(listing))
    start = time.process_time()
    found = discover(_entry(["i/{n}.png"], ["s/{n}.png"]), tmp_path)
    assert len(found.cases) == n
    assert time.process_time() - start < 10
