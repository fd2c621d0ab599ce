"""Prompts of the benchmark: inside their masks, tight, and functions of names alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sammed_bench import protocols
from sammed_bench.modes import parse_modes
from sammed_bench.protocols import SAM_MED2D, Target
from sammed_data.types import UsageError

SIZES = [(40, 60), (300, 210), (256, 256), (130, 500), (512, 640)]


def _disc(height, width, y, x, r):
    yy, xx = np.mgrid[:height, :width]
    return (yy - y) ** 2 + (xx - x) ** 2 <= r**2


def _target(masks, keys=None, sample="a/1", valid=None):
    truth = torch.from_numpy(np.stack(masks))
    valid = torch.ones(truth.shape[1:], dtype=torch.bool) if valid is None else valid
    return Target.of(SAM_MED2D, sample, keys or range(len(masks)), truth, valid)


def test_modes_are_read_and_ordered():
    assert parse_modes("5pt, bbox,1pt,bbox") == ("bbox", "1pt", "5pt")
    with pytest.raises(UsageError, match=r"'2pt' .*did you mean.*--prompts"):
        parse_modes("bbox,2pt")
    with pytest.raises(UsageError, match="found nothing"):
        parse_modes(" ,")


@pytest.mark.parametrize("size", SIZES)
def test_first_click_is_inside_and_the_box_holds_the_mask(size):
    height, width = size
    masks = [
        _disc(height, width, height * 0.3, width * 0.6, min(size) * 0.2),
        _disc(height, width, height - 1, 0, min(size) * 0.1),
        np.ones(size, bool),
    ]
    single = np.zeros(size, bool)
    single[height // 2 + 1, width // 3] = True
    target = _target([*masks, single])
    xy, label = protocols.first_clicks(SAM_MED2D, target, 0)
    assert label.tolist() == [1] * 4
    for (x, y), mask in zip(xy.long().tolist(), [*masks, single], strict=True):
        assert mask[y, x]
    boxes = protocols.boxes(SAM_MED2D, target)
    assert boxes[2].tolist() == [0, 0, width, height]
    x0, y0, x1, y1 = boxes[3].tolist()
    assert x0 <= width // 3 < x1
    assert y0 <= height // 2 + 1 < y1
    cell = np.array([max(width / 256, 1), max(height / 256, 1)] * 2)
    for box, mask in zip(boxes.numpy(), masks, strict=False):
        y, x = np.nonzero(mask)
        tight = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert np.array_equal(box, np.round(box))
        assert np.all(np.abs(box - tight) <= cell + 1)


def test_boxes_are_exact_and_half_open_on_small_slices():
    mask = np.zeros((40, 60), bool)
    mask[3:9, 50:60] = True
    mask[20:22, 1:3] = True  # a smaller part, which the box leaves out
    assert protocols.boxes(SAM_MED2D, _target([mask]))[0].tolist() == [50, 3, 60, 9]


def test_an_empty_mask_gets_a_void_click():
    target = _target([np.zeros((30, 50), bool)])
    assert protocols.first_clicks(SAM_MED2D, target, 0)[1].tolist() == [-1]
    assert not protocols.coarse_masks(SAM_MED2D, target).any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(20, 330), st.integers(20, 330), st.integers(0, 10**6))
def test_error_clicks_lie_in_the_error(height, width, seed):
    rng = np.random.default_rng(seed)
    truth = _disc(height, width, *rng.uniform(0, (height, width)), 0.3 * min(height, width))
    wrong = _disc(height, width, *rng.uniform(0, (height, width)), 0.3 * min(height, width))
    target = _target([truth])
    predicted = torch.from_numpy(wrong[None])
    xy, label = protocols.next_clicks(SAM_MED2D, target, predicted, 1, seed)
    (x, y), kind = xy[0].long().tolist(), int(label[0])
    if kind == -1:
        seen = target.frame.masks_to_model(predicted)[:, 0]
        assert torch.equal(seen, target.grid_MSS)
    else:
        assert (truth[y, x], wrong[y, x]) == ((True, False) if kind else (False, True))


def test_no_error_no_click():
    mask = _disc(70, 90, 30, 40, 12)
    target = _target([mask])
    assert protocols.next_clicks(SAM_MED2D, target, target.truth_MHW, 1, 0)[1].tolist() == [-1]


def test_prompts_depend_on_names_alone():
    masks = [_disc(80, 120, 40, 30, 20), _disc(80, 120, 20, 90, 15)]
    both = protocols.first_clicks(SAM_MED2D, _target(masks), 0)[0]
    second = protocols.first_clicks(SAM_MED2D, _target(masks[1:], keys=[1]), 0)[0]
    assert torch.equal(both[1:], second)
    other = [
        protocols.first_clicks(SAM_MED2D, _target(masks), 1)[0],
        protocols.first_clicks(SAM_MED2D, _target(masks, sample="a/2"), 0)[0],
    ]
    assert all(not torch.equal(both, o) for o in other)


def test_ignored_pixels_are_not_clicked():
    mask = _disc(60, 80, 30, 40, 20)
    valid = torch.ones(60, 80, dtype=torch.bool)
    valid[:, :50] = False
    target = _target([mask], valid=valid)
    xy, label = protocols.first_clicks(SAM_MED2D, target, 0)
    assert label.tolist() == [1]
    assert xy[0, 0] >= 50
    whole = torch.ones(1, 60, 80, dtype=torch.bool)
    clicked, kind = protocols.next_clicks(SAM_MED2D, target, whole, 1, 0)
    assert kind.tolist() == [0]
    assert clicked[0, 0] >= 50


def test_a_coarse_mask_resembles_its_object():
    mask = _disc(300, 420, 150, 200, 70)
    coarse = protocols.coarse_masks(SAM_MED2D, _target([mask]))[0].numpy()
    assert not np.array_equal(coarse, mask)
    assert (coarse & mask).sum() / (coarse | mask).sum() > 0.9


def test_the_hash_is_an_identity():
    assert SAM_MED2D.hash == protocols.Protocol().hash
    assert SAM_MED2D.hash != protocols.Protocol(version=2).hash
