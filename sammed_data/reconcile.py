"""A corpus rebuilt from the raw archives against the index of SA-Med2D-20M: what differs, and why.

Counts are of images by source and axis, and of masks by source, class and axis. Classes of the
release are compared as structures; what no structure is known for keeps its name there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sammed_data.catalog import CatalogEntry, load_catalogs, read_yaml
from sammed_data.corpus import VIEWS, Corpus, View
from sammed_data.lineage import bundled_catalogs
from sammed_data.ontology import load_ontology
from sammed_data.released.classes import ClassMap, completed, label_key, read_class_map
from sammed_data.released.names import class_id, image_name
from sammed_data.released.pairs import read_pairs
from sammed_data.shards import read_rejections
from sammed_data.types import CatalogError, ReadError, UsageError, nearest

_NAMES = "_released_names.yaml"
RELEASE = "sa_med2d_20m"
_COLUMNS = ["sample_id", "dataset", "case_id", "patient_id", "axis", "height", "width"]
_MASK_COLUMNS = [f"masks.list.element.{n}" for n in ("structure", "area_px", "annotator")]
IMAGES = ""  # stands for a class where images are counted


@dataclass(frozen=True, kw_only=True)
class Line:
    """Ours against theirs of one source, class ('' = images) and axis ('' = all)."""

    source: str
    structure: str
    axis: str
    ours: int
    theirs: int

    @property
    def difference(self) -> int:
        """Ours minus theirs."""
        return self.ours - self.theirs


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What a comparison found: ``reasons`` are those known on our side, source -> sentences."""

    lines: tuple[Line, ...]
    reasons: Mapping[str, tuple[str, ...]]

    @property
    def sources(self) -> list[tuple[Line, Line]]:
        """(images, masks) of each source over all classes and axes."""
        sums: dict[str, list[int]] = {}
        for line in self.lines:
            own = sums.setdefault(line.source, [0, 0, 0, 0])
            at = 0 if line.structure == IMAGES else 2
            own[at] += line.ours
            own[at + 1] += line.theirs
        return [
            (
                Line(source=s, structure=IMAGES, axis="", ours=n[0], theirs=n[1]),
                Line(source=s, structure="*", axis="", ours=n[2], theirs=n[3]),
            )
            for s, n in sorted(sums.items())
        ]

    @property
    def differs(self) -> bool:
        """Whether any count is another."""
        return any(line.difference for line in self.lines)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "lines": [asdict(line) | {"difference": line.difference} for line in self.lines],
            "reasons": {s: list(r) for s, r in self.reasons.items()},
            "differs": self.differs,
        }


Counts = Counter[tuple[str, str, str]]


def reconcile(
    corpus: Corpus,
    index: Path,
    *,
    source: Path | None = None,
    view: str = "sam-med2d",
    only_built: bool = False,
) -> Reconciled:
    """Compare a corpus with the released index.

    Args:
        corpus: opened corpus.
        index: ``SAMed2D_v1.json``; the file that names its classes lies beside it.
        source: catalogue folder; None = the bundled one.
        view: which of our masks count; the release left small ones out.
        only_built: leave out sources that the corpus has nothing of.

    Raises:
        UsageError: an unknown view.
        ReadError: the index or the file of classes cannot be read.
        CatalogError: the catalogue has no entry of the release.
    """
    if view not in VIEWS:
        raise UsageError(f"unknown view {view!r}; {nearest(view, VIEWS)}")
    if not index.is_file():
        raise ReadError(f"{index}: expected the index of the release, found no such file; fetch it")
    names = released_names(source)
    named = {entry: name for name, entries in names.items() for entry in entries}
    ours, small = _ours(corpus, named, VIEWS[view])
    theirs, odd = _theirs(index, source)
    if only_built:
        built = {key[0] for key in ours}
        theirs = Counter({key: n for key, n in theirs.items() if key[0] in built})
    lines = [
        Line(source=key[0], structure=key[1], axis=key[2], ours=ours[key], theirs=theirs[key])
        for key in sorted({*ours, *theirs})
    ]
    reasons = _reasons(corpus, lines, names, small, view)
    if odd:
        reasons["(index)"] = (f"{odd:,} names of the index break its grammar and are not counted",)
    return Reconciled(lines=tuple(lines), reasons=reasons)


def released_names(folder: Path | None) -> dict[str, list[str]]:
    """Name of a source in the release -> entries that rebuild it.

    Raises:
        CatalogError: the table is not a mapping of lists.
    """
    path = (folder or bundled_catalogs()) / _NAMES
    if not path.is_file():
        path = bundled_catalogs() / _NAMES
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not all(isinstance(v, list) for v in raw.values()):
        raise CatalogError(f"{path}: expected {{released name: [entry, ...]}}")
    return {str(name): [str(e) for e in entries] for name, entries in raw.items()}


