"""Find the cases of a catalogue entry on disk: one walk, labels looked up by shared fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sammed_data import archives
from sammed_data.catalog import CatalogEntry, ImagePattern, LabelPattern
from sammed_data.entry_parts import Table
from sammed_data.patterns import PathPattern, compile_pattern, glob_regex, walk_matching
from sammed_data.readers.arrays import shape_of
from sammed_data.readers.video import SUFFIXES as VIDEO_SUFFIXES
from sammed_data.tables import find_tables, lines_of, table_rows
from sammed_data.types import Case, CatalogError, LabelFile, Pick, ReadError, Rejection

_NOT_SHARED = ("structure", "instance")


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What lies under a root: cases by case_id, and unpaired images and labels."""

    cases: tuple[Case, ...]
    problems: tuple[Rejection, ...]


@dataclass(frozen=True, kw_only=True)
class _Found:
    path: str
    rule: int
    fields: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One image of a file: a channel or frame, or an item of an array; or the whole of it."""

    name: str
    sequence: str
    channel: int | None = None
    item: int | None = None


def find_root(entry: CatalogEntry, data_root: Path) -> Path | None:
    """Return the folder the entry's patterns start from, or None if no image matches anywhere.

    The most specific place wins: ``data_root/<id>``, ``data_root/<root>`` for each root of the
    entry, then ``data_root`` itself; then archives there of these names, and those inside them.

    Raises:
        ReadError: an archive that may hold the dataset cannot be used.
    """
    search = _Search(entry)
    for part in (entry.id, *entry.root, "."):
        root = data_root / part
        if not root.is_dir():
            continue
        walk = walk_matching(root, search.images)
        if any(search.is_image(path, is_folder) for path, is_folder in walk):
            return root
    for place in archives.places(data_root, (entry.id, *entry.root)):
        if any(search.is_image(path, is_folder) for path, is_folder in archives.walk(place)):
            return place
    return None


def discover(
    entry: CatalogEntry, root: Path, listing: Iterable[tuple[str, bool]] | None = None
) -> Discovery:
    """Find every image with its labels under ``root``.

    Args:
        entry: the dataset.
        root: where its patterns start.
        listing: (relative POSIX path, is folder) of what is there, for files that are not on this
            disk; None = walk ``root``.

    Raises:
        ReadError: an archive that cannot be used, or whose data must be unpacked first.
        CatalogError: an image path without a patient key by the entry's rule, or a path that two
            official splits claim.
    """
    search = _Search(entry)
    if listing is None and archives.split(root) is not None:
        _refuse_arrays(entry, root)
    images, labels = search.scan(root, listing)
    cases: list[Case] = []
    problems: list[Rejection] = []
    index = search.index(labels)
    taken: set[str] = set()
    for image in images:
        found = search.labels_of(image, index)
        taken.update(f.path for f in found)
        if search.is_excluded(image.path):
            continue
        if not found:
            problems.append(search.unpaired_image(image))
            continue
        try:
            cases.extend(search.cases_of(image, found, root))
        except ReadError as err:
            problems.append(search.unreadable(image, str(err), root))
    problems.extend(search.unpaired_label(f) for f in labels if f.path not in taken)
    return Discovery(cases=tuple(_unique(cases)), problems=tuple(problems))


def _refuse_arrays(entry: CatalogEntry, root: Path) -> None:
    """How many images such a file holds is read while looking, which needs it on disk."""
    if any(rule.frames is not None or "N" in (rule.axes or "") for rule in entry.layout.images):
        raise ReadError(
            f"{entry.id}: expected arrays or tables of frames on disk, found them in {root.name}; "
            "unpack the archive"
        )


class _Search:
    """An entry's layout, compiled once."""

    def __init__(self, entry: CatalogEntry) -> None:
        self.entry = entry
        known = [k for k in entry.labels if k != "*"]
        self.image_rules = entry.layout.images
        self.images = [compile_pattern(p.pattern) for p in entry.layout.images]
        self.labels = [compile_pattern(p.pattern, known) for p in entry.layout.labels]
        self.loose_labels = [compile_pattern(p.pattern) for p in entry.layout.labels]
        self.excluded = glob_regex(entry.layout.exclude)
        self.splits = {s: glob_regex(g) for s, g in entry.splits.items()}
        self.patient = re.compile(entry.patient.regex) if entry.patient else None
        images_and_labels = {p.text for p in self.images} & {p.text for p in self.labels}
        # Image and label may be parts of one file: two halves of a picture, two arrays.
        self.both = [p for p in self.images if p.text in images_and_labels]
        self.tables: dict[str, tuple[Path, ...]] = {}
        self.shared = [
            [
                tuple(f for f in i.fields if f in j.fields and f not in _NOT_SHARED)
                for j in self.labels
            ]
            for i in self.images
        ]

    def is_image(self, path: str, is_folder: bool) -> bool:
        image = _first(self.images, path, is_folder)
        label = None if self.is_both(path, is_folder) else _first(self.labels, path, is_folder)
        return image is not None and label is None and not self.is_excluded(path)

    def is_both(self, path: str, is_folder: bool) -> bool:
        return _first(self.both, path, is_folder) is not None

    def is_excluded(self, path: str) -> bool:
        return self.excluded is not None and self.excluded.fullmatch(path) is not None

    def scan(
        self, root: Path, listing: Iterable[tuple[str, bool]] | None = None
    ) -> tuple[list[_Found], list[_Found]]:
        """Images and labels under the root; a path that could be both is a label."""
        images: list[_Found] = []
        labels: list[_Found] = []
        if listing is None and archives.split(root) is not None:
            listing = archives.walk(root)
        elif listing is None:
            listing = walk_matching(root, [*self.images, *self.loose_labels])
        for path, is_folder in listing:
            label = _first(self.labels, path, is_folder)
            both = self.is_both(path, is_folder)
            image = None if label and not both else _first(self.images, path, is_folder)
            if image is None and label is None:
                label = _first(self.loose_labels, path, is_folder)
            if image is not None:
                images.append(image)
            if label is not None:
                labels.extend(self.same_pattern(label))
        return images, labels

    def same_pattern(self, label: _Found) -> list[_Found]:
        """The label once for every pattern of its text: several arrays of one file."""
        text = self.labels[label.rule].text
        return [replace(label, rule=j) for j, p in enumerate(self.labels) if p.text == text]

    def index(self, labels: list[_Found]) -> dict[tuple[int, int, tuple[str, ...]], list[_Found]]:
        """(image rule, label rule, values of the shared fields) -> labels."""
        index: dict[tuple[int, int, tuple[str, ...]], list[_Found]] = {}
        for label in labels:
            for i in range(len(self.images)):
                values = tuple(label.fields[f] for f in self.shared[i][label.rule])
                index.setdefault((i, label.rule, values), []).append(label)
        return index

    def labels_of(
        self, image: _Found, index: dict[tuple[int, int, tuple[str, ...]], list[_Found]]
    ) -> list[_Found]:
        found: list[_Found] = []
        for j, fields in enumerate(self.shared[image.rule]):
            found.extend(index.get((image.rule, j, tuple(image.fields[f] for f in fields)), ()))
        return found

    def label_file(self, found: _Found, root: Path, part: _Part) -> LabelFile:
        rule: LabelPattern = self.entry.layout.labels[found.rule]
        has_items = rule.axes is not None and "N" in rule.axes
        return LabelFile(
            path=root / found.path,
            structure=found.fields.get("structure", rule.structure),
            annotator=rule.annotator,
            channel=part.channel if rule.channel == "image" else rule.channel,
            pick=Pick(
                variable=rule.variable,
                axes=rule.axes,
                item=part.item if has_items else None,
                half=rule.half,
            ),
        )

    def cases_of(self, image: _Found, labels: list[_Found], root: Path) -> Iterator[Case]:
        """One case, or one a channel or frame of a 4D file, or one an item of an array.

        Raises:
            ReadError: the file or table that says how many there are cannot be read.
        """
        rule: ImagePattern = self.image_rules[image.rule]
        several = len(self.image_rules) > 1
        base = "_".join(image.fields.values()) or _without_suffix(image.path)
        for part, files in self.parts_with_labels(image, rule, labels, root):
            tagged = part.channel is not None or (several and rule.channel is not None)
            name = f"{base}-{part.name}" if tagged else base
            yield Case(
                dataset=self.entry.id,
                case_id=name if part.item is None else f"{name}-{part.item:05d}",
                patient_key=self.patient_key(image.path),
                image_path=root / image.path,
                labels=tuple(self.label_file(f, root, part) for f in files),
                root=root,
                channel=part.channel,
                sequence=part.sequence,
                official_split=self.official_split(image.path),
                pick=_image_pick(rule, part.item),
                fields=image.fields,
                tables=self.files_of(self.entry.label_encoding.table or rule.frames, root),
            )

    def parts_with_labels(
        self, image: _Found, rule: ImagePattern, labels: list[_Found], root: Path
    ) -> list[tuple[_Part, list[_Found]]]:
        """What an image file holds, each with its labels: of a video, what a label names."""
        if not image.path.lower().endswith(VIDEO_SUFFIXES):
            return [(part, labels) for part in self.parts(image, rule, root)]
        frames: dict[int, list[_Found]] = {}
        for label in labels:
            text = label.fields.get("frame", "")
            if not text.isdecimal() or int(text) < rule.first_frame:
                raise ReadError(
                    f"{label.path}: expected the number of a frame, from {rule.first_frame}, where "
                    f"the label pattern has {{frame}}, found {text!r}"
                )
            frames.setdefault(int(text) - rule.first_frame, []).append(label)
        sequence = rule.channel if isinstance(rule.channel, str) else self.entry.sequence
        return [
            (_Part(channel=number, name=f"{number:06d}", sequence=sequence), found)
            for number, found in sorted(frames.items())
        ]

    def parts(self, image: _Found, rule: ImagePattern, root: Path) -> list[_Part]:
        """What an image file holds."""
        sequence = self.entry.sequence
        if isinstance(rule.channel, list):
            return [_Part(channel=k, name=c, sequence=c) for k, c in enumerate(rule.channel)]
        sequence = rule.channel or sequence
        if rule.axes is not None and "N" in rule.axes:
            shape = shape_of(root / image.path, rule.variable)
            axis = rule.axes.index("N")
            n_items = shape[axis] if axis < len(shape) else 0
            return [_Part(item=k, name=sequence, sequence=sequence) for k in range(n_items)]
        if rule.frames is not None:
            paths = self.files_of(rule.frames, root)
            rows = table_rows(rule.frames, paths)
            line = lines_of(rule.frames, paths, image.fields)[0]
            cells = [(c, rows.cell(line, c)) for c in rule.frames.frame_columns]
            wrong = [f"{text!r} in {column!r}" for column, text in cells if not text.isdigit()]
            if wrong:
                raise ReadError(
                    f"{line.place}: expected frame numbers from 0, found {', '.join(wrong)}; "
                    "mend the table"
                )
            return [_Part(channel=int(t), name=str(c), sequence=sequence) for c, t in cells]
        return [_Part(name=sequence, sequence=sequence)]

    def files_of(self, table: Table | None, root: Path) -> tuple[Path, ...]:
        """Files of a table, looked up once."""
        if table is None:
            return ()
        if table.pattern not in self.tables:
            self.tables[table.pattern] = find_tables(table, root)
        return self.tables[table.pattern]

    def patient_key(self, path: str) -> str | None:
        if self.patient is None:
            return None
        found = self.patient.search(path)
        if found is None or not all(found.groups()):
            raise CatalogError(
                f"{self.entry.id}: expected a patient key in the image path {path!r} by "
                f"patient.regex {self.patient.pattern!r}, found none; mend the regex or "
                "exclude the file"
            )
        return "_".join(found.groups())

    def official_split(self, path: str) -> str | None:
        named = [
            s for s, globs in self.splits.items() if globs is not None and globs.fullmatch(path)
        ]
        if len(named) > 1:
            raise CatalogError(
                f"{self.entry.id}: {path!r} is in the official splits {' and '.join(named)}; "
                "a path may match one split only"
            )
        return named[0] if named else None

    def unpaired_image(self, image: _Found) -> Rejection:
        looked = [_filled(p, image.fields) for p in self.labels]
        return self._unpaired(
            image, f"image {image.path!r} has no label; looked for {_either(looked)}"
        )

    def unpaired_label(self, label: _Found) -> Rejection:
        looked = [_filled(p, label.fields) for p in self.images]
        reason = f"label {label.path!r} has no image; looked for {_either(looked)}"
        if "structure" in label.fields and label.fields["structure"] not in self.entry.labels:
            reason += "; no key of 'labels' fits its {structure}"
        return self._unpaired(label, reason)

    def unreadable(self, image: _Found, reason: str, root: Path) -> Rejection:
        text = reason.replace(f"{root}/", "")
        return replace(self._unpaired(image, f"{image.path}: {text}"), rule="unreadable")

    def _unpaired(self, found: _Found, reason: str) -> Rejection:
        return Rejection(
            dataset=self.entry.id, case_id=found.path, level="case", rule="unpaired", reason=reason
        )


