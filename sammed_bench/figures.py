"""Figures as plain SVG text: no library, no network, readable in any browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sammed_bench.tables import CONTROL_SUFFIX, TRIVIAL

# Colours of Okabe and Ito, distinguishable by colour-blind readers; greys are for baselines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_GREYS = ("#767676", "#a6a6a6", "#cfcfcf")
CASE_COLOURS = {"truth": "#F0E442", "prediction": "#56B4E9", "prompt": "#D55E00"}
_BAR, _GAP, _HEIGHT, _TOP, _LEFT = 32, 36, 260, 16, 56
# Lines and points: where the first and the last one are, px.
FIRST, LAST = _LEFT + 24.0, _LEFT + 600.0
BASE = _TOP + _HEIGHT


def bar_chart(
    rows: Sequence[Mapping[str, Any]], models: Sequence[str], by: str = "mode", *, wide: int = _BAR
) -> str:
    """Bars of mean Dice with their intervals, grouped by a column.

    Args:
        rows: lines of a long table (by, model, recipe, dice, low, high), one set and view.
        models: order of the labels.
        by: column that groups, in the order of the rows.
        wide: px from bar to bar.
    """
    paint = painted(rows, models)
    parts = axis()
    x = float(_LEFT + _GAP / 2)
    for name in dict.fromkeys(row[by] for row in rows):
        first = x
        group = [r for m in models for r in rows if r[by] == name and r["model"] == m]
        for row in group:
            parts.append(_bar(x, row, paint[row["model"]], by, wide))
            x += wide
        # A name wider than its bars has room of its own.
        x = max(x, first + 7 * len(str(name)) - _GAP)
        middle = (first + x) / 2
        parts.append(f'<text x="{middle:.1f}" y="{_TOP + _HEIGHT + 18}">{escape(str(name))}</text>')
        x += _GAP
    below = "prompt mode" if by == "mode" else by
    return framed(parts, paint, x, (below, "mean Dice (%)"))


def framed(
    parts: Sequence[str],
    paint: Mapping[str, str],
    right: float,
    axes: tuple[str, str],
    *,
    marked: bool = False,
) -> str:
    """Grid of 0 to 100 %, labels of both axes and legend around what is drawn.

    Args:
        parts: SVG of the data.
        paint: of ``painted``.
        right: where the data end, px.
        axes: names below and beside.
        marked: the legend shows the models' markers.
    """
    width = max(right, 640.0)
    legend, rows_of_legend = legend_of(paint, width, _TOP + _HEIGHT + 50, marked=marked)
    height = _TOP + _HEIGHT + 52 + 20 * rows_of_legend
    middle = _TOP + _HEIGHT / 2
    below, beside = axes
    labels = (
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)">{beside}</text>'
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_TOP + _HEIGHT + 36}">{below}</text>'
    )
    return svg(width, height, f"{beside} by {below}", [_grid(width), *parts, labels, legend])


def svg(width: float, height: float, about: str, parts: Sequence[str]) -> str:
    """A whole picture; ``about`` is what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(about)}" '
        f'font-family="sans-serif" font-size="12" fill="#222" text-anchor="middle">'
        f"{''.join(parts)}</svg>"
    )


def width_of(picture: str) -> float:
    """The width that a picture of this module states, px."""
    return float(picture.partition(' width="')[2].partition('"')[0])


def painted(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> dict[str, str]:
    """Fill of each model: trivial baselines grey, a control the colour of its model but pale."""
    trivial = {row["model"] for row in rows if row["recipe"] == TRIVIAL}
    there = {row["model"] for row in rows}
    shown = [m for m in models if m in there]
    own = [m for m in shown if m not in trivial and not _is_control(m, shown)]
    greys = [m for m in shown if m in trivial]
    paint = {m: f'fill="{_COLOURS[i % len(_COLOURS)]}"' for i, m in enumerate(own)}
    paint |= {m: f'fill="{_GREYS[i % len(_GREYS)]}"' for i, m in enumerate(greys)}
    for model in shown:
        if model not in paint:
            paint[model] = paint[model.removesuffix(CONTROL_SUFFIX)] + ' fill-opacity="0.4"'
    return {model: paint[model] for model in shown}


def marker(number: int, x: float, y: float, paint: str, title: str = "") -> str:
    """The sign of the model with this number: a shape for those who do not see the colour."""
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"',
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z"',
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"',
        f'<path d="M{x:.1f} {y + 5:.1f}l5 -9h-10z"',
    )
    shape = f'{shapes[number % len(shapes)]} {paint} stroke="#222" stroke-width="0.7"'
    if not title:
        return f"{shape}/>"
    return f"{shape}><title>{escape(title)}</title></{shape[1:].partition(' ')[0]}>"


def _is_control(model: str, shown: Sequence[str]) -> bool:
    return model.endswith(CONTROL_SUFFIX) and model.removesuffix(CONTROL_SUFFIX) in shown


def y_of(percent: float) -> float:
    """Where a percentage is, px from the top."""
    return _TOP + _HEIGHT * (1 - percent / 100)


def _grid(width: float) -> str:
    return "".join(
        f'<line x1="{_LEFT}" x2="{width:.0f}" y1="{y_of(v):.1f}" y2="{y_of(v):.1f}" stroke="#ddd"/>'
        for v in range(0, 101, 20)
    )


def axis() -> list[str]:
    """The numbers beside the vertical axis."""
    return [_axis_number(value) for value in range(0, 101, 20)]


def _axis_number(value: int) -> str:
    return f'<text x="{_LEFT - 6}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value}</text>'


def _bar(x: float, row: Mapping[str, Any], paint: str, by: str, wide: int) -> str:
    """A bar, its value and its interval."""
    percent = 100 * row["dice"]
    side = wide - max(2, wide // 8)
    middle, title = x + side / 2, escape(f"{row['model']}, {row[by]}: {percent:.1f}")
    bar = (
        f'<rect x="{x:.1f}" y="{y_of(percent):.1f}" width="{side}" '
        f'height="{_TOP + _HEIGHT - y_of(percent):.1f}" {paint}>'
        f"<title>{title}</title></rect>"
    )
    top = percent
    if row.get("low") is not None and row.get("high") is not None:
        top = 100 * row["high"]
        bar += (
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{y_of(100 * row["low"]):.1f}" '
            f'y2="{y_of(top):.1f}" stroke="#222" stroke-width="1.5"/>'
        )
    if wide < 17:  # no room for a number; pointing at the bar shows it
        return bar
    size = 11 if wide >= 26 else 9
    return bar + (
        f'<text x="{middle:.1f}" y="{y_of(top) - 4:.1f}" font-size="{size}">{percent:.0f}</text>'
    )


def legend_of(
    paint: Mapping[str, str], width: float, top: float, *, marked: bool = False
) -> tuple[str, int]:
    """Coloured labels, as many rows of them as the width needs, and how many those are."""
    x, line, parts = float(_LEFT), 0, []
    for number, (model, fill) in enumerate(paint.items()):
        need = 32 + 7 * len(model)
        if x + need > width and x > _LEFT:
            x, line = float(_LEFT), line + 1
        y = top + 20 * line
        if marked:
            parts.append(marker(number, x + 6, y + 6, fill))
        else:
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="12" height="12" {fill}/>')
        label = escape(model)
        parts.append(f'<text x="{x + 17:.1f}" y="{y + 11}" text-anchor="start">{label}</text>')
        x += need
    return "".join(parts), line + 1
