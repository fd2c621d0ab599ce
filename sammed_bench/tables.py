"""Score rows -> tables. Every table is a group-by of the rows and can be made again from them.

Failures count with Dice 0; what a model does not support is left out and said. ``gain`` is the
mean over the best trivial baseline of the same stratum and mode. View ``all`` scores every mask,
``sam-med2d`` those that the paper's size rule keeps (0.153 % of the image, sides up to 1:2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sammed_bench.modes import in_order
from sammed_bench.statistics import cluster_interval, holm, paired, patients
from sammed_data.types import UsageError

if TYPE_CHECKING:
    import pandas as pd

Indices: TypeAlias = NDArray[np.intp]

VIEW_NAMES = ("all", "sam-med2d")
CONTROL_SUFFIX = "-permuted"
TRIVIAL = "trivial"
# Kinds that start from the model of kind sam beside them.
_TRAINED = ("ft-sam", "sam-med2d")
GROUPS = ("head_neck", "thorax", "abdomen", "pelvis", "lesion", "other")
# Upper edges of object size as a share of the image; the first is the paper's smallest object.
SIZE_BINS = (
    (0.00153, "under 0.153 %"),
    (0.01, "0.153 to 1 %"),
    (0.05, "1 to 5 %"),
    (0.2, "5 to 20 %"),
    (math.inf, "20 % and more"),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns; numbers are fractions of 1, missing values None.

    Attributes:
        name: file name of the CSV.
        columns: in order.
        rows: by column.
        note: what must be known to read it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


# Name -> title and the strata (columns of ``prepare``) it groups by.
STRATA: dict[str, tuple[str, str | None]] = {
    "overall": ("Overall", None),
    "modality": ("By modality", "modality"),
    "organ": ("By organ", "organ_apart"),
    "group": ("By anatomical group", "anatomy"),
    "dataset": ("By dataset", "dataset"),
    "structure": ("By structure", "structure"),
    "size": ("By object size (share of the image)", "size"),
}
_VALUES = (
    *("dice", "iou", "scored", "failed", "patient", "dataset_number", "modality_number"),
    *("kind", "recipe", "cluster"),
)
_SUMMARY = (
    "masks",
    "patients",
    "unit",
    "failed",
    "dice",
    "low",
    "high",
    "median",
    "iou",
    "gain",
    "dice_over_datasets",
    "datasets",
    "dice_over_modalities",
    "modalities",
    "left_out",
    "recipe",
)


def prepare(rows: pd.DataFrame) -> pd.DataFrame:
    """Score rows with the strata that tables group by."""
    made = rows.copy()
    lesion = made["kind_of_structure"] == "lesion"
    # Numbers instead of names: grouping and resampling them is many times faster.
    made["patient"] = patients(made).factorize()[0]
    made["dataset_number"] = made["dataset"].factorize()[0]
    made["modality_number"] = made["modality"].factorize()[0]
    made["scored"] = made["status"] != "unsupported"
    made["failed"] = made["status"] == "failed"
    made["set"] = made["split"]
    group = made["group"].where(made["group"].isin(GROUPS), "other")
    made["anatomy"] = group.where(~lesion, "lesion")
    organ = made["organ"].where(made["organ"] != "", made["structure"])
    made["organ_apart"] = organ.where(~lesion, organ + " (lesion)")
    made["size"] = [_size_bin(share) for share in made["area_fraction"]]
    return made


def _size_bin(share: float) -> str:
    return next(name for edge, name in SIZE_BINS if share < edge)


def in_view(rows: pd.DataFrame, view: str) -> pd.DataFrame:
    """The rows that a view keeps."""
    return rows if view == "all" else rows[rows["in_view"].astype(bool)]


def model_order(rows: pd.DataFrame, given: Sequence[str] = ()) -> list[str]:
    """Labels: those given first, trivial baselines last."""
    kinds = kinds_of(rows)
    return sorted(
        kinds,
        key=lambda m: (
            kinds[m] == TRIVIAL,
            given.index(m) if m in given else len(given),
            m,
        ),
    )


def kinds_of(rows: pd.DataFrame) -> dict[str, str]:
    """Label -> kind."""
    first = rows.drop_duplicates("model")
    return dict(zip(first["model"].astype(str), first["kind"].astype(str), strict=True))


def mode_order(rows: pd.DataFrame) -> list[str]:
    """Prompt modes that occur, in the usual order."""
    return list(in_order(rows["mode"].unique()))


def long_table(rows: pd.DataFrame, name: str, models: Sequence[str] = ()) -> Table:
    """One line for each set, view, stratum, mode and model.

    Args:
        rows: of ``prepare``.
        name: of STRATA.
        models: order of the labels.
    """
    title, column = STRATA[name]
    labels, modes = model_order(rows, models), mode_order(rows)
    lines: list[dict[str, Any]] = []
    masks: dict[tuple[str, str, str, str], int] = {}
    for view in VIEW_NAMES:
        kept = in_view(rows, view)
        values = {c: kept[c].to_numpy() for c in _VALUES}
        for (set_name, stratum), groups in _strata(kept, column):
            where = {"set": set_name, "view": view}
            if column is not None:
                where[name] = stratum
            key = f"{view} {set_name} {stratum}"
            for line in _lines(values, groups, modes, labels, key):
                place = (set_name, stratum, line["mode"], line["model"])
                # View all comes first: what the others leave out is a share of that.
                whole = masks.setdefault(place, line["masks"])
                lines.append(where | line | {"left_out": 1 - line["masks"] / whole})
    head = ("set", "view", *(() if column is None else (name,)), "mode", "model")
    return Table(name=name, title=title, columns=(*head, *_SUMMARY), rows=lines)


def _strata(
    rows: pd.DataFrame, column: str | None
) -> Iterator[tuple[tuple[str, str], dict[tuple[str, str], Indices]]]:
    """``((set, stratum), {(mode, model): row numbers})`` in order.

    Sizes go from small to large, groups as in GROUPS, held-out sets last.
    """
    keys = ["set", *([] if column is None else [column]), "mode", "model"]
    found: dict[tuple[str, str], dict[tuple[str, str], Indices]] = {}
    indices: Any = rows.groupby(keys, sort=False).indices  # keys are tuples; pandas-stubs: Hashable
    for key, index in indices.items():
        set_name, *stratum, mode, model = (str(part) for part in key)
        found.setdefault((set_name, "".join(stratum)), {})[mode, model] = index
    order = {name: i for i, name in enumerate((*GROUPS, *(name for _, name in SIZE_BINS)))}
    for where in sorted(found, key=lambda w: (w[0] == "held_out", w[0], order.get(w[1], -1), w[1])):
        yield where, found[where]


def _lines(
    values: Mapping[str, NDArray[Any]],
    groups: Mapping[tuple[str, str], Indices],
    modes: Sequence[str],
    labels: Sequence[str],
    key: str,
) -> Iterator[dict[str, Any]]:
    """A summary of each mode and model of one stratum."""
    for mode in modes:
        chosen = {
            model: {name: column[groups[mode, model]] for name, column in values.items()}
            for model in labels
            if (mode, model) in groups
        }
        trivial = [
            float(part["dice"][part["scored"]].mean())
            for part in chosen.values()
            if part["kind"][0] == TRIVIAL and part["scored"].any()
        ]
        for model, part in chosen.items():
            # The same patients are drawn for every model.
            found = _summary(part, f"{key} {mode}", max(trivial, default=None))
            if found is not None:
                yield {"mode": mode, "model": model} | found


def _summary(
    part: Mapping[str, NDArray[Any]], key: str, best: float | None
) -> dict[str, Any] | None:
    """Counts and means of one model; None for a baseline that does not apply."""
    scored = part["scored"]
    counts: dict[str, Any] = {"masks": len(scored), "patients": len(np.unique(part["patient"]))}
    counts["unit"] = ", ".join(sorted(set(map(str, part["cluster"]))))
    if not scored.any():
        if part["kind"][0] == TRIVIAL:
            return None
        return dict.fromkeys(_SUMMARY) | counts | {"failed": 0, "recipe": "not supported"}
    dice = part["dice"][scored]
    interval = cluster_interval(dice, part["patient"][scored], key=key)
    over_datasets = _means(dice, part["dataset_number"][scored])
    over_modalities = _means(dice, part["modality_number"][scored])
    return counts | {
        "failed": int(part["failed"].sum()),
        "dice": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "median": float(np.median(dice)),
        "iou": float(part["iou"][scored].mean()),
        "gain": None if best is None else interval.mean - best,
        "dice_over_datasets": float(over_datasets.mean()),
        "datasets": len(over_datasets),
        "dice_over_modalities": float(over_modalities.mean()),
        "modalities": len(over_modalities),
        "recipe": str(part["recipe"][0]),
    }


def _means(values: NDArray[Any], groups: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each group."""
    inverse = np.unique(groups, return_inverse=True)[1]
    return np.bincount(inverse, weights=values) / np.bincount(inverse)


