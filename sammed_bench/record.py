"""``bench.json``: the conditions that a results folder was made under, and what came of it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sammed_bench import predictions
from sammed_bench.conditions import Conditions
from sammed_bench.files import write_json
from sammed_bench.openings import stored_hash
from sammed_bench.run import Outcome
from sammed_bench.types import ModelFacts
from sammed_data.types import UsageError

RECORD = "bench.json"
# The suite that rows belong to, for whoever verifies them.
SUITE = "suite.yaml"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the record says of one model.

    Attributes:
        failed: rows that failed.
        seconds: that its rows took; None where they were found.
    """

    facts: ModelFacts
    failed: int
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        facts = asdict(self.facts) | {"accepts": sorted(self.facts.accepts)}
        return facts | {"failed": self.failed, "seconds": self.seconds}

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Entry:
        """From :meth:`as_json`."""
        # Records of older versions lack fields that came later.
        facts = {f.name: raw[f.name] for f in fields(ModelFacts) if f.name in raw}
        facts |= {"accepts": frozenset(raw["accepts"]), "needs": tuple(raw.get("needs", ()))}
        made = ModelFacts(**facts)
        return cls(facts=made, failed=int(raw["failed"]), seconds=raw["seconds"])


def plain(conditions: Conditions) -> Any:
    """The conditions as JSON gives them back."""
    return json.loads(json.dumps(conditions.as_dict()))


def read_record(folder: Path) -> dict[str, Any]:
    """``bench.json`` of a results folder.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["conditions"]["protocol"]["name"]  # noqa: B018 - a record that has this is one
    except (OSError, ValueError, KeyError, TypeError) as err:
        said = err.strerror if isinstance(err, OSError) else f"{type(err).__name__}: {err}"
        raise UsageError(
            f"expected the record of a benchmark at {path}, found {said}: name a results folder of "
            "`sammed bench`"
        ) from err
    return dict(found)


def recorded(folder: Path) -> Any:
    """The conditions that a results folder was made under, or None."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("conditions")
    except json.JSONDecodeError:
        # A record half written by another tool claims nothing; it is written again at the end.
        return None


def numbered(results: Path, conditions: Conditions) -> Path:
    """The newest numbered folder if it has these conditions, else the next number."""
    numbers = [int(p.name) for p in results.glob("*") if p.is_dir() and p.name.isdigit()]
    last = max(numbers, default=0)
    newest = results / f"{last:03d}"
    if last and recorded(newest) == plain(conditions):
        return newest
    return results / f"{last + 1:03d}"


def claim(folder: Path, conditions: Conditions, models: Sequence[str], suite: str = "") -> None:
    """Make the folder and write down the conditions, refusing to mix two benchmarks.

    Args:
        folder: of the results.
        conditions: of what is about to be scored.
        models: labels in order.
        suite: its file's text, kept beside the rows.

    Raises:
        UsageError: the folder holds another benchmark or cannot be written.
    """
    before, now = recorded(folder), plain(conditions)
    if before is not None and before != now:
        differs = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        raise UsageError(
            f"expected a new folder or results of the same conditions at {folder}, found results "
            f"with another {', '.join(differs)}: give another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if before is None:
            write_json(folder / RECORD, {"conditions": now, "model_order": list(models)}, indent=2)
        if suite:
            (folder / SUITE).write_text(suite, encoding="utf-8")
    except OSError as err:
        raise UsageError(
            f"expected to write results to {folder}, found {err.strerror or err}: "
            "give another --out"
        ) from err


def drop_stale(folder: Path, outcome: Outcome) -> None:
    """Remove parts of the same label with other weights, so that rows are never mixed."""
    if not outcome.parts:
        return
    now = outcome.parts[0].name.rpartition("-")[0]
    prefix = now.rpartition("-")[0]
    for place in ("scores", "clicks", predictions.FOLDER):
        for path in (folder / place).glob(f"{prefix}-*-*.parquet"):
            found = path.name.rpartition("-")[0]
            if found.rpartition("-")[0] == prefix and found != now:
                path.unlink()


def write_record(
    folder: Path,
    conditions: Conditions,
    entries: Sequence[Entry],
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Write ``bench.json``; models of an earlier run in the same folder stay listed."""
    path = folder / RECORD
    old = json.loads(path.read_text(encoding="utf-8")).get("models", []) if path.is_file() else []
    before = {entry["name"]: entry for entry in old}
    listed = []
    for entry in entries:
        known = before.pop(entry.facts.name, {})
        # The time is that of the run that computed the rows, not of one that found them.
        seconds = known.get("seconds") if entry.seconds is None else round(entry.seconds, 2)
        listed.append(replace(entry, seconds=seconds).as_json())
    listed += before.values()
    content = {
        "conditions": plain(conditions),
        "model_order": [entry["name"] for entry in listed],
        "models": listed,
        "prompts_sha256": stored_hash((folder / "prompts").glob("part-*.parquet")),
        "notes": list(notes),
        "settings": dict(settings),
        "code_version": _version("sammed"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_json(path, content, indent=2)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree"
