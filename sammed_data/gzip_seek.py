"""A gzip file that can be read from any place, after one pass through it.

The decoder is copied every 32 MB; going back starts from the copy before the wanted place, so a
compressed tar is not decoded from its start for every member.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STEP = 32 << 20
_BLOCK = 1 << 16
_GZIP = 31  # window bits that tell zlib to expect a gzip header


def open_gzip(path: Path) -> io.BufferedReader:
    """The decoded bytes of a gzip file, seekable; close it after use."""
    return io.BufferedReader(_SeekableGzip(path), 1 << 20)


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A place to start from: decoded and stored position, input read ahead, decoder there."""

    position: int
    stored: int
    ahead: bytes
    engine: Any


class _SeekableGzip(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._engine = zlib.decompressobj(_GZIP)
        self._ahead = b""
        self._position = 0
        self._points = [self._point()]

    def _point(self) -> _Point:
        return _Point(
            position=self._position,
            stored=self._file.tell(),
            ahead=self._ahead,
            engine=self._engine.copy(),
        )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        found = self._decode(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known before it is read")
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        best = max((p for p in self._points if p.position <= target), key=lambda p: p.position)
        if not best.position <= self._position <= target:
            self._position, self._ahead = best.position, best.ahead
            self._engine = best.engine.copy()
            self._file.seek(best.stored)
        while self._position < target and self._decode(min(_BLOCK * 16, target - self._position)):
            pass
        return self._position

    def _decode(self, most: int) -> bytes:
        """Up to ``most`` decoded bytes, none at the end.

        Raises:
            EOFError: the file is cut off.
            zlib.error: it is damaged.
        """
        while True:
            if self._engine.eof:  # files may be joined, each with its own header
                rest = (self._engine.unused_data or self._file.read(_BLOCK)).lstrip(b"\0")
                if not rest:
                    return b""
                self._engine, self._ahead = zlib.decompressobj(_GZIP), rest
            data = self._ahead or self._file.read(_BLOCK)
            if not data:
                raise EOFError("the gzip stream ends before its end mark")
            found: bytes = self._engine.decompress(data, most)
            self._ahead = self._engine.unconsumed_tail
            if found:
                self._position += len(found)
                if self._position >= self._points[-1].position + _STEP:
                    self._points.append(self._point())
                return found
