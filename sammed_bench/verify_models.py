"""The models of a results folder, loaded again: by the record, or from where the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sammed_bench.baselines import FALLBACK_RADIUS, training_radius, trivial_baselines
from sammed_bench.choose import Wanted, load, parse_model
from sammed_bench.editions import NATIVE
from sammed_bench.tables import TRIVIAL
from sammed_bench.types import Model
from sammed_data.corpus import Corpus
from sammed_data.types import ModelError, UsageError, nearest
from sammed_model.cards import find_place


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model, and what of it is not as the record says."""

    model: Model
    problems: tuple[str, ...] = ()


def load_models(
    record: Mapping[str, Any],
    corpus: Corpus,
    device: str,
    given: Mapping[str, str | Model],
    skip: Sequence[str],
) -> dict[str, Loaded]:
    """Label -> model, of all that the record lists and the user does not skip.

    Args:
        record: ``bench.json``.
        corpus: whose training masks the trivial baselines take their radius from.
        device: where to run.
        given: label -> ``PATH[:KIND]`` or ``module:factory``, or the model itself.
        skip: labels.

    Raises:
        UsageError: a label that the record does not list.
        ModelError: models that are not at hand.
    """
    entries = {entry["name"]: entry for entry in record.get("models", [])}
    for label in [*given, *skip]:
        if label not in entries:
            raise UsageError(
                f"expected a model of these results, found {label!r}: {nearest(label, entries)}"
            )
    settings = record.get("settings", {})
    asked = {raw["label"]: Wanted.of(raw) for raw in settings.get("models", [])}
    radius = training_radius(corpus.index(["train"]))
    baselines = {
        model.facts.name: model
        for model in trivial_baselines(FALLBACK_RADIUS if radius is None else radius)
    }
    found: dict[str, Loaded] = {}
    lacking: list[str] = []
    for label, entry in entries.items():
        if label in skip:
            continue
        if label not in given and entry["kind"] == TRIVIAL and label in baselines:
            found[label] = _judged(baselines[label], entry)
            continue
        try:
            wanted = asked.get(label) or _by_source(entry)
            model = _model(label, given.get(label), wanted, settings, device)
        except ModelError as err:
            lacking.append(f"{label} ({err})")
            continue
        found[label] = _judged(model, entry)
    if lacking:
        raise ModelError(
            f"expected all models of these results at hand, found none of {'; '.join(lacking)}: "
            "give --model LABEL=PATH, or --skip LABEL to leave its rows unverified"
        )
    return found


def _by_source(entry: Mapping[str, Any]) -> Wanted | None:
    """Where records that do not list how models were asked for say they came from."""
    path = Path(entry.get("source") or "nowhere")
    return Wanted(label=entry["name"], path=path, kind=entry["kind"]) if path.is_file() else None


def _model(
    label: str,
    given: str | Model | None,
    asked: Wanted | None,
    settings: Mapping[str, Any],
    device: str,
) -> Model:
    if given is not None and not isinstance(given, str):
        return given
    wanted = asked if given is None else parse_model(f"{label}={given}")
    if wanted is None:
        raise ModelError("bench.json does not say where it came from")
    if given is not None and wanted.path is not None:
        place = find_place(wanted.path) or wanted.path
        wanted = Wanted(label=label, path=Path(place), kind=wanted.kind)
    fast, edition = settings.get("fast", True), settings.get("edition", NATIVE)
    return load(wanted, device, fast=fast, edition=edition)


def _judged(model: Model, entry: Mapping[str, Any]) -> Loaded:
    """The model, and whether it is the one of the record."""
    facts = model.facts
    here = {"weights_sha256": facts.weights_sha256, "kind": facts.kind, "recipe": facts.recipe}
    wrong = [
        f"{entry['name']} has {name} {str(value)[:12]} here, bench.json says "
        f"{str(entry[name])[:12]}: its rows were not scored again"
        for name, value in here.items()
        if entry[name] != value
    ]
    return Loaded(model=model, problems=tuple(wrong))
