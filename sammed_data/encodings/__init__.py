"""Label files -> masks: one function an encoding; an unknown raw value is never dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sammed_data.catalog import CatalogEntry
from sammed_data.encodings import (
    dicom,
    files,
    maps,
    objects,
    polygons,
    released,
    run_lengths,
    segments,
)
from sammed_data.geometry import (
    grid_words,
    planes_as_colours,
    resample_image_to,
    resize_to,
    same_grid,
    share_outside,
)
from sammed_data.types import Case, Crop, Geometry, GeometryError, LabelVolume, ReadError, Volume

# Labels of a larger field of view may reach over the edge of an image, but not lie beside it.
_MOST_OUTSIDE = 0.5
Encoding = Callable[[Case, CatalogEntry, Volume], LabelVolume]


def read_labels(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """Read all masks of a case in the way its entry says.

    Args:
        case: with its label files.
        entry: says encoding, label names and ignore values.
        like: the image; DICOM SEG and RTSTRUCT are drawn on its grid.

    Raises:
        ReadError: a file is damaged, or holds a raw value the entry does not know.
        GeometryError: label files of one case lie on different grids.
    """
    if not case.labels:
        raise ReadError(
            f"{case.dataset} {case.case_id}: expected at least one label file, found none; "
            "check the entry's label patterns"
        )
    encoding = ENCODINGS[entry.label_encoding.type]
    if like.crop is None:
        return encoding(case, entry, like)
    # Labels were drawn on the stored picture, of which the image is a part.
    shape = (len(like.array), *like.crop.whole_yx, *like.array.shape[3:])
    whole = replace(like, array=np.broadcast_to(like.array.dtype.type(0), shape), crop=None)
    return _cut_alike(encoding(case, entry, whole), like.crop, like.array.shape)


def _cut_alike(labels: LabelVolume, crop: Crop, shape: tuple[int, ...]) -> LabelVolume:
    """Labels of the whole picture cut to its part; labels of another size stay as they are."""
    if labels.shape_zyx[1:] != crop.whole_yx:
        return labels
    rows = slice(crop.top, crop.top + shape[1])
    columns = slice(crop.left, crop.left + shape[2])
    ignore = labels.ignore_ZYX
    return replace(
        labels,
        layers=tuple(
            replace(layer, array_ZYX=layer.array_ZYX[:, rows, columns]) for layer in labels.layers
        ),
        ignore_ZYX=None if ignore is None else ignore[:, rows, columns],
    )


def pair_on_grid(image: Volume, labels: LabelVolume, entry: CatalogEntry) -> Volume:
    """Return the image on the grid of its labels.

    It is resampled only where the entry says ``grid: resample_image``, or, for pictures, which
    have no position, ``resize_image``.

    Raises:
        GeometryError: the grids differ, or the labels lie beside the image; the sentence states
            both.
    """
    if entry.dims == "2D":
        image = planes_as_colours(image, labels.geometry)
    image_shape = tuple(int(n) for n in image.array.shape[:3])
    if image_shape == labels.shape_zyx and same_grid(image.geometry, labels.geometry):
        return image
    if entry.grid == "resample_image" and labels.geometry is not None:
        return _resampled(image, labels, labels.geometry)
    if entry.grid == "resize_image" and image.geometry is None and labels.geometry is None:
        return resize_to(image, labels.shape_zyx)
    raise GeometryError(
        "expected image and labels on one grid, found the image "
        f"{grid_words(image_shape, image.geometry)} and the labels "
        f"{grid_words(labels.shape_zyx, labels.geometry)}; {_mend(image, image_shape, labels)}"
    )


def _resampled(image: Volume, labels: LabelVolume, geometry: Geometry) -> Volume:
    """The image on the grid of its labels; below labels beside it there would be nothing."""
    if image.geometry is None:
        return resample_image_to(image, geometry)  # which refuses it
    marked = np.zeros(labels.shape_zyx, dtype=bool)
    for layer in labels.layers:
        marked |= layer.array_ZYX != 0
    outside = share_outside(marked, geometry, image.geometry)
    if outside > _MOST_OUTSIDE:
        raise GeometryError(
            f"expected labels inside their image, found {outside:.0%} of the labelled voxels "
            f"outside it: the image {image.geometry.describe()}, the labels {geometry.describe()}; "
            "check that they belong together, and origin and directions of both"
        )
    sampled = resample_image_to(image, geometry)
    if not outside:
        return sampled
    note = f"{outside:.1%} of the labelled voxels lie outside the image"
    return replace(sampled, warnings=(*sampled.warnings, note))


def _mend(image: Volume, shape: tuple[int, ...], labels: LabelVolume) -> str:
    """What to do about an image and labels on two grids."""
    turned = [w for w in image.warnings if w.startswith("EXIF")]
    if turned and labels.shape_zyx == (shape[0], shape[2], shape[1]):
        return f"{turned[0]}: save the picture upright, as its mask was drawn"
    if image.geometry is not None and labels.geometry is not None:
        return "check that they belong together, or state `grid: resample_image` in the entry"
    (h, w), (height, width) = shape[1:], labels.shape_zyx[1:]
    if image.geometry is None and labels.geometry is None and abs(w * height - h * width) < h + w:
        return (
            "check that they belong together; if these are two sizes of one picture, state `grid: "
            "resize_image` in the entry"
        )
    return "check that they belong together"


ENCODINGS: Mapping[str, Encoding] = {
    "index": maps.index,
    "values": maps.index,
    "binary": files.binary,
    "file_per_class": files.file_per_class,
    "file_per_instance": files.file_per_instance,
    "instance_ids": maps.instance_ids,
    "rgb": maps.rgb,
    "dicom_seg": dicom.dicom_seg,
    "rtstruct": dicom.rtstruct,
    "rgb_instances": objects.rgb_instances,
    "instance_colors": objects.instance_colors,
    "instance_csv": objects.instance_csv,
    "typed_instances": objects.typed_instances,
    "channel_instances": objects.channel_instances,
    "rle_csv": run_lengths.rle_csv,
    "polygons": polygons.polygons,
    "seg_nrrd": segments.seg_nrrd,
    "released_masks": released.released_masks,
    "sparse_channels": released.sparse_channels,
}
