"""Where computing time goes: functions marked with their stage, timed only while someone asks.

The time of a stage excludes what stages inside it take, so that all of them add up to the whole.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: What a build cannot do without; everything else is its overhead.
FLOOR = ("read and decode", "source digest", "encode images", "encode masks")
REST = "bookkeeping"


class _Clock:
    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.process_time()

    def turn(self) -> None:
        """Charge what passed to the innermost open stage."""
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def enter(self, name: str) -> None:
        self.turn()
        self._open.append(name)

    def leave(self) -> None:
        self.turn()
        self._open.pop()


_clock: _Clock | None = None


def stage(name: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Mark a function as (part of) a stage."""

    def mark(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            clock = _clock
            if clock is None:
                return function(*args, **kwargs)
            clock.enter(name)
            try:
                return function(*args, **kwargs)
            finally:
                clock.leave()

        return timed

    return mark


@contextmanager
def watch() -> Iterator[dict[str, float]]:
    """CPU seconds of this process by stage, complete when the block ends."""
    global _clock  # noqa: PLW0603 - one measurement at a time; workers have one each
    clock = _clock = _Clock()
    try:
        yield clock.seconds
    finally:
        clock.turn()
        _clock = None


def profile_lines(seconds: Mapping[str, float]) -> list[str]:
    """Stages by their time, those of the floor first, and the ratio of the whole to the floor."""
    total, floor = sum(seconds.values()), sum(seconds.get(name, 0.0) for name in FLOOR)
    if not floor:
        return ["profile: no shard was built, so nothing was measured"]
    rest = sorted(set(seconds) - set(FLOOR), key=lambda name: -seconds[name])
    lines = [
        f"{name:<16} {seconds.get(name, 0.0):9.3f} s {seconds.get(name, 0.0) / total:6.1%}"
        for name in (*FLOOR, *rest)
    ]
    lines.insert(len(FLOOR), f"{'floor':<16} {floor:9.3f} s {floor / total:6.1%}")
    return [*lines, f"{'all':<16} {total:9.3f} s, {total / floor:.2f} x the floor, CPU time"]
