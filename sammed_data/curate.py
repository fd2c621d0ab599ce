"""Curation: a defect rejects, with a rule and a reason. Size and aspect are views, not rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sammed_data.catalog import CatalogEntry
from sammed_data.masks import Part
from sammed_data.types import LabelVolume, Volume


def not_finite(volume: Volume, labels: LabelVolume) -> str | None:
    """Images must be numbers."""
    array = volume.array
    if not np.issubdtype(array.dtype, np.floating):
        return None
    bad = int((~np.isfinite(array)).sum())
    return f"expected finite intensities, found {bad} NaN or infinite voxels" if bad else None


def constant_image(volume: Volume, labels: LabelVolume) -> str | None:
    """An image of one value shows nothing."""
    first = volume.array.flat[0]
    if any((plane != first).any() for plane in volume.array):  # mostly the first plane tells
        return None
    return f"expected an image, found the single value {first:g} everywhere"


def image_is_label(volume: Volume, labels: LabelVolume) -> str | None:
    """A mask that lies where the image should."""
    if volume.array.ndim != 3:
        return None
    middle = volume.array[len(volume.array) // 2]
    if len(np.unique(middle[::4, ::4])) > 2:  # so nearly every image is done with
        return None
    low, high = volume.array.min(), volume.array.max()
    foreground = volume.array > low
    if not np.array_equal(foreground, volume.array == high):
        return None
    drawn = np.zeros(foreground.shape, bool)
    for layer in labels.layers:
        drawn |= layer.array_ZYX != 0
    if not np.array_equal(foreground, drawn):
        return None
    return "expected an image, found the mask itself (two values, equal to the label)"


def no_structure(part: Part, kind: str) -> str | None:
    """A label the ontology marks as no structure (background, unknown, above the retina)."""
    if kind != "ignore":
        return None
    return "expected a structure, found a label whose kind in the ontology is `ignore`"


def covers_image(part: Part, kind: str) -> str | None:
    """A mask of every pixel marks nothing; mostly an inverted or filled file."""
    if part.area_px < part.shape_hw[0] * part.shape_hw[1]:
        return None
    return f"expected an object, found all {part.area_px} pixels of the slice marked"


def burned_in(volume: Volume, entry: CatalogEntry) -> str | None:
    """Writing in the pixels may name a patient."""
    if entry.burned_in == "keep":
        return None
    if volume.text == "burned-in":
        found = "a header that says BurnedInAnnotation=YES"
    elif volume.text == "no-region" and entry.privacy == "restricted":
        found = "an ultrasound of a restricted source that declares no tissue region to cut to"
    else:
        return None
    return (
        f"expected pixels without writing, found {found}; look at the pictures, and state "
        "`burned_in: keep` in the entry if they name nobody"
    )


def two_valued(volume: Volume, entry: CatalogEntry) -> str | None:
    """In a released corpus an image of two values is a mask that lies in the wrong folder."""
    if entry.collection is None or len(np.unique(volume.array[:, ::4, ::4])) > 2:
        return None
    values = np.unique(volume.array)
    if len(values) != 2:  # one value is for the rule `constant-image`
        return None
    return f"expected an image, found the two values {values[0]:g} and {values[1]:g}: a mask"


CASE_RULES: dict[str, Callable[[Volume, LabelVolume], str | None]] = {
    "not-finite": not_finite,
    "constant-image": constant_image,
    "image-is-label": image_is_label,
}
MASK_RULES: dict[str, Callable[[Part, str], str | None]] = {
    "no-structure": no_structure,
    "covers-image": covers_image,
}


def broken_rule(part: Part, kind: str) -> tuple[str, str] | None:
    """The first rule for masks that a mask breaks, and the reason."""
    for name, rule in MASK_RULES.items():
        reason = rule(part, kind)
        if reason is not None:
            return name, reason
    return None


# Every rule a rejection can name, with its level and meaning.
RULES: dict[str, tuple[str, str]] = {
    "unpaired": ("case", "an image without label, or a label without image"),
    "unreadable": ("case", "a file cannot be read as what it claims to be"),
    "grid": ("case", "image and label do not lie on one grid"),
    "excluded": ("case", "withdrawn: the list of the corpus leaves the patient out"),
    "unlabelled": ("image", "slices on which nothing is marked"),
    "no-mask-left": ("image", "every mask of the slice was rejected"),
    "no-area": ("mask", "marks of the source that enclose no pixel: points, lines"),
    "mask-grid": ("mask", "the size of the mask is not that of its image"),
    "unknown-class": ("mask", "neither the entry nor the ontology knows the name of the class"),
    "union-class": ("mask", "the mask of one class that covers the mask of another"),
    "mask-unreadable": ("mask", "one of several mask files cannot be read as a mask"),
    "small-part": ("mask", "parts below --min-part-px pixels"),
    "burned-in": ("case", (burned_in.__doc__ or "").strip()),
    **{name: ("case", (rule.__doc__ or "").strip()) for name, rule in CASE_RULES.items()},
    **{name: ("mask", (rule.__doc__ or "").strip()) for name, rule in MASK_RULES.items()},
}
