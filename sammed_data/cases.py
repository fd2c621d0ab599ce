"""Found files -> cases: what an image file holds, its patient, its official split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sammed_data.catalog import CatalogEntry, ImagePattern, LabelPattern
from sammed_data.entry_parts import Table
from sammed_data.patterns import glob_regex
from sammed_data.readers.arrays import shape_of
from sammed_data.readers.video import SUFFIXES as VIDEO_SUFFIXES
from sammed_data.tables import find_tables, lines_of, table_rows
from sammed_data.types import Case, CatalogError, LabelFile, Pick, ReadError


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that a pattern of the entry matched: ``rule`` is its place in the list."""

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


class CaseMaker:
    """Makes the cases of an entry from an image and its labels."""

    def __init__(self, entry: CatalogEntry, *, on_disk: bool = True) -> None:
        """Without the files on disk, those that hold several images count as one."""
        self.entry, self.on_disk = entry, on_disk
        self.image_rules = entry.layout.images
        self.splits = {s: glob_regex(g) for s, g in entry.splits.items()}
        self.patient = re.compile(entry.patient.regex) if entry.patient else None
        self.tables: dict[str, tuple[Path, ...]] = {}

    def label_file(self, found: Found, root: Path, part: _Part) -> LabelFile:
        """The label of one part of an image."""
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

    def cases_of(self, image: Found, labels: list[Found], root: Path) -> Iterator[Case]:
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
        self, image: Found, rule: ImagePattern, labels: list[Found], root: Path
    ) -> list[tuple[_Part, list[Found]]]:
        """What an image file holds, each with its labels: of a video, what a label names."""
        if not image.path.lower().endswith(VIDEO_SUFFIXES):
            return [(part, labels) for part in self.parts(image, rule, root)]
        frames: dict[int, list[Found]] = {}
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

    def parts(self, image: Found, rule: ImagePattern, root: Path) -> list[_Part]:
        """What an image file holds."""
        sequence = self.entry.sequence
        if isinstance(rule.channel, list):
            return [_Part(channel=k, name=c, sequence=c) for k, c in enumerate(rule.channel)]
        sequence = rule.channel or sequence
        if not self.on_disk:
            return [_Part(name=sequence, sequence=sequence)]
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
        """Patient key of an image path; CatalogError where the entry's rule finds none."""
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
        """Split that the entry states for an image path; CatalogError where two claim it."""
        named = [
            s for s, globs in self.splits.items() if globs is not None and globs.fullmatch(path)
        ]
        if len(named) > 1:
            raise CatalogError(
                f"{self.entry.id}: {path!r} is in the official splits {' and '.join(named)}; "
                "a path may match one split only"
            )
        return named[0] if named else None


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


def _without_suffix(path: str) -> str:
    folder, _, name = path.rpartition("/")
    stem = name.split(".")[0] or name
    return f"{folder}/{stem}" if folder else stem
