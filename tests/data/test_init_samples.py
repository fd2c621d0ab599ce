"""`sammed data init` on real sample sets, whose catalogue entries it never reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from sammed_data.catalog import CatalogEntry, load_catalogs
from sammed_data.discover import discover, find_root
from sammed_data.ontology import load_ontology
from sammed_data.propose.carriers import Answers
from sammed_data.propose.inspect import Inspector

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
SETS = {
    "CHASEDB1": ("chase_db1", "binary"),
    "HC18": ("hc18", "binary"),
    "Kvasir-SEG": ("kvasir_seg", "binary"),
    "dsb2018": ("dsb2018", "file_per_instance"),
    "stardist": ("stardist_sample", "instance_ids"),
    "SAM-Med2D_data_demo": ("sam_med2d_demo", "file_per_class"),
    "tptbox": ("tptbox_vertebrae", "index"),
    "totalsegmentator": ("totalsegmentator_example_mr", "index"),
}


def _pairs(entry, root):
    return {
        (c.image_path.resolve(), x.path.resolve())
        for c in discover(entry, root).cases
        for x in c.labels
    }


@pytest.mark.parametrize("folder", SETS)
def test_sample_set(folder):
    if not SAMPLES.is_dir():
        pytest.skip("../shared/samples is not here")
    name, encoding = SETS[folder]
    truth = load_catalogs(None)[name]
    wanted = _pairs(truth, find_root(truth, SAMPLES))
    proposals = Inspector(SAMPLES / folder, load_ontology(None)).proposals(Answers())
    entries = [CatalogEntry.model_validate(p.entry) for p in proposals]
    right = [e for e in entries if _pairs(e, SAMPLES / folder) == wanted]
    assert right, [e.layout for e in entries]
    assert right[0].label_encoding.type == encoding
