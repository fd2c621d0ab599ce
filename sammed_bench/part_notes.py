"""``parts/part-i-of-N.json``: what each share of a benchmark came to, until all are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sammed_bench.conditions import Conditions
from sammed_bench.files import write_json
from sammed_bench.record import Entry, plain
from sammed_data.part import Part
from sammed_data.types import CorpusError

FOLDER = "parts"


def share(chunks: int, part: Part | None) -> list[int]:
    """The chunks of a part: every N-th one; the same on every machine."""
    step = 1 if part is None else part.count
    return list(range(0 if part is None else part.index, chunks, step))


def path_of(folder: Path, part: Part) -> Path:
    """Where a part notes what it did."""
    return folder / FOLDER / f"part-{part.index}-of-{part.count}.json"


def write(
    folder: Path,
    part: Part,
    conditions: Conditions,
    entries: Sequence[Entry],
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Note that a part is whole."""
    found = {"conditions": plain(conditions), "models": [entry.as_json() for entry in entries]}
    write_json(path_of(folder, part), found | {"notes": list(notes), "settings": dict(settings)})


def read(folder: Path, part: Part) -> dict[str, Any]:
    """What a part noted.

    Raises:
        CorpusError: it is damaged.
    """
    path = path_of(folder, part)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise CorpusError(
            f"expected the note of a part at {path}, found {err}: run the part again"
        ) from err
    return found


def missing(folder: Path, conditions: Conditions, count: int) -> tuple[Part, ...]:
    """Parts of ``count`` that are not there, or were made under other conditions."""
    parts = [Part(index=index, count=count) for index in range(count)]
    now = plain(conditions)
    return tuple(
        p for p in parts
        if not path_of(folder, p).is_file() or read(folder, p)["conditions"] != now
    )  # fmt: skip


def together(folder: Path, conditions: Conditions, count: int) -> tuple[list[Entry], list[str]]:
    """The models of all parts, failures and seconds added up, and all that was said.

    Raises:
        CorpusError: a part scored other models or other weights.
    """
    found = [read(folder, Part(index=index, count=count)) for index in range(count)]
    lists = [[Entry.of(raw) for raw in note["models"]] for note in found]
    first = lists[0]
    for index, other in enumerate(lists):
        who = [(e.facts.name, e.facts.weights_sha256) for e in other]
        if who != [(e.facts.name, e.facts.weights_sha256) for e in first]:
            raise CorpusError(
                f"expected the same models in all parts of {folder}, found "
                f"{_named(other)} in part {index}/{count} and {_named(first)} in part 0/{count}: "
                "run the part again with the same --model"
            )
    entries = [
        replace(
            same[0],
            failed=sum(entry.failed for entry in same),
            seconds=_sum([entry.seconds for entry in same]),
        )
        for same in zip(*lists, strict=True)
    ]
    notes = [text for note in found for text in note["notes"]]
    return entries, list(dict.fromkeys(notes))


def _named(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{e.facts.name} ({e.facts.weights_sha256[:12]})" for e in entries)


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None
