"""A suite as the settings of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sammed_bench.bench import BenchConfig
from sammed_bench.suite import Suite, load_suite, suite_text
from sammed_bench.suite_check import check
from sammed_data.corpus import Corpus
from sammed_data.types import UsageError

# Options that a suite states; the protocol may be chosen among its own.
STATED = ("prompts", "split", "seed", "limit", "metrics", "tolerance", "edition")


def asked_suite(
    text: str, corpus: Corpus, config: BenchConfig, given: Mapping[str, str]
) -> BenchConfig:
    """The settings of ``--suite`` beside the other options.

    Args:
        text: name or file.
        corpus: checked against the suite.
        config: of the other options.
        given: those that were written on the command line.

    Raises:
        SammedError: no such suite, an option that it states, or a corpus that differs.
    """
    suite = load_suite(text)
    twice = [f"--{name}" for name in STATED if name in given]
    if twice:
        raise UsageError(
            f"expected {' and '.join(twice)} from suite {suite.name}, found it on the command line "
            "too: leave it out, or leave out --suite"
        )
    return configured(suite, corpus, config, given.get("protocol"))


def configured(
    suite: Suite, corpus: Corpus, config: BenchConfig, protocol: str | None = None
) -> BenchConfig:
    """The settings with all that the suite states.

    Args:
        suite: asked for.
        corpus: checked against it.
        config: where it runs: device, batch, threads and the like are kept.
        protocol: one of the suite's; None = its first.

    Raises:
        SammedError: the corpus or this version differs from the suite.
    """
    chosen, notes = check(suite, corpus, protocol)
    there = {shard.parent.name for shard in corpus.shards}
    return replace(
        config,
        modes=suite.modes,
        splits=tuple(split for split in suite.splits if split in there),
        seed=suite.seed,
        limit=None,
        metrics=suite.metrics,
        tolerance=suite.tolerance,
        protocol=chosen,
        edition=suite.edition,
        datasets=suite.ids,
        suite=f"{suite.name} {suite.version}",
        suite_sha256=suite.digest,
        suite_text=suite_text(suite),
        remarks=(*config.remarks, *notes),
    )
