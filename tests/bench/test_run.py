"""The harness: right on an oracle, honest about failures, the same rows however it is run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import bench_fakes
import pytest
import tiny_corpus
import torch

from sammed_bench import run, scores
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.conditions import Conditions
from sammed_bench.models import Oracle, SamBench
from sammed_bench.modes import MODES, parse_modes
from sammed_bench.run import bench_corpus, choose_splits
from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError, UsageError
from sammed_model.sam import build_sam, spec_for


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    return Corpus(tiny_corpus.write_corpus(root, patients={"train": 2, "test": 2}, slices=2))


def _conditions(corpus, modes=MODES, **more):
    splits, _ = choose_splits(corpus, None)
    return Conditions(corpus_sha256=corpus.content_hash, splits=splits, modes=modes, **more)


def _scores(corpus, model, out, modes=MODES, **more):
    batch = more.pop("batch", 3)
    conditions = _conditions(corpus, modes, **more)
    outcome = bench_corpus(corpus, model, conditions, out=out, batch=batch)
    return scores.read_scores(out), outcome


def test_the_oracle_scores_one_everywhere(corpus, tmp_path):
    rows, outcome = _scores(corpus, Oracle(), tmp_path)
    assert len(rows) == 8 * 2 * len(MODES) == outcome.computed
    assert (rows["dice"] == 1).all()
    assert (rows["iou"] == 1).all()
    assert set(rows["status"]) == {"ok"}
    assert list(rows.columns) == scores.SCHEMA.names
    assert set(rows["split"]) == {"test"}
    assert rows.loc[rows["mode"] == "5pt", "n_clicks"].eq(1).all()
    assert rows.loc[rows["mode"] == "bbox", "n_clicks"].eq(0).all()
    one = rows[rows["structure"] == "ball"].iloc[0]
    assert (one["organ"], one["group"], one["kind_of_structure"]) == ("liver", "abdomen", "organ")
    assert one["area_fraction"] == one["area_px"] / (one["height"] * one["width"])


@pytest.mark.parametrize("how", ["raise", "shape", "few"])
def test_a_broken_model_is_counted_and_worst(corpus, tmp_path, how):
    rows, outcome = _scores(corpus, bench_fakes.Broken(how=how), tmp_path)
    assert set(rows["status"]) == {"failed"}
    assert (rows["dice"] == 0).all()
    assert outcome.failed == len(rows) == 8 * 2 * len(MODES)
    assert outcome.first_error
    assert rows["error"].str.contains("Error").all()


@pytest.mark.parametrize(
    ("broken", "said"),
    [(bench_fakes.Leaves, "sys.exit(3)"), (bench_fakes.Arrays, "torch tensor")],
)
def test_a_model_that_leaves_or_answers_otherwise_failed_with_a_sentence(
    corpus, tmp_path, broken, said
):
    rows, outcome = _scores(corpus, broken(), tmp_path, modes=("bbox",))
    assert set(rows["status"]) == {"failed"}
    assert outcome.failed == len(rows) == 8 * 2
    assert said in outcome.first_error


def test_what_a_model_writes_into_does_not_reach_the_next(corpus, tmp_path):
    alone, _ = _scores(corpus, bench_fakes.Bright(), tmp_path / "alone")
    conditions = _conditions(corpus)
    samples = run.reader(corpus, conditions)
    for model in (bench_fakes.Spoils("spoils"), bench_fakes.Bright()):
        bench_corpus(corpus, model, conditions, out=tmp_path / "after", samples=samples)
    after = scores.read_scores(tmp_path / "after")
    after = after[after["model"] == "bright"].reset_index(drop=True)
    assert after.equals(alone)
    prompts = [sorted((tmp_path / n / "prompts").iterdir()) for n in ("alone", "after")]
    assert [p.read_bytes() for p in prompts[0]] == [p.read_bytes() for p in prompts[1]]


def test_values_that_are_not_finite_fail_one_mask_only(corpus, tmp_path):
    rows, outcome = _scores(corpus, bench_fakes.Broken(how="nan"), tmp_path)
    failed = rows["status"] == "failed"
    assert outcome.failed == failed.sum() == len(rows) / 2
    assert set(rows.loc[failed, "mask_index"]) == {0}
    assert (rows.loc[failed, "dice"] == 0).all()
    assert rows.loc[failed, "error"].str.contains("not finite").all()


def test_one_bad_image_fails_alone(corpus, tmp_path):
    rows, _ = _scores(corpus, bench_fakes.FailsOn((48, 72)), tmp_path, batch=8)
    assert set(rows.loc[rows["width"] == 72, "status"]) == {"failed"}
    assert set(rows.loc[rows["width"] == 64, "status"]) == {"ok"}
    good, _ = _scores(corpus, bench_fakes.Bright("picky"), tmp_path / "good")
    same = good["width"] == 64
    assert rows.loc[same, "dice"].equals(good.loc[same, "dice"])


def test_what_is_not_supported_is_not_zero(corpus, tmp_path):
    rows, outcome = _scores(corpus, bench_fakes.Bright(accepts=("box",)), tmp_path)
    assert outcome.failed == 0
    unsupported = rows["mode"] != "bbox"
    assert set(rows.loc[unsupported, "status"]) == {"unsupported"}
    assert rows.loc[unsupported, "dice"].isna().all()
    assert set(rows.loc[~unsupported, "status"]) == {"ok"}


def test_same_rows_for_any_batch_and_any_company_of_modes(corpus, tmp_path):
    model = bench_fakes.Bright()
    first, _ = _scores(corpus, model, tmp_path / "1", batch=1)
    second, _ = _scores(corpus, model, tmp_path / "3", batch=3)
    assert first.equals(second)
    assert first.loc[first["mode"] == "5pt", "dice"].nunique() > 4
    alone, _ = _scores(corpus, model, tmp_path / "alone", modes=("1pt",))
    assert alone.equals(first[first["mode"] == "1pt"].reset_index(drop=True))
    paths = [sorted((tmp_path / n / "scores").iterdir()) for n in "13"]
    assert paths[0][0].read_bytes() == paths[1][0].read_bytes()


def test_another_seed_is_another_dialogue(corpus, tmp_path):
    first, _ = _scores(corpus, bench_fakes.Bright(), tmp_path / "0", modes=("1pt", "bbox"))
    other, _ = _scores(corpus, bench_fakes.Bright(), tmp_path / "1", modes=("1pt", "bbox"), seed=1)
    box = first["mode"] == "bbox"
    assert first.loc[box, "dice"].equals(other.loc[box, "dice"])
    assert not first.loc[~box, "dice"].equals(other.loc[~box, "dice"])


def test_a_sam_is_encoded_once_and_answers_in_every_mode(corpus, tmp_path, monkeypatch):
    model = SamBench(build_sam(spec_for("vit_tiny"), 0, kind="sam-med2d"), "start")
    passes = []
    encode = model.model.encode
    monkeypatch.setattr(model.model, "encode", lambda x: (passes.append(len(x)), encode(x))[1])
    torch.set_num_threads(1)
    first, _ = _scores(corpus, model, tmp_path / "4", batch=4)
    assert sum(passes) == 8
    assert set(first["status"]) == {"ok"}
    assert first["recipe"].unique().tolist() == ["released weights"]
    second, _ = _scores(corpus, model, tmp_path / "1", batch=1)
    apart = (first["dice"] - second["dice"]).abs()
    assert (apart <= 1e-4).mean() >= 0.98


def test_finished_parts_are_not_computed_again(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_IMAGES", 3)
    model = bench_fakes.Bright()
    before, outcome = _scores(corpus, model, tmp_path)
    assert len(outcome.parts) == 3
    assert model.encoded == 8
    outcome.parts[1].unlink()
    again, resumed = _scores(corpus, model, tmp_path)
    assert model.encoded == 8 + 3
    assert (resumed.reused, resumed.computed) == (5 * 2 * len(MODES), 3 * 2 * len(MODES))
    assert before.equals(again)
    assert not list(tmp_path.rglob("*.partial"))


def test_splits_and_what_stands_in_for_them(tmp_path):
    def of(**patients):
        root = tiny_corpus.write_corpus(tmp_path / "-".join(patients), patients=patients, slices=1)
        return Corpus(root)

    both = of(train=1, validation=1, test=1, held_out=1)
    assert choose_splits(both, None) == (("test", "held_out"), "")
    assert choose_splits(both, ["validation"]) == (("validation",), "")
    splits, note = choose_splits(of(train=1, validation=1), None)
    assert splits == ("validation",)
    assert "validation" in note
    splits, note = choose_splits(of(train=1), None)
    assert splits == ("train",)
    assert "IN-SAMPLE" in note
    with pytest.raises(CorpusError, match="'test'.*train"):
        choose_splits(of(train=1), ["test"])


def test_a_bench_writes_rows_a_record_and_replaces_old_weights(corpus, tmp_path):
    config = BenchConfig(modes=parse_modes("1pt,bbox"), limit=4, gallery=False)
    out = tmp_path / "r"
    result = bench(corpus.root, [bench_fakes.Bright(), Oracle()], config, out=out)
    assert (result.images, result.masks, result.failed) == (4, 8, 0)
    rows = scores.read_scores(out)
    names = {"bright", "oracle", "box-full", "box-ellipse", "click-disc"}
    assert set(rows["model"]) == names
    assert any("--limit 4" in note for note in result.notes)
    bench(corpus.root, [bench_fakes.Bright(digest="2")], config, out=out)
    rows = scores.read_scores(out)
    assert set(rows["model"]) == names
    assert set(rows.loc[rows["model"] == "bright", "weights_sha256"]) == {"2"}
    other = BenchConfig(modes=("bbox",), limit=4)
    with pytest.raises(UsageError, match="another modes: give another --out"):
        bench(corpus.root, [Oracle()], other, out=out)


def test_numbered_results_go_on_where_the_conditions_are_the_same(corpus, tmp_path):
    config = BenchConfig(modes=("bbox",), baselines=False, gallery=False, limit=2)
    made = [
        bench(corpus.root, [Oracle()], config, results=tmp_path).out.name,
        bench(corpus.root, [Oracle()], config, results=tmp_path).out.name,
        bench(
            corpus.root,
            [Oracle()],
            BenchConfig(modes=("1pt",), baselines=False, gallery=False, limit=2),
            results=tmp_path,
        ).out.name,
    ]
    assert made == ["001", "001", "002"]


def _hangs(seconds, shape=(48, 72), encodes=True):
    """A model that sleeps over images of this size."""

    class Hangs(bench_fakes.Bright):
        def encode(self, images):
            if encodes and any(i.shape[:2] == shape for i in images):
                time.sleep(seconds)
            return super().encode(images)

        def predict(self, state, prompts):
            if not encodes and any(i.shape == shape for i in state):
                time.sleep(seconds)
            return super().predict(state, prompts)

    return Hangs("hangs")


@pytest.mark.parametrize("encodes", [True, False])
def test_a_model_that_hangs_is_stopped_counted_and_worst(corpus, tmp_path, encodes):
    began = time.perf_counter()
    model = _hangs(30, encodes=encodes)
    modes = ("bbox", "1pt", "3pt")
    rows, outcome = _scores(corpus, model, tmp_path, modes, batch=8, timeout=0.2)
    assert time.perf_counter() - began < 20
    late = rows["width"] == 72
    assert set(rows.loc[late, "status"]) == {"failed"}
    assert (rows.loc[late, "dice"] == 0).all()
    assert rows.loc[late, "error"].str.contains(r"time-out.* longer than 0.2 s").all()
    assert outcome.failed == late.sum() == 4 * 2 * 3
    assert set(rows.loc[~late, "status"]) == {"ok"}


def test_a_limit_changes_nothing_for_those_who_keep_it(corpus, tmp_path):
    free, _ = _scores(corpus, bench_fakes.Bright(), tmp_path / "free")
    timed, _ = _scores(corpus, bench_fakes.Bright(), tmp_path / "timed", timeout=60.0)
    assert free.equals(timed)
    truth, _ = _scores(corpus, Oracle(), tmp_path / "oracle", timeout=60.0)
    assert (truth["dice"] == 1).all()
    with pytest.raises(UsageError, match="--timeout must be above 0"):
        BenchConfig(timeout=0.0)


def test_a_limit_where_no_signal_reaches(corpus, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        late = _hangs(0.3, encodes=False)
        rows, _ = pool.submit(_scores, corpus, late, tmp_path, ("bbox",), timeout=0.1).result()
    assert set(rows.loc[rows["width"] == 72, "status"]) == {"failed"}


def test_settings_out_of_range_are_named():
    with pytest.raises(UsageError, match="--batch must be at least 1, found 0"):
        BenchConfig(batch=0)
