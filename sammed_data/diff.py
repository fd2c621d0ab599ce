"""What two corpora have in common, told by hashes: two sites compare without sharing an image.

A fingerprint file is JSON lines: a head, then one line a sample. It holds ids as they stand in the
rows (keyed where a source is restricted) and hashes of decoded pixels; no pixel, path or patient.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sammed_data.corpus import Corpus, MaskRow, Row
from sammed_data.describe import Table
from sammed_data.types import UsageError

FORMAT = "sammed-fingerprint-1"
_HEX = 32


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row by hashes: of all of it, of its decoded picture, and of each mask with its name."""

    dataset: str
    content: str
    pixels: str
    masks: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A corpus by hashes.

    Attributes:
        name: what to call it in sentences.
        content_sha256: identity of what is read from it.
        samples: by sample_id.
    """

    name: str
    content_sha256: str
    samples: Mapping[str, Sample]


# What may be said of a sample, in the order of the table.
RELATIONS = {
    "only_a": "only in A",
    "only_b": "only in B",
    "same_image_other_masks": "same image, other masks",
    "same_id_other_pixels": "same id, other pixels",
    "same_image_other_id": "same image under another id",
    "other_metadata": "same pixels and masks, other metadata",
}


@dataclass
class Difference:
    """What differs, sample by sample.

    Attributes:
        found: relation -> (dataset, what is said of one sample).
        same: dataset -> samples that are equal in all.
    """

    found: dict[str, list[tuple[str, dict[str, Any]]]] = field(
        default_factory=lambda: {name: [] for name in RELATIONS}
    )
    same: Counter[str] = field(default_factory=Counter)

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return any(self.found.values())

    def by_dataset(self) -> dict[str, dict[str, int]]:
        """Samples by dataset, then by relation."""
        counts: dict[str, Counter[str]] = {name: Counter(same=n) for name, n in self.same.items()}
        for relation, members in self.found.items():
            for dataset, _ in members:
                counts.setdefault(dataset, Counter())[relation] += 1
        return {
            name: {key: counts[name][key] for key in ("same", *RELATIONS)}
            for name in sorted(counts)
        }


def hash_row(row: Row) -> Sample:
    """A row with pixels, by hashes."""
    assert row.image is not None  # rows come with pixels
    pixels = hashlib.sha256(f"{row.image.shape}".encode())
    pixels.update(np.ascontiguousarray(row.image).data)
    return Sample(
        dataset=row.dataset,
        content=row.meta["content_sha256"][:_HEX],
        pixels=pixels.hexdigest()[:_HEX],
        masks=dict(sorted(_mask_hash(m) for m in row.masks)),
    )


def _mask_hash(mask: MaskRow) -> tuple[str, str]:
    plane = np.asarray(mask.mask_HW)
    found = hashlib.sha256(f"{plane.shape}".encode())
    found.update(np.packbits(plane, axis=1).data)
    digest = found.hexdigest()[:_HEX]
    return f"{mask.structure}/{mask.annotator}/{digest[:12]}", digest


def samples_of(corpus: Corpus) -> Iterator[tuple[str, Sample]]:
    """(sample_id, hashes) of every row that is read, in order."""
    for shard in range(len(corpus.shards)):
        for row in corpus.rows(shard):
            yield row.sample_id, hash_row(row)


def fingerprint_lines(corpus: Corpus) -> Iterator[str]:
    """The lines of a fingerprint file."""
    counts = corpus.manifest["counts"]
    head = {
        "format": FORMAT,
        "content_sha256": corpus.content_hash,
        "images": counts["images"]["kept"],
        "masks": counts["masks"]["kept"],
    }
    yield json.dumps(head)
    for name, sample in samples_of(corpus):
        line = {"id": name, "dataset": sample.dataset, "content": sample.content}
        yield json.dumps(line | {"pixels": sample.pixels, "masks": dict(sample.masks)})


def open_side(path: Path) -> Fingerprint:
    """A corpus folder, or a file that :func:`fingerprint_lines` made (also with ``.gz``).

    Raises:
        UsageError: neither of them.
        CorpusError: the corpus is damaged.
    """
    if path.is_dir():
        corpus = Corpus(path)
        return Fingerprint(
            name=str(path), content_sha256=corpus.content_hash, samples=dict(samples_of(corpus))
        )
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        lines = text.decode("utf-8").splitlines()
        head = json.loads(lines[0])
        if head["format"] != FORMAT:
            raise UsageError(
                f"{path} has the format {head['format']!r}, this sammed reads {FORMAT}"
            )
        samples = {}
        for line in lines[1:]:
            said = json.loads(line)
            name = said.pop("id")
            samples[name] = Sample(**said)
        return Fingerprint(name=str(path), content_sha256=head["content_sha256"], samples=samples)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as err:
        if isinstance(err, UsageError):
            raise
        said_ = getattr(err, "strerror", None) or (str(err).splitlines() or [type(err).__name__])[0]
        raise UsageError(
            f"{path}: expected a corpus folder or the output of `sammed data diff --fingerprint "
            f"CORPUS`, found neither ({said_})"
        ) from err


def compare(a: Fingerprint, b: Fingerprint) -> Difference:
    """Sample by sample: first by id, then what is left by pixels."""
    found = Difference()
    left_a = [name for name in a.samples if name not in b.samples]
    left_b = {name for name in b.samples if name not in a.samples}
    for name in a.samples.keys() & b.samples.keys():
        _same_id(found, name, a.samples[name], b.samples[name])
    by_pixels: dict[str, list[str]] = {}
    for name in sorted(left_b, reverse=True):
        by_pixels.setdefault(b.samples[name].pixels, []).append(name)
    for name in sorted(left_a):
        sample = a.samples[name]
        twins = by_pixels.get(sample.pixels)
        if twins:
            twin = twins.pop()
            left_b.discard(twin)
            said: dict[str, Any] = {"id": name, "id_b": twin}
            said |= _mask_words(sample, b.samples[twin])
            found.found["same_image_other_id"].append((sample.dataset, said))
        else:
            found.found["only_a"].append((sample.dataset, {"id": name}))
    for name in sorted(left_b):
        found.found["only_b"].append((b.samples[name].dataset, {"id": name}))
    for members in found.found.values():
        members.sort(key=lambda item: (item[0], item[1]["id"]))
    return found


def _same_id(found: Difference, name: str, a: Sample, b: Sample) -> None:
    if a.pixels != b.pixels:
        relation, more = "same_id_other_pixels", {}
    elif a.masks != b.masks:
        relation, more = "same_image_other_masks", _mask_words(a, b)
    elif a.content != b.content:
        relation, more = "other_metadata", {}
    else:
        found.same[a.dataset] += 1
        return
    found.found[relation].append((a.dataset, {"id": name} | more))


def _mask_words(a: Sample, b: Sample) -> dict[str, Any]:
    """Structures whose masks are only on one side."""

    def structures(keys: Iterable[str]) -> list[str]:
        return sorted(key.split("/")[0] for key in keys)

    only_a, only_b = a.masks.keys() - b.masks.keys(), b.masks.keys() - a.masks.keys()
    return {"masks_a": structures(only_a), "masks_b": structures(only_b)} if only_a | only_b else {}


def difference_table(a: Fingerprint, b: Fingerprint, found: Difference) -> Table:
    """Counts by dataset and relation."""
    return Table(
        title=f"A = {a.name}, B = {b.name}",
        columns=("dataset", "same", *RELATIONS.values()),
        rows=tuple((name, *counts.values()) for name, counts in found.by_dataset().items()),
    )


def difference_document(a: Fingerprint, b: Fingerprint, found: Difference) -> dict[str, Any]:
    """The comparison as one JSON document."""
    return {
        "a": {"name": a.name, "content_sha256": a.content_sha256, "images": len(a.samples)},
        "b": {"name": b.name, "content_sha256": b.content_sha256, "images": len(b.samples)},
        "differ": found.differs,
        "by_dataset": found.by_dataset(),
        **{
            relation: [{"dataset": dataset} | said for dataset, said in members]
            for relation, members in found.found.items()
        },
    }
