"""Every catalogue entry is sharded: a tiny copy of each, built in one run."""

from __future__ import annotations

from sammed_data.build import build
from sammed_data.catalog import load_catalogs
from sammed_data.corpus import Corpus
from tests.fakes import build_fake


def test_a_copy_of_every_entry_builds_without_a_rejected_case(tmp_path):
    entries = load_catalogs(None)
    truths = {e.id: build_fake(e, tmp_path / "data", n_cases=1) for e in entries.values()}
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    result = build(None, tmp_path / "data", tmp_path / "c", key_file=key)
    assert result.failed == {}
    assert result.absent == ()
    assert result.manifest["counts"]["cases"] == {
        "found": sum(t.n_cases for t in truths.values()), "rejected": {},
    }  # fmt: skip
    drawn: dict[str, set[str]] = {}
    corpus = Corpus(tmp_path / "c")
    for row in corpus.index():
        drawn.setdefault(row.dataset, set()).update(m.label for m in row.masks)
    for name, truth in truths.items():
        labels, unions = entries[name].labels, set(entries[name].unions)
        expected = {labels.get(raw, raw) for case in truth.cases for raw in case.masks}
        assert drawn[name] - unions == expected, name
