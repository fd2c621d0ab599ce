"""Parts of a benchmark, scored apart, as one: rows gathered, checked for gaps, and finished."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sammed_bench import part_notes, predictions, run
from sammed_bench.bench import BenchConfig, BenchResult, Notes, Ready, Reporter, Silent, finish
from sammed_bench.choose import Wanted, load
from sammed_bench.conditions import Conditions
from sammed_bench.files import whole
from sammed_bench.record import RECORD, SUITE, Entry, plain, read_record
from sammed_bench.rescore import conditions_of
from sammed_bench.types import Model
from sammed_data.corpus import Corpus
from sammed_data.part import Part
from sammed_data.types import CorpusError, ModelError, UsageError
from sammed_model.device import choose_device

_FOLDERS = ("scores", "clicks", "prompts", predictions.FOLDER, part_notes.FOLDER)


def merge(
    folder: Path,
    sources: Sequence[Path] = (),
    *,
    corpus_root: Path | None = None,
    device: str = "auto",
    report: Reporter | None = None,
) -> BenchResult:
    """Finish a benchmark whose parts are all there.

    Args:
        folder: of the results; is made where parts come from ``sources``.
        sources: folders that parts were scored in, copied from.
        corpus_root: None = where the parts say it was.
        device: of the gallery.
        report: who is told.

    Raises:
        UsageError: no parts, or parts of another benchmark.
        CorpusError: parts or rows are missing; or another corpus.
    """
    notes = Notes(report or Silent())
    for source in sources:
        _gather(source, folder)
    record = read_record(folder)
    conditions = conditions_of(record)
    parts = _parts(folder, conditions)
    entries, notes.said = part_notes.together(folder, conditions, len(parts))
    settings = part_notes.read(folder, parts[0])["settings"]
    corpus = Corpus(corpus_root or Path(settings["corpus"]))
    if corpus.content_hash != conditions.corpus_sha256:
        raise CorpusError(
            f"expected the corpus {conditions.corpus_sha256[:12]} that {folder} was scored on, "
            f"found {corpus.content_hash[:12]} in {corpus.root}: name it with --corpus"
        )
    samples = run.reader(corpus, conditions)
    _refuse_gaps(folder, entries, conditions, run.chunk_count(len(samples)), len(parts))
    models = list(_models(settings, str(choose_device(device)), notes))
    ready = Ready(
        corpus=corpus,
        config=BenchConfig(
            gallery=settings["gallery"] and bool(models),
            speed=settings["speed"] and bool(models),
            keep_predictions=settings["keep_predictions"],
        ),
        conditions=conditions,
        models=models,
        everybody=models,
        samples=samples,
        device=str(choose_device(device)),
    )
    finish(folder, ready, entries, notes.said, settings)
    return BenchResult(
        out=folder, outcomes=(), images=len(samples), masks=samples.n_masks,
        notes=tuple(notes.said),
    )  # fmt: skip


def survey_parts(folder: Path, sources: Sequence[Path] = ()) -> tuple[list[str], list[str]]:
    """Parts that lie in some folders, and those still missing, as ``i/N``; nothing is copied.

    Raises:
        UsageError: no parts, or parts of another benchmark.
    """
    folders = [p for p in (folder, *sources) if p in sources or (p / RECORD).is_file()]
    said = [plain(conditions_of(read_record(p))) for p in folders or [folder]]
    if any(other != said[0] for other in said):
        raise UsageError(
            f"expected parts of one benchmark, found others in {', '.join(map(str, folders))}: "
            "merge them apart"
        )
    found = [_numbered(path.stem) for p in folders for path in _notes_in(p)]
    counts = sorted({count for _, count in found})
    if len(counts) != 1:
        raise UsageError(_not_one_count(folder, counts))
    there = {index for index, _ in found}
    names = [str(Part(index=index, count=counts[0])) for index in range(counts[0])]
    return (
        [name for index, name in enumerate(names) if index in there],
        [name for index, name in enumerate(names) if index not in there],
    )


def _notes_in(folder: Path) -> list[Path]:
    return sorted((folder / part_notes.FOLDER).glob("part-*-of-*.json"))


def _numbered(stem: str) -> tuple[int, int]:
    match = re.fullmatch(r"part-(\d+)-of-(\d+)", stem)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _not_one_count(folder: Path, counts: Sequence[int]) -> str:
    said = " and ".join(f"parts of {count}" for count in counts) or "none"
    return (
        f"expected the parts of one `sammed bench --part i/N --out {folder}`, found {said} in "
        f"{folder / part_notes.FOLDER}: run them into one folder"
    )


def _gather(source: Path, folder: Path) -> None:
    """Copy the parts of one folder into another; what is there already stays."""
    there = plain(conditions_of(read_record(source)))
    if not (folder / RECORD).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RECORD, SUITE):
            if (source / name).is_file():
                shutil.copy(source / name, folder / name)
    now = plain(conditions_of(read_record(folder)))
    if now != there:
        differs = sorted(k for k in {*now, *there} if now.get(k) != there.get(k))
        raise UsageError(
            f"expected parts of one benchmark, found another {', '.join(differs)} in {source} than "
            f"in {folder}: merge them apart"
        )
    for name in _FOLDERS:
        for path in sorted((source / name).glob("part-*")):
            if not (folder / name / path.name).exists():
                with whole(folder / name / path.name) as partial:
                    shutil.copyfile(path, partial)


def _parts(folder: Path, conditions: Conditions) -> list[Part]:
    """The parts of the benchmark, all of them there."""
    counts = sorted({_numbered(path.stem)[1] for path in _notes_in(folder)} - {0})
    if len(counts) != 1:
        raise UsageError(_not_one_count(folder, counts))
    missing = part_notes.missing(folder, conditions, counts[0])
    if missing:
        raise CorpusError(
            f"expected {counts[0]} parts in {folder}, found {counts[0] - len(missing)}: run "
            f"`sammed bench --part {missing[0]} --out {folder}`"
            + (f", and so on ({', '.join(map(str, missing))})" if len(missing) > 1 else "")
        )
    return [Part(index=index, count=counts[0]) for index in range(counts[0])]


def _refuse_gaps(
    folder: Path, entries: Iterable[Entry], conditions: Conditions, chunks: int, count: int
) -> None:
    """Every model must have a file of rows for every chunk."""
    for entry in entries:
        for number in range(chunks):
            name = run.part_name(entry.facts, conditions, number)
            if not (folder / "scores" / name).is_file():
                raise CorpusError(
                    f"expected rows of {entry.facts.name} in {folder / 'scores' / name}, found "
                    f"none: run `sammed bench --part {number % count}/{count} --out {folder}` again"
                )


def _models(settings: dict[str, Any], device: str, notes: Notes) -> Iterable[Model]:
    """Those models that can be loaded here, for the gallery."""
    if not (settings["gallery"] or settings["speed"]):
        return
    for raw in settings["models"]:
        wanted = Wanted.of(raw)
        try:
            yield load(wanted, device, fast=settings["fast"], edition=settings["edition"])
        except ModelError as err:
            notes.add(f"{wanted.label} is not in the gallery, it is not at hand here: {err}")
