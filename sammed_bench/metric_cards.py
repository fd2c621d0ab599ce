"""What can be measured: names, directions, units. How: ``metrics`` and ``surface``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sammed_data.types import UsageError, nearest

# In every row; the others are computed when asked for.
ALWAYS = ("dice", "iou")
# IoU in per cent that clicks are counted to.
TARGETS = (80, 85, 90)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a reader must know of a metric.

    Attributes:
        title: short name.
        better: ``up`` or ``down``.
        length: whether it is a length in the unit of the row (else a share of 1).
    """

    title: str
    better: str = "up"
    length: bool = False

    @property
    def heading(self) -> str:
        """Title, per cent where it is a share, and the direction of what is better."""
        arrow = "\u2191" if self.better == "up" else "\u2193"
        return f"{self.title} {arrow}" if self.length else f"{self.title} % {arrow}"


METRICS = {
    "dice": Metric(title="Dice"),
    "iou": Metric(title="IoU"),
    "nsd": Metric(title="NSD"),
    "hd95": Metric(title="HD95", better="down", length=True),
    "boundary_iou": Metric(title="boundary IoU"),
}


def parse_metrics(text: str) -> tuple[str, ...]:
    """``'dice,nsd'`` -> metrics in the order of METRICS, those in every row included.

    Raises:
        UsageError: a metric that does not exist.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in asked if name not in METRICS]
    if unknown:
        found = ", ".join(f"{name!r} ({nearest(name, METRICS)})" for name in unknown)
        raise UsageError(
            f"expected metrics out of {', '.join(METRICS)}, found {found}: "
            "write for example --metrics dice,iou,nsd,hd95"
        )
    return in_order(asked)


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Metrics in the order of METRICS, those in every row included."""
    return tuple(name for name in METRICS if name in names or name in ALWAYS)
