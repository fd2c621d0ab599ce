"""What a model has seen of the data it is scored on: seen, not seen or unknown, with the reason.

Told from the records of training runs (``run.json``), from model cards with their declared sources,
and from datasets that share patients. What nobody declared is unknown, which is never clean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sammed_bench.files import read_records, update_records
from sammed_bench.types import OBSERVER, ModelFacts
from sammed_data.corpus import Corpus, Row
from sammed_data.lineage import Lineage, bundled_lineage, joined, lineage_of
from sammed_data.types import ModelError
from sammed_model.cards import find_card, find_place

SEEN, NOT_SEEN, UNKNOWN = "seen", "not seen", "unknown"
IN_SAMPLE, OVERLAPPING = "in-sample", "overlapping"
FILE = "lineage.json"
# Published collections: the name that cards use -> the catalogue's word; None = no medical images.
_COLLECTIONS = {"SA-1B": None, "SA-Med2D-20M": "sa_med2d_20m"}
_UNTRAINED = ("trivial", "oracle", OBSERVER)
# Settings of a run that do not decide its weights.
_MACHINE = (
    *("init", "device", "threads", "workers", "fast", "cache_bytes", "save_every"),
    *("cache_embeddings", "cache_disk_bytes"),
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a model was trained on.

    Attributes:
        datasets: ids of the catalogue or of corpora, whatever their split.
        corpus: those of them that came from the corpus with this content hash; '' = none.
        inside: datasets known to come from ``corpus`` alone.
        collections: published collections among its sources.
        undeclared: why there may be more; '' = all is declared.
    """

    datasets: frozenset[str] = frozenset()
    corpus: str = ""
    inside: frozenset[str] = frozenset()
    collections: frozenset[str] = frozenset()
    undeclared: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a model has seen a dataset's patients.

    Attributes:
        state: ``seen``, ``not seen`` or ``unknown``.
        stamp: ``in-sample``, ``overlapping``, ``unknown`` or ''.
        why: a sentence.
    """

    state: str
    stamp: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """Lineage of the catalogue and of a corpus, with the groups that share patients."""

    lineages: Mapping[str, Lineage]
    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, corpus: Corpus) -> Known:
        """The bundled catalogue, and what the corpus' manifest says of its datasets on top."""
        own = {str(d.get("id")): lineage_of(d) for d in corpus.manifest.get("datasets", ())}
        found = bundled_lineage()
        for name, lineage in own.items():
            before = found.get(name, Lineage())
            found[name] = Lineage(
                overlaps=(*before.overlaps, *lineage.overlaps),
                used_by=(*before.used_by, *lineage.used_by),
            )
        return cls(
            lineages=found, groups=joined({name: item.overlaps for name, item in found.items()})
        )

    def taken_by(self, collection: str) -> frozenset[str]:
        """The datasets that a published collection took."""
        return frozenset(n for n, item in self.lineages.items() if collection in item.used_by)


def training_of(facts: ModelFacts, known: Known) -> Training:
    """What a model was trained on, as declared."""
    if facts.kind in _UNTRAINED:
        return Training()
    return _of_file(facts.source, known, frozenset())


def _of_file(source: str, known: Known, before: frozenset[str]) -> Training:
    """What weights at a path, or of a card's name, were trained on, with what they started from."""
    if source == "random":
        return Training()
    path = find_place(source) if source else None
    if path is None or source in before:
        what = f"its start {source!r} is not here" if before else "nothing is declared about it"
        return Training(undeclared=what)
    record = path.parent / "run.json"
    if record.is_file():
        return _of_run(record, known, before | {source})
    card = find_card(path)
    if card is None:
        return Training(undeclared=f"no card records the file {path.name}")
    return _of_sources(card.training_sources, known)


def _of_run(record: Path, known: Known, before: frozenset[str]) -> Training:
    raw = _read_run(record)
    start = _of_file(str(raw.get("init", "")), known, before)
    names = frozenset(map(str, raw.get("datasets", ())))
    return replace(
        start,
        datasets=start.datasets | names,
        corpus=str(raw.get("corpus_sha256", "")),
        # What the start has seen too may have come from other patients.
        inside=names - start.datasets,
    )


def _read_run(record: Path) -> dict[str, Any]:
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(f"expected the record of a training run in {record}: {err}") from err
    if not isinstance(raw, dict):
        raise ModelError(f"expected the record of a training run in {record}, found other JSON")
    return raw


