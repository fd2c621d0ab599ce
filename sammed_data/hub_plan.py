"""What of a corpus may go to the Hugging Face Hub, and what is refused and why.

A dataset goes as a whole or not at all, since its shards are its own. It is refused where its data
are restricted, where nobody is sure of its licence, or where that does not allow slices to be
passed on. What is of the machine (`.partial`, `corpus.yaml`, `corpus.lock.yaml`, `catalog`, the
index) stays.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sammed_data.corpus import Corpus
from sammed_data.croissant import make_croissant
from sammed_data.exclude import FILE as EXCLUDE_FILE
from sammed_data.exclude import Exclusion
from sammed_data.licenses import (
    DECISIONS_FILE,
    SPDX,
    Decision,
    Standing,
    grounds,
    load_decisions,
    standing,
    unsure,
)
from sammed_data.manifest import make_card, make_manifest
from sammed_data.plan import BuildOptions
from sammed_data.publish import Batch, Kept, dataset_of
from sammed_data.shards import content_hashes

# What the pseudonyms of restricted data look like (see privacy.py).
_KEYED = re.compile(r"f[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file to upload: ``source`` is where it lies, or its text where it is made for the Hub."""

    path: str
    bytes: int
    rows: int
    dataset: str
    source: Path | str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Whether a dataset may be pushed; ``refused`` says why not, '' = it may."""

    dataset: str
    rows: int
    license: str
    confidence: str
    access: str
    evidence: str
    signed_by: str
    refused: str


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """All that would be uploaded, in order: the manifest and the card come last.

    Attributes:
        datasets: every one of the corpus.
        content_sha256: identity of what is pushed.
        notes: what the user should know.
    """

    files: tuple[HubFile, ...]
    datasets: tuple[Judged, ...]
    content_sha256: str
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[Judged, ...]:
        """Datasets that may not be pushed."""
        return tuple(each for each in self.datasets if each.refused)


@dataclass(frozen=True, kw_only=True)
class _Said:
    """The licence of a dataset in the words of the manifest."""

    id: str
    license: str
    license_confidence: Literal["high", "medium", "low"]
    license_evidence: str
    homepage: str


def plan_push(corpus: Corpus, decisions: Path | None = None) -> PushPlan:
    """What of a corpus may go to the Hub.

    Args:
        corpus: opened, in a folder.
        decisions: signed `licence-decisions.yaml`, on top of the one the corpus was built with.

    Raises:
        CatalogError: the decisions are not signed.
        CorpusError: a shard is missing or damaged.
    """
    signed = decisions_of(corpus, decisions)
    facts = _facts_of_rows(corpus)
    judged = []
    for said in corpus.manifest["datasets"]:
        found = standing(_said(said), signed)
        rows, licenses, keyed = facts.get(said["id"], (0, frozenset[str](), False))
        restricted = keyed or said.get("privacy") == "restricted"
        judged.append(
            Judged(
                dataset=said["id"],
                rows=rows,
                license=found.license,
                confidence=found.confidence,
                access=str(said.get("access") or "unknown"),
                evidence=found.evidence,
                signed_by=found.signed_by,
                refused=_refusal(found, restricted, licenses),
            )
        )
    allowed = [each.dataset for each in judged if not each.refused]
    files, content = _files(corpus, allowed, signed) if allowed else ((), "")
    return PushPlan(
        files=files, datasets=tuple(judged), content_sha256=content, notes=tuple(_notes(corpus))
    )


def decisions_of(corpus: Corpus, decisions: Path | None = None) -> dict[str, Decision]:
    """Signed decisions a corpus was built with, and those of a file on top of them."""
    own = corpus.root / DECISIONS_FILE
    return load_decisions(own if own.is_file() else None) | load_decisions(decisions)


def standings(corpus: Corpus, decisions: Path | None = None) -> list[Standing]:
    """What may be relied on for each dataset of a corpus, by the words of its manifest."""
    signed = decisions_of(corpus, decisions)
    return [standing(_said(said), signed) for said in corpus.manifest["datasets"]]


def _said(raw: Mapping[str, Any]) -> _Said:
    sure = raw.get("license_confidence")
    return _Said(
        id=str(raw["id"]),
        license=str(raw.get("license") or "unknown"),
        license_confidence=sure if sure in ("high", "medium") else "low",
        license_evidence=str(raw.get("license_evidence") or ""),
        homepage=str(raw.get("homepage") or ""),
    )


def _facts_of_rows(corpus: Corpus) -> dict[str, tuple[int, frozenset[str], bool]]:
    """Dataset -> its rows, the licences they name, and whether their sources have keyed names."""
    rows, licenses, keyed = Counter[str](), dict[str, set[str]](), dict[str, bool]()
    for number, _ in enumerate(corpus.shards):
        table, _sizes = corpus.columns(number, ["dataset", "license", "sources"])
        for row in table.to_pylist():
            name = row["dataset"]
            rows[name] += 1
            licenses.setdefault(name, set()).add(str(row["license"]))
            paths = [str(source["path"]) for source in row["sources"] or ()]
            keyed[name] = keyed.get(name, False) or any(map(_KEYED.fullmatch, paths))
    return {name: (count, frozenset(licenses[name]), keyed[name]) for name, count in rows.items()}


def _refusal(found: Standing, restricted: bool, of_rows: frozenset[str]) -> str:
    """Why a dataset may not be pushed; '' = it may."""
    if restricted:
        return "its data are restricted (`privacy: restricted`): they never leave the site by push"
    if not found.known:
        return f"{unsure(found)} (`sammed data licenses --write` makes the form)"
    if not found.redistribute:
        who = f" (signed: {found.signed_by})" if found.signed_by else ""
        return f"its licence {found.license} does not allow slices to be passed on{who}"
    if other := sorted(of_rows - {found.license}):
        return (
            f"its rows name the licence {', '.join(other)}, not {found.license}: build it anew "
            "with --decisions, so that whoever loads a row reads the right one"
        )
    return ""


def _notes(corpus: Corpus) -> Iterator[str]:
    if corpus.exclusions:
        yield (
            f"{EXCLUDE_FILE} goes with it, but the rows it names lie in the shards and plain "
            "`datasets` shows them: `sammed data withdraw` takes a patient out"
        )


def _files(
    corpus: Corpus, allowed: Sequence[str], signed: Mapping[str, Decision]
) -> tuple[tuple[HubFile, ...], str]:
    manifest = _manifest_of(corpus, allowed)
    manifest |= {"datasets": [_with_grounds(d, signed) for d in manifest["datasets"]]}
    files = [
        _on_disk(corpus.root, said["path"], dataset_of(said["path"]) or "", said["rows"])
        for said in manifest["shards"]
    ]
    for path in sorted((corpus.root / "rejections").glob("*.parquet")):
        name = dataset_of(path.name)
        if name in allowed:
            files.append(_on_disk(corpus.root, f"rejections/{path.name}", str(name), 0))
    made = _exclusions(corpus, allowed) | {
        "croissant.json": make_croissant(manifest),
        "README.md": _card(manifest),
        "manifest.json": _json(manifest),
    }
    files += [
        HubFile(path=name, bytes=len(text.encode()), rows=0, dataset="", source=text)
        for name, text in made.items()
    ]
    return tuple(files), str(manifest["content_sha256"])


def _with_grounds(said: Mapping[str, Any], signed: Mapping[str, Decision]) -> Mapping[str, Any]:
    """What the manifest says of a dataset, with the decision that lets it go."""
    decision = signed.get(said["id"])
    if decision is None:
        return said
    return {**said, "license_confidence": "high", "license_evidence": grounds(decision)}


def _exclusions(corpus: Corpus, allowed: Sequence[str]) -> dict[str, str]:
    """The lines of the corpus' list that speak of datasets that go."""
    if not corpus.exclusions:
        return {}
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Exclusion)], lineterminator="\n")
    writer.writeheader()
    for entry in corpus.exclusions.entries:
        if (entry.dataset or entry.id.partition("--")[0]) in allowed:
            writer.writerow(asdict(entry) | {"withdrawn": int(entry.withdrawn)})
    return {EXCLUDE_FILE: text.getvalue()}


