"""Tables by image and by volume, beside those by mask. They need kept predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sammed_bench import levels
from sammed_bench.modes import in_order
from sammed_bench.statistics import cluster_interval, patients
from sammed_bench.tables import Table, model_order

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"images": "by-image", "volumes": "by-volume"}
_TITLES = {
    "images": "By image: all masks of a structure in an image joined",
    "volumes": "By volume: slices of a case restacked, in three dimensions",
}
_NOTES = {
    "images": "A mask without an answer counts as empty there.",
    "volumes": "HD95 and the tolerance of NSD in mm where all three spacings are known, else in "
    "voxels (px). Interactions: clicks, boxes, masks and scribbles given for one volume. Slices "
    "without the structure were not asked about, so what a model would have drawn there is not "
    "seen: a volume here is easier than one segmented from end to end.",
}
_METRICS = ("dice", "iou", "nsd", "hd95")
_PARTS = ("mean", "low", "high")


def level_tables(results: Path, models: Sequence[str] = ()) -> list[Table]:
    """The tables by image and by volume, overall and by structure; none without predictions."""
    found = []
    for level, name in NAMES.items():
        rows = levels.read(results, level)
        if rows is None or rows.empty:
            continue
        for suffix, strata in (("", ()), ("-and-structure", ("structure",))):
            title = _TITLES[level] if not suffix else _TITLES[level].partition(":")[0]
            title += ", and structure" if suffix else ""
            found.append(_table(rows, f"{name}{suffix}", title, strata, _NOTES[level], models))
    return found


def _table(
    rows: pd.DataFrame,
    name: str,
    title: str,
    strata: tuple[str, ...],
    note: str,
    models: Sequence[str],
) -> Table:
    whole = "volumes" if name.startswith("by-volume") else "images"
    prepared = rows.assign(patient=patients(rows), set=rows["split"])
    metrics = [metric for metric in _METRICS if prepared[metric].notna().any()]
    labels, modes = model_order(rows, models), list(in_order(rows["mode"].unique()))
    head = ("set", *strata, "surface_unit", "mode", "model")
    lines: list[dict[str, Any]] = []
    for key, part in prepared.groupby(list(head), sort=True):
        line: dict[str, Any] = dict(zip(head, key, strict=True))
        where = f"{whole} {' '.join(str(line[column]) for column in head[:-1])}"
        line |= {whole: len(part), "patients": int(part["patient"].nunique())}
        line |= {"failed": int(part["failed"].sum())}
        line |= {"interactions": float(part["interactions"].mean())}
        for metric in metrics:
            found = cluster_interval(
                part[metric].to_numpy(float), part["patient"].to_numpy(), key=where
            )
            line |= {f"{metric}_mean": found.mean}
            line |= {f"{metric}_low": found.low, f"{metric}_high": found.high}
        lines.append(line)
    lines.sort(
        key=lambda line: (
            line["set"] == "held_out",
            *(str(line[column]) for column in head[:-2]),
            modes.index(line["mode"]),
            labels.index(line["model"]),
        )
    )
    columns = (*head, whole, "patients", "failed", "interactions")
    scores = tuple(f"{metric}_{part}" for metric in metrics for part in _PARTS)
    return Table(name=name, title=title, columns=(*columns, *scores), rows=lines, note=note)
