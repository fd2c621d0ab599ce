"""Palettes of label pictures: whether their numbers serve as classes, or only their colours do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sammed_data.propose.carriers import worst
from sammed_data.propose.coding import Coding, Seen
from sammed_data.propose.formats import describe
from sammed_data.propose.maps import of_map

_Colour = tuple[int, ...]
_BLACK = (0, 0, 0)


def of_palettes(root: Path, seen: Sequence[Seen]) -> Coding | None:
    """The encoding by colours, where the numbers behind them mislead; None where they do not.

    A program that reduces colours by itself numbers them as it likes: another number for the same
    colour in another file, or a background that is not 0.
    """
    tables = [_palette(root / s.item.path) for s in seen if s.item.kind == "raster"]
    if not tables or len(tables) < len(seen) or any(t is None for t in tables):
        return None
    colours: dict[int, set[_Colour]] = {}
    for table, one in zip(tables, seen, strict=True):
        for value in one.look.counts:
            if table is not None and value < len(table):
                colours.setdefault(value, set()).add(table[value])
    black = {v for v, found in colours.items() if _BLACK in found}
    if any(len(found) > 1 for found in colours.values()):
        why = "one number has several colours in several files"
    elif black and 0 not in black and 0 in colours:
        why = f"black has the number {min(black)}"
    else:
        return None
    found = of_map(with_colours(root, seen))
    note = f"the palettes' own numbers mislead ({why}): colours are read in their place"
    return replace(found, doubt=worst(found.doubt, "medium"), notes=(*found.notes, note))


def with_colours(root: Path, seen: Sequence[Seen]) -> list[Seen]:
    """The same files with the colours of their palettes; files without one as they are."""
    from sammed_data.readers.registry import read_label_map

    out: list[Seen] = []
    for one in seen:
        if one.item.kind == "raster":
            array = read_label_map(root / one.item.path, colours=True)[0]
            one = Seen(item=one.item, array=array, look=describe(array))
        out.append(one)
    return out


def _palette(path: Path) -> list[_Colour] | None:
    """Colours of a picture's palette by number; None where it has none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            table = image.getpalette("RGB") if image.mode == "P" else None
    except (OSError, SyntaxError, ValueError):
        return None
    if table is None:
        return None
    return [tuple(table[k : k + 3]) for k in range(0, len(table) - 2, 3)]
