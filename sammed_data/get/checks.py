"""`sammed data check`: does what lies here match the entry, and can its first case be read?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sammed_data.build import resolve_labels
from sammed_data.catalog import CatalogEntry
from sammed_data.discover import Discovery, discover, find_root
from sammed_data.get.probe import count_findings
from sammed_data.ontology import Ontology
from sammed_data.released.classes import completed
from sammed_data.splits import assign_splits, group_key
from sammed_data.types import Case, CatalogError, SammedError


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What lies here.

    Attributes:
        splits: split -> cases. labels: raw label -> structure.
        findings: what differs from the entry; empty = all well.
    """

    dataset: str
    place: str
    cases: int
    groups: int
    splits: dict[str, int]
    labels: dict[str, str]
    findings: tuple[str, ...]


def check(entry: CatalogEntry, root: Path, ontology: Ontology, *, read: bool = True) -> Checked:
    """Compare a dataset on disk with its entry; ``read`` also reads its first case.

    Raises:
        CatalogError: it is not under ``root``, or a label is no structure of the ontology.
    """
    place = find_root(entry, root)
    if place is None:
        looked = ", ".join(str(root / part) for part in (entry.id, *entry.root))
        raise CatalogError(
            f"{entry.id}: expected images like {entry.layout.images[0].pattern} in {looked} or "
            f"{root}, found none: `sammed data fetch {entry.id}`, or mend --root"
        )
    entry = completed(entry, place, ontology)
    meanings = resolve_labels(entry, ontology)
    try:
        found = discover(entry, place)
    except CatalogError as err:
        return Checked(dataset=entry.id, place=str(place), cases=0, groups=0, splits={}, labels={},
                       findings=(str(err),))  # fmt: skip
    return Checked(
        dataset=entry.id,
        place=str(place),
        cases=len(found.cases),
        groups=len({group_key(c) for c in found.cases}),
        splits=dict(sorted(Counter(assign_splits(entry, found.cases).values()).items())),
        labels={raw: meaning.structure for raw, meaning in meanings.items()},
        findings=tuple(_findings(entry, found, read)),
    )


def _findings(entry: CatalogEntry, found: Discovery, read: bool) -> Iterator[str]:
    if entry.privacy == "restricted" and found.problems:
        # Their reasons hold paths, and paths may hold patients.
        yield f"unpaired: {len(found.problems)} files (not named: privacy is restricted)"
        found = Discovery(cases=found.cases, problems=())
    yield from count_findings(entry, found)
    for split in entry.splits:
        if found.cases and not any(c.official_split == split for c in found.cases):
            yield f"no case is in the official split {split!r}: its globs or the files are wrong"
    if read and found.cases:
        said = unreadable(entry, found.cases[0])
        if said is not None:
            restricted = entry.privacy == "restricted"
            yield "the first case cannot be read" + ("" if restricted else f": {said}")


def unreadable(entry: CatalogEntry, case: Case) -> str | None:
    """Why a case cannot be read, or None."""
    from sammed_data.encodings import pair_on_grid, read_labels
    from sammed_data.readers.registry import read_image
    from sammed_data.unpack import unpacked

    with TemporaryDirectory() as scratch, unpacked([case], Path(scratch)) as (ready,):
        if ready.damage:
            return ready.damage
        try:
            volume = read_image(ready)
            pair_on_grid(volume, read_labels(ready, entry, volume), entry)
        except SammedError as err:
            return str(err)
    return None
