"""Take a patient out of a corpus: only the shards that hold them are written anew.

The result is what a build would have given that leaves the patient's cases out; the list of the
corpus remembers the patient, so that a later build does not bring them back.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sammed_data.corpus import SCHEMA, Corpus
from sammed_data.curate import RULES
from sammed_data.engine import fail_point
from sammed_data.exclude import Exclusion, save
from sammed_data.index import FOLDER, open_index
from sammed_data.lock import LOCK, RECIPE, relock, with_list
from sammed_data.manifest import make_card
from sammed_data.shards import (
    ShardWriter,
    case_marks,
    content_hashes,
    read_rejections_of,
    write_rejections,
)
from sammed_data.staging import record_of, rejections_path, staging_folder, write_text
from sammed_data.stores import is_remote
from sammed_data.types import CorpusError, Rejection, UsageError, nearest

_RULE = "excluded"


@dataclass
class Taken:
    """What one shard loses, by the names that records and manifest use.

    Attributes:
        cases: ids of the patient's cases.
        images, masks: rejected ones of these cases, by rule.
    """

    cases: set[str] = field(default_factory=set)
    rows: int = 0
    kept_masks: int = 0
    images: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """What a withdrawal did."""

    shards: tuple[str, ...]
    cases: int
    images: int
    masks: int
    content_sha256: str


def withdraw(
    root: Path, dataset: str, patient_id: str, reason: str, *, typed: str = ""
) -> Withdrawn:
    """Remove all rows of a patient from the corpus at ``root``.

    Args:
        root: corpus folder.
        dataset: id of its dataset.
        patient_id: as in the rows.
        reason: kept in the list of the corpus.
        typed: what the user called the patient, for errors.

    Raises:
        UsageError: no such dataset or patient, or no reason.
        CorpusError: the corpus is damaged or cannot be written.
    """
    if not reason.strip():
        raise UsageError("expected a reason for the withdrawal, found none: pass --reason TEXT")
    corpus = Corpus(root)
    if is_remote(corpus.root):
        raise UsageError(
            f"withdraw rewrites shards of a local folder, not {root}: copy the corpus, withdraw "
            f"there, and copy it back"
        )
    touched = _shards_of(corpus, dataset, patient_id, typed or patient_id)
    with staging_folder(root) as staging:
        why = _recorded(corpus, dataset, reason.strip())
        taken = {n: _stage_shard(corpus, n, patient_id, why, staging) for n in touched}
        if sum(s["rows"] for s in corpus.manifest["shards"]) == sum(t.rows for t in taken.values()):
            raise CorpusError(f"{root} holds no other patient: remove the folder instead")
        # Without its record a shard counts as not built: a build after a kill makes it anew.
        records = {n: _take_record(_stem(corpus, n), staging) for n in touched}
        entry = Exclusion(
            level="patient", dataset=dataset, id=patient_id, reason=reason.strip(), withdrawn=True
        )
        save(root, [*corpus.exclusions.entries, entry])
        fail_point("withdraw_listed")
        for number in touched:
            _swap(corpus, number, taken[number], records[number], staging)
        manifest = _mended(corpus, dataset, taken)
        if (root / LOCK).is_file():
            write_text(root / LOCK, relock(root / LOCK, manifest["content_sha256"]))
        if (root / RECIPE).is_file():
            write_text(root / RECIPE, with_list(root / RECIPE))
        write_text(root / "README.md", make_card(manifest))
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        write_text(root / "manifest.json", text)
        for left in (root / FOLDER).glob("*"):
            left.unlink()
    open_index(Corpus(root))
    return Withdrawn(
        shards=tuple(corpus.manifest["shards"][n]["path"] for n in touched),
        cases=sum(len(t.cases) for t in taken.values()),
        images=sum(t.rows for t in taken.values()),
        masks=sum(t.kept_masks for t in taken.values()),
        content_sha256=manifest["content_sha256"],
    )


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a corpus holds of a patient."""

    shards: tuple[str, ...]
    images: int
    masks: int


