"""`sammed data plan`: what sources cost, by what their entries know and by measured rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.get.fetch import downloads_of
from sammed_data.sources import case_paths, state
from sammed_data.types import SammedError


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What building cost per unit of source: bytes of corpus, and seconds of one core."""

    corpus_bytes: float
    seconds: float


# Measured 2026-11-25 on a 2-core AMD EPYC (loaded) by building the developers' samples one by one
# (default options, one worker, processor time). Pictures: per image, by modality; a modality that
# was not built is unknown. Volumes: per byte of source, the median of nine sets of CT, MR and PET
# (corpus 0.12 to 0.90 bytes a byte, 0.04 to 0.41 s a MB): good for the order of magnitude only.
PER_PICTURE = {
    "fundus": Rate(corpus_bytes=863e3, seconds=0.053),  # chase_db1: 10 of 999 x 960
    "ultrasound": Rate(corpus_bytes=160e3, seconds=0.029),  # hc18: 11 of 800 x 540
    "endoscopy": Rate(corpus_bytes=551e3, seconds=0.035),  # kvasir_seg: 5 of about 620 x 530
    "microscopy": Rate(corpus_bytes=81e3, seconds=0.026),  # dsb2018: 30 of 256 x 256 and larger
}
PER_VOLUME_BYTE = Rate(corpus_bytes=0.50, seconds=0.23e-6)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one source costs; None = unknown.

    Attributes:
        to_do: what must be signed or registered first; '' = nothing.
        download_bytes: from the entry's ``downloads``, or as the servers said.
        images, masks: expected counts of the entry (a 2D case is an image).
        corpus_bytes, core_hours: by the measured rates above.
    """

    id: str
    modality: str
    access: str
    license: str
    license_confidence: str
    to_do: str
    fetchable: bool
    download_bytes: int | None
    corpus_bytes: int | None
    cases: int | None
    images: int | None
    masks: int | None
    core_hours: float | None


@dataclass(frozen=True, kw_only=True)
class Total:
    """A sum over what is known, and how many sources it leaves out as unknown."""

    known: float | None
    unknown: int


def bytes_on_disk(entry: CatalogEntry, place: Path) -> int | None:
    """Size of the images and labels that lie under a place; None if they cannot be read."""
    try:
        paths = {path for case in discover(entry, place).cases for _, path in case_paths(case)}
        return sum(size for path in paths for _, size, _ in state(path))
    except SammedError:
        return None


def cost_of(
    entry: CatalogEntry, asked_bytes: int | None = None, disk_bytes: int | None = None
) -> Cost:
    """Estimate one entry.

    Args:
        entry: the dataset.
        asked_bytes: what its servers said, where the entry is silent.
        disk_bytes: size of what lies here already; better than a download's size.
    """
    expected, downloads = entry.expected, downloads_of(entry)
    sizes = [d.bytes for d in downloads]
    size = sum(s for s in sizes if s is not None) if sizes and None not in sizes else None
    size = asked_bytes if size is None else size
    cases = expected.cases
    images = expected.images if expected.images is not None or entry.dims == "3D" else cases
    in_3d = entry.dims == "3D"
    rate = PER_VOLUME_BYTE if in_3d else PER_PICTURE.get(entry.modality)
    units = (disk_bytes or size) if in_3d else images
    known = rate is not None and units is not None
    to_do = ""
    if entry.access != "open":
        to_do = entry.access_note or entry.access
    elif "login" in entry.access_note.lower() or "registration" in entry.access_note.lower():
        to_do = entry.access_note
    return Cost(
        id=entry.id,
        modality=entry.modality,
        access=entry.access,
        license=entry.license,
        license_confidence=entry.license_confidence,
        to_do=to_do,
        fetchable=bool(downloads),
        download_bytes=size,
        corpus_bytes=round(rate.corpus_bytes * units) if known and rate and units else None,
        cases=cases,
        images=images,
        masks=expected.masks,
        core_hours=rate.seconds * units / 3600 if known and rate and units else None,
    )


def totals(costs: Sequence[Cost]) -> dict[str, Total]:
    """Sums by column."""
    return {
        name: _total(getattr(c, name) for c in costs)
        for name in ("download_bytes", "corpus_bytes", "cases", "images", "masks", "core_hours")
    }


def _total(values: Iterable[float | None]) -> Total:
    listed = list(values)
    known = [v for v in listed if v is not None]
    return Total(known=sum(known) if known else None, unknown=len(listed) - len(known))
