"""DICOM SEG and RTSTRUCT objects, drawn on the grid of their image."""

from __future__ import annotations

import numpy as np

from sammed_data.catalog import CatalogEntry
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import refuse_unknown, relative
from sammed_data.types import Case, Geometry, GeometryError, LabelFile, LabelVolume, Volume


def dicom_seg(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """DICOM SEG objects; a segment's key is its label if the entry has it, else its number."""
    from sammed_data.readers import dicom_seg
    from sammed_data.readers.dicom_header import only_file

    geometry = _needed_geometry(case, like)
    found = [(f, dicom_seg.read(only_file(f.path), geometry)) for f in case.labels]
    return _from_regions(case, entry, geometry, found, ())


def rtstruct(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """RTSTRUCT objects; a ROI's key is its name."""
    from sammed_data.readers import rtstruct
    from sammed_data.readers.dicom_header import frame_of_reference, only_file

    geometry = _needed_geometry(case, like)
    image_frame = frame_of_reference(case.image_path)
    found: list[tuple[LabelFile, list[Region]]] = []
    warnings: list[str] = []
    for file in case.labels:
        regions, said = rtstruct.read(only_file(file.path), geometry, image_frame)
        found.append((file, regions))
        warnings += said
    return _from_regions(case, entry, geometry, found, tuple(warnings))


def _from_regions(
    case: Case,
    entry: CatalogEntry,
    geometry: Geometry,
    found: list[tuple[LabelFile, list[Region]]],
    warnings: tuple[str, ...],
) -> LabelVolume:
    rule = entry.label_encoding
    kept: dict[int, list[Region]] = {}
    ignore = np.zeros(geometry.shape_zyx, dtype=bool)
    for file, regions in found:
        drawn = kept.setdefault(file.annotator, [])
        strange = []
        for region in regions:
            names = [region.name] + ([str(region.number)] if region.number is not None else [])
            key = next((n for n in names if n in entry.labels), None)
            if key is not None:
                drawn.append(Region(name=key, voxels_N=region.voxels_N))
            elif any(n in rule.ignore for n in names):
                ignore.reshape(-1)[region.voxels_N] = True
            elif not any(n in rule.unlabelled_ok for n in names):
                strange.append(repr(region.name or names[-1]))
        refuse_unknown(case, file.path, entry, strange)
    return LabelVolume(
        layers=tuple(x for a in sorted(kept) for x in pack(kept[a], geometry.shape_zyx, a)),
        geometry=geometry,
        ignore_ZYX=ignore if rule.ignore else None,
        warnings=warnings,
    )


def _needed_geometry(case: Case, like: Volume) -> Geometry:
    if like.geometry is None:
        raise GeometryError(
            f"{relative(case, case.image_path)}: expected an image with a position in space for "
            "its DICOM labels, found none; check the entry's image pattern"
        )
    return like.geometry
