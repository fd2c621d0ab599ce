"""The same rows by one process or several, in parts, interrupted, in any order."""

from __future__ import annotations

import hashlib
import json

import bench_fakes
import pytest
import tiny_corpus
from typer.testing import CliRunner

import sammed
from sammed_bench import run
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.choose import Wanted
from sammed_bench.merge import merge
from sammed_bench.models import Oracle
from sammed_bench.part_run import Work, bench_work
from sammed_bench.scores import read_scores
from sammed_data.corpus import Corpus
from sammed_data.part import Part
from sammed_data.types import CorpusError, UsageError

CONFIG = BenchConfig(modes=("bbox", "1pt", "3pt"), gallery=False, threads=1, batch=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("corpus")
    return tiny_corpus.write_corpus(found, patients={"train": 1, "test": 2}, slices=2)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(run, "PART_IMAGES", 3)


def _models():
    return [bench_fakes.Bright(), Oracle()]


def _files(out, folders=("scores", "clicks", "prompts")):
    """Name -> digest of every file of rows."""
    paths = [path for name in folders for path in sorted((out / name).glob("*"))]
    return {p.name + p.parent.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture
def whole(root, tmp_path, small):
    bench(root, _models(), CONFIG, out=tmp_path / "whole")
    return _files(tmp_path / "whole")


def _record(out):
    return json.loads((out / "bench.json").read_text())


def test_parts_in_any_order_give_the_rows_of_one_run(root, tmp_path, whole):
    out = tmp_path / "parts"
    assert sum(name.endswith("scores") for name in whole) == 5 * 3
    first = bench(root, _models(), CONFIG, out=out, part=Part(index=1, count=2))
    assert first.missing == (Part(index=0, count=2),)
    assert "models" not in _record(out)
    last = bench(root, _models(), CONFIG, out=out, part=Part(index=0, count=2))
    assert last.missing == ()
    assert _files(out) == whole
    one, parts = _record(tmp_path / "whole"), _record(out)
    assert parts["conditions"] == one["conditions"]
    assert parts["prompts_sha256"] == one["prompts_sha256"]
    for a, b in zip(parts["models"], one["models"], strict=True):
        assert a.pop("seconds") > 0
        assert b.pop("seconds") > 0
        assert a == b


def test_more_parts_than_chunks_are_no_harm(root, tmp_path, whole):
    out = tmp_path / "many"
    for index in (4, 0, 2, 1, 3):
        found = bench(root, _models(), CONFIG, out=out, part=Part(index=index, count=5))
    assert found.missing == ()
    assert _files(out) == whole


def test_interrupted_and_resumed_is_the_same(root, tmp_path, whole):
    class Stopped(bench_fakes.Bright):
        def encode(self, images):
            if self.encoded >= 5:
                raise KeyboardInterrupt
            return super().encode(images)

    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        bench(root, [Oracle(), Stopped()], CONFIG, out=out)
    assert 0 < len(_files(out)) < len(whole)
    bench(root, [Oracle(), bench_fakes.Bright()], CONFIG, out=out)  # the models in another order
    assert _files(out) == whole


def test_order_of_shards_and_models_does_not_matter(root, tmp_path, whole):
    other = tmp_path / "corpus"
    tiny_corpus.write_corpus(other, patients={"train": 1, "test": 2}, slices=2)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["shards"] = manifest["shards"][::-1]
    (other / "manifest.json").write_text(json.dumps(manifest))
    order = [row.sample_id for row in Corpus(other).index(["test"])]
    assert order != [row.sample_id for row in Corpus(root).index(["test"])]
    bench(other, _models()[::-1], CONFIG, out=tmp_path / "r")
    assert _files(tmp_path / "r") == whole


def test_parts_of_several_machines_are_merged(root, tmp_path, whole):
    for index in (0, 1):
        where = tmp_path / f"machine{index}"
        bench(root, _models(), CONFIG, out=where, part=Part(index=index, count=2))
    out = tmp_path / "all"
    with pytest.raises(CorpusError, match=r"found 1: run `sammed bench --part 1/2 --out"):
        merge(out, [tmp_path / "machine0"])
    result = merge(out, [tmp_path / "machine0", tmp_path / "machine1"])
    assert (result.images, result.masks) == (8, 16)
    assert _files(out) == whole
    assert [m["name"] for m in _record(out)["models"]][:2] == ["bright", "oracle"]
    gone = next((out / "scores").glob("part-oracle-*-00001.parquet"))
    gone.unlink()
    with pytest.raises(CorpusError, match=r"rows of oracle in .*--part 1/2"):
        merge(out)


def test_parts_that_do_not_belong_together_are_refused(root, tmp_path, small):
    bench(root, [bench_fakes.Bright()], CONFIG, out=tmp_path / "a", part=Part(index=0, count=2))
    other = bench_fakes.Bright(digest="2")
    with pytest.raises(CorpusError, match=r"same models in all parts .*bright \(2\)"):
        bench(root, [other], CONFIG, out=tmp_path / "a", part=Part(index=1, count=2))
    more = BenchConfig(modes=("bbox",), gallery=False)
    bench(root, [other], more, out=tmp_path / "b", part=Part(index=1, count=2))
    with pytest.raises(UsageError, match="parts of one benchmark, found another modes"):
        merge(tmp_path / "c", [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UsageError, match="--part needs --out"):
        bench(root, [other], more, results=tmp_path, part=Part(index=0, count=2))
    bench(root, [other], more, out=tmp_path / "d")
    with pytest.raises(UsageError, match="found none in"):
        merge(tmp_path / "d")


def test_what_can_be_asked_for():
    assert Work.parse("cpu", 1, "local", None).alone
    assert Work.parse("cuda:0, cuda:1", 1, "local", None).devices == ("cuda:0", "cuda:1")
    assert Work.parse("cpu", 2, "local", "1/3") == Work(
        devices=("cpu", "cpu"), part=Part(index=1, count=3)
    )
    for asked in (("cpu,cpu", 2, "local", None), ("cpu", 0, "local", None)):
        with pytest.raises(UsageError, match=r"--device|devices"):
            Work.parse(*asked)
    with pytest.raises(UsageError, match="--engine 'rae'"):
        Work.parse("cpu", 1, "rae", None)


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """More images than a chunk has, and the rows of one process."""
    folder = tmp_path_factory.mktemp("larger")
    tiny_corpus.write_corpus(
        folder / "corpus", patients={"train": 1, "test": 36}, slices=1, size=(24, 36)
    )
    _larger(folder, "one")
    return folder


# Named by a module that workers can import wherever they run.
TRUTH = Wanted(label="truth", factory="sammed_bench.models:Oracle")
FEW = BenchConfig(modes=("1pt",), gallery=False, threads=1)


def _larger(folder, name, **work):
    made = Work(**({"devices": ("cpu",)} | work))
    return bench_work(folder / "corpus", [TRUTH], FEW, made, out=folder / name)


def test_two_processes_give_the_rows_of_one(larger):
    result = _larger(larger, "two", devices=("cpu", "cpu"))
    assert result.images == 72
    assert _files(larger / "two") == _files(larger / "one")
    assert len(_files(larger / "two", ("scores",))) == 2 * 2
    assert _record(larger / "two")["models"][0]["seconds"] > 0
    assert read_scores(larger / "two").equals(read_scores(larger / "one"))


@pytest.mark.slow
def test_on_ray_too(larger):
    ray = pytest.importorskip("ray", reason="ray is an extra")
    try:
        _larger(larger, "ray", devices=("cpu", "cpu"), engine="ray")
    finally:
        ray.shutdown()
    assert _files(larger / "ray") == _files(larger / "one")


def test_a_part_and_a_merge_from_the_command_line(root, tmp_path):
    asked = ["bench", "--corpus", str(root), "--out", str(tmp_path / "r"), "--prompts", "bbox"]
    asked += ["--model", "bright=bench_fakes:make_bright"]
    env = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    first = CliRunner().invoke(sammed.app, [*asked, "--part", "auto"], env=env)
    assert first.exit_code == 0, (first.output, first.exception)
    assert "left: 1/2" in first.output
    early = CliRunner().invoke(sammed.app, ["bench", "merge", str(tmp_path / "r")])
    assert isinstance(early.exception, CorpusError)
    last = CliRunner().invoke(sammed.app, [*asked, "--part", "1/2"])
    assert last.exit_code == 0, (last.output, last.exception)
    assert (tmp_path / "r" / "report" / "report.html").is_file()
    again = CliRunner().invoke(sammed.app, ["bench", "merge", str(tmp_path / "r"), "--json"])
    assert json.loads(again.stdout)["masks"] == 16
