"""What exports put beside the slices of a series: localizers, screenshots, second copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sammed_data.types import counted

if TYPE_CHECKING:
    from sammed_data.readers.dicom_header import FrameHeader


def only_slices(headers: Sequence[FrameHeader]) -> tuple[list[FrameHeader], tuple[str, ...]]:
    """The frames of the one series that has slices, and warnings that count what was left out.

    Left out are localizers, pictures of other series that have no place in the patient, and files
    that repeat another byte for byte. Where more than one series has slices, or none has two, all
    headers come back.
    """
    slices = [h for h in headers if h.position is not None and not h.localizer]
    series = {h.series for h in slices}
    if len(series) != 1 or len(slices) < 2:
        return list(headers), ()
    scouts = [h for h in headers if h.localizer]
    unplaced = [
        h for h in headers if h.position is None and not h.localizer and h.series not in series
    ]
    if len(slices) + len(scouts) + len(unplaced) != len(headers):
        return list(headers), ()
    kept = _without_copies(slices)
    counts = (
        (len(scouts), "localizer", "localizers", "beside the slices"),
        (len(unplaced), "picture", "pictures", "of another series, without a place in the patient"),
        (len(slices) - len(kept), "second copy", "second copies", "of a slice"),
    )
    return kept, tuple(
        f"left out: {counted(n, *nouns)} {where}" for n, *nouns, where in counts if n
    )


def _without_copies(slices: Sequence[FrameHeader]) -> list[FrameHeader]:
    """Slices of one file each; of files with the same bytes at one place the first by name."""
    at: dict[tuple[float, ...], list[FrameHeader]] = {}
    for header in slices:
        place = () if header.position is None else tuple(header.position.tolist())
        at.setdefault(place, []).append(header)
    doubled = [group for group in at.values() if len({h.path for h in group}) > 1]
    copies = set()
    for group in doubled:
        seen: dict[bytes, FrameHeader] = {}
        for header in sorted(group, key=lambda h: h.path.name):
            first = seen.setdefault(header.path.read_bytes(), header)
            if first.path != header.path:
                copies.add(header.path)
    return [h for h in slices if h.path not in copies]
