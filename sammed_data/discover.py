"""Find the cases of a catalogue entry on disk: one walk, labels looked up by shared fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sammed_data.catalog import CatalogEntry, ImagePattern, LabelPattern
from sammed_data.patterns import PathPattern, compile_pattern, glob_regex, walk_matching
from sammed_data.types import Case, CatalogError, LabelFile, Rejection

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


def find_root(entry: CatalogEntry, data_root: Path) -> Path | None:
    """Return the folder the entry's patterns start from, or None if no image matches anywhere.

    The most specific place wins: ``data_root/<id>``, ``data_root/<root>`` for each root of the
    entry, then ``data_root`` itself.
    """
    search = _Search(entry)
    for part in (entry.id, *entry.root, "."):
        root = data_root / part
        if not root.is_dir():
            continue
        walk = walk_matching(root, search.images)
        if any(search.is_image(path, is_folder) for path, is_folder in walk):
            return root
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
        CatalogError: an image path without a patient key by the entry's rule, or a path that two
            official splits claim.
    """
    search = _Search(entry)
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
        files = tuple(search.label_file(f, root) for f in found)
        cases.extend(search.cases_of(image, files, root))
    problems.extend(search.unpaired_label(f) for f in labels if f.path not in taken)
    return Discovery(cases=tuple(_unique(cases)), problems=tuple(problems))


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
        self.shared = [
            [
                tuple(f for f in i.fields if f in j.fields and f not in _NOT_SHARED)
                for j in self.labels
            ]
            for i in self.images
        ]

    def is_image(self, path: str, is_folder: bool) -> bool:
        image = _first(self.images, path, is_folder)
        label = _first(self.labels, path, is_folder)
        return image is not None and label is None and not self.is_excluded(path)

    def is_excluded(self, path: str) -> bool:
        return self.excluded is not None and self.excluded.fullmatch(path) is not None

    def scan(
        self, root: Path, listing: Iterable[tuple[str, bool]] | None = None
    ) -> tuple[list[_Found], list[_Found]]:
        """Images and labels under the root; a path that could be both is a label."""
        images: list[_Found] = []
        labels: list[_Found] = []
        if listing is None:
            listing = walk_matching(root, [*self.images, *self.loose_labels])
        for path, is_folder in listing:
            label = _first(self.labels, path, is_folder)
            image = None if label else _first(self.images, path, is_folder)
            if image is None and label is None:
                label = _first(self.loose_labels, path, is_folder)
            if image is not None:
                images.append(image)
            elif label is not None:
                labels.append(label)
        return images, labels

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

    def label_file(self, found: _Found, root: Path) -> LabelFile:
        rule: LabelPattern = self.entry.layout.labels[found.rule]
        return LabelFile(
            path=root / found.path,
            structure=found.fields.get("structure"),
            annotator=rule.annotator,
        )

    def cases_of(self, image: _Found, labels: tuple[LabelFile, ...], root: Path) -> Iterator[Case]:
        """One case, or one a channel of a 4D file."""
        rule: ImagePattern = self.image_rules[image.rule]
        several = len(self.image_rules) > 1
        base = "_".join(image.fields.values()) or _without_suffix(image.path)
        names: list[tuple[int | None, str]]
        if isinstance(rule.channel, list):
            names = list(enumerate(rule.channel))
        else:
            names = [(None, rule.channel or self.entry.sequence)]
        for channel, sequence in names:
            tagged = channel is not None or (several and rule.channel is not None)
            yield Case(
                dataset=self.entry.id,
                case_id=f"{base}-{sequence}" if tagged else base,
                patient_key=self.patient_key(image.path),
                image_path=root / image.path,
                labels=labels,
                root=root,
                channel=channel,
                sequence=sequence,
                official_split=self.official_split(image.path),
            )

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

    def _unpaired(self, found: _Found, reason: str) -> Rejection:
        return Rejection(
            dataset=self.entry.id, case_id=found.path, level="case", rule="unpaired", reason=reason
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