def held_by(corpus: Corpus, dataset: str, patient_id: str, *, typed: str = "") -> Held:
    """What :func:`withdraw` would remove, and the shards that it would write anew.

    Raises:
        UsageError: no such dataset or patient.
    """
    touched = _shards_of(corpus, dataset, patient_id, typed or patient_id)
    rows = [r for r in corpus.index(with_excluded=True) if r.dataset == dataset]
    own = [r for r in rows if r.meta["patient_id"] == patient_id]
    return Held(
        shards=tuple(corpus.manifest["shards"][n]["path"] for n in touched),
        images=len(own),
        masks=sum(len(r.masks) for r in own),
    )


def patients_of(corpus: Corpus, dataset: str) -> set[str]:
    """All ``patient_id`` of a dataset.

    Raises:
        UsageError: the corpus has no such dataset.
    """
    return set().union(*_patients_by_shard(corpus, dataset).values())


def _patients_by_shard(corpus: Corpus, dataset: str) -> dict[int, set[str]]:
    known = [d["id"] for d in corpus.manifest["datasets"]]
    if dataset not in known:
        raise UsageError(f"{corpus.root} has no dataset {dataset!r}; {nearest(dataset, known)}")
    return {
        number: set(corpus.columns(number, ["patient_id"])[0]["patient_id"].to_pylist())
        for number, shard in enumerate(corpus.shards)
        if shard.name.rsplit("-", 1)[0] == dataset
    }


def _shards_of(corpus: Corpus, dataset: str, patient_id: str, typed: str) -> list[int]:
    patients = _patients_by_shard(corpus, dataset)
    touched = [number for number, own in patients.items() if patient_id in own]
    if not touched:
        known = set().union(*patients.values())
        raise UsageError(
            f"{dataset} has no patient {typed!r} in {corpus.root}, by patient_id or by raw key "
            f"(restricted data want --key); {nearest(typed, known)}"
        )
    return touched


def _raw_rows(corpus: Corpus, number: int) -> Iterator[dict[str, Any]]:
    names = [f.name for f in SCHEMA]
    for group in range(pq.read_metadata(corpus.shards[number]).num_row_groups):
        yield from corpus.row_group(number, group, names).to_pylist()


def _stem(corpus: Corpus, number: int) -> str:
    shard = corpus.shards[number]
    return f"{shard.parent.name}--{shard.stem}"


def _stage_shard(corpus: Corpus, number: int, patient_id: str, reason: str, staging: Path) -> Taken:
    """Write the shard and its rejections without the patient, as unfinished files."""
    stem, taken = _stem(corpus, number), Taken()
    writer = ShardWriter(staging / f"{stem}.withdraw.tmp")
    for mark in case_marks(corpus.shards[number]) or ():
        if mark.patient_id == patient_id:
            taken.cases.add(mark.case_id)  # also a case of which no slice was kept
        else:
            writer.mark(mark)
    for row in _raw_rows(corpus, number):
        if row["patient_id"] == patient_id:
            taken.cases.add(row["case_id"])
            taken.rows += 1
            taken.kept_masks += len(row["masks"])
        else:
            writer.add(row)
    writer.close()
    dataset = corpus.shards[number].name.rsplit("-", 1)[0]
    kept = []
    for rejection in read_rejections_of(corpus.root / rejections_path(stem)):
        if rejection.case_id not in taken.cases:
            kept.append(rejection)
        elif rejection.level == "image":
            taken.images[rejection.rule] += rejection.count
        elif rejection.level == "mask":
            taken.masks[rejection.rule] += rejection.count
    kept += [
        Rejection(dataset=dataset, case_id=case, level="case", rule=_RULE, reason=reason)
        for case in sorted(taken.cases)
    ]
    write_rejections(staging / f"{stem}.withdraw.rejections", kept)
    return taken