def _of_sources(sources: Iterable[str], known: Known) -> Training:
    """Declared sources: collections by name, datasets by id, the rest in words."""
    datasets: set[str] = set()
    collections: set[str] = set()
    words = []
    for source in sources:
        name = source.partition(" through ")[0]
        if name in _COLLECTIONS:
            collection = _COLLECTIONS[name]
            if collection is not None:
                collections.add(name)
                datasets |= known.taken_by(collection)
        elif name in known.lineages:
            datasets.add(name)
        else:
            words.append(source)
    undeclared = f"trained on {', '.join(words)}, not named one by one" if words else ""
    return Training(
        datasets=frozenset(datasets), collections=frozenset(collections), undeclared=undeclared
    )


def judge(
    training: Training,
    known: Known,
    *,
    dataset: str,
    split: str,
    units: Iterable[str],
    corpus_sha256: str,
) -> Verdict:
    """Whether a model has seen the patients of a dataset's split.

    Args:
        training: of the model.
        known: lineage.
        dataset: by id.
        split: of the corpus.
        units: what ``patient_id`` counts in its rows; only ``patient`` proves a split clean.
        corpus_sha256: content hash of the scored corpus.
    """
    shared = set(known.groups.get(dataset, ())) & training.datasets - {dataset}
    if dataset in training.datasets:
        same = training.corpus == corpus_sha256 and dataset in training.inside
        if not same:
            return Verdict(state=SEEN, stamp=IN_SAMPLE, why="trained on this dataset")
        if split in ("train", "validation"):
            why = "trained on these images" if split == "train" else "chosen by these images"
            return Verdict(state=SEEN, stamp=IN_SAMPLE, why=why)
    if shared:
        why = f"trained on {', '.join(sorted(shared))}, which may hold the same patients"
        return Verdict(state=SEEN, stamp=OVERLAPPING, why=why)
    if training.undeclared:
        return Verdict(state=UNKNOWN, stamp=UNKNOWN, why=training.undeclared)
    if dataset in training.datasets:
        if set(units) - {"patient"}:
            why = "trained on this dataset, whose patients are not known"
            return Verdict(state=UNKNOWN, stamp=UNKNOWN, why=why)
        return Verdict(state=NOT_SEEN, stamp="", why="trained on other patients of this dataset")
    if training.collections and dataset not in known.lineages:
        why = f"not in the catalogue, so its part in {', '.join(sorted(training.collections))}"
        return Verdict(state=UNKNOWN, stamp=UNKNOWN, why=f"{why} is not known")
    return Verdict(state=NOT_SEEN, stamp="", why="not among its training data")


def write(
    folder: Path, corpus: Corpus, rows: Sequence[Row], models: Iterable[ModelFacts]
) -> list[dict[str, Any]]:
    """Leave ``lineage.json``: a record per model, dataset and split, and of each model's run.

    Args:
        folder: results folder; models of an earlier run in it stay listed.
        corpus: scored.
        rows: its scored images.
        models: who answered.
    """
    known = Known.of(corpus)
    units: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        unit = str(row.meta.get("cluster") or "unknown")
        units.setdefault((row.dataset, row.split), set()).add(unit)
    found = []
    for facts in models:
        training = training_of(facts, known)
        for (dataset, split), kinds in sorted(units.items()):
            verdict = judge(
                training,
                known,
                dataset=dataset,
                split=split,
                units=kinds,
                corpus_sha256=corpus.content_hash,
            )
            found.append(
                {"model": facts.name, "dataset": dataset, "set": split, "state": verdict.state}
                | {"stamp": verdict.stamp, "why": verdict.why, "kind": facts.kind}
                | {"weights_sha256": facts.weights_sha256}
                | _seeds(facts)
            )
    update_records(folder / FILE, found)
    return found


def _seeds(facts: ModelFacts) -> dict[str, Any]:
    """Training seed, and what else a run was: runs that differ in their seed alone are a method."""
    record = Path(facts.source).parent / "run.json" if facts.source else None
    if record is None or not record.is_file():
        return {"training_seed": None, "method": None}
    raw = _read_run(record)
    config = dict(raw.get("config") or {})
    if not config:  # an older version recorded no settings: what it is a run of is not known
        return {"training_seed": None, "method": None}
    seed = config.pop("seed", None)
    start = "random" if raw.get("init") == "random" else raw.get("base_sha256")
    about = [
        raw.get("corpus_sha256"),
        start,
        {k: v for k, v in config.items() if k not in _MACHINE},
    ]
    return {"training_seed": seed, "method": json.dumps(about, sort_keys=True)}


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of a results folder; empty where an older version made it."""
    return read_records(folder / FILE)
