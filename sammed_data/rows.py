"""One row of the corpus: pixels, masks, measurements, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data import intensity
from sammed_data.codecs import encode_image, encode_mask, encode_parts
from sammed_data.columns import Structs
from sammed_data.corpus import SCHEMA_VERSION
from sammed_data.masks import Part
from sammed_data.plan import BuildOptions, DatasetPlan, Meaning, ShardPlan
from sammed_data.privacy import Pseudonyms
from sammed_data.row_text import RowText, mask_template, mask_text
from sammed_data.shards import pixel_digest, row_digest
from sammed_data.slices import Slice, by_pixel, in_memory_order, plane_shape
from sammed_data.sources import case_paths
from sammed_data.splits import cluster_unit, group_key
from sammed_data.types import Case, LabelVolume, Volume

_MOST_NOTES = 8


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """All a worker needs to write one shard into ``staging``.

    ``scratch`` is a local folder for unfinished files where ``staging`` is on an object store.
    """

    shard: ShardPlan
    dataset: DatasetPlan
    options: BuildOptions
    staging: Path
    strict: bool = False
    scratch: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ReadCase:
    """A case in memory, past the rules for cases."""

    case: Case
    volume: Volume
    labels: LabelVolume
    stats: intensity.Statistics
    sources: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What all masks of a raw label and layer share, and the text of it."""

    same: dict[str, Any]
    template: str


