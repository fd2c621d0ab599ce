"""Every protocol and mode: prompts where they belong, the same for all models, failures worst."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bench_fakes
import numpy as np
import pytest
import tiny_corpus
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sammed_bench import openings, protocols, scores
from sammed_bench.centres import deepest, depths
from sammed_bench.clicks import click_scores, read_clicks
from sammed_bench.conditions import Conditions
from sammed_bench.editions import parse_edition
from sammed_bench.models import Oracle, SamBench
from sammed_bench.modes import MODES, kinds_of, parse_modes
from sammed_bench.protocols import PROTOCOLS, SAM_MED2D, Target, parse_protocol
from sammed_bench.run import bench_corpus
from sammed_bench.scribbles import along_midline, midline
from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError, ModelError, UsageError
from sammed_model.sam import build_sam, spec_for

NAMES = (*PROTOCOLS, "box-jitter:5", "box-scale:1.2")
ALL_MODES = (*MODES, "clicks:4")


def _target(protocol, masks, keys=None, sample="a/1"):
    truth = torch.from_numpy(np.stack(masks))
    valid = torch.ones(truth.shape[1:], dtype=torch.bool)
    return Target.of(protocol, sample, keys or range(len(masks)), truth, valid)


def _blob(rng, height, width):
    noise = ndimage.gaussian_filter(rng.normal(size=(height, width)), rng.uniform(1, 6))
    return noise > np.quantile(noise, rng.uniform(0.5, 0.98))


def _some_masks(rng, height, width):
    single = np.zeros((height, width), bool)
    single[rng.integers(height), rng.integers(width)] = True
    return [_blob(rng, height, width), single, np.ones((height, width), bool), single & False]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(9, 90), st.integers(300, 330), st.booleans(), st.integers(0, 10**6))
def test_points_are_inside_and_boxes_hold_their_masks(name, short, long, upright, seed):
    rng, protocol = np.random.default_rng(seed), parse_protocol(name)
    masks = _some_masks(rng, *((long, short) if upright else (short, long)))
    target = _target(protocol, masks)
    made = openings.make(protocol, ALL_MODES, target, seed)
    for opening in ("points", "scribble"):
        points, labels = made[opening].points_MN2, made[opening].point_labels_MN
        assert (labels[3] == -1).all()  # nothing to click on
        assert (labels[:3, 0] == 1).all()
        for xy, mask in zip(points[:3].long().tolist(), masks, strict=False):
            assert all(mask[y, x] for x, y in xy)
    boxes = made["bbox"].boxes_M4
    assert torch.equal(boxes, boxes.round())
    assert boxes[3].tolist() == [0, 0, 0, 0] or protocol.box_shift
    height, width = masks[0].shape
    for box, mask in zip(boxes[:3].tolist(), masks, strict=False):
        y, x = mask.nonzero()
        tight = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        x0, y0, x1, y1 = box
        if not protocol.box_shift:
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
        if protocol.box_jitter_px:
            assert np.abs(np.subtract(box, tight)).max() <= protocol.box_jitter_px
        elif target.native:
            assert x0 <= tight[0]
            assert y0 <= tight[1]
            assert x1 >= tight[2]
            assert y1 >= tight[3]
            if protocol.box_scale == 1:
                assert tuple(box) == tight
    assert not made["mask"].masks_MHW[3].any()
    assert made["mask"].masks_MHW[:3].flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_functions_of_names_alone(name):
    protocol, rng = parse_protocol(name), np.random.default_rng(3)
    masks = [_blob(rng, 70, 110) for _ in range(3)]
    whole = openings.make(protocol, ALL_MODES, _target(protocol, masks), 5)
    for i in range(3):
        one = openings.make(protocol, ALL_MODES, _target(protocol, masks[i : i + 1], [i]), 5)
        for mode, given_ in one.items():
            for field in ("points_MN2", "point_labels_MN", "boxes_M4", "masks_MHW"):
                value = getattr(given_, field)
                assert value is None or torch.equal(value[0], getattr(whole[mode], field)[i])
    target = _target(protocol, masks)
    other = openings.make(protocol, ALL_MODES, target, 6)
    moved = not torch.equal(other["points"].points_MN2, whole["points"].points_MN2)
    assert moved == (protocol.clicks != "centre")
    again = list(openings.rows_of(whole, target, protocol, 5))
    assert openings.content_hash(again) == openings.content_hash(
        openings.rows_of(openings.make(protocol, ALL_MODES, target, 5), target, protocol, 5)
    )


def test_the_released_shift_moves_the_whole_box():
    mask = np.zeros((256, 256), bool)
    mask[60:100, 30:150] = True
    shift = parse_protocol("sam-med2d-shift")
    keys = list(range(60))
    boxes = protocols.boxes(shift, _target(shift, [mask] * 60, keys), 0)
    moves = boxes - torch.tensor([30.0, 60, 150, 100])
    assert torch.equal(moves[:, :2], moves[:, 2:])
    assert set(moves[:, 0].tolist()) == set(range(-5, 5))
    tight = protocols.boxes(SAM_MED2D, _target(SAM_MED2D, [mask]))
    assert tight[0].tolist() == [30, 60, 150, 100]


def test_enlarged_boxes_stay_in_the_image():
    mask = np.zeros((60, 100), bool)
    mask[20:40, 80:100] = True
    protocol = parse_protocol("box-scale:1.5")
    assert protocols.boxes(protocol, _target(protocol, [mask]))[0].tolist() == [75, 15, 100, 45]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 90), st.integers(0, 10**6))
def test_depths_are_the_exact_transform(height, width, seed):
    rng = np.random.default_rng(seed)
    region = _blob(rng, height, width) | (rng.random((height, width)) < 0.1)
    exact = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    np.testing.assert_allclose(depths(region), exact, atol=1e-4)
    xy, depth = deepest(torch.from_numpy(region[None]))
    x, y = xy[0].long().tolist()
    assert depth[0] == pytest.approx(exact.max(), abs=1e-4)
    assert not region.any() or exact[y, x] == pytest.approx(exact.max(), abs=1e-4)


def test_centre_clicks_the_deeper_error_and_no_pixel_twice():
    protocol = parse_protocol("centre-click")
    truth, wrong = np.zeros((50, 80), bool), np.zeros((50, 80), bool)
    truth[10:21, 10:21] = True
    wrong[30:45, 40:75] = True
    target = _target(protocol, [truth])
    first, label = protocols.first_clicks(protocol, target, 0)
    assert (first[0].tolist(), label.tolist()) == ([15, 15], [1])
    xy, label = protocols.next_clicks(
        protocol, target, torch.from_numpy(wrong[None]), 1, 0, first[:, None]
    )
    assert label.tolist() == [0]  # 15 px high against 11: too much is the deeper error
    assert xy[0, 1] == 37
    nothing = torch.zeros(1, 50, 80, dtype=torch.bool)
    again, label = protocols.next_clicks(protocol, target, nothing, 1, 0, first[:, None])
    assert label.tolist() == [1]
    assert again.tolist() != first.tolist()
    assert protocols.next_clicks(protocol, target, target.truth_MHW, 1, 0)[1].tolist() == [-1]


def test_a_scribble_follows_the_object():
    bar = np.zeros((40, 120), bool)
    bar[17:24, 10:110] = True
    line = midline(bar)
    assert np.ptp(line[:, 0]) > 80
    assert np.abs(line[:, 1] - 20).max() <= 3
    xy, label = along_midline(torch.from_numpy(bar[None]), 8)
    assert label.tolist() == [[1] * 8]
    steps = np.diff(np.sort(xy[0, :, 0].numpy()))
    assert steps.min() > 0.7 * steps.max()
    dot = np.zeros((9, 11), bool)
    dot[4, 7] = True
    xy, label = along_midline(torch.from_numpy(dot[None]), 5)
    assert label.tolist() == [[1, -1, -1, -1, -1]]
    assert xy[0].tolist() == [[7, 4]] * 5


def test_names_and_hashes():
    made = [parse_protocol(name) for name in NAMES]
    assert [p.name for p in made] == list(NAMES)
    assert len({p.hash for p in made}) == len(NAMES)
    # Rows of results made before there were other protocols carry this hash.
    assert SAM_MED2D.hash.startswith("fae94fd5a9ad")
    assert parse_protocol("box-scale:1.20").name == "box-scale:1.2"
    with pytest.raises(UsageError, match=r"did you mean 'centre-click'"):
        parse_protocol("center-click")
    for wrong in ("box-jitter:99", "box-jitter:x", "box-scale:0.5", "box-scale"):
        with pytest.raises(UsageError, match="expected box-"):
            parse_protocol(wrong)
    asked = parse_modes("clicks:10,bbox+3pt, scribble,1pt,bbox")
    assert asked == ("bbox", "1pt", "bbox+3pt", "scribble", "clicks:10")
    assert kinds_of("bbox+3pt") == {"box", "point"}
    for wrong in ("clicks:0", "clicks:101", "bbox+2pt"):
        with pytest.raises(UsageError, match="clicks:N"):
            parse_modes(wrong)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    return Corpus(tiny_corpus.write_corpus(root, patients={"test": 2}, slices=1))


def _run(corpus, model, out, name="random-click", modes=ALL_MODES, **more):
    conditions = Conditions(
        corpus_sha256=corpus.content_hash,
        splits=("test",),
        modes=modes,
        protocol=parse_protocol(name),
    )
    bench_corpus(corpus, model, conditions, out=out, batch=more.pop("batch", 3))
    return scores.read_scores(out)


class Listens(bench_fakes.Bright):
    """Remembers what it was asked first."""

    def __init__(self, name):
        super().__init__(name)
        self.heard = []

    def predict(self, state, prompts):
        if prompts[0].memory is None:
            fields = ("points_MN2", "point_labels_MN", "boxes_M4", "masks_MHW")
            self.heard += [
                None if getattr(p, f) is None else getattr(p, f).tolist()
                for p in prompts
                for f in fields
            ]
        return super().predict(state, prompts)


@pytest.mark.parametrize("name", NAMES)
def test_oracle_broken_and_first_prompts(corpus, tmp_path, name, monkeypatch):
    rows = _run(corpus, Oracle(), tmp_path / "r", name)
    assert set(rows["mode"]) == set(ALL_MODES)
    assert (rows["dice"] == 1).all()
    whole = rows[rows["mode"] == "clicks:4"]
    assert (whole[["noc80", "noc85", "noc90"]] == 1).all(axis=None)
    assert (whole["noc_reached"] == 90).all()
    assert (whole["click_auc"] == 1).all()
    assert rows.loc[rows["mode"] != "clicks:4", "noc80"].isna().all()

    # Prompts are made once; the next models get the stored ones.
    monkeypatch.setattr(openings, "make", lambda *a: pytest.fail("made again"))
    first, second = Listens("first"), Listens("second")
    _run(corpus, first, tmp_path / "r", name)
    rows = _run(corpus, second, tmp_path / "r", name)
    assert first.heard == second.heard
    assert first.heard
    broken = _run(corpus, bench_fakes.Broken(), tmp_path / "r", name)
    broken = broken[broken["model"] == "broken"]
    assert set(broken["status"]) == {"failed"}
    assert (broken["dice"] == 0).all()
    whole = broken[broken["mode"] == "clicks:4"]
    assert (whole[["noc80", "noc85", "noc90"]] == 4).all(axis=None)
    assert (whole[["noc_reached", "click_auc"]] == 0).all(axis=None)
    clicks = read_clicks(tmp_path / "r")
    own = clicks[clicks["model"] == "broken"]
    assert set(own["status"]) == {"failed"}
    assert (own["iou"] == 0).all()
    assert len(own) == len(clicks[clicks["model"] == "oracle"])


def test_the_click_table_says_what_the_scores_say(corpus, tmp_path):
    rows = _run(corpus, bench_fakes.Bright(), tmp_path, "centre-click")
    clicks = read_clicks(tmp_path)
    for _, row in rows[rows["mode"] == "clicks:4"].iterrows():
        same = (clicks["sample_id"] == row["sample_id"]) & (
            clicks["mask_index"] == row["mask_index"]
        )
        own = clicks[same & (clicks["dialogue"] == "points")]
        assert own["round"].tolist() == [1, 2, 3, 4, 5]  # 5pt is asked as well
        assert own["iou"].iloc[3] == row["iou"]
        assert click_scores(own["iou"].to_numpy()[:4])["click_auc"] == row["click_auc"]
        third = rows[
            (rows["sample_id"] == row["sample_id"])
            & (rows["mask_index"] == row["mask_index"])
            & (rows["mode"] == "3pt")
        ]
        assert own["dice"].iloc[2] == third["dice"].item()
    box = clicks[clicks["dialogue"] == "bbox"]
    assert set(box["round"]) == set(range(6))
    assert box.loc[box["round"] == 0, "x"].isna().all()


def test_clicks_to_a_target_and_area():
    found = click_scores(np.array([0.5, 0.8, 0.84, 0.86]))
    assert [found[f"noc{t}"] for t in (80, 85, 90)] == [2, 4, 4]
    assert found["noc_reached"] == 85
    assert found["click_auc"] == pytest.approx((0.65 + 0.82 + 0.85) / 3)
    assert click_scores(np.array([0.7]))["click_auc"] == 0.7


def test_at_once_knows_nothing_of_answers(corpus, tmp_path):
    class Memory(bench_fakes.Bright):
        def predict(self, state, prompts):
            assert all(p.memory is None for p in prompts)
            return super().predict(state, prompts)

    rows = _run(corpus, Memory(), tmp_path, "uniform-k", ("bbox", "5pt", "bbox+3pt"))
    assert set(rows["status"]) == {"ok"}
    assert rows.loc[rows["mode"] == "5pt", "n_clicks"].eq(5).all()


def test_same_prompts_for_any_batch_and_any_process(corpus, tmp_path):
    for batch in (1, 4):
        _run(corpus, bench_fakes.Bright(), tmp_path / str(batch), batch=batch)
    code = (
        "import sys; from pathlib import Path; import bench_fakes, test_prompt_protocols as t\n"
        "t._run(t.Corpus(Path(sys.argv[1])), bench_fakes.Bright(), Path(sys.argv[2]))"
    )
    here = Path(__file__).parent
    env_path = [str(here), str(here.parents[0] / "model"), str(here.parents[1])]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {env_path!r}\n{code}"]
        + [str(corpus.root), str(tmp_path / "other")],
        check=True,
    )
    for folder in ("prompts", "clicks", "scores"):
        found = [next((tmp_path / n / folder).iterdir()) for n in ("1", "4", "other")]
        assert len({p.name for p in found}) == 1
        assert len({p.read_bytes() for p in found}) == 1


def test_changed_prompts_are_noticed(corpus, tmp_path):
    import pyarrow.parquet as pq

    _run(corpus, Oracle(), tmp_path)
    path = next((tmp_path / "prompts").iterdir())
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(CorpusError, match="stored prompts.*remove the file"):
        _run(corpus, bench_fakes.Bright(), tmp_path)


def test_editions(tmp_path):
    model = build_sam(spec_for("vit_tiny"), 0, kind="sam")
    if model.spec.image_size != 256:
        with pytest.raises(ModelError, match="256 px"):
            SamBench(model, "m", edition="as-released")
    model = build_sam(spec_for("vit_tiny", image_size=256), 0, kind="sam")
    native, released = SamBench(model, "m"), SamBench(model, "m", edition="as-released")
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = 200
    a, b = native.encode([image]), released.encode([image])
    assert a.frames[0].convention == "center"
    assert b.frames[0].convention == "corner"
    assert not torch.equal(a.embedding_BChw, b.embedding_BChw)
    with pytest.raises(UsageError, match="native or as-released"):
        parse_edition("released")
