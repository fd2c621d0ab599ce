"""`sammed data trace`: a row's file, slice and policy, and its pixels made again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sammed_data.cli_common import (
    CORPUS,
    PLACE,
    QUARANTINED,
    ROOT,
    data_root,
    new_console,
    one_corpus,
)

if TYPE_CHECKING:
    from sammed_data.trace import Trace


def register(app: typer.Typer) -> None:
    """Add the verb to `sammed data`."""
    app.command(name="trace")(trace)


def trace(
    sample: str = typer.Argument(help="sample_id of a row."),
    place: Path | None = PLACE,
    corpus: Path | None = CORPUS,
    source: Path | None = typer.Option(
        None, help="Folder of catalogue entries; default: the entry that the corpus keeps."
    ),
    root: Path | None = ROOT,
    key: Path | None = typer.Option(None, help="The site's key file, for restricted datasets."),
    out: Path | None = typer.Option(None, help="Folder for the image and masks made again."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Make them again; write none."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Show where a row came from, and make its pixels again from the raw file.

    Exit code 3 when a file or the pixels are not what they were.

    For example:

      sammed data trace hc18--001_HC--native--0000 corpus --root /archives
    """
    from sammed_data.corpus import Corpus
    from sammed_data.trace import trace as run_trace

    opened = Corpus(one_corpus(place, corpus))
    found = run_trace(
        opened, sample, source=source, root=data_root(root), key_file=key, keep=not dry_run
    )
    if out is not None and not dry_run:
        _write(found, out)
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=1))
    else:
        _print(found, out, dry_run=dry_run)
    if found.differences or not all(file.same for file in found.files):
        raise typer.Exit(QUARANTINED)


def _plain(found: Trace) -> dict[str, Any]:
    row = found.row
    names = ("dataset", "modality", "split", "height", "width")
    about = {name: getattr(row, name) for name in names}
    kept = ("case_id", "patient_id", "cluster", "axis", "orientation", "slice_index",
            "slice_position_mm", "spacing_y_mm", "spacing_x_mm", "volume_shape", "intensity",
            "license", "catalog_version", "content_sha256")  # fmt: skip
    return {
        "sample_id": row.sample_id,
        **about,
        **{name: row.meta[name] for name in kept},
        "masks": [{"structure": m.structure, "label": m.label, "area_px": m.area_px}
                  for m in row.masks],
        "files": [
            {
                "role": f.role, "path": f.path, "member": f.member,
                "recorded_sha256": f.recorded_sha256, "found_sha256": f.found_sha256,
                "same": f.same,
            }
            for f in found.files
        ],
        "entry": asdict(found.entry),
        "excluded": found.excluded or None,
        "differences": list(found.differences),
    }  # fmt: skip


def _print(found: Trace, out: Path | None, *, dry_run: bool) -> None:
    console, row, meta = new_console(), found.row, found.row.meta

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    say(f"{row.sample_id}: {row.height} x {row.width}, {row.modality}, split {row.split}")
    say(f"case {meta['case_id']}, patient {meta['patient_id']} ({meta['cluster']})")
    where = f"{meta['axis']} slice {meta['slice_index']} of {meta['volume_shape']} (z, y, x)"
    if meta["slice_position_mm"] is not None:
        where += f" at {meta['slice_position_mm']:g} mm"
    say(f"{where}, orientation {meta['orientation']}")
    grey = meta["intensity"]
    say(f"intensity {grey['policy']}: {grey['low']:g} to {grey['high']:g} become 0 to 255")
    say(f"licence {meta['license']}; catalogue entry version {meta['catalog_version']}")
    say(found.entry.said)
    if found.excluded:
        say(f"left out by exclude.csv: {found.excluded}")
    for file in found.files:
        member = f" [{file.member}]" if file.member else ""
        state = "the same" if file.same else f"now {file.found_sha256[:16] or 'gone'}"
        say(f"{file.role}: {file.path}{member}  sha256 {file.recorded_sha256[:16]}: {state}")
    for mask in row.masks:
        say(f"mask {mask.index}: {mask.structure} from label {mask.label!r}, {mask.area_px} px")
    if found.differences:
        say(f"made again: differs in {'; '.join(found.differences)}")
    else:
        say(f"made again: image and {len(row.masks)} masks identical, pixel for pixel")
    if out is not None:
        say(f"would write to {out}; nothing was written" if dry_run else f"written to {out}")


def _write(found: Trace, out: Path) -> None:
    from sammed_data.codecs import encode_image, encode_mask

    out.mkdir(parents=True, exist_ok=True)
    if found.image is None or found.masks_MHW is None:
        return
    (out / "image.png").write_bytes(encode_image(found.image))
    for number, mask_HW in enumerate(found.masks_MHW):
        (out / f"mask-{number}.png").write_bytes(encode_mask(mask_HW))
