"""A corpus and what is asked of it -> a suite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sammed_bench import metrics
from sammed_bench.editions import NATIVE
from sammed_bench.files import whole
from sammed_bench.metric_cards import ALWAYS
from sammed_bench.protocols import parse_protocol
from sammed_bench.suite import (
    LISTED,
    FrozenDataset,
    FrozenProtocol,
    Suite,
    digest_of,
    suite_text,
)
from sammed_bench.suite_check import Measured, frozen_view, measured
from sammed_bench.surface import TOLERANCE
from sammed_data.corpus import VIEWS, Corpus
from sammed_data.types import CorpusError, UsageError, nearest

_LOCK = "corpus.lock.yaml"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How the images of a new suite are to be scored.

    Attributes:
        datasets: empty = all of the corpus that have images in the splits.
        splits: of the corpus.
    """

    modes: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test", "held_out")
    protocols: tuple[str, ...] = ("sam-med2d",)
    metrics: tuple[str, ...] = ALWAYS
    tolerance: float = TOLERANCE
    edition: str = NATIVE
    seed: int = 0


def freeze(corpus: Corpus, asked: Asked, *, name: str, version: int = 1, about: str = "") -> Suite:
    """State what the corpus holds of some datasets and how it is scored.

    Raises:
        UsageError: a dataset that the corpus does not hold in these splits.
        CorpusError: rows without content hashes.
    """
    there = {row.dataset for row in corpus.index(asked.splits)}
    ids = tuple(sorted(asked.datasets or there))
    _refuse_unknown(ids, there, corpus)
    lock = _lock(corpus.root)
    found = measured(corpus, ids, asked.splits)
    return Suite(
        name=name,
        version=version,
        about=about,
        splits=asked.splits,
        options=_plain(corpus.manifest.get("options") or {}),
        datasets=tuple(_dataset(name, found[name], lock) for name in ids),
        protocols=tuple(
            FrozenProtocol(name=p.name, hash=p.hash) for p in map(parse_protocol, asked.protocols)
        ),
        modes=asked.modes,
        metrics=asked.metrics,
        metrics_version=metrics.VERSION,
        tolerance=asked.tolerance,
        edition=asked.edition,
        seed=asked.seed,
        views=tuple(frozen_view(view) for view in VIEWS),
    )


def freeze_rest(corpus: Corpus, suite: Suite, only: Sequence[str] = ()) -> Suite:
    """The suite with what it lacked of its datasets taken from a corpus.

    Args:
        corpus: that holds some of the datasets.
        suite: with unfrozen datasets.
        only: these of them; empty = all that the corpus has.

    Raises:
        UsageError: the corpus has none of them, or a dataset is not of the suite.
        CorpusError: a catalogue version other than the suite's.
    """
    for name in only:
        if name not in suite.ids:
            raise UsageError(
                f"expected a dataset of suite {suite.name}, found {name!r} "
                f"({nearest(name, suite.ids)})"
            )
    wanted = [name for name in suite.unfrozen if name in (only or suite.ids)]
    found = measured(corpus, wanted, suite.splits)
    if not found or set(only) - set(found):
        lacking = ", ".join(sorted(set(only or wanted) - set(found))) or "any unfrozen dataset"
        raise UsageError(
            f"expected images of {lacking} in {', '.join(suite.splits)} of {corpus.root}, found "
            f"none: build them into the corpus first ({'; '.join(suite.how)})"
        )
    lock = _lock(corpus.root)
    made = []
    for dataset in suite.datasets:
        if dataset.id not in found:
            made.append(dataset)
            continue
        frozen = _dataset(dataset.id, found[dataset.id], lock)
        if frozen.version != dataset.version:
            raise CorpusError(
                f"expected {dataset.id} of catalogue version {dataset.version} in {corpus.root}, "
                f"found {frozen.version}: build it with the entry of this sammed"
            )
        made.append(replace(frozen, rule=dataset.rule))
    options = suite.options or _plain(corpus.manifest.get("options") or {})
    return replace(suite, datasets=tuple(made), options=options)


def refuse_there(path: Path) -> None:
    """Raise a UsageError if the file of a suite is there already."""
    if path.exists():
        raise UsageError(f"expected a new file at {path}, found one: give another --out")


def write_suite(path: Path, suite: Suite) -> None:
    """Write a suite file.

    Raises:
        UsageError: it is there already, or cannot be written.
    """
    refuse_there(path)
    try:
        with whole(path) as partial:
            partial.write_text(suite_text(suite), encoding="utf-8")
    except OSError as err:
        raise UsageError(
            f"expected to write a suite to {path}, found {err.strerror or err}: give another --out"
        ) from err


def _dataset(name: str, found: Measured, lock: Mapping[str, Any]) -> FrozenDataset:
    if len(found.versions) != 1:
        there = ", ".join(map(str, sorted(found.versions)))
        raise CorpusError(
            f"expected {name} of one catalogue version, found {there}: build it anew as a whole"
        )
    source = lock.get(name, {})
    short = len(found.samples) <= LISTED
    return FrozenDataset(
        id=name,
        version=min(found.versions),
        images=len(found.samples),
        masks=found.masks,
        samples=found.samples if short else (),
        samples_sha256="" if short else digest_of(found.samples),
        content_sha256=found.content_sha256,
        archives=dict(source.get("archives") or {}),
        tree_sha256=str(source.get("tree_sha256") or ""),
    )


def _lock(root: Path) -> dict[str, Any]:
    """The sources of ``corpus.lock.yaml``; empty where the corpus has none."""
    path = root / _LOCK
    if not path.is_file():
        return {}
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = raw.get("sources") if isinstance(raw, dict) else None
    return found if isinstance(found, dict) else {}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sorted(options.items()) if value is not None}


def _refuse_unknown(ids: Sequence[str], there: set[str], corpus: Corpus) -> None:
    unknown = [name for name in ids if name not in there]
    if unknown or not ids:
        named = ", ".join(f"{n!r} ({nearest(n, there)})" for n in unknown) or "none"
        raise UsageError(
            f"expected datasets with images in these splits of {corpus.root}, found {named}"
        )
