"""Means with intervals that know about patients, and paired comparisons.

Masks of one patient resemble each other, so patients are drawn, not masks. Scores are skewed and
patients have unequal numbers of masks: a percentile bootstrap is then too narrow for few patients.
Each end is the farther of two: a studentised bootstrap (right for skewed scores) and Student's t
with the effective number of patients (right for rare large differences), both with the jackknife
standard error.
``benchmarks/coverage.py`` measures how often the intervals hold the truth; ``docs/statistics.md``
has the table that set ``MIN_CLUSTERS``, below which no interval is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from sammed_data.types import UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd

MIN_CLUSTERS = 15
DRAWS = 1000
# Where a probability is small, so that a correction for many comparisons has room.
_MORE_DRAWS = 4000
LEVEL = 0.95
# Numbers in memory at once while drawing.
_BLOCK = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval; None below MIN_CLUSTERS patients."""

    mean: float
    low: float | None
    high: float | None
    n_clusters: int
    n: int


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """Mean Dice of ``a`` minus that of ``b`` over the same masks and prompts.

    Attributes:
        mean_difference: over masks, a minus b.
        low, high: 95 % interval clustered on the patient; None below MIN_CLUSTERS patients.
        effect: mean over the standard deviation of the patients' mean differences.
        n_patients, n_masks: over how much.
        p: probability of such a difference between equal models; None below MIN_CLUSTERS.
    """

    a: str
    b: str
    mode: str
    mean_a: float
    mean_b: float
    mean_difference: float
    low: float | None
    high: float | None
    effect: float | None
    n_patients: int
    n_masks: int
    p: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and it does not hold 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def local_generator(*names: object) -> np.random.Generator:
    """A stream of its own, a function of names."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def cluster_interval(
    values: NDArray[np.float64],
    clusters: Sequence[Any] | NDArray[Any],
    *,
    key: str = "",
    draws: int = DRAWS,
    minimum: int = MIN_CLUSTERS,
) -> Interval:
    """Mean of ``values`` with an interval over clusters (method: top of this file).

    The interval stays within the range of the values.

    Args:
        values: one per mask.
        clusters: the patient of each.
        key: names what is drawn; part of the seed.
        draws: bootstrap samples.
        minimum: clusters below which no interval is given.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Interval(mean=float("nan"), low=None, high=None, n_clusters=0, n=0)
    inverse = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(inverse).astype(np.float64)
    mean = float(values.mean())
    n = len(sizes)
    if n < max(minimum, 2):
        return Interval(mean=mean, low=None, high=None, n_clusters=n, n=len(values))
    excess, error = _jackknife(values, inverse, sizes)
    tail = (1 - LEVEL) / 2
    wide = _student(sizes, 1 - tail)
    drawn = _studentised(excess, sizes, local_generator("cluster bootstrap", key), draws)
    drawn = drawn if len(drawn) else np.zeros(1)
    below, above = np.quantile(drawn, [tail, 1 - tail])
    return Interval(
        mean=mean,
        low=max(mean - max(float(above), wide) * error, float(values.min())),
        high=min(mean - min(float(below), -wide) * error, float(values.max())),
        n_clusters=n,
        n=len(values),
    )


