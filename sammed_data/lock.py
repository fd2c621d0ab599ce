"""``corpus.yaml`` and ``corpus.lock.yaml``: what a corpus is made of, and from which very bytes.

Every corpus holds both. The first is a recipe without paths of one machine; the second names each
source's version, entry and files by hash, so that ``build --locked`` notices any that differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sammed_data.exclude import FILE as EXCLUSIONS
from sammed_data.get.lock import read_lock as read_fetched
from sammed_data.kept import KeptText, kept_path, kept_text
from sammed_data.licenses import DECISIONS_FILE
from sammed_data.manifest import Record, manifest_options, sammed_version
from sammed_data.plan import BUILD_VERSION, BuildOptions, DatasetPlan, decisive
from sammed_data.privacy import Pseudonyms
from sammed_data.types import CatalogError, CorpusError, UsageError

if TYPE_CHECKING:
    from sammed_data.publish import Batch, Draft

RECIPE, LOCK = "corpus.yaml", "corpus.lock.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LockedSource(_Strict):
    """One dataset as it was.

    Attributes:
        version: of its catalogue entry.
        entry_sha256: of what in the entry decides rows.
        cases: on disk.
        files: that these cases consist of.
        tree_sha256: over path and bytes of those files.
        archives: file name -> SHA-256, as `sammed data fetch` noted them.
        kept_sha256: of the entry's file in the corpus; '' where there is none.
        not_kept: why a build did not keep the entry.
    """

    version: int
    entry_sha256: str
    cases: int
    files: int
    tree_sha256: str
    archives: dict[str, str] = Field(default_factory=dict)
    kept_sha256: str = ""
    not_kept: str = ""


class Lock(_Strict):
    """All that decided a corpus, by hash."""

    sammed_version: str
    build_version: int
    options: dict[str, Any]
    sources: dict[str, LockedSource]
    content_sha256: str


def read_lock(path: Path) -> Lock:
    """A lock file.

    Raises:
        UsageError: it is missing or not one.
    """
    try:
        return Lock.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as err:
        said = err.strerror if isinstance(err, OSError) else str(err).splitlines()[0]
        raise UsageError(
            f"{path}: expected the lock of a corpus, found {said}: build once without --locked, "
            f"the corpus then holds its {LOCK}"
        ) from err


def entry_hash(dataset: DatasetPlan) -> str:
    """SHA-256 of what in an entry and the ontology decides rows."""
    return _hash(json.dumps(decisive(dataset), sort_keys=True))


def tree_hash(records: Iterable[Record]) -> tuple[int, str]:
    """(number, hash) of the source files that shards were made from, however they were cut."""
    hashes = sorted({h for record in records for h in record["source_hashes"]})
    return len(hashes), _hash("\n".join(hashes))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fetched_archives(dataset: DatasetPlan, root: Path) -> dict[str, str]:
    """Archive -> SHA-256, from the notes that `sammed data fetch` keeps in the root.

    Names of a restricted dataset's archives are keyed.
    """
    entry = dataset.entry
    names = Pseudonyms(dataset=entry.id, secret=dataset.secret)
    places = {entry.id, *entry.root}
    fetched = read_fetched(root).values()
    return {names.path(row.name): row.sha256 for row in fetched if row.dataset in places}


def make_lock(
    batch: Batch, ready: Draft, root: Path, out: Path, kept: Mapping[str, KeptText]
) -> Lock:
    """The lock of a corpus about to be published; datasets that stay keep their lines."""
    sources: dict[str, LockedSource] = {}
    if batch.kept.ids:
        before = read_lock(out / LOCK).sources
        sources |= {name: before[name] for name in batch.kept.ids}
    for dataset in batch.datasets:
        name = dataset.entry.id
        own = [r for r in ready.records if r["dataset"] == name]
        files, tree = tree_hash(own)
        sources[name] = LockedSource(
            version=dataset.entry.version,
            entry_sha256=entry_hash(dataset),
            cases=len(dataset.cases),
            files=files,
            tree_sha256=tree,
            archives=fetched_archives(dataset, root),
            kept_sha256=kept[name].sha256,
            not_kept=kept[name].refused,
        )
    return Lock(
        sammed_version=sammed_version(),
        build_version=BUILD_VERSION,
        options=json.loads(json.dumps(manifest_options(batch.options))),
        sources=dict(sorted(sources.items())),
        content_sha256=ready.manifest["content_sha256"],
    )


def corpus_files(
    batch: Batch,
    ready: Draft,
    root: Path,
    out: Path,
    *,
    excludes: bool,
    decisions: Path | None = None,
) -> dict[str, str]:
    """Recipe, lock and catalogue entries of a corpus about to be published, by file name.

    ``excludes``: the corpus has a list of what it leaves out, which is then part of its recipe;
    so are the signed decisions about licences, which travel with it.
    """
    kept = {dataset.entry.id: kept_text(dataset) for dataset in batch.datasets}
    lock = make_lock(batch, ready, root, out, kept)
    recipe: dict[str, Any] = {
        "sources": [{"id": name, "version": s.version} for name, s in lock.sources.items()],
        "options": lock.options,
    }
    if excludes:
        recipe["exclude"] = [EXCLUSIONS]
    signed = {}
    if decisions is not None:
        recipe["decisions"] = DECISIONS_FILE
        signed[DECISIONS_FILE] = decisions.read_text(encoding="utf-8")
    said = lock.model_dump(mode="json")
    return {
        RECIPE: yaml.safe_dump(recipe, sort_keys=False),
        LOCK: yaml.safe_dump(said, sort_keys=False),
        **signed,
        **{kept_path(name): found.text for name, found in kept.items() if found.text},
    }


def relock(path: Path, content_sha256: str) -> str:
    """The text of a lock whose corpus now holds other rows of the same sources."""
    mended = read_lock(path).model_copy(update={"content_sha256": content_sha256})
    return yaml.safe_dump(mended.model_dump(mode="json"), sort_keys=False)


def with_list(path: Path) -> str:
    """The text of a corpus' recipe, which from now on names its list of exclusions."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(yaml.safe_dump(recipe | {"exclude": [EXCLUSIONS]}, sort_keys=False))


