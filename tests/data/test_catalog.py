from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sammed_data.catalog import (
    CatalogEntry,
    ImagePattern,
    LabelEncoding,
    LabelPattern,
    json_schema,
    load_catalogs,
    parse_entry,
)
from sammed_data.discover import discover, find_root
from sammed_data.patterns import compile_pattern
from sammed_data.types import CatalogError

MINIMAL = {
    "id": "mine", "name": "Mine", "modality": "CT", "dims": "3D",
    "layout": {
        "images": [{"pattern": "{case}/ct.nii.gz"}], "labels": [{"pattern": "{case}/seg.nii.gz"}],
    },
    "label_encoding": {"type": "index"}, "labels": {1: "liver", 2: "liver_tumor"},
    "license": "CC0-1.0", "homepage": "https://example.org",
}  # fmt: skip


def _write(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


def test_labels_are_keyed_by_text_and_root_may_be_one_word(tmp_path):
    entry = parse_entry(_write(tmp_path, root="Mine_v1"))
    assert entry.labels == {"1": "liver", "2": "liver_tumor"}
    assert entry.root == ["Mine_v1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modalty": "CT"}, "unknown key 'modalty'; did you mean 'modality'"),
        ({"layout": {"images": [{"patern": "a"}], "labels": []}}, "did you mean 'pattern'"),
        ({"label_encoding": {"type": "index", "treshold": 3}}, "did you mean 'threshold'"),
        ({"modality": "MRI"}, "modality: .*'MR'.*found 'MRI'"),
        ({"splits": {"val": ["a"]}}, "'val' is not one of train, validation, test"),
        ({"patient": {"regex": "case_"}}, r"needs a \(group\)"),
        ({"patient": {"regex": "(case_"}}, "not a regular expression"),
        ({"unions": {"liver": ["livr"]}}, "'livr' is not in labels; did you mean 'liver'"),
        ({"id": "Mine"}, "id: "),
    ],
)
def test_mistakes_are_named_with_their_neighbour(tmp_path, changes, words):
    with pytest.raises(CatalogError, match=words):
        parse_entry(_write(tmp_path, **changes))


def test_all_wrong_files_are_named_together(tmp_path):
    _write(tmp_path, modality="MRI")
    (tmp_path / "other.yaml").write_text("id: [")
    with pytest.raises(CatalogError) as caught:
        load_catalogs(tmp_path)
    assert "mine.yaml" in str(caught.value)
    assert "other.yaml" in str(caught.value)


def test_the_id_is_the_file_name(tmp_path):
    _write(tmp_path).rename(tmp_path / "yours.yaml")
    with pytest.raises(CatalogError, match="expected the file name 'yours'"):
        load_catalogs(tmp_path)


def test_the_schema_names_every_key():
    schema = json_schema()
    assert {"id", "layout", "label_encoding", "unions", "patient"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("entry", load_catalogs(None).values(), ids=lambda e: e.id)
def test_examples_match_the_patterns(entry):
    known = [k for k in entry.labels if k != "*"]
    for kind, rules in (("image", entry.layout.images), ("label", entry.layout.labels)):
        path = entry.layout.example[kind]
        patterns = [compile_pattern(r.pattern, known if kind == "label" else ()) for r in rules]
        assert any(
            p.fields_of(path.rstrip("/")) is not None and p.is_folder == path.endswith("/")
            for p in patterns
        )
    if entry.patient is not None:
        assert re.search(entry.patient.regex, entry.layout.example["image"].rstrip("/"))


def test_overlaps_between_entries_are_mutual():
    entries = load_catalogs(None)
    one_sided = [
        (e.id, other)
        for e in entries.values()
        for other in e.overlaps
        if e.collection is None  # a collection names its sources, not they it
        and other in entries
        and e.id not in entries[other].overlaps
    ]
    assert one_sided == []


def test_the_worked_example_of_the_guide_works(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text()
    (tmp_path / "catalogs").mkdir()
    (tmp_path / "catalogs" / "liver_set.yaml").write_text(
        re.findall(r"```yaml\n(.*?)```", guide, re.S)[0]
    )
    entry = load_catalogs(tmp_path / "catalogs")["liver_set"]
    for path in re.findall(r"LiverSet/\S+", guide.split("`liver_set.yaml`")[0]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = discover(entry, find_root(entry, tmp_path))
    assert [(c.case_id, c.patient_key) for c in found.cases] == [
        ("p07_s1", "p07"),
        ("p07_s2", "p07"),
    ]
    assert found.problems == ()


def test_the_guide_names_every_key():
    guide = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text()
    for model in (CatalogEntry, LabelEncoding, ImagePattern, LabelPattern):
        for name in model.model_fields:
            assert f"`{name}" in guide or f"{name}:" in guide, name


def test_addresses_are_addresses():
    for entry in load_catalogs(None).values():
        for text in filter(None, (entry.homepage, entry.download_url)):
            assert re.fullmatch(r"https?://\S+", text), (entry.id, text)
