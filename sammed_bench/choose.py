"""Which models are scored: by label and file, or what lies in ``./runs``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sammed_bench.baselines import TRIVIAL_NAMES
from sammed_bench.editions import NATIVE
from sammed_bench.models import (
    MODELS,
    STAR,
    WEIGHT_NAMES,
    from_factory,
    known_kind,
    renamed,
    sam_from_file,
)
from sammed_bench.sam2_adapter import KIND as SAM2
from sammed_bench.sam2_adapter import sam2_from_file
from sammed_bench.saved import KIND as SAVED
from sammed_bench.saved import SavedPredictions
from sammed_bench.tables import CONTROL_SUFFIX
from sammed_bench.types import Model
from sammed_data.types import ModelError, UsageError, nearest
from sammed_model.cards import find_place
from sammed_model.types import KINDS


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One model as asked for.

    Attributes:
        label: name in the tables.
        path: weight file, or None.
        kind: of the weights where the user said it.
        factory: ``package.module:function``, or None.
        why: where the choice came from, for the printed list.
    """

    label: str
    path: Path | None = None
    kind: str | None = None
    factory: str | None = None
    why: str = "asked for"

    def as_json(self) -> dict[str, Any]:
        """Where the model is found again; files by their whole path."""
        path = None if self.path is None else str(self.path.absolute())
        return {"label": self.label, "path": path, "kind": self.kind, "factory": self.factory}

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Wanted:
        """From :meth:`as_json`."""
        path = None if raw["path"] is None else Path(raw["path"])
        return cls(label=raw["label"], path=path, kind=raw["kind"], factory=raw["factory"])


