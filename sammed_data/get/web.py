"""HTTP for downloads: only http(s), tokens stay with their host, errors in words, retries."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from sammed_data.types import FetchError

TIMEOUT_S = 30.0
BLOCK = 1 << 20
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 60.0
Response = http.client.HTTPResponse


class TryAgainError(Exception):
    """The connection or the server failed in a way that may pass; ``wait_s`` if it said when."""

    def __init__(self, said: str, wait_s: float | None = None) -> None:
        super().__init__(said)
        self.wait_s = wait_s


def safe_url(url: str) -> str:
    """An address for messages: without password, query and fragment: they may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origin(url: str) -> tuple[str, str]:
    """(scheme, host and port): what a token belongs to."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower()


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, never down from https, and leaves the token behind."""

    max_redirections = 10

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,  # type: ignore[override]
        newurl: str,
    ) -> urllib.request.Request:
        target = urljoin(req.full_url, newurl)
        old, new = urlsplit(req.full_url).scheme, urlsplit(target).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise FetchError(
                f"{safe_url(req.full_url)}: expected a file or a redirect within https, found a "
                f"redirect to {new or 'nothing'}: not followed; check the address in the entry"
            )
        passed = {k: v for k, v in req.headers.items() if k.lower() != "authorization"}
        request = urllib.request.Request(target, headers=passed, method=req.get_method())  # noqa: S310
        token = req.unredirected_hdrs.get("Authorization")
        if token and origin(target) == origin(req.full_url):
            request.add_unredirected_header("Authorization", token)
        return request


def _opener() -> urllib.request.OpenerDirector:
    """No handler for file:, ftp: or data: exists in it."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(), _Redirect(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


@dataclass(frozen=True, kw_only=True)
class Web:
    """How to ask: patience and clock; tests put their own ``sleep`` in.

    Attributes:
        retries: attempts after the first that brought no new byte.
        backoff_s: first pause; it doubles.
    """

    retries: int = 5
    backoff_s: float = 1.0
    timeout_s: float = TIMEOUT_S
    sleep: Callable[[float], None] = time.sleep
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def token(self, name: str | None) -> str | None:
        """The token in an environment variable, or None; it is never part of any message."""
        value = self.environ.get(name, "").strip() if name else ""
        return value or None

    def open(
        self, url: str, *, headers: Mapping[str, str] | None = None, token_env: str | None = None
    ) -> Response:
        """One GET request.

        Raises:
            TryAgainError: the connection broke or the server is busy.
            FetchError: the server says no; what to do is in the sentence.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise FetchError(
                f"expected an http(s) address, found {safe_url(url)!r}: mend the entry"
            )
        asked = {"User-Agent": "sammed", "Accept-Encoding": "identity"} | dict(headers or {})
        request = urllib.request.Request(url, headers=asked)  # noqa: S310  scheme checked above
        token = self.token(token_env)
        if token:
            _refuse_plain(url)
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            found: Response = _opener().open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as err:
            with err:
                raise _refusal(err, url, token_env, token is not None) from err
        except (OSError, http.client.HTTPException) as err:
            reason = getattr(err, "reason", None) or err
            raise TryAgainError(f"{safe_url(url)}: {reason}") from err
        return found

    def patiently(self, ask: Callable[[], Any], progressed: Callable[[], int] | None = None) -> Any:
        """Call ``ask`` until it works; pauses double, and start anew when bytes were gained.

        Raises:
            FetchError: it failed once and ``retries`` times more without a new byte.
        """
        failures, gained = 0, progressed() if progressed else 0
        while True:
            try:
                return ask()
            except TryAgainError as err:
                now = progressed() if progressed else 0
                failures, gained = (1 if now > gained else failures + 1), max(now, gained)
                if failures > self.retries:
                    raise FetchError(
                        f"{err}; gave up after {failures} attempts: run again to continue"
                    ) from err
                pause = self.backoff_s * 2 ** (failures - 1)
                self.sleep(min(max(pause, err.wait_s or 0.0), _LONGEST_WAIT_S))


def _refuse_plain(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise FetchError(
            f"{safe_url(url)}: a token would travel unencrypted: write the address with https://"
        )


def _refusal(err: urllib.error.HTTPError, url: str, token_env: str | None, sent: bool) -> Exception:
    # The reason may repeat a signed address.
    reason = http.client.responses.get(err.code, "")
    where = f"{safe_url(url)}: the server answered {err.code} {reason}".rstrip()
    if err.code in range(300, 400):
        return FetchError(f"{where}: its redirects lead nowhere that may be followed")
    if err.code in _RETRIED:
        after = err.headers.get("Retry-After", "")
        return TryAgainError(where, float(after) if after.isdigit() else None)
    if err.code in (401, 403):
        if sent:
            hint = f"the token in ${token_env} is not accepted; renew it, or ask for access first"
        elif token_env:
            hint = f"put your access token into the environment variable {token_env}"
        else:
            hint = "this source wants a login; get the files by hand and put them under --root"
        return FetchError(f"{where}: {hint}")
    return FetchError(f"{where}: check the address in the entry, or get the files by hand")
