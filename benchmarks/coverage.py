"""How often the benchmark's intervals hold the truth, and the paired comparison errs.

Populations of patients are made up, many studies drawn from each, and the interval of every study
compared with the mean of the population. Prints the Markdown tables of ``docs/statistics.md``.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --trials 1500
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sammed_bench.statistics import cluster_interval, holm, local_generator, zero_probability

Values: TypeAlias = NDArray[np.float64]
Study: TypeAlias = tuple[Values, NDArray[np.intp]]
CLUSTERS = (10, 15, 20, 30, 50, 100)
# How one patient's masks score: (generator, masks of each patient) -> one value per mask.
Scores: TypeAlias = Callable[[np.random.Generator, Values, NDArray[np.intp]], Values]


def normal(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """Patients around 0.7 +- 0.1, masks around their patient."""
    return 0.7 + 0.1 * _normal(own)[who] + rng.normal(0, 0.05, len(who))


def skewed(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """Patients pile up below 1 with a long tail to the left (skewness -1.2), as Dice does."""
    return _beta(own, 5, 1.2)[who] + rng.normal(0, 0.03, len(who))


def failures(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """One mask in ten fails near 0, in some patients far more often than in others."""
    failed = rng.random(len(who)) < _beta(own, 0.5, 4.5)[who]
    return np.where(failed, rng.beta(1, 8, len(who)), rng.beta(18, 2.5, len(who)))


def lost(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """One patient in ten fails with all masks (stress test, not used to set the minimum)."""
    level = np.where(own < 0.1, 0.1, 0.88)
    return level[who] + rng.normal(0, 0.05, len(who))


def similar(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """Two models that differ by normal noise of patients and masks, 0 on average."""
    return 0.02 * _normal(own)[who] + rng.normal(0, 0.05, len(who))


def swaps(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """One mask in ten is lost by one of two equal models, either as often."""
    sign = np.where(rng.random(len(who)) < own[who], 1.0, -1.0)
    return sign * (rng.random(len(who)) < 0.1) * rng.beta(4, 2, len(who)) + rng.normal(
        0, 0.02, len(who)
    )


def trade(rng: np.random.Generator, own: Values, who: NDArray[np.intp]) -> Values:
    """One model is a little better on most patients, much worse on some, 0 on average."""
    skew = 0.3 * (_beta(own, 1, 4) - 0.2)
    return skew[who] + rng.normal(0, 0.03, len(who))


def _normal(own: Values) -> Values:
    from scipy.special import ndtri

    found: Values = ndtri(own)
    return found


def _beta(own: Values, a: float, b: float) -> Values:
    from scipy.special import betaincinv

    found: Values = betaincinv(a, b, own)
    return found


def equal(rng: np.random.Generator, own: Values) -> NDArray[np.intp]:
    """Four masks each."""
    return np.full(len(own), 4)


def uneven(rng: np.random.Generator, own: Values) -> NDArray[np.intp]:
    """Log-normal: median 4, one in ten 12 and more."""
    return np.maximum(1, np.rint(rng.lognormal(1.5, 0.8, len(own)))).astype(np.intp)


def telling(rng: np.random.Generator, own: Values) -> NDArray[np.intp]:
    """Uneven, and patients of low scores have fewer masks."""
    many = rng.lognormal(1.5, 0.8, len(own)) * np.where(own < 0.3, 0.5, 1.3)
    return np.maximum(1, np.rint(many)).astype(np.intp)


SIZES = (equal, uneven, telling)
TRUTHS: tuple[Scores, ...] = (normal, skewed, failures, lost)
NULLS: tuple[Scores, ...] = (similar, swaps, trade)


def study(rng: np.random.Generator, scores: Scores, sizes: Callable, n: int) -> Study:
    """The scores of n patients and whose they are."""
    own = np.clip(rng.random(n), 1e-9, 1 - 1e-9)
    who = np.repeat(np.arange(n), sizes(rng, own))
    return scores(rng, own, who), who


def percentile(values: Values, who: NDArray[np.intp], rng: np.random.Generator) -> tuple:
    """The plain percentile interval, for comparison."""
    sums, sizes = np.bincount(who, weights=values), np.bincount(who)
    drawn = rng.integers(0, len(sizes), size=(1000, len(sizes)))
    return tuple(np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5]))


def coverage(scores: Scores, sizes: Callable, n: int, trials: int, truth: float) -> tuple:
    """Shares of studies whose interval holds the truth: ours, percentile."""
    rng = local_generator("coverage", scores.__name__, sizes.__name__, n)
    ours = plain = 0
    for trial in range(trials):
        values, who = study(rng, scores, sizes, n)
        found = cluster_interval(values, who, key=str(trial), minimum=2)
        ours += found.low <= truth <= found.high
        low, high = percentile(values, who, rng)
        plain += low <= truth <= high
    return ours / trials, plain / trials


def truth_of(scores: Scores, sizes: Callable) -> float:
    """The mean over the masks of very many patients."""
    values, _ = study(
        local_generator("truth", scores.__name__, sizes.__name__), scores, sizes, 10**6
    )
    return float(values.mean())


def table(kinds: tuple[Scores, ...], *, null: bool, trials: int) -> None:
    """One line for each population and kind of sizes, one column for each number of patients."""
    print("| scores | masks per patient | " + " | ".join(f"{n}" for n in CLUSTERS) + " |")
    print("|---|---|" + "---:|" * len(CLUSTERS))
    for scores in kinds:
        for sizes in SIZES:
            if null and sizes is telling:
                continue
            truth = 0.0 if null else truth_of(scores, sizes)
            cells = []
            for n in CLUSTERS:
                ours, plain = coverage(scores, sizes, n, trials, truth)
                if null:
                    ours, plain = 1 - ours, 1 - plain
                cells.append(f"{100 * ours:.1f} ({100 * plain:.1f})")
            print(f"| {scores.__name__} | {sizes.__name__} | {' | '.join(cells)} |", flush=True)


def family(scores: Scores, sizes: Callable, n: int, trials: int, models: int = 5) -> tuple:
    """Shares of studies of five null comparisons on the same patients with a false positive.

    Returns:
        single comparisons at p <= 0.05; whole studies, uncorrected; whole studies, after Holm.
    """
    rng = local_generator("family", scores.__name__, sizes.__name__, n)
    single = plain = corrected = 0
    for trial in range(trials):
        own = np.clip(rng.random((models, n)), 1e-9, 1 - 1e-9)
        who = np.repeat(np.arange(n), sizes(rng, own[0]))
        found = [
            zero_probability(scores(rng, o, who), who, key=f"{trial} {i}", minimum=2)
            for i, o in enumerate(own)
        ]
        single += sum(p <= 0.05 for p in found)
        plain += min(found) <= 0.05
        corrected += min(holm(found)) <= 0.05
    return single / trials / models, plain / trials, corrected / trials


def family_table(trials: int) -> None:
    """One line for each null and kind of sizes."""
    columns = (15, 30, 100)
    print("| scores | masks per patient | " + " | ".join(f"{n}" for n in columns) + " |")
    print("|---|---|" + "---:|" * len(columns))
    for scores in NULLS:
        for sizes in (equal, uneven):
            cells = [
                " / ".join(f"{100 * share:.1f}" for share in family(scores, sizes, n, trials))
                for n in columns
            ]
            print(f"| {scores.__name__} | {sizes.__name__} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--only-holm", action="store_true", help="the table of Holm's rule alone")
    options = parser.parse_args()
    trials = options.trials
    began = time.perf_counter()
    if not options.only_holm:
        print("Coverage of the 95 % interval, per cent; in brackets the percentile bootstrap.\n")
        table(TRUTHS, null=False, trials=trials)
        print("\nFalse positives of the paired comparison, per cent; in brackets the percentile.\n")
        table(NULLS, null=True, trials=trials)
    print("\nFive null comparisons a study, per cent of false positives: a comparison / a study /")
    print("a study after Holm.\n")
    family_table(trials)
    print(f"\n{trials} studies a cell, {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
