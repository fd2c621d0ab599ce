from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sammed_data import native, runs
from sammed_data.runs import Region, of_volume, regions

DTYPES = (np.uint8, np.uint16, np.int32, np.int64)


@pytest.fixture(autouse=True, params=["compiled", "numpy"])
def _loops(request, monkeypatch):
    """Both ways to the same regions."""
    if request.param == "numpy":
        monkeypatch.setattr(native, "planes", lambda: None)
    elif native.planes() is None:
        pytest.skip("no compiled loops: no C compiler was there at installation")


def _expected(plane):
    """Each value by OpenCV, one at a time."""
    found = []
    for value in np.unique(plane):
        if value:
            mask = (plane == value).astype(np.uint8)
            x, y, w, h = cv2.boundingRect(mask)
            count = cv2.connectedComponents(mask, connectivity=8)[0] - 1
            bits = np.packbits(mask[y : y + h, x - x % 8 : x + w], axis=1)
            found.append(Region(int(value), (x, y, x + w, y + h), int(mask.sum()), count, bits))
    return _plain([found])[0]


def _plain(found):
    """Regions that `==` can compare."""
    return [[region._replace(bits=region.bits.tolist()) for region in each] for each in found]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 19), st.integers(1, 23)),
    values=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    flips=st.tuples(st.booleans(), st.booleans()),
    coarse=st.booleans(),
)
def test_regions_are_those_of_one_value_at_a_time(seed, shape, values, dtype, flips, coarse):
    planes = np.random.default_rng(seed).integers(0, values, shape).astype(dtype)
    if coarse:  # thick shapes with holes and arms
        planes = np.kron(planes, np.ones((1, 3, 2), dtype))
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in flips)
    planes = planes[:, rows, columns]
    assert _plain(regions(list(planes))) == [_expected(plane) for plane in planes]
    known = of_volume(planes)
    if known is not None:
        assert _plain(regions(list(planes), known.planes)) == [_expected(plane) for plane in planes]


def test_large_values_and_columns_far_apart_in_memory():
    volume = np.zeros((5, 7, 9), np.int32)
    volume[1:4, 2:5, 3:8] = 70_000
    volume[3, 0, 0] = 3
    planes = [volume[:, :, x] for x in range(9)]
    assert _plain(regions(planes)) == [_expected(np.ascontiguousarray(p)) for p in planes]


def test_a_comb_is_one_component_and_its_teeth_are_many():
    plane = np.zeros((6, 41), np.uint8)
    plane[:, ::2] = 1
    (teeth,) = regions([plane])[0]
    plane[5] = 1
    (comb,) = regions([plane])[0]
    assert (teeth.n_components, comb.n_components) == (21, 1)


def test_a_run_ends_with_its_row():
    plane = np.zeros((4, 5), np.uint8)
    plane[1, 3:], plane[2], plane[3, 0] = 7, 7, 7
    bits = np.array([[0b00011000], [0b11111000], [0b10000000]], np.uint8)
    assert _plain(regions([plane])) == _plain([[Region(7, (0, 1, 5, 4), 8, 1, bits)]])


@pytest.mark.parametrize("background", [True, False])
def test_the_values_of_a_volume(background):
    volume = np.full((3, 32, 40), 0 if background else 9, np.uint8)
    volume[1, 4:20, 5:30] = 4
    found = of_volume(volume[:, ::-1])
    assert found.values() == sorted({0 if background else 9, 4})


def test_noise_is_not_worth_keeping():
    noise = np.random.default_rng(0).integers(0, 2, (4, 30, 30)).astype(np.uint8)
    assert of_volume(noise) is None
    assert runs.of_volume(np.zeros((0, 4, 4), np.uint8)) is None


def test_blocks_do_not_cut_runs(monkeypatch):
    monkeypatch.setattr(runs, "_BLOCK", 7)
    plane = np.zeros((9, 11), np.uint8)
    plane[2:8, 3:9] = 1
    assert _plain(regions([plane])) == [_expected(plane)]
