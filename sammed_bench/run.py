"""Corpus x models x prompt modes -> score rows. An image is encoded once per model.

A part (a fixed chunk of the images, one model) is written when it is whole and named by everything
that its rows depend on, so a rerun computes what is missing and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sammed_bench import openings, predictions
from sammed_bench.ask import Asked, accepts, answer_batch, covered
from sammed_bench.clicks import click_columns, click_rows, write_clicks
from sammed_bench.conditions import Conditions
from sammed_bench.measure import measure, unsupported
from sammed_bench.scores import about_mask, about_model, slug, write_part
from sammed_bench.timeouts import limited
from sammed_bench.types import Model, ModelFacts
from sammed_data.corpus import VIEWS, Corpus, Row
from sammed_data.types import CorpusError, UsageError
from sammed_model.dataset import Samples

# Images of a file of rows: the unit of resuming and of sharing the work out.
PART_IMAGES = 64
SETS = ("test", "held_out")
# A split that stands in for a missing test split, and what is said about it.
_INSTEAD = {
    "validation": "the corpus has no test split: the validation split is scored instead",
    "train": "IN-SAMPLE: the corpus has no test, held-out or validation split, so the training "
    "images are scored; these numbers say nothing about new patients",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What scoring one model came to: counts of rows, those read from a finished part included."""

    model: str
    parts: tuple[Path, ...]
    computed: int
    reused: int
    failed: int
    first_error: str = ""


