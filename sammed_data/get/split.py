"""Archives cut into pieces, seen as one: ``.zip.001`` by joining, ``.z01 ... .zip`` by disks."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sammed_data.types import FetchError

_NUMBERED = re.compile(r"(?P<whole>.+)\.(?P<number>\d{3})")
_DISK = re.compile(r"(?P<stem>.+)\.z(?P<number>\d{2,3})", re.IGNORECASE)
_END = b"PK\x05\x06"
_END_SEARCHED = 22 + 65535


class Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        sizes = [path.stat().st_size for path in paths]
        self.starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.size = sum(sizes)
        self._files: list[IO[bytes]] = [path.open("rb") for path in paths]
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move like in any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Place in the joined file."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Bytes across the seams; fewer than asked only at the end."""
        wanted = self.size - self._at if size is None or size < 0 else size
        out = []
        while wanted > 0 and self._at < self.size:
            which = bisect_right(self.starts, self._at) - 1
            file = self._files[which]
            file.seek(self._at - self.starts[which])
            block = file.read(wanted)
            if not block:
                break
            out.append(block)
            self._at += len(block)
            wanted -= len(block)
        return b"".join(out)

    def close(self) -> None:
        """Close all parts."""
        for file in self._files:
            file.close()
        super().close()


def group_archives(paths: Sequence[Path]) -> list[tuple[str, tuple[Path, ...]]]:
    """(name of the whole, its parts in order) of every file; a plain file is its own only part.

    Raises:
        FetchError: a part in the middle is missing.
    """
    groups: dict[Path, list[tuple[int, Path]]] = {}
    for path in paths:
        numbered, disk = _NUMBERED.fullmatch(path.name), _DISK.fullmatch(path.name)
        if numbered:
            whole, number = numbered["whole"], int(numbered["number"])
        elif disk:
            whole, number = disk["stem"] + ".zip", int(disk["number"])
        else:
            whole, number = path.name, 1_000_000  # the .zip of a split archive is its last disk
        groups.setdefault(path.with_name(whole), []).append((number, path))
    found = []
    for whole_path, parts in sorted(groups.items()):
        numbers = [n for n, _ in sorted(parts) if n < 1_000_000]
        first = 0 if numbers[:1] == [0] else 1
        if numbers != list(range(first, first + len(numbers))) or (
            numbers and len(numbers) == len(parts) and _DISK.fullmatch(parts[0][1].name)
        ):
            raise FetchError(
                f"{whole_path}: expected all parts of the split archive, found "
                f"{', '.join(p.name for _, p in sorted(parts))}: get the missing one"
            )
        found.append((whole_path.name, tuple(path for _, path in sorted(parts))))
    return found


def open_zip(parts: Sequence[Path]) -> zipfile.ZipFile:
    """Open a zip, whole or in pieces.

    Raises:
        FetchError: not a zip, or a split zip with zip64 directory.
    """
    try:
        if len(parts) == 1:
            return zipfile.ZipFile(parts[0])
        joined = Joined(parts)
        archive = zipfile.ZipFile(joined)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError) as err:
        raise FetchError(
            f"{parts[-1]}: expected a zip archive, but {err}: fetch it again, or unpack it by hand"
        ) from err
    if _DISK.fullmatch(parts[0].name):
        _mend_offsets(archive, joined)
    return archive


def _mend_offsets(archive: zipfile.ZipFile, joined: Joined) -> None:
    """In a split zip a member's place counts from the start of its disk; zipfile knows one disk."""
    joined.seek(max(0, joined.size - _END_SEARCHED))
    tail = joined.read()
    end = tail[tail.rfind(_END) :]
    directory_at = struct.unpack("<L", end[16:20])[0]
    added = archive.start_dir - directory_at
    for member in archive.infolist():
        if member.volume >= len(joined.starts):
            raise FetchError(f"{member.filename}: lies on a part that is missing")
        member.header_offset += joined.starts[member.volume] - added
        # zipfile derived it from the offsets above; sizes and checksums are still checked.
        if hasattr(member, "_end_offset"):
            member._end_offset = None
