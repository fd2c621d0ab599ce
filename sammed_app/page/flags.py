"""Bad samples that a reader of the page flags: lines of an exclude list, with a reason."""

from __future__ import annotations

import threading
from pathlib import Path

from sammed_data.corpus import Corpus, Row
from sammed_data.exclude import FILE, Exclusion, Exclusions, read_list, save_list
from sammed_data.types import UsageError

_LONGEST_REASON = 300


class Flags:
    """The exclude list behind the page, read anew before each change and written whole.

    Args:
        corpus: opened.
        path: of the list; None = ``exclude.csv`` of the corpus.

    Raises:
        UsageError: the list is no such table, or has another ending.
    """

    def __init__(self, corpus: Corpus, path: Path | None = None) -> None:
        self._path = corpus.root / FILE if path is None else path
        if self._path.suffix != ".csv":
            raise UsageError(f"expected --exclude as a .csv file, found {self._path}")
        self._lock = threading.Lock()
        self._list = self._read()

    @property
    def place(self) -> str:
        """Where the list is."""
        return str(self._path)

    def reason(self, row: Row) -> str | None:
        """Why a row is left out, or None."""
        ids = {"sample_id": row.sample_id, "dataset": row.dataset, **row.meta}
        return self._list.reason(ids)

    def own(self, sample_id: str) -> Exclusion | None:
        """The line about this very sample, if there is one."""
        for entry in self._list.entries:
            if entry.level == "sample" and entry.id == sample_id:
                return entry
        return None

    def samples(self) -> list[str]:
        """Samples that have a line of their own."""
        return [entry.id for entry in self._list.entries if entry.level == "sample"]

    def add(self, sample_id: str, reason: str) -> None:
        """Leave a sample out.

        Raises:
            UsageError: no reason, or one that is no line of text.
            CorpusError: the list cannot be written.
        """
        said = " ".join(reason.split())
        if not said or len(said) > _LONGEST_REASON or not said.isprintable():
            raise UsageError(
                f"expected a reason of 1 to {_LONGEST_REASON} letters, found {len(said)}: say why "
                "the sample is left out"
            )
        entry = Exclusion(level="sample", dataset="", id=sample_id, reason=said)
        with self._lock:
            others = [e for e in self._read().entries if not _about(e, sample_id)]
            self._list = save_list(self._path, [*others, entry])

    def remove(self, sample_id: str) -> None:
        """Take a sample back; a withdrawn one stays away.

        Raises:
            CorpusError: the list cannot be written.
        """
        with self._lock:
            kept = [e for e in self._read().entries if e.withdrawn or not _about(e, sample_id)]
            self._list = save_list(self._path, kept)

    def _read(self) -> Exclusions:
        return Exclusions(read_list(self._path)) if self._path.is_file() else Exclusions()


def _about(entry: Exclusion, sample_id: str) -> bool:
    return entry.level == "sample" and entry.id == sample_id
