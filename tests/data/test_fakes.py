"""Every catalogue entry, built as a tiny copy from its own patterns, is found and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from sammed_data.catalog import load_catalogs
from sammed_data.discover import discover, find_root
from sammed_data.encodings import pair_on_grid, read_labels
from sammed_data.ontology import load_ontology
from sammed_data.readers.registry import read_image, read_volume
from sammed_data.types import LabelVolume
from tests.fake_decoys import plant_decoys
from tests.fakes import build_fake

ENTRIES = load_catalogs(None)
ONTOLOGY = load_ontology(None)
KEYS = yaml.safe_load((Path(__file__).parent / "patient_keys.yaml").read_text())


def _expected_key(entry_id: str, replaced: tuple[str, str]) -> str | None:
    key = KEYS[entry_id]
    return key if key is None or not replaced[0] else key.replace(replaced[0], replaced[1])


def _mask_of(labels: LabelVolume, key: str) -> np.ndarray:
    found = np.zeros(labels.shape_zyx, bool)
    for layer in labels.layers:
        found |= np.isin(layer.array_ZYX, [v for v, name in layer.names.items() if name == key])
    return found


def test_every_entry_has_a_hand_written_patient_key():
    assert set(KEYS) == set(ENTRIES)


@pytest.mark.parametrize("entry_id", sorted(ENTRIES))
def test_labels_and_unions_are_structures_of_the_ontology(entry_id):
    entry = ENTRIES[entry_id]
    for name in (*entry.labels.values(), *entry.unions):
        assert ONTOLOGY.resolve(name).kind != "ignore"


@pytest.mark.parametrize("entry_id", sorted(ENTRIES))
def test_a_fake_copy_is_found_and_read(entry_id, tmp_path):
    entry = ENTRIES[entry_id]
    truth = build_fake(entry, tmp_path, n_cases=3, key=KEYS[entry_id])

    root = find_root(entry, tmp_path)
    assert root == truth.root
    plant_decoys(entry, root, [c.image for c in truth.cases])
    found = discover(entry, root)
    assert found.problems == ()
    assert len(found.cases) == truth.n_cases
    by_image: dict[str, list] = {}
    for case in found.cases:
        by_image.setdefault(case.image_path.relative_to(root).as_posix(), []).append(case)
    assert set(by_image) == {c.image for c in truth.cases}

    patients = {c.patient_key for c in found.cases}
    assert len(patients) >= 2 or len(truth.cases) == 1 or KEYS[entry_id] is None
    for made in truth.cases:
        for case in by_image[made.image]:
            assert case.patient_key == _expected_key(entry_id, made.replaced)
        case = by_image[made.image][-1]
        volume = read_image(case)
        labels = read_labels(case, entry, volume)
        volume = pair_on_grid(volume, labels, entry)
        assert volume.array.shape[:3] == labels.shape_zyx
        assert labels.shape_zyx == next(iter(made.masks.values())).shape
        for key, mask in made.masks.items():
            read = _mask_of(labels, key)
            wrong = int((read != mask).sum())
            assert wrong == 0 if made.exact else wrong < 0.05 * mask.sum(), key


def test_other_entries_do_not_take_these_files(tmp_path):
    """All entries side by side: none finds a root in the folder of another."""
    for entry in ENTRIES.values():
        build_fake(entry, tmp_path, n_cases=1)
    for entry in ENTRIES.values():
        assert find_root(entry, tmp_path) == tmp_path / entry.id


def test_a_fake_is_the_same_for_the_same_seed(tmp_path):
    entry = ENTRIES["kits23"]
    for name in ("a", "b"):
        build_fake(entry, tmp_path / name, n_cases=1, seed=4)
    path = "kits23/dataset/case_00000/imaging.nii.gz"
    one, two = (read_volume(tmp_path / n / path) for n in ("a", "b"))
    assert np.array_equal(one.array, two.array)
    assert one.geometry.spacing_zyx_mm == pytest.approx((2.5, 0.75, 0.5))
