"""Masks to files on the grid of the input, and the pictures that show them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_app.predict.scan import Scan, geometry_of
from sammed_app.predict.types import Format, Segmented
from sammed_data import codecs
from sammed_data.types import CatalogError, UsageError
from sammed_data.writers import dicom_seg, itk, nifti

_BY_INPUT: dict[str, Format] = {"nifti": "nifti", "itk": "nrrd", "dicom": "seg"}
_ENDING = {"nifti": ".nii.gz", "nrrd": ".nrrd", "seg": ".seg.dcm", "png": ".png"}
_COLOURS = np.array(
    [(255, 80, 80), (80, 200, 255), (120, 230, 90), (255, 200, 60), (220, 120, 255)], np.float32
)


def format_for(scan: Scan, wanted: Format) -> Format:
    """What ``auto`` means for an image: its own family; pictures become PNG."""
    if wanted != "auto":
        return wanted
    return "png" if scan.volume.geometry is None else _BY_INPUT.get(scan.format, "nifti")


def format_of_file(path: Path) -> Format | None:
    """The format that an output file's ending names, or None: it is a folder."""
    name = path.name.lower()
    endings: dict[str, Format] = {
        ".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd", ".mha": "nrrd", ".dcm": "seg",
        ".png": "png",
    }  # fmt: skip
    return next((form for ending, form in endings.items() if name.endswith(ending)), None)


def index_map(done: Segmented) -> tuple[NDArray[Any], int]:
    """Labels 1..n in canonical axes, later objects on top, and how many voxels overlap."""
    shape = done.objects[0].mask_ZYX.shape
    labels = np.zeros(shape, np.uint8 if len(done.objects) < 256 else np.uint16)
    overlap = 0
    for value, found in enumerate(done.objects, start=1):
        overlap += int((labels[found.mask_ZYX] != 0).sum())
        labels[found.mask_ZYX] = value
    return labels, overlap


def write(
    scan: Scan,
    done: Segmented,
    target: Path,
    form: Format,
    author: dicom_seg.Author,
    *,
    per_object: bool,
) -> list[Path]:
    """Write the masks of an image.

    Args:
        scan: the image.
        done: its masks.
        target: file to write, of the ending of the format.
        form: not auto.
        author: recorded in DICOM.
        per_object: a file for each object (0 and 1; PNG 0 and 255) in place of an index map.

    Returns:
        The files.

    Raises:
        ReadError, GeometryError: the grid of the input does not allow this format.
        UsageError: cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if form == "seg":
            _write_seg(scan, done, target, author)
            return [target]
        maps = {"": index_map(done)[0]}
        if per_object:
            maps = {_plain(f.name): f.mask_ZYX.astype(np.uint8) for f in done.objects}
        return [
            path
            for name, labels in maps.items()
            for path in _write_map(scan, done, labels, _named(target, name), form, bool(name))
        ]
    except OSError as err:
        raise UsageError(f"expected to write {target}, found {err.strerror}: mend --out") from err


def _named(target: Path, name: str) -> Path:
    if not name:
        return target
    stem, dot, endings = target.name.partition(".")
    return target.with_name(f"{stem}_{name}{dot}{endings}")


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "object"


def _write_map(
    scan: Scan, done: Segmented, labels: NDArray[Any], target: Path, form: Format, single: bool
) -> list[Path]:
    if form == "png":
        return _write_png(scan, done, labels * np.uint8(255) if single else labels, target)
    if form == "nifti":
        if scan.format == "nifti":
            nifti.write_like(target, labels, geometry_of(scan, "NIfTI"), scan.path)
        else:
            nifti.write(target, labels, scan.volume.geometry)
        return [target]
    geometry = geometry_of(scan, "NRRD")
    if scan.format != "itk":
        raise UsageError(f"expected a NRRD or MetaImage input for --format nrrd, found {scan.path}")
    itk.write_like(target, labels, geometry, scan.path)
    return [target]


def _write_png(scan: Scan, done: Segmented, labels: NDArray[Any], target: Path) -> list[Path]:
    """One picture a slice with an object: as shown, at the size of the stored picture."""
    single = scan.count(done.axis) == 1
    touched = sorted({index for found in done.objects for index in found.iou})
    paths = []
    for index in touched:
        suffix = "" if single else f"_{done.axis}-{index:04d}"
        path = target.with_name(f"{target.stem}{suffix}.png")
        path.write_bytes(_png(whole(scan, scan.view(labels, done.axis, index))))
        paths.append(path)
    return paths


def whole(scan: Scan, plane: NDArray[Any]) -> NDArray[Any]:
    """A plane of a cropped ultrasound at its place in the stored picture."""
    crop = scan.volume.crop
    if crop is None:
        return np.ascontiguousarray(plane)
    full = np.zeros((*crop.whole_yx, *plane.shape[2:]), plane.dtype)
    full[crop.top : crop.top + plane.shape[0], crop.left : crop.left + plane.shape[1]] = plane
    return full


def _png(image: NDArray[Any]) -> bytes:
    import cv2

    if image.dtype == np.uint8 and image.ndim == 2:
        return codecs.encode_image(image)
    _, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    return bytes(data)


def _write_seg(scan: Scan, done: Segmented, target: Path, author: dicom_seg.Author) -> None:
    segments = [
        dicom_seg.Segment(label=f.name, mask_ZYX=f.mask_ZYX, code=_code(f.name))
        for f in done.objects
    ]
    dicom_seg.write(target, segments, geometry_of(scan, "DICOM SEG"), scan.path, author)


def _code(name: str) -> tuple[str, str] | None:
    """SNOMED code of an object whose name is a known structure."""
    from sammed_data.ontology import load_ontology

    try:
        return load_ontology(None).resolve(name).snomed
    except CatalogError:  # any name is allowed
        return None


def write_overlays(scan: Scan, done: Segmented, folder: Path, stem: str) -> list[Path]:
    """The slices as the model saw them with the outlines of the masks, three times as large."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in sorted({index for found in done.objects for index in found.iou}):
        picture = scan.picture(done.axis, index)
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        scale = 3 if max(rgb.shape) < 512 else 1
        rgb = np.repeat(np.repeat(rgb, scale, 0), scale, 1).copy()
        for number, found in enumerate(done.objects):
            mask = np.ascontiguousarray(scan.view(found.mask_ZYX, done.axis, index), np.uint8)
            mask = np.repeat(np.repeat(mask, scale, 0), scale, 1)
            lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(rgb, lines, -1, _COLOURS[number % len(_COLOURS)].tolist(), 1)
        path = folder / f"{stem}_{done.axis}-{index:04d}_overlay.png"
        path.write_bytes(_png(rgb))
        paths.append(path)
    return paths


def ending(form: Format) -> str:
    """Of a file of a format."""
    return _ENDING[form]
