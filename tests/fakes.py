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
from tests import fake_files, fake_parts, fake_polygons, fake_released
from tests.fake_labels import PLANES_FIRST, is_raster, part_of, raw_value, write_label

SHAPE_ZYX = (4, 22, 38)
MAX_LABELS = 3


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
    if entry.collection is not None:
        return _released(entry, root, n_cases, seed)
    rule, fields = _matched(entry)
    cases = []
    for replaced, values in _variants(entry, rule, fields, n_cases, key):
        for pattern in _companions(entry, rule):
            cases.append(_write_case(entry, root, pattern, values, replaced, seed))
    return FakeTruth(root=root, cases=tuple(cases))


def _released(entry: CatalogEntry, root: Path, n: int, seed: int) -> FakeTruth:
    """A released corpus: the example of one source, with its case counted up."""
    collection, example = entry.collection, (entry.layout.example or {})["image"]
    text = "00011" if collection.format == "sa_med2d" else "001"
    keys, masks = list(entry.labels)[-MAX_LABELS:], _boxes(entry)
    masks = dict(zip(keys, masks.values(), strict=True))
    cases, images, sparse = [], {}, {}
    for step in range(n):
        value = _counted(text, step)
        path = example.replace(text, value)
        pixels = fake_released.grey(seed * 100 + step, SHAPE_ZYX[1:])
        images[Path(path).stem] = (
            pixels,
            {
                f"{k:04d}_{part:03d}": part_of(mask, part)[0]
                for k, mask in enumerate(masks.values())
                for part in range(2)
            },
        )
        sparse[Path(path).stem] = (pixels, np.concatenate(list(masks.values())))
        cases.append(
            FakeCase(image=path, replaced=(text, value), n_cases=1, masks=masks, exact=True)
        )
    if collection.format == "sa_med2d":
        classes = {"AbdomenCT1K": {key: f"{k:04d}" for k, key in enumerate(keys)}}
        fake_released.write_samed2d(root, images, classes)
    else:
        fake_released.write_imed(root, "BTCV", sparse, keys)
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
    n_cases = len(rule.channel) if isinstance(rule.channel, list) else 1
    if rule.frames is not None:
        n_cases = len(rule.frames.frame_columns)
    elif "N" in (rule.axes or ""):
        n_cases = fake_parts.N_ITEMS
    _write_image(entry, rule, root / image, f"{seed}/{image}")
    masks = _boxes(entry)
    _write_tables(entry, rule, root, fields, masks)
    exact = True
    for label in entry.layout.labels:
        for path, shown in _label_files(entry, label, fields, masks):
            if entry.label_encoding.format is not None:
                named = _filled(entry.label_encoding.image_name or "", fields)
                kind = entry.label_encoding.format
                fake_polygons.write_polygons(kind, root / path, root / image, shown, named)
                continue
            write_label(entry, label, root / path, root / image, shown)
            exact &= not path.lower().endswith((".jpg", ".jpeg"))
    return FakeCase(
        image=image.rstrip("/"),
        replaced=replaced,
        n_cases=n_cases,
        masks=_composed(entry, masks),
        exact=exact,
    )


