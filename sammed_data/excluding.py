"""Lists against a corpus: give it one, and say what it hides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sammed_data.corpus import Corpus
from sammed_data.exclude import Exclusion, save
from sammed_data.privacy import Pseudonyms, read_key
from sammed_data.types import counted


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What giving a list to a corpus did.

    Attributes:
        known: entries that name something in it.
        unknown: entries that name nothing in it; they stay in the list for later builds.
    """

    known: int
    unknown: int


def patient_name(dataset: str, patient: str, known: set[str], key_file: Path | None = None) -> str:
    """The ``patient_id`` of the rows that a user means by it, or by the key of the source.

    Raises:
        UsageError: the key file cannot be read.
    """
    if patient in known:
        return patient
    secret = None if key_file is None else read_key(key_file)
    return Pseudonyms(dataset=dataset, secret=secret).patient(patient)


def apply_list(
    root: Path, entries: Sequence[Exclusion], *, key_file: Path | None = None, dry_run: bool = False
) -> Applied:
    """Add a list to that of a corpus, or under ``dry_run`` only look what it names.

    Patients are stored as their pseudonyms.

    Raises:
        CorpusError: no corpus there, or it cannot be written.
    """
    corpus = Corpus(root)
    known: dict[tuple[str, str], set[str]] = {}
    for number in range(len(corpus.shards)):
        names = ["sample_id", "dataset", "case_id", "patient_id"]
        table, _ = corpus.columns(number, names)
        for dataset, sample, case, patient in zip(
            *(table[n].to_pylist() for n in ("dataset", "sample_id", "case_id", "patient_id")),
            strict=True,
        ):
            known.setdefault(("sample", ""), set()).add(sample)
            known.setdefault(("case", dataset), set()).add(case)
            known.setdefault(("patient", dataset), set()).add(patient)
    stored, hits = [], 0
    for entry in entries:
        own = known.get((entry.level, entry.dataset), set())
        name = entry.id
        if entry.level == "patient":
            name = patient_name(entry.dataset, name, own, key_file)
        hits += name in own
        # Only `withdraw`, which removes the rows, may say that they are gone.
        stored.append(replace(entry, id=name, withdrawn=False))
    if dry_run:
        return Applied(known=hits, unknown=len(entries) - hits)
    before = {(e.level, e.dataset, e.id): e for e in corpus.exclusions.entries}
    added = {(e.level, e.dataset, e.id): e for e in stored}
    save(
        corpus.root,
        {**added, **{k: e for k, e in before.items() if e.withdrawn or k not in added}}.values(),
    )
    return Applied(known=hits, unknown=len(entries) - hits)


def excluded_lines(corpus: Corpus) -> list[str]:
    """What the list of a corpus hides, by reason; nothing where it has no list."""
    if not corpus.exclusions:
        return []
    images, masks = Counter[str](), Counter[str]()
    for row in corpus.index(with_excluded=True):
        ids = {"sample_id": row.sample_id, "dataset": row.dataset, **row.meta}
        reason = corpus.exclusions.reason(ids)
        if reason is not None:
            images[reason] += 1
            masks[reason] += len(row.masks)
    gone = [e for e in corpus.exclusions.entries if e.withdrawn]
    lines = [
        f"excluded: {reason}: {counted(n, 'image')} with {counted(masks[reason], 'mask')}"
        for reason, n in sorted(images.items())
    ]
    hidden = f"{counted(images.total(), 'image')} with {counted(masks.total(), 'mask')}"
    lines = [f"excluded by exclude.csv: {hidden}", *lines]
    if gone:
        lines.append(f"withdrawn: {counted(len(gone), 'patient')}, whose rows are gone")
    return lines
