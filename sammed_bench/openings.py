"""Prompts that do not wait for an answer: made once, kept beside the results, given to every model.

``prompts/part-*.parquet`` has one row per mask and opening: the box, the first click (or all clicks
of an at-once protocol), the coarse mask as run lengths, the scribble. Later clicks follow each
model's own errors and stand in its click table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from sammed_bench import modes as mode_names
from sammed_bench import protocols
from sammed_bench.files import whole
from sammed_bench.modes import BOX, POINTS
from sammed_bench.protocols import Protocol, Target
from sammed_bench.types import ImagePrompts
from sammed_data.types import CorpusError

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("mask_index", pa.int32()),
        ("mode", pa.string()),
        # Flat x0, y0, x1, y1, ... in pixels of the slice.
        ("points", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.int8())),
        ("box", pa.list_(pa.float64())),
        # Lengths of the runs of 0, 1, 0, ... in raster order.
        ("mask_runs", pa.list_(pa.int32())),
        ("protocol_hash", pa.string()),
        ("seed", pa.int64()),
    ]
)
_HASH = b"prompts_sha256"
Opening = Mapping[str, ImagePrompts]


def needed(protocol: Protocol, modes: Sequence[str]) -> dict[str, int]:
    """Opening -> how many points it has; 0 for boxes and masks."""
    found: dict[str, int] = {}
    for mode in modes:
        thread, clicks = mode_names.thread_of(mode), mode_names.rounds_of(mode)
        if thread == BOX:
            found[BOX] = 0
        if thread == POINTS or (clicks and protocol.clicks == "at-once"):
            several = clicks if protocol.clicks == "at-once" else 1
            found[POINTS] = max(found.get(POINTS, 1), several)
        if thread in ("mask", "scribble"):
            found[thread] = protocol.scribble_points if thread == "scribble" else 0
    return dict(sorted(found.items()))


def make(protocol: Protocol, modes: Sequence[str], target: Target, seed: int) -> Opening:
    """The openings of one image, on the device of its masks."""
    found: dict[str, ImagePrompts] = {}
    for name, n in needed(protocol, modes).items():
        if name == BOX:
            found[name] = ImagePrompts(boxes_M4=protocols.boxes(protocol, target, seed))
        elif name == "mask":
            found[name] = ImagePrompts(masks_MHW=protocols.coarse_masks(protocol, target))
        else:
            if name == POINTS:
                xy, label = protocols.first_clicks(protocol, target, seed, n)
            else:
                xy, label = protocols.scribbles(protocol, target)
            m = len(target)
            found[name] = ImagePrompts(
                points_MN2=xy.reshape(m, -1, 2), point_labels_MN=label.reshape(m, -1)
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Store:
    """The openings of one part of the images.

    Attributes:
        path: of the file.
        found: openings by sample; filled from the file if it is there.
        stored: whether the file is there.
    """

    path: Path
    found: dict[str, dict[str, dict[int, dict[str, Any]]]]
    stored: bool

    @classmethod
    def open(cls, path: Path) -> Store:
        """What is stored there, or an empty one.

        Raises:
            CorpusError: the file is damaged or was changed.
        """
        if not path.is_file():
            return cls(path=path, found={}, stored=False)
        try:
            table = pq.ParquetFile(path).read()
        except (OSError, pa.ArrowException) as err:
            raise _damaged(path, str(err)) from err
        rows = table.to_pylist()
        if table.schema.metadata.get(_HASH, b"").decode() != content_hash(rows):
            raise _damaged(path, "other contents than its hash says")
        found: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
        for row in rows:
            by_mode = found.setdefault(row["sample_id"], {})
            by_mode.setdefault(row["mode"], {})[row["mask_index"]] = row
        return cls(path=path, found=found, stored=True)

    def get(self, target: Target) -> Opening | None:
        """The stored openings of an image, on the device of its masks."""
        by_mode = self.found.get(target.sample_id)
        if by_mode is None:
            return None
        try:
            return {
                mode: _together([rows[key] for key in target.mask_keys], target)
                for mode, rows in by_mode.items()
            }
        except KeyError as err:
            raise _damaged(self.path, f"no prompts of mask {err} of {target.sample_id}") from err


def _damaged(path: Path, what: str) -> CorpusError:
    return CorpusError(
        f"expected the stored prompts of this benchmark in {path}, found {what}: remove the file "
        "and run `sammed bench` again"
    )


def _together(rows: Sequence[Mapping[str, Any]], target: Target) -> ImagePrompts:
    """Stored rows of the masks of one image as prompts."""
    device, shape = target.truth_MHW.device, tuple(target.truth_MHW.shape[1:])
    first = rows[0]
    if first["box"] is not None:
        return ImagePrompts(boxes_M4=_floats([row["box"] for row in rows], device))
    if first["mask_runs"] is not None:
        masks = np.stack([filled(row["mask_runs"], shape) for row in rows])
        return ImagePrompts(masks_MHW=torch.from_numpy(masks).to(device))
    points = _floats([row["points"] for row in rows], device)
    labels = torch.tensor([row["labels"] for row in rows], dtype=torch.int64, device=device)
    return ImagePrompts(points_MN2=points.reshape(len(rows), -1, 2), point_labels_MN=labels)


def _floats(values: Sequence[Sequence[float]], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def rows_of(
    opening: Opening, target: Target, protocol: Protocol, seed: int
) -> Iterable[dict[str, Any]]:
    """One row per mask and opening."""
    for mode, given in opening.items():
        for i, key in enumerate(target.mask_keys):
            points, labels = given.points_MN2, given.point_labels_MN
            box, mask = given.boxes_M4, given.masks_MHW
            yield {
                "sample_id": target.sample_id,
                "mask_index": key,
                "mode": mode,
                "points": None if points is None else points[i].flatten().tolist(),
                "labels": None if labels is None else labels[i].tolist(),
                "box": None if box is None else box[i].tolist(),
                "mask_runs": None if mask is None else runs(mask[i].cpu().numpy()),
                "protocol_hash": protocol.hash,
                "seed": seed,
            }


def runs(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of False, True, False, ... in raster order."""
    flat = np.concatenate([[False], mask_HW.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    found: list[int] = np.diff(edges, prepend=0, append=mask_HW.size).tolist()
    return found


def filled(lengths: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of its runs."""
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape)


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows, whatever wrote the file."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row[name] for name in SCHEMA.names]).encode())
    return digest.hexdigest()


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the openings of a part, in order, by a temporary name, with the hash of the rows."""
    ordered = sorted(rows, key=lambda r: (r["sample_id"], r["mask_index"], r["mode"]))
    marked = SCHEMA.with_metadata({_HASH: content_hash(ordered).encode()})
    with whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(ordered, schema=marked), partial)


def stored_hash(paths: Iterable[Path]) -> str | None:
    """One hash of the stored parts of a benchmark, or None where there are none."""
    found = [pq.read_schema(path).metadata[_HASH] for path in sorted(paths) if path.is_file()]
    return hashlib.sha256(b"\n".join(found)).hexdigest() if found else None
