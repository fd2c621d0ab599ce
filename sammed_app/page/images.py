"""Images to click in: what strangers dropped on the page, and rows of the corpus."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sammed_app.page.detached import check_own_data
from sammed_app.predict.prompts import window_of
from sammed_app.predict.scan import Scan, Window, find_images, intensity_of, read_scan
from sammed_data.archives import index_of
from sammed_data.corpus import Row
from sammed_data.intensity import POLICIES, Intensity, reapply
from sammed_data.readers.limits import MAX_DECODED_BYTES, decoded_at_most
from sammed_data.readers.registry import file_format
from sammed_data.types import ReadError, SammedError, UsageError, Volume
from sammed_data.unpack import extract

MOST_FILES = 4000
#: Of one session: dropped files and what comes out of a zip; and of one image when decoded.
MOST_BYTES = 1 << 30
_MOST_DECODED = min(MAX_DECODED_BYTES, 3 << 29)
_LONGEST_NAME = 120
_PREFIX = "sammed-page-"
_KINDS = ("nifti", "itk", "raster", "dicom")


class Opened(ABC):
    """An image that is clicked in.

    Args:
        key: what the store of embeddings knows it by; equal for equal pixels.
        name: for people.
        policies: that it can be shown with.
    """

    def __init__(self, key: str, name: str, policies: tuple[str, ...]) -> None:
        self.key, self.name, self.policies = key, name, policies
        self._scans: dict[tuple[str, str], Scan] = {}
        self._lock = threading.Lock()

    def scan(self, policy: str = "auto", modality: str = "") -> Scan:
        """The image as a policy (a name, or ``low,high``) shows it.

        Raises:
            UsageError: an unknown policy, or one that does not suit the image.
        """
        with self._lock:
            if (policy, modality) not in self._scans:
                if len(self._scans) >= 8:
                    self._scans.clear()
                self._scans[policy, modality] = self._made(policy, modality)
            return self._scans[policy, modality]

    @abstractmethod
    def _made(self, policy: str, modality: str) -> Scan: ...

    def about(self) -> dict[str, Any]:
        """What the page must know of it."""
        scan = self.scan()
        flat = scan.volume.geometry is None
        axes = []
        for axis in ("native",) if flat else ("axial", "coronal", "sagittal"):
            height, width = scan.view(scan.volume.array, axis, 0).shape[:2]
            spacing = scan.place(axis, 0).spacing_yx_mm
            axes.append(
                {"axis": axis, "count": scan.count(axis), "height": height, "width": width,
                 "spacing_yx_mm": spacing}
            )  # fmt: skip
        return {
            "name": self.name,
            "axes": axes,
            "policies": list(self.policies),
            "windows": "window" in self.policies,
            "modality": scan.volume.modality or "",
            "warnings": list(scan.warnings),
        }


class DroppedImage(Opened):
    """A file or series of the user."""

    def __init__(self, key: str, scan: Scan) -> None:
        plain = scan.volume.geometry is None and scan.volume.bits == 8
        names = ("auto", "paper", "released") if plain else tuple(POLICIES)
        super().__init__(key, scan.path.name, names)
        self._read = scan

    def _made(self, policy: str, modality: str) -> Scan:
        window = window_of(policy, modality, "the window")
        chosen, hint = intensity_of(self._read.volume, window)
        others = [w for w in self._read.warnings if not w.startswith("values look like HU")]
        if hint:
            others.append("values look like HU: choose CT as the modality")
        return replace(self._read, intensity=chosen, warnings=tuple(others))


class SampleImage(Opened):
    """A row of the corpus, with its stored pixels; other policies where 16 bits were kept."""

    def __init__(self, row: Row) -> None:
        others = ("paper", "released", "percentile", "ct-soft", "ct-lung", "ct-bone")
        names = ("auto", *(others if row.image_u16 is not None else ()))
        super().__init__(f"row {row.meta['content_sha256']}", row.sample_id, names)
        self._row = row

    def _made(self, policy: str, modality: str) -> Scan:
        row = self._row
        if policy not in self.policies or row.image is None:
            raise UsageError(
                f"expected a window of {', '.join(self.policies)} for this sample, found {policy!r}"
            )
        image = row.image
        if policy != "auto" and row.image_u16 is not None:
            image = reapply(policy, row.image_u16, row.meta["intensity"], row.modality)
        y, x = row.meta["spacing_y_mm"], row.meta["spacing_x_mm"]
        return Scan(
            path=Path(re.sub(r"[^\w.-]+", "-", row.sample_id)[-_LONGEST_NAME:] + ".png"),
            format="raster",
            volume=Volume(array=image[None], spacing_yx_mm=(y, x) if y and x else None),
            intensity=Intensity(policy=policy, low=0.0, high=255.0),
            orientation="lps",
            warnings=(),
        )


def sweep() -> None:
    """Remove the files of servers of this machine that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and Path("/proc").is_dir() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)


