"""List a folder within limits, and say what each file is; DICOM is grouped into series."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sammed_data import archives
from sammed_data.patterns import behind
from sammed_data.propose.carriers import Item, Survey
from sammed_data.readers import arrays, raster
from sammed_data.readers.limits import first_bytes
from sammed_data.stores import local_folder
from sammed_data.types import ReadError, UsageError, counted

MAX_FILES = 200_000
MAX_SECONDS = 120.0
MAX_HEADERS = 4_000
_A_FOLDER = 12  # DICOM headers read of a folder once the budget is short

_KINDS = {
    **dict.fromkeys((".nii", ".nii.gz"), "nifti"),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), "itk"),
    **dict.fromkeys(raster.SUFFIXES, "raster"),
    **dict.fromkeys(arrays.SUFFIXES, "array"),
    **dict.fromkeys((".dcm", ".ima", ".dicom"), "dicom"),
}
_DOCUMENTS = (".json", ".xml", ".csv", ".tsv", ".txt", ".md", ".rst", ".html", ".pdf", ".yaml")
_SHEET = ".overlays.png"
_DATA_OF_HEADERS = (".raw", ".zraw", ".raw.gz")
_TAGS = [
    "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "NumberOfFrames",
    "ImagePositionPatient", "SegmentSequence", "StructureSetROISequence",
    "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence",
    "PerFrameFunctionalGroupsSequence", "ImageType",
]  # fmt: skip


def suffix_of(name: str) -> str:
    """The ending of a file name, ``.nii.gz`` and the like as one."""
    lower = name.lower()
    for double in (".nii.gz", ".raw.gz", ".tar.gz", ".ppm.gz", ".pgm.gz"):
        if lower.endswith(double):
            return name[-len(double) :]
    stem, dot, end = name.rpartition(".")
    return f".{end}" if dot and stem and len(end) <= 8 and not end.isdigit() else ""


def survey(root: Path, *, max_files: int = MAX_FILES, max_headers: int = MAX_HEADERS) -> Survey:
    """List what lies under ``root``, links followed; hidden names are passed over.

    Args:
        root: folder.
        max_files: the listing stops there, and says so.
        max_headers: DICOM headers to read; beyond it a few a folder.

    Raises:
        UsageError: no such folder.
    """
    if not local_folder(root, "images and masks").is_dir():
        if root.is_file() and root.name.lower().endswith(archives.SUFFIXES):
            raise UsageError(
                f"expected a folder of images and masks, found the archive {root}: unpack it and "
                "name the folder; the entry reads the archive too, as DATA/<id>.zip"
            )
        raise UsageError(f"expected a folder of images and masks at {root}, found none")
    if (root / "manifest.json").is_file() and (root / "corpus.lock.yaml").is_file():
        raise UsageError(
            f"expected a folder of images and masks, found the corpus {root}: `sammed data "
            f"describe {root}` reads it, `sammed data export` makes files of it"
        )
    bad: list[tuple[str, str]] = []
    files, limit = _listing(root, max_files, bad)
    by_kind: dict[str, list[tuple[str, int]]] = {}
    others: Counter[str] = Counter()
    for path, size in files:
        kind = _kind(root, path, bad)
        by_kind.setdefault(kind, []).append((path, size))
        if kind == "other":
            others[suffix_of(path.rpartition("/")[2]) or "(no ending)"] += 1
    items = [
        Item(path=p, kind=k, size=s)
        for k in ("nifti", "itk", "raster", "array")
        for p, s in by_kind.get(k, ())
    ]
    items += _dicom_items(root, by_kind.get("dicom", []), max_headers, bad)
    return Survey(
        items=tuple(sorted(items, key=lambda i: i.path)),
        documents=tuple(p for p, _ in by_kind.get("document", ())),
        others=others,
        unreadable=tuple(bad),
        n_files=len(files),
        limit=limit,
    )


def _listing(
    root: Path, max_files: int, bad: list[tuple[str, str]]
) -> tuple[list[tuple[str, int]], str]:
    files: list[tuple[str, int]] = []
    started = time.monotonic()
    for path, size in _walk(root, "", frozenset(), bad):
        if len(files) >= max_files:
            return files, f"the listing stopped at {max_files:,} files; the rest was not looked at"
        if time.monotonic() - started > MAX_SECONDS:
            return files, f"the listing stopped after {MAX_SECONDS:g} s at {len(files):,} files"
        files.append((path, size))
    return files, ""


def _walk(
    folder: Path, prefix: str, above: frozenset[str], bad: list[tuple[str, str]]
) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda e: e.name)
    except OSError as err:
        bad.append((prefix or ".", f"a folder that cannot be listed ({err.strerror})"))
        return
    names = {e.name for e in entries}
    if {"manifest.json", "corpus.lock.yaml"} <= names:
        return  # a corpus that was built here
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.name.endswith(_SHEET) and entry.name.replace(_SHEET, ".yaml") in names:
            continue  # drawn by `init`
        if entry.is_dir():
            seen = behind(entry, folder, above)
            if seen is not None:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", seen, bad)
        elif entry.is_file():
            yield prefix + entry.name, entry.stat().st_size
        elif entry.is_symlink():
            bad.append((prefix + entry.name, "a link that leads nowhere"))


def _kind(root: Path, path: str, bad: list[tuple[str, str]]) -> str:
    suffix = suffix_of(path.rpartition("/")[2]).lower()
    if suffix in _DOCUMENTS:
        return "document"
    if suffix in _DATA_OF_HEADERS:
        return "data"
    known = _KINDS.get(suffix)
    if known not in (None, "dicom"):
        return str(known)
    try:
        head = first_bytes(root / path)
    except (ReadError, OSError) as err:
        bad.append((path, str(err).replace(f"{root}/", "")))
        return "bad"
    return "dicom" if known or head[128:132] == b"DICM" else "other"


def _dicom_items(
    root: Path, files: Sequence[tuple[str, int]], budget: int, bad: list[tuple[str, str]]
) -> list[Item]:
    """Series folders, single images and label objects."""
    folders: dict[str, list[tuple[str, int]]] = {}
    for path, size in files:
        folders.setdefault(path.rpartition("/")[0], []).append((path, size))
    a_folder = None if len(files) <= budget else max(_A_FOLDER, budget // max(1, len(folders)))
    items: list[Item] = []
    for folder, members in folders.items():
        chosen = members if a_folder is None else _spread(members, a_folder)
        items += _of_folder(root, folder, chosen, len(members), bad)
    return items


def _spread(members: Sequence[tuple[str, int]], n: int) -> list[tuple[str, int]]:
    """The largest and smallest files (labels differ in size) and some between."""
    ranked = sorted(members, key=lambda m: m[1])
    step = max(1, len(ranked) // n)
    return sorted({*ranked[:2], *ranked[-2:], *ranked[::step]})


def _of_folder(
    root: Path,
    folder: str,
    members: Sequence[tuple[str, int]],
    n_all: int,
    bad: list[tuple[str, str]],
) -> list[Item]:
    images: dict[str, list[tuple[Item, bool]]] = {}
    labels: list[Item] = []
    for path, size in members:
        found = _read(root, path, size, bad)
        if found is None:
            continue
        item, placed = found
        if item.kind == "dicom":
            images.setdefault(item.series, []).append((item, placed))
        else:
            labels.append(item)
    alone = [group[0][0] for group in images.values() if len(group) == 1]
    unplaced = all(not placed for group in images.values() for _, placed in group)
    singles = len(images) == len(alone) or unplaced  # every file an image of its own
    if singles and n_all <= len(members):
        return labels + [item for group in images.values() for item, _ in group]
    slices = [group for group in images.values() if any(placed for _, placed in group)]
    if len(images) == 1 or (len(slices) == 1 and len(slices[0]) > 1):
        series = (slices or list(images.values()))[0]
        first = next((item for item, placed in series if placed), series[0][0])
        beside = sum(not placed for group in images.values() for _, placed in group)
        if slices and beside:
            those = counted(beside, "localizer or screenshot", "localizers or screenshots")
            bad.append((folder or ".", f"{those} beside the slices of a series, left out"))
        return [*labels, replace(first, path=f"{folder}/" if folder else "", size=0)]
    counts = " and ".join(str(len(g)) for g in images.values())
    bad.append(
        (
            folder or ".",
            f"{len(images)} DICOM series in one folder ({counts} slices): the reader takes one a "
            "folder; move each into a folder of its own",
        )
    )
    return labels


def _read(root: Path, path: str, size: int, bad: list[tuple[str, str]]) -> tuple[Item, bool] | None:
    """An item and whether it has a place in the patient; None for other DICOM objects."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    from sammed_data.readers.dicom_header import (
        NOT_IMAGES,
        is_localizer,
        modality_of,
        parse_errors,
        silence_pydicom,
    )

    silence_pydicom()
    try:
        data = pydicom.dcmread(root / path, specific_tags=_TAGS, stop_before_pixels=True)
        modality = modality_of(data)
        kind = {"SEG": "seg", "RTSTRUCT": "rtstruct"}.get(modality, "dicom")
        if kind == "dicom" and (modality in NOT_IMAGES or "Rows" not in data):
            return None
        item = Item(
            path=path,
            kind=kind,
            size=size,
            modality=modality,
            names=_names(data, kind),
            series=str(data.get("SeriesInstanceUID", "")),
            refers=tuple(_referred(data)),
            frame=_frame(data),
        )
        placed = "ImagePositionPatient" in data or "PerFrameFunctionalGroupsSequence" in data
        return item, placed and not is_localizer(data)
    except InvalidDicomError:
        bad.append((path, "not a DICOM file although its ending says so"))
    except parse_errors() as err:
        bad.append((path, f"a damaged DICOM file ({type(err).__name__})"))
    return None


def _names(data: Any, kind: str) -> tuple[str, ...]:
    if kind == "seg":
        return tuple(
            str(s.get("SegmentLabel", "")) or str(s.get("SegmentNumber", ""))
            for s in data.get("SegmentSequence") or []
        )
    if kind == "rtstruct":
        return tuple(str(s.get("ROIName", "")) for s in data.get("StructureSetROISequence") or [])
    return ()


def _frame(data: Any) -> str:
    own = str(data.get("FrameOfReferenceUID") or "")
    for item in data.get("ReferencedFrameOfReferenceSequence") or []:
        own = own or str(item.get("FrameOfReferenceUID") or "")
    return own


def _referred(data: Any) -> Iterator[str]:
    """Series UIDs named by a SEG or by the frames of an RTSTRUCT."""
    for series in data.get("ReferencedSeriesSequence") or []:
        yield str(series.get("SeriesInstanceUID", ""))
    for frame in data.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                yield str(series.get("SeriesInstanceUID", ""))
