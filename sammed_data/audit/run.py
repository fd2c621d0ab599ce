"""The audit of a corpus, in order: scan, cases by voxels, pictures, volumes, leaks, defects."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sammed_data.audit.defects import by_area
from sammed_data.audit.duplicates import find_pairs, worst_first
from sammed_data.audit.findings import Audit, Defect, Search
from sammed_data.audit.gathered import Gathered, gather
from sammed_data.audit.leaks import overlap_groups, two_sides
from sammed_data.audit.near import TABLES
from sammed_data.audit.spoilt import SAMPLE, plant_defects
from sammed_data.audit.unlike import MIN_PEERS, find_unlike, unjudged, without_peers
from sammed_data.audit.volumes import Marks, near_volumes, read_marks, same_voxels, volume_recalls
from sammed_data.corpus import Corpus
from sammed_data.types import UsageError

PLANTED = 100


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How thorough an audit is.

    Attributes:
        workers: processes that read shards.
        planted: pictures of which copies are planted, six of each; up to 30 of so many rows and
            cases are spoilt to measure the search for defects.
        tables: of the search; more find more and take longer.
        scratch: where arrays go while the audit runs (some 400 bytes a picture); None = the
            system's temporary folder.
    """

    workers: int = 1
    planted: int = PLANTED
    tables: int = TABLES
    scratch: Path | None = None

    def check(self) -> None:
        """Refuse wrong options, all in one sentence.

        Raises:
            UsageError: a number is out of range.
        """
        wrong = [] if self.planted >= 0 else [f"--planted is at least 0, not {self.planted}"]
        if self.tables < 1:
            wrong.append(f"--tables is at least 1, not {self.tables}")
        if wrong:
            raise UsageError("; ".join(wrong))


def _no_progress(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def audit_corpus(
    corpus: Corpus,
    options: AuditOptions | None = None,
    progress: Callable[[str, int, int], object] = _no_progress,
) -> Audit:
    """Everything an audit finds.

    Raises:
        CorpusError: a shard is missing or damaged.
        UsageError: an option is out of range.
    """
    chosen = options or AuditOptions()
    chosen.check()
    seconds: dict[str, float] = {}
    started = time.monotonic()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name], started = time.monotonic() - started, time.monotonic()

    with tempfile.TemporaryDirectory(prefix="sammed-audit-", dir=chosen.scratch) as folder:
        found = gather(corpus, Path(folder), chosen.workers, progress)
        lap("read and fingerprint")
        marks = read_marks(found)
        certain = same_voxels(found, marks)
        pictures = find_pairs(found, plant=chosen.planted, progress=progress, tables=chosen.tables)
        lap("pictures")
        pairs = pictures.pairs | certain
        volumes, tried = near_volumes(found, marks, pairs.__contains__)
        pairs |= volumes
        recalls = volume_recalls(found) if chosen.planted else ()
        lap("volumes")
        defects = _defects(found)
        lap("defects")
        spoilt = plant_defects(found, min(chosen.planted, SAMPLE))
        lap("planted defects")
    listed = worst_first(pairs)
    search = Search(
        recalls=pictures.recalls(), right=pictures.right, wrong=pictures.wrong, volumes=recalls,
        crowded=pictures.crowded, flat=int(found.rows_N["flat"].sum()),
        candidates=pictures.candidates + tried, confirmed=pictures.confirmed + len(volumes),
    )  # fmt: skip
    images = len(found.rows_N)
    return Audit(
        images=images,
        masks=len(found.masks_M),
        cases=len(found.cases),
        excluded=sum(s["rows"] for s in corpus.manifest["shards"]) - images,
        pairs=tuple(listed),
        two_sides=two_sides(found.cases),
        groups=overlap_groups(corpus.manifest, found.cases, listed),
        defects=defects,
        search=search,
        spoilt=spoilt,
        notes=_notes(found, marks),
        seconds=seconds,
    )


def _defects(found: Gathered) -> tuple[Defect, ...]:
    cases = found.rows_N["case"]
    listed = [(kind, row, -1, "") for kind, row in found.defects]
    listed += by_area(found.masks_M)
    listed += find_unlike(found.fits_C, found.parts_P, found.moments_S)
    return tuple(
        Defect(
            kind=kind, case=found.cases[int(cases[row])], place=found.place(row), mask=mask,
            detail=detail,
        )
        for kind, row, mask, detail in listed
    )  # fmt: skip


def _notes(found: Gathered, marks: Marks) -> tuple[str, ...]:
    notes = []
    if marks.without:
        notes.append(
            f"{marks.without} of {len(found.corpus.shards)} shards were built before cases had "
            f"fingerprints: their cases were compared by slices alone (`sammed data build` into a "
            f"new folder makes them)"
        )
    unknown = sorted({c.dataset for c in found.cases if c.cluster != "patient"})
    if unknown:
        notes.append(f"patients are files or studies, not persons, in: {', '.join(unknown)}")
    return (*notes, *_blind_spots(found))


def _blind_spots(found: Gathered) -> Iterator[str]:
    """Where a mask unlike its image would hardly be seen."""
    blurred = unjudged(found.fits_C, found.parts_P, found.moments_S)
    if blurred:
        yield (
            f"outlines in place are hardly told from others, so a mask unlike its image would "
            f"hardly be seen, in: {_names(found, blurred)}"
        )
    alone = without_peers(found.fits_C)
    if alone:
        yield (
            f"under {MIN_PEERS} cases to judge one beside, so masks of another patient or slice "
            f"would hardly be seen, in: {_names(found, alone)}"
        )


def _names(found: Gathered, datasets: list[int]) -> str:
    names = {c.dataset for c, n in zip(found.cases, found.dataset_C, strict=True) if n in datasets}
    return ", ".join(sorted(names))
