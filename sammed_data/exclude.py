"""Lists of samples, cases and patients that do not count: honoured at reading, without a rebuild.

A corpus keeps its list in ``exclude.csv``. Nothing vanishes: what the list hides is counted, with
its reason, by `sammed data describe`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from sammed_data.stores import is_remote
from sammed_data.types import CorpusError, UsageError

FILE = "exclude.csv"
LEVELS = ("sample", "case", "patient")
_COLUMNS = {"sample_id": "sample", "case_id": "case", "patient_id": "patient"}


@dataclass(frozen=True, kw_only=True, order=True)
class Exclusion:
    """One line of a list.

    Attributes:
        level: 'sample', 'case' or 'patient'.
        dataset: '' for samples, whose ids name their dataset.
        id: ``sample_id``, ``case_id`` or ``patient_id`` as they stand in the rows.
        reason: why; shown wherever the exclusion is counted.
        withdrawn: the rows are gone from the disk, and a build does not bring them back.
    """

    level: str
    dataset: str
    id: str
    reason: str
    withdrawn: bool = False


class Exclusions:
    """What a corpus leaves out."""

    def __init__(self, entries: Iterable[Exclusion] = ()) -> None:
        self.entries = tuple(sorted(set(entries)))
        self._reasons = {(e.level, e.dataset, e.id): e.reason for e in self.entries}

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def digest(self) -> str:
        """Identity of the list; '' when it is empty. Part of the key of anything kept by rows."""
        text = "\n".join(json.dumps(astuple(e)) for e in self.entries)
        return hashlib.sha256(text.encode()).hexdigest() if self.entries else ""

    def reason(self, row: Mapping[str, Any]) -> str | None:
        """Why a row (its columns by name) is left out, or None."""
        if not self._reasons:
            return None
        dataset = row["dataset"]
        return (
            self._reasons.get(("sample", "", row["sample_id"]))
            or self._reasons.get(("case", dataset, row["case_id"]))
            or self._reasons.get(("patient", dataset, row["patient_id"]))
        )

    def withdrawn(self, dataset: str) -> dict[str, str]:
        """patient_id -> reason, of the patients of a dataset that a build must not bring back."""
        return {e.id: e.reason for e in self.entries if e.withdrawn and e.dataset == dataset}


def load(root: Path) -> Exclusions:
    """The list of a corpus; empty where it has none."""
    path = root / FILE
    return Exclusions(read_list(path)) if path.is_file() else Exclusions()


def save(root: Path, entries: Iterable[Exclusion]) -> Exclusions:
    """Write the list of a corpus beside its manifest.

    Raises:
        CorpusError: the folder cannot be written.
    """
    return save_list(root / FILE, entries)


def save_list(path: Path, entries: Iterable[Exclusion]) -> Exclusions:
    """Write a list as CSV, whole or not at all.

    Raises:
        CorpusError: the folder cannot be written.
    """
    found = Exclusions(entries)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f.name for f in fields(Exclusion)])
    writer.writerows((*astuple(e)[:-1], int(e.withdrawn)) for e in found.entries)
    remote = is_remote(path)  # an object appears whole
    target = path if remote else path.parent / f".{path.name}.tmp"
    try:
        target.write_text(text.getvalue(), encoding="utf-8")
        if not remote:
            target.replace(path)
    except OSError as err:
        raise CorpusError(f"cannot write {path} ({err.strerror}): mend the folder") from err
    return found


def read_list(path: Path) -> list[Exclusion]:
    """A list as CSV, JSON lines or Parquet.

    Columns: ``sample_id``, or ``dataset`` with ``case_id`` or ``patient_id``, and ``reason``; or
    ``level, dataset, id, reason`` as in the ``exclude.csv`` of a corpus.

    Raises:
        UsageError: not such a table; the line is named.
    """
    found = []
    for number, row in enumerate(_table(path), start=1):
        try:
            found.append(_entry(row))
        except UsageError as err:
            raise UsageError(f"{path}, entry {number}: {err}") from err
    return found


def _table(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return list(pq.ParquetFile(path).read().to_pylist())
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".jsonl", ".ndjson"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return list(csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError) as err:  # ArrowInvalid and JSONDecodeError are ValueErrors
        said = getattr(err, "strerror", None) or str(err).splitlines()[0]
        raise UsageError(
            f"{path}: expected a list as .csv, .jsonl or .parquet, found {said}"
        ) from err


def _entry(row: Mapping[str, Any]) -> Exclusion:
    if not isinstance(row, Mapping):
        raise UsageError(f"expected an object with columns, found {row!r:.60}")
    given = {k: str(v).strip() for k, v in row.items() if k and v not in (None, "")}
    level, name = given.get("level", ""), given.get("id", "")
    for column, own in _COLUMNS.items():
        if not name and column in given:
            level, name = own, given[column]
    if level not in LEVELS or not name:
        raise UsageError(
            # Not their names: the head of a wrong file may be a key, or a patient.
            f"expected a column sample_id, case_id or patient_id, found {len(row)} others"
        )
    if level != "sample" and not given.get("dataset"):
        raise UsageError(f"expected a dataset beside the {level} {name!r}, found none")
    if not given.get("reason"):
        raise UsageError(f"expected a reason beside {name!r}, found none: say why it is left out")
    return Exclusion(
        level=level,
        dataset="" if level == "sample" else given["dataset"],
        id=name,
        reason=given["reason"],
        withdrawn=given.get("withdrawn", "0").lower() in ("1", "true"),
    )