@dataclass(kw_only=True)
class Inbox:
    """The files of one image that a session dropped, in a folder that ends with it.

    Attributes:
        most_bytes: of all files together, before and after unpacking.
    """

    most_bytes: int = MOST_BYTES

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        self.folder = Path(self._folder.name)
        self._dropped = self.folder / "dropped"
        self._names: set[Path] = set()
        self._taken = 0
        self._dropped.mkdir()

    def close(self) -> None:
        """Remove everything."""
        self._folder.cleanup()

    def place(self, name: str) -> Path:
        """Where a file of this name is to be written.

        Raises:
            UsageError: too many files, or a name with folders or letters that no name has.
        """
        if len(self._names) >= MOST_FILES:
            raise UsageError(f"expected at most {MOST_FILES:,} files of one image, found more")
        plain = name == PurePosixPath(name).name and "\\" not in name and ":" not in name
        if not plain or not name.isprintable() or name.startswith(".") or not name.strip():
            raise UsageError(
                f"expected a plain file name without folders, found {name[:80]!r}: rename the file"
            )
        path = self._dropped / name[-_LONGEST_NAME:]
        if path in self._names:
            path = path.with_name(f"{len(self._names)}_{path.name}")
        self._names.add(path)
        return path

    def take(self, size: int) -> None:
        """Count bytes that were dropped.

        Raises:
            UsageError: more than a session may drop.
        """
        self._taken += size
        if self._taken > self.most_bytes:
            raise UsageError(
                f"expected files of at most {self.most_bytes:,} bytes together, found more: drop "
                "one image"
            )

    def open(self, channel: int | None = None) -> DroppedImage:
        """Read what was dropped: one file, one series, or a zip with one of them.

        Raises:
            SammedError: it cannot be read; the sentence names the user's files.
        """
        with self._plainly(), decoded_at_most(_MOST_DECODED):
            path = self._image()
            check_own_data(path)
            key = f"{_digest(path)} {channel}"
            scan = read_scan(path, Window(), orientation="lps", channel=channel)
            return DroppedImage(key, replace(scan, path=path))

    def _image(self) -> Path:
        dropped = sorted(p for p in self._names if p.is_file())
        if not dropped:
            raise UsageError("expected a file to open, found none: drop one on the page")
        for path in dropped:
            if not path.stat().st_size:
                raise ReadError(f"{path}: expected data, found an empty file (0 bytes)")
        where = dropped[0] if len(dropped) == 1 else self._dropped
        if where.suffix.lower() == ".zip":
            where = self._unpacked(where)
        found = find_images([where])
        if len(found) != 1:
            shown = ", ".join(p.name for p in found[:3])
            raise UsageError(
                f"expected one image or one series, found {len(found)} ({shown}, ...): drop one"
            )
        kind = file_format(found[0])
        if kind not in _KINDS:
            raise UsageError(
                f"expected PNG, JPEG, TIFF, NIfTI, NRRD, MetaImage or DICOM, found {kind} in "
                f"{found[0].name}: convert it"
            )
        return found[0]

    def _unpacked(self, archive: Path) -> Path:
        members = index_of(archive).members
        total = sum(member.size for member in members.values())
        if len(members) > MOST_FILES or total > self.most_bytes:
            raise ReadError(
                f"{archive}: expected at most {MOST_FILES:,} files of {self.most_bytes:,} bytes "
                f"together, the zip declares {len(members):,} of {total:,}; unpack it and drop less"
            )
        target = self.folder / "unpacked"
        folders: dict[str, int] = {}
        places = {}
        for number, name in enumerate(members):
            path = PurePosixPath(name)
            if any(part.startswith((".", "__MACOSX")) for part in path.parts):
                continue
            parent = folders.setdefault(str(path.parent), len(folders))
            ending = re.sub(r"[^\w.-]+", "-", path.name)[-_LONGEST_NAME:].lstrip(".-")
            places[name] = target / str(parent) / (ending or f"file-{number}")
        failed = extract(archive, places)
        for reason in failed.values():
            raise ReadError(reason)
        target.mkdir(exist_ok=True)
        return target

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Sentences that name no folder of this machine."""
        try:
            yield
        except SammedError as err:
            said = str(err).replace(f"{self._dropped}/", "").replace(f"{self.folder}/", "")
            said = said.replace(str(self._dropped), "the dropped files")
            raise type(err)(said.replace(str(self.folder), "the dropped files")) from err


def _digest(path: Path) -> str:
    """Of the content: two tabs that drop the same files share their embeddings."""
    whole = hashlib.sha256()
    folder = path.parent if path.suffix.lower() in (".mhd", ".nhdr") else path
    for file in sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else [path]:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
