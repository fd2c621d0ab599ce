"""Members of zip, tar and gz archives under one name each, without touching the disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from sammed_data.get.split import Joined, open_zip
from sammed_data.types import FetchError

Kind = Literal["file", "folder", "link", "same"]
_MAX_HEADER = 16 << 20
_MAX_LINK = 4096
_MAX_PADDING = 64
_TAR = re.compile(r".+\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)
# Readers open these as they are.
_GZ_KEPT = (".nii.gz", ".img.gz", ".hdr.gz", ".mgz", ".svg.gz")
_BY_HAND = (".rar", ".7z")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One thing in an archive.

    Attributes:
        name: as written in the archive.
        kind: ``link`` = symbolic, ``same`` = hard link to an earlier member named ``target``.
        size: bytes it declares.
        stream: its bytes; valid until the next member is asked for.
    """

    name: str
    kind: Kind
    size: int = 0
    target: str = ""
    stream: IO[bytes] | None = None


def archive_kind(name: str) -> Literal["zip", "tar", "gz"] | None:
    """What to unpack a file as, by its name; None = it stays as it is.

    Raises:
        FetchError: rar and 7z, which need a program of their own.
    """
    low = name.lower()
    if low.endswith(_BY_HAND):
        raise FetchError(
            f"{name}: expected zip, tar or gz, found {low.rpartition('.')[2]}, which cannot be "
            "unpacked here: unpack it by hand under --root"
        )
    if low.endswith(".zip"):
        return "zip"
    if _TAR.fullmatch(low):
        return "tar"
    return "gz" if low.endswith(".gz") and not low.endswith(_GZ_KEPT) else None


def named_by_content(path: Path) -> str:
    """The file's name, with the suffix of its content where it has none (`.../files/30950821`)."""
    if "." in path.name:
        return path.name
    with path.open("rb") as stream:
        head = stream.read(263)
    if head.startswith(b"PK\x03\x04"):
        return path.name + ".zip"
    packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")) or head[257:262] == b"ustar"
    return path.name + ".tar" if packed else path.name


def safe_parts(name: str) -> tuple[str, ...]:
    """The path parts of a member's name.

    Raises:
        FetchError: an absolute path, a drive, ``..``, or no name at all.
    """
    flat = name.replace("\\", "/")
    parts = tuple(p for p in flat.split("/") if p not in ("", "."))
    if flat.startswith("/") or re.match(r"[A-Za-z]:", flat) or ".." in parts or "\0" in flat:
        raise FetchError(
            f"expected members inside the archive's folder, found {name!r}, which points outside: "
            "nothing was unpacked; do not trust this archive"
        )
    return parts


def folded(parts: Sequence[str]) -> str:
    """The path as a disk sees it that does not tell ``A`` from ``a``."""
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


@contextmanager
def members(parts: Sequence[Path], name: str) -> Iterator[Iterator[Member]]:
    """Open an archive given by its parts and iterate over its members.

    Raises:
        FetchError: damaged, encrypted, or with device files.
    """
    kind = archive_kind(name)
    try:
        if kind == "zip":
            with open_zip(parts) as archive:
                yield _zip_members(archive, name)
        else:
            with Joined(parts) as raw, _decompressed(raw, name) as stream:
                if kind == "tar":
                    yield _tar_members(stream, name)
                else:
                    yield iter([Member(name=name[:-3], kind="file", size=-1, stream=stream)])
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError,
        OSError, ValueError, OverflowError, RuntimeError, MemoryError,
    ) as err:  # fmt: skip
        if isinstance(err, FetchError):
            raise
        if isinstance(err, OSError) and err.errno is not None:
            raise FetchError(f"{name}: cannot be unpacked ({err.strerror})") from err
        raise FetchError(
            f"{name}: expected a whole archive, but {err}: fetch it again with --again"
        ) from err


def declared_size(parts: Sequence[Path], name: str) -> int:
    """Unpacked bytes that a zip's directory declares; 0 for formats without a directory."""
    if archive_kind(name) != "zip":
        return 0
    with open_zip(parts) as archive:
        return sum(info.file_size for info in archive.infolist())


def _zip_members(archive: zipfile.ZipFile, name: str) -> Iterator[Member]:
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise FetchError(
                f"{name}: {info.filename!r} is encrypted: get the password from the source and "
                "unpack the archive by hand"
            )
        kind = _mode_kind(info.external_attr >> 16, name, info.filename)
        if info.filename.endswith("/"):
            yield Member(name=info.filename, kind="folder")
        elif kind == "link":
            if info.file_size > _MAX_LINK:
                raise FetchError(f"{name}: {info.filename!r} is a link of {info.file_size} bytes")
            target = archive.read(info).decode("utf-8", "surrogateescape")
            yield Member(name=info.filename, kind="link", target=target)
        else:
            with archive.open(info) as stream:
                yield Member(name=info.filename, kind="file", size=info.file_size, stream=stream)


def _mode_kind(mode: int, name: str, member: str) -> Kind:
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise _device(name, member)
    return "folder" if stat.S_ISDIR(mode) else "file"


def _device(name: str, member: str) -> FetchError:
    return FetchError(
        f"{name}: expected files and folders, found the device or pipe {member!r}: nothing was "
        "unpacked; do not trust this archive"
    )


def _tar_members(stream: IO[bytes], name: str) -> Iterator[Member]:
    with tarfile.open(fileobj=_Capped(stream), mode="r:") as archive:  # type: ignore[call-overload]
        while (info := archive.next()) is not None:
            if info.isdir():
                yield Member(name=info.name, kind="folder")
            elif info.issym():
                yield Member(name=info.name, kind="link", target=info.linkname)
            elif info.islnk():
                yield Member(name=info.name, kind="same", target=info.linkname)
            elif info.isreg():
                yield Member(name=info.name, kind="file", size=info.size,
                             stream=archive.extractfile(info))  # fmt: skip
            else:
                raise _device(name, info.name)
            setattr(archive, "members", [])  # noqa: B010  or a million of them would stay in memory
    # The checksum of the compression stands behind the last member.
    for _ in range(_MAX_PADDING):
        if not stream.read(1 << 20):
            return
    raise FetchError(f"{name}: more than {_MAX_PADDING} MiB follow the last member: not trusted")


class _Capped(io.RawIOBase):
    """A stream that refuses the huge reads which a forged tar header can ask for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0 or size > _MAX_HEADER:
            raise FetchError(f"a tar header declares {size} bytes: do not trust this archive")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _decompressed(raw: Joined, name: str) -> Iterator[IO[bytes]]:
    """By the first bytes, not by the name: a .tar.gz that is plain tar is common."""
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=raw) as stream:  # type: ignore[arg-type]
            yield stream  # type: ignore[misc]
    elif head.startswith(b"BZh"):
        with bz2.BZ2File(raw) as stream:  # type: ignore[arg-type]
            yield stream  # type: ignore[misc]
    elif head.startswith(b"\xfd7zXZ\x00"):
        with lzma.LZMAFile(raw) as stream:  # type: ignore[arg-type]
            yield stream
    elif archive_kind(name) == "gz":
        raise FetchError(f"{name}: expected gzip data, found something else: fetch it again")
    else:
        yield raw  # type: ignore[misc]
