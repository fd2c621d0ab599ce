"""Arrays of npy, npz and mat files: which of a file is meant, and what its axes are.

Such files say neither; both are guessed from names, shapes and, for stacks, from the planes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.propose.axes import SIDE, axes_like, guess_axes, images_in
from sammed_data.propose.carriers import (
    ArrayPart,
    Item,
    Pair,
    Survey,
    worst,
)
from sammed_data.propose.names import IMAGE_WORDS, LABEL_WORDS, tokens
from sammed_data.readers import arrays as reader
from sammed_data.types import Case, Pick, ReadError, SammedError

MAX_HEADERS = 4_000
_A_POOL = 12  # headers read of files of one kind once there are many kinds
_MAX_PLANE_BYTES = 96 << 20
_PLANES, _ALIKE, _UNLIKE = 8, 0.6, 0.85
_ITEMS = 6  # label maps of one stack that are looked at


def with_arrays(root: Path, found: Survey) -> Survey:
    """The survey with the parts of its array files; files of image and mask become bundles."""
    files = [i for i in found.items if i.kind == "array"]
    if not files:
        return found
    bad = list(found.unreadable)
    parts: dict[str, list[ArrayPart]] = {}
    pools = _pools(files)
    most = max(_A_POOL, MAX_HEADERS // len(pools))
    for pool in pools:
        for item in pool[:most]:
            try:
                parts[item.path] = _chosen(item.path, reader.headers(root / item.path), bad)
            except SammedError as err:
                bad.append((item.path, str(err).replace(f"{root}/", "")))
        _fill(root, pool, parts, pool[most:])
    items = [i for i in found.items if i.kind != "array"]
    bundles = []
    for item in files:
        own = [replace(item, array=p, size=_bytes_read(item, p)) for p in parts.get(item.path, ())]
        if len(own) == 1:
            items += own
        elif own:
            bundles.append((own[0], own[1]))
    limit = found.limit
    if any(len(pool) > most for pool in pools):
        limit = limit or f"headers of at most {most:,} array files of one kind were read"
    return replace(
        found, items=tuple(sorted(items, key=lambda i: i.path)), bundles=tuple(bundles),
        unreadable=tuple(bad), limit=limit,
    )  # fmt: skip


def bundle_pairs(found: Survey) -> list[Pair]:
    """Image and mask that are arrays of one file."""
    return [Pair(image=i, labels=(x,), how="arrays of one file") for i, x in found.bundles]


def pick_of(item: Item, number: int | None = None) -> Pick:
    """What the readers need to know of an item; ``number`` along its axis N."""
    part = item.array
    if part is None:
        return Pick()
    return Pick(variable=part.variable, axes=part.axes or None, item=number)


def label_maps(root: Path, item: Item) -> Iterator[NDArray[Any]]:
    """Label maps of a file: the file, or some along its axis N.

    Raises:
        ReadError: it holds no label map.
    """
    from sammed_data.readers.registry import read_label_map

    n = images_in(item)
    numbers = [None] if n is None else [int(k) for k in np.linspace(0, n - 1, min(n, _ITEMS))]
    for number in numbers:
        array = read_label_map(root / item.path, pick=pick_of(item, number))[0]
        if array.ndim == 4 and array.shape[-1] != 3:
            raise ReadError(
                f"{item.path}: expected a label map or colours, found {array.shape[-1]} channels: "
                "perhaps one a class (encoding channel_instances); write the entry by hand"
            )
        yield array


def write_items(path: Path, place: Path, cases: Sequence[Case]) -> bool:
    """Write the items that some cases have of a npy or npz file; False where it is no stack."""
    parts = [(c.image_path, c.pick) for c in cases]
    parts += [(x.path, x.pick) for c in cases for x in c.labels]
    picks = [pick for file, pick in parts if file == path and pick.item is not None]
    if not picks or path.suffix.lower() == ".mat":
        return False
    numbers = sorted({p.item for p in picks if p.item is not None})
    found = {}
    for variable, axis in {(p.variable, (p.axes or "").index("N")) for p in picks}:
        if path.suffix.lower() == ".npy":
            planes = [reader.read_array(path, None, item=(axis, k)) for k in numbers]
            found[variable or "array"] = np.stack(planes, axis)
        else:
            whole = reader.read_array(path, variable, item=None)
            found[variable or "array"] = whole.take(numbers, axis)
    if path.suffix.lower() == ".npy":
        np.save(place, next(iter(found.values())))
    else:
        np.savez(place, allow_pickle=False, **found)
    return True


def _chosen(
    path: str, found: Mapping[str, tuple[tuple[int, ...], str]], bad: list[tuple[str, str]]
) -> list[ArrayPart]:
    """The one array of a file that can be an image or a mask; or image and mask."""
    flat = {n: h for n, h in found.items() if _sides(h[0])}
    named = {n: _part(n if len(found) > 1 else None, h) for n, h in flat.items()}
    if len(named) == 1:
        return list(named.values())
    words = {n: {t.lower() for t in tokens(n)} for n in named}
    labels = [n for n, w in words.items() if w & (LABEL_WORDS | {"y"})]
    images = [n for n, w in words.items() if n not in labels and w & (IMAGE_WORDS | {"x"})]
    if len(images) == 1 and len(labels) == 1:
        image, label = named[images[0]], named[labels[0]]
        if axes_like(image, label.shape) is not None:
            return [image, label]
        bad.append((path, f"arrays {images[0]} {image.shape} and {labels[0]} {label.shape} "
                    "have shapes that do not fit"))  # fmt: skip
        return []
    shown = ", ".join(f"{n} {h[0]}" for n, h in list(found.items())[:6]) or "no array of numbers"
    bad.append(
        (path, f"expected one image array, one mask array or both by name, found {shown}; write "
         "`variable` in an entry of your own")
    )  # fmt: skip
    return []


def _sides(shape: tuple[int, ...]) -> bool:
    return 2 <= len(shape) <= 4 and sorted(shape)[-2] >= SIDE and min(shape) > 0


def _part(variable: str | None, header: tuple[tuple[int, ...], str]) -> ArrayPart:
    axes, doubt, why = guess_axes(header[0], header[1])
    return ArrayPart(variable=variable, shape=header[0], kind=header[1], axes=axes,
                     doubt=doubt, why=why)  # fmt: skip


def _pools(files: Sequence[Item]) -> list[list[Item]]:
    """Files whose names differ by numbers alone."""
    pools: dict[str, list[Item]] = {}
    for item in files:
        pools.setdefault(re.sub(r"\d+", "0", item.path), []).append(item)
    return list(pools.values())


def _fill(
    root: Path, pool: Sequence[Item], parts: dict[str, list[ArrayPart]], unread: Sequence[Item]
) -> None:
    """Files of a pool have the axes that most of them seem to have; stacks are looked into."""
    known = [parts[i.path] for i in pool if parts.get(i.path)]
    if not known:
        return
    for item in unread:
        parts[item.path] = list(known[0])
    for k in range(len(known[0])):
        votes = Counter((len(p[k].shape), p[k].axes) for p in known if len(p) > k)
        for path in (i.path for i in pool if len(parts.get(i.path, ())) > k):
            part = parts[path][k]
            of_rank = [(n, a) for (d, a), n in votes.items() if d == len(part.shape)]
            axes = max(of_rank)[1]
            if axes != part.axes:
                why = f"{part.why}; taken as most files of this kind"
                parts[path][k] = replace(part, axes=axes, doubt="high", why=why)
    stacked = ("ZYX", "NYXC", "NYXZ", "NZYX")
    first = next((i for i in pool if parts.get(i.path) and parts[i.path][0].axes in stacked), None)
    if first is not None:
        _settle_stack(root, first, [parts[i.path] for i in pool if parts.get(i.path)])


def _settle_stack(root: Path, item: Item, pool: Sequence[list[ArrayPart]]) -> None:
    """Whether planes of an array are slices of a volume or images of their own."""
    part = next(own[0] for own in pool if own[0].axes not in ("", "YXZ", "YXC", "CYX"))
    ratio = _likeness(root, item, part) if part.kind in "uif" else None
    for own in pool:
        if own[0].axes.startswith("N") and own[0].doubt != "high":
            said = "; neighbours are alike: perhaps slices of one volume"
            if ratio is None or ratio < _UNLIKE:
                own[0] = replace(own[0], doubt="high", why=own[0].why + said)
        elif own[0].axes != "ZYX":
            continue
        elif ratio is None:
            said = "; too few or too large planes to tell a volume from many images"
            own[0] = replace(own[0], doubt="high", why=own[0].why + said)
        elif ratio >= _UNLIKE:
            said = "; planes are unlike their neighbours: images of their own"
            doubt = worst(own[0].doubt, "medium")
            own[0] = replace(own[0], axes="NYX", doubt=doubt, why=own[0].why + said)
        elif ratio > _ALIKE:
            said = "; planes are somewhat like their neighbours: a volume, or many images"
            own[0] = replace(own[0], doubt="high", why=own[0].why + said)
        else:
            own[0] = replace(own[0], why=own[0].why + "; planes are like their neighbours")


def _likeness(root: Path, item: Item, part: ArrayPart) -> float | None:
    """Difference of neighbouring planes as a share of that of distant ones."""
    n = part.shape[0]
    is_npy = item.path.lower().endswith(".npy")
    if n < 4 or (not is_npy and item.size > _MAX_PLANE_BYTES):
        return None
    path = root / item.path
    try:
        whole = None if is_npy else reader.read_array(path, part.variable, item=None)
        near, far = 0.0, 0.0
        for k in (int(v) for v in np.linspace(0, n - 2, min(n - 1, _PLANES))):
            planes = [
                np.nan_to_num(
                    reader.read_array(path, None, item=(0, j)) if whole is None else whole[j]
                ).astype(np.float64)
                for j in (k, k + 1, (k + n // 2) % n)
            ]
            near += float(np.abs(planes[0] - planes[1]).mean())
            far += float(np.abs(planes[0] - planes[2]).mean())
    except SammedError:
        return None
    return near / far if far else None


def _bytes_read(item: Item, part: ArrayPart) -> int:
    """Bytes that one image of the file takes, for budgets."""
    one = item.path.lower().endswith(".npy") and "N" in part.axes
    return item.size // max(1, part.shape[part.axes.index("N")]) if one else item.size
