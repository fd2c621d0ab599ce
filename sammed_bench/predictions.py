"""Kept predictions: one row per mask and prompt mode, the mask as run lengths.

``predictions/part-*.parquet`` has the name of its part of scores, and in its footer who answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sammed_bench.ask import Answer, Asked
from sammed_bench.files import whole
from sammed_bench.openings import filled, runs
from sammed_bench.types import OBSERVER, Model, ModelFacts
from sammed_data.corpus import MaskRow
from sammed_data.types import CorpusError

FOLDER = "predictions"
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("mask_index", pa.int32()),
        ("mode", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        # Lengths of the runs of 0, 1, 0, ... in raster order; null where there is no answer.
        ("runs", pa.list_(pa.int32())),
        ("finite", pa.bool_()),
        ("n_clicks", pa.int32()),
        ("error", pa.string()),
    ]
)
_FACTS = b"sammed_model_facts"
_ORDER = ("sample_id", "mask_index", "mode")


def rows_of(image: Asked, answers: Mapping[str, Answer]) -> Iterator[dict[str, Any]]:
    """The answers about one image, by mode, as rows."""
    for mode, answer in answers.items():
        masks = None if answer.masks_MHW is None else answer.masks_MHW.cpu().numpy()
        finite, clicks = answer.finite_M, answer.clicks_M
        for i, mask in enumerate(image.masks):
            yield {
                "sample_id": image.row.sample_id,
                "mask_index": mask.index,
                "mode": mode,
                "height": image.row.height,
                "width": image.row.width,
                "runs": None if masks is None else runs(masks[i]),
                "finite": bool(finite[i]) if finite is not None else False,
                "n_clicks": int(clicks[i]) if clicks is not None else 0,
                "error": answer.error,
            }


def write(path: Path, model: Model, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a part, sorted, by a temporary name."""
    facts = model.facts
    said = {"name": facts.name, "kind": facts.kind, "recipe": facts.recipe}
    said |= {"weights_sha256": facts.weights_sha256, "source": facts.source}
    text = json.dumps(said | {"accepts": sorted(facts.accepts), "needs": sorted(facts.needs)})
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in _ORDER))
    table = pa.Table.from_pylist(ordered, schema=SCHEMA.with_metadata({_FACTS: text.encode()}))
    with whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A part of kept predictions.

    Attributes:
        facts: who answered.
        found: sample -> mode -> mask index -> row.
    """

    path: Path
    facts: ModelFacts
    found: Mapping[str, Mapping[str, Mapping[int, Mapping[str, Any]]]]

    @classmethod
    def open(cls, path: Path) -> Kept:
        """Read a part.

        Raises:
            CorpusError: damaged, or no part of predictions.
        """
        try:
            table = pq.ParquetFile(path).read()
            said = json.loads(table.schema.metadata[_FACTS])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as err:
            raise CorpusError(
                f"expected kept predictions in {path}, found {err}: run `sammed bench "
                "--keep-predictions` again"
            ) from err
        found: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
        for row in table.to_pylist():
            by_mode = found.setdefault(row["sample_id"], {}).setdefault(row["mode"], {})
            by_mode[row["mask_index"]] = row
        said |= {"accepts": frozenset(said["accepts"]), "needs": tuple(said.get("needs", ()))}
        return cls(path=path, facts=ModelFacts(**said), found=found)

    def asked(self, sample_id: str, masks: Sequence[MaskRow]) -> tuple[MaskRow, ...]:
        """The masks that the model was asked about: all, but for one that knows some only."""
        if self.facts.kind != OBSERVER:
            return tuple(masks)
        modes = self.found.get(sample_id, {}).values()
        return tuple(mask for mask in masks if any(mask.index in by_mask for by_mask in modes))

    def answer(self, sample_id: str, mode: str, masks: Sequence[int]) -> Answer | None:
        """The answer about some masks of an image; None where it was not asked.

        Raises:
            CorpusError: a mask is missing.
        """
        by_mask = self.found.get(sample_id, {}).get(mode)
        if by_mask is None:
            return None
        try:
            rows = [by_mask[index] for index in masks]
        except KeyError as err:
            raise CorpusError(
                f"expected a prediction of mask {err} of {sample_id} in {self.path}, found none: "
                "run `sammed bench --keep-predictions` again"
            ) from err
        if any(row["runs"] is None for row in rows):
            return Answer(error=rows[0]["error"])
        planes = [filled(row["runs"], (row["height"], row["width"])) for row in rows]
        return Answer(
            masks_MHW=torch.from_numpy(np.stack(planes)),
            finite_M=torch.tensor([row["finite"] for row in rows]),
            clicks_M=torch.tensor([row["n_clicks"] for row in rows]),
        )


def parts(results: Path) -> list[Path]:
    """Parts of a results folder; empty where none were kept."""
    return sorted((results / FOLDER).glob("part-*.parquet"))
