"""One file from its addresses to its place: resumed, measured, hashed, renamed when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sammed_data.get.records import RemoteFile
from sammed_data.get.web import BLOCK, Response, TryAgainError, Web, origin, safe_url
from sammed_data.types import FetchError

Progress = Callable[[str, int, int | None], None]
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Got:
    """A file on disk: its size and SHA-256, and the address that served it."""

    path: Path
    bytes: int
    sha256: str
    url: str


class _WrongBytesError(Exception):
    """What came is not what was announced; another address may have it."""


def silent(_name: str, _done: int, _total: int | None) -> None:
    """Progress that nobody sees."""


def download(file: RemoteFile, path: Path, web: Web, *, progress: Progress = silent) -> Got:
    """Bring a file to ``path``: a ``.part`` sibling grows, is checked and then renamed.

    Raises:
        FetchError: no address gives the expected bytes, or the disk is too small.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    for url in file.urls:
        try:
            return _from_one(file, url, path, web, progress)
        except (_WrongBytesError, FetchError) as err:
            said.append(str(err))
    raise FetchError("; then ".join(said))


def _from_one(file: RemoteFile, url: str, path: Path, web: Web, progress: Progress) -> Got:
    part = _Part(file, url, path, web, progress)
    resumed = part.size() > 0
    try:
        web.patiently(part.bring, part.size)
        return part.finish()
    except _WrongBytesError:
        if not resumed:
            raise
    # The old part may have been the wrong one: once more, from the first byte.
    part = _Part(file, url, path, web, progress)
    web.patiently(part.bring, part.size)
    return part.finish()


def digests(path: Path, *names: str) -> dict[str, str]:
    """Hash name -> hexadecimal digest of a file, read once."""
    found = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            for digest in found.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in found.items()}


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        FetchError: less than ``needed`` bytes and a small reserve are free.
    """
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise FetchError(
            f"{what} needs {size_text(needed)}, found {size_text(free)} free at {folder}: make "
            "room, or choose another --root"
        )


def size_text(n: int, digits: int = 3) -> str:
    """A size in words: 1.4 GB."""
    value = float(n)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{_short(value, digits)} {unit}"
        value /= 1000
    return f"{_short(value, digits)} TB"


def _short(value: float, digits: int) -> str:
    return f"{float(f'{value:.{digits}g}'):g}"


class _Part:
    """The growing ``.part`` file, with a note of which version of the remote file it holds."""

    def __init__(
        self, file: RemoteFile, url: str, path: Path, web: Web, progress: Progress
    ) -> None:
        self.file, self.url, self.path, self.web, self.progress = file, url, path, web, progress
        self.part = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")
        self.total = file.bytes
        # A token belongs to the host of the first address, never to a mirror elsewhere.
        same = origin(url) == origin(file.urls[0])
        self.token_env = file.download.token_env if same else None

    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def bring(self) -> None:
        """One request: the rest if what is there can be continued, else the whole file."""
        validator = self._validator()
        start = self.size() if validator is not None or self.file.has_hash else 0
        if start and start == self.file.bytes:
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            headers["If-Range"] = validator
        try:
            response = self.web.open(self.url, headers=headers,
                                     token_env=self.token_env)  # fmt: skip
        except FetchError as err:
            if start and " 416 " in str(err):
                self._drop()
                raise TryAgainError(str(err)) from err
            raise
        with response:
            self._receive(response, start, validator)

    def _receive(self, response: Response, start: int, validator: str | None) -> None:
        begin, total = _range_of(response, start)
        now = _validator_of(response)
        if start and begin == start and validator and now and now != validator:
            self._drop()  # part of another version; If-Range was ignored
            raise TryAgainError(f"{safe_url(self.url)}: the file changed on the server meanwhile")
        if begin not in (0, start):
            self._drop()
            raise TryAgainError(f"{safe_url(self.url)}: asked for byte {start}, got byte {begin}")
        self._check_announced(response, total)
        check_space(self.part.parent, (total or 0) - begin, self.file.name)
        self.total = total if total is not None else self.file.bytes
        self.note.write_text(json.dumps({"url": self.url, "validator": now}), encoding="utf-8")
        with self.part.open("r+b" if begin else "wb") as out:
            out.seek(begin)
            out.truncate()
            self._copy(response, out.write, begin)
        if self.total is not None and self.size() < self.total:
            raise TryAgainError(
                f"{safe_url(self.url)}: the connection ended at byte {self.size()} of {self.total}"
            )

    def _copy(self, response: Response, write: Callable[[bytes], object], done: int) -> None:
        while block := self._read(response):
            done += len(block)
            if self.total is not None and done > self.total:
                self._drop()
                raise _WrongBytesError(
                    f"{safe_url(self.url)}: expected {self.total} bytes, found more"
                )
            try:
                write(block)
            except OSError as err:
                raise FetchError(f"cannot write {self.part} ({err.strerror})") from err
            self.progress(self.file.name, done, self.total)

    def _read(self, response: Response) -> bytes:
        try:
            return response.read(BLOCK)
        except (http.client.HTTPException, OSError) as err:
            said = str(err) or "the connection broke"
            raise TryAgainError(f"{safe_url(self.url)}: {said}") from err

    def _check_announced(self, response: Response, total: int | None) -> None:
        kind = response.headers.get_content_type()
        if kind == "text/html" and not self.file.name.lower().endswith((".html", ".htm")):
            raise FetchError(
                f"{safe_url(self.url)}: expected the file {self.file.name}, found a web page: a "
                "login or a drive's page is in the way; get it in a browser"
            )
        if total is not None and self.file.bytes is not None and total != self.file.bytes:
            self._drop()
            raise _WrongBytesError(
                f"{safe_url(self.url)}: expected {self.file.bytes} bytes by the "
                f"{self.file.known_from}, the server has {total}"
            )

    def _validator(self) -> str | None:
        """ETag or date of the version the part belongs to, if it came from this address."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            same = note["url"] == self.url or self.file.has_hash
            found = note["validator"] if note["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError):
            same, found = False, None
        if not same:
            self._drop()
        return found if isinstance(found, str) else None

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self) -> Got:
        """Check size and hashes, then give the file its name."""
        size = self.size()
        wanted = {"sha256": self.file.sha256, "md5": self.file.md5}
        if self.file.bytes is not None and size != self.file.bytes:
            self._drop()
            raise _WrongBytesError(
                f"{safe_url(self.url)}: expected {self.file.bytes} bytes, found {size}"
            )
        names = ["sha256", *(["md5"] if self.file.md5 else [])]
        found = digests(self.part, *names)
        for name, value in wanted.items():
            if value and found[name] != value:
                self._drop()
                raise _WrongBytesError(
                    f"{safe_url(self.url)}: expected {name} {value} by the {self.file.known_from}, "
                    f"found {found[name]}: damaged on the way, or another version; thrown away"
                )
        self.part.replace(self.path)
        self.note.unlink(missing_ok=True)
        return Got(path=self.path, bytes=size, sha256=found["sha256"], url=self.url)


def _range_of(response: Response, start: int) -> tuple[int, int | None]:
    """(first byte that comes, size of the whole file or None)."""
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None:
            return start, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator_of(response: Response) -> str | None:
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")