def wide_table(table: Table, view: str, models: Sequence[str]) -> Table:
    """A long table with one column of mean Dice per model, for reading.

    Args:
        table: of ``long_table``.
        view: which view.
        models: labels that get a column; trivial baselines share the column ``trivial``.
    """
    head = [c for c in table.columns[: table.columns.index("model")] if c != "view"]
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in table.rows:
        if row["view"] != view:
            continue
        line = lines.setdefault(
            tuple(row[c] for c in head),
            {c: row[c] for c in head}
            | {"masks": row["masks"], "patients": row["patients"], "failed": 0}
            | {"left_out": row.get("left_out")},
        )
        line["failed"] += row["failed"]
        if row["recipe"] == TRIVIAL:
            line[TRIVIAL] = max(line.get(TRIVIAL, 0.0), row["dice"])
        else:
            line[row["model"]] = row["dice"] if row["dice"] is not None else "not supported"
    shown = [m for m in models if any(m in line for line in lines.values())]
    left_out = ("left_out",) if any(line["left_out"] for line in lines.values()) else ()
    return Table(
        name=f"{table.name}-{view}",
        title=f"{table.title}, mean Dice, view {view}",
        columns=(*head, "masks", *left_out, "patients", "failed", *shown, TRIVIAL),
        rows=list(lines.values()),
    )


