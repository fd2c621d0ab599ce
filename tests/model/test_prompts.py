"""Clicks and boxes: inside what they should be inside, and the same at any batch size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sammed_model import prompts

sizes = st.tuples(st.integers(1, 23), st.integers(1, 31))


def seeds(n: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor([prompts.prompt_seed(f"s{i}", i, "test", 0, seed) for i in range(n)])


def masks(draw_seed: int, n: int, size: tuple[int, int]) -> torch.Tensor:
    """Random masks; the first is empty, the second full, the third one pixel."""
    rng = np.random.default_rng(draw_seed)
    out = rng.random((n, *size)) < rng.random((n, 1, 1))
    out[0], out[1 % n] = False, True
    out[2 % n] = False
    out[2 % n].flat[rng.integers(out[0].size)] = True
    return torch.from_numpy(out)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_clicks_lie_in_their_masks(size, draw):
    truth = masks(draw, 5, size)
    xy, label = prompts.first_click(truth, seeds(5, draw))
    for mask, (x, y), found in zip(truth, xy.long().tolist(), label.tolist(), strict=True):
        assert found == (1 if mask.any() else -1)
        assert not mask.any() or mask[y, x]


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31), st.integers(1, 9))
def test_error_clicks_name_the_kind_of_error(size, draw, n):
    truth, pred = masks(draw, 5, size), masks(draw + 1, 5, size).flip(0)
    xy, label = prompts.error_clicks(pred, truth, seeds(5, draw), n)
    assert xy.shape == (5, n, 2)
    for m in range(5):
        for (x, y), kind in zip(xy[m].long().tolist(), label[m].tolist(), strict=True):
            assert 0 <= x < size[1]
            assert 0 <= y < size[0]
            if kind == -1:
                assert torch.equal(pred[m], truth[m])
            else:
                assert truth[m, y, x] == kind
                assert pred[m, y, x] != kind


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_batch_size_and_company_change_nothing(size, draw):
    truth, keys = masks(draw, 5, size), seeds(5, draw)
    together, _ = prompts.first_click(truth, keys)
    alone = torch.cat([prompts.first_click(truth[i : i + 1], keys[i : i + 1])[0] for i in range(5)])
    assert torch.equal(together, alone)
    several, _ = prompts.pick_several(truth, keys, 9)
    assert torch.equal(several[:, 0], together)
    for n in (3, 5):  # training draws nine for all masks and gives each its first
        assert torch.equal(several[:, :n], prompts.pick_several(truth, keys, n)[0])


def test_points_of_a_large_region_differ_and_of_a_small_one_repeat():
    region = torch.zeros(2, 7, 11, dtype=torch.bool)
    region[0, 1:6, 2:9] = True
    region[1, 3, 4:6] = True
    xy, _ = prompts.pick_several(region, seeds(2), 9)
    assert len({tuple(p) for p in xy[0].tolist()}) == 9
    assert len({tuple(p) for p in xy[1].tolist()}) == 2


def test_clicks_are_uniform_over_the_region():
    region = torch.zeros(1, 5, 8, dtype=torch.bool)
    region[0, 1:4, 2:6] = True
    keys = seeds(2400)
    xy, found = prompts.pick_pixels(region.expand(2400, 5, 8), keys)
    assert found.all()
    counts = torch.zeros(5, 8).index_put_(
        (xy[:, 1].long(), xy[:, 0].long()), torch.tensor(1.0), accumulate=True
    )
    assert counts[region[0]].sum() == 2400
    # Twelve cells of 200: chi-squared with 11 degrees of freedom, 99.9 % at 31.3.
    assert float(((counts[region[0]] - 200) ** 2 / 200).sum()) < 31.3


def test_ranks_are_the_written_hash():
    """The same integers as an unsigned implementation, so any language can repeat a click."""
    seed, n, mask = 2**62 + 12345, 50, 2**64 - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    wanted = [mix((mix(seed) + i * 0x9E3779B97F4A7C15) & mask) for i in range(1, n + 1)]
    got = prompts.rank_pixels(torch.tensor([seed]), n)[0].tolist()
    assert [v % 2**64 for v in got] == wanted


def test_seed_depends_on_each_of_its_parts():
    base = ("a", 1, "p", 0, 3)
    others = [("b", 1, "p", 0, 3), ("a", 2, "p", 0, 3), ("a", 1, "q", 0, 3), ("a", 1, "p", 1, 3)]
    made = {prompts.prompt_seed(*key) for key in [base, *others, ("a", 1, "p", 0, 4)]}
    assert len(made) == 6
    assert all(0 <= s < 2**63 for s in made)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_boxes_are_tight(size, draw):
    truth = masks(draw, 5, size)
    for mask, box in zip(truth, prompts.tight_boxes(truth).long().tolist(), strict=True):
        x0, y0, x1, y1 = box
        if not mask.any():
            assert box == [0, 0, 0, 0]
            continue
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0].any()
        assert mask[y1 - 1].any()
        assert mask[:, x0].any()
        assert mask[:, x1 - 1].any()


def test_box_of_the_largest_part_joins_diagonals():
    mask = torch.zeros(1, 9, 14, dtype=torch.bool)
    mask[0, 0, 0] = True
    mask[0, 3, 5] = mask[0, 4, 6] = mask[0, 5, 7] = True
    assert prompts.tight_boxes(mask, True).tolist() == [[5, 3, 8, 6]]
    assert prompts.tight_boxes(mask).tolist() == [[0, 0, 8, 6]]


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_jittered_boxes_stay_boxes_within_the_image(size, draw):
    tight = prompts.tight_boxes(masks(draw, 5, size))[1:]
    moved = prompts.jitter_boxes(tight, seeds(4, draw), size)
    filled = tight[:, 2] > 0
    assert (moved[filled, :2] < moved[filled, 2:]).all()
    assert (moved >= 0).all()
    assert (moved[:, 2] <= size[1]).all()
    assert (moved[:, 3] <= size[0]).all()
    assert ((moved - tight).abs() <= 5).all()


def test_released_jitter_moves_the_whole_box():
    tight = torch.tensor([[10.0, 20.0, 40.0, 28.0]]).repeat(300, 1)
    moved = prompts.jitter_boxes(tight, seeds(300), (64, 96), released=True)
    shift = moved - tight
    assert torch.equal(shift[:, :2], shift[:, 2:])
    assert shift.min() == -4
    assert shift.max() == 3
    one = torch.tensor([[3.0, 4.0, 4.0, 5.0]])
    assert torch.equal(prompts.jitter_boxes(one, seeds(1), (9, 9), released=True), one)


def test_rank_is_the_golden_hash():
    """`fill_by_name` of the shared facts uses the same mixer."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip(f"golden numbers are not at {folder}")
    sys.path.insert(0, str(folder))
    try:
        import fill_by_name
    finally:
        sys.path.remove(str(folder))
    import zlib

    start = zlib.crc32(b"key") << 32
    start = start - 2**64 if start >= 2**63 else start
    counter = torch.arange(1, 33) * prompts._GAMMA
    mixed = prompts._mix(torch.tensor([start])[:, None] + counter)
    got = (prompts._shift(mixed, 40).double() + 0.5) / 2**24 - 0.5
    assert np.array_equal(got[0].numpy(), fill_by_name.uniform("key", 32))
