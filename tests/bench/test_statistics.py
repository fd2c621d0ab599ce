"""Intervals know about patients; comparisons are paired by mask."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sammed_bench import statistics
from sammed_bench.statistics import MIN_CLUSTERS, cluster_interval, compare_models, paired
from sammed_data.types import UsageError


def _patients(rng, n, masks=4, spread=0.1):
    own = rng.normal(0.7, spread, n)
    values = (own[:, None] + rng.normal(0, 0.02, (n, masks))).ravel()
    return values, np.repeat(np.arange(n), masks)


def test_coverage_on_normal_patients():
    hits, widths = 0, []
    for trial in range(200):
        values, clusters = _patients(np.random.default_rng(trial), 50)
        found = cluster_interval(values, clusters, key=str(trial), draws=400)
        hits += found.low <= 0.7 <= found.high
        widths.append(found.high - found.low)
    # 200 trials of a nominal 95 %.
    assert 0.89 <= hits / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(50), rel=0.15)


def test_few_skewed_patients_of_uneven_sizes_are_covered():
    # benchmarks/coverage.py does this for many populations; the percentile one covers 88 % here.
    hits, trials = 0, 300
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        clusters = np.repeat(np.arange(15), np.maximum(1, rng.lognormal(1.5, 0.8, 15)).astype(int))
        values = rng.beta(5, 1.2, 15)[clusters] + rng.normal(0, 0.03, len(clusters))
        found = cluster_interval(values, clusters, key=str(trial), draws=400, minimum=15)
        hits += found.low <= 5 / 6.2 <= found.high
    assert 0.92 <= hits / trials <= 0.98


def test_one_value_has_no_width_and_intervals_stay_where_values_are():
    clusters = np.repeat(np.arange(20), 4)
    same = cluster_interval(np.ones(80), clusters)
    assert (same.mean, same.low, same.high) == (1, 1, 1)
    # One patient lost: most draws without them have no spread at all.
    values = np.where(clusters == 3, 0.0, 1.0)
    found = cluster_interval(values, clusters)
    assert 0 < found.low < found.mean == pytest.approx(0.95)
    assert found.high == 1
    alone = cluster_interval(np.array([0.3, 0.5]), [7, 7], minimum=1)
    assert (alone.low, alone.n_clusters) == (None, 1)


def test_unequal_patients_count_as_fewer():
    own = np.linspace(0.5, 0.9, 20)
    even = np.repeat(np.arange(20), 10)
    uneven = np.repeat(np.arange(20), [91] + [1] * 18 + [91])
    wide = cluster_interval(own[uneven], uneven)
    narrow = cluster_interval(own[even], even)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_patients_are_drawn_not_masks():
    values, clusters = _patients(np.random.default_rng(1), 40, masks=25)
    by_patient = cluster_interval(values, clusters)
    by_mask = cluster_interval(values, np.arange(len(values)))
    assert by_patient.high - by_patient.low > 3 * (by_mask.high - by_mask.low)


def test_same_numbers_again_and_none_for_few_patients():
    values, clusters = _patients(np.random.default_rng(2), MIN_CLUSTERS)
    assert cluster_interval(values, clusters, key="a") == cluster_interval(
        values, clusters, key="a"
    )
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - shows that it is left alone
    few = cluster_interval(values[clusters > 0], clusters[clusters > 0])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert (few.low, few.high, few.n_clusters) == (None, None, MIN_CLUSTERS - 1)
    assert few.mean == pytest.approx(values[clusters > 0].mean())
    assert cluster_interval(np.array([]), []).n == 0


def _rows(model, dice, mode="bbox", status="ok"):
    n = len(dice)
    return pd.DataFrame(
        {
            "model": model,
            "mode": mode,
            "status": status,
            "sample_id": [f"s{i // 2}" for i in range(n)],
            "mask_index": [i % 2 for i in range(n)],
            "dataset": "d",
            "patient_id": [f"p{i // 4}" for i in range(n)],
            "case_id": "c",
            "dice": dice,
        }
    )


def test_paired_by_mask_whatever_the_order():
    rng = np.random.default_rng(3)
    base = rng.uniform(0.2, 0.9, 120)
    better = base + 0.03 + rng.normal(0, 0.01, 120)
    a, b = _rows("a", better), _rows("b", base)
    found = paired(a, b.sample(frac=1, random_state=1))
    assert found.mean_difference == pytest.approx((better - base).mean())
    assert (found.n_patients, found.n_masks) == (30, 120)
    assert found.low < found.mean_difference < found.high
    assert found.excludes_zero
    # Pairing is what makes it sharp: the scores themselves vary far more.
    assert found.high - found.low < 0.02
    turned = paired(b, a)
    assert turned.mean_difference == pytest.approx(-found.mean_difference)
    assert found.effect > 1


def test_no_difference_is_seldom_found():
    wrong = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        base = rng.uniform(0.2, 0.9, 240)
        other = base + rng.normal(0, 0.05, 240)
        clusters = np.repeat(np.arange(60), 4)
        found = statistics.paired_interval(other, base, clusters, key=str(trial))
        wrong += not found.low <= 0 <= found.high
    assert wrong / 200 <= 0.08
    assert paired(_rows("a", base), _rows("b", base)).effect is None


def test_compare_models_names_what_it_does_not_know():
    rows = pd.concat([_rows("sam", np.full(8, 0.5)), _rows("ft-sam", np.full(8, 0.6))])
    found = compare_models(rows, "ft-sam", "sam", "bbox")
    assert found.mean_difference == pytest.approx(0.1)
    assert (found.low, found.n_patients) == (None, 2)
    with pytest.raises(UsageError, match="ft-sam"):
        compare_models(rows, "ftsam", "sam", "bbox")
    with pytest.raises(UsageError, match="bbox"):
        compare_models(rows, "ft-sam", "sam", "box")
    with pytest.raises(UsageError, match="several"):
        paired(rows, rows)
    with pytest.raises(UsageError, match="both models"):
        paired(_rows("a", np.ones(4), status="unsupported"), _rows("b", np.ones(4)))


def test_the_unit_is_the_patient_of_a_dataset():
    rows = pd.DataFrame(
        {
            "dataset": ["d", "e", "d", "d"],
            "patient_id": ["1", "1", "", ""],
            "case_id": ["x", "x", "c", ""],
            "sample_id": ["s1", "s2", "s3", "s4"],
        }
    )
    assert statistics.patients(rows).tolist() == ["d:1", "e:1", "d:c", "d:s4"]
