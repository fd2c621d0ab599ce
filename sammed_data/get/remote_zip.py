"""The directory of a zip on a server, read by HTTP ranges: names and sizes without the data."""

from __future__ import annotations

import http.client
import io
import struct
import zipfile
from dataclasses import dataclass

from sammed_data.get.download import size_text
from sammed_data.get.records import RemoteFile
from sammed_data.get.web import Response, TryAgainError, Web, safe_url
from sammed_data.types import FetchError

MAX_DIRECTORY_BYTES = 64 << 20
_CHUNK = 64 << 10


@dataclass(frozen=True, kw_only=True)
class RemoteListing:
    """What a remote archive holds.

    Attributes:
        names: member -> unpacked bytes, files only.
        bytes: size of the archive. read_bytes: how much was transferred to know it.
    """

    names: dict[str, int]
    bytes: int
    read_bytes: int


def list_remote_zip(
    file: RemoteFile, web: Web, *, max_bytes: int = MAX_DIRECTORY_BYTES
) -> RemoteListing:
    """Read the central directory (zip64 too).

    Raises:
        FetchError: no ranges on this server, not a zip, or a directory above the limit.
    """
    remote = _Remote(file, web, max_bytes)
    try:
        with zipfile.ZipFile(remote) as archive:  # type: ignore[arg-type]
            names = {
                i.filename: i.file_size for i in archive.infolist() if not i.filename.endswith("/")
            }
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError) as err:
        raise FetchError(
            f"{safe_url(remote.url)}: expected a zip archive, but {err}: a split zip can only be "
            "fetched whole"
        ) from err
    return RemoteListing(names=names, bytes=remote.size, read_bytes=remote.received)


class _Remote(io.RawIOBase):
    """A seekable file over range requests; the last chunk stays, so small reads cost nothing."""

    def __init__(self, file: RemoteFile, web: Web, max_bytes: int) -> None:
        self.url, self.web, self.max_bytes = file.urls[0], web, max_bytes
        self.token_env = file.download.token_env
        self.received = self._at = self._chunk_at = 0
        self._chunk = b""
        self._tag: str | None = None
        self.size = self._measure()

    def _measure(self) -> int:
        def ask() -> int:
            with self._request(0, 0) as response:
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                if response.status != 206 or not total.isdigit():
                    raise FetchError(
                        f"{safe_url(self.url)}: expected a server that sends parts of a file, this "
                        "one sends it whole: nothing to probe; use `sammed data fetch`"
                    )
                self._tag = response.headers.get("ETag")
                return int(total)

        found: int = self.web.patiently(ask)
        return found

    def _request(self, first: int, last: int) -> Response:
        headers = {"Range": f"bytes={first}-{last}"}
        return self.web.open(self.url, headers=headers, token_env=self.token_env)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("before the start")  # zipfile takes it as "this is no zip"
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        start = self._at - self._chunk_at
        if not (start >= 0 and start + wanted <= len(self._chunk)):
            # A chunk that ends where the file ends serves all looks at the zip's tail.
            first = max(0, min(self._at, self.size - _CHUNK))
            last = min(self.size, max(self._at + wanted, first + _CHUNK)) - 1
            if self.received + last - first + 1 > self.max_bytes:
                raise FetchError(
                    f"{safe_url(self.url)}: its directory is larger than "
                    f"{size_text(self.max_bytes)}: not read"
                )
            self._chunk, self._chunk_at = self._bytes(first, last), first
            start = self._at - first
        self._at += wanted
        return self._chunk[start : start + wanted]

    def _bytes(self, first: int, last: int) -> bytes:
        def ask() -> bytes:
            with self._request(first, last) as response:
                if response.status != 206 or response.headers.get("ETag") != self._tag:
                    raise FetchError(f"{safe_url(self.url)}: the file changed meanwhile: try again")
                try:
                    data = response.read(last - first + 1)
                except (http.client.HTTPException, OSError) as err:
                    raise TryAgainError(f"{safe_url(self.url)}: {err}") from err
            if len(data) != last - first + 1:
                raise TryAgainError(f"{safe_url(self.url)}: the connection ended early")
            return data

        found: bytes = self.web.patiently(ask)
        self.received += len(found)
        return found
