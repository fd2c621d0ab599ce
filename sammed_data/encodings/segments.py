"""`.seg.nrrd` segments by their names, put on the grid of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.geometry import same_grid
from sammed_data.raw_labels import relative, union
from sammed_data.types import (
    Case,
    Geometry,
    GeometryError,
    LabelLayer,
    LabelVolume,
    ReadError,
    Volume,
    nearest,
)

_OFF_GRID = 0.01  # share of a voxel by which a cropped segmentation may lie off the image grid


def seg_nrrd(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One layer a layer of the file; several files are several observers."""
    from sammed_data.readers import segments

    rule = entry.label_encoding
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    geometry: Geometry | None = None
    for file in case.labels:
        found = segments.read(file.path)
        wide, place = _on_image(found.layers, found.geometry, like)
        if geometry is not None and not same_grid(geometry, place):
            raise GeometryError(
                f"{relative(case, file.path)}: expected the grid of the case's other labels, "
                f"{geometry.describe()}, found {place.describe()}"
            )
        geometry = place
        strange = [
            f"{s.name!r} ({nearest(s.name, entry.labels)})"
            for s in found.segments
            if s.name not in (*entry.labels, *rule.ignore, *rule.unlabelled_ok)
        ]
        if strange:
            raise ReadError(
                f"{relative(case, file.path)}: expected the segments of {entry.id}, found "
                f"{'; '.join(strange[:8])}; add them to `labels`, `ignore` or `unlabelled_ok`"
            )
        for number, layer in enumerate(wide):
            here = [s for s in found.segments if s.layer == number]
            hidden = [s.value for s in here if s.name in rule.ignore]
            ignores.append(np.isin(layer, hidden) if hidden else None)
            names = {s.value: s.name for s in here if s.name in entry.labels}
            silent = [s.value for s in here if s.name not in entry.labels]
            layers.append(
                LabelLayer(
                    array_ZYX=np.where(np.isin(layer, silent), 0, layer) if silent else layer,
                    names=names,
                    annotator=file.annotator,
                )
            )
    return LabelVolume(layers=tuple(layers), geometry=geometry, ignore_ZYX=union(ignores))


def _on_image(
    layers: tuple[NDArray[Any], ...], own: Geometry, like: Volume
) -> tuple[tuple[NDArray[Any], ...], Geometry]:
    """Slicer may save the box around the segments only; that box is put back into the image."""
    image = like.geometry
    if image is None or image.shape_zyx == own.shape_zyx:
        return layers, own
    if not np.allclose(image.affine_lps[:3, :3], own.affine_lps[:3, :3], rtol=0, atol=1e-3):
        return layers, own
    inverse = np.linalg.inv(image.affine_lps)
    start = inverse[:3, :3] @ own.affine_lps[:3, 3] + inverse[:3, 3]
    first = np.rint(start).astype(int)
    last = first + own.shape_zyx
    if (np.abs(start - first) > _OFF_GRID).any() or (first < 0).any():
        return layers, own
    if (last > image.shape_zyx).any():
        return layers, own
    place = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    wide = []
    for layer in layers:
        full = np.zeros(image.shape_zyx, layer.dtype)
        full[place] = layer
        wide.append(full)
    return tuple(wide), image
