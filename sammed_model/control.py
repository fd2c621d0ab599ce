"""The control of a trained model: the same masks and prompts with the images of others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sammed_data.index import CorpusIndex, order_keys
from sammed_data.types import CorpusError


def permute_images(
    index: CorpusIndex, numbers_E: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Give every row the image of another one, of another patient where that is possible.

    Rows of one size are shifted against themselves by the largest patient's number of rows, in an
    order of hashed patients; rows whose size nobody shares are shifted together.

    Returns:
        (N,) int64 over the whole index: row -> row of the image; itself outside ``numbers_E``.

    Raises:
        CorpusError: fewer than two rows.
    """
    if len(numbers_E) < 2:
        raise CorpusError("the permuted control needs at least two images, found one: add images")
    images_N = np.arange(len(index.rows_N), dtype=np.int64)
    for group in _companies(index, numbers_E):
        rows = index.rows_N[group]
        ordered = group[np.lexsort((rows["sample"], order_keys(rows["patient"], "control", seed)))]
        largest = int(np.unique(rows["patient"], return_counts=True)[1].max())
        shift = min(largest, len(ordered) - 1)
        images_N[ordered] = np.roll(ordered, -shift)
    return images_N


def _companies(index: CorpusIndex, numbers_E: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of one size; those without company together, or with the first group if one is left."""
    rows = index.rows_N[numbers_E]
    size = rows["height"].astype(np.int64) << 32 | rows["width"]
    found, inverse, counts = np.unique(size, return_inverse=True, return_counts=True)
    groups = [numbers_E[inverse == n] for n in range(len(found)) if counts[n] > 1]
    single = numbers_E[counts[inverse] == 1]
    if len(single) == 1:
        groups[0] = np.append(groups[0], single)
    elif len(single):
        groups.append(single)
    return groups