def _write_image(entry: CatalogEntry, rule: ImagePattern, path: Path, name: str) -> None:
    channels = len(rule.channel) if isinstance(rule.channel, list) else 1
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    random = np.random.default_rng(key)
    if rule.raw is not None:
        fake_parts.write_raw(path, rule.raw, random.integers(0, 255, SHAPE_ZYX[1:]))
        return
    if is_raster(path):
        grey = random.integers(0, 255, SHAPE_ZYX[1:], dtype=np.uint8)
        fake_files.write_picture(path, grey)
        return
    grid = (1, *SHAPE_ZYX[1:]) if entry.dims == "2D" else SHAPE_ZYX
    grid = (3, *SHAPE_ZYX[1:]) if entry.id in PLANES_FIRST else grid
    shape = (channels, *grid) if channels > 1 else grid
    if path.suffix in fake_parts.ARRAYS:
        colours = "C" in (rule.axes or "")
        array = random.integers(0, 255, (*grid, 3) if colours else grid).astype(np.float64)
        letters = "ZYXC" if colours else "ZYX"
        array = fake_parts.in_axes(array, letters, rule.axes)
        fake_parts.write_array(path, rule.variable, array)
        return
    if rule.frames is not None:
        shape = (fake_parts.N_FRAMES, *grid)
    low = -500 if entry.modality == "CT" else 0
    array = random.integers(low, 1000, shape).astype(np.int16)
    array = (array // 4).astype(np.uint8) if entry.id in PLANES_FIRST else array
    if entry.grid == "resample_image":  # every second row: another grid than that of the labels
        z, y, x = fake_files.SPACING_ZYX
        fake_files.write_volume(path, array[..., ::2, :], entry.modality, (z, 2 * y, x))
        return
    fake_files.write_volume(path, array, entry.modality)


def _boxes(entry: CatalogEntry) -> dict[str, np.ndarray]:
    """Two boxes a label, apart from all others."""
    shape = (1, *SHAPE_ZYX[1:]) if entry.dims == "2D" else SHAPE_ZYX
    raw = entry.layout.images[0].raw
    if raw is not None and entry.grid == "resize_image":
        shape = (1, raw.rows // 2, raw.columns // 2)
    one_box = {r.structure for r in entry.layout.labels if "B" in (r.axes or "")}
    masks = {}
    for i, key in enumerate(_shown_labels(entry)):
        mask = np.zeros(shape, bool)
        slices = slice(0, 1) if entry.dims == "2D" else slice(1, 3)
        mask[slices, 3:9, 3 + 12 * i : 9 + 12 * i] = True
        masks[key] = mask
        if entry.label_encoding.type == "rtstruct" or entry.label_encoding.format == "points":
            continue
        if key not in one_box:
            mask[slices, 13:18, 3 + 12 * i : 11 + 12 * i] = True
    return masks


def _composed(entry: CatalogEntry, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What masks become that are unions of raw values (``recompose``)."""
    groups = entry.label_encoding.recompose
    return {
        key: np.logical_or.reduce(
            [mask, *(m for k, m in masks.items() if raw_value(entry, k) in groups[key])]
        )
        if key in groups
        else mask
        for key, mask in masks.items()
    }


def _write_tables(
    entry: CatalogEntry,
    rule: ImagePattern,
    root: Path,
    fields: dict[str, str],
    masks: dict[str, np.ndarray],
) -> None:
    """Lines about this image in the tables of the entry."""
    table, rle = entry.label_encoding.table, entry.label_encoding.runs
    if table is not None:
        lines: list[dict[str | int, str]] = []
        for number, (key, mask) in enumerate(masks.items()):
            line = {table.id_column: _filled(table.id, fields)}
            if table.class_column is not None:
                line[table.class_column] = key
            if table.rle_column is not None and rle is not None:
                line[table.rle_column] = fake_parts.run_lengths(mask[0], rle)
            for part in range(2 if table.value_column is not None else 1):
                if table.value_column is not None:
                    line[table.value_column] = str(2 * number + part + 1)
                lines.append(dict(line))
        fake_parts.add_lines(root, table, lines)
    if rule.frames is not None:
        shown = {c: str(2 * k + 1) for k, c in enumerate(rule.frames.frame_columns)}
        line = {rule.frames.id_column: _filled(rule.frames.id, fields), **shown}
        fake_parts.add_lines(root, rule.frames, [line])


def _shown_labels(entry: CatalogEntry) -> list[str]:
    quiet = {*entry.label_encoding.ignore, *entry.label_encoding.unlabelled_ok, "0,0,0"}
    keys = [k for k in entry.labels if k not in quiet]
    example = _example_structure(entry)
    if example is not None:
        keys = [example, *(k for k in keys if k != example)]
    whole_image = entry.label_encoding.type == "binary" and entry.label_encoding.table is not None
    return keys[: 1 if whole_image else MAX_LABELS]


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
    if label.structure is not None:
        masks = {label.structure: masks[label.structure]}
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
        shown = {k: part_of(m, 0) for k, m in masks.items()} if split else masks
        return [(_filled(label.pattern, fields), shown)]
    return [
        (
            _filled(label.pattern, {**fields, "instance": f"{part + 1:03d}"}),
            {k: part_of(m, part) for k, m in masks.items()},
        )
        for part in range(2)
    ]