def choose_splits(corpus: Corpus, asked: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """Which splits to score, and a note where that is not what one would expect.

    Args:
        corpus: opened.
        asked: splits by name; None = ``test`` and ``held_out``, or what stands in for them.

    Raises:
        CorpusError: nothing to score.
    """
    there = {shard.parent.name for shard in corpus.shards}
    if asked is not None:
        missing = [split for split in asked if split not in there]
        if missing:
            raise CorpusError(
                f"expected split {missing[0]!r} in the corpus {corpus.root}, found "
                f"{', '.join(sorted(there)) or 'none'}: choose one of them with --split"
            )
        note = _INSTEAD["train"] if "train" in asked else ""
        return tuple(asked), "IN-SAMPLE: training images are scored" if note else ""
    found = tuple(split for split in SETS if split in there)
    if found:
        return found, ""
    for split, note in _INSTEAD.items():
        if split in there:
            return (split,), note
    raise CorpusError(f"expected images in the corpus {corpus.root}, found none: build it again")


def bench_rows(corpus: Corpus, conditions: Conditions) -> list[Row]:
    """The images to score, by sample id, without pixels."""
    found = corpus.index(conditions.splits)
    if conditions.datasets:
        found = [row for row in found if row.dataset in conditions.datasets]
    return sorted(found, key=lambda r: r.sample_id)[: conditions.limit]


def bench_corpus(
    corpus: Corpus,
    model: Model,
    conditions: Conditions,
    *,
    out: Path,
    batch: int = 8,
    device: torch.device | str = "cpu",
    samples: Samples | None = None,
    progress: Callable[[int], None] = lambda images: None,
    keep: bool = False,
    numbers: Sequence[int] | None = None,
) -> Outcome:
    """Score one model and leave its rows in ``out/scores/part-*.parquet``.

    Args:
        corpus: opened.
        model: who answers.
        conditions: what is asked.
        out: results folder.
        batch: images encoded together.
        device: where prompts and masks live.
        samples: reader with a cache, shared between models.
        progress: told how many more images are done.
        keep: the predictions too, in ``out/predictions``.
        numbers: only these chunks of the images; None = all.

    Raises:
        UsageError: ``out`` cannot be written.
    """
    samples = samples or reader(corpus, conditions)
    work = samples.rows
    paths: list[Path] = []
    counts = {"computed": 0, "reused": 0, "failed": 0}
    first_error = ""
    for number in range(chunk_count(len(work))) if numbers is None else numbers:
        chunk = work[number * PART_IMAGES : (number + 1) * PART_IMAGES]
        path = out / "scores" / part_name(model.facts, conditions, number)
        paths.append(path)
        kept = out / predictions.FOLDER / path.name
        if path.is_file() and (kept.is_file() or not keep):
            made = _failures(path)
            counts["reused"] += len(made)
            progress(len(chunk))
        else:
            store = openings.Store.open(prompts_path(out, conditions, number))
            about = (samples, chunk, model, conditions, batch, device, progress, store)
            scored = list(_score_chunk(*about, keep=keep))
            if keep:
                found = [row for one in scored for row in one.predictions]
                predictions.write(kept, model, found)
            made = _write(path, store, scored)
            counts["computed"] += len(made)
        failed = [row for row in made if row["status"] == "failed"]
        counts["failed"] += len(failed)
        first_error = first_error or (failed[0]["error"] if failed else "")
    return Outcome(model=model.facts.name, parts=tuple(paths), first_error=first_error, **counts)


def chunk_count(images: int) -> int:
    """How many chunks so many images are cut into."""
    return -(-images // PART_IMAGES)


def images_in(images: int, numbers: Sequence[int]) -> int:
    """How many of the images are in these chunks."""
    return sum(min(PART_IMAGES, images - number * PART_IMAGES) for number in numbers)


def reader(corpus: Corpus, conditions: Conditions) -> Samples:
    """Reads the images to score, all masks of the first annotator."""
    return Samples(corpus, bench_rows(corpus, conditions), view=VIEWS["all"])


def part_name(facts: ModelFacts, conditions: Conditions, number: int) -> str:
    """File name of a part: the label, a digest of what the rows depend on, the chunk."""
    about = [facts.name, facts.kind, facts.recipe, facts.weights_sha256, sorted(facts.accepts)]
    about += [sorted(facts.needs)] if facts.needs else []
    text = json.dumps([about, conditions.as_dict(), PART_IMAGES], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"part-{slug(facts.name)}-{digest}-{number:05d}.parquet"


def prompts_path(out: Path, conditions: Conditions, number: int) -> Path:
    """File of the stored prompts of a part; models share it."""
    return out / "prompts" / f"part-{conditions.prompts_digest()}-{number:05d}.parquet"


def _write(path: Path, store: openings.Store, scored: Iterable[Scored]) -> list[dict[str, Any]]:
    """Prompts and clicks first: a part is whole once its scores are there."""
    batches = list(scored)
    rows = [row for batch in batches for row in batch.rows]
    try:
        if not store.stored:
            openings.write(store.path, [row for batch in batches for row in batch.prompts])
        clicks_path = path.parents[1] / "clicks" / path.name
        write_clicks(clicks_path, [row for batch in batches for row in batch.clicks])
        write_part(path, rows)
    except OSError as err:
        raise UsageError(
            f"expected to write scores to {path.parent}, found {err.strerror or err}: "
            "give another --out"
        ) from err
    return rows


def _failures(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.ParquetFile(path).read(columns=["status", "error"]).to_pylist()
    return found


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The rows of some images: scores, click rounds, new prompts, predictions to keep."""

    rows: list[dict[str, Any]]
    clicks: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    predictions: list[dict[str, Any]]


def _score_chunk(
    samples: Samples,
    chunk: Sequence[Row],
    model: Model,
    conditions: Conditions,
    batch: int,
    device: torch.device | str,
    progress: Callable[[int], None],
    store: openings.Store,
    *,
    keep: bool,
) -> Iterator[Scored]:
    for first in range(0, len(chunk), batch):
        rows = [samples.pixels(row)[0] for row in chunk[first : first + batch]]
        asked = [
            Asked.of(row, samples.masks[row.sample_id], conditions, device, store) for row in rows
        ]
        scored = score_batch(model, asked, conditions, keep=keep)
        if not store.stored:
            scored.prompts.extend(_prompt_rows(asked, conditions))
        yield scored
        progress(len(rows))


def _prompt_rows(asked: Sequence[Asked], conditions: Conditions) -> Iterator[dict[str, Any]]:
    for image in asked:
        yield from openings.rows_of(
            image.opening, image.target, conditions.protocol, conditions.seed
        )


def score_batch(
    model: Model, asked: Sequence[Asked], conditions: Conditions, *, keep: bool = False
) -> Scored:
    """The score rows and click rounds of some images in all modes, and the answers to ``keep``."""
    seen = [covered(model, image) for image in asked]
    answered = [image for image in seen if image.masks]
    limit = limited(model, conditions.timeout)
    answers = answer_batch(limit, answered, conditions) if answered else {}
    own_of = {
        image.row.sample_id: {mode: made[i] for mode, made in answers.items()}
        for i, image in enumerate(answered)
    }
    who = about_model(model.facts) | {
        "protocol": conditions.protocol.name,
        "protocol_hash": conditions.protocol.hash,
        "seed": conditions.seed,
    }
    scored = Scored(rows=[], clicks=[], prompts=[], predictions=[])
    for whole, image in zip(asked, seen, strict=True):
        scored.rows.extend(who | row for row in left_out(whole, image, conditions))
        if not image.masks:
            continue
        about = [who | about_mask(image.row, mask) for mask in image.masks]
        own = own_of[image.row.sample_id]
        for mode in conditions.modes:
            if accepts(model, mode):
                scores = measure(image, own[mode], conditions)
                clicks = click_columns(own[mode], mode, len(image.masks))
            else:
                scores, clicks = [unsupported()] * len(about), [{}] * len(about)
            scored.rows.extend(
                known | {"mode": mode} | score | more
                for known, score, more in zip(about, scores, clicks, strict=True)
            )
        scored.clicks.extend(click_rows(model, image, own, conditions, about))
        if keep:
            given = {mode: answer for mode, answer in own.items() if accepts(model, mode)}
            scored.predictions.extend(predictions.rows_of(image, given))
    return scored


def left_out(whole: Asked, seen: Asked, conditions: Conditions) -> Iterator[dict[str, Any]]:
    """Rows of the masks that a model has no answer about, which is no score."""
    asked = {mask.index for mask in seen.masks}
    for mask in whole.masks:
        if mask.index not in asked:
            about = about_mask(whole.row, mask)
            yield from (about | {"mode": mode} | unsupported() for mode in conditions.modes)
