"""What the steps of a proposal hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Doubt = Literal["low", "medium", "high"]
Role = Literal["image", "label"]
_RANK = {"low": 0, "medium": 1, "high": 2}


def worst(*doubts: Doubt) -> Doubt:
    """The greatest of several doubts."""
    return max(doubts, key=lambda d: _RANK[d])


@dataclass(frozen=True, kw_only=True)
class ArrayPart:
    """The array of a npy, npz or mat file that is meant.

    Attributes:
        variable: its name, None where the file holds one array.
        shape: as stored.
        kind: numpy's letter of its dtype.
        axes: letters of the axes as in an entry, '' where the reader knows them.
        doubt: of the axes.
        why: the axes were taken so.
    """

    variable: str | None
    shape: tuple[int, ...]
    kind: str
    axes: str
    doubt: Doubt
    why: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that is an image or holds labels: a file, or the folder of a DICOM series.

    Attributes:
        path: relative to the surveyed folder, POSIX; a series folder ends in '/'.
        kind: nifti, itk, raster, array, dicom (an image), seg or rtstruct.
        size: bytes of the file, 0 for a folder.
        modality: DICOM modality of the header, '' otherwise.
        names: segment or ROI names of a SEG or RTSTRUCT.
        series: SeriesInstanceUID, compared in memory only.
        refers: series UIDs that a label object names, compared in memory only.
        frame: frame of reference, compared in memory only.
        array: of an array file.
    """

    path: str
    kind: str
    size: int = 0
    modality: str = ""
    names: tuple[str, ...] = ()
    series: str = field(default="", repr=False)
    refers: tuple[str, ...] = field(default=(), repr=False)
    frame: str = field(default="", repr=False)
    array: ArrayPart | None = None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What lies in a folder.

    Attributes:
        items: sorted by path.
        documents: JSON, XML, CSV and text files, sorted.
        others: ending -> count of files that no reader knows.
        unreadable: (path, why) of files whose head could not be read.
        n_files: files seen.
        limit: why the listing stopped early, '' if it did not.
        bundles: (image, mask) that are arrays of one file.
    """

    items: tuple[Item, ...]
    documents: tuple[str, ...]
    others: Mapping[str, int]
    unreadable: tuple[tuple[str, str], ...]
    n_files: int
    limit: str = ""
    bundles: tuple[tuple[Item, Item], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inference:
    """One thing that was inferred: from what, and with which doubt; ``flag`` settles it."""

    key: str
    value: str
    evidence: str
    doubt: Doubt
    flag: str = ""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its labels; ``how`` names the rule that joined them."""

    image: Item
    labels: tuple[Item, ...]
    how: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Pairs that one entry describes.

    Attributes:
        name: short, for the id; '' where the folder holds one group.
        image_patterns: (pattern, sequence or '').
        label_patterns: (pattern, annotator).
        doubt: of the pairing.
        evidence: of the pairing.
        structures: values of ``{structure}`` in the label paths.
    """

    name: str
    pairs: tuple[Pair, ...]
    image_patterns: tuple[tuple[str, str], ...]
    label_patterns: tuple[tuple[str, int], ...]
    doubt: Doubt
    evidence: str
    structures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the user said by flags or prompts; None = not said.

    Attributes:
        id: of the entry; with several groups the start of their ids.
        group: only the group of this name.
        labels: as ``1=liver,2=tumor``.
        images: path pattern of the images.
        masks: path pattern of the labels.
        axes: of arrays, as ``NYXC`` or ``IMAGE,MASK``.
        runs: of a run-length table, as ``column,absolute,1``.
        splits: the official split, as :mod:`sammed_data.propose.told_splits` reads it.
    """

    id: str | None = None
    group: str | None = None
    modality: str | None = None
    labels: str | None = None
    patient: str | None = None
    encoding: str | None = None
    images: str | None = None
    masks: str | None = None
    axes: str | None = None
    runs: str | None = None
    splits: str | None = None
    license: str | None = None
    public: bool = False


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A proposed entry.

    Attributes:
        entry: as it goes into YAML, in order.
        inferences: one a key, in the order of the entry.
        label_comments: raw label -> why its name is in doubt.
        group: what it describes.
    """

    entry: Mapping[str, Any]
    inferences: tuple[Inference, ...]
    label_comments: Mapping[str, str]
    group: Group

    @property
    def open_questions(self) -> tuple[Inference, ...]:
        """Inferences that only the user can settle."""
        return tuple(i for i in self.inferences if i.doubt == "high" and i.flag)