class RowMaker:
    """Makes the rows of one case; what all its slices share is computed once."""

    def __init__(self, ready: ReadCase, task: ShardTask, names: Pseudonyms) -> None:
        self._ready, self._task = ready, task
        self._cutter = task.options.cutter
        entry, case, volume = task.dataset.entry, ready.case, ready.volume
        context = intensity.Context(
            modality=case.modality or entry.modality,
            window=entry.window,
            bits=volume.bits,
            wish=entry.intensity,
        )
        self._intensity = intensity.choose(task.options.intensity, context, ready.stats)
        grey = volume.array.ndim == 3
        deep = task.options.depth == 16 and volume.bits > 8 and grey
        self._depth = intensity.depth16(volume.array, ready.stats) if deep else None
        open_ended = None in (self._intensity.low, self._intensity.high)
        fixed = {} if open_ended else {"intensity": self._record(np.empty(0))}
        self._case_id = names.case(case.case_id)
        self._known: dict[tuple[str, int], _Known] = {}
        self._label_sources = {
            str(path): i for i, (role, path) in enumerate(case_paths(case)) if role == "label"
        }
        self._shared = {
            "schema_version": SCHEMA_VERSION,
            "annotated_structures": self._annotated(task.dataset.meanings),
            "dataset": entry.id,
            "role": entry.role,
            "modality": case.modality or entry.modality,
            "sequence": case.sequence or entry.sequence,
            "case_id": self._case_id,
            "patient_id": names.patient(group_key(case)),
            "cluster": cluster_unit(entry, case),
            "split": task.shard.split,
            "volume_shape": [int(n) for n in volume.array.shape[:3]],
            "license": entry.license,
            "sources": ready.sources,
            "catalog_version": entry.version,
            "notes": list(dict.fromkeys((*volume.warnings, *ready.labels.warnings)))[:_MOST_NOTES],
            **fixed,
        }
        self._text = RowText(self._shared)

    def row(self, where: Slice, parts: list[Part]) -> dict[str, Any]:
        """One row: pixels, masks and where they come from."""
        options, labels = self._task.options, self._ready.labels
        array = self._ready.volume.array
        values = self._cutter.values(array, where)
        image = by_pixel(values, self._intensity.to_uint8)
        pixels, image_png = [pixel_digest(image)], encode_image(image)  # while it is in the cache
        deep_png = None
        if self._depth is not None:
            deep = by_pixel(values, self._depth.store)
            pixels.append(pixel_digest(deep))
            deep_png = encode_image(deep)
        ignore = None
        if labels.ignore_ZYX is not None:
            ignore = self._cutter.labels(labels.ignore_ZYX, where)
        name = f"{self._shared['dataset']}--{self._case_id}--{where.axis}--{where.index:04d}"
        height, width = int(image.shape[0]), int(image.shape[1])
        spacing = self._cutter.spacing_yx_mm(where, plane_shape(array, where.axis), (height, width))
        packed = [part.bits for part in parts]
        boxes = [part.box_xyxy for part in parts]
        coded = encode_parts(list(zip(packed, boxes, strict=True)), parts[0].shape_hw)
        known = [self._known_of(part) for part in parts]
        row: dict[str, Any] = self._shared | {
            "sample_id": name,
            "masks": _masks(parts, known, coded),
            "axis": where.axis,
            "orientation": "native" if where.axis == "native" else options.orientation,
            "slice_index": where.index,
            "slice_position_mm": where.position_mm,
            "spacing_slice_mm": where.spacing_mm,
            "height": height,
            "width": width,
            "spacing_y_mm": None if spacing is None else spacing[0],
            "spacing_x_mm": None if spacing is None else spacing[1],
        }
        if "intensity" not in self._shared:
            row["intensity"] = self._record(in_memory_order(values))
        if self._cutter.resamples(where):
            row["notes"] = [*row["notes"], "resampled to square pixels"]
        if self._task.dataset.entry.label_encoding.partial:
            # What is not drawn may be there all the same: only what is drawn was looked for.
            drawn = {part.raw: self._task.dataset.meanings[part.raw] for part in parts}
            row["annotated_structures"] = self._annotated(drawn)
        if ignore is not None:
            packed.append(np.packbits(ignore, axis=1))
        texts = [mask_text(k.template, part) for k, part in zip(known, parts, strict=True)]
        digest = row_digest(self._text.text(row, texts), pixels, packed)
        return row | {
            "image": {"bytes": image_png, "path": None},
            "image_u16": None if deep_png is None else {"bytes": deep_png, "path": None},
            "ignore": None if ignore is None else {"bytes": encode_mask(ignore), "path": None},
            "content_sha256": digest,
        }

    def _annotated(self, meanings: Mapping[str, Meaning]) -> list[str]:
        return sorted({m.structure for m in meanings.values() if m.kind != "ignore"})

    def _record(self, values: NDArray[Any]) -> dict[str, Any]:
        low, high = self._intensity.bounds(values)
        stats = self._ready.stats
        return {
            "policy": self._intensity.policy,
            "low": low,
            "high": high,
            "volume_min": stats.minimum,
            "volume_max": stats.maximum,
            "volume_p0_5": stats.p0_5,
            "volume_p99_5": stats.p99_5,
            "u16_slope": self._depth.slope if self._depth else None,
            "u16_intercept": self._depth.intercept if self._depth else None,
        }

    def _known_of(self, part: Part) -> _Known:
        key = (part.raw, part.layer)
        if key not in self._known:
            labels = self._task.dataset.entry.labels
            same = asdict(self._task.dataset.meanings[part.raw]) | {
                "label": labels.get(part.raw, part.raw),
                "raw_value": part.raw,
                "source_index": self._source_index(part),
            }
            self._known[key] = _Known(same=same, template=mask_template(same))
        return self._known[key]

    def _source_index(self, part: Part) -> int | None:
        """Position in ``sources``; None where layers and label files do not correspond."""
        files = self._ready.case.labels
        if len(self._label_sources) == 1:
            return 1
        if len(files) != len(self._ready.labels.layers):
            return None
        return self._label_sources[str(files[part.layer].path)]


def _masks(parts: list[Part], known: list[_Known], coded: list[bytes]) -> Structs:
    names = known[0].same
    shared = zip(*(k.same.values() for k in known), strict=True)
    return Structs(
        dict(zip(names, shared, strict=True))
        | {
            "instance": [p.instance for p in parts],
            "annotator": [p.annotator for p in parts],
            "n_components": [p.n_components for p in parts],
            "area_px": [p.area_px for p in parts],
            "box_xyxy": [p.box_xyxy for p in parts],
            "touches_border": [p.touches_border for p in parts],
            "mask": Structs({"bytes": coded, "path": [None] * len(coded)}),
        }
    )
