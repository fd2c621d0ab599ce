"""Curves, scatters and rows of dots as plain SVG text, in the colours of ``figures``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from sammed_bench import figures
from sammed_bench.figures import BASE, FIRST, LAST

_ROW, _LABEL_PX, _PLOT = 24, 7.2, 560.0


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval, in per cent or points."""

    model: str
    value: float
    low: float | None = None
    high: float | None = None


def curve_chart(
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    *,
    x: str,
    y: str,
    axes: tuple[str, str],
) -> str:
    """A line per model over a column: equal steps for names and for whole numbers.

    Args:
        rows: lines of a long table (model, recipe, x, y, perhaps low and high), one set and view.
        models: order of the labels.
        x: column of names (equal steps, in the order of the rows) or of numbers (true distances).
        y: column of shares of 1.
        axes: names below and beside.
    """
    paint = figures.painted(rows, models)
    places = _places(list(dict.fromkeys(row[x] for row in rows)))
    parts = figures.axis() + _ticks(places)
    named = not all(isinstance(value, int | float) for value in places)
    for number, (model, fill) in enumerate(paint.items()):
        own = [row for row in rows if row["model"] == model and row[y] is not None]
        own.sort(key=lambda row: places[row[x]])
        # Beside each other over a name, so that equal values can be told apart.
        aside = 6.0 * (number - (len(paint) - 1) / 2) if named else 0.0
        points = [(places[row[x]] + aside, figures.y_of(100 * row[y])) for row in own]
        stroke = fill.replace("fill", "stroke")
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" {stroke} stroke-width="2"/>')
        for (a, b), row in zip(points, own, strict=True):
            title = f"{model}, {row[x]}: {100 * row[y]:.1f}"
            parts.append(_whisker(a, row.get("low"), row.get("high"), stroke))
            parts.append(figures.marker(number, a, b, fill, title))
    return figures.framed(parts, paint, LAST + 24, axes, marked=True)


def _places(values: Sequence[Any]) -> dict[Any, float]:
    """Where each value is, px from the left."""
    if all(isinstance(value, int | float) for value in values):
        low, high = min(values), max(values)
        wide = (high - low) or 1
        return {v: FIRST + (LAST - FIRST) * (v - low) / wide for v in values}
    step = (LAST - FIRST) / max(len(values), 1)
    return {v: FIRST + step * (i + 0.5) for i, v in enumerate(values)}


def _ticks(places: Mapping[Any, float]) -> list[str]:
    """Values below the axis, as many as have room."""
    parts, free = [], -math.inf
    for value, place in sorted(places.items(), key=lambda pair: pair[1]):
        half = 3.6 * len(str(value)) + 4
        if place - half >= free:
            text = escape(f"{value:g}" if isinstance(value, float) else str(value))
            parts.append(f'<text x="{place:.1f}" y="{BASE + 18}">{text}</text>')
            free = place + half
    return parts


def _whisker(x: float, low: float | None, high: float | None, stroke: str) -> str:
    if low is None or high is None:
        return ""
    ends = f'y1="{figures.y_of(100 * low):.1f}" y2="{figures.y_of(100 * high):.1f}"'
    return f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} {stroke} stroke-width="1.2"/>'


