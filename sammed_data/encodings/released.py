"""Masks of the released corpora: one bad mask of an image is set aside, the others are taken."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import grey, relative
from sammed_data.readers.limits import check_size
from sammed_data.readers.registry import read_label_map
from sammed_data.readers.sparse import read_places
from sammed_data.released.classes import channel_names, label_key
from sammed_data.released.names import class_id
from sammed_data.types import Case, LabelFile, LabelVolume, ReadError, Refused, Volume

# A union holds nearly all of its part: rims differ where one of the two was smoothed.
_COVERED = 0.9


@dataclass(frozen=True, kw_only=True)
class _Mask:
    number: int
    class_id: str
    name: str
    mask_ZYX: NDArray[np.bool_]


def released_masks(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """SA-Med2D-20M: one file a class and part; anything above 0 is the object."""
    source = case.fields["source"]
    rule = entry.collection
    masks: list[_Mask] = []
    refused: list[Refused] = []
    shape = _shape(like)
    for number, file in enumerate(sorted(case.labels, key=lambda f: f.path.name), start=1):
        found = _one_mask(case, entry, file, shape)
        if isinstance(found, Refused):
            refused.append(found)
            continue
        if rule is not None and source in rule.inverted:
            found = ~found
        masks.append(
            _Mask(
                number=number,
                class_id=class_id(file.path.name) or "",
                name=file.structure or "",
                mask_ZYX=found,
            )
        )
    suspects = () if rule is None else rule.unions.get(source, ())
    unions = [m for m in masks if m.class_id in suspects and _is_union(m, masks)]
    refused.extend(_union_refused(source, mask) for mask in unions)
    regions = []
    for mask in masks:
        key = label_key(entry.labels, source, mask.name)
        if mask in unions:
            continue
        if key is None:
            refused.append(_unknown(source, mask.name))
        elif not mask.mask_ZYX.any():
            refused.append(Refused(rule="no-area", label=key, reason="the mask has no pixel"))
        else:
            voxels = np.flatnonzero(mask.mask_ZYX)
            regions.append(Region(name=key, voxels_N=voxels, instance=mask.number))
    layers = pack(regions, shape)
    return LabelVolume(layers=layers, geometry=like.geometry, refused=tuple(refused))


def _shape(like: Volume) -> tuple[int, int, int]:
    z, y, x = like.array.shape[:3]
    return int(z), int(y), int(x)


def _one_mask(
    case: Case, entry: CatalogEntry, file: LabelFile, shape: tuple[int, int, int]
) -> NDArray[np.bool_] | Refused:
    """The pixels above 0; or why they cannot be taken."""
    key = label_key(entry.labels, case.fields["source"], file.structure or "")
    label = key or f"{case.fields['source']}/{file.structure}"
    try:
        array = grey(case, file.path, read_label_map(file.path)[0])
    except ReadError as err:
        reason = str(err).replace(f"{case.root}/", "")
        return Refused(rule="mask-unreadable", label=label, reason=reason)
    if array.shape != shape:
        found, wanted = (" x ".join(map(str, s[1:])) for s in (array.shape, shape))
        reason = f"{relative(case, file.path)}: {found} pixels, its image has {wanted}"
        return Refused(rule="mask-grid", label=label, reason=reason)
    found_mask: NDArray[np.bool_] = array > 0
    return found_mask


def _is_union(mask: _Mask, masks: list[_Mask]) -> bool:
    """Whether it covers the whole of another class."""
    others = {m.class_id for m in masks} - {mask.class_id}
    for other in others:
        part = np.logical_or.reduce([m.mask_ZYX for m in masks if m.class_id == other])
        if part.any() and (part & mask.mask_ZYX).sum() >= _COVERED * part.sum():
            return True
    return False


def _union_refused(source: str, mask: _Mask) -> Refused:
    return Refused(
        rule="union-class",
        label=f"{source}/{mask.name}",
        reason=f"class {mask.class_id} of {source} covers another class: a union under its id",
    )


def _unknown(source: str, name: str) -> Refused:
    return Refused(
        rule="unknown-class",
        label=f"{source}/{name}",
        reason=f"{source}: no structure is known for the class {name!r}; add it to `labels`",
    )


def sparse_channels(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """IMed-361M: a sparse matrix that is (classes, rows, columns, 1) by its file name.

    Raises:
        ReadError: the name states no shape, the matrix is damaged or of another size.
    """
    source, path = case.fields["source"], case.labels[0].path
    shape = _stated_shape(path)
    if shape[1:] != like.array.shape[1:3]:
        raise ReadError(
            f"{relative(case, path)}: expected the {like.array.shape[1]} x {like.array.shape[2]} "
            f"pixels of its image, found {shape[1]} x {shape[2]}"
        )
    matrix, places = read_places(path)
    if prod(matrix) != prod(shape):
        raise ReadError(
            f"{relative(case, path)}: expected {prod(shape):,} values by the file's name, found "
            f"{prod(matrix):,}; fetch it again"
        )
    names = channel_names(case.root / source / "dataset.json")
    channel, pixel = np.divmod(places, shape[1] * shape[2])
    regions: list[Region] = []
    refused: list[Refused] = []
    for number in range(shape[0]):
        voxels = np.unique(pixel[channel == number])
        name = names[number] if number < len(names) else f"channel {number + 1}"
        key = label_key(entry.labels, source, name)
        if key is not None:
            regions.append(Region(name=key, voxels_N=voxels))
        elif len(voxels):
            refused.append(_unknown(source, name))
    layers = pack(regions, (1, shape[1], shape[2]))
    return LabelVolume(layers=layers, geometry=like.geometry, refused=tuple(refused))


def _stated_shape(path: Path) -> tuple[int, int, int]:
    """(classes, rows, columns) of ``x___NAME.(13, 512, 512, 1).npz``."""
    text = path.name.removesuffix(".npz")
    text = text[text.rfind("(") :]
    try:
        stated = ast.literal_eval(text) if len(text) < 100 else ()
    except (ValueError, SyntaxError):
        stated = ()
    if (
        not isinstance(stated, tuple)
        or len(stated) not in (3, 4)
        or not all(type(n) is int and n > 0 for n in stated)
        or stated[3:] not in ((), (1,))
    ):
        raise ReadError(
            f"{path.name}: expected a name that ends in .(classes, rows, columns, 1).npz"
        )
    check_size(path, stated, 1)
    return stated[0], stated[1], stated[2]
