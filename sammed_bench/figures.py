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


def bar_chart(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    """Bars of mean Dice with their intervals, grouped by prompt mode.

    Args:
        rows: lines of a long table (mode, model, recipe, dice, low, high), one set and view.
        models: order of the labels.
    """
    paint = _paint(rows, models)
    parts = [_axis_line(value) for value in range(0, 101, 20)]
    x = float(_LEFT + _GAP / 2)
    for mode in dict.fromkeys(row["mode"] for row in rows):
        first = x
        group = [r for m in models for r in rows if r["mode"] == mode and r["model"] == m]
        for row in group:
            parts.append(_bar(x, row, paint[row["model"]]))
            x += _BAR
        middle = (first + x) / 2
        parts.append(f'<text x="{middle:.1f}" y="{_TOP + _HEIGHT + 18}">{escape(mode)}</text>')
        x += _GAP
    return _framed(parts, paint, x, ("prompt mode", "mean Dice (%)"))


def line_chart(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    """Mean IoU over the number of clicks, a line per model.

    Args:
        rows: of the table ``click-curve`` (model, recipe, clicks, iou), one set and view.
        models: order of the labels.
    """
    paint = _paint(rows, models)
    parts = [_axis_line(value) for value in range(0, 101, 20)]
    most = max(row["clicks"] for row in rows)
    step = 560 / max(most - 1, 1)
    for number in range(1, most + 1):
        if number == 1 or number % (1 + most // 20) == 0:
            x = _LEFT + 20 + step * (number - 1)
            parts.append(f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 18}">{number}</text>')
    for model, fill in paint.items():
        own = sorted((row["clicks"], row["iou"]) for row in rows if row["model"] == model)
        points = [(_LEFT + 20 + step * (n - 1), _y(100 * iou)) for n, iou in own]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = fill.replace("fill", "stroke")
        parts.append(f'<polyline points="{line}" fill="none" {stroke} stroke-width="2"/>')
        for (x, y), (number, iou) in zip(points, own, strict=True):
            title = escape(f"{model}, {number} clicks: {100 * iou:.1f}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" {fill}><title>{title}</title></circle>'
            )
    return _framed(parts, paint, _LEFT + 600, ("clicks", "mean IoU (%)"))


def _framed(
    parts: Sequence[str], paint: Mapping[str, str], right: float, axes: tuple[str, str]
) -> str:
    """Grid, labels of both axes and legend around what is drawn."""
    width = max(right, 640.0)
    legend, rows_of_legend = _legend(paint, width)
    height = _TOP + _HEIGHT + 52 + 20 * rows_of_legend
    middle = _TOP + _HEIGHT / 2
    below, beside = axes
    labels = (
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)">{beside}</text>'
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_TOP + _HEIGHT + 36}">{below}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" aria-label="{beside}" '
        f'font-family="sans-serif" font-size="12" fill="#222" text-anchor="middle">'
        f"{_grid(width)}{''.join(parts)}{labels}{legend}</svg>"
    )


def _paint(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> dict[str, str]:
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


def _is_control(model: str, shown: Sequence[str]) -> bool:
    return model.endswith(CONTROL_SUFFIX) and model.removesuffix(CONTROL_SUFFIX) in shown


def _y(percent: float) -> float:
    return _TOP + _HEIGHT * (1 - percent / 100)


def _grid(width: float) -> str:
    return "".join(
        f'<line x1="{_LEFT}" x2="{width:.0f}" y1="{_y(v):.1f}" y2="{_y(v):.1f}" stroke="#ddd"/>'
        for v in range(0, 101, 20)
    )


def _axis_line(value: int) -> str:
    return f'<text x="{_LEFT - 6}" y="{_y(value) + 4:.1f}" text-anchor="end">{value}</text>'


def _bar(x: float, row: Mapping[str, Any], paint: str) -> str:
    """A bar, its value and its interval."""
    percent = 100 * row["dice"]
    middle, title = x + (_BAR - 4) / 2, escape(f"{row['model']} {row['mode']}: {percent:.1f}")
    bar = (
        f'<rect x="{x:.1f}" y="{_y(percent):.1f}" width="{_BAR - 4}" '
        f'height="{_TOP + _HEIGHT - _y(percent):.1f}" {paint}>'
        f"<title>{title}</title></rect>"
    )
    top = percent
    if row.get("low") is not None and row.get("high") is not None:
        top = 100 * row["high"]
        bar += (
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{_y(100 * row["low"]):.1f}" '
            f'y2="{_y(top):.1f}" stroke="#222" stroke-width="1.5"/>'
        )
    return bar + f'<text x="{middle:.1f}" y="{_y(top) - 4:.1f}" font-size="11">{percent:.0f}</text>'


def _legend(paint: Mapping[str, str], width: float) -> tuple[str, int]:
    """Coloured labels, as many rows of them as the width needs."""
    x, line, parts = float(_LEFT), 0, []
    for model, fill in paint.items():
        need = 32 + 7 * len(model)
        if x + need > width and x > _LEFT:
            x, line = float(_LEFT), line + 1
        y = _TOP + _HEIGHT + 50 + 20 * line
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="12" height="12" {fill}/>')
        label = escape(model)
        parts.append(f'<text x="{x + 17:.1f}" y="{y + 11}" text-anchor="start">{label}</text>')
        x += need
    return "".join(parts), line + 1
