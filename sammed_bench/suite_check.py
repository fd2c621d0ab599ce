"""A corpus against a suite: what differs is named before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sammed_bench import metrics
from sammed_bench.protocols import Protocol, parse_protocol
from sammed_bench.suite import FrozenDataset, FrozenView, Suite, digest_of
from sammed_data.corpus import VIEWS, Corpus, Row
from sammed_data.types import CorpusError, UsageError, nearest

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a corpus holds of one dataset, in the words of a suite."""

    samples: tuple[str, ...]
    masks: int
    content_sha256: str
    versions: frozenset[int]
    by_sample: Mapping[str, str]


def measured(corpus: Corpus, ids: Sequence[str], splits: Sequence[str]) -> dict[str, Measured]:
    """The images of some datasets in some splits, excluded ones left out.

    Raises:
        CorpusError: rows without a content hash.
    """
    own: dict[str, list[Row]] = {name: [] for name in ids}
    for row in corpus.index(splits):
        if row.dataset in own:
            own[row.dataset].append(row)
    return {name: _measured(rows, corpus) for name, rows in own.items() if rows}


def _measured(rows: Sequence[Row], corpus: Corpus) -> Measured:
    content = {row.sample_id: str(row.meta.get("content_sha256") or "") for row in rows}
    if not all(content.values()):
        raise CorpusError(
            f"expected a content hash in every row of {corpus.root}, found none in dataset "
            f"{rows[0].dataset}: build it again"
        )
    return Measured(
        samples=tuple(sorted(content)),
        masks=sum(len(row.masks) for row in rows),
        content_sha256=digest_of(f"{name} {value}" for name, value in content.items()),
        versions=frozenset(int(row.meta.get("catalog_version") or 0) for row in rows),
        by_sample=content,
    )


def check(suite: Suite, corpus: Corpus, protocol: str | None = None) -> tuple[Protocol, list[str]]:
    """The protocol to use, and what must be said; a corpus that differs is refused.

    Args:
        suite: asked for.
        corpus: to be scored.
        protocol: one of the suite's; None = its first.

    Raises:
        UsageError: another protocol, or another version of sammed.
        CorpusError: the corpus is not that of the suite: what differs.
    """
    chosen = _protocol(suite, protocol)
    found = measured(corpus, suite.ids, suite.splits)
    wrong = [said for d in suite.datasets for said in _differs(d, found.get(d.id), suite)]
    if wrong:
        more = f"; and {len(wrong) - _NAMED} differences more" if len(wrong) > _NAMED else ""
        options = ", ".join(_options(suite, corpus.manifest.get("options") or {}))
        built = f" (built with {options})" if options else ""
        raise CorpusError(
            f"the corpus {corpus.root} is not that of suite {suite.name}{built}: "
            f"{'; '.join(wrong[:_NAMED])}{more}: {_remedy(suite)}"
        )
    notes = []
    if suite.unfrozen:
        command = next(d.unfrozen for d in suite.datasets if d.unfrozen)
        notes.append(
            f"suite {suite.name} does not state which images {', '.join(suite.unfrozen)} consist "
            f"of: these rows can be compared with others of the same corpus alone; `{command}` "
            "freezes them"
        )
    return chosen, notes


def _remedy(suite: Suite) -> str:
    how = f"by `{' && '.join(suite.how)}`" if suite.how else "as the suite says"
    return f"build it {how}, or give another --corpus"


def _protocol(suite: Suite, asked: str | None) -> Protocol:
    """The protocol, drawn as it was when the suite was frozen."""
    known = {frozen.name: frozen.hash for frozen in suite.protocols}
    name = asked or suite.protocols[0].name
    if name not in known:
        raise UsageError(
            f"expected --protocol to be one of suite {suite.name}, found {name!r} "
            f"({nearest(name, known)})"
        )
    found = parse_protocol(name)
    here = {f"protocol {name}": (found.hash[:12], known[name][:12])}
    here["metrics"] = (f"version {metrics.VERSION}", f"version {suite.metrics_version}")
    here |= {f"view {v.name}": (_view(v.name), str(asdict(v))) for v in suite.views}
    for what, (now, then) in here.items():
        if now != then:
            raise UsageError(
                f"suite {suite.name} was frozen with {what} {then}, found {now}: use the version "
                "of sammed that froze it, or another version of the suite"
            )
    return found


def _view(name: str) -> str:
    view = VIEWS.get(name)
    return "unknown" if view is None else str(asdict(frozen_view(name)))


def frozen_view(name: str) -> FrozenView:
    """A view as a suite states it."""
    view = VIEWS[name]
    return FrozenView(
        name=name, min_area_fraction=view.min_area_fraction, min_aspect=view.min_aspect
    )


def _differs(frozen: FrozenDataset, found: Measured | None, suite: Suite) -> Iterator[str]:
    """What of one dataset is not as frozen, in words; the first reason explains the others."""
    if found is None:
        yield f"it has no images of {frozen.id} in {' or '.join(suite.splits)}"
    elif found.versions != {frozen.version}:
        there = ", ".join(map(str, sorted(found.versions)))
        yield f"{frozen.id} has catalogue version {there}, expected {frozen.version}"
    elif frozen.samples and set(frozen.samples) != set(found.samples):
        missing = sorted(set(frozen.samples) - set(found.samples))
        more = sorted(set(found.samples) - set(frozen.samples))
        if missing:
            yield f"{frozen.id} lacks {_some(missing)}"
        if more:
            yield f"{frozen.id} has {_some(more)} too many"
    elif frozen.samples_sha256 and frozen.samples_sha256 != digest_of(found.samples):
        yield (
            f"{frozen.id} has other samples ({len(found.samples)}, expected {frozen.images}: "
            f"{frozen.rule})"
        )
    elif frozen.content_sha256 and frozen.content_sha256 != found.content_sha256:
        yield (
            f"{frozen.id} has other content: {found.masks} masks with hash "
            f"{found.content_sha256[:12]}, expected {frozen.masks} with "
            f"{frozen.content_sha256[:12]}"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} samples ({', '.join(names[:_NAMED])}{more})"


def _options(suite: Suite, built: Mapping[str, Any]) -> Iterator[str]:
    """Build options that are not those of the suite."""
    for key, wanted in suite.options.items():
        if key in built and built[key] != wanted:
            yield f"{key} {built[key]}, expected {wanted}"
