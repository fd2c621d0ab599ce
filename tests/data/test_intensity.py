from __future__ import annotations

import numpy as np
import pytest

from sammed_data.intensity import (
    POLICIES,
    Context,
    Intensity,
    choose,
    depth16,
    reapply,
    statistics,
)
from sammed_data.types import UsageError


def _ct(**more):
    return Context(**({"modality": "CT", "window": None, "bits": 12} | more))


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.uint16])
def test_statistics_are_the_nearest_ranks(kind):
    values = np.arange(1001).astype(kind).reshape(7, 11, 13)
    found = statistics(np.ascontiguousarray(values[:, ::-1]))
    assert (found.minimum, found.maximum, found.p0_5, found.p99_5) == (0, 1000, 5, 995)


def test_integers_and_floats_give_the_same_statistics():
    values = np.random.default_rng(3).integers(-1024, 3000, (5, 17, 19)).astype(np.int16)
    assert statistics(values) == statistics(values.astype(np.float64))


def test_auto_takes_the_window_for_ct_and_percentiles_for_mr():
    stats = statistics(np.arange(-1000, 1000).reshape(4, 20, 25))
    assert choose("auto", _ct(window=(-100.0, 300.0)), stats).low == -100
    assert choose("auto", _ct(), stats).high == 240
    found = choose("auto", Context(modality="MR", window=None, bits=12), stats)
    assert (found.policy, found.low, found.high) == ("percentile", stats.p0_5, stats.p99_5)


def test_eight_bit_sources_pass_unchanged_even_as_ct():
    image = np.arange(256, dtype=np.uint8).reshape(1, 8, 32)
    chosen = choose("auto", _ct(bits=8), statistics(image))
    assert np.array_equal(chosen.to_uint8(image[0]), image[0])


def test_window_maps_its_ends_to_black_and_white_and_clips():
    chosen = Intensity(policy="window", low=-100.0, high=155.0)
    assert chosen.to_uint8(np.array([[-500, -100, 27, 155, 900]])).tolist() == [
        [0, 0, 127, 255, 255]
    ]


def test_released_is_per_slice_and_paper_per_volume():
    volume = np.stack([np.full((3, 5), 10), np.arange(15).reshape(3, 5) * 10]).astype(np.int16)
    stats = statistics(volume)
    released, paper = choose("released", _ct(), stats), choose("paper", _ct(), stats)
    assert released.bounds(volume[1]) == (0, 140)
    assert released.bounds(volume[0]) == (10, 10)
    assert paper.bounds(volume[0]) == (0, 140)
    assert released.to_uint8(volume[0]).max() == 0


def test_mostly_one_value_falls_back_to_the_extremes():
    volume = np.zeros((3, 20, 30), np.float32)
    volume[1, 4, 5] = 7.5
    chosen = choose("percentile", _ct(), statistics(volume))
    assert (chosen.low, chosen.high) == (0.0, 7.5)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_gives_uint8_of_the_same_shape(name):
    volume = np.linspace(-900, 1500, 2 * 9 * 14).reshape(2, 9, 14)
    chosen = choose(name, _ct(), statistics(volume))
    found = chosen.to_uint8(volume[0])
    assert found.dtype == np.uint8
    assert found.shape == (9, 14)


def test_unknown_policy_names_its_neighbour():
    with pytest.raises(UsageError, match="percentile"):
        choose("percentil", _ct(), statistics(np.arange(4).reshape(1, 2, 2)))


def test_sixteen_bits_hold_integers_exactly_and_floats_finely():
    rng = np.random.default_rng(0)
    ct = rng.integers(-1024, 3071, (2, 9, 7)).astype(np.int16)
    exact = depth16(ct, statistics(ct))
    assert np.array_equal(exact.restore(exact.store(ct[0])), ct[0])
    pet = rng.random((2, 9, 7)) * 12.5
    fine = depth16(pet, statistics(pet))
    assert np.abs(fine.restore(fine.store(pet[0])) - pet[0]).max() < 12.5 / 65535


def test_reapply_gives_the_pixels_another_build_would_have():
    rng = np.random.default_rng(1)
    ct = rng.integers(-1024, 3071, (2, 9, 7)).astype(np.int16)
    stats, lung = statistics(ct), choose("ct-lung", _ct(), statistics(ct))
    depth = depth16(ct, stats)
    record = {
        "policy": "window", "low": -160.0, "high": 240.0, "volume_min": stats.minimum,
        "volume_max": stats.maximum, "volume_p0_5": stats.p0_5, "volume_p99_5": stats.p99_5,
        "u16_slope": depth.slope, "u16_intercept": depth.intercept,
    }  # fmt: skip
    stored = depth.store(ct[1])
    assert np.array_equal(reapply("ct-lung", stored, record, "CT"), lung.to_uint8(ct[1]))
    same = choose("auto", _ct(), stats).to_uint8(ct[1])
    assert np.array_equal(reapply("window", stored, record, "CT"), same)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64])
def test_statistics_of_every_integer_type_are_exact(kind):
    ends = np.iinfo(kind)
    low, high = max(ends.min, -30_000), min(ends.max, 35_000)
    values = np.random.default_rng(5).integers(low, high + 1, (3, 21, 37)).astype(kind)
    flat = np.sort(values.ravel())
    found = statistics(values[:, ::-1, ::-1])
    ranks = [round(share * (flat.size - 1)) for share in (0, 1, 0.005, 0.995)]
    assert [found.minimum, found.maximum, found.p0_5, found.p99_5] == [flat[r] for r in ranks]


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_the_table_gives_what_arithmetic_gives(kind):
    ends = np.iinfo(kind)
    every = np.arange(ends.min, ends.max + 1).astype(kind).reshape(256, 256)
    assert every.size > 65535
    chosen = Intensity(policy="window", low=-160.0, high=239.5)
    slow = Intensity(policy="window", low=-160.0, high=239.5).to_uint8(every.astype(np.float64))
    assert np.array_equal(chosen.to_uint8(every[::-1, ::-1]), slow[::-1, ::-1])


def test_sixteen_bits_of_either_sign_wrap_to_the_same():
    for kind, low in ((np.int16, -1024), (np.int16, -32768), (np.uint16, 300)):
        values = np.random.default_rng(1).integers(low, low + 60_000, (2, 9, 7))
        values = np.clip(values, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
        stats = statistics(values)
        depth = depth16(values, stats)
        expected = values[0].astype(np.int64) - int(stats.minimum)
        assert np.array_equal(depth.store(values[0]), expected)
