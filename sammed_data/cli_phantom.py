"""`sammed data phantom`: procedural datasets in true formats, to try things on."""

from __future__ import annotations

from pathlib import Path

import typer

from sammed_data.cli_common import split_names


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(phantom)


def phantom(
    out: Path = typer.Argument(help="Folder for catalogs/ and data/."),
    patients: int = typer.Option(36, help="Patients of each dataset, 4 or more."),
    seed: int = typer.Option(0, help="Another seed draws other patients."),
    only: str | None = typer.Option(None, help="Dataset ids, separated by commas."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Name the folders; draw nothing."),
) -> None:
    """Draw small datasets with masks: CT, MR, ultrasound, fundus, skin, endoscopy; no download.

    NIfTI, DICOM with RTSTRUCT, NRRD, PNG and JPEG, each with a catalogue entry. For example:

      sammed data phantom phantoms --patients 8

      sammed data build --source phantoms/catalogs --root phantoms/data
    """
    from sammed_data.phantom import PHANTOMS, check_phantoms, write_phantoms
    from sammed_data.talk import answer, say_dry

    names = split_names(only) or list(PHANTOMS)
    if dry_run:
        check_phantoms(names, patients)
        writes = [p for n in names for p in (out / "catalogs" / f"{n}.yaml", out / "data" / n)]
        say_dry([], writes, datasets=names, patients=patients, seed=seed)
        return
    made = write_phantoms(out, n_patients=patients, seed=seed, only=names)
    typer.echo(f"{made}: {', '.join(names)}")
    typer.echo(f"now: sammed data build --source {made / 'catalogs'} --root {made / 'data'}")
    answer({"out": made, "datasets": names, "patients": patients, "seed": seed})
