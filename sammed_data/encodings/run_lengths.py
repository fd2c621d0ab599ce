"""Masks written as runs of pixels in a CSV file that speaks of all images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.entry_parts import RunLengths
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import class_of, refuse_unknown
from sammed_data.tables import Line, lines_of, table_rows
from sammed_data.types import Case, CatalogError, LabelVolume, ReadError, Volume


def rle_csv(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """Runs of the image's lines; lines of one class are joined, an empty one says 'absent'."""
    table, rule = entry.label_encoding.table, entry.label_encoding.runs
    if table is None or rule is None:
        raise CatalogError(f"{entry.id}: the encoding rle_csv needs `table` and `runs`")
    paths = tuple(file.path for file in case.labels)
    rows = table_rows(table, paths)
    depth, height, width = (int(n) for n in like.array.shape[:3])
    if depth != 1:
        raise ReadError(
            f"{case.image_path}: expected a 2D image for its runs, found {depth} slices; "
            "check the entry's image pattern"
        )
    found: dict[str, list[NDArray[np.int64]]] = {}
    for line in lines_of(table, paths, case.fields):
        if table.class_column is None:
            key = class_of(case, case.labels[0], entry)
        else:
            key = rows.cell(line, table.class_column)
        refuse_unknown(case, line.path, entry, [] if key in entry.labels else [key])
        text = rows.cell(line, table.rle_column)
        found.setdefault(key, []).append(decode(text, rule, (height, width), line))
    regions = [Region(name=k, voxels_N=np.unique(np.concatenate(v))) for k, v in found.items()]
    return LabelVolume(
        layers=pack(regions, (1, height, width), case.labels[0].annotator), geometry=like.geometry
    )


def decode(text: str, rule: RunLengths, shape_hw: tuple[int, int], line: Line) -> NDArray[np.int64]:
    """Flat row-major indices of the pixels of 'start length start length ...'.

    Raises:
        ReadError: an odd count, something that is no number, a run outside the image.
    """
    if text in rule.empty:
        return np.empty(0, np.int64)
    height, width = shape_hw
    try:
        numbers = np.array([int(token) for token in text.split()], dtype=np.int64)
    except (ValueError, OverflowError) as err:
        raise _malformed(line, text, f"{err}") from err
    if len(numbers) % 2:
        raise _malformed(line, text, f"{len(numbers)} numbers, which is no count of pairs")
    starts, lengths = numbers[::2], numbers[1::2]
    if (lengths <= 0).any() or lengths.sum() > height * width:
        worst = int(lengths[lengths <= 0][0]) if (lengths <= 0).any() else int(lengths.sum())
        raise _malformed(line, text, f"runs of {worst} pixels in {height} x {width}")
    if rule.offsets == "relative":
        starts = np.cumsum(starts) + np.cumsum(lengths) - lengths
    starts = starts - rule.first
    outside = (starts < 0) | (starts + lengths > height * width)
    if outside.any():
        k = int(np.flatnonzero(outside)[0])
        raise _malformed(
            line, text, f"a run of {lengths[k]} from {starts[k] + rule.first} in {height} x {width}"
        )
    steps = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    flat = np.repeat(starts, lengths) + steps
    if rule.order == "row":
        return flat
    columns, rows = np.divmod(flat, height)
    return np.asarray(rows * width + columns)


def _malformed(line: Line, text: str, found: str) -> ReadError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ReadError(
        f"{line.place}: expected pairs of start and length inside the image, found {found} in "
        f"{shown!r}; check `runs` of the entry or mend the line"
    )
