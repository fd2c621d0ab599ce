"""A benchmark by several processes: one for each device, or tasks on a Ray cluster.

Each takes every k-th chunk of the images and writes its rows as one process alone would; then
this process finds all rows there and finishes. In-memory models cannot travel; names and files can.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sammed_bench import part_notes, run
from sammed_bench.bench import (
    BenchConfig,
    BenchResult,
    Notes,
    Reporter,
    Silent,
    bench,
    conditions_for,
    prepare,
    score,
)
from sammed_bench.choose import Wanted
from sammed_bench.record import claim, numbered
from sammed_data.corpus import Corpus
from sammed_data.engine import ENGINES, run_tasks, stop_if_asked
from sammed_data.part import Part, parse_part
from sammed_data.pool import Failure
from sammed_data.types import SammedError, UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Work:
    """By whom a benchmark is run.

    Attributes:
        devices: a process each.
        engine: ``local``, or ``ray`` for the cluster that Ray finds.
        part: share of the images that is scored at all.
    """

    devices: tuple[str, ...] = ("auto",)
    engine: str = "local"
    part: Part | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"unknown --engine {self.engine!r}; {nearest(self.engine, ENGINES)}")

    @classmethod
    def parse(cls, device: str, workers: int, engine: str, part: str | None) -> Work:
        """The options as written: ``cuda:0,cuda:1``, or one device and ``--workers``.

        Raises:
            UsageError: a number or form that does not do.
        """
        devices = tuple(name.strip() for name in device.split(",") if name.strip())
        if not devices or workers < 1:
            raise UsageError(
                f"expected --device and --workers of 1 at least, found {device!r} and {workers}"
            )
        if len(devices) > 1 and workers > 1:
            raise UsageError(
                "expected several devices or several --workers, found both: name a device as often "
                "as it shall have a process (cuda:0,cuda:0)"
            )
        share = parse_part(part, os.environ) if part else None
        return cls(devices=devices if len(devices) > 1 else devices * workers, engine=engine,
                   part=share)  # fmt: skip

    @property
    def alone(self) -> bool:
        """Whether this process does it all."""
        return len(self.devices) == 1 and self.engine == "local"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one process scores: some chunks of the images, all models."""

    corpus: Path
    wanted: tuple[Wanted, ...]
    config: BenchConfig
    out: Path
    numbers: tuple[int, ...]


def bench_work(
    corpus_root: Path,
    wanted: Sequence[Wanted],
    config: BenchConfig,
    work: Work,
    *,
    out: Path | None = None,
    results: Path = Path("results"),
    report: Reporter | None = None,
) -> BenchResult:
    """As :func:`sammed_bench.bench.bench`, by as many processes as ``work`` says.

    Raises:
        SammedError: as ``bench``; or a process died.
    """
    config = replace(config, device=work.devices[0])
    seconds: dict[str, float] = {}
    if not work.alone:
        if work.part is not None and out is None:
            raise UsageError("--part needs --out: all parts write to one folder")
        out, seconds = _spread(corpus_root, wanted, config, work, out, results, report or Silent())
    return bench(
        corpus_root, wanted, config, out=out, results=results, report=report, part=work.part,
        known_seconds=seconds,
    )  # fmt: skip


def _spread(
    corpus_root: Path,
    wanted: Sequence[Wanted],
    config: BenchConfig,
    work: Work,
    out: Path | None,
    results: Path,
    report: Reporter,
) -> tuple[Path, dict[str, float]]:
    """Let the processes score: the results folder, and the seconds of each model."""
    corpus = Corpus(corpus_root)
    conditions = conditions_for(corpus, config, Notes(Silent()))
    folder = (out or numbered(results, conditions)).absolute()
    labels = [w.label for w in wanted]
    claim(folder, conditions, labels, config.suite_text)
    chunks = run.chunk_count(len(run.reader(corpus, conditions)))
    mine = part_notes.share(chunks, work.part)
    threads = config.threads or max(1, (os.cpu_count() or 1) // len(work.devices))
    shares = [
        Share(
            corpus=Path(corpus_root).absolute(),
            wanted=tuple(wanted),
            config=replace(config, device=device, threads=threads, remarks=()),
            out=folder,
            numbers=tuple(mine[number :: len(work.devices)]),
        )
        for number, device in enumerate(work.devices)
    ]
    shares = [share for share in shares if share.numbers]
    report.note(
        f"{len(shares)} processes on {', '.join(s.config.device for s in shares)}: "
        f"{len(mine)} chunks of {run.PART_IMAGES} images at most"
    )
    spent: Counter[str] = Counter()
    failed: list[str] = []

    def lost(share: Share, failure: Failure) -> None:
        failed.append(f"the one on {share.config.device}: {failure.reason}")

    gpus = 1 if work.devices[0].startswith("cuda") else 0
    for found in run_tasks(
        score_share, shares, len(shares), on_failure=lost, engine=work.engine, gpus=gpus
    ):
        spent.update(found)
    if failed:
        raise SammedError(
            f"expected {len(shares)} processes to score their images, found "
            f"{'; '.join(failed)}: run the same command again, finished chunks stay"
        )
    return folder, dict(spent)


def score_share(share: Share) -> Mapping[str, float]:
    """Score the chunks of one process: label -> seconds, of the models that had any to compute."""
    torch.set_num_threads(share.config.threads or 1)
    notes = Notes(_Heeding())
    ready = prepare(share.corpus, share.wanted, share.config, notes)
    spent = {}
    for model in ready.everybody:
        outcome, seconds = score(ready, model, share.out, share.numbers, notes)
        if outcome.computed:
            spent[model.facts.name] = seconds
    return spent


class _Heeding(Silent):
    """Tells nobody, and ends between two batches when the run is to stop."""

    def advance(self, images: int) -> None:
        """Stop here if asked.

        Raises:
            InterruptedRun: it was.
        """
        stop_if_asked()
