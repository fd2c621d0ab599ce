"""The tabs that are open: each is closed when its page goes, or when it was idle for hours."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from sammed_app.page.session import Session
from sammed_app.page.weights import Weights
from sammed_app.page.worker import Worker
from sammed_data.types import UsageError

MOST_SESSIONS = 12
IDLE_S = 3 * 3600.0


class Sessions:
    """All tabs of one server."""

    def __init__(
        self, weights: Weights, worker: Worker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weights, self._worker, self._clock = weights, worker, clock
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(self) -> Session:
        """A new tab; those that were idle for hours are closed, and the idlest of too many."""
        with self._lock:
            for session in sorted(self._open.values(), key=lambda s: s.used):
                idle = self._clock() - session.used > IDLE_S
                if idle or len(self._open) >= MOST_SESSIONS:
                    self._open.pop(session.name).close()
            made = Session(secrets.token_urlsafe(12), self._weights, self._worker)
            made.used = self._clock()
            self._open[made.name] = made
            return made

    def get(self, name: str) -> Session:
        """A tab by its name.

        Raises:
            UsageError: it was closed.
        """
        with self._lock:
            if name not in self._open:
                raise UsageError("this tab was idle for too long: load the page again")
            self._open[name].used = self._clock()
            return self._open[name]

    def close(self, name: str) -> None:
        """Close a tab, if it is open."""
        with self._lock:
            session = self._open.pop(name, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """At the end of the server."""
        for name in list(self._open):
            self.close(name)
        self._worker.close()
