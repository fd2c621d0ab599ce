"""What an audit says: pairs that are one picture, leaks, defects, and how far to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from sammed_data.audit.planted import Recall, wilson
from sammed_data.audit.scan import CaseKey
from sammed_data.audit.spoilt import Spoilt

Place = tuple[int, int]  # (shard, row in it)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two cases that show the same thing.

    Attributes:
        kind: 'same voxels', 'same volume', 'same pixels' or 'near'.
        how: what was done to the one to get the other, in words.
        slices: pairs of their pictures within the limit of the search.
        whole: correlation of the best pair of pictures.
        detail: correlation of its fine detail.
        places: that pair; None where only the volumes are known to be equal.
    """

    kind: str
    a: CaseKey
    b: CaseKey
    how: str = ""
    slices: int = 0
    whole: float = 1.0
    detail: float = 1.0
    places: tuple[Place, Place] | None = None

    @property
    def leaks(self) -> bool:
        """Whether the two lie in different splits."""
        return self.a.split != self.b.split


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One thing that is wrong with a picture or a mask; ``mask`` is its key, -1 for pictures."""

    kind: str
    case: CaseKey
    place: Place
    mask: int = -1
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class TwoSides:
    """A patient of a dataset whose images lie in several splits."""

    dataset: str
    patient_id: str
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OverlapGroup:
    """Datasets of this corpus that share patients by their catalogue entries.

    Attributes:
        datasets: ids.
        trained: those with training images.
        tested: those with images to test on.
        found: pairs of cases across them that were found to be the same.
    """

    datasets: tuple[str, ...]
    trained: tuple[str, ...]
    tested: tuple[str, ...]
    found: int

    @property
    def may_leak(self) -> bool:
        """Whether one may be trained on what another tests."""
        return any(a != b for a in self.trained for b in self.tested)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How well the search does on planted copies.

    Attributes:
        recalls: by kind of alteration.
        right: confirmed pairs of a planted copy with a picture of its own patient.
        wrong: confirmed pairs of a planted copy with something else.
        volumes: recall of case fingerprints on volumes restacked from stored slices.
        crowded: probes that met more pictures than were looked at.
        flat: pictures without shape, which were left out.
        candidates: pairs of cases that the signatures proposed.
        confirmed: of which the pixels said yes.
    """

    recalls: tuple[Recall, ...]
    right: int
    wrong: int
    volumes: tuple[Recall, ...]
    crowded: int
    flat: int
    candidates: int
    confirmed: int

    @property
    def recall(self) -> float | None:
        """Share of single alterations found; None where nothing could be planted."""
        single = [r for r in self.recalls if r.kind != "all together"]
        planted = sum(r.planted for r in single)
        return sum(r.found for r in single) / planted if planted else None

    @property
    def precision(self) -> float | None:
        """Share of confirmed pairs of planted copies that are right."""
        total = self.right + self.wrong
        return self.right / total if total else None

    @property
    def precision_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.right, self.right + self.wrong)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The whole result.

    Attributes:
        excluded: images that ``exclude.csv`` leaves out.
        spoilt: defects that were planted, and how many of them the checks find.
        notes: what could not be looked at.
    """

    images: int
    masks: int
    cases: int
    excluded: int
    pairs: tuple[Pair, ...]
    two_sides: tuple[TwoSides, ...]
    groups: tuple[OverlapGroup, ...]
    defects: tuple[Defect, ...]
    search: Search
    spoilt: tuple[Spoilt, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def leaking_pairs(self) -> list[Pair]:
        """Pairs across splits."""
        return [p for p in self.pairs if p.leaks]

    @property
    def exit_code(self) -> int:
        """1 where a split leaks, 3 for other findings, 0 where nothing was found."""
        if self.leaking_pairs or self.two_sides:
            return 1
        return 3 if self.pairs or self.defects or any(g.may_leak for g in self.groups) else 0
