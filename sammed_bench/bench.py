"""A whole benchmark: choose images and models, score them, leave rows and their conditions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from sammed_bench import contamination, levels, part_notes, run, speed
from sammed_bench.ask import accepts
from sammed_bench.baselines import FALLBACK_RADIUS, training_radius, trivial_baselines
from sammed_bench.choose import Wanted, load
from sammed_bench.conditions import Conditions
from sammed_bench.editions import NATIVE, parse_edition
from sammed_bench.gallery import write_gallery
from sammed_bench.metric_cards import ALWAYS, in_order
from sammed_bench.protocols import SAM_MED2D
from sammed_bench.protocols import Protocol as PromptProtocol
from sammed_bench.record import Entry, claim, drop_stale, numbered, write_record
from sammed_bench.run import Outcome
from sammed_bench.scores import read_scores
from sammed_bench.surface import TOLERANCE
from sammed_bench.types import Model
from sammed_data.corpus import Corpus
from sammed_data.part import Part
from sammed_data.types import UsageError
from sammed_model.dataset import Samples
from sammed_model.device import choose_device


class Reporter(Protocol):
    """Who is told how a benchmark goes."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def start(self, label: str, images: int) -> None:
        """A model begins."""

    def advance(self, images: int) -> None:
        """So many more images are done."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None:
        """Ignore."""

    def start(self, label: str, images: int) -> None:
        """Ignore."""

    def advance(self, images: int) -> None:
        """Ignore."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is benchmarked and how.

    Attributes:
        modes: prompt modes.
        splits: None = test and held-out sets, or what stands in for them.
        seed: of the prompts.
        limit: first so many images only; recorded.
        batch: images encoded together.
        fast: encode by the fast path (same numbers to rounding), not by upstream's forward.
        baselines: score the trivial baselines beside the models.
        gallery: draw worst, median and best cases.
        metrics: what is measured.
        tolerance: of the normalised surface Dice, in mm, or px where the spacing is unknown.
        protocol: how prompts are drawn.
        edition: how models are fed, ``native`` or ``as-released``.
        speed: measure latency, throughput and memory beside the scores.
        keep_predictions: leave the masks beside the scores, with scores of images and volumes.
        datasets: only these; empty = all.
        timeout: seconds that a model may take for one image; one that takes longer failed.
        suite: name and digest of the suite that these settings come from (``suite_run``).
        suite_text: its file, left beside the rows.
        remarks: what was found out beforehand and belongs into the record.
    """

    modes: tuple[str, ...] = ("1pt", "bbox", "5pt")
    splits: tuple[str, ...] | None = None
    seed: int = 0
    limit: int | None = None
    batch: int = 8
    device: str = "auto"
    threads: int | None = None
    fast: bool = True
    baselines: bool = True
    gallery: bool = True
    metrics: tuple[str, ...] = ALWAYS
    tolerance: float = TOLERANCE
    protocol: PromptProtocol = SAM_MED2D
    edition: str = NATIVE
    keep_predictions: bool = False
    speed: bool = False
    datasets: tuple[str, ...] = ()
    timeout: float | None = None
    suite: str = ""
    suite_sha256: str = ""
    suite_text: str = field(default="", repr=False)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise UsageError(f"--tolerance must be above 0, found {self.tolerance}")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"--timeout must be above 0 seconds, found {self.timeout}")
        parse_edition(self.edition)
        for name, low in (("limit", 1), ("batch", 1), ("threads", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name} must be at least {low}, found {value}")


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A finished benchmark.

    Attributes:
        out: results folder.
        outcomes: one per model, baselines included.
        notes: what was said.
        missing: other parts without which the benchmark is not finished; empty = it is.
    """

    out: Path
    outcomes: tuple[Outcome, ...]
    images: int
    masks: int
    notes: tuple[str, ...] = ()
    missing: tuple[Part, ...] = ()

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return sum(outcome.failed for outcome in self.outcomes)


