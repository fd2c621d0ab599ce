"""Join labels to images: by DICOM references, by names in several strictnesses, by grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sammed_data.propose.carriers import Item, Pair, Role
from sammed_data.propose.formats import grid_key
from sammed_data.propose.names import parse, sequence_of

_MAX_GRIDS, _SEQUENCES, _MANY = 600, 8, 2_000
_Key = tuple[str, ...]
# How sure each rule is; the worst rule that joined a pair of a group counts.
SURE = {
    "DICOM references": "low",
    "equal names": "low",
    "image name begins the mask name": "low",
    "mask name begins the image name": "low",
    "equal names but for the sequence": "low",
    "equal file names in other folders": "medium",
    "file names that begin alike": "medium",
    "one folder a case": "medium",
    "one grid in space": "medium",
    "the only image": "medium",
    "named by the outlines": "low",
    "named by the table": "low",
    "arrays of one file": "low",
    "told": "low",
}


def pair_up(root: Path, items: Sequence[Item], role: Mapping[str, Role]) -> list[Pair]:
    """Pairs of an image with one label each; a label of several images appears once for each.

    A label that no rule joins is in no pair.
    """
    images = [i for i in items if role.get(i.path) == "image"]
    labels = [i for i in items if role.get(i.path) == "label"]
    index = _Index(images)
    pairs: list[Pair] = []
    left: list[Item] = []
    for label in labels:
        found = index.find(label)
        if found is None:
            left.append(label)
        else:
            how, matched = found
            pairs += [Pair(image=i, labels=(label,), how=how) for i in matched]
    pairs += _by_grid(root, images, left, {p.image.path for p in pairs})
    return _stacked(pairs)


def _stacked(pairs: Sequence[Pair]) -> list[Pair]:
    """Pictures that belong to a DICOM series are its slices: their folder is the label."""
    out: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        label, series = pair.labels[0], pair.image.path.endswith("/")
        folder = label.path.rpartition("/")[0]
        if series and label.kind == "raster" and folder:
            stack = Item(path=f"{folder}/", kind="stack")
            out[pair.image.path, stack.path] = Pair(image=pair.image, labels=(stack,), how=pair.how)
        else:
            out[pair.image.path, label.path] = pair
    return list(out.values())


class _Index:
    """Images by the keys that a label may look for."""

    def __init__(self, images: Sequence[Item]) -> None:
        self.series: dict[str, list[Item]] = {}
        self.exact: dict[_Key, list[Item]] = {}
        self.loose: dict[_Key, list[Item]] = {}
        self.own: dict[_Key, list[Item]] = {}
        self.begins: dict[_Key, list[Item]] = {}
        self.own_begins: dict[_Key, list[Item]] = {}
        self.under: dict[tuple[str, ...], list[Item]] = {}
        for image in images:
            name = parse(image.path)
            if image.series:
                self.series.setdefault(image.series, []).append(image)
            self.exact.setdefault(name.key, []).append(image)
            self.loose.setdefault(name.loose, []).append(image)
            self.own.setdefault(name.own, []).append(image)
            for n in range(1, len(name.folders) + 1):
                self.under.setdefault(name.folders[:n], []).append(image)
            for n in range(1, len(name.key)):
                self.begins.setdefault(name.key[:n], []).append(image)
            for n in range(1, len(name.own)):
                self.own_begins.setdefault(name.own[:n], []).append(image)

    def find(self, label: Item) -> tuple[str, list[Item]] | None:
        """The rule that joins a label to images, and these; None if no rule does."""
        referred = [i for series in label.refers for i in self.series.get(series, ())]
        if referred:
            return "DICOM references", referred
        name = parse(label.path)
        if name.key in self.exact:
            return "equal names", _nearest(label, self.exact[name.key])
        for key in _shorter(name.key):
            if key in self.exact:
                return "image name begins the mask name", _nearest(label, self.exact[key])
        if name.key in self.begins and _is_specific(name.key):
            return "mask name begins the image name", self.begins[name.key]
        # A mask that names its sequence is not that of another sequence's image.
        if name.loose == name.key and name.loose and name.loose in self.loose:
            return "equal names but for the sequence", self.loose[name.loose]
        return self._equal_file_names(label) or self._by_folder(label) or self._alike(label)

    def _equal_file_names(self, label: Item) -> tuple[str, list[Item]] | None:
        own = parse(label.path).own
        found = _likest(label, self.own.get(own, ())) if own else []
        return ("equal file names in other folders", found) if found else None

    def _alike(self, label: Item) -> tuple[str, list[Item]] | None:
        """File names that begin with the same tokens, a number among them."""
        own = parse(label.path).own
        for key in (own, *_shorter(own)):
            if not _is_specific(key):
                break
            found = _likest(label, [*self.own.get(key, ()), *self.own_begins.get(key, ())])
            if found:
                return "file names that begin alike", found
        return None

    def _by_folder(self, label: Item) -> tuple[str, list[Item]] | None:
        """The images of the nearest folder that has any, if its name tells cases apart."""
        folders = parse(label.path).folders
        for n in range(len(folders), 0, -1):
            found = self.under.get(folders[:n], [])
            if not found:
                continue
            words = [sequence_of(i.path) for i in found]
            several = "" not in words and len(set(words)) == len(words) <= _SEQUENCES
            if (len(found) == 1 or several) and any(c.isdigit() for c in folders[n - 1]):
                return "one folder a case", found
            return None
        return None


def _likest(label: Item, images: Sequence[Item]) -> list[Item]:
    """The one image whose path has most numbers in common with the label's; none on a tie."""
    if len(images) == 1 and _is_specific(parse(label.path).own):
        return list(images)
    if not 1 < len(images) <= _MANY:
        return []
    wanted = Counter(t for t in parse(label.path).key if any(c.isdigit() for c in t))
    scores = [sum((wanted & Counter(parse(i.path).key)).values()) for i in images]
    best = max(scores)
    found = [i for i, score in zip(images, scores, strict=True) if score == best]
    return found if len(found) == 1 else []


