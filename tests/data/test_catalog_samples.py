"""Entries marked as built, against the real samples: roots, counts, patients, raw labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from sammed_data.catalog import load_catalogs
from sammed_data.discover import discover, find_root
from sammed_data.encodings import pair_on_grid, read_labels
from sammed_data.readers.registry import read_image

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
ENTRIES = load_catalogs(None)
# cases, label files, patients, unpaired files: counted by hand in the sample tree
COUNTS = {
    "chase_db1": (10, 20, 5, 0),
    "dcmqi_ct_gapped": (1, 1, 0, 0),
    "dcmqi_ct_nrrd": (1, 3, 0, 0),
    "dcmqi_ct_seg": (1, 1, 0, 0),
    "dcmqi_small_nrrd": (1, 1, 0, 0),
    "dcmqi_small_seg": (1, 1, 0, 0),
    "dsb2018": (30, 1081, 30, 0),
    "hc18": (11, 11, 10, 0),
    "ibsi_sts_ct_dicom": (2, 2, 2, 0),
    "ibsi_sts_ct_nifti": (1, 1, 1, 1),
    "ibsi_sts_mr_dicom": (2, 2, 2, 0),
    "ibsi_sts_mr_nifti": (2, 2, 2, 0),
    "ibsi_sts_pet_dicom": (2, 2, 2, 0),
    "ibsi_sts_pet_nifti": (2, 2, 2, 0),
    "kvasir_seg": (5, 5, 5, 0),
    "metaimage_sts_mr": (1, 1, 1, 0),
    "metaimage_sts_pet": (1, 1, 1, 0),
    "msd_task04_hippocampus": (60, 60, 60, 0),
    "pyradiomics_brain": (1, 1, 1, 0),
    "pyradiomics_breast": (1, 1, 1, 0),
    "sam_med2d_demo": (4, 30, 4, 0),
    "stardist_sample": (1, 1, 0, 0),
    "totalsegmentator_example_ct": (1, 1, 0, 0),
    "totalsegmentator_example_ct_binary": (1, 117, 0, 0),
    "totalsegmentator_example_mr": (1, 1, 0, 0),
    "tptbox_subregions": (1, 1, 1, 0),
    "tptbox_vertebrae": (1, 1, 1, 0),
}

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample data at {SAMPLES}")


def test_the_built_entries_are_those_with_samples():
    assert {e.id for e in ENTRIES.values() if e.evidence == "built"} == set(COUNTS)
    found = {e.id for e in ENTRIES.values() if find_root(e, SAMPLES) is not None}
    assert found == set(COUNTS)


@pytest.mark.parametrize("entry_id", sorted(COUNTS))
def test_cases_labels_and_patients(entry_id):
    entry = ENTRIES[entry_id]
    found = discover(entry, find_root(entry, SAMPLES))
    patients = {c.patient_key for c in found.cases} - {None}
    n_labels = sum(len(c.labels) for c in found.cases)
    counts = (len(found.cases), n_labels, len(patients), len(found.problems))
    assert counts == COUNTS[entry_id]


@pytest.mark.parametrize("entry_id", sorted(COUNTS))
def test_the_first_case_reads_and_all_its_values_are_known(entry_id):
    entry = ENTRIES[entry_id]
    case = discover(entry, find_root(entry, SAMPLES)).cases[0]
    volume = read_image(case)
    labels = read_labels(case, entry, volume)
    assert pair_on_grid(volume, labels, entry) is volume
    assert any(layer.array_ZYX.any() for layer in labels.layers)
