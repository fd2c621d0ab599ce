"""Balanced sampling: how often each row is seen in an epoch, from the index and a hash alone.

A class (dataset, modality, or rarest structure of a row) of n rows gets a share of the epoch that
goes with n ** (1 - temperature); an epoch keeps its length. Rows of a class are put in an order of
hashes and the fractional counts are added up along it: each class gets its share to one row, and no
state is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sammed_data.corpus import View
from sammed_data.index import CorpusIndex, order_keys
from sammed_model.config import Balanced

_NO_MASK = np.iinfo(np.int64).max
_STRUCTURE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Counts of an epoch.

    Attributes:
        class_E: class of each row that is trained on, int64.
        weight_E: how often it is seen in an epoch on average; sums to E.
        seed: of the order.
    """

    class_E: NDArray[np.int64]
    weight_E: NDArray[np.float64]
    seed: int

    @classmethod
    def of(
        cls,
        index: CorpusIndex,
        numbers_E: NDArray[np.int64],
        by: Balanced,
        *,
        temperature: float,
        view: View,
        seed: int,
    ) -> Balance:
        """Over the rows ``numbers_E`` of an index.

        Args:
            index: of the corpus.
            numbers_E: rows that are trained on.
            by: what gets equal shares; ``none`` sees every row once.
            temperature: 0 leaves shares as they are, 1 makes them equal.
            view: which masks count.
            seed: of the run.
        """
        class_E = _classes(index, numbers_E, by, view)
        _, inverse, n_C = np.unique(class_E, return_inverse=True, return_counts=True)
        share_C = n_C.astype(np.float64) ** (1.0 - temperature)
        weight_C = len(numbers_E) * share_C / share_C.sum() / n_C
        return cls(class_E=class_E, weight_E=weight_C[inverse], seed=seed)

    def counts(self, epoch: int) -> NDArray[np.int64]:
        """(E,) how often each row is seen in an epoch; they sum to E."""
        rows = np.arange(len(self.class_E), dtype=np.uint64)
        order = np.lexsort((order_keys(rows, "balance", self.seed, epoch), self.class_E))
        until = np.cumsum(self.weight_E[order])
        until *= len(rows) / until[-1]
        # Half a row is added so that rounding errors of the sum never cut an exact whole number.
        whole = np.floor(until + 0.5).astype(np.int64)
        whole[-1] = len(rows)
        found = np.empty(len(rows), np.int64)
        found[order] = np.diff(whole, prepend=0)
        return found


def _classes(
    index: CorpusIndex, numbers_E: NDArray[np.int64], by: Balanced, view: View
) -> NDArray[np.int64]:
    if by == "structure":
        return _rarest(index, numbers_E, view)
    if by == "none":
        return np.zeros(len(numbers_E), np.int64)
    return index.rows_N[by][numbers_E].astype(np.int64)


def _rarest(index: CorpusIndex, numbers_E: NDArray[np.int64], view: View) -> NDArray[np.int64]:
    """The structure of each row that the fewest masks have."""
    first = index.rows_N["first_mask"][numbers_E]
    count = index.rows_N["n_masks"][numbers_E].astype(np.int64)
    before = np.cumsum(count) - count
    own = np.repeat(first - before, count) + np.arange(count.sum())
    masks = index.masks_M[own]
    structure = masks["structure"].astype(np.int64)
    kept = masks["area_fraction"] >= np.float32(view.min_area_fraction)
    if view.annotator is not None:
        kept &= masks["annotator"] == view.annotator
    frequency = np.bincount(structure[kept], minlength=int(structure.max(initial=0)) + 1)
    ranked = np.where(kept, frequency[structure] << _STRUCTURE_BITS | structure, _NO_MASK)
    rarest: NDArray[np.int64] = np.minimum.reduceat(ranked, before)
    return rarest & ((1 << _STRUCTURE_BITS) - 1)
