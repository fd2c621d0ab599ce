"""Long tables -> the figures of a report, a set each: title, SVG, note and file name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sammed_bench import plots
from sammed_bench.figures import bar_chart, painted
from sammed_bench.plots import Dot
from sammed_bench.tables import CONTROL_SUFFIX, TRIVIAL, Table

Chart = dict[str, str]
SETS = {"held_out": "held-out datasets", "train": "TRAINING IMAGES"}
_OVER_TRIVIAL = "over the best trivial baseline"
# Modes that the paper's Figure 5 is drawn for, of those that were asked.
_PAPER_MODES = ("bbox", "1pt")
_TRAINED = ("ft-sam", "sam-med2d")


def set_title(name: str) -> str:
    """A set for people."""
    return SETS.get(name, name)


def _by_set(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Lines of each set, held-out ones last."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: str(row["set"]) == "held_out"):
        found.setdefault(str(row["set"]), []).append(dict(row))
    yield from found.items()


def size_charts(table: Table, models: Sequence[str]) -> tuple[Chart, ...]:
    """Mean Dice over object size, a figure per set and mode.

    Args:
        table: the long table ``size``.
        models: order of the labels.
    """
    found = []
    for set_name, rows in _by_set([r for r in table.rows if r["view"] == "all"]):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            own = [r for r in rows if r["mode"] == mode and r["dice"] is not None]
            sizes = dict.fromkeys(row["size"] for row in rows)
            if own and len(sizes) > 1:
                own.sort(key=lambda row: list(sizes).index(row["size"]))
                svg = plots.curve_chart(
                    own, models, x="size", y="dice", axes=("share of the image", "mean Dice (%)")
                )
                counts = {row["size"]: row["masks"] for row in own}
                said = ", ".join(f"{size}: {n:,}" for size, n in counts.items())
                found.append(
                    {
                        "name": f"size-{set_name}-{_plain(mode)}",
                        "title": f"Dice over object size, {set_title(set_name)}, {mode}",
                        "svg": svg,
                        "note": f"View all, mean over masks; upright lines: 95 % intervals. "
                        f"Masks: {said}.",
                    }
                )
    return tuple(found)


def gain_charts(comparisons: Table, models: Sequence[str]) -> tuple[Chart, ...]:
    """What each model gains over the best baseline that never looks at the image.

    Args:
        comparisons: the table of that name.
        models: order of the labels.
    """
    found = []
    for set_name, rows in _by_set([r for r in comparisons.rows if r["what"] == _OVER_TRIVIAL]):
        paint = painted([row | {"recipe": ""} for row in rows], models)
        lines = []
        for mode in dict.fromkeys(row["mode"] for row in rows):
            for model in paint:
                own = next((r for r in rows if (r["mode"], r["model"]) == (mode, model)), None)
                if own is not None:
                    ends = [None if own[e] is None else 100 * own[e] for e in ("low", "high")]
                    dot = Dot(model=model, value=100 * own["difference"], low=ends[0], high=ends[1])
                    lines.append((f"{mode}, {model}", (dot,)))
        against = sorted({f"{row['mode']} {row['against']}" for row in rows})
        found.append(
            {
                "name": f"gain-{set_name}",
                "title": f"Gain over the best trivial baseline, {set_title(set_name)}",
                "svg": plots.dot_chart(
                    lines, paint, below="difference of mean Dice, in points of per cent"
                ),
                "note": "Paired on the same masks and prompts; lines: 95 % intervals clustered on "
                f"the patient. Against: {', '.join(against)}. At or left of 0 the prompt alone "
                "explains the score.",
            }
        )
    return tuple(found)


def speed_charts(speed: Table, overall: Table, models: Sequence[str]) -> tuple[Chart, ...]:
    """Accuracy against latency: a point per model.

    Args:
        speed: the table of that name.
        overall: its intervals.
        models: order of the labels.
    """
    ends = {(r["set"], r["mode"], r["model"]): r for r in overall.rows if r["view"] == "all"}
    found = []
    for set_name, rows in _by_set(speed.rows):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            own = []
            for row in rows:
                line = ends.get((row["set"], mode, row["model"]), {})
                if line.get("recipe") == "oracle":  # shown the truth: its speed says nothing
                    continue
                if row["mode"] == mode and row["dice"] is not None and line:
                    # A rule may be quicker than the clock.
                    spent = max(row["image_ms_p50"] + row["prompt_ms_p50"], 1e-3)
                    own.append(
                        {c: line[c] for c in ("low", "high", "recipe")} | row | {"ms": spent}
                    )
            if own:
                axes = ("ms for one image and one prompt (median, logarithmic)", "mean Dice (%)")
                found.append(
                    {
                        "name": f"latency-{set_name}-{_plain(mode)}",
                        "title": f"Accuracy against latency, {set_title(set_name)}, {mode}",
                        "svg": plots.scatter_chart(own, models, x="ms", y="dice", axes=axes),
                        "note": f"{own[0]['device']}; one image at a time. Up and to the left is "
                        "better; upright lines: 95 % intervals of mean Dice.",
                    }
                )
    return tuple(found)


def click_charts(curve: Table, models: Sequence[str]) -> tuple[Chart, ...]:
    """Mean IoU over clicks, view all.

    Args:
        curve: the table ``click-curve``.
        models: order of the labels.
    """
    found = []
    for set_name, rows in _by_set([r for r in curve.rows if r["view"] == "all"]):
        svg = plots.curve_chart(rows, models, x="clicks", y="iou", axes=("clicks", "mean IoU (%)"))
        about = {"name": f"click-curve-{set_name}", "svg": svg, "note": curve.note}
        found.append(about | {"title": f"IoU over clicks, {set_title(set_name)}"})
    return tuple(found)


def paper_charts(
    long: Mapping[str, Table], models: Sequence[str], kinds: Mapping[str, str]
) -> tuple[Chart, ...]:
    """The three comparisons of the paper's Figure 5, on the declared split, view sam-med2d.

    Anatomical groups, modalities, and organ by organ FT-SAM against SAM-Med2D.

    Args:
        long: tables by name.
        models: order of the labels.
        kinds: kind of each label.
    """
    found = []
    for letter, name in (("a", "group"), ("b", "modality")):
        for set_name, mode, rows in _paper_rows(long[name]):
            own = [r for r in rows if r["recipe"] not in (TRIVIAL, "oracle")]
            own = [r for r in own if not r["model"].endswith(CONTROL_SUFFIX)]
            if own:
                what = "anatomical group" if name == "group" else name
                titled = [row | {what: row[name].replace("_", " and ")} for row in own]
                found.append(
                    {
                        "name": f"figure-5{letter}-{set_name}-{mode}",
                        "title": f"Figure 5 ({letter}) of the paper: by {what}, "
                        f"{set_title(set_name)}, {mode}",
                        "svg": bar_chart(titled, models, what, wide=26),
                        "note": f"{_masks_of(own, name)}; lines: 95 % intervals.",
                    }
                )
    for set_name, mode, rows in _paper_rows(long["organ"]):
        there = [m for m in models if any(row["model"] == m for row in rows)]
        pair = [_first(there, kinds, kind) for kind in _TRAINED]
        if all(pair):
            found.append(_organs(rows, models, [m for m in pair if m], (set_name, mode)))
    return tuple(found)


def _paper_rows(table: Table) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Set, mode and lines, of sets that are not held out."""
    kept = [r for r in table.rows if r["view"] == "sam-med2d" and r["dice"] is not None]
    for set_name, rows in _by_set([r for r in kept if r["set"] != "held_out"]):
        for mode in _PAPER_MODES:
            own = [row for row in rows if row["mode"] == mode]
            if own:
                yield set_name, mode, own


