"""Corpus x models x prompt modes -> score rows. An image is encoded once per model.

A part (a fixed chunk of the images, one model) is written when it is whole and named by everything
that its rows depend on, so a rerun computes what is missing and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sammed_bench import metrics, protocols
from sammed_bench.protocols import SAM_MED2D, Protocol, Target
from sammed_bench.scores import about_mask, about_model, slug, write_part
from sammed_bench.types import ImagePrompts, KnowsTruth, Model, Prediction
from sammed_data.corpus import VIEWS, Corpus, MaskRow, Row
from sammed_data.types import CorpusError, ModelError, UsageError
from sammed_model.dataset import Samples

PART_IMAGES = 256
SETS = ("test", "held_out")
# A split that stands in for a missing test split, and what is said about it.
_INSTEAD = {
    "validation": "the corpus has no test split: the validation split is scored instead",
    "train": "IN-SAMPLE: the corpus has no test, held-out or validation split, so the training "
    "images are scored; these numbers say nothing about new patients",
}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything but the model that a score depends on.

    Attributes:
        corpus_sha256: content hash of the corpus.
        splits: which of its splits.
        modes: prompt modes.
        limit: only the first so many images, for a quick look; None = all.
    """

    corpus_sha256: str
    splits: tuple[str, ...]
    modes: tuple[str, ...]
    protocol: Protocol = SAM_MED2D
    seed: int = 0
    limit: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the hash of the protocol."""
        found = asdict(self) | {"splits": list(self.splits), "modes": list(self.modes)}
        return found | {"protocol_hash": self.protocol.hash, "metrics_version": metrics.VERSION}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What scoring one model came to: counts of rows, those read from a finished part included."""

    model: str
    parts: tuple[Path, ...]
    computed: int
    reused: int
    failed: int
    first_error: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The masks of one image in one mode: bool (M, H, W), or why there are none.

    Attributes:
        finite_M: False where the model gave something that is no number.
        clicks_M: clicks given, voids not counted.
        prompts: what was asked.
    """

    masks_MHW: Tensor | None = None
    finite_M: Tensor | None = None
    clicks_M: Tensor | None = None
    prompts: ImagePrompts | None = None
    error: str = ""


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
    rows = sorted(corpus.index(conditions.splits), key=lambda r: r.sample_id)
    return rows[: conditions.limit]


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

    Raises:
        UsageError: ``out`` cannot be written.
    """
    samples = samples or reader(corpus, conditions)
    work = samples.rows
    paths: list[Path] = []
    counts = {"computed": 0, "reused": 0, "failed": 0}
    first_error = ""
    for number in range(0, len(work), PART_IMAGES):
        chunk = work[number : number + PART_IMAGES]
        path = out / "scores" / part_name(model, conditions, number // PART_IMAGES)
        paths.append(path)
        if path.is_file():
            made = _failures(path)
            counts["reused"] += len(made)
            progress(len(chunk))
        else:
            made = list(_score_chunk(samples, chunk, model, conditions, batch, device, progress))
            _write(path, made)
            counts["computed"] += len(made)
        failed = [row for row in made if row["status"] == "failed"]
        counts["failed"] += len(failed)
        first_error = first_error or (failed[0]["error"] if failed else "")
    return Outcome(model=model.facts.name, parts=tuple(paths), first_error=first_error, **counts)


def reader(corpus: Corpus, conditions: Conditions) -> Samples:
    """Reads the images to score, all masks of the first annotator."""
    return Samples(corpus, bench_rows(corpus, conditions), view=VIEWS["all"])


def part_name(model: Model, conditions: Conditions, number: int) -> str:
    """File name of a part: the label, a digest of what the rows depend on, the chunk."""
    facts = model.facts
    about = [facts.name, facts.kind, facts.recipe, facts.weights_sha256, sorted(facts.accepts)]
    text = json.dumps([about, conditions.as_dict(), PART_IMAGES], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"part-{slug(facts.name)}-{digest}-{number:05d}.parquet"


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    try:
        write_part(path, rows)
    except OSError as err:
        raise UsageError(
            f"expected to write scores to {path.parent}, found {err.strerror or err}: "
            "give another --out"
        ) from err


def _failures(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.ParquetFile(path).read(columns=["status", "error"]).to_pylist()
    return found


def _score_chunk(
    samples: Samples,
    chunk: Sequence[Row],
    model: Model,
    conditions: Conditions,
    batch: int,
    device: torch.device | str,
    progress: Callable[[int], None],
) -> Iterator[dict[str, Any]]:
    for first in range(0, len(chunk), batch):
        rows = [samples.pixels(row)[0] for row in chunk[first : first + batch]]
        asked = [Asked.of(row, samples.masks[row.sample_id], conditions, device) for row in rows]
        yield from score_batch(model, asked, conditions)
        progress(len(rows))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One image with its masks as they are asked about."""

    row: Row
    masks: tuple[MaskRow, ...]
    target: Target

    @classmethod
    def of(
        cls,
        row: Row,
        masks: Sequence[MaskRow],
        conditions: Conditions,
        device: torch.device | str,
    ) -> Asked:
        """Bring the masks of a row with pixels to the device.

        Args:
            row: with pixels.
            masks: of its index row (which ones count).
            conditions: whose protocol is used.
            device: where to.
        """
        planes = [row.masks[m.index].mask_HW for m in masks]
        truth = torch.stack([torch.from_numpy(plane) for plane in planes]).to(device)
        valid = torch.ones(row.height, row.width, dtype=torch.bool, device=device)
        if row.ignore_HW is not None:
            valid = ~torch.from_numpy(row.ignore_HW).to(device)
        keys = [m.index for m in masks]
        target = Target.of(conditions.protocol, row.sample_id, keys, truth, valid)
        return cls(row=row, masks=tuple(masks), target=target)


def score_batch(
    model: Model, asked: Sequence[Asked], conditions: Conditions
) -> list[dict[str, Any]]:
    """The score rows of some images in all modes."""
    answers = answer_batch(model, asked, conditions)
    who = about_model(model.facts) | {
        "protocol": conditions.protocol.name,
        "protocol_hash": conditions.protocol.hash,
        "seed": conditions.seed,
    }
    rows = []
    for mode in conditions.modes:
        for image, answer in zip(asked, answers[mode], strict=True):
            scores = _scores(image, answer, _accepts(model, mode))
            rows += [
                who | about_mask(image.row, mask) | {"mode": mode} | score
                for mask, score in zip(image.masks, scores, strict=True)
            ]
    return rows


def _accepts(model: Model, mode: str) -> bool:
    return protocols.kind_of(mode) in model.facts.accepts


def _scores(image: Asked, answer: Answer, supported: bool) -> list[dict[str, Any]]:
    """Metrics and status of each mask; a failure scores 0 and is counted."""
    none: dict[str, Any] = {name: None for name in metrics.METRICS}
    if not supported:
        return [none | {"status": "unsupported", "error": "", "n_clicks": 0}] * len(image.masks)
    if answer.masks_MHW is None or answer.finite_M is None or answer.clicks_M is None:
        worst = {name: 0.0 for name in metrics.METRICS}
        return [worst | {"status": "failed", "error": answer.error, "n_clicks": 0}] * len(
            image.masks
        )
    counts = metrics.overlap(answer.masks_MHW, image.target.truth_MHW, image.target.valid_HW)
    values = {
        name: torch.where(answer.finite_M, metric(counts), 0.0).tolist()
        for name, metric in metrics.METRICS.items()
    }
    finite, clicks = answer.finite_M.tolist(), answer.clicks_M.tolist()
    return [
        {name: found[i] for name, found in values.items()}
        | {
            "status": "ok" if finite[i] else "failed",
            "error": "" if finite[i] else "the model's answer holds values that are not finite",
            "n_clicks": clicks[i],
        }
        for i in range(len(image.masks))
    ]


def answer_batch(
    model: Model, asked: Sequence[Asked], conditions: Conditions
) -> dict[str, list[Answer]]:
    """The answers of a model by mode, one per image; what fails in a batch is tried alone."""
    wanted = [mode for mode in conditions.modes if _accepts(model, mode)]
    answers: dict[str, list[Answer]] = {mode: [Answer()] * len(asked) for mode in conditions.modes}
    if not wanted:
        return answers
    try:
        _ask(model, asked, conditions, wanted, answers)
    except Exception as err:  # noqa: BLE001 - a model may fail in any way; it is counted, not hidden
        if len(asked) > 1:
            for i, image in enumerate(asked):
                alone = answer_batch(model, [image], conditions)
                for mode in conditions.modes:
                    answers[mode][i] = alone[mode][0]
            return answers
        _fail_rest(model, asked, conditions, wanted, answers, f"{type(err).__name__}: {err}")
    return answers


def _fail_rest(
    model: Model,
    asked: Sequence[Asked],
    conditions: Conditions,
    wanted: Sequence[str],
    answers: dict[str, list[Answer]],
    error: str,
) -> None:
    """After a failure: kinds of prompts not yet tried get their own chance, the rest failed."""
    missing = [mode for mode in wanted if answers[mode][0].masks_MHW is None]
    failed_kind = protocols.kind_of(missing[0])
    for mode in missing:
        if protocols.kind_of(mode) == failed_kind:
            answers[mode] = [Answer(error=error)]
    untried = tuple(mode for mode in missing if protocols.kind_of(mode) != failed_kind)
    if untried:
        later = answer_batch(model, asked, replace(conditions, modes=untried))
        answers |= later


def _ask(
    model: Model,
    asked: Sequence[Asked],
    conditions: Conditions,
    wanted: Sequence[str],
    answers: dict[str, list[Answer]],
) -> None:
    """Encode once and go through the modes, filling ``answers`` as they come."""
    targets = [image.target for image in asked]
    if isinstance(model, KnowsTruth):
        model.reveal([target.truth_MHW for target in targets])
    state = model.encode([image.row.image for image in asked if image.row.image is not None])
    if "bbox" in wanted:
        given = [ImagePrompts(boxes_M4=protocols.boxes(conditions.protocol, t)) for t in targets]
        answers["bbox"] = [a for a, _ in _predict(model, state, given, targets)]
    rounds = protocols.click_rounds(wanted)
    if rounds:
        for number, made in _dialogue(model, state, targets, conditions, max(rounds)):
            if number in rounds:
                answers[rounds[number]] = made
    if "mask" in wanted:
        coarse = (protocols.coarse_masks(conditions.protocol, t) for t in targets)
        given = [ImagePrompts(masks_MHW=mask) for mask in coarse]
        answers["mask"] = [a for a, _ in _predict(model, state, given, targets)]


def _dialogue(
    model: Model, state: Any, targets: Sequence[Target], conditions: Conditions, rounds: int
) -> Iterator[tuple[int, list[Answer]]]:
    """``(number of clicks, answers)`` after each round."""
    protocol, seed = conditions.protocol, conditions.seed
    points: list[list[Tensor]] = [[] for _ in targets]
    labels: list[list[Tensor]] = [[] for _ in targets]
    last: list[tuple[Answer, Any]] = []
    for number in range(rounds):
        given = []
        for i, target in enumerate(targets):
            if number == 0:
                xy, label = protocols.first_clicks(protocol, target, seed)
            else:
                predicted = last[i][0].masks_MHW
                assert predicted is not None  # noqa: S101 - _predict raises otherwise
                xy, label = protocols.next_clicks(protocol, target, predicted, number, seed)
            points[i].append(xy)
            labels[i].append(label)
            given.append(
                ImagePrompts(
                    points_MN2=torch.stack(points[i], dim=1),
                    point_labels_MN=torch.stack(labels[i], dim=1),
                    memory=last[i][1] if last else None,
                )
            )
        last = _predict(model, state, given, targets)
        yield number + 1, [answer for answer, _ in last]


def _predict(
    model: Model, state: Any, given: Sequence[ImagePrompts], targets: Sequence[Target]
) -> list[tuple[Answer, Any]]:
    """Ask once: the thresholded answers and the model's memory of each image.

    Raises:
        ModelError: answers of a wrong number or shape.
    """
    found: Sequence[Prediction] = model.predict(state, given)
    if len(found) != len(targets):
        raise ModelError(f"expected answers for {len(targets)} images, found {len(found)}")
    answers = []
    for prediction, prompts, target in zip(found, given, targets, strict=True):
        logits = prediction.logits_MHW.to(target.truth_MHW.device)
        if logits.shape != target.truth_MHW.shape:
            raise ModelError(
                f"expected logits of shape {tuple(target.truth_MHW.shape)} (masks, height, width "
                f"of the slice), found {tuple(logits.shape)}"
            )
        labels = prompts.point_labels_MN
        clicks = torch.zeros(len(target), dtype=torch.int64)
        answer = Answer(
            masks_MHW=logits > 0,
            finite_M=logits.flatten(1).isfinite().all(dim=1),
            clicks_M=clicks if labels is None else (labels >= 0).sum(dim=1),
            prompts=prompts,
        )
        answers.append((answer, prediction.memory))
    return answers
