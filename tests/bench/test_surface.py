"""Outline metrics: pictures computed by hand, the empty-mask policy, and agreement with MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from sammed_bench import surface
from sammed_bench.surface import Ruler, surface_scores


def _picture(*lines):
    return np.array([[c == "#" for c in line] for line in lines])


def _shapes(rng):
    """Two smooth random masks that overlap more or less, not square."""
    height, width = rng.integers(12, 90, 2)
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), rng.uniform(1, 5))
    other = ndimage.gaussian_filter(rng.normal(size=(height, width)), 2)
    other = field + rng.uniform(0, 0.3) * other
    return tuple(f > np.quantile(f, rng.uniform(0.5, 0.95)) for f in (field, other))


def test_two_pixels_apart_by_hand():
    a = _picture("#......", ".......", ".......")
    b = _picture("....#..", ".......", ".......")
    found = surface_scores(a, b, Ruler())
    assert found == {"nsd": 0.0, "hd95": 4.0, "boundary_iou": 0.0}
    in_mm = Ruler(spacing_yx=(3.0, 0.5), unit="mm")
    assert surface_scores(a, b, in_mm)["hd95"] == 2.0
    assert surface_scores(a, b, in_mm)["nsd"] == 1.0
    assert surface_scores(a.T, b.T, in_mm)["hd95"] == 12.0


def test_a_square_and_its_half_by_hand():
    a = _picture("........", ".#####..", ".#####..", ".#####..", "........")
    b = _picture("........", ".###....", ".###....", ".###....", "........")
    # Outline of a: 12 of 15 pixels (all but the inner three); of b: 8 of 9 (all but the middle).
    # a to b, nearest pixel of b's outline: columns 4 and 5 are 1 and 2 away, the others on it.
    strict = surface_scores(a, b, Ruler(tolerance=0.5))
    on_a = 12 - 2 - 3  # column 4 has its upper and lower pixel, column 5 three
    on_b = 8 - 1  # the middle pixel of column 3 is inside of a
    assert strict["nsd"] == pytest.approx((on_a + on_b) / 20)
    assert surface_scores(a, b, Ruler(tolerance=1.0))["nsd"] == pytest.approx((9 + 8) / 20)
    assert surface_scores(a, b, Ruler(tolerance=2.0))["nsd"] == 1
    assert strict["hd95"] == 2.0
    # Bands of 1 px (2 % of the diagonal of 9 px, at least 1): 12 and 8 pixels, 7 in both.
    assert strict["boundary_iou"] == pytest.approx(7 / 13)


def test_the_edge_of_the_image_is_outline():
    full = np.ones((4, 6), bool)
    inner = np.zeros((4, 6), bool)
    inner[1:3, 1:5] = True
    found = surface_scores(full, inner, Ruler(tolerance=1.0))
    # Corners are a diagonal step from the inner outline, all else one.
    assert found["nsd"] == pytest.approx((16 - 4 + 8) / 24)
    assert found["hd95"] == pytest.approx(math.sqrt(2))


def test_empty_sides_score_worst_and_both_empty_best():
    empty, some = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    some[3:9, 5:20] = True
    ruler = Ruler(spacing_yx=(2.0, 1.5), unit="mm")
    assert surface_scores(empty, empty, ruler) == {"nsd": 1.0, "hd95": 0.0, "boundary_iou": 1.0}
    for a, b in ((empty, some), (some, empty)):
        found = surface_scores(a, b, ruler)
        assert found == surface.worst((30, 40), ruler)
        assert found == {"nsd": 0.0, "hd95": math.hypot(60, 60), "boundary_iou": 0.0}
    # Nothing that is there can be farther away.
    corners = np.zeros((2, 30, 40), bool)
    corners[0, 0, 0] = corners[1, -1, -1] = True
    assert surface_scores(*corners, ruler)["hd95"] < math.hypot(60, 60)
    assert surface_scores(some, some, ruler) == {"nsd": 1.0, "hd95": 0.0, "boundary_iou": 1.0}


def test_properties_of_random_masks():
    rng = np.random.default_rng(7)
    for _ in range(60):
        a, b = _shapes(rng)
        ruler = Ruler(spacing_yx=(1.7, 0.6), unit="mm", tolerance=1.5)
        found = surface_scores(a, b, ruler)
        assert found == surface_scores(b, a, ruler)
        assert found == pytest.approx(surface_scores(a[::-1, ::-1], b[::-1, ::-1], ruler))
        turned = Ruler(spacing_yx=(0.6, 1.7), unit="mm", tolerance=1.5)
        assert found == pytest.approx(surface_scores(a.T, b.T, turned))
        assert 0 <= found["nsd"] <= 1
        assert surface_scores(a, b, ruler, ["hd95"]) == {"hd95": found["hd95"]}
        # The band against erosion by a square, as the paper of boundary IoU has it.
        width = max(1, round(0.02 * math.hypot(*a.shape)))
        bands = [m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=width) for m in (a, b)]
        expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        assert found["boundary_iou"] == pytest.approx(expected)


def test_millimetres_only_where_both_are_known():
    assert Ruler.of(0.7, 0.9) == Ruler(spacing_yx=(0.7, 0.9), unit="mm")
    for unknown in ((None, 0.9), (0.7, None), (0.0, 1.0), (float("nan"), 1.0)):
        assert Ruler.of(*unknown, 3.0) == Ruler(tolerance=3.0)


def test_agrees_with_monai():
    """400 random pairs, three in four of anisotropic spacing (MONAI computes in float32)."""
    monai = pytest.importorskip("monai.metrics", reason="monai is not installed")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    apart = {"nsd": 0.0, "hd95": 0.0}
    for trial in range(400):
        a, b = _shapes(rng)
        spacing = (1.0, 1.0) if trial % 4 == 0 else tuple(rng.uniform(0.3, 3, 2).tolist())
        tolerance = 2.0 if trial % 2 else float(rng.uniform(0.5, 4))
        ruler = Ruler(spacing_yx=spacing, unit="mm", tolerance=tolerance)
        found = surface_scores(a, b, ruler, ["nsd", "hd95"])
        pair = [torch.from_numpy(m)[None, None] for m in (a, b)]
        theirs = {
            "nsd": monai.compute_surface_dice(*pair, [tolerance], True, spacing=spacing),
            "hd95": monai.compute_hausdorff_distance(*pair, True, percentile=95, spacing=spacing),
        }
        for name, value in theirs.items():
            apart[name] = max(apart[name], abs(found[name] - value.item()))
    assert apart["nsd"] < 1e-6
    assert apart["hd95"] < 1e-4
