"""Size limits and first looks at files, shared by all readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from pathlib import Path

from sammed_data.types import ReadError

#: Decoded size above which a file is refused before anything is decoded.
MAX_DECODED_BYTES = 4_000_000_000
_most: ContextVar[int | None] = ContextVar("_most", default=None)


@contextmanager
def decoded_at_most(size: int) -> Iterator[None]:
    """A lower limit for what is read inside, of this thread: files of strangers."""
    token = _most.set(size)
    try:
        yield
    finally:
        _most.reset(token)


def check_size(path: Path, shape: tuple[int, ...], itemsize: int) -> int:
    """Return the decoded bytes of a declared shape.

    Raises:
        ReadError: an axis is not positive, or the whole is above the limit.
    """
    if not shape or min(shape) < 1:
        raise ReadError(
            f"{path}: expected axes of at least 1, the header says {shape}; mend the file"
        )
    size = prod(int(n) for n in shape) * itemsize
    most = min(MAX_DECODED_BYTES, _most.get() or MAX_DECODED_BYTES)
    if size > most:
        raise ReadError(
            f"{path}: expected at most {most:,} decoded bytes, the header declares "
            f"{size:,} ({' x '.join(map(str, shape))}); split the file or check its header"
        )
    return size


def first_bytes(path: Path, n: int = 132) -> bytes:
    """Return the first bytes of a file.

    Raises:
        ReadError: the file is missing, cannot be opened, or has 0 bytes.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(n)
    except OSError as err:
        raise ReadError(
            f"{path}: expected a readable file, found {err.strerror}; check the path"
        ) from err
    if not head:
        raise ReadError(f"{path}: expected data, found an empty file (0 bytes); fetch it again")
    return head
