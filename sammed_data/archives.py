"""Data sets inside a zip or tar: members have paths as if the archive were a folder.

``data/x.zip/images/1.png`` is the member ``images/1.png``. Nothing is unpacked here; `unpack`
takes out what one shard needs.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Self

from sammed_data.gzip_seek import open_gzip
from sammed_data.types import ReadError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_MAX_MEMBERS = 5_000_000
_MAX_NAME_BYTES = 1 << 20
_LONG_NAMES = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_ENCRYPTED = 1
#: What a damaged archive makes its library raise.
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError,
    NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of an archive: its declared size, and its place for reading in one pass."""

    name: str
    size: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Index:
    """The files of an archive by normalised name, and the names below each folder."""

    members: dict[str, Member]
    folders: dict[str, list[str]]


def stem(name: str) -> str:
    """A file name without the ending of an archive, '' where it has none."""
    ending = next((s for s in SUFFIXES if name.lower().endswith(s)), None)
    return name[: -len(ending)] if ending else ""


def split(path: Path) -> tuple[Path, str] | None:
    """(archive, member) of a path below an archive, '' = the archive itself; else None."""
    for place in (path, *path.parents):
        if place.name.lower().endswith(SUFFIXES) and place.is_file():
            inside = path.relative_to(place).as_posix()
            return place, "" if inside == "." else inside
    return None


def index_of(archive: Path) -> Index:
    """What an archive holds; read once a process.

    Raises:
        ReadError: damaged, encrypted, one part of several, or with a member that would be written
            outside the folder it is unpacked to.
    """
    try:
        found = archive.stat()
    except OSError as err:
        raise ReadError(f"{archive}: expected a readable archive, but {err.strerror}") from err
    return _index(archive, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=16)
def _index(archive: Path, size: int, mtime_ns: int) -> Index:
    try:
        if archive.name.lower().endswith(".zip"):
            members = _zip_members(archive)
        else:
            members = _tar_members(archive)
    except DAMAGE as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(f"{archive}: {_damage(archive, err)}") from err
    folders: dict[str, list[str]] = {}
    for name in members:
        parents = PurePosixPath(name).parents
        folders.setdefault("" if str(parents[0]) == "." else str(parents[0]), []).append(name)
        for parent in parents[1:]:
            folders.setdefault("" if str(parent) == "." else str(parent), [])
    return Index(members=members, folders=folders)


def _damage(archive: Path, err: Exception) -> str:
    first = archive.with_suffix(".z01")
    if first.exists() or "disk" in str(err):
        return (
            "expected a whole zip, found one part of several; join them with "
            f"`zip -s 0 {archive.name} --out whole.zip`"
        )
    return f"expected a whole archive, found a damaged one ({err}); fetch it again"


def _zip_members(archive: Path) -> dict[str, Member]:
    found: dict[str, Member] = {}
    with zipfile.ZipFile(archive) as held:
        infos = held.infolist()
        _few_enough(archive, len(infos))
        for info in infos:
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise ReadError(
                    f"{archive}: expected an open archive, found {info.filename!r} encrypted; "
                    "unpack it with its password"
                )
            name = _safe(archive, info.filename)
            found[name] = Member(name=info.filename, size=info.file_size, offset=info.header_offset)
    return found


def _tar_members(archive: Path) -> dict[str, Member]:
    found: dict[str, Member] = {}
    with open_tar(archive) as held:
        for number, info in enumerate(held):
            _few_enough(archive, number)
            if info.issparse():
                raise ReadError(
                    f"{archive}: expected plain members, found {info.name!r} stored "
                    "sparse; unpack it by hand"
                )
            if info.isreg():
                name = _safe(archive, info.name)
                found[name] = Member(name=info.name, size=info.size, offset=info.offset_data)
    return found


class _Header(tarfile.TarInfo):
    """A header whose long names are short enough to be held in memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _LONG_NAMES and info.size > _MAX_NAME_BYTES:
            raise tarfile.HeaderError(f"a member's name takes {info.size:,} bytes")
        return info


def open_tar(archive: Path) -> tarfile.TarFile:
    """A tar, compressed or not, that can be read from any place."""
    if archive.name.lower().endswith(".tar"):
        return tarfile.open(archive, "r:", tarinfo=_Header)
    return tarfile.open(fileobj=open_gzip(archive), mode="r:", tarinfo=_Header)


def _few_enough(archive: Path, count: int) -> None:
    if count > _MAX_MEMBERS:
        raise ReadError(
            f"{archive}: expected at most {_MAX_MEMBERS:,} members, found more; unpack it by hand"
        )


def _safe(archive: Path, name: str) -> str:
    """Normalised member name; ReadError where it would leave the folder it is unpacked to."""
    text = name.replace("\\", "/")
    parts = [p for p in text.split("/") if p not in ("", ".")]
    if text.startswith("/") or ".." in parts or not parts or ":" in parts[0] or "\0" in text:
        raise ReadError(
            f"{archive}: expected members below the archive's folder, found {name!r:.80}; do not "
            "trust this archive"
        )
    return "/".join(parts)


def walk(root: Path) -> Iterator[tuple[str, bool]]:
    """(relative POSIX path, is folder) below a place in an archive, in the order of a disk walk.

    Hidden names are passed over, as on disk.

    Raises:
        ReadError: the archive cannot be used.
    """
    archive, prefix = split(root) or (root, "")
    index = index_of(archive)
    start = f"{prefix}/" if prefix else ""
    listed = [(n, True) for n in index.folders if n] + [(n, False) for n in index.members]
    inside = [(n.removeprefix(start), folder) for n, folder in listed if n.startswith(start)]
    for name, is_folder in sorted(inside, key=lambda n: n[0].split("/")):
        if name and not any(part.startswith(".") for part in name.split("/")):
            yield name, is_folder


def files_of(path: Path, beside: Sequence[Path]) -> list[Path]:
    """The files behind a member path: those of a folder, or itself and which of ``beside`` exist.

    Raises:
        ReadError: there is no such member.
    """
    archive, member = split(path) or (path, "")
    index = index_of(archive)
    if member in index.folders:
        return sorted(archive / name for name in index.folders[member])
    if member not in index.members:
        raise ReadError(f"{path}: expected this file in {archive.name}, found no such member")
    held = [p for p in beside if p.relative_to(archive).as_posix() in index.members]
    return [path, *held]


def state(path: Path) -> tuple[str, int, int]:
    """(archive, its size, member; size of the member; mtime of the archive in ns)."""
    archive, member = split(path) or (path, "")
    found = archive.stat()
    size = index_of(archive).members[member].size
    return f"{archive.name} {found.st_size} {member}", size, found.st_mtime_ns


def places(data_root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Where a data set may start in an archive: ``<name>.zip``, ``<name>/*.zip``, folders inside.

    Raises:
        ReadError: one of these archives cannot be used.
    """
    for name in dict.fromkeys(names):
        found = [data_root / f"{name}{suffix}" for suffix in SUFFIXES]
        folder = data_root / name
        if folder.is_dir():
            found += sorted(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES))
        for archive in found:
            if archive.is_file():
                inside = index_of(archive).folders
                yield archive
                yield from (archive / n for n in dict.fromkeys(names) if n in inside)
