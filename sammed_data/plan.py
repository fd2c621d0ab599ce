"""The plan of a build: cases cut into shards by dataset, split and size before a pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sammed_data.catalog import CatalogEntry
from sammed_data.corpus import SCHEMA_VERSION, SPLITS
from sammed_data.intensity import check_policy
from sammed_data.privacy import Pseudonyms, unnamed
from sammed_data.slices import ORIENTATIONS, Cutter
from sammed_data.sources import case_paths, relative, state
from sammed_data.splits import assign_splits
from sammed_data.types import Case, CatalogError, Rejection, UsageError, nearest

# Raised whenever the same sources and options would give other rows.
BUILD_VERSION = 3
CASES_PER_SHARD = {"2D": 1000, "3D": 16}
SPLIT_BY = ("patient", "overlap-group")
AXES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the user chose; part of every plan hash and of the manifest.

    Attributes:
        depth: 8, or 16 to store ``image_u16`` beside the viewable image.
        axes: overrides the entries' axes for 3D sources.
        components: False keeps every structure whole, and does not count its parts.
        min_part_px: smaller parts are counted rejections.
        intensity: policy of the 8-bit image.
        orientation: 'lps', or 'stored' for the released order.
        shard_mb: source bytes a shard covers.
        split_by: 'patient', or 'overlap-group': datasets that share patients go to one split.
        isotropic: resample pixels that are not square, by their size in mm.
    """

    depth: int = 8
    axes: tuple[str, ...] | None = None
    components: bool = True
    min_part_px: int = 4
    intensity: str = "auto"
    orientation: str = "lps"
    shard_mb: int = 64
    split_by: str = "patient"
    isotropic: bool = False

    @property
    def cutter(self) -> Cutter:
        """How planes are cut."""
        return Cutter(orientation=self.orientation, isotropic=self.isotropic)

    @classmethod
    def from_plain(cls, said: Mapping[str, Any]) -> BuildOptions:
        """Options from JSON or YAML, where a tuple is a list.

        Raises:
            TypeError: an unknown name.
        """
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in said.items()
        }
        return cls(**values)

    def check(self) -> None:
        """Refuse wrong options, all in one sentence.

        Raises:
            UsageError: any option is out of range or unknown.
        """
        wrong = []
        if self.depth not in (8, 16):
            wrong.append(f"--depth is 8 or 16, not {self.depth}")
        if self.min_part_px < 1:
            wrong.append(f"--min-part-px is at least 1, not {self.min_part_px}")
        if self.shard_mb < 1:
            wrong.append(f"--shard-mb is at least 1, not {self.shard_mb}")
        wrong += [
            f"unknown axis {a!r}; {nearest(a, AXES)}" for a in self.axes or () if a not in AXES
        ]
        if self.split_by not in SPLIT_BY:
            wrong.append(f"--split-by is {' or '.join(SPLIT_BY)}, not {self.split_by!r}")
        if self.orientation not in ORIENTATIONS:
            wrong.append(f"--orientation is lps or stored, not {self.orientation!r}")
        try:
            check_policy(self.intensity)
        except UsageError as err:
            wrong.append(str(err))
        if wrong:
            raise UsageError("; ".join(wrong))


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a raw label (or union) of an entry means in the ontology."""

    structure: str
    organ: str
    group: str
    kind: str
    side: str


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """One dataset found on disk: its entry, cases, resolved labels, and files without partner.

    ``withdrawn``: patient_id -> why the cases of this patient are not to be read.
    """

    entry: CatalogEntry
    cases: Sequence[Case]
    meanings: Mapping[str, Meaning]
    unpaired: tuple[Rejection, ...] = ()
    secret: bytes | None = field(default=None, repr=False)
    group_split: str | None = None
    withdrawn: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """A shard to be: which cases, in which split, and the hash of all that decides its bytes."""

    dataset: str
    split: str
    number: int
    cases: tuple[Case, ...]
    plan_hash: str
    source_bytes: int = 0

    @property
    def stem(self) -> str:
        """File name without ending, the same in staging, data and rejections."""
        return f"{self.split}--{self.dataset}-{self.number:05d}"

    @property
    def path(self) -> str:
        """Where the shard lies in the corpus."""
        return f"data/{self.split}/{self.dataset}-{self.number:05d}.parquet"


def plan_shards(dataset: DatasetPlan, options: BuildOptions) -> list[ShardPlan]:
    """Cut the cases of a dataset into shards; depends on names and sizes alone.

    Raises:
        CatalogError: two cases share an id.
        ReadError: a source file vanished.
    """
    with unnamed(dataset.entry):
        _refuse_twins(dataset)
    names = Pseudonyms(dataset=dataset.entry.id, secret=dataset.secret)
    splits = assign_splits(dataset.entry, dataset.cases, names)
    if options.split_by == "overlap-group" and dataset.group_split is not None:
        splits = {case.case_id: dataset.group_split for case in dataset.cases}
    common = _common_hash(dataset, options)
    shards = []
    for split in SPLITS:
        members = [c for c in dataset.cases if splits[c.case_id] == split]
        states = {c.case_id: _case_state(c) for c in members}
        sizes = _source_bytes(states)
        for number, cases in enumerate(_cut(members, sizes, dataset.entry, options)):
            fingerprint = json.dumps([common, split, [states[c.case_id] for c in cases]])
            shards.append(
                ShardPlan(
                    dataset=dataset.entry.id,
                    split=split,
                    number=number,
                    cases=tuple(cases),
                    plan_hash=hashlib.sha256(fingerprint.encode()).hexdigest(),
                    source_bytes=sum(sizes[c.case_id] for c in cases),
                )
            )
    return shards


def _refuse_twins(dataset: DatasetPlan) -> None:
    if len({case.case_id for case in dataset.cases}) == len(dataset.cases):
        return
    seen: dict[str, Case] = {}
    for case in dataset.cases:
        twin = seen.setdefault(case.case_id, case)
        if twin is not case:
            raise CatalogError(
                f"{dataset.entry.id}: {twin.image_path} and {case.image_path} both give the case "
                f"id {case.case_id!r}; put a {{name}} into the image pattern that tells them apart"
            )


def _case_state(case: Case) -> list[Any]:
    files = [(role, relative(path, case.root), state(path)) for role, path in case_paths(case)]
    return [case.case_id, case.patient_key, case.channel, case.sequence, files]


def _source_bytes(states: Mapping[str, list[Any]]) -> dict[str, int]:
    """Bytes a case; of a file that many cases share (an array, a table) each has its part."""
    users = Counter(path for state in states.values() for path in {f[1] for f in state[-1]})
    return {
        case_id: sum(
            stat[1] // users[path]
            for path, files in {f[1]: f[2] for f in state[-1]}.items()
            for stat in files
        )
        for case_id, state in states.items()
    }


def _cut(
    cases: Sequence[Case],
    sizes: Mapping[str, int],
    entry: CatalogEntry,
    options: BuildOptions,
) -> Iterator[list[Case]]:
    limit, most = options.shard_mb << 20, CASES_PER_SHARD[entry.dims]
    current: list[Case] = []
    total = 0
    for case in cases:
        size = sizes[case.case_id]
        if current and (total + size > limit or len(current) >= most):
            yield current
            current, total = [], 0
        current.append(case)
        total += size
    if current:
        yield current


# Keys of an entry that no row depends on: mending a citation rebuilds nothing.
_ABOUT = {"name", "year", "license_confidence", "license_evidence", "access", "access_note",
          "homepage", "citation", "download_url", "downloads", "expected", "quirks", "evidence",
          "overlaps", "used_by"}  # fmt: skip


def decisive(dataset: DatasetPlan) -> dict[str, Any]:
    """What of an entry and the ontology decides rows."""
    return {
        "entry": dataset.entry.model_dump(mode="json", exclude=_ABOUT),
        "meanings": {k: asdict(m) for k, m in dataset.meanings.items()},
    }


def _common_hash(dataset: DatasetPlan, options: BuildOptions) -> str:
    parts = {
        "schema": SCHEMA_VERSION,
        "build": BUILD_VERSION,
        "options": asdict(options),
        **decisive(dataset),
        "key": hashlib.sha256(dataset.secret or b"").hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
