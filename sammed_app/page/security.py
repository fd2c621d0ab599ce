"""Who may ask and how much: one gate in front of every route.

A page on loopback can be reached by every site that the user's browser shows. Three things keep
those out: the Host header must name this machine (DNS rebinding), the Origin must be the page
itself, and whatever changes something must carry a header that a foreign form cannot send. Off
loopback a token is asked for as well. Refusals are logged by method, path and reason; neither
query nor headers are, since the token may stand there.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sammed_app.page.settings import LOOPBACK, PageSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("sammed.page")

#: Every request that changes something carries it; a form of another site cannot.
CHANGE_HEADER = "x-sammed"
#: The one route that takes large bodies.
UPLOAD_PATH = "/api/try/upload"
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_LONGEST_PATH, _LONGEST_QUERY = 512, 4096
# Nothing here has a name with these: encoded slashes, dots that climb, nulls, double encoding.
_STRANGE = re.compile(rb"%2f|%5c|%00|%25|\\|\.\.|%2e|//", re.IGNORECASE)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a request is not served."""

    status: int
    reason: str


class _TooLarge(Exception):
    """A body grew over its limit while it was read."""


class Gate:
    """ASGI: refuses what does not come from the page, and sets the headers of every answer.

    Args:
        app: what is behind it.
        settings: host, token and limits.
    """

    def __init__(self, app: App, settings: PageSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        if self._opening(scope):
            await self._let_in(send)
            return
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            _tell(scope, refusal)
            await _refuse(send, refusal)
            return
        await self._served(scope, receive, send)

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application, unless the body grows over the limit before it comes."""
        left, started = self._limit(scope), False

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLarge
            return message

        async def marked(message: Message) -> None:
            nonlocal started
            if left < 0 and not started:
                return  # the application took it for a body that it cannot parse
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _with_ours(message.get("headers", []))
            await send(message)

        with suppress(_TooLarge):
            await self._app(scope, counted, marked)
        if left < 0 and not started:
            refusal = Refusal(status=413, reason="the body is larger than this page takes")
            _tell(scope, refusal)
            await _refuse(send, refusal)

    def _limit(self, scope: Scope) -> int:
        upload = scope["path"] == UPLOAD_PATH
        return self._settings.upload_bytes if upload else self._settings.body_bytes

    def _opening(self, scope: Scope) -> bool:
        """Whether this is the printed address with the right token in it."""
        if not self._settings.token or scope["path"] != "/" or scope["method"] != "GET":
            return False
        query = scope.get("query_string", b"")
        if len(query) > _LONGEST_QUERY:
            return False
        given = parse_qs(query.decode("latin-1")).get("token", [""])
        return self._is_token(given[0])

    async def _let_in(self, send: Send) -> None:
        cookie = f"{self._settings.cookie}={self._settings.token}; HttpOnly; SameSite=Strict"
        headers = [(b"location", b"/"), (b"set-cookie", f"{cookie}; Path=/".encode())]
        headers = _with_ours(headers)
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        for check in (self._shape, self._who, self._from_where, self._how_much):
            found = check(scope, headers)
            if found is not None:
                return found
        return None

    def _shape(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope["method"] not in _METHODS:
            return Refusal(status=405, reason="no route takes this method")
        if len(raw) > _LONGEST_PATH or len(scope.get("query_string", b"")) > _LONGEST_QUERY:
            return Refusal(status=414, reason="the address is too long")
        if _STRANGE.search(raw):
            return Refusal(status=400, reason="the path is not one of this page")
        return None

    def _who(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        """The token where one is asked for; on loopback the name that the client used."""
        if not self._settings.token:
            if _host_name(headers.get("host", "")) in LOOPBACK:
                return None
            return Refusal(status=421, reason="the Host header does not name this machine")
        if self._has_token(headers):
            return None
        return Refusal(status=401, reason="no valid token: open the address that `sammed app` said")

    def _from_where(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        if self._settings.token and self._bearer(headers):
            return None  # a program that knows the token, not a browser that sends it along
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return Refusal(status=403, reason="the request comes from another origin")
        asks = scope["path"].startswith("/api/") or scope["method"] not in ("GET", "HEAD")
        site = headers.get("sec-fetch-site", "none")
        if asks and site not in ("same-origin", "none"):
            return Refusal(status=403, reason="the request comes from another site")
        if scope["method"] not in ("GET", "HEAD") and CHANGE_HEADER not in headers:
            return Refusal(status=403, reason=f"a change without the header {CHANGE_HEADER}")
        return None

    def _how_much(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        """The declared length; what is not declared is counted while it comes."""
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            return Refusal(status=400, reason="the declared length is no number")
        if len(declared) > 15 or int(declared) > self._limit(scope):
            return Refusal(status=413, reason="the declared body is larger than this page takes")
        return None

    def _has_token(self, headers: dict[str, str]) -> bool:
        if self._bearer(headers):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        found = cookies.get(self._settings.cookie)
        return found is not None and self._is_token(found.value)

    def _bearer(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._is_token(given.strip())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._settings.token.encode())


def _headers(scope: Scope) -> dict[str, str]:
    """By name; of a name given twice the values joined, which no check takes for one."""
    found: dict[str, str] = {}
    for raw, value in scope.get("headers", []):
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _host_name(host: str) -> str:
    """Without the port, which a tunnel may change."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+)(:\d{1,5})?", host)
    return "" if found is None else found[1].strip("[]").lower()


def _with_ours(headers: Any) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; a route may set a stricter one of its own."""
    own = {name.lower() for name, _ in headers}
    ours = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
    return [*headers, *ours]


def _tell(scope: Scope, refusal: Refusal) -> None:
    path = scope["path"].encode("ascii", "backslashreplace")[:120].decode()
    shown = "".join(c if c.isprintable() else "?" for c in path)
    log.warning(
        "refused %s %s: %d, %s", scope["method"][:12], shown, refusal.status, refusal.reason
    )


async def _refuse(send: Send, refusal: Refusal) -> None:
    import json

    body = json.dumps({"error": refusal.reason}).encode()
    headers = _with_ours([(b"content-type", b"application/json"), (b"connection", b"close")])
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
