"""All rows of a results folder against the corpus and the record: what can be seen without a model.

Every mask, mode and model once, none missing; the columns that tables group by as the corpus says;
Dice and IoU in accord; failures worst; prompts as their hashes say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sammed_bench import openings, run
from sammed_bench.conditions import Conditions
from sammed_bench.modes import rounds_of, thread_of
from sammed_bench.scores import about_mask
from sammed_data.types import CorpusError
from sammed_model.dataset import Samples

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("model", "sample_id", "mask_index", "mode")
_NAMED = 3
_ROUNDING = 1e-6
_OF_MODEL = ("weights_sha256", "recipe", "kind")


def problems(
    rows: pd.DataFrame, samples: Samples, conditions: Conditions, record: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with the rows as a whole, a sentence each.

    Args:
        rows: of ``read_scores``.
        samples: the images that should have been scored.
        conditions: of the record.
        record: ``bench.json``.
    """
    known = {entry["name"]: entry for entry in record.get("models", [])}
    yield from _models(rows, known)
    yield from _complete(rows, samples, conditions, known)
    yield from _columns(rows, samples)
    yield from _constant(rows, conditions)
    yield from _scores(rows)


def _models(rows: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in sorted(set(rows["model"]) - set(known)):
        yield f"rows of {name}, which bench.json does not list"
    for name, entry in known.items():
        own = rows[rows["model"] == name]
        for column in _OF_MODEL:
            found = set(own[column]) - {entry[column]}
            if found:
                wrong = int(own[column].isin(found).sum())
                yield (
                    f"{wrong} rows of {name} have {column} {_some(found)}, bench.json says "
                    f"{str(entry[column])[:12]}"
                )


def _complete(
    rows: pd.DataFrame, samples: Samples, conditions: Conditions, known: Mapping[str, Any]
) -> Iterator[str]:
    wanted = {
        (model, row.sample_id, mask.index, mode)
        for model in known
        for row in samples.rows
        for mask in samples.masks[row.sample_id]
        for mode in conditions.modes
    }
    found = list(zip(*(rows[key] for key in KEYS), strict=True))
    there = set(found)
    if missing := wanted - there:
        yield f"{len(missing)} rows are missing: {_some(missing)}"
    if more := there - wanted:
        yield f"{len(more)} rows belong to no mask, mode or model of this benchmark: {_some(more)}"
    if len(found) > len(there):
        twice = rows.loc[rows.duplicated(list(KEYS)), list(KEYS)].itertuples(index=False, name=None)
        yield f"{len(found) - len(there)} rows are there more than once: {_some(set(twice))}"


def _columns(rows: pd.DataFrame, samples: Samples) -> Iterator[str]:
    """Columns that say what was asked about."""
    import pandas as pd

    said = [about_mask(row, mask) for row in samples.rows for mask in samples.masks[row.sample_id]]
    keys = ["sample_id", "mask_index"]
    truth = pd.DataFrame(said)
    joined = rows.merge(truth, on=keys, suffixes=("", "_true"))
    for column in truth.columns.difference(keys):
        wrong = joined[joined[column] != joined[f"{column}_true"]]
        if len(wrong):
            first = wrong.iloc[0]
            yield (
                f"{len(wrong)} rows have another {column} than the corpus, such as "
                f"{first[column]!r} instead of {first[column + '_true']!r} at {where(first)}"
            )


def _constant(rows: pd.DataFrame, conditions: Conditions) -> Iterator[str]:
    protocol = conditions.protocol
    wanted = {"protocol": protocol.name, "protocol_hash": protocol.hash, "seed": conditions.seed}
    for column, value in wanted.items():
        found = set(rows[column]) - {value}
        if found:
            yield f"rows have {column} {_some(found)}, bench.json says {str(value)[:12]}"


def _scores(rows: pd.DataFrame) -> Iterator[str]:
    """What scores must be, whoever made them."""
    dice, iou = rows["dice"].to_numpy(float), rows["iou"].to_numpy(float)
    status = rows["status"].to_numpy()
    scored = status != "unsupported"
    checks = {
        "a Dice or IoU outside 0 to 1": scored
        & ~((dice >= 0) & (dice <= 1) & (iou >= 0) & (iou <= 1)),
        "a Dice that is not that of their IoU": scored
        & (np.abs(dice - 2 * iou / (1 + iou)) > _ROUNDING),
        "a score above 0 though they failed": (status == "failed") & ((dice > 0) | (iou > 0)),
        "a score though the prompt is not supported": ~scored & ~np.isnan(dice),
        "an unknown status": ~np.isin(status, ("ok", "failed", "unsupported")),
    }
    for said, wrong in checks.items():
        if wrong.any():
            first = rows[wrong].iloc[0]
            yield f"{int(wrong.sum())} rows have {said}, such as {where(first)}"


def click_problems(rows: pd.DataFrame, clicks: pd.DataFrame | None) -> Iterator[str]:
    """Scores of a dialogue that are not those of its round in the click table."""
    about = {mode: (thread_of(mode), rounds_of(mode)) for mode in rows["mode"].unique()}
    asked = rows[(rows["status"] != "unsupported") & rows["mode"].map(lambda m: about[m][1] > 0)]
    if clicks is None:
        if len(asked):
            yield f"the click table of {len(asked)} rows is missing"
        return
    asked = asked.assign(
        dialogue=asked["mode"].map(lambda m: about[m][0]),
        round=asked["mode"].map(lambda m: about[m][1]),
    )
    keys = ["model", "sample_id", "mask_index", "dialogue", "round"]
    shown = clicks[[*keys, "dice", "iou"]]
    joined = asked.merge(shown, on=keys, suffixes=("", "_round"), how="left")
    if gone := int(joined["dice_round"].isna().sum()):
        yield f"{gone} rows have no round in the click table"
    wrong = joined[
        ((joined["dice"] - joined["dice_round"]).abs() > _ROUNDING)
        | ((joined["iou"] - joined["iou_round"]).abs() > _ROUNDING)
    ]
    if len(wrong):
        yield (
            f"{len(wrong)} rows have other scores than their round in the click table, such as "
            f"{where(wrong.iloc[0])}"
        )


def prompt_problems(
    results: Path, samples: Samples, conditions: Conditions, record: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with the stored prompts as files."""
    paths = [
        run.prompts_path(results, conditions, number)
        for number in range(run.chunk_count(len(samples)))
    ]
    if not openings.needed(conditions.protocol, conditions.modes):
        return
    for path in paths:
        if not path.is_file():
            yield f"the stored prompts {path.name} are missing"
            continue
        try:
            openings.Store.open(path)
        except CorpusError as err:
            yield str(err)
    wanted, found = record.get("prompts_sha256"), None
    if all(path.is_file() for path in paths):
        found = openings.stored_hash((results / "prompts").glob("part-*.parquet"))
    if found is not None and found != wanted:
        yield f"the stored prompts have hash {found[:12]}, bench.json says {str(wanted)[:12]}"


def where(row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """A row by its names."""
    return f"{row['model']}, {row['mode']}, {row['sample_id']}, mask {row['mask_index']}"


def _some(found: Sequence[Any] | set[Any]) -> str:
    named = sorted(found, key=str)[:_NAMED]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(_short(item) for item in named) + more


def _short(item: Any) -> str:
    return ", ".join(map(str, item)) if isinstance(item, tuple) else str(item)[:12]
