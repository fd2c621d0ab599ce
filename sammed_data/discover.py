"""Find the cases of a catalogue entry on disk: one walk, labels looked up by shared fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sammed_data import archives
from sammed_data.cases import CaseMaker, Found
from sammed_data.catalog import CatalogEntry
from sammed_data.patterns import PathPattern, compile_pattern, glob_regex, walk_matching
from sammed_data.released import find as released
from sammed_data.types import Case, ReadError, Rejection

_NOT_SHARED = ("structure", "instance")


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What lies under a root: cases by case_id, and unpaired images and labels."""

    cases: Sequence[Case]
    problems: tuple[Rejection, ...]


def find_root(entry: CatalogEntry, data_root: Path) -> Path | None:
    """Return the folder the entry's patterns start from, or None if no image matches anywhere.

    The most specific place wins: ``data_root/<id>``, ``data_root/<root>`` for each root of the
    entry, then ``data_root`` itself; then archives there of these names, and those inside them.

    Raises:
        ReadError: an archive that may hold the dataset cannot be used.
    """
    if entry.collection is not None:
        return released.root_of(entry, entry.collection, data_root)
    search = _Search(entry)
    for part in (entry.id, *entry.root, "."):
        root = data_root / part
        if not root.is_dir():
            continue
        walk = walk_matching(root, search.images)
        if any(search.is_image(path, is_folder) for path, is_folder in walk):
            return root
    for place in archives.places(data_root, _archive_names(entry)):
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
    if entry.collection is not None and listing is None:
        cases_of, odd = released.discover(entry, entry.collection, root)
        return Discovery(cases=cases_of, problems=odd)
    search, maker = _Search(entry), CaseMaker(entry, on_disk=listing is None)
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
            cases.extend(maker.cases_of(image, found, root))
        except ReadError as err:
            problems.append(search.unreadable(image, str(err), root))
    problems.extend(search.unpaired_label(f) for f in labels if f.path not in taken)
    return Discovery(cases=tuple(_unique(cases)), problems=tuple(problems))


def _archive_names(entry: CatalogEntry) -> list[str]:
    """What an archive of the dataset may be called: id, roots, top folders, the download's name."""
    tops = [rule.pattern.split("/")[0] for rule in entry.layout.images if "/" in rule.pattern]
    plain = [top for top in tops if not set(top) & set("{}*?[]")]
    urls = [entry.download_url] if entry.download_url else []
    stems = [archives.stem(url.split("?")[0].rpartition("/")[2]) for url in urls]
    return [entry.id, *entry.root, *plain, *(s for s in stems if s)]


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
        self.images = [compile_pattern(p.pattern) for p in entry.layout.images]
        self.labels = [compile_pattern(p.pattern, known) for p in entry.layout.labels]
        self.loose_labels = [compile_pattern(p.pattern) for p in entry.layout.labels]
        self.excluded = glob_regex(entry.layout.exclude)
        images_and_labels = {p.text for p in self.images} & {p.text for p in self.labels}
        # Image and label may be parts of one file: two halves of a picture, two arrays.
        self.both = [p for p in self.images if p.text in images_and_labels]
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
    ) -> tuple[list[Found], list[Found]]:
        """Images and labels under the root; a path that could be both is a label."""
        images: list[Found] = []
        labels: list[Found] = []
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

    def same_pattern(self, label: Found) -> list[Found]:
        """The label once for every pattern of its text: several arrays of one file."""
        text = self.labels[label.rule].text
        return [replace(label, rule=j) for j, p in enumerate(self.labels) if p.text == text]

    def index(self, labels: list[Found]) -> dict[tuple[int, int, tuple[str, ...]], list[Found]]:
        """(image rule, label rule, values of the shared fields) -> labels."""
        index: dict[tuple[int, int, tuple[str, ...]], list[Found]] = {}
        for label in labels:
            for i in range(len(self.images)):
                values = tuple(label.fields[f] for f in self.shared[i][label.rule])
                index.setdefault((i, label.rule, values), []).append(label)
        return index

    def labels_of(
        self, image: Found, index: dict[tuple[int, int, tuple[str, ...]], list[Found]]
    ) -> list[Found]:
        found: list[Found] = []
        for j, fields in enumerate(self.shared[image.rule]):
            found.extend(index.get((image.rule, j, tuple(image.fields[f] for f in fields)), ()))
        return found

    def unpaired_image(self, image: Found) -> Rejection:
        looked = [_filled(p, image.fields) for p in self.labels]
        return self._unpaired(
            image, f"image {image.path!r} has no label; looked for {_either(looked)}"
        )

    def unpaired_label(self, label: Found) -> Rejection:
        looked = [_filled(p, label.fields) for p in self.images]
        reason = f"label {label.path!r} has no image; looked for {_either(looked)}"
        if "structure" in label.fields and label.fields["structure"] not in self.entry.labels:
            reason += "; no key of 'labels' fits its {structure}"
        return self._unpaired(label, reason)

    def unreadable(self, image: Found, reason: str, root: Path) -> Rejection:
        text = reason.replace(f"{root}/", "")
        return replace(self._unpaired(image, f"{image.path}: {text}"), rule="unreadable")

    def _unpaired(self, found: Found, reason: str) -> Rejection:
        return Rejection(
            dataset=self.entry.id, case_id=found.path, level="case", rule="unpaired", reason=reason
        )


def _first(patterns: list[PathPattern], path: str, is_folder: bool) -> Found | None:
    for rule, pattern in enumerate(patterns):
        if pattern.is_folder == is_folder:
            fields = pattern.fields_of(path)
            if fields is not None:
                return Found(path=path, rule=rule, fields=fields)
    return None


def _filled(pattern: PathPattern, fields: dict[str, str]) -> str:
    text = pattern.text
    for name, value in fields.items():
        text = text.replace("{" + name + "}", value)
    return text


def _either(patterns: list[str]) -> str:
    return " or ".join(repr(p) for p in patterns)


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
