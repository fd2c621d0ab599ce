"""Scores made again from kept predictions: other metrics, no model, no GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from sammed_bench import levels, predictions, run
from sammed_bench.ask import Answer, Asked, takes
from sammed_bench.clicks import COLUMNS
from sammed_bench.conditions import Conditions
from sammed_bench.measure import measure, unsupported
from sammed_bench.metric_cards import in_order
from sammed_bench.predictions import Kept
from sammed_bench.protocols import Target, parse_protocol
from sammed_bench.record import RECORD
from sammed_bench.scores import about_mask, about_model, write_part
from sammed_data.corpus import Corpus, Row
from sammed_data.types import CorpusError, UsageError
from sammed_model.dataset import Samples


def check_rescore(results: Path, out: Path) -> None:
    """Refuse what cannot be scored again.

    Raises:
        UsageError: no predictions, or ``out`` is there already.
    """
    if not predictions.parts(results):
        raise UsageError(
            f"expected kept predictions in {results / predictions.FOLDER}, found none: run "
            "`sammed bench --keep-predictions`"
        )
    if out.exists():
        raise UsageError(f"expected a new folder at {out}, found one: give another --out")


def rescore(
    results: Path,
    out: Path,
    *,
    corpus_root: Path | None = None,
    metrics: Sequence[str] = (),
    tolerance: float | None = None,
) -> Path:
    """Score the kept predictions of ``results`` again, into a folder of their own.

    Args:
        results: folder of ``sammed bench --keep-predictions``.
        out: new results folder.
        corpus_root: None = where the record says it was.
        metrics: beside Dice and IoU; empty = those of the results.
        tolerance: of the normalised surface Dice; None = that of the results.

    Raises:
        UsageError: no predictions, or ``out`` is there already.
        CorpusError: another corpus, or a damaged part.
    """
    check_rescore(results, out)
    found = predictions.parts(results)
    record = json.loads((results / RECORD).read_text(encoding="utf-8"))
    before = conditions_of(record)
    corpus = Corpus(corpus_root or Path(record["settings"]["corpus"]))
    if corpus.content_hash != before.corpus_sha256:
        raise CorpusError(
            f"expected the corpus {before.corpus_sha256[:12]} that {results} was scored on, found "
            f"{corpus.content_hash[:12]} in {corpus.root}: name it with --corpus"
        )
    now = replace(
        before,
        metrics=in_order(metrics) if metrics else before.metrics,
        tolerance=before.tolerance if tolerance is None else tolerance,
    )
    samples = run.reader(corpus, now)
    for path in found:
        _part(path, results, out, samples, now)
    shutil.copytree(results / "prompts", out / "prompts")
    for name in ("lineage.json", "speed.json"):
        if (results / name).is_file():
            shutil.copy(results / name, out / name)
    record |= {"conditions": json.loads(json.dumps(now.as_dict()))}
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    levels.write(out, samples, now)
    return out


def conditions_of(record: dict[str, Any]) -> Conditions:
    """The conditions in ``bench.json``.

    Raises:
        CorpusError: a protocol that this version draws otherwise.
    """
    raw = record["conditions"]
    protocol = parse_protocol(raw["protocol"]["name"])
    if protocol.hash != raw["protocol_hash"]:
        raise CorpusError(
            f"expected the protocol {protocol.name} with hash {protocol.hash[:12]}, found "
            f"{raw['protocol_hash'][:12]} in the record: use the version of sammed that made it"
        )
    names = {field.name for field in fields(Conditions)} - {"protocol"}
    known = {key: value for key, value in raw.items() if key in names}
    known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    return Conditions(**known, protocol=protocol)


def _part(path: Path, results: Path, out: Path, samples: Samples, now: Conditions) -> None:
    """Score one part; its predictions and click rounds are copied under the new name."""
    kept = Kept.open(path)
    name = run.part_name(kept.facts, now, int(path.stem.rpartition("-")[2]))
    old = pq.ParquetFile(results / "scores" / path.name).read().to_pylist()
    before = {(row["sample_id"], row["mask_index"], row["mode"]): row for row in old}
    index = {row.sample_id: row for row in samples.rows}
    rows = []
    for sample_id in dict.fromkeys(row["sample_id"] for row in old):
        for row in _image(kept, samples, index[sample_id], now):
            known = before[row["sample_id"], row["mask_index"], row["mode"]]
            # What a dialogue came to is in its rounds, not in its last answer.
            rows.append(row | {column: known[column] for column in COLUMNS})
    for folder in (predictions.FOLDER, "clicks"):
        source = results / folder / path.name
        if source.is_file():
            (out / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, out / folder / name)
    write_part(out / "scores" / name, rows)


def _image(kept: Kept, samples: Samples, index: Row, now: Conditions) -> Iterator[dict[str, Any]]:
    """The score rows of one image, as ``run.score_batch`` makes them."""
    masks = samples.masks[index.sample_id]
    keys = [mask.index for mask in masks]
    row = samples.pixels(index)[0]
    truth = torch.stack([torch.from_numpy(row.masks[key].mask_HW) for key in keys])
    valid = torch.ones(row.height, row.width, dtype=torch.bool)
    if row.ignore_HW is not None:
        valid = ~torch.from_numpy(row.ignore_HW)
    target = Target.of(now.protocol, row.sample_id, keys, truth, valid)
    whole = Asked(row=row, masks=masks, target=target, opening={})
    there = kept.asked(index.sample_id, masks)
    image = whole.only([mask in there for mask in masks])
    who = about_model(kept.facts) | {
        "protocol": now.protocol.name,
        "protocol_hash": now.protocol.hash,
        "seed": now.seed,
    }
    for row_left in run.left_out(whole, image, now):
        yield who | row_left
    for mode in now.modes:
        scores = [unsupported()] * len(there)
        if there and takes(kept.facts, mode):
            answer = kept.answer(index.sample_id, mode, [mask.index for mask in there])
            scores = measure(image, answer or Answer(error="no prediction was kept"), now)
        for mask, score in zip(there, scores, strict=True):
            yield who | about_mask(row, mask) | {"mode": mode} | score
