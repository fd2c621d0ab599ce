"""A suite: a benchmark that is frozen, so that two tables of one name speak of the same images.

``suites/<name>.yaml`` states datasets with their catalogue version, archives, sample ids and
content, and how they are scored: protocols by hash, modes, metrics, edition, views. What nobody
could state without the bytes is ``unfrozen``, with the command that freezes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sammed_data.types import UsageError, nearest

SUITES = Path(__file__).parent / "suites"
FORMAT = 1
# More sample ids than this are given by their digest.
LISTED = 500
EVERY = "every image of the dataset in these splits"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FrozenDataset:
    """One dataset of a suite; empty or None = not frozen.

    Attributes:
        version: of its catalogue entry.
        images, masks: how many.
        samples: ids, sorted; empty where ``samples_sha256`` stands for them.
        samples_sha256: of the sorted ids, a line each.
        rule: which images these are.
        content_sha256: of ids and content hashes (pixels, masks, metadata), a line each.
        archives: file name -> SHA-256, as ``sammed data fetch`` noted them.
        tree_sha256: of the source files behind the rows, as in ``corpus.lock.yaml``.
        unfrozen: the command that freezes the rest; empty = nothing is left.
    """

    id: str
    version: int
    images: int | None = None
    masks: int | None = None
    samples: tuple[str, ...] = ()
    samples_sha256: str = ""
    rule: str = EVERY
    content_sha256: str = ""
    archives: Mapping[str, str] = field(default_factory=dict)
    tree_sha256: str = ""
    unfrozen: str = ""


@dataclass(frozen=True, kw_only=True)
class FrozenProtocol:
    """A prompt protocol by name, with the hash that it had."""

    name: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class FrozenView:
    """Which masks a table counts, as ``sammed_data.corpus.View``."""

    name: str
    min_area_fraction: float
    min_aspect: float


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A frozen benchmark.

    Attributes:
        about, how: for people: what it is, and how its corpus is made. Not in the digest.
        splits: of the corpus.
        options: build options that decided the rows.
        protocols: the first one is used unless another one of them is asked for.
        metrics_version: of the definitions.
        tolerance: of the normalised surface Dice.
    """

    name: str
    version: int
    splits: tuple[str, ...]
    datasets: tuple[FrozenDataset, ...]
    protocols: tuple[FrozenProtocol, ...]
    modes: tuple[str, ...]
    metrics: tuple[str, ...]
    metrics_version: int
    tolerance: float
    edition: str
    seed: int
    views: tuple[FrozenView, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    how: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Its datasets."""
        return tuple(dataset.id for dataset in self.datasets)

    @property
    def unfrozen(self) -> tuple[str, ...]:
        """Datasets of which something is not frozen."""
        return tuple(d.id for d in self.datasets if d.unfrozen)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a score."""
        raw = asdict(self)
        for name in ("about", "how"):
            del raw[name]
        return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()


def shipped() -> list[str]:
    """Names of the suites of the package."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(text: str) -> Suite:
    """A suite by name or file.

    Raises:
        UsageError: neither, or no suite.
    """
    path = SUITES / f"{text}.yaml"
    if not path.is_file():
        path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"expected --suite to name a suite or its file, found {text!r} "
            f"({nearest(text, shipped())})"
        )
    return parse_suite(path.read_text(encoding="utf-8"), str(path))


def parse_suite(text: str, where: str) -> Suite:
    """A suite of its YAML.

    Args:
        text: of the file.
        where: it stands, for the sentence.

    Raises:
        UsageError: it is none.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise _bad(where, "suite", str(err).splitlines()[0]) from err
    if not isinstance(raw, dict) or raw.pop("sammed_suite", None) != FORMAT:
        raise _bad(where, f"sammed_suite: {FORMAT} in its first line", "none")
    parts = {"datasets": FrozenDataset, "protocols": FrozenProtocol, "views": FrozenView}
    for name, kind in parts.items():
        listed = raw.get(name)
        if not isinstance(listed, list) or not listed:
            raise _bad(where, f"a list of {name}", repr(listed))
        raw[name] = tuple(_of(kind, item, where, name) for item in listed)
    suite = _of(Suite, raw, where, "suite")
    if len(set(suite.ids)) != len(suite.ids):
        raise _bad(where, "every dataset once", "one twice")
    return suite


def _of(kind: type[T], raw: Any, where: str, what: str) -> T:
    """A dataclass of a mapping: no key more, none missing, values of the types of its fields."""
    if not isinstance(raw, dict):
        raise _bad(where, f"keys and values in {what}", repr(raw))
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in raw:
        if key not in known:
            raise _bad(where, f"known keys in {what}", f"{key!r} ({nearest(str(key), known)})")
    found: dict[str, Any] = {}
    for key, value in raw.items():
        kept: Any = tuple(value) if isinstance(value, list) else value
        if not _fits(kept, str(known[key].type)):
            raise _bad(where, f"{known[key].type} at {key} in {what}", repr(value))
        found[key] = float(kept) if known[key].type == "float" else kept
    try:
        return kind(**found)
    except TypeError as err:
        missing = str(err).rpartition(":")[2].strip()
        raise _bad(where, f"{missing} in {what}", "none") from err


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of YAML can stand in a field of this annotation."""
    if kind.startswith("tuple[str"):
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if kind.startswith("tuple"):  # of parts that were read before
        return isinstance(value, tuple)
    if kind.startswith("Mapping"):
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if isinstance(value, bool):
        return False
    plain = {"str": str, "int": int, "float": (int, float), "int | None": int}
    return isinstance(value, plain[kind])  # type: ignore[arg-type]


def _bad(where: str, expected: str, found: str) -> UsageError:
    return UsageError(
        f"{where}: expected {expected}, found {found}; `sammed bench freeze` writes a whole suite"
    )


def suite_text(suite: Suite) -> str:
    """The YAML of a suite; what is empty is left out."""
    raw = {"sammed_suite": FORMAT} | _plain(asdict(suite))
    order = ("sammed_suite", "name", "version", "about", "how")
    first = {key: raw[key] for key in order if key in raw}
    return yaml.safe_dump(first | raw, sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {k: _plain(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in ("", None, [], {}) and v != EVERY}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 of sorted lines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
