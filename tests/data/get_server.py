"""A loopback server that behaves as badly as real ones: one reusable fixture, `bad_server`."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sammed_data.get.web import Web


@dataclass
class Served:
    """One path and its faults.

    stall_at: byte after which nothing comes any more.
    drop_at: byte -> how often the connection is cut there (counted down).
    tags: ETag of each answer in turn, the last one again and again; None = no ETag.
    """

    data: bytes = b""
    ranges: bool = True
    if_range: bool = True
    drop_at: int | None = None
    drops: int = 0
    stall_at: int | None = None
    tags: list = field(default_factory=lambda: ['"one"'])
    status: list = field(default_factory=list)
    redirect: str | None = None
    token: str | None = None
    length: bool = True
    content_type: str = "application/octet-stream"
    headers: dict = field(default_factory=dict)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests


class Server:
    def __init__(self):
        self.paths: dict[str, Served] = {}
        self.over = threading.Event()
        self.requests: list[tuple[str, dict]] = []
        handler = type("Handler", (_Handler,), {"site": self})
        self.http = _Quiet(("127.0.0.1", 0), handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, path, data=b"", **faults):
        self.paths[path] = Served(data=data, **faults)
        return self.base + path

    def put_record(self, number, files, **changed):
        """A Zenodo-like record of {name: bytes} with sizes, md5 sums and links."""
        rows = []
        for name, data in files.items():
            link = self.put(f"/api/records/{number}/files/{name}/content", data)
            self.put(f"/records/{number}/files/{name}", data)
            rows.append(
                {
                    "key": name,
                    "size": len(data),
                    "links": {"self": link},
                    "checksum": "md5:" + hashlib.md5(data).hexdigest(),
                }
                | changed
            )  # noqa: S324
        document = json.dumps({"id": number, "files": rows}).encode()
        self.put(f"/api/records/{number}", document, content_type="application/json")
        return f"{self.base}/records/{number}"

    def asked(self, path):
        return [headers for p, headers in self.requests if p == path]

    def close(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.site.requests.append((self.path, dict(self.headers)))
        found = self.site.paths.get(self.path.partition("?")[0])
        if found is None:
            return self._plain(404)
        if found.redirect:
            return self._plain(302, {"Location": found.redirect})
        if found.token and self.headers.get("Authorization") != f"Bearer {found.token}":
            return self._plain(401)
        status = found.status.pop(0) if found.status else 200
        if status != 200:
            return self._plain(status, {"Retry-After": "0"})
        return self._send(found)

    def _plain(self, status, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, found):
        tag = found.tags.pop(0) if len(found.tags) > 1 else found.tags[0] if found.tags else None
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        old = self.headers.get("If-Range")
        partial = bool(found.ranges and asked)
        if partial and found.if_range and old and old != tag:
            partial = False
        start = int(asked[1]) if partial else 0
        stop = min(int(asked[2]) + 1 if partial and asked[2] else len(found.data), len(found.data))
        if partial and start >= len(found.data):
            return self._plain(416, {"Content-Range": f"bytes */{len(found.data)}"})
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(found.data)}")
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Type", found.content_type)
        for name, value in found.headers.items():
            self.send_header(name, value)
        if found.length:
            self.send_header("Content-Length", str(stop - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if found.drop_at is not None and found.drops > 0 and start < found.drop_at < stop:
            found.drops -= 1
            self.wfile.write(found.data[start : found.drop_at])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if found.stall_at is not None:
            self.wfile.write(found.data[start : found.stall_at])
            self.wfile.flush()
            self.site.over.wait(20)
            return None
        self.wfile.write(found.data[start:stop])
        return None


@pytest.fixture
def bad_server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()


def patient_web(**environ):
    """Retries without pauses; the pauses that were asked for are in ``web.naps``."""
    naps: list[float] = []
    web = Web(retries=3, sleep=naps.append, timeout_s=5.0, environ=environ)
    object.__setattr__(web, "naps", naps)
    return web
