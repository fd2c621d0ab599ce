"""What the page's questions about a large corpus cost: filters over the index, routes over rows.

    python benchmarks/page.py --rows 1000000
    python benchmarks/page.py --corpus /tmp/reader      # a corpus of benchmarks/reader.py

The first form makes an index in memory (five masks a row, 100 datasets, 300 structures) and times
the filters; the second times whole requests, JSON included, without a network.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sammed_app.page.filters import Filter, Finder
from sammed_data.index import MASK, ROW, CorpusIndex

FILTERS = {
    "none": Filter(),
    "dataset": Filter(dataset="dataset3"),
    "organ": Filter(organ="organ3"),
    "organ, size, split": Filter(organ="organ3", size="1 to 5 %", split="test"),
    "text": Filter(text="structure12"),
    "kept": Filter(flagged="no"),
}
ROUTES = (
    "rows", "rows?page=40", "rows?organ=liver&page=100", "rows?q=row-1500", "rows/1500",
    "rows/1500/masks", "rows/1501/thumb.png",
)  # fmt: skip


def made(n_rows: int) -> Any:
    """What a Finder asks a library for."""
    draw = np.random.default_rng(0)
    rows, masks = np.zeros(n_rows, ROW), np.zeros(5 * n_rows, MASK)
    rows["sample"] = draw.integers(0, 2**63, n_rows)
    rows["n_masks"], rows["first_mask"] = 5, 5 * np.arange(n_rows)
    rows["shard"] = np.arange(n_rows) * 500 // n_rows
    rows["dataset"] = rows["shard"] % 100
    masks["area_fraction"] = draw.random(len(masks)) ** 4
    masks["structure"] = draw.integers(0, 300, len(masks))
    structures = [f"structure{i}" for i in range(300)]
    index = CorpusIndex(
        rows_N=rows,
        masks_M=masks,
        names={
            "dataset": [f"dataset{i}" for i in range(100)],
            "modality": ["CT"],
            "structure": structures,
        },
        about={name: (f"organ{i % 40}", "", "") for i, name in enumerate(structures)},
    )
    shards = [Path("data", ("train", "test")[i % 2], f"x-{i}.parquet") for i in range(500)]
    corpus = SimpleNamespace(shards=shards, exclusions=SimpleNamespace(entries=()))
    return SimpleNamespace(index=index, corpus=corpus, flags=SimpleNamespace(samples=list))


def timed(name: str, work: Callable[[], object]) -> None:
    """Computing and wall time of the first call."""
    began, cpu = time.perf_counter(), time.process_time()
    said = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    print(f"{name:28} {1000 * cpu:8.0f} ms computing {1000 * wall:8.0f} ms wall   {said}")


def main() -> None:
    """Print one line a question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--corpus", type=Path)
    asked = parser.parse_args()
    if asked.corpus is None:
        finder = Finder(made(asked.rows))
        for name, wanted in FILTERS.items():
            timed(name, lambda w=wanted: f"{len(finder.numbers(w)):,} rows")
        return
    from starlette.testclient import TestClient

    from sammed_app.page.server import create_app
    from sammed_app.page.settings import PageSettings

    client = TestClient(create_app(PageSettings(corpus=asked.corpus)))
    client.base_url = "http://127.0.0.1"
    for route in ROUTES:
        timed(route, lambda r=route: client.get(f"/api/corpus/{r}").status_code)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
