"""Routes of the corpus view: facets, pages of rows, one row, its pixels, flags."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from sammed_app.page.filters import Filter, Finder, organs
from sammed_app.page.library import Library
from sammed_app.page.pictures import about_masks, image_of, thumbnail
from sammed_bench.openings import runs
from sammed_bench.tables import SIZE_BINS
from sammed_data.codecs import encode_image
from sammed_data.corpus import SPLITS, Row

_Text = Annotated[str, Query(max_length=200)]
_PROVENANCE = (
    *("case_id", "patient_id", "cluster", "role", "sequence", "axis", "orientation"),
    *("slice_index", "slice_position_mm", "spacing_slice_mm", "volume_shape"),
    *("spacing_y_mm", "spacing_x_mm", "intensity", "license", "catalog_version", "notes"),
    *("annotated_structures", "content_sha256"),
)


class Flag(BaseModel):
    """Why a sample is left out."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(max_length=400)


def router(library: Library) -> APIRouter:
    """The routes over one corpus."""
    routes = APIRouter()
    finder = Finder(library) if library.there else None

    def found(asked: Filter) -> Any:
        _ = library.index  # says that there is none
        assert finder is not None  # noqa: S101 - there is an index
        return finder.numbers(asked)

    @routes.get("/facets")
    def facets() -> dict[str, Any]:
        return _facets(library)

    @routes.get("/rows")
    def rows(
        dataset: _Text = "",
        modality: _Text = "",
        organ: _Text = "",
        split: _Text = "",
        size: _Text = "",
        flagged: _Text = "",
        q: _Text = "",
        page: Annotated[int, Query(ge=0, le=10**9)] = 0,
        per: Annotated[int, Query(ge=1, le=100)] = 24,
    ) -> dict[str, Any]:
        asked = Filter(
            dataset=dataset,
            modality=modality,
            organ=organ,
            split=split,
            size=size,
            flagged=flagged,
            text=q,
        )
        numbers = found(asked)
        chosen = [int(n) for n in numbers[page * per : (page + 1) * per]]
        return {"total": len(numbers), "page": page, "per": per, "rows": _listed(library, chosen)}

    @routes.get("/rows/{number}")
    def row(number: int) -> dict[str, Any]:
        return _whole(library, library.row(number), number)

    @routes.get("/rows/{number}/image.png")
    def image(number: int) -> Response:
        return _png(encode_image(image_of(library.row(number))))

    @routes.get("/rows/{number}/thumb.png")
    def thumb(number: int, side: Annotated[int, Query(ge=32, le=512)] = 224) -> Response:
        return _png(thumbnail(library.row(number), side))

    @routes.get("/rows/{number}/masks")
    def masks(number: int) -> dict[str, Any]:
        own = library.row(number)
        planes = [np.asarray(mask.mask_HW, bool) for mask in own.masks]
        ignored = None if own.ignore_HW is None else runs(np.asarray(own.ignore_HW, bool))
        found = {"height": own.height, "width": own.width, "ignore": ignored}
        return found | {"runs": [runs(plane) for plane in planes]}

    @routes.post("/rows/{number}/flag")
    def flag(number: int, said: Flag) -> dict[str, Any]:
        own = library.row(number)
        library.flags.add(own.sample_id, said.reason)
        return _flag(library, own)

    @routes.delete("/rows/{number}/flag")
    def unflag(number: int) -> dict[str, Any]:
        own = library.row(number)
        library.flags.remove(own.sample_id)
        return _flag(library, own)

    @routes.get("/find")
    def find(sample_id: Annotated[str, Query(max_length=400)]) -> dict[str, Any]:
        return {"number": library.number(sample_id)}

    return routes


def _png(data: bytes) -> Response:
    # Pixels of a row never change under one start of the page.
    return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=300"})


def _facets(library: Library) -> dict[str, Any]:
    index = library.index
    there = {shard.parent.name for shard in library.corpus.shards}
    return {
        "root": str(library.corpus.root),
        "rows": len(index.rows_N),
        "masks": len(index.masks_M),
        "dataset": sorted(index.names["dataset"]),
        "modality": sorted(index.names["modality"]),
        "organ": organs(index),
        "split": [split for split in SPLITS if split in there],
        "size": [name for _, name in SIZE_BINS],
        "exclude": library.flags.place,
    }


def _listed(library: Library, numbers: list[int]) -> list[dict[str, Any]]:
    """Rows of a page, read shard by shard without pixels."""
    places: dict[int, list[tuple[int, int]]] = {}
    for number in numbers:
        shard, position = library.place(number)
        places.setdefault(shard, []).append((number, position))
    shown: dict[int, dict[str, Any]] = {}
    with library.lock:
        for shard, own in places.items():
            rows = library.corpus.rows_at(shard, [position for _, position in own])
            for (number, _), row in zip(own, rows, strict=True):
                shown[number] = _short(library, row, number)
    return [shown[number] for number in numbers]


def _short(library: Library, row: Row, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "sample_id": row.sample_id,
        "dataset": row.dataset,
        "modality": row.modality,
        "split": row.split,
        "height": row.height,
        "width": row.width,
        "structures": list(dict.fromkeys(mask.structure for mask in row.masks)),
        "masks": len(row.masks),
        "excluded": library.flags.reason(row),
    }


def _whole(library: Library, row: Row, number: int) -> dict[str, Any]:
    """A row for its own page, with where it came from."""
    known = {name: row.meta.get(name) for name in _PROVENANCE}
    return (
        _short(library, row, number)
        | {
            "masks": about_masks(row),
            "provenance": known,
            "sources": list(row.meta.get("sources") or ()),
            "last": len(library.index.rows_N) - 1,
            "trace": f"sammed data trace {row.sample_id} --corpus {library.corpus.root}",
        }
        | _flag(library, row)
    )


def _flag(library: Library, row: Row) -> dict[str, Any]:
    own = library.flags.own(row.sample_id)
    return {
        "excluded": library.flags.reason(row),
        "own_flag": own is not None and not own.withdrawn,
        "list": library.flags.place,
    }
