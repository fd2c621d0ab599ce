"""A tiny copy of any catalogue entry, made from its own patterns, example and encoding.

The files are in the true formats; the masks are boxes whose voxels ``FakeCase.masks`` states.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sammed_data.catalog import CatalogEntry, ImagePattern, LabelPattern
from sammed_data.patterns import PathPattern, compile_pattern, glob_regex
from tests import fake_files

SHAPE_ZYX = (4, 22, 38)
MAX_LABELS = 3
_RASTER = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".pgm")
_DICOM_MASKS = ("ircadb_01", "duke_liver")  # mask folders hold DICOM slices, not pictures
_PLANES_FIRST = ("fh_ps_aop", "psfhs")  # MetaImage with the colours as three slices


@dataclass(frozen=True, kw_only=True)
class FakeCase:
    """One case as it was written.

    Attributes:
        image: path relative to the root.
        replaced: (text of the example, text of this case) for the one field that was varied.
        n_cases: cases this image becomes (channels of a 4D file).
        masks: raw label -> (Z, Y, X) bool, canonical axes.
        exact: False where the format is lossy.
    """

    image: str
    replaced: tuple[str, str]
    n_cases: int
    masks: Mapping[str, np.ndarray]
    exact: bool


@dataclass(frozen=True, kw_only=True)
class FakeTruth:
    """What ``build_fake`` wrote; ``root`` is the folder that the patterns start from."""

    root: Path
    cases: tuple[FakeCase, ...]

    @property
    def n_cases(self) -> int:
        return sum(c.n_cases for c in self.cases)


def build_fake(
    entry: CatalogEntry, out: Path, *, n_cases: int = 3, seed: int = 0, key: str | None = None
) -> FakeTruth:
    """Write a tiny dataset.

    Args:
        entry: needs ``layout.example``.
        out: becomes the data root: files go below ``out/<id>``.
        n_cases: fewer are made where the patterns name single files.
        seed: of the intensities.
        key: patient key of the example; what of it stands in a field is what varies.
    """
    if entry.layout.example is None:
        raise ValueError(f"{entry.id} has no layout.example")
    root = out / entry.id
    rule, fields = _matched(entry)
    cases = []
    for replaced, values in _variants(entry, rule, fields, n_cases, key):
        for pattern in _companions(entry, rule):
            cases.append(_write_case(entry, root, pattern, values, replaced, seed))
    return FakeTruth(root=root, cases=tuple(cases))


def _matched(entry: CatalogEntry) -> tuple[ImagePattern, dict[str, str]]:
    example = entry.layout.example or {}
    for rule in entry.layout.images:
        pattern = compile_pattern(rule.pattern)
        fields = pattern.fields_of(example["image"].rstrip("/"))
        if fields is not None and pattern.is_folder == example["image"].endswith("/"):
            return rule, fields
    raise ValueError(f"{entry.id}: no image pattern matches the example {example['image']!r}")


def _companions(entry: CatalogEntry, rule: ImagePattern) -> list[ImagePattern]:
    """The image files of one case: all sequences that lie beside each other."""
    if not isinstance(rule.channel, str) or rule.pattern.endswith("/"):
        return [rule]
    return [r for r in entry.layout.images if isinstance(r.channel, str)]


def _variants(
    entry: CatalogEntry, rule: ImagePattern, fields: dict[str, str], n: int, key: str | None
) -> list[tuple[tuple[str, str], dict[str, str]]]:
    excluded = glob_regex(entry.layout.exclude)
    varied, text = _varied(fields, key)
    if not text:
        return [(("", ""), fields)]
    found: list[tuple[tuple[str, str], dict[str, str]]] = []
    for step in range(10 * n):
        value = _counted(text, step)
        values = {**fields, varied: fields[varied].replace(text, value, 1)}
        path = _filled(rule.pattern, values).rstrip("/")
        if excluded is None or excluded.fullmatch(path) is None:
            found.append(((text, value), values))
        if len(found) == n:
            break
    return found


def _varied(fields: dict[str, str], key: str | None) -> tuple[str, str]:
    """(field, the text in it that varies): the longest piece of the key with a digit."""
    pieces = [(name, v) for name, v in fields.items() if re.search(r"\d", v)]
    if key is not None:
        pieces = [(name, _common(v, key)) for name, v in fields.items()]
        pieces = [(name, v) for name, v in pieces if re.search(r"\d", v)]
        pieces.sort(key=lambda p: (-len(p[1]), len(fields[p[0]])))
    return pieces[0] if pieces else ("", "")


def _common(one: str, two: str) -> str:
    """The longest text with a digit that both hold."""
    n = len(one)
    parts = (one[i : i + size] for size in range(n, 0, -1) for i in range(n - size + 1))
    found = (part for part in parts if part in two and re.search(r"\d", part))
    return next(found, "")


def _counted(text: str, step: int) -> str:
    """The last number in a text, counted up, in the same width."""
    number = list(re.finditer(r"\d+", text))[-1]
    digits = str((int(number[0]) + step) % 10 ** len(number[0])).zfill(len(number[0]))
    return text[: number.start()] + digits + text[number.end() :]


def _filled(pattern: str, fields: Mapping[str, str]) -> str:
    for name, value in fields.items():
        pattern = pattern.replace("{" + name + "}", value)
    return pattern.replace("**/", "").replace("*", "x").replace("?", "1")


def _write_case(
    entry: CatalogEntry,
    root: Path,
    rule: ImagePattern,
    fields: dict[str, str],
    replaced: tuple[str, str],
    seed: int,
) -> FakeCase:
    image = _filled(rule.pattern, fields)
    channels = len(rule.channel) if isinstance(rule.channel, list) else 1
    _write_image(entry, root / image, channels, f"{seed}/{image}")
    masks = _boxes(entry)
    exact = True
    for label in entry.layout.labels:
        for path, shown in _label_files(entry, label, fields, masks):
            _write_label(
                entry, root / path, root / image, shown, folder=label.pattern.endswith("/")
            )
            exact &= not path.lower().endswith((".jpg", ".jpeg"))
    return FakeCase(
        image=image.rstrip("/"), replaced=replaced, n_cases=channels, masks=masks, exact=exact
    )


def _write_image(entry: CatalogEntry, path: Path, channels: int, name: str) -> None:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    random = np.random.default_rng(key)
    if path.suffix.lower() in _RASTER:
        grey = random.integers(0, 255, SHAPE_ZYX[1:], dtype=np.uint8)
        fake_files.write_picture(path, grey)
        return
    grid = (1, *SHAPE_ZYX[1:]) if entry.dims == "2D" else SHAPE_ZYX
    grid = (3, *SHAPE_ZYX[1:]) if entry.id in _PLANES_FIRST else grid
    shape = (channels, *grid) if channels > 1 else grid
    low = -500 if entry.modality == "CT" else 0
    array = random.integers(low, 1000, shape).astype(np.int16)
    array = (array // 4).astype(np.uint8) if entry.id in _PLANES_FIRST else array
    fake_files.write_volume(path, array, entry.modality)


def _boxes(entry: CatalogEntry) -> dict[str, np.ndarray]:
    """Two boxes a label, apart from all others."""
    shape = (1, *SHAPE_ZYX[1:]) if entry.dims == "2D" else SHAPE_ZYX
    masks = {}
    for i, key in enumerate(_shown_labels(entry)):
        mask = np.zeros(shape, bool)
        slices = slice(0, 1) if entry.dims == "2D" else slice(1, 3)
        mask[slices, 3:9, 3 + 12 * i : 9 + 12 * i] = True
        if entry.label_encoding.type not in ("rtstruct",):
            mask[slices, 13:18, 3 + 12 * i : 11 + 12 * i] = True
        masks[key] = mask
    return masks


def _shown_labels(entry: CatalogEntry) -> list[str]:
    quiet = {*entry.label_encoding.ignore, *entry.label_encoding.unlabelled_ok, "0,0,0"}
    keys = [k for k in entry.labels if k not in quiet]
    example = _example_structure(entry)
    if example is not None:
        keys = [example, *(k for k in keys if k != example)]
    return keys[:MAX_LABELS]


def _example_structure(entry: CatalogEntry) -> str | None:
    example = entry.layout.example or {}
    for label in entry.layout.labels:
        pattern = compile_pattern(label.pattern, [k for k in entry.labels if k != "*"])
        fields = pattern.fields_of(example["label"].rstrip("/"))
        if fields is not None and "structure" in fields:
            return fields["structure"]
    return None


def _label_files(
    entry: CatalogEntry, label: LabelPattern, fields: dict[str, str], masks: dict[str, np.ndarray]
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """(path, masks inside) of every file a label pattern needs for a case."""
    pattern = compile_pattern(label.pattern)
    if "structure" not in pattern.fields:
        return _per_instance(entry, label, pattern, fields, masks)
    files = []
    for key, mask in masks.items():
        files += _per_instance(entry, label, pattern, {**fields, "structure": key}, {key: mask})
    return files


def _per_instance(
    entry: CatalogEntry,
    label: LabelPattern,
    pattern: PathPattern,
    fields: dict[str, str],
    masks: dict[str, np.ndarray],
) -> list[tuple[str, dict[str, np.ndarray]]]:
    if "instance" not in pattern.fields:
        split = entry.label_encoding.type == "file_per_instance"
        shown = {k: _part(m, 0) for k, m in masks.items()} if split else masks
        return [(_filled(label.pattern, fields), shown)]
    return [
        (
            _filled(label.pattern, {**fields, "instance": f"{part + 1:03d}"}),
            {k: _part(m, part) for k, m in masks.items()},
        )
        for part in range(2)
    ]


def _part(mask_ZYX: np.ndarray, part: int) -> np.ndarray:
    upper = np.zeros_like(mask_ZYX)
    upper[:, :11] = mask_ZYX[:, :11]
    return upper if part == 0 else mask_ZYX & ~upper


def _write_label(
    entry: CatalogEntry, path: Path, image: Path, masks: dict[str, np.ndarray], *, folder: bool
) -> None:
    kind = entry.label_encoding.type
    if kind == "rtstruct":
        fake_files.write_rtstruct(path, image, masks)
        return
    if kind == "dicom_seg":
        fake_files.write_seg(path, image, masks)
        return
    array = _label_array(entry, masks, eight_bit=path.suffix.lower() in _RASTER or folder)
    if folder and entry.id in _DICOM_MASKS:
        fake_files.write_series(path, array, entry.modality)
    elif folder:
        fake_files.write_stack(path, array)
    elif entry.id in _PLANES_FIRST:
        fake_files.write_volume(path, array[0])
    elif path.suffix.lower() in _RASTER:
        fake_files.write_picture(path, array[0])
    else:
        fake_files.write_volume(path, array)


def _label_array(
    entry: CatalogEntry, masks: dict[str, np.ndarray], *, eight_bit: bool
) -> np.ndarray:
    kind = entry.label_encoding.type
    shape = next(iter(masks.values())).shape
    if kind == "rgb":
        colours = np.zeros((*shape, 3), np.uint8)
        for key, mask in masks.items():
            colours[mask] = [int(v) for v in key.split(",")]
        return colours
    array = np.zeros(shape, np.uint16 if kind in ("values", "instance_ids") else np.uint8)
    if "0" in entry.labels:  # the value 0 is a class, so another one is the background
        array[:] = int(entry.label_encoding.unlabelled_ok[0])
    for key, mask in masks.items():
        if kind in ("index", "values"):
            array[mask] = int(key)
        elif kind == "instance_ids":
            array[_part(mask, 0)], array[_part(mask, 1)] = 3, 7
        else:
            array[mask] = 255 if eight_bit or (entry.label_encoding.threshold or 0) >= 1 else 1
    return (
        np.where(array > 0, 0, array.max()).astype(array.dtype)
        if entry.label_encoding.inverted
        else array
    )
