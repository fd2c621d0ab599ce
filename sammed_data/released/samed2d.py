"""SA-Med2D-20M: cases from its index, compared with what lies in ``images/`` and ``masks/``."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sammed_data.catalog import CatalogEntry
from sammed_data.entry_parts import Collection
from sammed_data.released.classes import read_class_map
from sammed_data.released.listed import Item, ListedCases
from sammed_data.released.names import PREFIXES, class_id, image_name
from sammed_data.released.pairs import read_pairs
from sammed_data.types import Case, LabelFile, ReadError, Rejection

_JOIN = "\n"


class CaseOfImage:
    """Makes the case of an image from its name and its masks."""

    def __init__(self, entry: CatalogEntry, rule: Collection, root: Path) -> None:
        self.entry, self.rule, self.root = entry, rule, root
        self.classes = {} if rule.classes is None else read_class_map(root / rule.classes)
        self.patients = {source: re.compile(r) for source, r in rule.patients.items()}

    def __call__(self, item: Item) -> Case:
        """The case of (image name, masks)."""
        stem, joined = item
        name = image_name(stem)
        modality, sequence = PREFIXES[name.prefix]
        labels = []
        for short in joined.split(_JOIN):
            mask = f"masks/{stem}--{short}.png" if "/" not in short else short
            number = class_id(mask) or ""
            named = self.classes.get(name.source, {}).get(number, number)
            labels.append(LabelFile(path=self.root / mask, structure=named))
        return Case(
            dataset=self.entry.id,
            case_id=stem,
            patient_key=f"{name.source}/{self._patient(name.source, name.case)}",
            image_path=self.root / f"images/{stem}.png",
            labels=tuple(labels),
            root=self.root,
            sequence=sequence,
            modality=self.rule.modality.get(f"{name.prefix}--{name.source}", modality),
            fields={"source": name.source},
        )

    def _patient(self, source: str, case: str) -> str:
        rule = self.patients.get(source)
        found = None if rule is None else rule.search(case)
        return case if found is None else found[1]


def discover(
    entry: CatalogEntry, rule: Collection, root: Path
) -> tuple[ListedCases, tuple[Rejection, ...]]:
    """Cases of the index whose files are there, and what is missing, strange or not listed.

    Raises:
        ReadError: the index or the file of classes cannot be read.
    """
    odd: Counter[tuple[str, str]] = Counter()
    rows: dict[str, str] = {}
    for image, masks in read_pairs(root / rule.index):
        stem = image.removeprefix("images/").removesuffix(".png")
        reason = _fault(image, stem, masks)
        if reason is None and stem in rows:
            reason = (_source(stem), "images that the index lists twice")
        if reason is None:
            rows[stem] = _JOIN.join(_short(stem, mask) for mask in masks)
        else:
            odd[reason] += 1
    _drop_absent(root, rows, odd)
    items = sorted(rows.items())
    return ListedCases(items, CaseOfImage(entry, rule, root)), _problems(entry, odd)


def _fault(image: str, stem: str, masks: list[str]) -> tuple[str, str] | None:
    """(source, what is wrong with a line of the index)."""
    source = _source(stem)
    if image != f"images/{stem}.png" or "/" in stem or "\\" in stem:
        return source, "images whose path is not images/NAME.png"
    try:
        image_name(stem)
    except ReadError as err:
        return source, f"names that break the grammar, such as {err}"
    if not masks:
        return source, "images without a mask in the index"
    unsafe = [m for m in masks if not m.startswith("masks/") or ".." in m.split("/")]
    return (source, "images with a mask outside masks/") if unsafe else None


def _source(stem: str) -> str:
    parts = stem.split("--")
    return parts[1] if len(parts) > 1 else "?"


def _short(stem: str, mask: str) -> str:
    """Only what a mask's name adds to its image's; the whole path where that is another."""
    head = f"masks/{stem}--"
    short = mask[len(head) : -4]
    return short if mask == f"{head}{short}.png" and "/" not in short else mask


def _drop_absent(root: Path, rows: dict[str, str], odd: Counter[tuple[str, str]]) -> None:
    """Compare with the folders: one listing each, no question a file."""
    here = set()
    for name in _names(root / "images"):
        stem = name.removesuffix(".png")
        if stem in rows:
            here.add(stem)
        else:
            odd[_source(stem), "images that the index does not list"] += 1
    for stem in [s for s in rows if s not in here]:
        odd[_source(stem), "images of the index that are not there"] += 1
        del rows[stem]
    seen: Counter[str] = Counter()
    foreign = {s for joined in rows.values() if "/" in joined for s in joined.split(_JOIN)}
    for name in _names(root / "masks"):
        stem, _, short = name.removesuffix(".png").rpartition("--")
        if stem in rows and short in rows[stem].split(_JOIN):
            seen[stem] += 1
        elif f"masks/{name}" not in foreign:
            odd[_source(name), "masks that the index does not list"] += 1
    for stem, joined in list(rows.items()):
        shorts = joined.split(_JOIN)
        if seen[stem] == len(shorts):
            continue
        kept = [s for s in shorts if _is_there(root, stem, s)]
        gone = len(shorts) - len(kept)
        if gone:
            odd[_source(stem), "masks of the index that are not there"] += gone
        if kept:
            rows[stem] = _JOIN.join(kept)
        else:
            odd[_source(stem), "images of which no mask is there"] += 1
            del rows[stem]


def _is_there(root: Path, stem: str, short: str) -> bool:
    mask = short if "/" in short else f"masks/{stem}--{short}.png"
    return (root / mask).is_file()


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            yield from (e.name for e in listing if not e.name.startswith("."))
    except OSError as err:
        raise ReadError(f"{folder}: expected a folder of PNG files, but {err.strerror}") from err


def _problems(entry: CatalogEntry, odd: Counter[tuple[str, str]]) -> tuple[Rejection, ...]:
    return tuple(
        Rejection(
            dataset=entry.id, case_id=source, level="case", rule="unpaired", count=n,
            reason=f"{source}: {n:,} {what}",
        )
        for (source, what), n in sorted(odd.items())
    )  # fmt: skip