def bench(
    corpus_root: Path,
    wanted: Sequence[Wanted | Model],
    config: BenchConfig,
    *,
    out: Path | None = None,
    results: Path = Path("results"),
    report: Reporter | None = None,
    part: Part | None = None,
    known_seconds: Mapping[str, float] | None = None,
) -> BenchResult:
    """Score models on a corpus, beside the trivial baselines; finished chunks are kept.

    Args:
        corpus_root: built corpus.
        wanted: models by name and file, or loaded already.
        config: what is asked.
        out: results folder; None = the newest of ``results`` if it has the same conditions, else
            the next number.
        results: parent of numbered results folders.
        report: who is told.
        part: score this share of the images only; whoever scores the last one finishes.
        known_seconds: by label, of rows that other processes have just computed.

    Raises:
        SammedError: corpus, models or folder do not do.
    """
    if part is not None and out is None:
        raise UsageError("--part needs --out: all parts write to one folder")
    notes = Notes(report or Silent())
    ready = prepare(corpus_root, wanted, config, notes)
    folder = out or numbered(results, ready.conditions)
    claim(folder, ready.conditions, [m.facts.name for m in ready.everybody], config.suite_text)
    samples, conditions = ready.samples, ready.conditions
    notes.report.note(
        f"{len(samples)} images with {samples.n_masks} masks of {', '.join(conditions.splits)}; "
        f"modes {', '.join(config.modes)}; results in {folder}"
    )
    chunks = run.chunk_count(len(samples))
    outcomes = []
    entries = []
    for model in ready.everybody:
        outcome, seconds = score(ready, model, folder, part_notes.share(chunks, part), notes)
        drop_stale(folder, outcome)
        _remark(outcome, notes)
        outcomes.append(outcome)
        spent = (known_seconds or {}).get(model.facts.name, seconds if outcome.computed else None)
        entries.append(Entry(facts=model.facts, failed=outcome.failed, seconds=spent))
    settings = _settings(ready, wanted, config)
    missing: tuple[Part, ...] = ()
    if part is not None:
        part_notes.write(folder, part, conditions, entries, notes.said, settings)
        missing = part_notes.missing(folder, conditions, part.count)
        if not missing:
            entries, notes.said = part_notes.together(folder, conditions, part.count)
    if not missing:
        finish(folder, ready, entries, notes.said, settings)
    return BenchResult(
        out=folder,
        outcomes=tuple(outcomes),
        images=len(samples),
        masks=samples.n_masks,
        notes=tuple(notes.said),
        missing=missing,
    )


@dataclass(frozen=True, kw_only=True)
class Ready:
    """All that scoring needs, loaded.

    Attributes:
        models: those asked for.
        everybody: trivial baselines too.
    """

    corpus: Corpus
    config: BenchConfig
    conditions: Conditions
    models: list[Model]
    everybody: list[Model]
    samples: Samples
    device: str


def prepare(
    corpus_root: Path, wanted: Sequence[Wanted | Model], config: BenchConfig, notes: Notes
) -> Ready:
    """Open the corpus and load the models.

    Raises:
        SammedError: corpus or models do not do.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = str(choose_device(config.device))
    corpus = Corpus(corpus_root)
    conditions = conditions_for(corpus, config, notes)
    for said in config.remarks:
        notes.add(said)
    models = [_loaded(w, device, config, notes) for w in wanted]
    for w, model in zip(wanted, models, strict=True):
        notes.report.note(_introduction(model, w.why if isinstance(w, Wanted) else "given"))
    samples = run.reader(corpus, conditions)
    if _bites(corpus, conditions):
        notes.add(f"only the first {len(samples)} images are scored (--limit {config.limit})")
    return Ready(
        corpus=corpus,
        config=config,
        conditions=conditions,
        models=models,
        everybody=[*models, *_baselines(corpus, config, notes)],
        samples=samples,
        device=device,
    )


def score(
    ready: Ready, model: Model, folder: Path, numbers: Sequence[int], notes: Notes
) -> tuple[Outcome, float]:
    """Score one model on some chunks of the images: what came of it, and the seconds it took."""
    notes.report.start(model.facts.name, run.images_in(len(ready.samples), numbers))
    began = time.perf_counter()
    outcome = run.bench_corpus(
        ready.corpus,
        model,
        ready.conditions,
        out=folder,
        batch=ready.config.batch,
        device=ready.device,
        samples=ready.samples,
        progress=notes.report.advance,
        keep=ready.config.keep_predictions,
        numbers=numbers,
    )
    return outcome, time.perf_counter() - began


def finish(
    folder: Path,
    ready: Ready,
    entries: Sequence[Entry],
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """All rows are there: write the record and what is made of them as a whole."""
    samples, conditions, config = ready.samples, ready.conditions, ready.config
    write_record(folder, conditions, entries, notes, settings)
    contamination.write(folder, ready.corpus, samples.rows, [entry.facts for entry in entries])
    if config.speed:
        timed = [speed.measure(m, samples, conditions, ready.device) for m in ready.models]
        speed.write(folder, timed)
    if config.keep_predictions:
        levels.write(folder, samples, conditions)
    if config.gallery:
        scores = read_scores(folder)
        write_gallery(folder, scores, ready.models, samples, conditions, ready.device)


def _settings(
    ready: Ready, wanted: Sequence[Wanted | Model], config: BenchConfig
) -> dict[str, Any]:
    """How it was run, and where the models came from, for the record."""
    settings = {"corpus": str(ready.corpus.root)} | asdict(config) | {"device": ready.device}
    settings |= {"protocol": config.protocol.name, "threads": torch.get_num_threads()}
    for name in ("suite_text", "remarks"):
        del settings[name]
    return settings | {"models": [w.as_json() for w in wanted if isinstance(w, Wanted)]}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a benchmark would score."""

    images: int
    masks: int
    rows: int
    models: tuple[str, ...]
    conditions: dict[str, Any]


