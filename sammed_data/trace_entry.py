"""Which catalogue entry a row is made again by: that of --source, the corpus' own, the bundled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sammed_data.build import absent_sentence, find_datasets
from sammed_data.catalog import OWN_ENTRIES, load_catalogs
from sammed_data.corpus import Corpus
from sammed_data.discover import discover, find_root
from sammed_data.kept import KeptEntry, kept_path, parse_kept, text_hash
from sammed_data.lock import LOCK, LockedSource, entry_hash, read_lock
from sammed_data.plan import DatasetPlan
from sammed_data.privacy import pseudonyms, unnamed
from sammed_data.types import CatalogError, UsageError


@dataclass(frozen=True, kw_only=True)
class EntryUsed:
    """Where the entry came from.

    Attributes:
        origin: 'source' = the folder given, 'kept' = of the corpus, 'bundled'.
        same: whether the rows were built by it; None where the corpus does not say.
        said: both in words.
    """

    origin: Literal["source", "kept", "bundled"]
    same: bool | None
    said: str


def find_by_entry(
    corpus: Corpus, name: str, source: Path | None, root: Path, key_file: Path | None
) -> tuple[DatasetPlan, EntryUsed]:
    """A dataset of the corpus on disk, by the best entry there is.

    Args:
        corpus: opened corpus.
        name: of its dataset.
        source: catalogue folder, which wins; None = the entry that the corpus keeps, if it is the
            one its lock names; else the bundled one.
        root: where the datasets lie.
        key_file: the site's key, for restricted datasets.

    Raises:
        UsageError: no entry is found, or a restricted dataset has no key.
        CatalogError: the dataset is not on disk.
    """
    locked = _locked(corpus, name)
    kept, why = (None, "") if source is not None else _kept(corpus, name, locked)
    if kept is not None:
        return _by_kept(kept, root, key_file), _words_of_kept(kept)
    if source is None and why and name not in load_catalogs(None):
        raise UsageError(f"no entry to trace {name} by: {why}; {OWN_ENTRIES}")
    dataset = find_datasets(source, root, [name], key_file).datasets[0]
    same = None if locked is None else locked.entry_sha256 == entry_hash(dataset)
    place = "bundled" if source is None else f"from {source}"
    if why:
        place += f", since {why}"
    compared = {
        True: "the rows were built by it",
        False: "the rows were built by another one, which may be all that differs",
        None: f"there is no {LOCK} to compare it with",
    }
    said = f"catalogue entry {place}: {compared[same]}"
    return dataset, EntryUsed(
        origin="bundled" if source is None else "source", same=same, said=said
    )


def _locked(corpus: Corpus, name: str) -> LockedSource | None:
    path = corpus.root / LOCK
    return read_lock(path).sources.get(name) if path.is_file() else None


def _kept(corpus: Corpus, name: str, locked: LockedSource | None) -> tuple[KeptEntry | None, str]:
    """The entry that the corpus keeps, or why there is none to use; no reason = an older corpus."""
    if locked is None:
        return None, ""
    if not locked.kept_sha256:
        return None, f"the corpus does not keep it ({locked.not_kept})" if locked.not_kept else ""
    path = corpus.root / kept_path(name)
    if not path.is_file():
        return None, f"{path} is gone"
    try:
        text = path.read_text(encoding="utf-8")
        if text_hash(text) == locked.kept_sha256:
            return parse_kept(path), ""
    except UnicodeDecodeError:
        return None, f"{path} is no text"
    except CatalogError as err:
        return None, str(err)
    return None, f"{path} is not what the build kept (its hash is not that of {LOCK})"


def _by_kept(kept: KeptEntry, root: Path, key_file: Path | None) -> DatasetPlan:
    entry = kept.entry
    names = pseudonyms(entry, key_file)
    with unnamed(entry):
        place = find_root(entry, root)
        found = None if place is None else discover(entry, place)
    if found is None:
        raise CatalogError(absent_sentence(entry, root))
    return DatasetPlan(entry=entry, cases=found.cases, meanings=kept.meanings, secret=names.secret)


def _words_of_kept(kept: KeptEntry) -> EntryUsed:
    said = f"catalogue entry of the corpus ({kept_path(kept.entry.id)}): the rows were built by it"
    if kept.left_out:
        said += f"; it is kept without {', '.join(kept.left_out)}"
    return EntryUsed(origin="kept", same=True, said=said)