def parse_model(text: str) -> Wanted:
    """``LABEL``, or ``LABEL=`` and ``PATH[:KIND]``, ``module:factory``, ``predictions:DIR``.

    Also ``sam2:CHECKPOINT``.

    Raises:
        UsageError: empty parts.
    """
    label, equals, rest = (part.strip() for part in text.partition("="))
    if not label or (equals and not rest):
        raise UsageError(
            f"expected --model LABEL=PATH, LABEL=PATH:KIND, LABEL=package.module:factory or a "
            f"known name, found {text!r}"
        )
    if not rest:
        if ":" in label and "/" not in label:
            return Wanted(label=label.partition(":")[2], factory=label)
        return Wanted(label=label)
    for kind in (SAVED, SAM2):
        if rest.startswith(f"{kind}:"):
            return Wanted(label=label, path=Path(rest.removeprefix(f"{kind}:")), kind=kind)
    path, _, last = rest.rpartition(":")
    if path and not Path(rest).exists():
        if last in KINDS or last == STAR:
            return Wanted(label=label, path=Path(path), kind=last)
        if "/" not in rest and not Path(path).exists() and last.isidentifier():
            return Wanted(label=label, factory=rest)
        if Path(path).exists():
            known_kind(last)
    return Wanted(label=label, path=Path(rest))


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A finished training run."""

    folder: Path
    number: int
    record: dict[str, Any]

    @property
    def label(self) -> str:
        """Method, with ``-permuted`` behind for a control."""
        suffix = "" if self.record.get("control", "none") == "none" else CONTROL_SUFFIX
        return str(self.record.get("method", "model")) + suffix


def finished_runs(runs: Path) -> list[FoundRun]:
    """Runs with a record and weights, the newest first.

    Raises:
        ModelError: a record is no JSON.
    """
    found = []
    for record in runs.glob("*/run.json"):
        number, _, _ = record.parent.name.partition("-")
        if not number.isdigit() or not (record.parent / "model.safetensors").is_file():
            continue
        try:
            raw = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise _no_record(record, str(err)) from err
        if not isinstance(raw, dict):
            raise _no_record(record, f"a {type(raw).__name__}")
        found.append(FoundRun(folder=record.parent, number=int(number), record=raw))
    return sorted(found, key=lambda run: -run.number)


def _no_record(record: Path, found: str) -> ModelError:
    return ModelError(
        f"expected the record of a training run in {record}, found {found}: remove the run, train "
        "again, or name weights with --model LABEL=PATH"
    )


def newest(runs: Path) -> list[Wanted]:
    """The start of the newest run, and the newest run of each method and control.

    Raises:
        ModelError: there are no finished runs.
    """
    by_label: dict[str, FoundRun] = {}
    for run in finished_runs(runs):
        by_label.setdefault(run.label, run)
    if not by_label:
        raise ModelError(
            f"expected finished training runs in {runs} (NNN-method/run.json), found none: run "
            "`sammed train`, or name weights with --model LABEL=PATH[:KIND]"
        )
    chosen = [
        Wanted(label=label, path=run.folder / "model.safetensors", why=f"newest run {run.folder}")
        for label, run in sorted(by_label.items(), key=lambda item: _rank(item[0]))
    ]
    start = _start(by_label.values())
    return [*([start] if start else []), *chosen]


def _rank(label: str) -> tuple[bool, int, str]:
    plain = label.removesuffix(CONTROL_SUFFIX)
    place = WEIGHT_NAMES.index(plain) if plain in WEIGHT_NAMES else len(WEIGHT_NAMES)
    return label.endswith(CONTROL_SUFFIX), place, label


def _start(runs: Any) -> Wanted | None:
    """The weights that the newest run started from, if they are a file that is still there."""
    for run in sorted(runs, key=lambda r: -r.number):
        init = run.record.get("init", "random")
        place = find_place(init) if init != "random" else None
        if place:
            return Wanted(label="sam", path=place, why=f"start of {run.folder}")
    return None


def choose(asked: Sequence[str], runs: Path) -> list[Wanted]:
    """What ``--model`` says, with missing paths filled in from the newest runs.

    Raises:
        UsageError: an unknown name, or one label twice.
        ModelError: no weights for a known name.
    """
    if not asked:
        return newest(runs)
    wanted = [parse_model(text) for text in asked]
    labels = [w.label for w in wanted]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UsageError(f"--model gives the label {twice[0]!r} twice: give each its own")
    taken = [label for label in labels if label in TRIVIAL_NAMES]
    if taken:
        raise UsageError(
            f"--model gives the label {taken[0]!r}, which is a trivial baseline that every "
            "benchmark scores: give another label"
        )
    return [_complete(w, runs) for w in wanted]


def _complete(wanted: Wanted, runs: Path) -> Wanted:
    if wanted.path:
        return replace(wanted, path=find_place(wanted.path) or wanted.path)
    if wanted.factory or wanted.label in MODELS:
        return wanted
    there = newest(runs) if finished_runs(runs) else []
    for found in there:
        if found.label == wanted.label:
            return found
    if wanted.label in WEIGHT_NAMES:
        raise ModelError(
            f"expected weights for {wanted.label!r}, found no such run in {runs}: "
            f"give --model {wanted.label}=PATH, or `sammed weights fetch NAME` and "
            f"--model {wanted.label}=NAME (`sammed weights list` has the names)"
        )
    if place := find_place(wanted.label):
        return replace(wanted, path=place, why="weights by name")
    known = [*MODELS, *WEIGHT_NAMES, *(w.label for w in there)]
    raise UsageError(f"unknown model {wanted.label!r}: {nearest(wanted.label, known)}")


def load(wanted: Wanted, device: str, *, fast: bool = True, edition: str = NATIVE) -> Model:
    """The model itself; ``fast`` False lets a SAM encode by upstream's own forward.

    Raises:
        ModelError: it cannot be loaded.
    """
    if wanted.factory:
        return from_factory(wanted.label, wanted.factory)
    if wanted.path is None:
        return renamed(MODELS[wanted.label](), wanted.label)
    if wanted.kind == SAVED:
        return SavedPredictions(wanted.label, wanted.path)
    if wanted.kind == SAM2:
        return sam2_from_file(wanted.label, wanted.path, device=device)
    loaded = sam_from_file(
        wanted.label, wanted.path, kind=wanted.kind, device=device, edition=edition
    )
    loaded.model.fast = fast
    return loaded
