"""Unpack an archive into a folder so that no byte lands outside and no disk is filled by a bomb."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sammed_data.get.members import Member, declared_size, folded, members, safe_parts
from sammed_data.get.web import BLOCK
from sammed_data.types import FetchError

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may claim and hold.

    Attributes:
        members: how many files, folders and links.
        bytes: unpacked size; None = what is free on the disk.
        ratio: unpacked size over archive size, once it is above ``ratio_from`` bytes. Label maps
            really reach 100 to 300; deflate ends at 1032.
    """

    members: int = 2_000_000
    bytes: int | None = None
    ratio: float = 500.0
    ratio_from: int = 1 << 30


def unpack(parts: Sequence[Path], name: str, folder: Path, limits: Limits | None = None) -> int:
    """Unpack into an existing folder; members of macOS resource forks are left out.

    Args:
        parts: the archive, or its pieces in order.
        name: name of the whole archive; its suffix says the format.
        folder: a fresh folder of the caller, who removes it when this fails.
        limits: None = the defaults.

    Returns:
        How many files were written.

    Raises:
        FetchError: damaged, encrypted, unsafe, too large, or with names that collide.
    """
    packed = sum(part.stat().st_size for part in parts)
    writer = _Writer(folder, name, packed, limits or Limits())
    writer.check_size(declared_size(parts, name))
    with members(parts, name) as found:
        for member in found:
            writer.take(member)
    writer.make_links()
    return writer.files


class _Writer:
    def __init__(self, folder: Path, name: str, packed: int, limits: Limits) -> None:
        self.folder, self.name, self.packed, self.limits = folder, name, max(packed, 1), limits
        free = shutil.disk_usage(folder).free - _SPARE_BYTES
        self.most = free if limits.bytes is None else min(free, limits.bytes)
        self.seen: dict[str, tuple[str, str]] = {}
        self.placed: set[str] = set()
        self.links: list[tuple[Path, str, tuple[str, ...]]] = []
        self.files = self.written = self.count = 0

    def take(self, member: Member) -> None:
        """Put one member in its place."""
        parts = safe_parts(member.name)
        self.count += 1
        if self.count > self.limits.members:
            raise FetchError(f"{self.name}: holds more than {self.limits.members} members")
        if not parts or parts[0] == "__MACOSX" or parts[-1].startswith("._"):
            return
        self._claim(parts, "folder" if member.kind == "folder" else "file")
        path = self.folder.joinpath(*parts)
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.kind == "file":
            self._write(path, member)
        elif member.kind == "same":
            self._copy_of(path, safe_parts(member.target))
        else:
            self.links.append((path, member.target, parts))

    def _claim(self, parts: tuple[str, ...], kind: str) -> None:
        """Every path and every folder above it has one spelling and one kind."""
        for depth in range(1, len(parts) + 1):
            here, now = "/".join(parts[:depth]), kind if depth == len(parts) else "folder"
            before, was = self.seen.setdefault(folded(parts[:depth]), (here, now))
            if before != here:
                raise FetchError(
                    f"{self.name}: {before!r} and {here!r} are one name on a disk that ignores "
                    "case: nothing was unpacked; unpack it by hand and rename one"
                )
            if was != now or here in self.placed:
                raise FetchError(f"{self.name}: {here!r} is in the archive twice: not unpacked")
        if kind == "file":
            self.placed.add("/".join(parts))

    def _write(self, path: Path, member: Member) -> None:
        if member.stream is None:
            raise FetchError(f"{self.name}: {member.name!r} has no bytes")
        if member.size > 0:
            self.check_size(self.written + member.size)
        size = 0
        with path.open("xb") as out:
            while block := member.stream.read(BLOCK):
                size += len(block)
                self.check_size(self.written + size)
                if 0 <= member.size < size:
                    raise FetchError(f"{self.name}: {member.name!r} holds more than it declares")
                out.write(block)
        if member.size > size:
            raise FetchError(
                f"{self.name}: {member.name!r} ends after {size} of {member.size} bytes: fetch the "
                "archive again with --again"
            )
        self.written += size
        self.files += 1

    def check_size(self, size: int) -> None:
        """Stop before the limits, the disk or a sane ratio are passed."""
        if size > self.most:
            raise FetchError(
                f"{self.name}: unpacks to more than the {self.most} bytes that are allowed or free "
                f"at {self.folder.parent}: make room, or choose another --root"
            )
        if size > self.limits.ratio_from and size > self.limits.ratio * self.packed:
            raise FetchError(
                f"{self.name}: unpacks to more than {self.limits.ratio:g} times its size, like an "
                "archive bomb: nothing was unpacked; if you trust it, unpack it by hand"
            )

    def _copy_of(self, path: Path, target: tuple[str, ...]) -> None:
        """A hard link becomes a second name of a file written before."""
        source = self.folder.joinpath(*target)
        if not target or source.is_symlink() or not source.is_file():
            raise FetchError(f"{self.name}: {path.name!r} is a link to nothing in the archive")
        os.link(source, path)
        self.files += 1

    def make_links(self) -> None:
        """Symbolic links last, so that no file is ever written through one; then follow each."""
        for path, target, parts in self.links:
            self._check_target(target, parts)
            path.symlink_to(target)
        inside = Path(os.path.realpath(self.folder))
        for path, target, _ in self.links:
            real = Path(os.path.realpath(path))
            if not real.is_relative_to(inside):
                raise FetchError(self._out(path.name, target))
            self.files += 1

    def _check_target(self, target: str, parts: tuple[str, ...]) -> None:
        joined = os.path.normpath("/".join((*parts[:-1], target)))
        if not target or target.startswith("/") or "\0" in target or joined.split("/")[0] == "..":
            raise FetchError(self._out("/".join(parts), target))

    def _out(self, name: str, target: str) -> str:
        return (
            f"{self.name}: the link {name!r} leads out of the archive's folder, to {target!r}: "
            "nothing was unpacked; do not trust this archive"
        )
