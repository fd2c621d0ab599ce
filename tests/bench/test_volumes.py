"""Volumes: metrics by hand and against MONAI; levels made from kept predictions."""

from __future__ import annotations

import bench_fakes
import numpy as np
import pytest
import tiny_corpus
from scipy import ndimage

from sammed_bench import levels, predictions
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.level_tables import level_tables
from sammed_bench.levels import interactions, voxel
from sammed_bench.models import Oracle
from sammed_bench.predictions import Kept
from sammed_bench.scores import read_scores
from sammed_bench.volume_metrics import volume_scores
from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError

SPACING = (3.0, 1.5, 1.25)


def _pair(rng):
    shape = rng.integers(6, 24, 3)
    field = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(1, 3))
    other = field + rng.uniform(0, 0.3) * ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    return tuple(f > np.quantile(f, rng.uniform(0.6, 0.95)) for f in (field, other))


def test_two_voxels_apart_by_hand():
    a, b = np.zeros((2, 4, 5, 6), bool)
    a[0, 2, 1] = b[3, 2, 1] = True
    assert volume_scores(a, b, SPACING, 2.0) == {"dice": 0, "iou": 0, "nsd": 0, "hd95": 9.0}
    assert volume_scores(a, b, SPACING, 9.0)["nsd"] == 1
    assert volume_scores(a, a, SPACING, 0.0) == {"dice": 1, "iou": 1, "nsd": 1, "hd95": 0}


def test_empty_sides():
    full, empty = np.ones((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    assert volume_scores(empty, empty, SPACING, 1.0)["dice"] == 1
    worst = volume_scores(empty, full, SPACING, 1.0)
    assert (worst["dice"], worst["nsd"]) == (0, 0)
    assert worst["hd95"] == pytest.approx(np.sqrt(6.0**2 + 4.5**2 + 5.0**2))


def test_agrees_with_monai():
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for trial in range(40):
        a, b = _pair(rng)
        spacing = (1.0, 1.0, 1.0) if trial % 4 == 0 else tuple(rng.uniform(0.5, 4, 3))
        found = volume_scores(a, b, spacing, 2.0)
        both = [torch.from_numpy(m)[None, None].float() for m in (a, b)]
        hd95 = monai.compute_hausdorff_distance(*both, percentile=95, spacing=spacing)
        nsd = monai.compute_surface_dice(*both, class_thresholds=[2.0], spacing=spacing)
        dice = monai.compute_dice(*both)
        assert found["hd95"] == pytest.approx(float(hd95), abs=1e-4)
        assert found["nsd"] == pytest.approx(float(nsd), abs=1e-5)
        assert found["dice"] == pytest.approx(float(dice), abs=1e-6)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    root = tiny_corpus.write_corpus(folder / "c", patients={"train": 1, "test": 2}, slices=3)
    config = BenchConfig(modes=("bbox", "3pt"), gallery=False, keep_predictions=True)
    models = [bench_fakes.Bright(), bench_fakes.Broken(), Oracle()]
    out = bench(root, models, config, out=folder / "r").out
    return out, Corpus(root)


def _masks(kept, corpus, mode, structure):
    """case -> (predicted, truth) volumes, put together here independently."""
    found = {}
    for row in map(corpus.read, corpus.index(["test"])):
        at = int(row.meta["slice_index"])
        key = row.meta["case_id"]
        volumes = found.setdefault(key, np.zeros((2, 3, row.height, row.width), bool))
        for mask in row.masks:
            if mask.structure == structure:
                answer = kept.answer(row.sample_id, mode, [mask.index])
                volumes[0, at] |= answer.masks_MHW[0].numpy()
                volumes[1, at] |= mask.mask_HW
    return found


def test_volumes_are_restacked_slices(results):
    out, corpus = results
    rows = levels.read(out, "volumes")
    (path,) = [p for p in predictions.parts(out) if "bright" in p.name]
    own = rows[(rows["model"] == "bright") & (rows["mode"] == "3pt") & (rows["structure"] == "egg")]
    expected = _masks(Kept.open(path), corpus, "3pt", "egg")
    assert set(own["case_id"]) == set(expected)
    for line in own.to_dict("records"):
        a, b = expected[line["case_id"]]
        assert line["dice"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert line["hd95"] == volume_scores(a, b, SPACING, 2.0)["hd95"]
        assert (line["slices"], line["masks"], line["surface_unit"]) == (3, 3, "mm")
        assert 3 <= line["interactions"] <= 9
    assert (rows.loc[rows["model"] == "oracle", ["dice", "nsd"]] == 1).all(axis=None)
    assert (rows.loc[rows["model"] == "oracle", "hd95"] == 0).all()
    broken = rows[rows["model"] == "broken"]
    assert (broken["dice"] == 0).all()
    assert (broken["failed"] == broken["masks"]).all()
    assert (broken["hd95"] > 50).all()


def test_one_mask_a_structure_and_image_is_the_same_by_mask_and_by_image(results):
    out, _ = results
    masks = read_scores(out)
    masks = masks[masks["status"] != "unsupported"]
    images = levels.read(out, "images")
    keys = ["model", "mode", "sample_id", "structure"]
    both = masks.merge(images, on=keys, suffixes=("", "_image"))
    assert len(both) == len(masks) == len(images)
    assert np.allclose(both["dice"], both["dice_image"])


def test_tables_by_image_and_by_volume(results):
    out, _ = results
    by_name = {table.name: table for table in level_tables(out)}
    volumes = levels.read(out, "volumes")
    for line in by_name["by-volume"].rows:
        own = volumes[(volumes["model"] == line["model"]) & (volumes["mode"] == line["mode"])]
        assert line["dice_mean"] == pytest.approx(own["dice"].mean())
        assert line["volumes"] == len(own) == 8
    assert by_name["by-image-and-structure"].rows


def test_interactions_and_voxels():
    assert [interactions(m, 3) for m in ("3pt", "bbox+3pt", "mask", "scribble")] == [3, 4, 1, 1]
    assert interactions("bbox", 0) == 1
    known = {"spacing_slice_mm": 5.0, "spacing_y_mm": 1.0, "spacing_x_mm": 0.5}
    assert voxel(known) == ((5.0, 1.0, 0.5), "mm")
    assert voxel(known | {"spacing_slice_mm": None}) == ((1.0, 1.0, 1.0), "px")


def test_a_damaged_part_is_named(tmp_path):
    path = tmp_path / "part-x-00000.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(CorpusError, match="kept predictions"):
        Kept.open(path)
