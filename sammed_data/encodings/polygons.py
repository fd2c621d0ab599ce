"""Outlines that name their classes: one picture a case, or LIDC's readings of a CT series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import class_of, refuse_unknown, relative
from sammed_data.readers.outlines import Picture, Shape, check_picture, fill
from sammed_data.readers.outlines_json import JSON_FORMATS
from sammed_data.readers.outlines_xml import XML_FORMATS
from sammed_data.types import (
    Case,
    CatalogError,
    GeometryError,
    LabelFile,
    LabelLayer,
    LabelVolume,
    ReadError,
    Volume,
    nearest,
)

_FORMATS = {**XML_FORMATS, **JSON_FORMATS}
# Where the coordinate 0 is: the centre of the first pixel, or its corner half a pixel before.
_CENTERS = {"coco": 0.5, "cvat": 0.5, "labelme": 0.5}


def polygons(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """Every outline is an object; its class is the first of its names that the entry knows."""
    if entry.label_encoding.format == "lidc":
        return _lidc(case, entry, like)
    depth, *plane = (int(n) for n in like.array.shape[:3])
    if depth != 1:
        raise GeometryError(
            f"{relative(case, case.image_path)}: expected one picture for its outlines, found "
            f"{depth} slices; `format` {entry.label_encoding.format} has no third axis"
        )
    shape_hw = (plane[0], plane[1])
    kept: dict[int, list[Region]] = {}
    ignored: list[NDArray[np.int64]] = []
    marks: Counter[str] = Counter()
    for file, picture in _pictures(case, entry):
        check_picture(file.path, picture, shape_hw)
        marks.update(picture.without_area)
        drawn = kept.setdefault(file.annotator, [])
        strange: list[str] = []
        for shape in picture.shapes:
            key = _key(case, entry, file, shape)
            if key is not None:
                voxels = fill(file.path, shape, shape_hw)
                marks["outline around no pixel"] += voxels.size == 0
                drawn.append(Region(name=key, voxels_N=voxels, instance=len(drawn) + 1))
            elif any(n in entry.label_encoding.ignore for n in shape.names):
                ignored.append(fill(file.path, shape, shape_hw))
            elif not any(n in entry.label_encoding.unlabelled_ok for n in shape.names):
                strange.append(shape.names[0] if shape.names else "")
        _refuse_strange(case, file.path, entry, strange)
    return _volume(entry, like, kept, ignored, marks)


def _key(case: Case, entry: CatalogEntry, file: LabelFile, shape: Shape) -> str | None:
    if file.structure is not None or not shape.names:
        return class_of(case, file, entry)
    quiet = (*entry.label_encoding.ignore, *entry.label_encoding.unlabelled_ok)
    if any(n in quiet for n in shape.names):
        return None
    return next((n for n in shape.names if n in entry.labels), "*" if "*" in entry.labels else None)


def _refuse_strange(case: Case, path: Path, entry: CatalogEntry, strange: Sequence[str]) -> None:
    """ReadError that names the strange classes with their neighbours."""
    words = [f"{name!r} ({nearest(name, entry.labels)})" for name in dict.fromkeys(strange)]
    refuse_unknown(case, path, entry, words)


def _pictures(case: Case, entry: CatalogEntry) -> list[tuple[LabelFile, Picture]]:
    """The part of each label file that speaks of this image; a file may speak of others only.

    Raises:
        ReadError: no file speaks of the image, or one has two images of its name.
    """
    found = []
    names: list[str] = []
    for file in case.labels:
        pictures = _parsed(file.path, entry)
        key = "" if set(pictures) <= {""} else _image_key(case, entry, file.path, pictures)
        names += pictures
        if key in pictures:
            found.append((file, pictures[key]))
    if not found:
        wanted = _wanted(case, entry)
        where = ", ".join(relative(case, f.path) for f in case.labels[:3])
        raise ReadError(
            f"{relative(case, case.image_path)}: expected the image {wanted!r} in {where}, found "
            f"{len(names)} others; {nearest(wanted, names)}"
        )
    return found


def _wanted(case: Case, entry: CatalogEntry) -> str:
    """What a file of many images calls this one."""
    template = entry.label_encoding.image_name
    if template is None:
        return relative(case, case.image_path)
    name = template
    for field, value in case.fields.items():
        name = name.replace("{" + field + "}", value)
    if "{" in name:
        raise CatalogError(
            f"{entry.id}: expected fields of the image pattern in label_encoding.image_name, "
            f"found {template!r}; {nearest(template, case.fields)}"
        )
    return name


def _image_key(case: Case, entry: CatalogEntry, path: Path, names: Iterable[str]) -> str | None:
    """The name in the file that shares the most last path parts with the image's path."""
    wanted = _wanted(case, entry)
    if entry.label_encoding.image_name is not None:
        return wanted
    parts = PurePosixPath(wanted).parts[::-1]
    best: list[str] = []
    longest = 0
    for name in names:
        shared = 0
        for mine, its in zip(parts, PurePosixPath(name).parts[::-1], strict=False):
            if mine != its:
                break
            shared += 1
        if shared > longest:
            best, longest = [], shared
        if shared and shared == longest:
            best.append(name)
    if len(best) > 1:
        raise ReadError(
            f"{relative(case, path)}: expected one image named {parts[0]!r}, found {best[0]!r} and "
            f"{best[1]!r}, and the path {wanted!r} fits both; state `image_name` in the entry"
        )
    return best[0] if best else None


