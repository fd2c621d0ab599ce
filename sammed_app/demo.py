"""The whole road on phantoms: datasets, corpus, four trainings, benchmark, what it shows.

Read :func:`run_demo` first. Every stage leaves files that the plain commands would leave, and is
skipped when they are there already.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from sammed_app.findings import TRAINED, Finding, findings
from sammed_app.pretrain import Pretraining, pretrain
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.bench import Reporter as BenchReporter
from sammed_bench.choose import choose, finished_runs
from sammed_bench.report import Report, write_report
from sammed_bench.tables import CONTROL_SUFFIX
from sammed_data.build import BuildResult, build
from sammed_data.corpus import Corpus
from sammed_data.phantom import PHANTOMS, write_phantoms
from sammed_data.types import ModelError, UsageError
from sammed_model.cards import SHIPPED
from sammed_model.config import Control, Method, TrainConfig
from sammed_model.setup import Reporter as TrainReporter
from sammed_model.train import train

RECORD = "demo.json"
START = "vit_tiny_scenes.safetensors"
# Of torch: on tensors this small two threads were slower than one.
_THREADS = 1
_CONTROLS: tuple[Control, ...] = ("none", "permuted")


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """How large a demo is.

    Attributes:
        n_patients: of each phantom.
        steps: optimiser steps of each training.
        limit: images benchmarked; None = all of the test split and the held-out set.
        scratch_steps: limit for each stage of a pre-training, where one is asked for.
    """

    n_patients: int = 36
    steps: int = 300
    batch_images: int = 4
    masks_per_image: int = 5
    passes: int = 3
    lr: float = 8e-4
    validation_images: int = 16
    limit: int | None = None
    modes: tuple[str, ...] = ("bbox", "1pt", "5pt")
    scratch_steps: int | None = None
    seed: int = 0


QUICK = DemoPlan(
    n_patients=4, steps=4, passes=3, validation_images=4, limit=8, scratch_steps=2, batch_images=2
)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Where everything lies and what came out."""

    corpus: Path
    runs: tuple[Path, ...]
    results: Path
    report: Report
    findings: tuple[Finding, ...]
    seconds: dict[str, float]


class DemoReporter(Protocol):
    """Who is told how the demo goes."""

    def note(self, text: str) -> None:
        """A line."""

    def built(self, result: BuildResult, corpus: Path) -> None:
        """The corpus is there."""

    @contextmanager
    def training(self) -> Iterator[tuple[TrainReporter, Callable[[], bool]]]:
        """Follow one training; the function says whether the user wants to stop."""

    @contextmanager
    def benchmark(self) -> Iterator[BenchReporter]:
        """Follow the benchmark."""


def run_demo(
    folder: Path,
    plan: DemoPlan,
    report: DemoReporter,
    *,
    fresh: bool = False,
    from_scratch: bool = False,
    workers: int = 1,
) -> DemoResult:
    """Phantoms -> corpus -> start -> trainings and their controls -> benchmark -> findings.

    Args:
        folder: work folder, made if needed.
        plan: how large.
        report: who is told.
        fresh: do finished stages again.
        from_scratch: pre-train the start here instead of using the shipped weights.
        workers: processes of the build.

    Raises:
        SammedError: a stage failed; what was finished stays.
    """
    clock = _Clock(report)
    with clock.stage("phantoms"):
        _phantoms(folder, plan, fresh, report)
    corpus = folder / "corpus"
    with clock.stage("corpus"):
        built = build(folder / "catalogs", folder / "data", corpus, workers=workers)
        report.built(built, corpus)
    with clock.stage("start"):
        start = _start(folder, plan, fresh, from_scratch, report)
    runs = []
    for method in TRAINED:
        for control in _CONTROLS:
            config = _config(plan, method, control, start)
            with clock.stage(config.method + ("" if control == "none" else CONTROL_SUFFIX)):
                runs.append(_run(folder, config, fresh, report))
    with clock.stage("benchmark"), report.benchmark() as shown:
        wanted = choose([], folder / "runs")
        asked = BenchConfig(modes=plan.modes, limit=plan.limit, threads=_THREADS)
        scored = bench(corpus, wanted, asked, results=folder / "results", report=shown)
        tables = write_report(scored.out)
    return DemoResult(
        corpus=corpus,
        runs=tuple(runs),
        results=scored.out,
        report=tables,
        findings=tuple(findings(scored.out, plan.modes)),
        seconds=clock.seconds,
    )


class _Clock:
    """Seconds of each stage."""

    def __init__(self, report: DemoReporter) -> None:
        self.seconds: dict[str, float] = {}
        self._report = report

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        self._report.note(f"== {name}")
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        self._report.note(f"{name}: {self.seconds[name]:.0f} s")