def scatter_chart(
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    *,
    x: str,
    y: str,
    axes: tuple[str, str],
) -> str:
    """A point per model: a length on a logarithmic axis below, a share of 1 beside.

    Args:
        rows: with model, recipe, x above 0 and y.
        models: order of the labels.
        x: column below.
        y: column beside.
        axes: names below and beside.
    """
    paint = figures.painted(rows, models)
    values = [math.log10(row[x]) for row in rows]
    low, high = min(values) - 0.25, max(values) + 0.25

    def place(value: float) -> float:
        return FIRST + (LAST - FIRST) * (math.log10(value) - low) / (high - low)

    parts = figures.axis()
    for power in range(math.floor(low), math.ceil(high) + 1):
        for times in (1, 2, 5):
            tick = times * 10.0**power
            if 10.0**low <= tick <= 10.0**high:
                at = place(tick)
                parts.append(f'<text x="{at:.1f}" y="{BASE + 18}">{tick:g}</text>')
                parts.append(
                    f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{BASE}" y2="{BASE + 5}" stroke="#888"/>'
                )
    for row in rows:
        number = list(paint).index(row["model"])
        title = f"{row['model']}: {row[x]:.1f}, {100 * row[y]:.1f}"
        right, down = place(row[x]), figures.y_of(100 * row[y])
        parts.append(_whisker(right, row.get("low"), row.get("high"), 'stroke="#222"'))
        parts.append(figures.marker(number, right, down, paint[row["model"]], title))
    return figures.framed(parts, paint, LAST + 24, axes, marked=True)


def dot_chart(
    lines: Sequence[tuple[str, Sequence[Dot]]],
    paint: Mapping[str, str],
    *,
    below: str,
    joined: bool = False,
    whole: bool = False,
) -> str:
    """Rows of dots with their intervals along one axis, a label before each row.

    Args:
        lines: label and dots of each row, from top to bottom.
        paint: of ``figures.painted``.
        below: name of the axis.
        joined: a line from the first to the last dot of a row.
        whole: the axis is 0 to 100.
    """
    ends = [v for _, dots in lines for d in dots for v in (d.value, d.low, d.high) if v is not None]
    low, high = (0.0, 100.0) if whole else (min(0.0, *ends), max(0.0, *ends))
    step = _step(high - low)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    high = max(high, low + step)
    left = 24 + _LABEL_PX * max(len(label) for label, _ in lines)
    bottom = 12 + _ROW * len(lines)

    def place(value: float) -> float:
        return left + _PLOT * (value - low) / (high - low)

    parts = _vertical(low, high, step, place, bottom)
    names = list(paint)
    for row, (label, dots) in enumerate(lines):
        y = 12 + _ROW * (row + 0.5)
        parts.append(
            f'<text x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
        if joined and dots:
            a, b = (place(f(d.value for d in dots)) for f in (min, max))
            parts.append(f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}" stroke="#888"/>')
        for dot in dots:
            parts.append(_dot(dot, y, place, names, paint))
    legend, rows_of_legend = figures.legend_of(paint, left + _PLOT, bottom + 46, marked=True)
    parts.append(f'<text x="{left + _PLOT / 2:.1f}" y="{bottom + 34}">{escape(below)}</text>')
    height = bottom + 50 + 20 * rows_of_legend
    return figures.svg(left + _PLOT + 24, height, below, [*parts, legend])


def _dot(
    dot: Dot,
    y: float,
    place: Callable[[float], float],
    names: Sequence[str],
    paint: Mapping[str, str],
) -> str:
    interval = ""
    if dot.low is not None and dot.high is not None:
        fill = paint[dot.model].replace("fill", "stroke")
        a, b = place(dot.low), place(dot.high)
        interval = f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}" {fill} stroke-width="2"/>'
    title = f"{dot.model}: {dot.value:+.1f}" if dot.low is not None else f"{dot.value:.1f}"
    at = (place(dot.value), y)
    return interval + figures.marker(names.index(dot.model), *at, paint[dot.model], title)


def _step(span: float) -> float:
    """A round distance that gives five to ten lines."""
    raw = max(span, 1e-9) / 8
    power = 10.0 ** math.floor(math.log10(raw))
    return next(t * power for t in (1, 2, 5, 10) if t * power >= raw)


def _vertical(
    low: float, high: float, step: float, place: Callable[[float], float], bottom: float
) -> list[str]:
    """Grid lines with their numbers; zero stronger."""
    parts = []
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        x, strong = place(value), abs(value) < step / 100
        look = 'stroke="#555"' if strong else 'stroke="#ddd"'
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom + 4}" {look}/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}">{value + 0.0:g}</text>')
    return parts
