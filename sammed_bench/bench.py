"""A whole benchmark: choose images and models, score them, leave rows and their conditions."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

from sammed_bench import contamination, levels, predictions, run, speed
from sammed_bench.baselines import FALLBACK_RADIUS, training_radius, trivial_baselines
from sammed_bench.choose import Wanted, load
from sammed_bench.conditions import Conditions
from sammed_bench.editions import NATIVE, parse_edition
from sammed_bench.files import write_json
from sammed_bench.gallery import write_gallery
from sammed_bench.metric_cards import ALWAYS, in_order
from sammed_bench.openings import stored_hash
from sammed_bench.protocols import SAM_MED2D
from sammed_bench.protocols import Protocol as PromptProtocol
from sammed_bench.run import Outcome
from sammed_bench.scores import read_scores
from sammed_bench.surface import TOLERANCE
from sammed_bench.types import Model
from sammed_data.corpus import Corpus
from sammed_data.types import UsageError
from sammed_model.device import choose_device

RECORD = "bench.json"
# The suite that rows belong to, for whoever verifies them.
SUITE = "suite.yaml"


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
    """

    out: Path
    outcomes: tuple[Outcome, ...]
    images: int
    masks: int
    notes: tuple[str, ...] = ()

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
) -> BenchResult:
    """Score models on a corpus, beside the trivial baselines; finished parts are kept.

    Args:
        corpus_root: built corpus.
        wanted: models by name and file, or loaded already.
        config: what is asked.
        out: results folder; None = the newest of ``results`` if it has the same conditions, else
            the next number.
        results: parent of numbered results folders.
        report: who is told.

    Raises:
        SammedError: corpus, models or folder do not do.
    """
    notes = _Notes(report or Silent())
    if config.threads:
        torch.set_num_threads(config.threads)
    device = str(choose_device(config.device))
    corpus = Corpus(corpus_root)
    conditions = _conditions(corpus, config, notes)
    for said in config.remarks:
        notes.add(said)
    models = [_loaded(w, device, config, notes) for w in wanted]
    for w, model in zip(wanted, models, strict=True):
        notes.report.note(_introduction(model, w.why if isinstance(w, Wanted) else "given"))
    everybody = [*models, *_baselines(corpus, config, notes)]
    folder = out or _numbered(results, conditions)
    _claim(folder, conditions, [m.facts.name for m in everybody])
    if config.suite_text:
        (folder / SUITE).write_text(config.suite_text, encoding="utf-8")
    samples = run.reader(corpus, conditions)
    if _bites(corpus, conditions):
        notes.add(f"only the first {len(samples)} images are scored (--limit {config.limit})")
    notes.report.note(
        f"{len(samples)} images with {samples.n_masks} masks of {', '.join(conditions.splits)}; "
        f"modes {', '.join(config.modes)}; results in {folder}"
    )
    scored = []
    for model in everybody:
        notes.report.start(model.facts.name, len(samples))
        began = time.perf_counter()
        outcome = run.bench_corpus(
            corpus,
            model,
            conditions,
            out=folder,
            batch=config.batch,
            device=device,
            samples=samples,
            progress=notes.report.advance,
            keep=config.keep_predictions,
        )
        scored.append((model, outcome, time.perf_counter() - began))
        _drop_stale(folder, outcome)
        _remark(outcome, notes)
    settings = {"corpus": str(corpus.root)} | asdict(config) | {"device": device}
    settings |= {"protocol": config.protocol.name}
    for name in ("suite_text", "remarks"):
        del settings[name]
    _record(folder, conditions, scored, notes.said, settings)
    contamination.write(folder, corpus, samples.rows, [m.facts for m in everybody])
    if config.speed:
        timed = [speed.measure(model, samples, conditions, device) for model in models]
        speed.write(folder, timed)
    if config.keep_predictions:
        levels.write(folder, samples, conditions)
    if config.gallery:
        write_gallery(folder, read_scores(folder), models, samples, conditions, device)
    return BenchResult(
        out=folder,
        outcomes=tuple(outcome for _, outcome, _ in scored),
        images=len(samples),
        masks=samples.n_masks,
        notes=tuple(notes.said),
    )


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
    notes, corpus = _Notes(Silent()), Corpus(corpus_root)
    conditions = _conditions(corpus, config, notes)
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


