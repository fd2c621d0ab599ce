"""Overlap metrics: a hand example, the empty-mask policy, and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from sammed_bench import metrics
from sammed_data.types import ModelError

SHAPE = (2, 5, 9)
MASKS = arrays(bool, SHAPE)


def _scores(a, b, valid=None):
    counts = metrics.overlap(torch.as_tensor(a), torch.as_tensor(b), valid)
    return {name: metric(counts).numpy() for name, metric in metrics.OVERLAPS.items()}


def test_hand_example():
    predicted = torch.zeros(1, 3, 5, dtype=torch.bool)
    truth = predicted.clone()
    predicted[0, 0, :4] = True
    truth[0, 0, 2:5] = True
    truth[0, 1, :3] = True
    found = _scores(predicted, truth)
    assert found["dice"][0] == pytest.approx(2 * 2 / (4 + 6))
    assert found["iou"][0] == pytest.approx(2 / 8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(MASKS, MASKS)
def test_properties(a, b):
    found, turned = _scores(a, b), _scores(b, a)
    for name in metrics.OVERLAPS:
        assert np.all((found[name] >= 0) & (found[name] <= 1))
        assert np.array_equal(found[name], turned[name])
        assert np.array_equal(_scores(a, a)[name], np.ones(2))
    # The two are functions of each other.
    assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))
    flipped = _scores(a[:, ::-1, ::-1].copy(), b[:, ::-1, ::-1].copy())
    assert np.array_equal(found["dice"], flipped["dice"])
    for i in range(2):
        union = (a[i] | b[i]).sum()
        expected = 1.0 if union == 0 else (a[i] & b[i]).sum() / union
        assert found["iou"][i] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "t", "dice"), [(0, 0, 1), (0, 45, 0), (45, 0, 0), (45, 45, 1), (1, 1, 1)]
)
def test_empty_full_and_single_pixel(p, t, dice):
    a = torch.arange(45).reshape(1, 5, 9) < p
    b = torch.arange(45).reshape(1, 5, 9) < t
    assert _scores(a, b)["dice"][0] == dice


def test_ignored_pixels_count_nowhere():
    a = torch.zeros(1, 4, 6, dtype=torch.bool)
    b = a.clone()
    a[0, 1, :4] = True
    b[0, 1, 1:5] = True
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[1, 0] = valid[1, 4] = False
    assert _scores(a, b, valid)["dice"][0] == 1


def test_other_shapes_and_types_are_refused():
    a = torch.zeros(1, 4, 6, dtype=torch.bool)
    with pytest.raises(ModelError, match=r"\(1, 4, 6\).*\(1, 6, 4\)"):
        metrics.overlap(a.transpose(1, 2), a)
    with pytest.raises(ModelError, match="boolean"):
        metrics.overlap(a.float(), a)
