"""IMed-361M: one folder a source, its images and sparse labels listed in ``dataset.json``."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from sammed_data.catalog import CatalogEntry
from sammed_data.entry_parts import Collection
from sammed_data.readers.safe_text import parse_json
from sammed_data.released.listed import Item, ListedCases
from sammed_data.released.names import modality_word
from sammed_data.types import Case, LabelFile, ReadError, Rejection

_SPLITS = {"training": "train", "validation": "validation", "test": "test"}
# ABD_001_67 is slice 67 of ABD_001; ISIC_0000001 is a picture.
_SLICE_OF = re.compile(r"(.*\d.*)_\d+")


class CaseOfItem:
    """Makes the case of a line of a ``dataset.json``."""

    def __init__(self, entry: CatalogEntry, rule: Collection, root: Path) -> None:
        self.entry, self.rule, self.root = entry, rule, root
        self.patients = {source: re.compile(r) for source, r in rule.patients.items()}

    def __call__(self, item: Item) -> Case:
        """The case of (source, image, label, split, modality)."""
        source, image, label, split, modality = item
        stem = image.rpartition("/")[2].rpartition(".")[0]
        found = self.patients.get(source, _SLICE_OF).fullmatch(stem)
        return Case(
            dataset=self.entry.id,
            case_id=f"{source}--{stem}",
            patient_key=f"{source}/{stem if found is None else found[1]}",
            image_path=self.root / source / image,
            labels=(LabelFile(path=self.root / source / label),),
            root=self.root,
            official_split=split,
            modality=modality,
            fields={"source": source},
        )


def discover(
    entry: CatalogEntry, rule: Collection, root: Path
) -> tuple[ListedCases, tuple[Rejection, ...]]:
    """Cases of every source below the root, and what is missing or cannot be used."""
    items: list[Item] = []
    problems: list[Rejection] = []
    for path in sorted(root.glob(rule.index)):
        source = path.parent.name
        odd: Counter[str] = Counter()
        try:
            items.extend(_items(path, source, rule, odd))
        except ReadError as err:
            said = str(err).replace(f"{root}/", "")
            problems.append(_problem(entry, source, "unreadable", said, 1))
        for what, n in sorted(odd.items()):
            problems.append(_problem(entry, source, "unpaired", f"{source}: {n:,} {what}", n))
    return ListedCases(sorted(items), CaseOfItem(entry, rule, root)), tuple(problems)


def _problem(entry: CatalogEntry, source: str, rule: str, reason: str, count: int) -> Rejection:
    return Rejection(
        dataset=entry.id, case_id=source, level="case", rule=rule, reason=reason, count=count
    )


def _items(path: Path, source: str, rule: Collection, odd: Counter[str]) -> list[Item]:
    raw = parse_json(path)
    if not isinstance(raw, dict):
        raise ReadError(f"{path}: expected an object with the key 'training', found other JSON")
    modality = rule.modality.get(source) or _modality(path, raw)
    here = {name: set(_listing(path.parent / name)) for name in ("image", "label")}
    found: dict[str, Item] = {}
    for key, split in _SPLITS.items():
        for line in raw.get(key) or ():
            image, label = (line.get(k) for k in ("image", "label")) if _is_line(line) else ("", "")
            if not (_plain(image, "image") and _plain(label, "label")):
                odd["lines without a plain path of image and label"] += 1
            elif image.partition("/")[2] not in here["image"]:
                odd["images of dataset.json that are not there"] += 1
            elif label.partition("/")[2] not in here["label"]:
                odd["labels of dataset.json that are not there"] += 1
            elif image in found:
                odd["images that dataset.json lists twice"] += 1
            else:
                found[image] = (source, image, label, split, modality)
    labels = {item[2] for item in found.values()}
    for name, listed in (("image", set(found)), ("label", labels)):
        n = sum(f"{name}/{file}" not in listed for file in here[name])
        if n:
            odd[f"{name}s that dataset.json does not list"] += n
    return list(found.values())


def _is_line(line: Any) -> bool:
    return isinstance(line, dict)


def _plain(path: Any, folder: str) -> bool:
    """``folder/NAME``, and nothing else."""
    return isinstance(path, str) and path.count("/") == 1 and path.startswith(f"{folder}/")


def _modality(path: Path, raw: dict[str, Any]) -> str:
    words = raw.get("modality")
    words = list(words.values()) if isinstance(words, dict) else [words]
    found = {modality_word(str(word)) for word in words}
    one = found.pop() if len(found) == 1 else None
    if one is None:
        raise ReadError(
            f"{path}: expected one known modality, found {', '.join(map(str, words))}; name it "
            f"under collection.modality of the entry: {path.parent.name}: CT"
        )
    return one


def _listing(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            return [e.name for e in listing if not e.name.startswith(".")]
    except OSError as err:
        raise ReadError(f"{folder}: expected a folder of files, but {err.strerror}") from err
