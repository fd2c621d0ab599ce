"""Every raw label of every entry is written once into a tiny copy and read back as its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from sammed_data.catalog import load_catalogs
from sammed_data.discover import discover
from sammed_data.encodings import read_labels
from sammed_data.readers.registry import read_image
from sammed_data.types import LabelVolume
from tests.fakes import MAX_LABELS, build_fake

KEYS = yaml.safe_load((Path(__file__).parent / "patient_keys.yaml").read_text())
MANY = {
    i: e
    for i, e in load_catalogs(None).items()
    # A collection is read by its own index: what its files are called is tested beside it.
    if len(e.labels) > MAX_LABELS and e.collection is None
}


def _masks(labels: LabelVolume) -> dict[str, np.ndarray]:
    """Voxels of each raw label, of all observers together."""
    found: dict[str, np.ndarray] = {}
    for layer in labels.layers:
        for value, key in layer.names.items():
            mask = layer.array_ZYX == value
            found[key] = found[key] | mask if key in found else mask
    return found


@pytest.mark.parametrize("entry_id", sorted(MANY))
def test_every_label_is_read_as_it_was_written(entry_id, tmp_path):
    entry = MANY[entry_id]
    quiet = {*entry.label_encoding.ignore, *entry.label_encoding.unlabelled_ok, "0,0,0"}
    left = [key for key in entry.labels if key not in quiet]
    n = 0
    while left:
        first = {key: entry.labels[key] for key in left}
        turned = entry.model_copy(update={"labels": {**first, **entry.labels}})
        truth = build_fake(turned, tmp_path / str(n), n_cases=1, key=KEYS[entry_id])
        case = discover(entry, truth.root).cases[-1]
        read = _masks(read_labels(case, entry, read_image(case)))
        made = truth.cases[-1]
        for key, mask in made.masks.items():
            wrong = np.count_nonzero(read[key] != mask)
            assert wrong <= (0 if made.exact else 0.05 * np.count_nonzero(mask)), key
        assert left[0] in made.masks
        left = [key for key in left if key not in made.masks]
        n += 1
