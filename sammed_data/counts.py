"""What a corpus holds, counted from its index: no row becomes an object, millions of them do not.

Groups follow the figure of the SAM-Med2D paper: lesions are a group of their own, exclusive of the
organ they lie in, so that groups add up; ``lesions_in_both`` counts them twice, as the figure's
marks do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sammed_data.corpus import SPLITS, VIEWS, Corpus
from sammed_data.index import CorpusIndex, open_index
from sammed_data.shards import read_rejections

GROUPS = ("head_neck", "thorax", "abdomen", "pelvis", "lesion", "other")
NO_ORGAN = "(none)"


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much there is of something."""

    images: int
    masks: int
    in_view: int
    patients: int


class Counts:
    """Rows and masks of a corpus that ``exclude.csv`` leaves, ready to be grouped.

    Args:
        corpus: opened corpus.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.index: CorpusIndex = open_index(corpus)
        rows_N = self.index.rows_N
        self._rows_K = np.flatnonzero(~rows_N["excluded"])
        kept = rows_N[self._rows_K]
        self._patient_K: NDArray[np.uint64] = kept["patient"]
        count_K = kept["n_masks"].astype(np.int64)
        self._row_M = np.repeat(np.arange(len(kept)), count_K)
        within = np.arange(len(self._row_M)) - np.repeat(np.cumsum(count_K) - count_K, count_K)
        self._mask_M = np.repeat(kept["first_mask"], count_K) + within
        self._masks = self.index.masks_M[self._mask_M]
        self._in_view_M = self._viewed(kept)

    def _viewed(self, kept: NDArray[Any]) -> NDArray[np.bool_]:
        view = VIEWS[self.corpus.manifest["default_view"]]
        big = self._masks["area_fraction"] >= np.float32(view.min_area_fraction)
        height, width = kept["height"], kept["width"]
        square = np.minimum(height, width) >= view.min_aspect * np.maximum(height, width)
        found: NDArray[np.bool_] = big & square[self._row_M]
        return (
            found
            if view.annotator is None
            else found & (self._masks["annotator"] == view.annotator)
        )

    @property
    def sizes_K2(self) -> NDArray[np.int64]:
        """(images, 2): height and width of every image."""
        rows = self.index.rows_N[self._rows_K]
        return np.stack([rows["height"], rows["width"]], axis=1).astype(np.int64)

    @property
    def area_fractions_M(self) -> NDArray[np.float32]:
        """Area of every mask as a share of its image."""
        found: NDArray[np.float32] = self._masks["area_fraction"]
        return found

    @cached_property
    def structures(self) -> dict[str, Amount]:
        """By structure."""
        return self._by_mask(self.index.names["structure"], self._masks["structure"])

    def by_row(self, kind: str) -> dict[str, Amount]:
        """By ``dataset``, ``modality`` or ``split``."""
        rows = self.index.rows_N[self._rows_K]
        if kind == "split":
            own = [SPLITS.index(path.parent.name) for path in self.corpus.shards]
            return self._amounts(list(SPLITS), np.array(own, np.int64)[rows["shard"]])
        return self._amounts(self.index.names[kind], rows[kind])

    def by_organ(self) -> dict[str, Amount]:
        """By organ; masks of structures outside the organs are ``(none)``."""
        organs = [about[0] or NO_ORGAN for about in self._about]
        return self._by_mask(*_codes(organs, self._masks["structure"]))

    def by_group(self, *, lesions_in_both: bool = False) -> dict[str, Amount]:
        """By group of the paper's figure."""
        groups = [g if g in GROUPS else "other" for _, g, _ in self._about]
        exclusive = [
            "lesion" if kind == "lesion" else group
            for group, (_, _, kind) in zip(groups, self._about, strict=True)
        ]
        if not lesions_in_both:
            return self._by_mask(*_codes(exclusive, self._masks["structure"]))
        found = self._by_mask(*_codes(groups, self._masks["structure"]))
        alone = self._by_mask(*_codes(exclusive, self._masks["structure"]))
        return found | ({"lesion": alone["lesion"]} if "lesion" in alone else {})

    def lesion_organs(self) -> set[str]:
        """Organs with a lesion label: the figure's stars."""
        return {organ for organ, _, kind in self._about if kind == "lesion" and organ}

    def structures_of(self, organ: str) -> list[str]:
        """The structures of an organ that are not the organ itself, without sides."""
        names = {
            _unsided(name)
            for name in self.index.names["structure"]
            if self.index.about[name][0] == organ and self.index.about[name][2] != "lesion"
        }
        return sorted(names - {organ})

    def group_of(self, organ: str) -> str:
        """The group most of an organ's structures name."""
        found = [g for o, g, _ in self._about if o == organ]
        return max(sorted(set(found)), key=found.count) if found else "other"

    @property
    def _about(self) -> list[tuple[str, str, str]]:
        return [self.index.about[name] for name in self.index.names["structure"]]

    def _amounts(self, names: Sequence[str], codes_K: NDArray[Any]) -> dict[str, Amount]:
        """Of groups of whole rows."""
        own = codes_K.astype(np.int64)
        return self._collect(names, own, own[self._row_M])

    def _by_mask(self, names: Sequence[str], codes_M: NDArray[Any]) -> dict[str, Amount]:
        """Of groups of masks; a row counts once in each group it has a mask of."""
        codes = codes_M.astype(np.int64)
        pairs = np.unique(codes * len(self._rows_K) + self._row_M)
        group_P, row_P = np.divmod(pairs, max(1, len(self._rows_K)))
        return self._collect(names, group_P, codes, self._patient_K[row_P])

    def _collect(
        self,
        names: Sequence[str],
        image_groups: NDArray[np.int64],
        mask_groups: NDArray[np.int64],
        patients: NDArray[np.uint64] | None = None,
    ) -> dict[str, Amount]:
        size = len(names)
        images = np.bincount(image_groups, minlength=size)
        masks = np.bincount(mask_groups, minlength=size)
        viewed = np.bincount(mask_groups[self._in_view_M], minlength=size)
        people = self._patient_K if patients is None else patients
        each = np.unique(np.stack([image_groups.astype(np.uint64), people]), axis=1)
        persons = np.bincount(each[0].astype(np.int64), minlength=size)
        return {
            name: Amount(
                images=int(images[n]),
                masks=int(masks[n]),
                in_view=int(viewed[n]),
                patients=int(persons[n]),
            )
            for n, name in enumerate(names)
            if images[n]
        }

    def rejected_masks(self) -> list[Mapping[str, Any]]:
        """``{dataset, label, count}`` of the masks that were not kept."""
        table = read_rejections(self.corpus.root)
        table = table.filter(pc.equal(table["level"], "mask"))
        summed = table.group_by(["dataset", "label"]).aggregate([("count", "sum")])
        return [
            {"dataset": r["dataset"], "label": r["label"], "count": r["count_sum"]}
            for r in summed.to_pylist()
        ]

    def spacings_mm(self) -> dict[str, NDArray[np.float64]]:
        """Modality -> in-plane spacing of its images in mm, where it is known."""
        found: dict[str, list[NDArray[np.float64]]] = {}
        for shard in range(len(self.corpus.shards)):
            table, _ = self.corpus.columns(shard, ["modality", "spacing_y_mm"])
            for name in table.column("modality").unique().to_pylist():
                own = table.filter(pc.equal(table["modality"], name))
                values = own.column("spacing_y_mm").drop_null().to_numpy()
                found.setdefault(name, []).append(values.astype(np.float64))
        joined = {name: np.concatenate(parts) for name, parts in sorted(found.items())}
        return {name: values for name, values in joined.items() if len(values)}


def _codes(values: Sequence[str], codes_M: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Regroup codes by the value of each name."""
    names = sorted(set(values))
    place = np.array([names.index(v) for v in values] or [0], np.int64)
    return names, place[codes_M.astype(np.int64)]


def _unsided(name: str) -> str:
    return name.removesuffix("_left").removesuffix("_right")
