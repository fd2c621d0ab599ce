"""What the classes of a released corpus mean: the entry's labels, then the ontology."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from sammed_data.catalog import CatalogEntry
from sammed_data.entry_parts import Collection
from sammed_data.ontology import Ontology
from sammed_data.readers.safe_text import parse_json
from sammed_data.types import CatalogError, ReadError

#: Source -> class id -> class name.
ClassMap = Mapping[str, Mapping[str, str]]


def read_class_map(path: Path) -> ClassMap:
    """``{source: {class name: "0003"}}`` turned round.

    Raises:
        ReadError: missing, or of another form.
    """
    stat = _stat(path)
    return _class_map(path, stat)


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as err:
        raise ReadError(
            f"{path}: expected the file that names the classes, but {err.strerror}; fetch it"
        ) from err
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _class_map(path: Path, _stamp: tuple[int, int]) -> ClassMap:
    raw = parse_json(path)
    if not isinstance(raw, dict) or not all(isinstance(v, dict) for v in raw.values()):
        raise ReadError(f"{path}: expected {{source: {{class name: id}}}}, found other JSON")
    return {
        source: {str(number): str(name) for name, number in names.items()}
        for source, names in raw.items()
    }


@lru_cache(maxsize=1024)
def _channel_names(path: Path, _stamp: tuple[int, int]) -> tuple[str, ...]:
    raw = parse_json(path)
    labels = raw.get("labels") if isinstance(raw, dict) else None
    if not isinstance(labels, dict):
        raise ReadError(f"{path}: expected the key 'labels' with {{number: name}}, found none")
    return tuple(str(v) for v in labels.values() if str(v).strip().lower() != "background")


def channel_names(path: Path) -> tuple[str, ...]:
    """Names of the channels of an IMed-361M source, from its ``dataset.json``.

    Raises:
        ReadError: missing, or without labels.
    """
    return _channel_names(path, _stat(path))


def label_key(labels: Mapping[str, str], source: str, name: str) -> str | None:
    """Key of the entry's ``labels`` for a class: ``source/name`` wins over ``name``."""
    own = f"{source}/{name}"
    return own if own in labels else name if name in labels else None


def completed(entry: CatalogEntry, root: Path, ontology: Ontology) -> CatalogEntry:
    """The entry with those class names of the files that the ontology knows by themselves.

    What neither knows stays out: masks of it are counted rejections.

    Raises:
        ReadError: the files that name the classes cannot be read.
    """
    rule = entry.collection
    if rule is None:
        return entry
    found: dict[str, str] = {}
    for source, name in _all_names(rule, root):
        if label_key(entry.labels, source, name) is None and name not in found:
            try:
                structure = ontology.resolve(name)
            except CatalogError:
                continue
            if structure.kind != "ignore":
                found[name] = structure.name
    return entry.model_copy(update={"labels": {**entry.labels, **dict(sorted(found.items()))}})


def _all_names(rule: Collection, root: Path) -> list[tuple[str, str]]:
    if rule.classes is not None:
        classes = read_class_map(root / rule.classes)
        return [(s, name) for s, names in classes.items() for name in names.values()]
    files = sorted(root.glob(rule.index))
    return [(file.parent.name, name) for file in files for name in channel_names(file)]