def _ours(corpus: Corpus, named: Mapping[str, str], view: View) -> tuple[Counts, Counter[str]]:
    """Counts of the corpus under a view, and how many masks of a source the view left out."""
    counts, small = Counts(), Counter[str]()
    for row in _rows(corpus):
        name, axis = _place(row, named)
        square = view.keeps_image(row["height"], row["width"])
        least = view.min_area_fraction * row["height"] * row["width"]
        kept = [
            m["structure"]
            for m in row["masks"] or ()
            if square and m["area_px"] >= least and view.annotator in (None, m["annotator"])
        ]
        small[name] += len(row["masks"] or ()) - len(kept)
        counts[name, IMAGES, axis] += bool(kept)
        for structure in kept:
            counts[name, structure, axis] += 1
    return +counts, +small


def _rows(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for shard in range(len(corpus.shards)):
        table, _ = corpus.columns(shard, [*_COLUMNS, *_MASK_COLUMNS])
        gone = corpus.excluded(table)
        yield from (r for r, out in zip(table.to_pylist(), gone, strict=True) if not out)


def _place(row: Mapping[str, Any], named: Mapping[str, str]) -> tuple[str, str]:
    """(source, axis) of a row, in the words of the release where it has some."""
    if row["dataset"] == RELEASE:
        name = image_name(row["case_id"])
        return name.source, name.axis
    return named.get(row["dataset"], f"({row['dataset']})"), row["axis"]


def _theirs(index: Path, folder: Path | None) -> tuple[Counts, int]:
    """Counts of the release, and how many names could not be read."""
    entry, classes = _release(index, folder)
    ontology = load_ontology(folder)
    known: dict[tuple[str, str], str] = {}
    counts, odd = Counts(), 0
    for image, masks in read_pairs(index):
        try:
            name = image_name(image.rpartition("/")[2].removesuffix(".png"))
        except ReadError:
            odd += 1
            continue
        axis = name.axis
        counts[name.source, IMAGES, axis] += 1
        for mask in masks:
            key = name.source, class_id(mask) or "?"
            if key not in known:
                label = classes.get(key[0], {}).get(key[1], key[1])
                raw = label_key(entry.labels, key[0], label)
                known[key] = (
                    f"{key[0]}/{label}" if raw is None else ontology.resolve(entry.labels[raw]).name
                )
            counts[name.source, known[key], axis] += 1
    return counts, odd


def _release(index: Path, folder: Path | None) -> tuple[CatalogEntry, ClassMap]:
    entries = load_catalogs(folder)
    entry = entries.get(RELEASE) or load_catalogs(None)[RELEASE]
    rule = entry.collection
    if rule is None or rule.classes is None:
        raise CatalogError(f"{RELEASE}: expected `collection` with `classes`; mend the entry")
    classes = read_class_map(index.parent / rule.classes)
    return completed(entry, index.parent, load_ontology(folder)), classes


def _reasons(
    corpus: Corpus,
    lines: Sequence[Line],
    names: Mapping[str, Sequence[str]],
    small: Mapping[str, int],
    view: str,
) -> dict[str, tuple[str, ...]]:
    """What is known on our side of every source that differs."""
    rejected = _rejected(corpus)
    present = {d["id"] for d in corpus.manifest["datasets"]}
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted({line.source for line in lines if line.difference}):
        own = [line for line in lines if line.source == name]
        entries = names.get(name, ())
        said = []
        if not any(line.ours for line in own):
            here = [e for e in entries if e in present]
            said.append(
                "no entry of the catalogue rebuilds it" if not entries
                else f"not in the corpus: {', '.join(entries)}" if not here
                else f"nothing is left of {', '.join(here)}"
            )  # fmt: skip
        else:
            said += _axes_not_cut(own)
        if small.get(name):
            said.append(f"{small[name]:,} of our masks are outside the view {view}")
        for entry in entries:
            said += [f"{entry}: {n:,} {rule}" for rule, n in sorted(rejected[entry].items())]
        if said:
            found[name] = tuple(said)
    return found


def _axes_not_cut(own: Sequence[Line]) -> list[str]:
    ours = {line.axis for line in own if line.ours}
    lost = Counter[str]()
    for line in own:
        if line.structure == IMAGES and line.axis not in ours:
            lost[line.axis] += line.theirs
    return [
        f"axis {axis} is not cut ({n:,} images there): --axes" for axis, n in sorted(lost.items())
    ]


def _rejected(corpus: Corpus) -> dict[str, Counter[str]]:
    table = read_rejections(corpus.root)
    summed = table.group_by(["dataset", "level", "rule"]).aggregate([("count", "sum")])
    found: dict[str, Counter[str]] = {}
    for row in summed.to_pylist():
        own = found.setdefault(row["dataset"], Counter())
        own[f"{row['level']}s rejected by {row['rule']}"] += row["count_sum"]
    return _Missing(found)


class _Missing(dict[str, Counter[str]]):
    """Nothing was rejected of a dataset that is not there."""

    def __missing__(self, key: str) -> Counter[str]:
        return Counter()