def refuse_other_sources(
    lock: Lock, datasets: Sequence[DatasetPlan], options: BuildOptions, root: Path
) -> None:
    """What can be compared before a file is read: versions, entries, counts, archives, options.

    Raises:
        CatalogError: all that differs, by name.
    """
    said = json.loads(json.dumps(manifest_options(options)))
    wrong = [
        f"option {k} was {lock.options.get(k)!r}, is {v!r}"
        for k, v in said.items()
        if lock.options.get(k) != v
    ]
    for dataset in datasets:
        wrong += _differences(lock, dataset, fetched_archives(dataset, root))
    if wrong:
        raise CatalogError(_refusal(wrong))


def _differences(lock: Lock, dataset: DatasetPlan, archives: Mapping[str, str]) -> list[str]:
    name = dataset.entry.id
    held = lock.sources.get(name)
    if held is None:
        return [f"{name} is not in the lock"]
    wrong = []
    if held.version != dataset.entry.version:
        wrong.append(f"{name}: entry version was {held.version}, is {dataset.entry.version}")
    elif held.entry_sha256 != entry_hash(dataset):
        wrong.append(f"{name}: its catalogue entry or the ontology changed")
    if held.cases != len(dataset.cases):
        wrong.append(f"{name}: had {held.cases} cases, has {len(dataset.cases)}")
    wrong += [
        f"{name}: archive {file} had SHA-256 {sha[:16]}, has {archives[file][:16]}"
        for file, sha in held.archives.items()
        if file in archives and archives[file] != sha
    ]
    return wrong


def refuse_other_trees(lock: Lock, extra: Mapping[str, str]) -> None:
    """What only the built shards tell: the bytes of the sources, and of the rows made from them.

    Raises:
        CorpusError: all that differs, by name; nothing has been published.
    """
    now = Lock.model_validate(yaml.safe_load(extra[LOCK]))
    wrong = [
        f"{name}: its {source.files} files have digest {source.tree_sha256[:16]}, the lock says "
        f"{lock.sources[name].tree_sha256[:16]} of {lock.sources[name].files} files"
        for name, source in now.sources.items()
        if name in lock.sources and source.tree_sha256 != lock.sources[name].tree_sha256
    ]
    if not wrong and set(now.sources) == set(lock.sources):
        wrong = _content(lock, now)
    if wrong:
        raise CorpusError(_refusal(wrong))


def _content(lock: Lock, now: Lock) -> list[str]:
    if now.content_sha256 == lock.content_sha256:
        return []
    return [
        f"the same sources gave other rows: made by sammed {lock.sammed_version} (build "
        f"{lock.build_version}) then, {now.sammed_version} (build {now.build_version}) now"
    ]


def _refusal(wrong: Sequence[str]) -> str:
    return (
        f"--locked: expected the sources of the lock, found others: {'; '.join(wrong)}; get the "
        f"locked versions again, or build without --locked for a new lock"
    )
