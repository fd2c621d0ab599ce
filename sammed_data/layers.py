"""Overlapping regions -> as few layers as first fit gives; a layer holds disjoint masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import LabelLayer


@dataclass(frozen=True, kw_only=True)
class Region:
    """One mask as the flat indices of its voxels.

    Attributes:
        name: name in the source (segment, ROI) or, once resolved, the raw label of the entry.
        voxels_N: flat indices into (Z, Y, X); may be empty.
        instance: number of the object where the encoding knows objects, else None.
        number: segment number of a DICOM SEG, else None.
    """

    name: str
    voxels_N: NDArray[np.int64]
    instance: int | None = None
    number: int | None = None


def pack(
    regions: Sequence[Region], shape_zyx: tuple[int, int, int], annotator: int = 1
) -> tuple[LabelLayer, ...]:
    """Put every region into the first layer where it overlaps nothing.

    Empty regions keep their name, for they say that the structure was looked for. There is
    always at least one layer.
    """
    dtype = np.uint8 if len(regions) < 256 else np.uint16 if len(regions) < 65536 else np.int32
    arrays: list[NDArray[np.integer]] = [np.zeros(shape_zyx, dtype)]
    names: list[dict[int, str]] = [{}]
    instances: list[dict[int, int]] = [{}]
    for value, region in enumerate(regions, start=1):
        k = next(
            (i for i, a in enumerate(arrays) if not a.reshape(-1)[region.voxels_N].any()), None
        )
        if k is None:
            k = len(arrays)
            arrays.append(np.zeros(shape_zyx, dtype))
            names.append({})
            instances.append({})
        arrays[k].reshape(-1)[region.voxels_N] = value
        names[k][value] = region.name
        if region.instance is not None:
            instances[k][value] = region.instance
    return tuple(
        LabelLayer(array_ZYX=a, names=n, instances=i, annotator=annotator)
        for a, n, i in zip(arrays, names, instances, strict=True)
    )
