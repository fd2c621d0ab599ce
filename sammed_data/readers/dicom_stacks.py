"""Enhanced DICOM: one file may hold several volumes; they are told apart by what frames state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sammed_data.types import ReadError

if TYPE_CHECKING:
    from sammed_data.readers.dicom_header import FrameHeader

# What it is called, the functional group, the tag in it: in the order in which they are tried.
_SEPARATORS = (
    ("stacks", "FrameContentSequence", "StackID"),
    ("temporal positions", "FrameContentSequence", "TemporalPositionIndex"),
    ("echo times", "MREchoSequence", "EffectiveEchoTime"),
    ("b-values", "MRDiffusionSequence", "DiffusionBValue"),
    ("diffusion directions", "MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    ("cardiac phases", "CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ("kinds of pixel", "MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("kinds of frame", "MRImageFrameTypeSequence", "FrameType"),
    ("kinds of frame", "CTImageFrameTypeSequence", "FrameType"),
)


def separators(groups: Sequence[Any]) -> tuple[float | str | None, ...]:
    """What a frame states that may set it apart; one value for each entry of the table above.

    Args:
        groups: functional groups of the frame, then those that all frames share.
    """
    return tuple(_value(groups, group, tag) for _, group, tag in _SEPARATORS)


def _value(groups: Sequence[Any], group: str, tag: str) -> float | str | None:
    for source in groups:
        items = source.get(group) or []
        value = items[0].get(tag) if items else None
        if value is None or value == "":
            continue
        if tag == "DiffusionGradientDirectionSequence":
            value = value[0].get("DiffusionGradientOrientation") if len(value) else None
            return None if value is None else str(list(value))
        return float(value) if isinstance(value, int | float) else str(value)
    return None


def one_volume(
    where: Path, headers: Sequence[FrameHeader], channel: int | None
) -> list[FrameHeader]:
    """The frames of one volume: all of them, or those of the volume that ``channel`` counts to.

    Raises:
        ReadError: several volumes and no channel, or fewer than it asks for.
    """
    volumes, said = _volumes(headers)
    if channel is None and len(volumes) == 1:
        return volumes[0]
    if channel is None:
        raise ReadError(
            f"{where}: expected one volume, found {len(volumes)} in the file ({said}); name them "
            "in order by a list under `channel` of the entry's image pattern"
        )
    if not 0 <= channel < len(volumes):
        raise ReadError(
            f"{where}: expected a volume for channel {channel}, found {len(volumes)} in the file; "
            "mend `channel` of the entry's image pattern"
        )
    return volumes[channel]


def _volumes(headers: Sequence[FrameHeader]) -> tuple[list[list[FrameHeader]], str]:
    """Volumes in ascending order of what separates them, and that in words.

    Frames are parted by one property after another until no two of a volume share a place.
    """
    volumes, words = [list(headers)], []
    for number, (name, _, _) in enumerate(_SEPARATORS):
        if all(_is_one(v) for v in volumes):
            break
        parted = [part for v in volumes for part in _parted(v, number)]
        if len(parted) > len(volumes):
            words.append(f"{len({h.separators[number] for h in headers})} {name}")
        volumes = parted
    return volumes, ", ".join(words)


def _is_one(headers: Sequence[FrameHeader]) -> bool:
    """Whether frames share an orientation and no two lie at one place."""
    first = headers[0]
    if first.axes is None or len(headers) < 2:
        return True
    if any(h.axes is None or np.abs(h.axes - first.axes).max() > 1e-3 for h in headers):
        return False
    normal = np.cross(first.axes[0], first.axes[1])
    at = sorted(float(h.position @ normal) for h in headers if h.position is not None)
    return bool(np.diff(at).min(initial=np.inf) >= 1e-3)


def _parted(headers: Sequence[FrameHeader], number: int) -> list[list[FrameHeader]]:
    found: dict[float | str | None, list[FrameHeader]] = {}
    for header in headers:
        found.setdefault(header.separators[number], []).append(header)
    key: Callable[[float | str | None], Any] = lambda v: (v is not None, str(type(v)), v or 0)  # noqa: E731
    return [found[v] for v in sorted(found, key=key)]
