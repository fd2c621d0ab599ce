"""Partly labelled sources: a row names only what is drawn on it as annotated."""

from __future__ import annotations

import pytest

from sammed_data.corpus import Corpus
from tests.data.build_fakes import call_cli, entry_dict, write_catalog, write_source


@pytest.mark.parametrize("partial", [False, True])
def test_absence_is_unknown_where_labels_are_partial(tmp_path, partial):
    write_source(tmp_path / "data", n=1)
    entry = entry_dict(label_encoding={"type": "index", "partial": partial})
    source = write_catalog(tmp_path / "catalogs", entry)
    run = call_cli(
        "data", "build", "--source", source, "--root", tmp_path / "data",
        "--out", tmp_path / "corpus", "--workers", 1,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    corpus = Corpus(tmp_path / "corpus")
    annotated = {}
    for row in corpus.index(splits=["train"]):
        drawn = sorted({mask.structure for mask in row.masks})
        annotated[tuple(drawn)] = list(row.meta["annotated_structures"])
    assert annotated[("liver", "spleen")] == ["liver", "spleen"]
    assert annotated[("spleen",)] == (["spleen"] if partial else ["liver", "spleen"])
