"""Results folders against each other: paired on the rows both have; and over prompt seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sammed_bench import contamination
from sammed_bench.record import RECORD
from sammed_bench.scores import read_scores
from sammed_bench.seeds import seed_table
from sammed_bench.statistics import holm, paired
from sammed_bench.tables import Table, mode_order, model_order, prepare
from sammed_data.types import CorpusError, UsageError

# What must be the same, with its name for people.
_SAME = {"corpus_sha256": "corpus", "protocol_hash": "prompt protocol", "seed": "prompt seed"}


def compare(a: Path, b: Path) -> Table:
    """Differences of mean Dice, ``a`` minus ``b``, of each label and mode that both hold.

    Raises:
        UsageError: other corpora, protocols or prompt seeds, or nothing in common.
        CorpusError: no results there.
    """
    before, after = _conditions(b), _conditions(a)
    # Of one suite, the images are the same whatever else the two corpora hold.
    suites = {found.get("suite_sha256") for found in (before, after)}
    same_suite = len(suites) == 1 and None not in suites
    for key, name in _SAME.items():
        if key == "corpus_sha256" and same_suite:
            continue
        if after.get(key) != before.get(key):
            raise UsageError(
                f"expected results of one {name}, found {str(after.get(key))[:12]} in {a} and "
                f"{str(before.get(key))[:12]} in {b}: scores of different questions cannot be "
                "compared, benchmark both alike"
            )
    rows_a, rows_b = read_scores(a), read_scores(b)
    rows_a, rows_b = (rows[rows["status"] != "unsupported"] for rows in (rows_a, rows_b))
    lines: list[dict[str, Any]] = []
    for set_name, part in rows_a.groupby("split", sort=True):
        other = rows_b[rows_b["split"] == set_name]
        for mode in mode_order(part):
            for model in model_order(part):
                sides = [r[(r["mode"] == mode) & (r["model"] == model)] for r in (part, other)]
                if all(len(side) for side in sides):
                    found = paired(*sides)
                    same = set(sides[0]["weights_sha256"]) == set(sides[1]["weights_sha256"])
                    lines.append(
                        {"set": set_name, "mode": mode, "model": model}
                        | {"weights": "same" if same else "other"}
                        | {"dice_a": found.mean_a, "dice_b": found.mean_b}
                        | {"difference": found.mean_difference}
                        | {"low": found.low, "high": found.high, "p": found.p}
                        | {"effect": found.effect, "masks": found.n_masks}
                        | {"patients": found.n_patients}
                    )
    if not lines:
        raise UsageError(
            f"expected a model and prompt mode that both {a} and {b} hold, found none: give the "
            "models the same labels"
        )
    for line, corrected in zip(lines, holm([line["p"] for line in lines]), strict=True):
        line["p_holm"] = corrected
    head = ("set", "mode", "model", "weights", "dice_a", "dice_b", "difference", "low", "high")
    return Table(
        name="compare",
        title=f"{a} (A) minus {b} (B), on the masks of both",
        columns=(*head, "p", "p_holm", "effect", "masks", "patients"),
        rows=lines,
    )


def seeds_of(folders: Sequence[Path]) -> Table:
    """The table of seeds over results folders that differ in their prompt seed alone.

    Raises:
        UsageError: other corpora or protocols, one prompt seed twice, or no run of a method.
        CorpusError: no results there.
    """
    known = [_conditions(folder) for folder in folders]
    for key in ("corpus_sha256", "protocol_hash", "limit"):
        if len({str(each.get(key)) for each in known}) > 1:
            raise UsageError(
                f"expected results that differ in their prompt seed alone, found another {key} "
                f"among {', '.join(map(str, folders))}: benchmark them alike"
            )
    drawn = [each.get("seed") for each in known]
    if len(set(drawn)) < len(drawn):
        raise UsageError(f"expected a prompt seed for each folder, found {drawn}: use --seed")
    import pandas as pd

    rows = prepare(pd.concat([read_scores(folder) for folder in folders], ignore_index=True))
    records = [record for folder in folders for record in contamination.read(folder)]
    table = seed_table(rows, records)
    if not table.rows:
        raise UsageError(
            f"expected models of training runs (with run.json) in {folders[0]}, found none: only "
            "those have a training seed"
        )
    return table


def _conditions(results: Path) -> dict[str, Any]:
    path = results / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["conditions"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CorpusError(
            f"expected the record of a benchmark in {path}, found {err}: name a results folder"
        ) from err
    return dict(found)