def _image_pick(rule: ImagePattern, item: int | None) -> Pick:
    raw = rule.raw
    return Pick(
        variable=rule.variable,
        axes=rule.axes,
        item=item,
        half=rule.half,
        rows=raw.rows if raw else 0,
        columns=raw.columns if raw else 0,
        dtype=raw.numpy_dtype if raw else "",
        bits=raw.bits if raw else 16,
        white_is_zero=raw.white_is_zero if raw else False,
    )


def _first(patterns: list[PathPattern], path: str, is_folder: bool) -> _Found | None:
    for rule, pattern in enumerate(patterns):
        if pattern.is_folder == is_folder:
            fields = pattern.fields_of(path)
            if fields is not None:
                return _Found(path=path, rule=rule, fields=fields)
    return None


def _filled(pattern: PathPattern, fields: dict[str, str]) -> str:
    text = pattern.text
    for name, value in fields.items():
        text = text.replace("{" + name + "}", value)
    return text


def _either(patterns: list[str]) -> str:
    return " or ".join(repr(p) for p in patterns)


def _without_suffix(path: str) -> str:
    folder, _, name = path.rpartition("/")
    stem = name.split(".")[0] or name
    return f"{folder}/{stem}" if folder else stem


def _unique(cases: list[Case]) -> list[Case]:
    """Sorted cases; ids that occur twice get the relative path instead."""
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.case_id] = counts.get(case.case_id, 0) + 1
    out = []
    for case in cases:
        if counts[case.case_id] > 1:
            path = case.image_path.relative_to(case.root).as_posix()
            case = replace(
                case, case_id=path if case.channel is None else f"{path}-{case.sequence}"
            )
        out.append(case)
    return sorted(out, key=lambda c: c.case_id)
