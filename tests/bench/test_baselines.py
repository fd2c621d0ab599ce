"""Trivial baselines: exact shapes, and the radius of the training masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sammed_bench import baselines, metrics
from sammed_bench.ask import takes
from sammed_bench.modes import MODES
from sammed_bench.types import ImagePrompts
from sammed_data.corpus import MaskRow, Row


def _dice(a, b):
    return metrics.dice(metrics.overlap(a, b)).item()


def test_box_full_is_half_open():
    prompts = ImagePrompts(boxes_M4=torch.tensor([[2.0, 1.0, 5.0, 3.0]]))
    found = baselines.box_full(prompts, (4, 7))[0]
    expected = torch.zeros(4, 7, dtype=torch.bool)
    expected[1:3, 2:5] = True
    assert torch.equal(found, expected)


def test_box_ellipse_on_an_ellipse():
    y, x = np.mgrid[:90, :140]
    ellipse = ((y - 40) / 30.5) ** 2 + ((x - 70) / 50.5) ** 2 <= 1
    box = torch.tensor([[20.0, 10.0, 121.0, 71.0]])
    found = baselines.box_ellipse(ImagePrompts(boxes_M4=box), (90, 140))
    assert _dice(found, torch.from_numpy(ellipse[None])) == 1
    area = math.pi / 4
    full = baselines.box_full(ImagePrompts(boxes_M4=box), (90, 140))
    assert found.sum() / full.sum() == pytest.approx(area, abs=0.01)


def test_box_ellipse_of_a_single_pixel():
    box = torch.tensor([[3.0, 2.0, 4.0, 3.0]])
    found = baselines.box_ellipse(ImagePrompts(boxes_M4=box), (6, 9))
    assert found.nonzero().tolist() == [[0, 2, 3]]


def _clicks(*clicks):
    points = torch.tensor([[c[:2] for c in clicks]], dtype=torch.float32)
    return ImagePrompts(points_MN2=points, point_labels_MN=torch.tensor([[c[2] for c in clicks]]))


def test_click_disc():
    rule = baselines.click_disc(0.2)
    found = rule(_clicks((30, 20, 1)), (50, 80))[0]
    y, x = np.mgrid[:50, :80]
    assert np.array_equal(found.numpy(), (y - 20) ** 2 + (x - 30) ** 2 <= 100)
    cut = rule(_clicks((30, 20, 1), (36, 20, 0), (0, 0, -1)), (50, 80))[0]
    assert cut[20, 33]
    assert not cut[20, 34]
    more = rule(_clicks((30, 20, 1), (60, 20, 1)), (50, 80))[0]
    assert more.sum() > found.sum()
    assert not rule(_clicks((0, 0, -1)), (50, 80)).any()


def _row(areas, height=100, width=50):
    masks = tuple(
        MaskRow(
            index=i, label="a", structure="a", organ="", group="", kind="organ", side="",
            instance=1, annotator=1, n_components=1, area_px=area, box_xyxy=(0, 0, 1, 1),
            touches_border=False,
        )
        for i, area in enumerate(areas)
    )  # fmt: skip
    return Row(
        sample_id="a", dataset="d", modality="ct", split="train", height=height, width=width,
        masks=masks, meta={},
    )  # fmt: skip


def test_training_radius_is_the_median_over_masks_that_training_sees():
    areas = [round(math.pi * r**2) for r in (5, 10, 20)]
    assert baselines.training_radius([_row([*areas, 1, 2, 3])]) == pytest.approx(0.2, abs=0.01)
    assert baselines.training_radius([_row([3])]) == pytest.approx(math.sqrt(3 / math.pi) / 50)
    assert baselines.training_radius([]) is None


@pytest.mark.parametrize("mode", [*MODES, "clicks:4"])
def test_every_mode_has_its_trivial_baseline(mode):
    own = [m.facts.name for m in baselines.trivial_baselines(0.1) if takes(m.facts, mode)]
    assert own
    if mode.startswith("bbox+"):
        assert own == ["box-clicks"]


def test_box_clicks_mend_the_ellipse():
    box = torch.tensor([[10.0, 4.0, 30.0, 24.0]])
    ellipse = baselines.box_ellipse(ImagePrompts(boxes_M4=box), (32, 48))[0]

    def after(*clicks):
        xy = torch.tensor([[[x, y] for x, y, _ in clicks]]).float()
        labels = torch.tensor([[label for *_, label in clicks]])
        asked = ImagePrompts(boxes_M4=box, points_MN2=xy, point_labels_MN=labels)
        return baselines.box_clicks(asked, (32, 48))[0]

    assert after((20, 14, -1)).equal(ellipse)
    assert after((20, 14, 1)).equal(ellipse)
    cut, grown = after((20, 5, 0)), after((40, 14, 1))
    assert ellipse[5, 20]
    assert not cut[5, 20]
    assert not cut[9, 20]
    assert cut[11, 20]
    assert grown[14, 40]
    assert grown[14, 45]
    assert not grown[14, 46]
    assert (grown | ellipse).equal(grown)
