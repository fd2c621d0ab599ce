"""Figures as plain SVG text: no library, no network, readable in any browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

# Colours of Okabe and Ito, distinguishable by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
_BAR, _GAP, _HEIGHT, _TOP, _LEFT = 18, 28, 220, 16, 40


def bar_chart(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    """Bars of mean Dice with their intervals, grouped by prompt mode.

    Args:
        rows: lines of a long table (mode, model, dice, low, high), one set and view.
        models: order and colours of the labels.
    """
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    parts = [_axis_line(value) for value in range(0, 101, 20)]
    x = float(_LEFT + _GAP / 2)
    for mode in modes:
        first = x
        group = [r for m in models for r in rows if r["mode"] == mode and r["model"] == m]
        for row in group:
            parts.append(_bar(x, row, _colour(models, row["model"])))
            x += _BAR
        middle = (first + x) / 2
        parts.append(f'<text x="{middle:.1f}" y="{_TOP + _HEIGHT + 16}">{escape(mode)}</text>')
        x += _GAP
    width = max(x, 320.0)
    legend, rows_of_legend = _legend(models, rows, width)
    height = _TOP + _HEIGHT + 28 + 18 * rows_of_legend
    lines = f'<g class="grid">{_grid(width)}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" aria-label="Mean Dice in per cent" '
        f'font-family="sans-serif" font-size="11" text-anchor="middle">'
        f"{lines}{''.join(parts)}{legend}</svg>"
    )


def _y(percent: float) -> float:
    return _TOP + _HEIGHT * (1 - percent / 100)


def _grid(width: float) -> str:
    return "".join(
        f'<line x1="{_LEFT}" x2="{width:.0f}" y1="{_y(v):.1f}" y2="{_y(v):.1f}" stroke="#ddd"/>'
        for v in range(0, 101, 20)
    )


def _axis_line(value: int) -> str:
    return f'<text x="{_LEFT - 6}" y="{_y(value) + 4:.1f}" text-anchor="end">{value}</text>'


def _colour(models: Sequence[str], model: str) -> str:
    return _COLOURS[list(models).index(model) % len(_COLOURS)]


def _bar(x: float, row: Mapping[str, Any], colour: str) -> str:
    top = _y(100 * row["dice"])
    title = escape(f"{row['model']} {row['mode']}: {100 * row['dice']:.1f}")
    bar = (
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{_BAR - 3}" '
        f'height="{_TOP + _HEIGHT - top:.1f}" fill="{colour}"><title>{title}</title></rect>'
    )
    if row.get("low") is None or row.get("high") is None:
        return bar
    middle = x + (_BAR - 3) / 2
    return bar + (
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{_y(100 * row["low"]):.1f}" '
        f'y2="{_y(100 * row["high"]):.1f}" stroke="#222"/>'
    )


def _legend(
    models: Sequence[str], rows: Sequence[Mapping[str, Any]], width: float
) -> tuple[str, int]:
    """Coloured labels, as many rows of them as the width needs."""
    there = {row["model"] for row in rows}
    x, line, parts = float(_LEFT), 0, []
    for model in (m for m in models if m in there):
        need = 24 + 6.5 * len(model)
        if x + need > width and x > _LEFT:
            x, line = float(_LEFT), line + 1
        y = _TOP + _HEIGHT + 28 + 18 * line
        colour = _colour(models, model)
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="10" height="10" fill="{colour}"/>')
        label = escape(model)
        parts.append(f'<text x="{x + 14:.1f}" y="{y + 9}" text-anchor="start">{label}</text>')
        x += need
    return "".join(parts), line + 1
