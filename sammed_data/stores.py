"""A corpus on an object store: the few things a ``pathlib.Path`` does, done through fsspec.

fsspec is imported only where a URL is met. An object store renames nothing in one step and locks
nothing: a shard there exists when the manifest names it, and the manifest is written last.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from sammed_data.types import CorpusError, UsageError

# The command line hands paths over as Path, which makes one slash of two: `s3:/bucket/corpus`.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(.*)", re.DOTALL)


def place(root: Path | str) -> Path:
    """A local path as it is; a URL as a :class:`RemotePath`, which answers like a Path.

    ``file://`` is local. The declared type is Path because rooms above only join and open.

    Raises:
        CorpusError: no fsspec file system serves the URL.
    """
    if isinstance(root, RemotePath):
        return cast("Path", root)
    found = _URL.fullmatch(str(root))
    if found is None:
        return Path(root)
    if found[1] in ("file", "local"):
        return Path("/" + found[2])
    remote = RemotePath(found[1], found[2].strip("/"))
    _file_system(found[1])
    return cast("Path", remote)


def local_folder(root: Path | str, what: str) -> Path:
    """A folder of raw data, which must lie on this machine; ``file://`` is taken off.

    Args:
        root: as given.
        what: the option or argument, for the sentence.

    Raises:
        UsageError: a URL of an object store or a server.
    """
    found = _URL.fullmatch(str(root))
    if found is None or Path(root).exists():
        return Path(root)
    if found[1] in ("file", "local"):
        return Path("/" + found[2])
    raise UsageError(
        f"expected a folder of this machine for {what}, found {found[1]}://{found[2].lstrip('/')}: "
        "raw data are not read from a store; mount it (rclone mount, s3fs, gcsfuse) or copy it, or "
        "get public sets by `sammed data fetch`. Only a corpus (--out, --corpus) may lie there"
    )


def absolute(root: Path | str) -> Path:
    """The same place for a process with another working folder."""
    found = place(root)
    return found if is_remote(found) else found.absolute()


def is_remote(root: object) -> bool:
    """Whether this is a place on an object store, after :func:`place`."""
    return isinstance(root, RemotePath)


@lru_cache(maxsize=16)
def _file_system(protocol: str) -> Any:
    try:
        import fsspec

        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as err:
        said = str(err).splitlines()[0]
        raise CorpusError(
            f"no file system for {protocol}:// ({said}): install the fsspec package that serves it "
            f"(s3fs for s3, gcsfs for gs, adlfs for abfs), or name a local folder"
        ) from err


class RemotePath:
    """``protocol://name`` with the methods of Path that a corpus needs."""

    def __init__(self, protocol: str, name: str) -> None:
        self.protocol, self._pure = protocol, PurePosixPath(name)

    @property
    def _fs(self) -> Any:
        return _file_system(self.protocol)

    @property
    def _key(self) -> str:
        # In-memory keys begin with a slash; those of a store with its bucket.
        return f"/{self._pure}" if self.protocol == "memory" else str(self._pure)

    def _beside(self, pure: PurePosixPath) -> RemotePath:
        return RemotePath(self.protocol, str(pure))

    def __str__(self) -> str:
        return f"{self.protocol}://{self._pure}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return self._beside(self._pure / name)

    @property
    def name(self) -> str:
        """Last part."""
        return self._pure.name

    @property
    def suffix(self) -> str:
        """Ending of the name."""
        return self._pure.suffix

    @property
    def parent(self) -> RemotePath:
        """The folder above."""
        return self._beside(self._pure.parent)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the key."""
        return self._pure.parts

    def as_posix(self) -> str:
        """The URL."""
        return str(self)

    def with_name(self, name: str) -> RemotePath:
        """Beside this one."""
        return self._beside(self._pure.with_name(name))

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """The way from ``other`` to here."""
        return self._pure.relative_to(other._pure)

    def is_file(self) -> bool:
        """Whether an object of this key is there."""
        return bool(self._fs.isfile(self._key))

    def is_dir(self) -> bool:
        """Whether any key begins like this."""
        return bool(self._fs.isdir(self._key))

    def exists(self) -> bool:
        """Whether it is there as either."""
        return bool(self._fs.exists(self._key))

    def mkdir(self, **_: object) -> None:
        """A store has no folders to make; file systems behind fsspec may."""
        self._fs.makedirs(self._key, exist_ok=True)

    def open(self, mode: str = "rb", encoding: str = "utf-8") -> IO[Any]:
        """Open the object; writing creates it when closed."""
        if "w" in mode:
            self._fs.makedirs(self.parent._key, exist_ok=True)
        stream = self._fs.open(self._key, mode.replace("t", "").rstrip("b") + "b")
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding=encoding)

    def read_bytes(self) -> bytes:
        """The object."""
        with self.open("rb") as stream:
            return cast("bytes", stream.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Put text as one object."""
        with self.open("wb") as stream:
            stream.write(text.encode(encoding))

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self._fs.rm_file(self._key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: RemotePath) -> None:
        """Copy, then remove: what a store has in place of a rename."""
        self._fs.makedirs(target.parent._key, exist_ok=True)
        self._fs.cp_file(self._key, target._key)
        self._fs.rm_file(self._key)

    def upload(self, local: Path) -> None:
        """Put a local file here."""
        self._fs.makedirs(self.parent._key, exist_ok=True)
        self._fs.put_file(str(local), self._key)

    def iterdir(self) -> Iterator[RemotePath]:
        """Objects right below."""
        if not self.is_dir():
            return
        self._fs.invalidate_cache()
        for found in sorted(self._fs.ls(self._key, detail=False)):
            yield self / PurePosixPath(found).name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Objects right below whose name fits; no folders in the pattern."""
        return (p for p in self.iterdir() if PurePosixPath(p.name).match(pattern))


def parquet_source(path: Path) -> Any:
    """What pyarrow opens: a local path, or a stream with random access."""
    return path.open("rb") if is_remote(path) else path


def land(local: Path, final: Path) -> None:
    """Bring a finished local file to its place: a rename, or an upload."""
    if is_remote(final):
        cast("RemotePath", final).upload(local)
        local.unlink()
    elif local.parent == final.parent:
        local.replace(final)
    else:
        shutil.move(local, final)


def shared_by_processes(root: Path) -> bool:
    """False for the in-memory store, which each process has for itself."""
    return not (is_remote(root) and cast("RemotePath", root).protocol == "memory")
