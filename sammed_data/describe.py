"""Counts of a corpus as tables: by dataset, modality and organ; and a sheet of pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.corpus import SPLITS, VIEWS, Corpus, Row
from sammed_data.shards import read_rejections
from sammed_data.types import CorpusError, UsageError, nearest

_SHEET_COLOURS = ((40, 210, 240), (90, 230, 60), (255, 200, 30), (230, 80, 230), (90, 120, 255),
                  (255, 70, 60))  # fmt: skip
_TILE_PX = 192


@dataclass(frozen=True, kw_only=True)
class Table:
    """A small table of text and whole numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int, ...], ...]


@dataclass
class _Group:
    images: set[str] = field(default_factory=set)
    patients: set[tuple[str, str]] = field(default_factory=set)
    masks: int = 0
    in_view: int = 0
    rejected: int = 0


def count_tables(corpus: Corpus) -> list[Table]:
    """Images, masks, patients and rejected masks by dataset, modality, organ, and by split."""
    organs = {d["id"]: d["organs"] for d in corpus.manifest["datasets"]}
    modalities = {d["id"]: d["modality"] for d in corpus.manifest["datasets"]}
    groups: dict[str, dict[str, _Group]] = {
        k: {} for k in ("dataset", "modality", "organ", "split")
    }
    view = VIEWS[corpus.manifest["default_view"]]

    def group(kind: str, name: str) -> _Group:
        return groups[kind].setdefault(name, _Group())

    for row in corpus.index():
        keeps = view.keeps_image(row.height, row.width)
        for kind, name in (
            ("dataset", row.dataset), ("modality", row.modality), ("split", row.split),
        ):  # fmt: skip
            _add(group(kind, name), row, len(row.masks))
            group(kind, name).in_view += sum(
                keeps and view.keeps_mask(m, row.height, row.width) for m in row.masks
            )
        for organ, masks in Counter(m.organ or "(none)" for m in row.masks).items():
            _add(group("organ", organ), row, masks)
        for mask in row.masks:
            if keeps and view.keeps_mask(mask, row.height, row.width):
                group("organ", mask.organ or "(none)").in_view += 1
    for rejection in _mask_rejections(corpus.root):
        name, count = rejection["dataset"], rejection["count"]
        group("dataset", name).rejected += count
        group("modality", modalities.get(name, "?")).rejected += count
        group("organ", organs.get(name, {}).get(rejection["label"]) or "(none)").rejected += count
    titles = {"dataset": "By dataset", "modality": "By modality", "organ": "By organ",
              "split": "By split"}  # fmt: skip
    return [_table(titles[kind], kind, found) for kind, found in groups.items()]


def _add(group: _Group, row: Row, masks: int) -> None:
    group.images.add(row.sample_id)
    group.patients.add((row.dataset, row.meta["patient_id"]))
    group.masks += masks


