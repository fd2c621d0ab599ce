"""Judge names without files: does what a server holds fit an entry's patterns and counts?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sammed_data.catalog import CatalogEntry, Expected
from sammed_data.discover import Discovery, discover
from sammed_data.get.fetch import downloads_of
from sammed_data.get.members import archive_kind, safe_parts
from sammed_data.get.records import files_of
from sammed_data.get.remote_zip import list_remote_zip
from sammed_data.get.web import Web, safe_url
from sammed_data.types import FetchError, SammedError

_MOST_WRAPPERS = 50


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a look from afar found.

    Attributes:
        wrapper: folder inside the archive that the patterns start from ('' = its top).
        files: how many names were seen; inner_archives: those that hide further names.
        bytes: size of all downloads where known; read_bytes: what was transferred to know it.
        findings: what does not fit the entry.
    """

    dataset: str
    files: int
    inner_archives: int
    bytes: int | None
    read_bytes: int
    wrapper: str
    cases: int
    patients: int
    findings: tuple[str, ...]
    not_looked_into: tuple[str, ...]


def probe(entry: CatalogEntry, web: Web) -> Probed:
    """List all downloads of an entry and compare with its layout and expected counts.

    Raises:
        FetchError: nothing to list: no address, no zip, or a server without ranges.
    """
    names: list[str] = []
    skipped: list[str] = []
    size: int | None = 0
    transferred = 0
    downloads = downloads_of(entry)
    if not downloads:
        raise FetchError(
            f"{entry.id}: expected an address of a file in the entry, found "
            f"{entry.download_url or 'none'}: get it by hand from {entry.homepage}, then "
            "`sammed data check` it"
        )
    for file in (f for d in downloads for f in files_of(d, web)):
        prefix = file.folder + "/" if file.folder else ""
        kind = archive_kind(file.name) if file.download.unpack else None
        folder = file.name.rpartition("/")[0]
        size = None if size is None or file.bytes is None else size + file.bytes
        if kind == "zip":
            listing = list_remote_zip(file, web)
            size = (size or 0) + listing.bytes if file.bytes is None else size
            transferred += listing.read_bytes
            inner = prefix + (folder + "/" if folder else "")
            names.extend(inner + "/".join(safe_parts(n)) for n in listing.names)
        elif kind is None:
            names.append(prefix + file.name)
        else:
            skipped.append(safe_url(file.urls[0]))
    if not names:
        raise FetchError(
            f"{entry.id}: {', '.join(skipped)}: only a zip has a directory that can be read from "
            "afar; fetch it to look inside"
        )
    wrapper, found = best_fit(entry, names)
    # Frames and items of arrays are cases too, but only the bytes of the file tell them.
    blind = [p for p in found.problems if p.rule == "unreadable"]
    found = Discovery(
        cases=found.cases, problems=tuple(p for p in found.problems if p not in blind)
    )
    judged = entry.model_copy(update={"expected": Expected()}) if blind else entry
    if blind:
        skipped.append(f"{len(blind)} files whose frames or arrays are cases")
    return Probed(
        dataset=entry.id,
        files=len(names),
        inner_archives=sum(_is_archive(n) for n in names),
        bytes=size,
        read_bytes=transferred,
        wrapper=wrapper,
        cases=len(found.cases),
        patients=len({c.patient_key or c.case_id for c in found.cases}),
        findings=() if blind and not found.cases else tuple(count_findings(judged, found)),
        not_looked_into=tuple(skipped),
    )


def listed(names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """What `discover` would walk over if these files were here: files and the folders above."""
    folders: set[str] = set()
    for name in sorted(names):
        parts = name.split("/")
        if any(p.startswith(".") for p in parts):
            continue
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in folders:
                folders.add(folder)
                yield folder, True
        yield name, False


def best_fit(entry: CatalogEntry, names: Sequence[str]) -> tuple[str, Discovery]:
    """(folder the patterns start from, what they find there): the top, or one folder below it."""
    tops = sorted({n.split("/")[0] for n in names if "/" in n and not n.startswith("__MACOSX")})
    here = discover(entry, Path(), listed(names))
    best = ("", here)
    if here.cases:
        return best
    for top in tops[:_MOST_WRAPPERS]:
        below = [n[len(top) + 1 :] for n in names if n.startswith(top + "/")]
        found = discover(entry, Path(), listed(below))
        if (len(found.cases), len(found.problems)) > (len(best[1].cases), len(best[1].problems)):
            best = (top, found)
    return best


def count_findings(entry: CatalogEntry, found: Discovery) -> Iterator[str]:
    """What differs from the entry: nothing there, files without partner, other counts."""
    if not found.cases and not found.problems:
        patterns = ", ".join(p.pattern for p in entry.layout.images)
        yield f"no file fits the image patterns ({patterns})"
        return
    wanted, n = entry.expected.cases, len(found.cases)
    if wanted is not None and wanted != n:
        yield f"expected {wanted} cases by the entry, found {n}"
    images = len({c.image_path for c in found.cases})
    if entry.dims == "2D" and entry.expected.images not in (None, images):
        yield f"expected {entry.expected.images} images by the entry, found {images}"
    for problem in found.problems[:5]:
        yield f"{problem.rule}: {problem.reason}"
    if len(found.problems) > 5:
        yield f"... and {len(found.problems) - 5} more"


def _is_archive(name: str) -> bool:
    try:
        return archive_kind(name) is not None
    except SammedError:
        return True