def left_of(folder: Path, plan: DemoPlan, *, fresh: bool, from_scratch: bool) -> list[str]:
    """The stages that :func:`run_demo` has still to do; nothing is written.

    Raises:
        UsageError: the folder holds somebody else's corpus.
    """
    there = _are_there(folder, plan) and not fresh
    left = [] if there else ["phantoms", "corpus"]
    if from_scratch and (fresh or not _scratch(folder).with_suffix(".done").is_file()):
        left.append("start")
    start = _scratch(folder) if from_scratch else SHIPPED / START
    for method in TRAINED:
        for control in _CONTROLS:
            config = _config(plan, method, control, start)
            built = there and (folder / "corpus" / "manifest.json").is_file()
            if not built or _finished(folder, config) is None:
                left.append(config.method + ("" if control == "none" else CONTROL_SUFFIX))
    return [*left, "benchmark"]


def _wanted(plan: DemoPlan) -> dict[str, int]:
    return {"n_patients": plan.n_patients, "seed": plan.seed}


def _are_there(folder: Path, plan: DemoPlan) -> bool:
    """Whether the phantoms of a plan lie there.

    Raises:
        UsageError: the folder holds somebody else's corpus.
    """
    record = folder / RECORD
    if not record.is_file() and (folder / "corpus").exists():
        raise UsageError(
            f"expected an empty folder or one of an earlier demo at {folder}, found a corpus that "
            "the demo did not make: give another --dir"
        )
    return record.is_file() and json.loads(record.read_text("utf-8")) == _wanted(plan)


def _scratch(folder: Path) -> Path:
    return folder / "weights" / START


def _phantoms(folder: Path, plan: DemoPlan, fresh: bool, report: DemoReporter) -> None:
    """Write the datasets unless the same ones lie there.

    Raises:
        UsageError: the folder holds somebody else's corpus, or cannot be written.
    """
    record, wanted = folder / RECORD, _wanted(plan)
    if _are_there(folder, plan) and not fresh:
        report.note("the phantoms are there already")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"unfinished": True}), "utf-8")
        for name in PHANTOMS:  # of an earlier demo with more patients
            shutil.rmtree(folder / "data" / name, ignore_errors=True)
    except OSError as err:
        raise UsageError(
            f"cannot write the demo to {folder} ({err.strerror}): give another --dir"
        ) from err
    write_phantoms(folder, n_patients=plan.n_patients, seed=plan.seed)
    record.write_text(json.dumps(wanted), "utf-8")


def _start(
    folder: Path, plan: DemoPlan, fresh: bool, from_scratch: bool, report: DemoReporter
) -> Path:
    """The weights that both methods start from.

    Raises:
        ModelError: nothing is shipped.
    """
    if not from_scratch:
        shipped = SHIPPED / START
        if not shipped.is_file():
            raise ModelError(
                f"expected the shipped weights at {shipped}, found none: install sammed again, or "
                "make them here with `sammed demo --from-scratch`"
            )
        report.note(f"start: {shipped}, a small SAM trained on procedural scenes only")
        return shipped
    made = _scratch(folder)
    if fresh or not made.with_suffix(".done").is_file():
        scenes = Pretraining(seed=plan.seed)
        if plan.scratch_steps is not None:
            scenes = scenes.shortened(plan.scratch_steps)
        pretrain(made, scenes, tell=report.note)
        made.with_suffix(".done").touch()
    return made


def _config(plan: DemoPlan, method: Method, control: Control, start: Path) -> TrainConfig:
    return TrainConfig(
        method=method,
        control=control,
        init=str(start),
        steps=plan.steps,
        batch_images=plan.batch_images,
        masks_per_image=plan.masks_per_image,
        passes=plan.passes,
        lr=plan.lr,
        validation_images=plan.validation_images,
        modes=("bbox", "1pt"),
        seed=plan.seed,
        threads=_THREADS,
    )


def _run(folder: Path, config: TrainConfig, fresh: bool, report: DemoReporter) -> Path:
    """A finished training with this configuration on this corpus: found, continued or made."""
    runs, corpus = folder / "runs", folder / "corpus"
    finished = None if fresh else _finished(folder, config)
    if finished is not None:
        report.note(f"{finished} is finished already")
        return finished
    with report.training() as (shown, should_stop):
        return train(
            corpus,
            config,
            runs=runs,
            resume=None if fresh else _unfinished(runs, config),
            report=shown,
            should_stop=should_stop,
        ).folder


def _finished(folder: Path, config: TrainConfig) -> Path | None:
    """The run that was finished with this configuration on this corpus."""
    content = Corpus(folder / "corpus").content_hash
    for found in finished_runs(folder / "runs"):
        same = found.record["corpus_sha256"] == content
        if same and TrainConfig.load(found.folder / "config.json") == config:
            return found.folder
    return None


def _unfinished(runs: Path, config: TrainConfig) -> Path | None:
    """The newest run of this configuration that was stopped."""
    for path in sorted(runs.glob("*-*/config.json"), reverse=True):
        if not (path.parent / "run.json").exists() and TrainConfig.load(path) == config:
            return path.parent
    return None


def plan_of(*, quick: bool, seed: int, steps: int | None) -> DemoPlan:
    """The plan of some options."""
    chosen = asdict(QUICK if quick else DemoPlan()) | {"seed": seed}
    return DemoPlan(**(chosen | ({} if steps is None else {"steps": steps})))
