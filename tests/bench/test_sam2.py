"""The adapter of SAM 2, against a fake package with the public methods of SAM2ImagePredictor."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import tiny_corpus

from sammed_bench.bench import BenchConfig, bench
from sammed_bench.choose import parse_model
from sammed_bench.sam2_adapter import config_of
from sammed_bench.scores import read_scores
from sammed_data.types import ModelError

MODES = ("bbox", "mask", "1pt", "3pt", "bbox+3pt", "scribble")


class FakePredictor:
    """Answers like SAM2ImagePredictor in form: numpy, no axis for a single object."""

    asked: list[dict] = []

    def __init__(self, model):
        self.model = model
        self.images = []

    def set_image_batch(self, image_list):
        assert all(i.ndim == 3 and i.shape[2] == 3 and i.dtype == np.uint8 for i in image_list)
        self.images = image_list

    def predict_batch(self, multimask_output=True, return_logits=False, **batches):
        assert return_logits
        given = {name: b for name, b in batches.items() if b is not None}
        self.asked.append(given | {"several": multimask_output})
        found = [self._one(n, {k: b[n] for k, b in given.items()}) for n in range(len(self.images))]
        if multimask_output:
            found = [self._three(*one) for one in found]
        # As `squeeze(0)` leaves them where an image has one object.
        drop = [[a[0] if len(a) == 1 else a for a in one] for one in found]
        return tuple(list(part) for part in zip(*drop, strict=True))

    def _one(self, n, prompts):
        count = len(next(iter(prompts.values())))
        height, width = self.images[n].shape[:2]
        logits = np.full((count, 1, height, width), -4.0, np.float32)
        for m in range(count):
            if "box_batch" in prompts:
                x0, y0, x1, y1 = prompts["box_batch"][m].astype(int)
            elif "point_coords_batch" in prompts:
                x0, y0 = prompts["point_coords_batch"][m, 0].astype(int) - 3
                x1, y1 = x0 + 7, y0 + 7
            else:
                x0, y0, x1, y1 = 0, 0, width, height
            logits[m, 0, max(y0, 0) : y1, max(x0, 0) : x1] = 4.0
        low = np.full((count, 1, 256, 256), 0.5, np.float32)
        return logits, np.ones((count, 1), np.float32), low

    def _three(self, logits, share, low):
        shares = np.concatenate([0.1 * share, 0.9 * share, 0.2 * share], axis=1)
        return np.concatenate([-logits, logits, -logits], 1), shares, np.repeat(low, 3, axis=1)


@pytest.fixture
def package(monkeypatch):
    built = types.ModuleType("sam2.build_sam")
    built.made = []

    def build_sam2(config, checkpoint, device):
        built.made.append((config, device))
        return types.SimpleNamespace(image_size=1024)

    built.build_sam2 = build_sam2
    used = types.ModuleType("sam2.sam2_image_predictor")
    used.SAM2ImagePredictor = FakePredictor
    monkeypatch.setattr(FakePredictor, "asked", [])
    monkeypatch.setitem(sys.modules, "sam2", types.ModuleType("sam2"))
    monkeypatch.setitem(sys.modules, built.__name__, built)
    monkeypatch.setitem(sys.modules, used.__name__, used)
    return built


def test_a_checkpoint_is_scored_in_every_mode(package, tmp_path):
    corpus = tiny_corpus.write_corpus(
        tmp_path / "c", patients={"train": 1, "test": 1}, slices=2, size=(40, 56)
    )
    weights = tmp_path / "sam2.1_hiera_base_plus.pt"
    weights.write_bytes(b"weights")
    wanted = parse_model(f"sam2=sam2:{weights}")
    config = BenchConfig(modes=MODES, gallery=False, threads=1, batch=3, device="cpu")
    bench(corpus, [wanted], config, out=tmp_path / "r")
    assert package.made == [("configs/sam2.1/sam2.1_hiera_b+.yaml", "cpu")]
    rows = read_scores(tmp_path / "r")
    own, box = (rows[rows["model"] == name] for name in ("sam2", "box-full"))
    assert set(own["status"]) == {"ok"}
    assert set(own["mode"]) == set(MODES)
    keys = ["sample_id", "mask_index"]
    same = own[own["mode"] == "bbox"].merge(box[box["mode"] == "bbox"], on=keys)
    assert same["dice_x"].equals(same["dice_y"])
    for asked in FakePredictor.asked:
        clicks = asked.get("point_coords_batch")
        alone = set(asked) == {"point_coords_batch", "point_labels_batch", "several"}
        assert asked["several"] == (alone and clicks[0].shape[1] == 1)
        if clicks is not None and clicks[0].shape[1] in (2, 3):
            assert asked["mask_input_batch"][0].shape[1:] == (1, 256, 256)
    masks = [a for a in FakePredictor.asked if set(a) == {"mask_input_batch", "several"}]
    assert masks
    assert all(np.abs(m["mask_input_batch"][0]).max() < 7 for m in masks)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    weights = tmp_path / "sam2.1_hiera_tiny.pt"
    wanted = parse_model(f"sam2=sam2:{weights}")
    from sammed_bench.choose import load

    with pytest.raises(ModelError, match="found no file"):
        load(wanted, "cpu")
    weights.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    with pytest.raises(ModelError, match=r"pip install 'sammed\[sam2\]'"):
        load(wanted, "cpu")
    with pytest.raises(ModelError, match="found mine.pt: rename it"):
        config_of(tmp_path / "mine.pt")
