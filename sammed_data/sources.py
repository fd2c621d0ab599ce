"""Source files of a case: which files a path stands for, their state and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_data import archives
from sammed_data.stages import stage
from sammed_data.types import Case, ReadError

_MOST_DIGESTS = 4096
_LANES = np.zeros(64, np.uint8)


def relative(path: Path, root: Path) -> str:
    """POSIX path below the dataset root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def files_of(path: Path) -> list[Path]:
    """The files behind a case path: a series folder, a header with its data file, or itself."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file())
    detached = {".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz"), ".hdr": (".img",)}
    beside = [path.with_suffix(s) for s in detached.get(path.suffix.lower(), ())]
    if archives.split(path) is not None:
        return archives.files_of(path, beside)
    return [path, *(p for p in beside if p.is_file())]


def state(path: Path) -> list[tuple[str, int, int]]:
    """(name, size, mtime in ns) of every file behind a path: cheap proof that nothing changed.

    Raises:
        ReadError: the file is gone.
    """
    if archives.split(path) is not None:
        return [archives.state(p) for p in files_of(path)]
    try:
        found = [(p.name, p.stat()) for p in files_of(path)]
    except OSError as err:
        raise ReadError(f"{path}: expected a readable file, but {err.strerror}") from err
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


@stage("source digest")
def digest(path: Path) -> str:
    """SHA-256 of a file; of the sorted file digests where several files make one source.

    Raises:
        ReadError: the file cannot be read.
    """
    hashes = sorted(_file_digest(p) for p in files_of(path))
    if len(hashes) == 1 and path.is_file():
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


# (path, size, mtime) -> digest: the channels of a 4D file and the axes of a case share their files.
_digests: dict[tuple[Path, int, int], str] = {}


def forget_digests() -> None:
    """Read every file anew."""
    _digests.clear()


def read_whole(path: Path, memory: Callable[[int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """All bytes of a file, whose digest is taken along, so that it is read only once.

    Args:
        path: a plain file.
        memory: gives room for so many bytes.

    Raises:
        OSError: the file cannot be read.
    """
    stamp = path, *_stamp(path)
    data, filled = memory(stamp[1]), 0
    with path.open("rb", buffering=0) as stream:
        while got := stream.readinto(data[filled:].data):  # a call gives 2 GB at most
            filled += got
    data = data[:filled]
    if stamp not in _digests and data.size == stamp[1]:
        _keep(stamp, _hashed(data))
    return data


@stage("source digest")
def _hashed(data: NDArray[np.uint8]) -> str:
    # isal, which a reader may have used, leaves the upper halves of the vector registers in use,
    # and SHA-256 takes a third longer; any code for AVX clears them at its end, as this sum does.
    np.add(_LANES, _LANES)
    return hashlib.sha256(data.data).hexdigest()


def _file_digest(path: Path) -> str:
    stamp = path, *_stamp(path)
    if stamp not in _digests:
        try:
            with path.open("rb", buffering=0) as stream:
                _keep(stamp, hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as err:
            raise ReadError(f"{path}: cannot be read ({err.strerror})") from err
    return _digests[stamp]


def _keep(stamp: tuple[Path, int, int], digest: str) -> None:
    if len(_digests) >= _MOST_DIGESTS:
        _digests.pop(next(iter(_digests)))
    _digests[stamp] = digest


def case_paths(case: Case) -> list[tuple[str, Path]]:
    """(role, path) of the image, then of every label, then of tables, each path once."""
    paths = [("image", case.image_path)]
    for label in case.labels:
        if ("label", label.path) not in paths:
            paths.append(("label", label.path))
    labels = {path for role, path in paths if role == "label"}
    paths.extend(("table", path) for path in case.tables if path not in labels)
    return paths


def source_hashes(case: Case, named: Callable[[str], str]) -> set[str]:
    """One hash over path and bytes of every source of a case; what a lock sums up.

    ``named`` gives a path as it may be stored: that of a restricted dataset is keyed, or a guessed
    path could be confirmed by the hash.
    """
    found = set()
    for _, path in case_paths(case):
        try:
            content = digest(path)
        except (ReadError, OSError):  # quarantined by whoever reads it, with the reason
            content = "unreadable"
        name = named(relative(path, case.root))
        found.add(hashlib.sha256(f"{name}\0{content}".encode()).hexdigest())
    return found
