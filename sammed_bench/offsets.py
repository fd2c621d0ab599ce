"""Scores over the size of the box offset: several results folders, a protocol each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sammed_bench.scores import read_scores
from sammed_bench.statistics import cluster_interval
from sammed_bench.tables import VIEW_NAMES, Table, in_view, model_order, prepare
from sammed_data.types import CorpusError, UsageError

NAME = "offsets"
_MODE = "bbox"
_TIGHT, _JITTER = "box-tight", "box-jitter:"
# What must be the same for the masks to be the same.
_SAME = ("corpus_sha256", "seed", "limit", "splits", "edition")


def offset_table(folders: Sequence[Path], models: Sequence[str] = ()) -> Table:
    """Mean Dice of the box mode after each edge was moved by up to N px, a line per N and model.

    Args:
        folders: results folders of the protocols ``box-jitter:N`` or ``box-tight``.
        models: order of the labels.

    Raises:
        UsageError: another protocol, other images, or an offset twice.
        CorpusError: no results there.
    """
    known = {folder: _conditions(folder) for folder in folders}
    offsets = {folder: _offset(folder, found) for folder, found in known.items()}
    for key in _SAME:
        if len({json.dumps(found.get(key)) for found in known.values()}) > 1:
            raise UsageError(
                f"expected results that differ in their box offset alone, found another {key} "
                f"among {', '.join(map(str, folders))}: benchmark them alike"
            )
    if len(set(offsets.values())) < len(folders):
        raise UsageError(f"expected an offset for each folder, found {sorted(offsets.values())}")
    lines: list[dict[str, Any]] = []
    for folder in sorted(folders, key=lambda f: offsets[f]):
        rows = prepare(read_scores(folder))
        own = rows[(rows["mode"] == _MODE) & rows["scored"]]
        lines += _lines(own, offsets[folder], models)
    lines.sort(key=lambda line: (line["set"] == "held_out", line["set"], line["view"] != "all"))
    columns = ("set", "view", "offset_px", "model", "masks", "patients", "failed")
    return Table(
        name=NAME,
        title="Scores over the box offset",
        columns=(*columns, "dice", "low", "high", "left_out", "recipe"),
        rows=lines,
        note="Each edge of the tight box of the whole mask moved by up to so many px of the slice, "
        "within the image; mean Dice of the prompt bbox over masks. The same masks at every "
        "offset.",
    )


def _lines(own: Any, offset: int, models: Sequence[str]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for set_name, part in own.groupby("set", sort=True):
        for view in VIEW_NAMES:
            kept = in_view(part, view)
            for model in model_order(kept, models):
                scored, whole = (r[r["model"] == model] for r in (kept, part))
                found = cluster_interval(
                    scored["dice"].to_numpy(float),
                    scored["patient"].to_numpy(),
                    key=f"{view} {set_name} offset",
                )
                lines.append(
                    {"set": set_name, "view": view, "offset_px": offset, "model": model}
                    | {"masks": found.n, "patients": found.n_clusters}
                    | {"failed": int(scored["failed"].sum()), "dice": found.mean}
                    | {"low": found.low, "high": found.high}
                    | {"left_out": 1 - len(scored) / len(whole)}
                    | {"recipe": str(scored["recipe"].iloc[0])}
                )
    return lines


def _offset(folder: Path, conditions: dict[str, Any]) -> int:
    name = str(conditions.get("protocol", {}).get("name", ""))
    if name == _TIGHT:
        return 0
    if not name.startswith(_JITTER):
        raise UsageError(
            f"expected results of {_JITTER}N or {_TIGHT} in {folder}, found protocol {name!r}: "
            f"make them with `sammed bench --protocol {_JITTER}4 --prompts {_MODE} --out {folder}`"
        )
    return int(name.removeprefix(_JITTER))


def _conditions(folder: Path) -> dict[str, Any]:
    path = folder / "bench.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["conditions"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CorpusError(
            f"expected the record of a benchmark in {path}, found {err}: name a results folder"
        ) from err