def comparison_table(rows: pd.DataFrame, models: Sequence[str] = ()) -> Table:
    """Paired differences: trained against start, control and best baseline; control against start.

    A control is called like its model with ``-permuted`` behind; the start is of kind ``sam``.
    """
    columns = ("set", "mode", "model", "against", "what", "difference", "low", "high")
    lines: list[dict[str, Any]] = []
    for set_name, part in rows.groupby("set", sort=False):
        for mode in mode_order(part):
            chosen = part[(part["mode"] == mode) & (part["status"] != "unsupported")]
            for a, b, what in _pairs(chosen, model_order(chosen, models)):
                found = paired(chosen[chosen["model"] == a], chosen[chosen["model"] == b])
                lines.append(
                    {"set": set_name, "mode": mode, "model": a, "against": b, "what": what}
                    | {"difference": found.mean_difference, "low": found.low, "high": found.high}
                    | {"p": found.p, "effect": found.effect, "masks": found.n_masks}
                    | {"patients": found.n_patients}
                )
    for set_name in dict.fromkeys(line["set"] for line in lines):
        own = [line for line in lines if line["set"] == set_name]
        for line, corrected in zip(own, holm([line["p"] for line in own]), strict=True):
            line["p_holm"] = corrected
    return Table(
        name="comparisons",
        title="Paired comparisons",
        columns=(*columns, "p", "p_holm", "effect", "masks", "patients"),
        rows=lines,
        note="'prompt-only' is what a model learns from masks and prompts without the right image: "
        "its control was trained with the images permuted. p (Holm) is corrected for all "
        "comparisons of the set.",
    )


def _pairs(rows: pd.DataFrame, labels: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    kinds = kinds_of(rows)
    trivial = rows[rows["kind"] == TRIVIAL].groupby("model")["dice"].mean()
    starts = [m for m in labels if kinds[m] == "sam"][:1]
    for model in labels:
        if kinds[model] in (TRIVIAL, "oracle"):
            continue
        control = model.endswith(CONTROL_SUFFIX)
        for start in starts:
            if model != start:
                trained = "over the start" if kinds[model] in _TRAINED else "over sam"
                yield model, start, "prompt-only" if control else trained
        if model + CONTROL_SUFFIX in labels:
            yield model, model + CONTROL_SUFFIX, "over its control"
        if len(trivial) and not control:
            yield model, str(trivial.idxmax()), "over the best trivial baseline"


def all_tables(rows: pd.DataFrame, models: Sequence[str] = ()) -> list[Table]:
    """Every long table and the comparisons.

    Args:
        rows: score rows as read.
        models: order of the labels.

    Raises:
        UsageError: no rows.
    """
    if rows.empty:
        raise UsageError("expected score rows, found none: the benchmark scored no mask")
    made = prepare(rows)
    tables = [long_table(made, name, models) for name in STRATA]
    return [*tables, comparison_table(made, models)]