def _masks_of(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    counts = {row[name].replace("_", " and "): row["masks"] for row in rows}
    return "Masks: " + ", ".join(f"{key} {n:,}" for key, n in counts.items())


def _first(labels: Sequence[str], kinds: Mapping[str, str], kind: str) -> str | None:
    """The first label of a kind that is no control."""
    own = (m for m in labels if kinds.get(m) == kind and not m.endswith(CONTROL_SUFFIX))
    return next(own, None)


def _organs(
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    pair: Sequence[str],
    where: tuple[str, str],
) -> Chart:
    """FT-SAM and SAM-Med2D organ by organ, in their colours of the other figures."""
    set_name, mode = where
    own = [row for row in rows if row["model"] in pair]
    paint = {m: fill for m, fill in painted(rows, models).items() if m in pair}
    lines = []
    for organ in sorted({str(row["organ"]) for row in own}):
        dots = [
            Dot(model=row["model"], value=100 * row["dice"]) for row in own if row["organ"] == organ
        ]
        masks = max(row["masks"] for row in own if row["organ"] == organ)
        lines.append((f"{organ} ({masks:,})", dots))
    return {
        "name": f"figure-5c-{set_name}-{mode}",
        "title": f"Figure 5 (c) of the paper: {' against '.join(pair)} by organ, "
        f"{set_title(set_name)}, {mode}",
        "svg": plots.dot_chart(lines, paint, below="mean Dice (%)", joined=True, whole=True),
        "note": "In brackets: masks. Left and right are one organ; lesions are apart from theirs.",
    }


def _plain(mode: str) -> str:
    """A mode as part of a file name."""
    return mode.replace(":", "-").replace("+", "-")


def offset_charts(table: Table, models: Sequence[str]) -> tuple[Chart, ...]:
    """Mean Dice over the box offset, view all.

    Args:
        table: of ``offsets.offset_table``.
        models: order of the labels.
    """
    found = []
    for set_name, rows in _by_set([r for r in table.rows if r["view"] == "all"]):
        axes = ("box offset (px)", "mean Dice (%)")
        svg = plots.curve_chart(rows, models, x="offset_px", y="dice", axes=axes)
        about = {"name": f"offset-{set_name}", "svg": svg}
        about["note"] = "View all, mean over masks; upright lines: 95 % intervals."
        found.append(about | {"title": f"Dice over the box offset, {set_title(set_name)}"})
    return tuple(found)