def _shorter(key: _Key) -> Iterable[_Key]:
    for n in range(len(key) - 1, 0, -1):
        if key[n - 1] != "/":
            yield key[:n]


def _is_specific(key: _Key) -> bool:
    """Whether a key tells cases apart: it has a number or a long word."""
    return any(any(c.isdigit() for c in t) or len(t) > 8 for t in key)


def _nearest(label: Item, images: Sequence[Item]) -> list[Item]:
    """Of several images of one key those that share most folders with the label."""
    if len(images) == 1:
        return list(images)
    folders = parse(label.path).folders
    shared = [_common(folders, parse(i.path).folders) for i in images]
    return [i for i, n in zip(images, shared, strict=True) if n == max(shared)]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def _by_grid(
    root: Path, images: Sequence[Item], left: Sequence[Item], taken: set[str]
) -> list[Pair]:
    """Labels without a name to go by: the one image on the same grid, or the only image."""
    volumes = [i for i in images if i.kind in ("nifti", "itk", "dicom")]
    plain = [x for x in left if x.kind in ("nifti", "itk")]
    pairs: list[Pair] = []
    if plain and volumes and len(plain) + len(volumes) <= _MAX_GRIDS:
        grids: dict[object, list[Item]] = {}
        for image in volumes:
            key = grid_key(root, image)
            if key is not None:
                grids.setdefault(key, []).append(image)
        for label in plain:
            found = grids.get(grid_key(root, label), [])
            free = [i for i in found if i.path not in taken] or found
            if len(free) == 1:
                pairs.append(Pair(image=free[0], labels=(label,), how="one grid in space"))
    joined = {p.labels[0].path for p in pairs}
    rest = [x for x in left if x.path not in joined]
    for label in rest:
        near = _near_dicom(label, volumes) if label.kind in ("seg", "rtstruct") else images
        if len(near) == 1:
            pairs.append(Pair(image=near[0], labels=(label,), how="the only image"))
    return pairs


def _near_dicom(label: Item, images: Sequence[Item]) -> Sequence[Item]:
    """Series of the label's frame of reference, else all that share the most folders with it."""
    framed = [i for i in images if i.frame and i.frame == label.frame]
    return _nearest(label, framed or list(images)) if images else []
