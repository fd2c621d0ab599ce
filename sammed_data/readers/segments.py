"""`.seg.nrrd` of 3D Slicer: a label map, or several in a fourth axis, whose header names segments.

The header is read here, for SimpleITK hides it from label maps of several layers; pixels and
geometry come from the ITK reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers import itk
from sammed_data.readers.limits import first_bytes
from sammed_data.types import Geometry, ReadError

_MAX_HEADER_BYTES = 4_000_000
_MAX_SEGMENTS = 10_000
_FIELD = re.compile(r"Segment(\d{1,5})_(Name|LabelValue|Layer)")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A named value of a layer."""

    name: str
    layer: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Segments and their layers, each (Z, Y, X) in canonical axes."""

    segments: tuple[Segment, ...]
    layers: tuple[NDArray[Any], ...]
    geometry: Geometry


def read(path: Path) -> Segmentation:
    """Read a segmentation.

    Raises:
        ReadError: not NRRD, damaged, without segments, or a segment of a layer that is not there.
    """
    segments = _segments(path, read_header(path))
    layers, geometry = itk.read_layers(path)
    wrong = [s for s in segments if s.layer >= len(layers)]
    if wrong:
        raise ReadError(
            f"{path}: expected layers 0 to {len(layers) - 1}, found segment {wrong[0].name!r} in "
            f"layer {wrong[0].layer}; export it again"
        )
    whole = []
    for number, layer in enumerate(layers):
        if layer.dtype.kind not in "ui":
            raise ReadError(
                f"{path}: expected whole numbers as labels, found {layer.dtype}; export it again"
            )
        named = {0} | {s.value for s in segments if s.layer == number}
        strange = sorted(int(v) for v in np.unique(layer) if int(v) not in named)
        if strange:
            raise ReadError(
                f"{path}: expected the label values of its segments in layer {number} "
                f"({', '.join(map(str, sorted(named - {0}))) or 'none'}), found {strange[0]}; "
                "export it again"
            )
        whole.append(layer)
    return Segmentation(segments=segments, layers=tuple(whole), geometry=geometry)


def read_header(path: Path) -> dict[str, str]:
    """Keys and values (``key:=value``) and fields (``field: value``) of a NRRD header.

    Raises:
        ReadError: not NRRD, or a header that does not end within 4 MB.
    """
    if not first_bytes(path, 5).startswith(b"NRRD0"):
        raise ReadError(f"{path}: expected a NRRD file, found other content; check its name")
    with path.open("rb") as stream:
        head = stream.read(_MAX_HEADER_BYTES)
    ends = [p for p in (head.find(b"\n\n"), head.find(b"\n\r\n")) if p >= 0]
    if not ends:
        raise ReadError(
            f"{path}: expected a NRRD header of at most {_MAX_HEADER_BYTES:,} bytes, found no end "
            "of it; fetch it again"
        )
    found: dict[str, str] = {}
    for line in head[: min(ends)].decode("utf-8", errors="replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        key, mark, value = line.partition(":=")
        if not mark:
            key, _, value = line.partition(":")
        found[key.strip()] = value.strip().replace("\\n", "\n").replace("\\\\", "\\")
    return found


def _segments(path: Path, header: Mapping[str, str]) -> tuple[Segment, ...]:
    """Older files state neither layer nor value: then each segment is a layer of ones."""
    fields: dict[int, dict[str, str]] = {}
    for key, value in header.items():
        found = _FIELD.fullmatch(key)
        if found is not None:
            fields.setdefault(int(found[1]), {})[found[2]] = value
    if not fields or len(fields) > _MAX_SEGMENTS:
        raise ReadError(
            f"{path}: expected 1 to {_MAX_SEGMENTS:,} segments in the header (Segment0_Name ...), "
            f"found {len(fields)}; use the encoding index for a NRRD file without them"
        )
    segments = []
    for number, stated in sorted(fields.items()):
        segments.append(
            Segment(
                name=stated.get("Name", f"Segment{number}"),
                layer=_whole(path, stated.get("Layer", str(number)), "a layer"),
                value=_whole(path, stated.get("LabelValue", "1"), "a label value"),
            )
        )
    places = [(s.layer, s.value) for s in segments]
    if len(set(places)) < len(places):
        raise ReadError(
            f"{path}: expected a layer and value of its own for each segment, found two segments "
            "that share theirs; export it again"
        )
    return tuple(segments)


def _whole(path: Path, text: str, what: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise ReadError(
            f"{path}: expected a whole number as {what} of a segment, found {text!r:.40}; mend it"
        )
    return int(text)
