"""The training reader on a corpus of a million small rows: start-up, memory, share of the floor.

    python benchmarks/reader.py --rows 1000000 --work /tmp/reader

The floor is `decode_image` and `decode_mask` over bytes that lie in RAM, timed in turns with the
reader in one process. The corpus is made once (2,000 distinct rows under new names) and is kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sammed_data.codecs import decode_image, decode_mask, encode_image, encode_mask
from sammed_data.corpus import SCHEMA, SCHEMA_VERSION, VIEWS, Corpus
from sammed_data.index import open_index
from sammed_data.shards import ShardWriter
from sammed_data.stream import Stream

SIDE, SHARD_ROWS = 64, 2000


def make_row(number: int) -> dict[str, object]:
    """A noisy picture with one to eight discs (4.3 on average, as in SA-Med2D-20M)."""
    noise = np.random.default_rng(number)
    image = (noise.normal(120, 12, (SIDE, SIDE + 16)) + np.arange(SIDE)[:, None]).astype(np.uint8)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    masks = []
    for index in range((3, 4, 4, 5, 5, 5, 4, 4, 8, 1)[number % 10]):
        cy, cx, r = noise.integers(8, SIDE - 8, 2).tolist() + [int(noise.integers(4, 9))]
        mask_HW = (y - cy) ** 2 + (x - cx) ** 2 < r * r
        masks.append(
            {f.name: None for f in SCHEMA.field("masks").type.value_type}
            | {
                "label": "1", "structure": "liver", "organ": "liver", "group": "abdomen",
                "kind": "organ", "side": "", "instance": index, "annotator": 1,
                "area_px": int(mask_HW.sum()), "box_xyxy": [cx - r, cy - r, cx + r, cy + r],
                "touches_border": False, "mask": {"bytes": encode_mask(mask_HW), "path": None},
            }
        )  # fmt: skip
    return {name: None for name in SCHEMA.names} | {
        "schema_version": SCHEMA_VERSION, "sample_id": f"row-{number}", "dataset": "synthetic",
        "image": {"bytes": encode_image(image), "path": None}, "masks": masks, "modality": "CT",
        "role": "train", "split": "train", "patient_id": f"p{number // 20}",
        "height": image.shape[0], "width": image.shape[1], "content_sha256": f"{number:064x}",
    }  # fmt: skip


def make_corpus(folder: Path, rows: int) -> None:
    """Shards of one table under other names, a manifest, and the index that a build writes."""
    data = folder / "data" / "train"
    data.mkdir(parents=True, exist_ok=True)
    first = data / "synthetic-0.parquet"
    writer = ShardWriter(first)
    for number in range(SHARD_ROWS):
        writer.add(make_row(number))
    content = writer.close()
    table, shards = pq.read_table(first), []
    options = {"compression": "NONE", "use_dictionary": False, "row_group_size": 32}
    place = table.schema.get_field_index("sample_id")
    for shard in range(rows // SHARD_ROWS):
        path = data / f"synthetic-{shard}.parquet"
        names = pa.array([f"row-{shard * SHARD_ROWS + n}" for n in range(SHARD_ROWS)])
        if shard:
            pq.write_table(table.set_column(place, "sample_id", names), path, **options)
        said = {"path": str(path.relative_to(folder)), "rows": SHARD_ROWS, "masks": writer.masks}
        shards.append(said | ({} if shard else {"content_sha256": content}))
    manifest = {"schema_version": SCHEMA_VERSION, "shards": shards, "content_sha256": f"{rows}"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    begun = time.perf_counter()
    open_index(Corpus(folder))
    print(f"index written in {time.perf_counter() - begun:.1f} s (part of a build)")


def floor(held: list[tuple[bytes, list[bytes]]]) -> float:
    """Seconds a row to decode bytes that lie in RAM."""
    begun = time.perf_counter()
    for image, masks in held:
        decode_image(image)
        for mask in masks:
            decode_mask(mask)
    return (time.perf_counter() - begun) / len(held)


def measure(folder: Path, share: float, begun: float) -> dict[str, float]:
    """Start-up, an epoch (or a share of it) in turns with the floor, memory."""
    corpus = Corpus(folder)
    stream = Stream(corpus, open_index(corpus).select(corpus, ["train"], VIEWS["all"]))
    rows = stream.rows()
    next(rows)
    ready = time.time() - begun  # from the start of the process, imports included
    n_masks = stream.index.rows_N["n_masks"]
    raw = pq.read_table(corpus.shards[0], columns=["image", "masks"]).to_pylist()
    held = [(r["image"]["bytes"], [m["mask"]["bytes"] for m in r["masks"]]) for r in raw]
    floors, read, seen = [], 0.0, 1
    total = int(len(stream) * share)
    while seen < total:
        floors.append(floor(held))
        begun = time.perf_counter()
        for row in itertools.islice(rows, min(20_000, total - seen)):
            row.image()
            for mask in range(n_masks[row.number]):
                row.mask_HW(mask)
            seen += 1
        read += time.perf_counter() - begun
    per_row = read / (seen - 1)
    return {
        "rows": len(stream),
        "rows_read": seen,
        "ready_s": round(ready, 2),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "rows_per_s": round(1 / per_row, 0),
        "floor_rows_per_s": round(1 / float(np.mean(floors)), 0),
        "share_of_floor": round(float(np.mean(floors)) / per_row, 3),
    }


def main() -> None:
    """Make the corpus, then measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=1.0, help="of the epoch that is read")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sammed-reader"))
    parser.add_argument("--begun", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    folder = chosen.work / f"corpus-{chosen.rows}"
    if chosen.begun:
        print(json.dumps(measure(folder, chosen.share, chosen.begun), indent=1))
        return
    if not (folder / "manifest.json").is_file():
        make_corpus(folder, chosen.rows)
    command = [sys.executable, __file__, "--rows", str(chosen.rows), "--share", str(chosen.share)]
    command += ["--work", str(chosen.work), "--begun", str(time.time())]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
