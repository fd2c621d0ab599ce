"""The SAM-Med2D paper's Tables 2, 3 and 4 from score rows, in its layout and by its rule.

Means over masks in the view ``sam-med2d`` of what the corpus declares: its test patients for Tables
2 and 3, its held-out datasets for Table 4. A published value stands beside ours only where both are
means over the same number of masks; all others stand in tables of their own, with a stamp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sammed_bench.paper_values import Printed, Published, published
from sammed_bench.seen_tables import judged, seen_by
from sammed_bench.tables import CONTROL_SUFFIX, Table, in_view, model_order

if TYPE_CHECKING:
    import pandas as pd

TEST_SET, MODALITY, MICCAI, OTHERS = (
    "paper-table-2",
    "paper-table-3",
    "paper-table-4",
    "paper-table-4-others",
)
PRINTED = "-published"
NAMES = (TEST_SET, MODALITY, MICCAI, OTHERS)
_MODES = ("bbox", "1pt", "3pt", "5pt")
_HELD_OUT = "held_out"
WEIGHTED, UNWEIGHTED = "mean, weighted by masks", "mean, each dataset once"
ALL_MASKS, OVER_MODALITIES = "mean over all masks", "mean of the modalities"


def paper_tables(
    rows: pd.DataFrame,
    models: Sequence[str],
    *,
    record: Mapping[str, Any],
    speed: Sequence[Mapping[str, Any]] = (),
    seen: Sequence[Mapping[str, Any]] = (),
    printed: Published | None = None,
) -> list[Table]:
    """Those that the rows can fill, and the published ones; none under another protocol.

    Args:
        rows: of ``tables.prepare``.
        models: order of the labels.
        record: ``bench.json``.
        speed: of ``speed.read``.
        seen: of ``contamination.read``.
        printed: what a paper printed.
    """
    printed = printed or published()
    if protocol_of(record) not in printed.protocols:
        return []
    labels = [
        m
        for m in judged(rows, model_order(rows, models))
        if not m.endswith(CONTROL_SUFFIX)  # the paper has no controls
    ]
    scores = _Scores(rows[rows["model"].isin(labels)], labels, printed.view)
    pixels = {entry["name"]: entry.get("image_px") for entry in record.get("models", ())}
    found = [
        _test_set(scores, printed, pixels, speed),
        _modalities(scores, printed),
        *_held_out(scores, printed, seen),
    ]
    return [table for table in found if table.rows] + _published_tables(printed)


def protocol_of(record: Mapping[str, Any]) -> str:
    """The name of the prompt protocol of ``bench.json``."""
    return str(record.get("conditions", {}).get("protocol", {}).get("name", ""))


class _Scores:
    """Means over the masks of a view, with what the view left out."""

    def __init__(self, rows: pd.DataFrame, labels: Sequence[str], view: str) -> None:
        self.labels, self.view, self.every = list(labels), view, rows
        self.kept = in_view(rows, view)

    def sets(self, held_out: bool) -> list[str]:
        """Names of the sets that are, or are not, held out."""
        return [s for s in self.kept["set"].unique() if (s == _HELD_OUT) == held_out]

    def counts(self, where: Mapping[str, str]) -> dict[str, Any]:
        """Masks, patients, and the share of masks left out."""
        here, whole = (_masks(_where(rows, where)) for rows in (self.kept, self.every))
        left_out = 1 - len(here) / len(whole)
        return {
            "masks": len(here),
            "patients": int(here["patient"].nunique()),
            "left_out": left_out,
        }

    def mean(self, where: Mapping[str, str]) -> float | None:
        """Mean Dice; None where nothing was scored."""
        part = _where(self.kept, where)
        part = part[part["scored"]]
        return float(part["dice"].mean()) if len(part) else None


def _where(rows: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def _masks(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates(["sample_id", "mask_index"])


def _test_set(
    scores: _Scores,
    printed: Published,
    pixels: Mapping[str, Any],
    speed: Sequence[Mapping[str, Any]],
) -> Table:
    per_second = {entry["model"]: entry["images_per_second"] for entry in speed}
    lines: list[dict[str, Any]] = []
    for set_name in scores.sets(held_out=False):
        counts = scores.counts({"set": set_name})
        head = {"set": set_name, "view": scores.view}
        for model in scores.labels:
            where = {"set": set_name, "model": model}
            line = head | {"model": model, "image_px": pixels.get(model)}
            line |= {mode: scores.mean(where | {"mode": mode}) for mode in _MODES}
            lines.append(line | {"images_per_second": per_second.get(model)} | counts)
        beside = [p for p in printed.test_set if p.same_masks(counts["masks"])]
        lines += [head | _as_line(p) for p in beside]
    columns = ("set", "view", "model", "image_px", *_MODES, "images_per_second")
    return Table(
        name=TEST_SET,
        title="Table 2 of the paper: test set by model, resolution, prompt",
        columns=(*columns, "masks", "patients", "left_out"),
        rows=lines,
        note="Mean Dice over masks. Images per second: one image with one prompt, on this machine; "
        "only with --speed. Resolution: where the results record it.",
    )


def _modalities(scores: _Scores, printed: Published) -> Table:
    """One click by modality, and what four more add."""
    order = {p.key: i for i, p in enumerate(printed.modality)}
    lines: list[dict[str, Any]] = []
    beside: set[str] = set()
    for set_name in scores.sets(held_out=False):
        where = {"set": set_name}
        own = []
        found = _where(scores.kept, where)["modality"].unique()
        for modality in sorted(map(str, found), key=lambda m: (order.get(m, len(order)), m)):
            at = where | {"modality": modality}
            line = {"modality": modality} | _gains(scores, at) | scores.counts(at)
            same = _same(printed.modality, modality, line["masks"])
            beside |= set(same)
            own.append(line | same)
        if len(own) > 1:
            whole = {"modality": ALL_MASKS} | _gains(scores, where) | scores.counts(where)
            names = [c for m in scores.labels for c in (m, f"{m} gain")]
            macro = {n: _mean(line[n] for line in own) for n in names}
            counts = {c: whole[c] for c in ("masks", "patients", "left_out")}
            own += [whole, {"modality": OVER_MODALITIES} | macro | counts]
        lines += [{"set": set_name, "view": scores.view} | line for line in own]
    values = tuple(c for m in scores.labels for c in (m, f"{m} gain"))
    scored = any(line[m] is not None for line in lines for m in scores.labels)
    columns = ("set", "view", "modality", *values, *sorted(beside))
    return Table(
        name=MODALITY,
        title="Table 3 of the paper: by modality, 1 pt (gain after 5 pts)",
        columns=(*columns, "masks", "patients", "left_out"),
        rows=lines if scored else [],
        note="Mean Dice over masks after one click; in brackets, in points, what five clicks add.",
    )


def _gains(scores: _Scores, where: dict[str, str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for model in scores.labels:
        one, five = (scores.mean(where | {"model": model, "mode": m}) for m in ("1pt", "5pt"))
        found[model] = one
        found[f"{model} gain"] = None if one is None or five is None else five - one
    return found


def _held_out(
    scores: _Scores, printed: Published, seen: Sequence[Mapping[str, Any]]
) -> tuple[Table, Table]:
    """The nine sets of the paper, as far as they are here, and the other held-out ones."""
    names = {p.key: p.name for p in printed.miccai2023}
    modes = [m for m in ("bbox", "1pt") if m in set(scores.kept["mode"])]
    values = tuple(f"{mode}: {model}" for mode in modes for model in scores.labels)
    lines: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    here = [str(d) for d in _where(scores.kept, {"set": _HELD_OUT})["dataset"].unique()]
    for dataset in sorted(here, key=lambda d: (list(names).index(d) if d in names else 99, d)):
        where = {"set": _HELD_OUT, "dataset": dataset}
        line: dict[str, Any] = where | {"view": scores.view}
        line["dataset"] = names.get(dataset, dataset)
        for mode in modes:
            for model in scores.labels:
                line[f"{mode}: {model}"] = scores.mean(where | {"mode": mode, "model": model})
        line |= scores.counts(where) | {"seen": seen_by(seen, _HELD_OUT, dataset, scores.labels)}
        lines[dataset in names].append(line | _same(printed.miccai2023, dataset, line["masks"]))
    kept = (_with_means(lines[True], values), _with_means(lines[False], values))
    about = (
        (MICCAI, "Table 4 of the paper: nine MICCAI 2023 sets"),
        (OTHERS, "Other held-out datasets, in the layout of Table 4"),
    )
    head = ("set", "view", "dataset", *values)
    made = []
    for (name, title), own in zip(about, kept, strict=True):
        beside = sorted({c for line in own for c in line if c.startswith("published ")})
        columns = (*head, *beside, "masks", "patients", "left_out", "seen")
        note = "Mean Dice over masks; the last lines are the means over the datasets above them."
        if name == MICCAI and own:
            note += f" Here are {len(lines[True])} of the {len(names)}."
        made.append(Table(name=name, title=title, columns=columns, rows=own, note=note))
    return made[0], made[1]


def _with_means(lines: list[dict[str, Any]], values: Sequence[str]) -> list[dict[str, Any]]:
    """Two means below the lines, where there are several."""
    if len(lines) < 2:
        return lines
    total = sum(line["masks"] for line in lines)
    sizes = [line["masks"] for line in lines]
    common = {"set": _HELD_OUT, "view": lines[0]["view"], "masks": total}
    common["patients"] = sum(line["patients"] for line in lines)
    whole = sum(line["masks"] / (1 - line["left_out"]) for line in lines if line["masks"])
    common["left_out"] = 1 - total / whole
    weighted = {v: _mean((line[v] for line in lines), sizes) for v in values}
    plain = {v: _mean(line[v] for line in lines) for v in values}
    return [
        *lines,
        common | {"dataset": WEIGHTED} | weighted,
        common | {"dataset": UNWEIGHTED} | plain,
    ]


def _mean(values: Iterable[float | None], weights: Sequence[float] | None = None) -> float | None:
    """None where a value is missing: a mean over fewer is another mean."""
    known = list(values)
    sizes = [1.0] * len(known) if weights is None else list(weights)
    total = 0.0
    for value, size in zip(known, sizes, strict=True):
        if value is None:
            return None
        total += value * size
    return total / sum(sizes) if sum(sizes) else None


def _same(printed: Sequence[Printed], key: str, masks: int) -> dict[str, float]:
    """Published values that are means over as many masks, as columns beside ours."""
    lines = [p for p in printed if p.key == key and p.same_masks(masks)]
    return {f"published {name}": v / 100 for p in lines for name, v in p.values.items()}


def _as_line(printed: Printed) -> dict[str, Any]:
    """A published line of Table 2 under our columns."""
    return {
        "model": f"published: {printed.name}",
        "image_px": int(printed.values["image_px"]),
        **{mode: printed.values[mode] / 100 for mode in _MODES},
        "masks": printed.masks,
    }


def _published_tables(printed: Published) -> list[Table]:
    """What the paper printed, digit by digit and in per cent, with stamps."""
    whole = [
        {"model": p.name, "image_px": f"{p.values['image_px']:.0f}", "fps": f"{p.values['fps']:g}"}
        | {mode: f"{p.values[mode]:.2f}" for mode in _MODES}
        | _stamp(p)
        for p in printed.test_set
    ]
    apart = [{"modality": p.name} | _with_gains(p.values) | _stamp(p) for p in printed.modality]
    sets = [{"dataset": p.name} | _two_digits(p.values) | _stamp(p) for p in printed.miccai2023]
    sets.append({"dataset": WEIGHTED} | _two_digits(printed.weighted))
    models = [v for v in printed.modality[0].values if not v.endswith(" gain")]
    about: tuple[tuple[str, str, tuple[str, ...], list[dict[str, str]], str], ...] = (
        (TEST_SET, "2", ("model", "image_px", *_MODES, "fps"), whole, "test_set"),
        (MODALITY, "3", ("modality", *models), apart, "modality"),
        (MICCAI, "4", ("dataset", *printed.weighted), sets, "miccai2023"),
    )
    return [
        Table(
            name=name + PRINTED,
            title=f"Table {number} as published, Dice in per cent",
            columns=(*columns, "stamp", "because"),
            rows=rows,
            note=f"{printed.sources[source]}. Apart from ours: the source prints no number of "
            "masks.",
        )
        for name, number, columns, rows, source in about
    ]


def _stamp(printed: Printed) -> dict[str, str]:
    return {"stamp": printed.stamp, "because": printed.why}


def _two_digits(values: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.2f}" for name, value in values.items()}


def _with_gains(values: Mapping[str, float]) -> dict[str, str]:
    """``77.34 (+6.75)`` per model, as in the paper."""
    found = {}
    for name, value in values.items():
        if not name.endswith(" gain"):
            gain = values.get(f"{name} gain")
            found[name] = f"{value:.2f}" + ("" if gain is None else f" ({gain:+.2f})")
    return found


def joined_gains(table: Table) -> Table:
    """Table 3 for reading: the gain in brackets behind the score of one click."""
    gains = [c for c in table.columns if c.endswith(" gain")]
    rows = []
    for row in table.rows:
        shown = {name: row.get(name) for name in row if name not in gains}
        for gain in gains:
            name = gain.removesuffix(" gain")
            if row.get(name) is not None:
                more = "" if row.get(gain) is None else f" ({100 * row[gain]:+.1f})"
                shown[name] = f"{100 * row[name]:.1f}{more}"
        rows.append(shown)
    return replace(table, columns=tuple(c for c in table.columns if c not in gains), rows=rows)
