"""Headers that name other files: of a stranger's image they may name those beside it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sammed_data.readers.limits import first_bytes
from sammed_data.types import ReadError

_HEAD = 1 << 18
_NRRD, _META = (".nrrd", ".nhdr"), (".mha", ".mhd")


def check_own_data(path: Path) -> None:
    """Refuse NRRD and MetaImage whose voxels would be read from elsewhere on this machine.

    Raises:
        ReadError: another format than the ending says, a header without an end, or a data file
            that is not beside it.
    """
    ending = path.suffix.lower()
    if not path.is_file() or ending not in (*_NRRD, *_META):
        return
    head = first_bytes(path, _HEAD)
    is_nrrd = ending in _NRRD
    if head.startswith(b"NRRD") != is_nrrd:
        raise ReadError(
            f"{path}: expected {'NRRD' if is_nrrd else 'MetaImage'} by its ending, found another "
            "header; rename the file"
        )
    for named in _of_nrrd(path, head) if is_nrrd else _of_meta(path, head):
        if named != Path(named).name or "\\" in named or not path.with_name(named).is_file():
            raise ReadError(
                f"{path}: expected its voxels in the file or in one dropped beside it, the header "
                f"names {named[:80]!r}; drop both files together, or write them as one"
            )


def _of_meta(path: Path, head: bytes) -> Iterator[str]:
    for line in head.decode("latin-1").splitlines():
        key, _, value = line.partition("=")
        if key.strip().casefold() == "elementdatafile":  # the last key of the header
            if value.strip().casefold() != "local":
                yield value.strip()
            return
    raise _endless(path)


def _of_nrrd(path: Path, head: bytes) -> Iterator[str]:
    for line in head.decode("latin-1").split("\n"):
        if not line.strip("\r"):
            return
        key, _, value = line.partition(":")
        if key.strip().casefold() in ("data file", "datafile"):
            yield value.strip()
    if len(head) == _HEAD:
        raise _endless(path)


def _endless(path: Path) -> ReadError:
    return ReadError(
        f"{path}: expected the end of its header within {_HEAD:,} bytes, found none; mend the file"
    )
