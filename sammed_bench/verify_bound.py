"""How much a sample of rows, run again, says about all of them: exact, without replacement."""

from __future__ import annotations

from collections.abc import Callable

LEVEL = 0.95


def upper_bound(differing: int, sample: int, rows: int, level: float = LEVEL) -> float:
    """The largest share of misreported rows that a sample does not speak against.

    With that share or more, so few differing rows are drawn in at most ``1 - level`` of all samples
    (hypergeometric; about 3 / sample where none differs).
    """
    if not sample:
        return 1.0
    most = rows - (sample - differing)

    def believable(misreported: int) -> bool:
        return _at_most(differing, sample, misreported, rows) > 1 - level

    return _last(believable, differing, most) / rows


def caught(share: float, sample: int, rows: int, allowed: int) -> float:
    """The probability that more than ``allowed`` altered rows are drawn."""
    return 1 - _at_most(allowed, sample, round(share * rows), rows)


def _at_most(found: int, sample: int, marked: int, rows: int) -> float:
    """P(at most ``found`` of ``marked`` among ``rows`` are in a sample)."""
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(found, rows, marked, sample))


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last number from ``low`` to ``high`` for which it holds; it holds for ``low``."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
