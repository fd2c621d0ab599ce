"""The scans of all shards as one: rows, cases, signatures on disk, pictures on demand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.defects import MASK
from sammed_data.audit.fingerprints import VIEWS, WORDS
from sammed_data.audit.fits import CASE, MOMENT, PART, summed
from sammed_data.audit.scan import ROW, CaseKey, ScanTask, ShardScan, load, scan_shard
from sammed_data.corpus import Corpus, Row
from sammed_data.engine import run_tasks

_HELD_IMAGES = 256


class Gathered:
    """All rows of a corpus after one pass over its pixels.

    Attributes:
        rows_N: structured, see ``scan.ROW``; ``case`` is an index into ``cases``.
        cases: whose pictures they are.
        masks_M: structured, see ``defects.MASK``; ``row`` is an index into ``rows_N``.
        fits_C: structured, see ``fits.CASE``, cases with outlines alone, rising; ``parts_P`` and
            ``moments_S`` beside it.
        group_N: one number a patient; -1 for pictures without shape.
        dataset_C: number of each case's dataset.
        defects: (kind, row).
    """

    def __init__(self, corpus: Corpus, scans: Sequence[ShardScan], folder: Path) -> None:
        self.corpus = corpus
        total = sum(s.rows for s in scans)
        self.rows_N = np.empty(total, ROW)
        self.defects: list[tuple[str, int]] = []
        self.views_path, self._folder = folder / "views.all", folder
        cases: dict[CaseKey, int] = {}
        codes: dict[tuple[str, str], int] = {}
        kept: dict[str, list[NDArray[Any]]] = {"masks": [], "fits": [], "parts": [], "moments": []}
        first = 0
        views = self.views(total, mode="w+")
        for scan in sorted(scans, key=lambda s: s.shard):
            part = slice(first, first + scan.rows)
            numbers = np.array([cases.setdefault(c, len(cases)) for c in scan.cases], np.int32)
            rows = np.array(load(folder, scan.shard, "rows"))
            if scan.rows:
                rows["case"] = numbers[rows["case"]]
                self.rows_N[part] = rows
                views[part] = load(folder, scan.shard, "views")
            arrays = {name: np.array(load(folder, scan.shard, name)) for name in kept}
            names = [codes.setdefault((c.dataset, s), len(codes))
                     for c in scan.cases[:1] for s in scan.structures]  # fmt: skip
            for name, array in arrays.items():
                fields = array.dtype.names or ()
                if len(array) and "structure" in fields:
                    array["structure"] = np.array(names, np.int32)[array["structure"]]
                if len(array) and "case" in fields:
                    array["case"] = numbers[array["case"]]
                if len(array) and "row" in fields:
                    array["row"] += first
                kept[name].append(array)
            self.defects += [(kind, first + row) for kind, row in scan.defects]
            for name in ("rows", "views", *kept):
                (folder / f"{scan.shard:06d}.{name}.npy").unlink()
            first += scan.rows
        self.masks_M = np.concatenate([np.empty(0, MASK), *kept["masks"]])
        self.cases = list(cases)
        patients: dict[tuple[str, str], int] = {}
        datasets: dict[str, int] = {}
        self.group_C = np.array(
            [patients.setdefault((c.dataset, c.patient_id), len(patients)) for c in self.cases],
            np.int64,
        )
        self.dataset_C = np.array(
            [datasets.setdefault(c.dataset, len(datasets)) for c in self.cases], np.int32
        )
        self._gather_fits(kept)
        empty = np.empty(0, np.int64)
        self.group_N = self.group_C[self.rows_N["case"]] if total else empty
        self.group_N = np.where(self.rows_N["flat"], -1, self.group_N)
        self._order = np.argsort(self.rows_N["case"], kind="stable")
        self._starts = np.searchsorted(
            self.rows_N["case"][self._order], np.arange(len(self.cases) + 1)
        )
        self._held: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def _gather_fits(self, kept: dict[str, list[NDArray[Any]]]) -> None:
        fits = np.concatenate([np.empty(0, CASE), *kept["fits"]])
        fits["dataset"] = self.dataset_C[fits["case"]]
        self.fits_C = fits[np.argsort(fits["case"], kind="stable")]
        parts = np.concatenate([np.empty(0, PART), *kept["parts"]])
        self.parts_P = parts[np.argsort(parts["case"], kind="stable")]
        self.moments_S = summed(np.concatenate([np.empty(0, MOMENT), *kept["moments"]]))

    def views(self, n: int, *, mode: Any = "r+") -> NDArray[np.uint64]:
        """(n, V, 4) signatures on disk; longer than the corpus where copies are planted."""
        if not n:
            return np.empty((0, len(VIEWS), WORDS), np.uint64)
        return np.memmap(self.views_path, np.uint64, mode, shape=(n, len(VIEWS), WORDS))

    def rows_of(self, case: int) -> NDArray[np.int64]:
        """Row numbers of a case."""
        return np.asarray(self._order[self._starts[case] : self._starts[case + 1]])

    def place(self, row: int) -> tuple[int, int]:
        """(shard, row in it)."""
        return int(self.rows_N["shard"][row]), int(self.rows_N["position"][row])

    def row(self, row: int) -> Row:
        """A row with its picture and masks, read anew."""
        return self.corpus.at(*self.place(row))

    def image(self, row: int) -> NDArray[np.uint8]:
        """The picture of a row; the last ones stay in memory."""
        if row not in self._held:
            self._held[row] = self.corpus.image(*self.place(row))
            if len(self._held) > _HELD_IMAGES:
                self._held.popitem(last=False)
        self._held.move_to_end(row)
        return self._held[row]


def gather(
    corpus: Corpus, folder: Path, workers: int, progress: Callable[[str, int, int], object]
) -> Gathered:
    """Scan every shard, in as many processes as are asked for.

    Raises:
        CorpusError: a shard is missing or damaged.
    """
    tasks = [ScanTask(root=corpus.root, shard=n, folder=folder) for n in range(len(corpus.shards))]
    scans = []
    for scan in run_tasks(scan_shard, tasks, workers):
        scans.append(scan)
        progress("reading shards", len(scans), len(tasks))
    return Gathered(corpus, scans, folder)