def _loaded(wanted: Wanted | Model, device: str, config: BenchConfig, notes: _Notes) -> Model:
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


class _Notes:
    """What is told to the user and kept in the record."""

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self.said: list[str] = []

    def add(self, text: str) -> None:
        self.said.append(text)
        self.report.note(text)


def _conditions(corpus: Corpus, config: BenchConfig, notes: _Notes) -> Conditions:
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


def _remark(outcome: Outcome, notes: _Notes) -> None:
    if outcome.failed:
        notes.add(
            f"{outcome.model}: {outcome.failed} answers failed and count as Dice 0; "
            f"the first: {outcome.first_error}"
        )
    if outcome.reused:
        notes.report.note(f"{outcome.model}: {outcome.reused} rows were there already")


def _baselines(corpus: Corpus, config: BenchConfig, notes: _Notes) -> list[Model]:
    if not config.baselines:
        return []
    radius = training_radius(corpus.index(["train"]))
    if radius is None:
        notes.add(
            f"the corpus has no training masks: click-disc uses a radius of {FALLBACK_RADIUS} of "
            "the short side"
        )
    return list(trivial_baselines(FALLBACK_RADIUS if radius is None else radius))


def _numbered(results: Path, conditions: Conditions) -> Path:
    """The newest numbered folder if it has these conditions, else the next number."""
    numbers = [int(p.name) for p in results.glob("*") if p.is_dir() and p.name.isdigit()]
    last = max(numbers, default=0)
    newest = results / f"{last:03d}"
    if last and _recorded(newest) == _plain(conditions):
        return newest
    return results / f"{last + 1:03d}"


def _plain(conditions: Conditions) -> Any:
    return json.loads(json.dumps(conditions.as_dict()))


def _recorded(folder: Path) -> Any:
    """The conditions that a results folder was made under, or None."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("conditions")
    except json.JSONDecodeError:
        # A record half written by another tool claims nothing; it is written again at the end.
        return None


def _claim(folder: Path, conditions: Conditions, models: Sequence[str]) -> None:
    """Make the folder and write down the conditions, refusing to mix two benchmarks.

    Raises:
        UsageError: the folder holds another benchmark or cannot be written.
    """
    before, now = _recorded(folder), _plain(conditions)
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
    except OSError as err:
        raise UsageError(
            f"expected to write results to {folder}, found {err.strerror or err}: "
            "give another --out"
        ) from err


def _drop_stale(folder: Path, outcome: Outcome) -> None:
    """Remove parts of the same label with other weights, so that rows are never mixed."""
    prefix = outcome.parts[0].name.rsplit("-", 2)[0] if outcome.parts else None
    if prefix is None:
        return
    keep = {path.name for path in outcome.parts}
    for place in ("scores", "clicks", predictions.FOLDER):
        for path in (folder / place).glob(f"{prefix}-*-*.parquet"):
            if path.name.rsplit("-", 2)[0] == prefix and path.name not in keep:
                path.unlink()


def _record(
    folder: Path,
    conditions: Conditions,
    scored: Sequence[tuple[Model, Outcome, float]],
    notes: Sequence[str],
    settings: dict[str, Any],
) -> None:
    """Write ``bench.json``; models of an earlier run in the same folder stay listed."""
    path = folder / RECORD
    old = json.loads(path.read_text(encoding="utf-8")).get("models", []) if path.is_file() else []
    before = {entry["name"]: entry for entry in old}
    entries = []
    for model, outcome, seconds in scored:
        facts = model.facts
        known = before.pop(facts.name, {})
        entries.append(
            {
                "name": facts.name,
                "kind": facts.kind,
                "recipe": facts.recipe,
                "weights_sha256": facts.weights_sha256,
                "source": facts.source,
                "failed": outcome.failed,
                # Of the run that computed the rows, not of one that found them.
                "seconds": round(seconds, 2) if outcome.computed else known.get("seconds"),
            }
        )
    entries += before.values()
    content = {
        "conditions": _plain(conditions),
        "model_order": [entry["name"] for entry in entries],
        "models": entries,
        "prompts_sha256": stored_hash((folder / "prompts").glob("part-*.parquet")),
        "notes": list(notes),
        "settings": settings,
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
