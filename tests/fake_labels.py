"""Label files of the fakes: masks of boxes in the encoding and format of an entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sammed_data.catalog import CatalogEntry, LabelPattern
from tests import fake_files, fake_parts

_RASTER = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm", ".pgm.gz", ".ppm.gz",
)  # fmt: skip
_DICOM_MASKS = ("ircadb_01", "duke_liver")  # mask folders hold DICOM slices, not pictures
PLANES_FIRST = ("fh_ps_aop", "psfhs")  # MetaImage with the colours as three slices


def is_raster(path: Path) -> bool:
    return path.name.lower().endswith(_RASTER)


def raw_value(entry: CatalogEntry, key: str, part: int = 0) -> int:
    """Raw value of a label; of a range its first, or second for the second object."""
    if key in entry.label_encoding.recompose:
        return entry.label_encoding.recompose[key][0]
    return int(key.split("-")[0]) + part if "-" in key[1:] else int(key)


def part_of(mask_ZYX: np.ndarray, part: int) -> np.ndarray:
    upper = np.zeros_like(mask_ZYX)
    upper[:, :11] = mask_ZYX[:, :11]
    return upper if part == 0 else mask_ZYX & ~upper


def write_label(
    entry: CatalogEntry,
    label: LabelPattern,
    path: Path,
    image: Path,
    masks: dict[str, np.ndarray],
) -> None:
    kind, folder = entry.label_encoding.type, label.pattern.endswith("/")
    if kind == "rle_csv":
        return
    if path.suffix in fake_parts.ARRAYS:
        _write_label_array(entry, label, path, masks)
        return
    if kind == "rtstruct":
        fake_files.write_rtstruct(path, image, masks)
        return
    if kind == "dicom_seg":
        fake_files.write_seg(path, image, masks)
        return
    array = _label_array(entry, masks, eight_bit=is_raster(path) or folder)
    if label.half is not None:
        fake_parts.beside(path, array[0], label.half)
        return
    if label.channel == "image":
        columns = entry.layout.images[0].frames.frame_columns
        array = fake_parts.frames(array, [2 * k + 1 for k in range(len(columns))])
    if folder and entry.id in _DICOM_MASKS:
        fake_files.write_series(path, array, entry.modality)
    elif folder:
        fake_files.write_stack(path, array)
    elif entry.id in PLANES_FIRST:
        fake_files.write_volume(path, array[0])
    elif is_raster(path):
        fake_files.write_picture(path, array[0])
    else:
        fake_files.write_volume(path, array)


def _write_label_array(
    entry: CatalogEntry, label: LabelPattern, path: Path, masks: dict[str, np.ndarray]
) -> None:
    """Labels of npy, npz and mat files, in the axes of the entry."""
    kind, rule = entry.label_encoding.type, entry.label_encoding
    if "B" in (label.axes or ""):
        rows = fake_parts.boundaries(next(iter(masks.values())), from_one=path.suffix == ".mat")
        array = rows.transpose(["BZX".index(letter) for letter in label.axes])
        fake_parts.write_array(path, label.variable, array)
        return
    if kind == "typed_instances":
        ids, types = _numbered(masks), np.zeros(next(iter(masks.values())).shape, np.uint16)
        for key, mask in masks.items():
            types[mask] = int(key)
        for name, array in ((rule.variables["instances"], ids), (rule.variables["types"], types)):
            array = fake_parts.in_axes(array.astype(float), "ZYX", label.axes)
            fake_parts.write_array(path, name, array)
        return
    if kind == "channel_instances":
        n_channels = max(int(k) for k in [*entry.labels, *rule.unlabelled_ok]) + 1
        array = np.zeros((*next(iter(masks.values())).shape, n_channels))
        for key, mask in masks.items():
            array[..., int(key)] = _numbered({key: mask})
        array = fake_parts.in_axes(array, "ZYXC", label.axes)
    else:
        array = _label_array(entry, masks, eight_bit=False)
        array = fake_parts.in_axes(array, "ZYX", label.axes)
    fake_parts.write_array(path, label.variable, array)


def _numbered(masks: dict[str, np.ndarray]) -> np.ndarray:
    """The two boxes of the k-th label as the objects 2 k + 1 and 2 k + 2."""
    array = np.zeros(next(iter(masks.values())).shape, np.uint16)
    for number, mask in enumerate(masks.values()):
        for part in range(2):
            array[part_of(mask, part)] = 2 * number + part + 1
    return array


def _object_colours(masks: dict[str, np.ndarray], *, one: bool) -> np.ndarray:
    ids = _numbered(masks)
    if one:
        return np.where(ids[..., None] > 0, np.array([200, 0, 10]), 0).astype(np.uint8)
    return np.stack([ids * 20, ids * 3, 255 * (ids > 0)], axis=-1).astype(np.uint8)


def _label_array(
    entry: CatalogEntry, masks: dict[str, np.ndarray], *, eight_bit: bool
) -> np.ndarray:
    kind = entry.label_encoding.type
    shape = next(iter(masks.values())).shape
    if kind == "instance_csv":
        return _numbered(masks)
    if kind in ("rgb_instances", "instance_colors"):
        return _object_colours(masks, one=kind == "instance_colors")
    if kind == "rgb":
        colours = np.zeros((*shape, 3), np.uint8)
        for key, mask in masks.items():
            colours[mask] = [int(v) for v in key.split(",")]
        return colours
    array = np.zeros(shape, np.uint16 if kind in ("values", "instance_ids") else np.uint8)
    # A class that is stored as 0 needs another value for the background.
    if "0" in entry.labels and kind in ("index", "values"):
        array[:] = int(entry.label_encoding.unlabelled_ok[0])
    for key, mask in masks.items():
        inner = entry.label_encoding.inner_values
        if kind in ("index", "values") or inner or (kind == "instance_ids" and key[0].isdigit()):
            array[part_of(mask, 0)], array[part_of(mask, 1)] = (
                raw_value(entry, key, k) for k in (0, 1)
            )
        elif kind == "instance_ids":
            array[part_of(mask, 0)], array[part_of(mask, 1)] = 3, 7
        else:
            array[mask] = 255 if eight_bit or (entry.label_encoding.threshold or 0) >= 1 else 1
    return (
        np.where(array > 0, 0, array.max()).astype(array.dtype)
        if entry.label_encoding.inverted
        else array
    )