def _on_disk(root: Path, name: str, dataset: str, rows: int) -> HubFile:
    path = root / name
    return HubFile(path=name, bytes=path.stat().st_size, rows=rows, dataset=dataset, source=path)


def _manifest_of(corpus: Corpus, allowed: Sequence[str]) -> dict[str, Any]:
    """The manifest of the datasets that go; that of the corpus where all do."""
    manifest = corpus.manifest
    kept = Kept(
        datasets=[d for d in manifest["datasets"] if d["id"] in allowed],
        shards=[s for s in manifest["shards"] if dataset_of(s["path"]) in allowed],
    )
    if len(kept.datasets) == len(manifest["datasets"]):
        return manifest
    hashes = [h for said in kept.shards for h in content_hashes(corpus.root / said["path"])]
    options = BuildOptions.from_plain(manifest["options"])
    return make_manifest(Batch(datasets=(), shards=(), options=options, kept=kept), [], hashes)


def _json(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def _card(manifest: Mapping[str, Any]) -> str:
    """The corpus' card with the licences in the front matter, as the Hub wants them."""
    names = sorted({str(d["license"]) for d in manifest["datasets"]})
    if all(name in SPDX for name in names):
        lines = ["license:", *(f"  - {name.lower()}" for name in names)]
    else:
        lines = ["license: other", "license_name: see-the-table-of-datasets"]
    first, rest = make_card(manifest).split("\n", 1)
    return "\n".join([first, *lines, rest])