def _parsed(path: Path, entry: CatalogEntry) -> dict[str, Picture]:
    rule = entry.label_encoding
    name = rule.format or ""
    center = _CENTERS.get(name, 0.0) if rule.pixel_center is None else rule.pixel_center
    try:
        stat = path.stat()
    except OSError as err:
        raise ReadError(f"{path}: expected a readable file, but {err.strerror}") from err
    return _parse(path, stat.st_size, stat.st_mtime_ns, name, center)


@lru_cache(maxsize=4)
def _parse(path: Path, size: int, mtime_ns: int, name: str, center: float) -> dict[str, Picture]:
    """Cached: one JSON or XML may speak of all images of a data set."""
    return _FORMATS[name](path, center)


def _lidc(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """Four readings as observers 1 to 4, or what at least half of them enclose as observer 1."""
    from sammed_data.readers import lidc

    if like.geometry is None:
        raise GeometryError(
            f"{relative(case, case.image_path)}: expected a CT series with a position in space for "
            "its outlines, found none; check the entry's image pattern"
        )
    sessions: list[list[Region]] = []
    points = 0
    for file in case.labels:
        found, marks = lidc.read(file.path, like.geometry, case.image_path)
        sessions, points = sessions + found, points + marks
    key = next(k for k in entry.labels if k != "0")
    kept = {n: [_named(r, key) for r in rs] for n, rs in enumerate(sessions, start=1)}
    if entry.label_encoding.readers == "majority":
        kept = {1: _agreed(sessions, key, like.geometry.shape_zyx)}
    return _volume(entry, like, kept, [], Counter({"nodule with a point only": points}))


def _named(region: Region, key: str) -> Region:
    return Region(name=key, voxels_N=region.voxels_N, instance=region.instance)


def _agreed(
    sessions: list[list[Region]], key: str, shape_zyx: tuple[int, int, int]
) -> list[Region]:
    """Connected parts of the voxels that at least half of the readings enclose."""
    from scipy.ndimage import find_objects, label

    votes = np.zeros(shape_zyx, np.uint8)
    for regions in sessions:
        inside = np.unique(np.concatenate([r.voxels_N for r in regions] or [np.empty(0, int)]))
        votes.reshape(-1)[inside] += 1
    needed = max(1, (len(sessions) + 1) // 2)
    parts, _ = label(votes >= needed, structure=np.ones((3, 3, 3)))
    drawn = []
    for number, place in enumerate(find_objects(parts), start=1):
        local = np.nonzero(parts[place] == number)
        index = tuple(axis + s.start for axis, s in zip(local, place, strict=True))
        voxels = np.ravel_multi_index(index, shape_zyx).astype(np.int64)
        drawn.append(Region(name=key, voxels_N=voxels, instance=number))
    return drawn


def _volume(
    entry: CatalogEntry,
    like: Volume,
    kept: dict[int, list[Region]],
    ignored: list[NDArray[np.int64]],
    marks: Counter[str],
) -> LabelVolume:
    z, y, x = (int(n) for n in like.array.shape[:3])
    layers: list[LabelLayer] = []
    for annotator in sorted(kept):
        layers += pack(kept[annotator], (z, y, x), annotator)
    ignore = None
    if entry.label_encoding.ignore:
        ignore = np.zeros((z, y, x), bool)
        for voxels in ignored:
            ignore.reshape(-1)[voxels] = True
    return LabelVolume(
        layers=tuple(layers) or pack([], (z, y, x)),
        geometry=like.geometry,
        ignore_ZYX=ignore,
        without_area={kind: n for kind, n in marks.items() if n},
    )
