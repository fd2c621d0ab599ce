"""Prompt modes as a user writes them: what a model is handed, not how it is drawn.

``bbox``: a box. ``1pt``, ``3pt``, ``5pt``: that many clicks of one dialogue. ``bbox+3pt``: a box,
then clicks in the errors that are left. ``clicks:10``: the whole dialogue, with click metrics.
``mask``: a coarse mask. ``scribble``: points along the object's midline. How boxes and clicks are
drawn is the protocol's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sammed_data.types import UsageError, nearest

MODES = ("bbox", "1pt", "3pt", "5pt", "mask", "bbox+1pt", "bbox+3pt", "bbox+5pt", "scribble")
# Shown where modes are listed; N is any number up to MAX_CLICKS.
CLICKS = "clicks:N"
MAX_CLICKS = 100
# The dialogues: what is there before the first click.
POINTS, BOX = "points", "bbox"


def parse_modes(text: str) -> tuple[str, ...]:
    """``'1pt,bbox'`` -> modes in the order of MODES, click dialogues last, without repeats.

    Raises:
        UsageError: a mode that does not exist, or none at all.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [mode for mode in asked if mode not in MODES and not click_target(mode)]
    if unknown or not asked:
        known = (*MODES, CLICKS)
        found = ", ".join(f"{mode!r} ({nearest(mode, known)})" for mode in unknown) or "nothing"
        raise UsageError(
            f"expected prompt modes out of {', '.join(known)} (N from 1 to {MAX_CLICKS}), found "
            f"{found}: write for example --prompts 1pt,bbox,5pt"
        )
    return in_order(asked)


def in_order(modes: Iterable[str]) -> tuple[str, ...]:
    """Modes in the usual order, without repeats; what is not known comes last."""
    return tuple(sorted(set(modes), key=_place))


def _place(mode: str) -> tuple[int, int, str]:
    if mode in MODES:
        return MODES.index(mode), 0, mode
    return len(MODES), click_target(mode), mode


def click_target(mode: str) -> int:
    """The N of ``clicks:N``; 0 for any other mode."""
    match = re.fullmatch(r"clicks:([1-9]\d{0,2})", mode)
    number = int(match[1]) if match else 0
    return number if number <= MAX_CLICKS else 0


def kinds_of(mode: str) -> frozenset[str]:
    """The prompt kinds a model must accept for a mode: box, point, mask."""
    found = set()
    if mode.startswith("bbox"):
        found.add("box")
    if mode == "mask":
        found.add("mask")
    if "pt" in mode or mode == "scribble" or click_target(mode):
        found.add("point")
    return frozenset(found)


def thread_of(mode: str) -> str:
    """What is asked in one go: a dialogue (``points``, ``bbox``), or the mode itself."""
    if mode.startswith("bbox"):
        return BOX
    return mode if mode in ("mask", "scribble") else POINTS


def rounds_of(mode: str) -> int:
    """Clicks of a mode of a dialogue; 0 for the box alone, a mask and a scribble."""
    match = re.fullmatch(r"(?:bbox\+)?(\d+)pt", mode)
    return int(match[1]) if match else click_target(mode)


def threads(modes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What is asked in one go -> its modes, fewest clicks first."""
    found: dict[str, tuple[str, ...]] = {}
    for mode in modes:
        thread = thread_of(mode)
        found[thread] = tuple(sorted((*found.get(thread, ()), mode), key=rounds_of))
    return found
