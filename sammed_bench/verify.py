"""``sammed bench verify``: rows picked at random are scored again from weights and corpus.

A row that comes out otherwise is scored once more in the batch that it was in: batching alone moves
a pixel in some masks. What then still differs counts, and bounds how many rows are misreported.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sammed_bench import openings, run
from sammed_bench.ask import Asked
from sammed_bench.bench import Silent
from sammed_bench.clicks import COLUMNS, read_clicks
from sammed_bench.conditions import Conditions
from sammed_bench.metric_cards import METRICS
from sammed_bench.record import SUITE, read_record
from sammed_bench.rescore import conditions_of
from sammed_bench.scores import read_scores
from sammed_bench.suite import load_suite as named_suite
from sammed_bench.suite import parse_suite, shipped
from sammed_bench.suite_check import check
from sammed_bench.types import Model
from sammed_bench.verify_bound import LEVEL, caught, upper_bound
from sammed_bench.verify_models import Loaded, load_models
from sammed_bench.verify_rows import KEYS, click_problems, problems, prompt_problems
from sammed_data.corpus import Corpus, Row
from sammed_data.types import CorpusError, SammedError, UsageError
from sammed_model.dataset import Samples
from sammed_model.device import choose_device

if TYPE_CHECKING:
    import pandas as pd

    from sammed_bench.bench import Reporter

# design/conventions.md: so many rows may differ by batch, device or library; all are listed.
TOLERANCE = 1e-4
SHARE = 0.02
_NUMBERS = (*METRICS, *COLUMNS, "n_clicks")
# The share of altered rows that the printed probability speaks of.
_ALTERED = 0.05


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A row that comes out otherwise: its names, and ``column: (stated, found)``."""

    model: str
    sample_id: str
    mask_index: int
    mode: str
    differs: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        rows: that a sample could be drawn from; prompts that are not supported have no score.
        sample: rows that were scored again.
        seed: of the draw.
        settled: rows that differed alone and agreed in the batch that they were in.
        outliers: rows that still differ.
        allowed: so many may.
        bound: upper 95 % bound on the share of misreported rows.
        caught: the probability that this sample fails results with 5 % of rows altered.
        problems: what is wrong beside them.
        skipped: models whose rows were left out by the user.
    """

    rows: int
    sample: int
    seed: int
    settled: int
    outliers: tuple[Outlier, ...]
    allowed: int
    bound: float
    caught: float
    problems: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the results hold."""
        return not self.problems and len(self.outliers) <= self.allowed

    @property
    def sentence(self) -> str:
        """What the sample says."""
        return (
            f"{len(self.outliers)} of {self.sample} rows differ: at most {100 * self.bound:.1f} % "
            f"of {self.rows} rows are misreported at {100 * LEVEL:.0f} %"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ok": self.ok, "sentence": self.sentence} | asdict(self)


def verify(
    results: Path,
    *,
    sample: int = 200,
    seed: int | None = None,
    corpus_root: Path | None = None,
    models: Mapping[str, str | Model] | None = None,
    skip: Sequence[str] = (),
    device: str = "auto",
    strict: bool = False,
    report: Reporter | None = None,
) -> Verdict:
    """Check a results folder.

    Args:
        results: of ``sammed bench``.
        sample: rows to score again.
        seed: of the draw; None = one that nobody could know beforehand.
        corpus_root: None = where the record says it was.
        models: label -> where its weights are now, as ``--model`` has it, or the model itself.
        skip: labels whose rows cannot be scored again here.
        device: where to score.
        strict: let no row differ.
        report: who is told.

    Raises:
        UsageError: no results, or an unknown label.
        CorpusError: another corpus.
        ModelError: weights are not at hand.
    """
    if sample < 1:
        raise UsageError(f"--sample must be at least 1, found {sample}")
    report = report or Silent()
    record = read_record(results)
    conditions = conditions_of(record)
    corpus = _corpus(results, record, conditions, corpus_root)
    samples = run.reader(corpus, conditions)
    rows = read_scores(results, checked=False)
    threads = record.get("settings", {}).get("threads")
    if threads:
        torch.set_num_threads(int(threads))
    where = str(choose_device(device))
    wrong = [*_suite(results, conditions, corpus), *problems(rows, samples, conditions, record)]
    wrong += [*click_problems(rows, read_clicks(results))]
    wrong += prompt_problems(results, samples, conditions, record)
    loaded = load_models(record, corpus, where, models or {}, skip)
    wrong += [said for one in loaded.values() for said in one.problems]
    usable = {name: one for name, one in loaded.items() if not one.problems}
    rows = rows[rows["model"].isin(usable) & (rows["status"] != "unsupported")]
    rows = rows[rows["sample_id"].isin(samples.masks)].reset_index(drop=True)
    seed = secrets.randbits(32) if seed is None else seed
    drawn = draw(rows, sample, seed)
    again = _Again(samples=samples, conditions=conditions, results=results, device=where,
                   batch=int(record.get("settings", {}).get("batch", 1)))  # fmt: skip
    outliers, settled = _compare(drawn, usable, again, report)
    allowed = 0 if strict else math.floor(SHARE * len(drawn))
    return Verdict(
        rows=len(rows),
        sample=len(drawn),
        seed=seed,
        settled=settled,
        outliers=tuple(outliers),
        allowed=allowed,
        bound=upper_bound(len(outliers), len(drawn), len(rows)),
        caught=caught(_ALTERED, len(drawn), len(rows), allowed) if len(drawn) else 0.0,
        problems=tuple([*wrong, *again.prompt_problems]),
        skipped=tuple(skip),
    )


def _corpus(
    results: Path, record: Mapping[str, Any], conditions: Conditions, root: Path | None
) -> Corpus:
    corpus = Corpus(root or Path(record.get("settings", {}).get("corpus", "corpus")))
    if corpus.content_hash != conditions.corpus_sha256:
        raise CorpusError(
            f"expected the corpus {conditions.corpus_sha256[:12]} that {results} was scored on, "
            f"found {corpus.content_hash[:12]} in {corpus.root}: name it with --corpus"
        )
    return corpus


def _suite(results: Path, conditions: Conditions, corpus: Corpus) -> Iterator[str]:
    """What is wrong with the suite that the rows claim to belong to."""
    if not conditions.suite:
        return
    path = results / SUITE
    if not path.is_file():
        yield f"bench.json names suite {conditions.suite}, but {SUITE} is missing"
        return
    suite = parse_suite(path.read_text(encoding="utf-8"), str(path))
    if suite.digest != conditions.suite_sha256:
        yield (
            f"{SUITE} has digest {suite.digest[:12]}, bench.json says "
            f"{conditions.suite_sha256[:12]}"
        )
    if suite.name in shipped() and named_suite(suite.name).digest != suite.digest:
        yield f"{SUITE} is not the suite {suite.name} that comes with this sammed"
    stated = {"modes": suite.modes, "metrics": suite.metrics, "seed": suite.seed}
    stated |= {"tolerance": suite.tolerance, "edition": suite.edition, "datasets": suite.ids}
    there = {shard.parent.name for shard in corpus.shards}
    stated["splits"] = tuple(split for split in suite.splits if split in there)
    for name, value in stated.items():
        if getattr(conditions, name) != value:
            yield f"{name} in bench.json differ from the suite: {getattr(conditions, name)}"
    if conditions.limit is not None:
        yield f"only the first {conditions.limit} images were scored, the suite has more"
    try:
        check(suite, corpus, conditions.protocol.name)
    except SammedError as err:
        yield str(err)


def draw(rows: pd.DataFrame, sample: int, seed: int) -> pd.DataFrame:
    """So many rows, each set of them equally likely, in order."""
    chosen = np.random.default_rng(seed).choice(
        len(rows), size=min(sample, len(rows)), replace=False
    )
    return rows.iloc[np.sort(chosen)]


class _Again:
    """Scores images again, alone or in the batch that they were in, and checks their prompts."""

    def __init__(
        self, *, samples: Samples, conditions: Conditions, results: Path, device: str, batch: int
    ) -> None:
        self._samples, self._conditions = samples, conditions
        self._results, self._device, self._batch = results, device, batch
        self._place = {row.sample_id: place for place, row in enumerate(samples.rows)}
        self._stores: dict[int, openings.Store | None] = {}
        self._checked: set[str] = set()
        self.prompt_problems: list[str] = []

    def alone(self, model: Model, sample_id: str) -> dict[tuple[int, str], dict[str, Any]]:
        """The rows of an image, by mask and mode."""
        return self._score(model, sample_id, [self._samples.rows[self._place[sample_id]]])

    def together(self, model: Model, sample_id: str) -> dict[tuple[int, str], dict[str, Any]]:
        """The rows of an image, scored with its neighbours."""
        place = self._place[sample_id]
        start = place - place % run.PART_IMAGES
        first = start + (place - start) // self._batch * self._batch
        last = min(first + self._batch, start + run.PART_IMAGES)
        return self._score(model, sample_id, self._samples.rows[first:last])

    def _score(
        self, model: Model, sample_id: str, batch: Sequence[Row]
    ) -> dict[tuple[int, str], dict[str, Any]]:
        asked = []
        for row in batch:
            masks = self._samples.masks[row.sample_id]
            full = self._samples.pixels(row)[0]
            asked.append(Asked.of(full, masks, self._conditions, self._device))
        for image in asked:
            self._check_prompts(image)
        scored = run.score_batch(model, asked, self._conditions)
        return {
            (row["mask_index"], row["mode"]): row
            for row in scored.rows
            if row["sample_id"] == sample_id
        }

    def _check_prompts(self, image: Asked) -> None:
        """The stored prompts of an image must be those that the protocol draws."""
        sample_id = image.row.sample_id
        if sample_id in self._checked:
            return
        self._checked.add(sample_id)
        store = self._store(self._place[sample_id] // run.PART_IMAGES)
        if store is None:  # missing or damaged: said elsewhere
            return
        drawn = openings.rows_of(
            image.opening, image.target, self._conditions.protocol, self._conditions.seed
        )
        by_mode = store.found.get(sample_id, {})
        for row in drawn:
            stored = by_mode.get(row["mode"], {}).get(row["mask_index"])
            if stored is None or not _same_prompt(stored, row):
                self.prompt_problems.append(
                    f"the stored prompts of {sample_id}, mask {row['mask_index']}, {row['mode']} "
                    f"are not those that {self._conditions.protocol.name} draws"
                )
                return

    def _store(self, number: int) -> openings.Store | None:
        if number not in self._stores:
            path = run.prompts_path(self._results, self._conditions, number)
            try:
                found = openings.Store.open(path)
            except CorpusError:
                found = None
            self._stores[number] = found if found is not None and found.stored else None
        return self._stores[number]


def _same_prompt(stored: Mapping[str, Any], drawn: Mapping[str, Any]) -> bool:
    """Equal but for the float32 that models get."""
    for name in ("points", "box"):
        a, b = stored[name], drawn[name]
        if (a is None) != (b is None) or (a is not None and not np.allclose(a, b, atol=TOLERANCE)):
            return False
    return all(stored[name] == drawn[name] for name in ("labels", "mask_runs"))


def _compare(
    drawn: pd.DataFrame, models: Mapping[str, Loaded], again: _Again, report: Reporter
) -> tuple[list[Outlier], int]:
    """Score the drawn rows again: those that differ, and how many agreed in their batch only."""
    outliers: list[Outlier] = []
    settled = 0
    for name, own in drawn.groupby("model", sort=True):
        model = models[str(name)].model
        images = own.groupby("sample_id", sort=True)
        report.start(str(name), len(images))
        for sample_id, stated in images:
            found = again.alone(model, str(sample_id))
            off = _outliers(_records(stated), found)
            if off:
                found = again.together(model, str(sample_id))
                apart = {(outlier.mask_index, outlier.mode) for outlier in off}
                left = [
                    outlier
                    for outlier in _outliers(_records(stated), found)
                    if (outlier.mask_index, outlier.mode) in apart
                ]
                settled += len(off) - len(left)
                outliers += left
            report.advance(1)
    return outliers, settled


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def _outliers(
    stated: Iterable[Mapping[str, Any]], found: Mapping[tuple[int, str], Mapping[str, Any]]
) -> list[Outlier]:
    made = []
    for row in stated:
        key = (int(row["mask_index"]), str(row["mode"]))
        differs = differences(row, found.get(key, {}))
        if differs:
            names = {name: row[name] for name in KEYS} | {"mask_index": key[0]}
            made.append(Outlier(**names, differs=differs))
    return made


def differences(stated: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Columns in which a row is not what scoring it again gives."""
    made: dict[str, tuple[Any, Any]] = {}
    for name in _NUMBERS:
        a, b = _number(stated[name]), _number(found.get(name))
        near = TOLERANCE * max(1.0, abs(a or 0.0))  # lengths are in mm or px
        if (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > near):
            made[name] = (a, b)
    if stated["status"] != found.get("status"):
        made["status"] = (stated["status"], found.get("status"))
    return made


def _number(value: Any) -> float | None:
    """A number of a row; None where it has none."""
    return None if value is None or value != value else float(value)