def _recorded(corpus: Corpus, dataset: str, reason: str) -> str:
    """What the rejections say: the reason, and of restricted data the rule, as a build writes."""
    about = next(d for d in corpus.manifest["datasets"] if d["id"] == dataset)
    return f"excluded: {reason}" if about.get("privacy") == "public" else RULES[_RULE][1]


def _take_record(stem: str, staging: Path) -> dict[str, Any] | None:
    record = record_of(stem, staging)
    (staging / f"{stem}.json").unlink(missing_ok=True)
    return record


def _swap(
    corpus: Corpus, number: int, taken: Taken, record: dict[str, Any] | None, staging: Path
) -> None:
    """Put the new files in place of the old ones; the record follows, so that a build agrees."""
    stem, shard = _stem(corpus, number), corpus.shards[number]
    staged = staging / f"{stem}.withdraw.tmp"
    rows = pq.read_metadata(staged).num_rows
    hashes = content_hashes(staged)
    content = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    said = corpus.manifest["shards"][number]
    rejections = corpus.root / rejections_path(stem)
    rejections.parent.mkdir(exist_ok=True)
    (staging / f"{stem}.withdraw.rejections").replace(rejections)
    (staging / f"{stem}.parquet").unlink(missing_ok=True)
    said |= {"rows": rows, "masks": said["masks"] - taken.kept_masks, "content_sha256": content}
    if record is not None:
        patients = set(pq.read_table(staged, columns=["patient_id"])["patient_id"].to_pylist())
        record |= {k: said[k] for k in ("rows", "masks", "content_sha256")}
        record |= {"patients": sorted(patients), "has_rejections": True}
        record["slices"] -= taken.rows + taken.images.total()
        record["candidates"] -= taken.kept_masks + taken.masks.total()
        lost = Counter({f"image:{k}": n for k, n in taken.images.items()})
        lost += Counter({f"mask:{k}": n for k, n in taken.masks.items()})
        found = Counter(record["rejected"]) - lost
        found[f"case:{_RULE}"] += len(taken.cases)
        record["rejected"] = dict(sorted(found.items()))
        write_text(staging / f"{stem}.json", json.dumps(record, sort_keys=True))
    if rows:
        staged.replace(shard)
    else:
        staged.unlink()
        shard.unlink()


def _mended(corpus: Corpus, dataset: str, taken: Mapping[int, Taken]) -> dict[str, Any]:
    """The manifest without the patient; its counts still add up."""
    manifest = corpus.manifest
    for number, lost in taken.items():
        split = corpus.shards[number].parent.name
        for about in manifest["datasets"]:
            if about["id"] == dataset:
                _subtract(about["counts"], lost)
                about["splits"][split] -= lost.rows
        _subtract(manifest["counts"], lost)
    for about in manifest["datasets"]:
        about["patients"] -= about["id"] == dataset
    manifest["shards"] = [s for s in manifest["shards"] if s["rows"]]
    hashes: Sequence[str] = [
        h for s in manifest["shards"] for h in content_hashes(corpus.root / s["path"])
    ]
    text = "\n".join(sorted(hashes))
    manifest["content_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return manifest


def _subtract(counts: dict[str, Any], lost: Taken) -> None:
    images, masks, cases = counts["images"], counts["masks"], counts["cases"]
    images["found"] -= lost.rows + lost.images.total()
    images["kept"] -= lost.rows
    masks["candidates"] -= lost.kept_masks + lost.masks.total()
    masks["kept"] -= lost.kept_masks
    images["rejected"] = dict(sorted((Counter(images["rejected"]) - lost.images).items()))
    masks["rejected"] = dict(sorted((Counter(masks["rejected"]) - lost.masks).items()))
    rejected = Counter(cases["rejected"]) + Counter({_RULE: len(lost.cases)})
    cases["rejected"] = dict(sorted(rejected.items()))