def _mask_rejections(root: Path) -> Iterable[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_rejections(root).to_pylist()
    return (r for r in rows if r["level"] == "mask")


def _table(title: str, kind: str, groups: Mapping[str, _Group]) -> Table:
    rejected = () if kind == "split" else ("rejected masks",)
    return Table(
        title=title,
        columns=(kind, "images", "masks", "in view", "patients", *rejected),
        rows=tuple(
            (name, len(g.images), g.masks, g.in_view, len(g.patients),
             *((g.rejected,) if rejected else ()))
            for name, g in sorted(groups.items())
        ),
    )  # fmt: skip


def counts_lines(manifest: Mapping[str, Any]) -> list[str]:
    """The sums of a build, each as `all = kept + rejected by rule`, and what to be wary of."""
    counts, datasets = manifest["counts"], manifest["datasets"]
    masks, images, cases = counts["masks"], counts["images"], counts["cases"]
    kept_cases = cases["found"] - sum(cases["rejected"].values())
    lines = [
        _sum_line("masks", "candidates", masks["candidates"], masks["kept"], masks["rejected"]),
        _sum_line("images", "slices", images["found"], images["kept"], images["rejected"]),
        _sum_line("cases", "found", cases["found"], kept_cases, cases["rejected"]),
    ]
    unknown = sorted(d["id"] for d in datasets if d.get("patient_unit") != "patient")
    if unknown:
        lines.append(f"patients are files or studies, not persons, in: {', '.join(unknown)}")
    leaks = _overlapping_splits(datasets)
    if leaks:
        lines.append(f"the same patients may be in training and in test: {', '.join(leaks)}")
    return lines


def _overlapping_splits(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Overlapping sources of which one has training images and the other images to test on."""
    trained = {d["id"]: d["splits"]["train"] > 0 for d in datasets}
    tested = {d["id"]: d["splits"]["test"] + d["splits"]["held_out"] > 0 for d in datasets}
    pairs = {(d["id"], o) for d in datasets for o in d["overlaps"] if o in trained}
    pairs |= {(b, a) for a, b in pairs}
    return sorted(f"{a} (train) ~ {b}" for a, b in pairs if trained[a] and tested[b])


def _sum_line(what: str, all_: str, total: int, kept: int, rejected: Mapping[str, int]) -> str:
    rules = ", ".join(f"{n:,} {rule}" for rule, n in sorted(rejected.items()))
    return f"{what}: {total:,} {all_} = {kept:,} kept + {sum(rejected.values()):,} rejected" + (
        f" ({rules})" if rules else ""
    )


def contact_sheet(
    corpus: Corpus, out: Path, *, n: int = 24, splits: Sequence[str] | None = None
) -> int:
    """Write a PNG of overlays: the image beside itself with its masks; datasets take turns.

    Args:
        corpus: an opened corpus.
        out: PNG path.
        n: how many images; chosen by the hash of their id, so the sheet is the same each time.
        splits: which splits; None = all.

    Returns:
        How many images are shown.

    Raises:
        CorpusError: nothing to show, or the picture cannot be written.
        UsageError: an unknown split, no images asked for, or not a ``.png``.
    """
    import cv2

    if out.suffix.lower() != ".png":
        raise UsageError(f"expected a picture ending in .png, found {out}: write --out {out}.png")
    if n < 1:
        raise UsageError(f"--n must be at least 1, found {n}")
    unknown = [s for s in splits or () if s not in SPLITS]
    if unknown:
        raise UsageError(f"unknown split {unknown[0]!r}: {nearest(unknown[0], SPLITS)}")
    chosen = _take_turns(corpus.index(splits), n)
    if not chosen:
        where = f"the splits {', '.join(splits)}" if splits else "any split"
        raise CorpusError(f"expected images in {corpus.root}, found none in {where}: build more")
    tiles = [_tile(corpus.read(row)) for row in chosen]
    columns = min(4, len(tiles))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    ok, data = cv2.imencode(".png", sheet[..., ::-1])
    try:
        out.write_bytes(data.tobytes() if ok else b"")
    except OSError as err:
        raise CorpusError(f"cannot write {out} ({err.strerror}): choose another --out") from err
    return len(chosen)


def _take_turns(rows: Sequence[Row], n: int) -> list[Row]:
    """Up to n rows, one of each dataset in turn, in the order of their hashed ids."""
    queues: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: hashlib.sha256(r.sample_id.encode()).digest()):
        queues.setdefault(row.dataset, []).append(row)
    ranked = [(rank, name, row) for name, queue in queues.items() for rank, row in enumerate(queue)]
    return [row for _, _, row in sorted(ranked, key=lambda item: item[:2])[:n]]


def _outline(
    drawn: NDArray[np.uint8], mask_HW: NDArray[np.uint8], colour: tuple[int, int, int]
) -> None:
    """Draw the edge of a mask with a dark rim, at the size of the tile; no mask is too small."""
    import cv2

    height, width = drawn.shape[:2]
    # A share of the area, so that a part below one pixel of the tile still leaves its mark.
    share = cv2.resize(mask_HW * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    inside = (share >= np.uint8(min(128, max(1, int(share.max()))))).astype(np.uint8)
    outline, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outline, -1, (0, 0, 0), 3)
    cv2.drawContours(drawn, outline, -1, colour, 1, cv2.LINE_8)


def _tile(row: Row) -> NDArray[np.uint8]:
    """(T + caption, 2 T, 3): image left, overlay right, name below."""
    import cv2

    assert row.image is not None  # Corpus.read gives pixels
    rgb = row.image if row.image.ndim == 3 else np.repeat(row.image[..., None], 3, axis=2)
    scale = _TILE_PX / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    plain = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    drawn = plain.copy()
    for number, mask in enumerate(row.masks):
        colour = _SHEET_COLOURS[number % len(_SHEET_COLOURS)]
        _outline(drawn, np.asarray(mask.mask_HW, np.uint8), colour)
    tile = np.zeros((_TILE_PX + 32, 2 * _TILE_PX, 3), np.uint8)
    tile[: size[1], : size[0]] = plain
    tile[: size[1], _TILE_PX : _TILE_PX + size[0]] = drawn
    names = ", ".join(sorted({m.structure for m in row.masks}))
    for line, text in enumerate((row.sample_id, f"{row.modality}: {names}")):
        place = (3, _TILE_PX + 12 + 14 * line)
        cv2.putText(tile, text[:62], place, cv2.FONT_HERSHEY_SIMPLEX, 0.34, (255, 255, 255), 1)
    return tile