def survey(corpus_root: Path, wanted: Sequence[Wanted], config: BenchConfig) -> Survey:
    """Count what :func:`bench` would do; no model is loaded and nothing is written.

    Raises:
        SammedError: corpus or conditions do not do.
    """
    notes, corpus = Notes(Silent()), Corpus(corpus_root)
    conditions = conditions_for(corpus, config, notes)
    samples = run.reader(corpus, conditions)
    models = [w.label for w in wanted]
    models += [m.facts.name for m in _baselines(corpus, config, notes)]
    return Survey(
        images=len(samples),
        masks=samples.n_masks,
        rows=samples.n_masks * len(config.modes) * len(models),
        models=tuple(models),
        conditions=conditions.as_dict(),
    )


def _loaded(wanted: Wanted | Model, device: str, config: BenchConfig, notes: Notes) -> Model:
    """The model; one that brings its own two methods keeps its own convention."""
    if not isinstance(wanted, Wanted):
        return wanted
    model = load(wanted, device, fast=config.fast, edition=config.edition)
    if wanted.path is None and config.edition != NATIVE and model.facts.kind != "oracle":
        notes.add(f"{model.facts.name}: its own convention, also in edition {config.edition}")
    return model


def _bites(corpus: Corpus, conditions: Conditions) -> bool:
    """Whether the limit leaves an image out."""
    if conditions.limit is None:
        return False
    return len(run.bench_rows(corpus, replace(conditions, limit=None))) > conditions.limit


class Notes:
    """What is told to the user and kept in the record."""

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self.said: list[str] = []

    def add(self, text: str) -> None:
        """Tell it and keep it."""
        self.said.append(text)
        self.report.note(text)


def conditions_for(corpus: Corpus, config: BenchConfig, notes: Notes) -> Conditions:
    """All that a score depends on but the model; what stands in for a missing split is said."""
    splits, said = run.choose_splits(corpus, config.splits)
    if said:
        notes.add(said)
    return Conditions(
        corpus_sha256=corpus.content_hash,
        splits=splits,
        modes=config.modes,
        seed=config.seed,
        limit=config.limit,
        metrics=in_order(config.metrics),
        tolerance=config.tolerance,
        protocol=config.protocol,
        edition=config.edition,
        datasets=config.datasets,
        timeout=config.timeout,
        suite=config.suite,
        suite_sha256=config.suite_sha256,
    )


def _introduction(model: Model, why: str) -> str:
    facts = model.facts
    source = f", {facts.source}" if facts.source and facts.source not in why else ""
    return f"{facts.name}: {facts.recipe}{source} ({why})"


def _remark(outcome: Outcome, notes: Notes) -> None:
    if outcome.failed:
        notes.add(
            f"{outcome.model}: {outcome.failed} answers failed and count as Dice 0; "
            f"the first: {outcome.first_error}"
        )
    if outcome.reused:
        notes.report.note(f"{outcome.model}: {outcome.reused} rows were there already")


def _baselines(corpus: Corpus, config: BenchConfig, notes: Notes) -> list[Model]:
    if not config.baselines:
        return []
    radius = training_radius(corpus.index(["train"]))
    if radius is None:
        notes.add(
            f"the corpus has no training masks: click-disc uses a radius of {FALLBACK_RADIUS} of "
            "the short side"
        )
    known = trivial_baselines(FALLBACK_RADIUS if radius is None else radius)
    # A rule for prompts that nobody gives would only fill tables with "not supported".
    return [model for model in known if any(accepts(model, mode) for mode in config.modes)]
