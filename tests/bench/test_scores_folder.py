"""What is refused in a results folder: rows that no single benchmark leaves."""

from __future__ import annotations

import bench_fakes
import pytest
import tiny_corpus

from sammed_bench.conditions import Conditions
from sammed_bench.protocols import parse_protocol
from sammed_bench.run import bench_corpus, choose_splits
from sammed_bench.scores import read_scores
from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    return Corpus(tiny_corpus.write_corpus(root, patients={"train": 1, "test": 1}, slices=1))


def _scored(corpus, out, **more):
    splits, _ = choose_splits(corpus, None)
    conditions = Conditions(
        corpus_sha256=corpus.content_hash, splits=splits, modes=("bbox",), **more
    )
    bench_corpus(corpus, bench_fakes.Bright(), conditions, out=out)
    return out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 1}, "one seed"),
        ({"protocol": parse_protocol("centre-click")}, "one protocol_hash"),
    ],
)
def test_files_of_two_benchmarks_in_a_folder_are_refused(corpus, tmp_path, more, said):
    out = _scored(corpus, tmp_path)
    assert len(read_scores(out)) > 0
    _scored(corpus, tmp_path, **more)
    with pytest.raises(CorpusError, match=f"{said} in .* in a folder"):
        read_scores(out)
    assert len(read_scores(out, checked=False)) > 0
    assert len(read_scores(out, ["model", "dice"])) > 0


def test_a_row_twice_and_a_damaged_file_are_refused(corpus, tmp_path):
    out = _scored(corpus, tmp_path)
    part = next((out / "scores").iterdir())
    copy = part.with_name("part-copy-00000.parquet")
    copy.write_bytes(part.read_bytes())
    with pytest.raises(CorpusError, match=r"each mask once .* again \(first: bright, "):
        read_scores(out)
    copy.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(CorpusError, match="damaged file"):
        read_scores(out)
