"""Score rows on disk: one row per mask, model and prompt mode; every table is a view of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sammed_bench.files import whole
from sammed_bench.types import ModelFacts
from sammed_data.corpus import VIEWS, MaskRow, Row
from sammed_data.types import CorpusError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
        ("recipe", pa.string()),
        ("kind", pa.string()),
        ("protocol", pa.string()),
        ("protocol_hash", pa.string()),
        ("mode", pa.string()),
        ("seed", pa.int64()),
        ("sample_id", pa.string()),
        ("dataset", pa.string()),
        ("role", pa.string()),
        ("split", pa.string()),
        ("modality", pa.string()),
        ("sequence", pa.string()),
        ("axis", pa.string()),
        ("patient_id", pa.string()),
        ("cluster", pa.string()),
        ("case_id", pa.string()),
        ("mask_index", pa.int32()),
        ("label", pa.string()),
        ("structure", pa.string()),
        ("organ", pa.string()),
        ("group", pa.string()),
        ("kind_of_structure", pa.string()),
        ("side", pa.string()),
        ("area_px", pa.int64()),
        ("area_fraction", pa.float64()),
        ("in_view", pa.bool_()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("dice", pa.float64()),
        ("iou", pa.float64()),
        # Null where --metrics did not ask; surface_unit is that of hd95 and the tolerance of nsd.
        ("nsd", pa.float64()),
        ("hd95", pa.float64()),
        ("boundary_iou", pa.float64()),
        ("surface_unit", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("n_clicks", pa.int32()),
        # Of modes clicks:N alone (``clicks``).
        ("noc80", pa.int32()),
        ("noc85", pa.int32()),
        ("noc90", pa.int32()),
        ("noc_reached", pa.int32()),
        ("click_auc", pa.float64()),
    ]
)
ORDER = ("sample_id", "mask_index", "mode")


def about_model(facts: ModelFacts) -> dict[str, Any]:
    """The columns that say who answered."""
    return {
        "model": facts.name,
        "weights_sha256": facts.weights_sha256,
        "recipe": facts.recipe,
        "kind": facts.kind,
    }


def about_mask(row: Row, mask: MaskRow) -> dict[str, Any]:
    """The columns that say what was asked about."""
    meta: Mapping[str, Any] = row.meta
    view = VIEWS["sam-med2d"]
    in_view = view.keeps_image(row.height, row.width) and view.keeps_mask(
        mask, row.height, row.width
    )
    return {
        "sample_id": row.sample_id,
        "dataset": row.dataset,
        "role": meta.get("role") or "",
        "split": row.split,
        "modality": row.modality,
        "sequence": meta.get("sequence") or "",
        "axis": meta.get("axis") or "",
        "patient_id": meta.get("patient_id") or "",
        "cluster": meta.get("cluster") or "unknown",
        "case_id": meta.get("case_id") or "",
        "mask_index": mask.index,
        "label": mask.label,
        "structure": mask.structure,
        "organ": mask.organ,
        "group": mask.group,
        "kind_of_structure": mask.kind,
        "side": mask.side,
        "area_px": mask.area_px,
        "area_fraction": mask.area_px / (row.height * row.width),
        "in_view": in_view,
        "height": row.height,
        "width": row.width,
    }


def slug(name: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-") or "model"


def write_part(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write score rows, sorted, by a temporary name."""
    ordered = sorted(rows, key=lambda r: tuple(r[name] for name in ORDER))
    table = pa.Table.from_pylist(list(ordered), schema=SCHEMA)
    with whole(path) as partial:
        pq.write_table(table, partial)


def parts(results: Path) -> list[Path]:
    """Score files of a results folder.

    Raises:
        CorpusError: there are none.
    """
    found = sorted((results / "scores").glob("part-*.parquet"))
    if not found:
        raise CorpusError(
            f"expected score rows at {results / 'scores'} (part-*.parquet), found none: "
            f"run `sammed bench --out {results}` first"
        )
    return found


def read_scores(
    results: Path, columns: Sequence[str] | None = None, *, checked: bool = True
) -> pd.DataFrame:
    """All score rows of a results folder, ordered by model, sample, mask and mode.

    Args:
        results: folder.
        columns: by name; None = all.
        checked: refuse rows that no single benchmark leaves; False for who looks for just those.

    Raises:
        CorpusError: a part is damaged; rows of two protocols or prompt seeds, or twice the same.
    """
    wanted = list(columns) if columns else None
    tables = [_read_part(path, wanted) for path in parts(results)]
    # Parts of an older version lack columns that came later; those are null there.
    frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas()
    keys = [name for name in ("model", *ORDER) if name in frame.columns]
    ordered: pd.DataFrame = frame.sort_values(keys, kind="stable").reset_index(drop=True)
    if checked:
        _one_benchmark(ordered, results)
    return ordered


def _read_part(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns=columns)
    except (OSError, pa.ArrowException) as err:
        raise CorpusError(
            f"expected score rows in {path}, found a damaged file ({err}): remove it and run the "
            "same `sammed bench` again, which scores what is missing"
        ) from err


def _one_benchmark(rows: pd.DataFrame, results: Path) -> None:
    """Raise where files of several benchmarks were put together: means over them mean nothing."""
    for name in ("protocol_hash", "seed"):
        found = sorted(map(str, rows[name].unique())) if name in rows.columns else []
        if len(found) > 1:
            raise CorpusError(
                f"expected rows of one {name} in {results}/scores, found {', '.join(found)}: keep "
                "the files of one benchmark in a folder (`sammed compare`, `sammed seeds` and "
                "`sammed report --beside` read several folders)"
            )
    keys = ["model", "sample_id", "mask_index", "mode"]
    twice = rows[rows.duplicated(keys)] if set(keys) <= set(rows.columns) else rows[:0]
    if len(twice):
        first = ", ".join(str(twice.iloc[0][key]) for key in keys)
        raise CorpusError(
            f"expected each mask once by model and mode in {results}/scores, found {len(twice):,} "
            f"of them again (first: {first}): remove the files that were copied in from elsewhere"
        )