def _jackknife(
    values: NDArray[np.float64], inverse: NDArray[np.intp], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """What each cluster adds to the mean, and the standard error of the mean."""
    n = len(sizes)
    excess = np.bincount(inverse, weights=values) - float(values.mean()) * sizes
    moves = excess / (len(values) - sizes)  # how far the mean moves without it
    return excess, float(np.sqrt((n - 1) / n * ((moves - moves.mean()) ** 2).sum()))


def standard_error(
    values: NDArray[np.float64], clusters: Sequence[Any] | NDArray[Any]
) -> float | None:
    """Jackknife standard error of the mean over clusters; None for a single one."""
    values = np.asarray(values, dtype=np.float64)
    inverse = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(inverse).astype(np.float64)
    return _jackknife(values, inverse, sizes)[1] if len(sizes) > 1 else None


def zero_probability(
    values: NDArray[np.float64],
    clusters: Sequence[Any] | NDArray[Any],
    *,
    key: str = "",
    minimum: int = MIN_CLUSTERS,
) -> float | None:
    """Two-sided probability of a mean at least as far from 0 if the true one is 0.

    The larger of those of the two methods of ``cluster_interval``: at 5 % it agrees with the 95 %
    interval. None under ``minimum`` clusters.

    Args:
        values: differences, one per mask.
        clusters: the patient of each.
        key: names what is drawn; part of the seed.
        minimum: clusters below which none is given.
    """
    values = np.asarray(values, dtype=np.float64)
    inverse = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(inverse).astype(np.float64)
    if len(sizes) < max(minimum, 2):
        return None
    excess, error = _jackknife(values, inverse, sizes)
    if not values.any():
        return 1.0
    away = abs(float(values.mean())) / error if error > 0 else float("inf")
    student = 2 * float(stdtr(_freedom(sizes), -away))
    sign = 1.0 if values.mean() > 0 else -1.0
    draws = DRAWS if student > 1 - LEVEL else _MORE_DRAWS
    drawn = _studentised(excess, sizes, local_generator("cluster bootstrap", key), draws)
    as_far = (1 + int((sign * drawn >= away).sum())) / (1 + len(drawn))
    return min(1.0, max(student, 2 * as_far))


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Probabilities corrected for their number by Holm's step-down rule; None stays None."""
    known = sorted((p, i) for i, p in enumerate(probabilities) if p is not None)
    found: list[float | None] = [None] * len(probabilities)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        found[i] = largest
    return found


def _freedom(sizes: NDArray[np.float64]) -> float:
    """Degrees of freedom; unequal clusters count as fewer equal ones.

    Half way between the effective number for the mean and that for its variance (Satterthwaite),
    less one: by the first alone studies of few uneven clusters erred too often after Holm's rule,
    by the second alone intervals are too wide (``docs/statistics.md``). Equal clusters: n - 1.
    """
    squares = sizes**2
    of_mean = sizes.sum() ** 2 / squares.sum()
    of_variance = squares.sum() ** 2 / (squares**2).sum()
    # One huge cluster beside small ones leaves less than one.
    return max(float(of_mean + of_variance) / 2 - 1, 1.0)


def _student(sizes: NDArray[np.float64], level: float) -> float:
    """Quantile of Student's t."""
    return float(stdtrit(_freedom(sizes), level))


def _studentised(
    excess: NDArray[np.float64],
    sizes: NDArray[np.float64],
    generator: np.random.Generator,
    draws: int,
) -> NDArray[np.float64]:
    """(drawn mean - mean) / its linearised standard error, of draws that have a spread."""
    n = len(sizes)
    moments = np.stack([excess, sizes, excess**2, excess * sizes, sizes**2], axis=1)
    step = max(1, _BLOCK // n)
    found = []
    for first in range(0, draws, step):
        many = min(step, draws - first)
        index = generator.integers(0, n, size=(many, n)) + n * np.arange(many)[:, None]
        counts = np.bincount(index.ravel(), minlength=many * n).reshape(many, n)
        e, m, ee, em, mm = (counts.astype(np.float64) @ moments).T
        apart = e / m
        squares = ee - 2 * apart * em + apart**2 * mm
        # Rounding leaves a little where a draw holds equal clusters only.
        spread = squares > 1e-12 * moments[:, 2].sum()
        error = np.sqrt(squares[spread] * n / (n - 1)) / m[spread]
        found.append(apart[spread] / error)
    return np.concatenate(found)


def paired_interval(
    scores_a: NDArray[np.float64],
    scores_b: NDArray[np.float64],
    clusters: Sequence[Any] | NDArray[Any],
    *,
    key: str = "",
) -> Interval:
    """Interval of the mean of ``scores_a - scores_b``, aligned mask by mask."""
    difference = np.asarray(scores_a, np.float64) - np.asarray(scores_b, np.float64)
    return cluster_interval(difference, clusters, key="paired " + key)


def effect_size(difference: NDArray[np.float64], clusters: NDArray[Any]) -> float | None:
    """Mean over standard deviation of the clusters' mean differences; None if undefined."""
    inverse = np.unique(clusters, return_inverse=True)[1]
    means = np.bincount(inverse, weights=difference) / np.bincount(inverse)
    spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return float(means.mean()) / spread if spread > 0 else None


def paired(rows_a: pd.DataFrame, rows_b: pd.DataFrame) -> PairedResult:
    """Compare two models' score rows of one mode on the masks that both were asked about.

    Raises:
        UsageError: they share no scored mask, or hold several models or modes.
    """
    sides = []
    for rows in (rows_a, rows_b):
        scored = rows[rows["status"] != "unsupported"]
        if scored[["model", "mode"]].drop_duplicates().shape[0] > 1:
            raise UsageError(
                "a paired comparison takes rows of one model and one mode on each side, found "
                "several: select them first"
            )
        sides.append(scored)
    a, b = sides
    keys = ["sample_id", "mask_index"]
    both = a.merge(b[[*keys, "dice", "model"]], on=keys, suffixes=("_a", "_b"))
    if both.empty:
        raise UsageError(
            "a paired comparison needs masks that both models were scored on, found none: "
            "benchmark them on the same corpus and split"
        )
    name_a, name_b = str(both["model_a"].iloc[0]), str(both["model_b"].iloc[0])
    mode = str(both["mode"].iloc[0])
    clusters = np.asarray(patients(both))
    dice_a, dice_b = both["dice_a"].to_numpy(float), both["dice_b"].to_numpy(float)
    found = paired_interval(dice_a, dice_b, clusters, key=mode)
    return PairedResult(
        a=name_a,
        b=name_b,
        mode=mode,
        mean_a=float(dice_a.mean()),
        mean_b=float(dice_b.mean()),
        mean_difference=found.mean,
        low=found.low,
        high=found.high,
        effect=effect_size(dice_a - dice_b, clusters),
        n_patients=found.n_clusters,
        n_masks=found.n,
        p=zero_probability(dice_a - dice_b, clusters, key="paired " + mode),
    )


def compare_models(rows: pd.DataFrame, a: str, b: str, mode: str) -> PairedResult:
    """``paired`` of two models of a results table in one prompt mode.

    Args:
        rows: score rows (``scores.read_scores``).
        a: label of the model that is judged.
        b: label of what it is judged against.
        mode: prompt mode.

    Raises:
        UsageError: an unknown label or mode.
    """
    for column, name in (("model", a), ("model", b), ("mode", mode)):
        known = sorted(rows[column].unique())
        if name not in known:
            raise UsageError(f"no score rows of {column} {name!r}: {nearest(name, known)}")
    chosen = rows[rows["mode"] == mode]
    return paired(chosen[chosen["model"] == a], chosen[chosen["model"] == b])


def patients(rows: pd.DataFrame) -> pd.Series:
    """The cluster of each row: dataset and patient; case, then image, where there is no patient."""
    unit = rows["patient_id"].where(rows["patient_id"] != "", rows["case_id"])
    unit = unit.where(unit != "", rows["sample_id"])
    return rows["dataset"].astype(str) + ":" + unit.astype(str)
