"""`sammed data list | plan | fetch | probe | check`: which datasets there are, and getting them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sammed_data.cli_common import QUARANTINED, ROOT, SOURCE, data_root, split_names
from sammed_data.cli_get_print import (
    print_checked,
    print_fetched,
    print_findings,
    print_list,
    print_plan,
    print_would_fetch,
    progress_bars,
)
from sammed_data.stores import local_folder
from sammed_data.types import FetchError, SammedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sammed_data.catalog import CatalogEntry
    from sammed_data.get.listing import Filters, Listed
    from sammed_data.get.web import Web

_JSON = typer.Option(False, "--json", help="One machine-readable document.")
_MODALITY = typer.Option(None, help="CT, MR, PET, X-ray, ...; several: separate by commas.")
_ORGAN = typer.Option(None, help="Organs or structures of the ontology.")
_LICENSE = typer.Option(None, "--license", help="Licences, as the list shows them.")
_ACCESS = typer.Option(None, help="open, registration, DUA.")
_EVIDENCE = typer.Option(None, help="written, tree-seen, built.")
_ROLE = typer.Option(None, help="train, held_out.")
_PRESENT = typer.Option(None, "--present/--absent", help="Only what is, or is not, on disk.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="list")(list_)
    for verb in (plan, fetch, probe, check):
        app.command()(verb)


def _filters(present: bool | None, names: Sequence[str] = (), **options: str | None) -> Filters:
    from sammed_data.get.listing import Filters

    values: dict[str, Any] = {name: tuple(split_names(text)) for name, text in options.items()}
    return Filters(present=present, names=tuple(names), **values)


def list_(
    source: Path | None = SOURCE,
    root: Path | None = ROOT,
    modality: str | None = _MODALITY,
    organ: str | None = _ORGAN,
    license_: str | None = _LICENSE,
    access: str | None = _ACCESS,
    evidence: str | None = _EVIDENCE,
    role: str | None = _ROLE,
    present: bool | None = _PRESENT,
    as_json: bool = _JSON,
) -> None:
    """List the catalogue: what it knows, what lies under --root, licences, access, evidence.

    For example:

      sammed data list --modality CT --organ liver --access open

      sammed data list --root /archives --present --json
    """
    from sammed_data.get.listing import list_entries

    base = data_root(root)
    filters = _filters(
        present, modality=modality, organ=organ, license=license_, access=access,
        evidence=evidence, role=role,
    )  # fmt: skip
    rows = list_entries(source, base, filters)
    if as_json:
        typer.echo(json.dumps([_as_json(row) for row in rows], indent=1))
        return
    print_list(rows, base)


def _as_json(row: Listed) -> dict[str, Any]:
    fields = (
        "id", "name", "modality", "sequence", "dims", "role", "license", "license_confidence",
        "access", "access_note", "evidence", "privacy", "homepage", "download_url",
    )  # fmt: skip
    found = {name: getattr(row.entry, name) for name in fields}
    return found | {
        "organs": list(row.organs),
        "expected": row.entry.expected.model_dump(),
        "place": None if row.place is None else str(row.place),
        "problem": row.problem or None,
    }


def plan(
    names: list[str] = typer.Argument(None, help="Dataset ids; none = all that pass the filters."),
    source: Path | None = SOURCE,
    root: Path | None = ROOT,
    modality: str | None = _MODALITY,
    organ: str | None = _ORGAN,
    license_: str | None = _LICENSE,
    access: str | None = _ACCESS,
    evidence: str | None = _EVIDENCE,
    role: str | None = _ROLE,
    present: bool | None = _PRESENT,
    ask: bool = typer.Option(False, "--ask", help="Ask the servers for sizes nobody wrote down."),
    as_json: bool = _JSON,
) -> None:
    """Say what sources cost: access, licence, what to sign, bytes, images, masks, core-hours.

    What an entry does not know is printed as ?; sizes and hours with ~ come from measured rates.
    For example:

      sammed data plan --modality ultrasound

      sammed data plan hc18 kvasir_seg --ask --json
    """
    from sammed_data.get.estimate import bytes_on_disk, cost_of, totals
    from sammed_data.get.listing import list_entries

    filters = _filters(
        present, names or (), modality=modality, organ=organ, license=license_, access=access,
        evidence=evidence, role=role,
    )  # fmt: skip
    rows = list_entries(source, data_root(root), filters)
    asked = {row.entry.id: _asked(row.entry) for row in rows} if ask else {}
    costs = [
        cost_of(
            row.entry,
            asked.get(row.entry.id),
            None if row.place is None else bytes_on_disk(row.entry, row.place),
        )
        for row in rows
    ]
    sums = totals(costs)
    if as_json:
        sources = [
            asdict(cost) | {"present": row.place is not None}
            for cost, row in zip(costs, rows, strict=True)
        ]
        whole = {name: asdict(total) for name, total in sums.items()}
        typer.echo(json.dumps({"sources": sources, "total": whole}, indent=1))
        return
    print_plan(costs, sums)


def _asked(entry: CatalogEntry) -> int | None:
    from sammed_data.get.sizes import ask_size
    from sammed_data.get.web import Web

    size, why = ask_size(entry, Web(retries=1, timeout_s=10.0))
    if size is None:
        typer.echo(f"{entry.id}: size unknown: {why}", err=True)
    return size


def fetch(
    names: list[str] = typer.Argument(help="Dataset ids."),
    source: Path | None = SOURCE,
    root: Path | None = typer.Option(
        None, help="Where datasets are put; default: $SAMMED_DATA or ./data."
    ),
    accepted: bool = typer.Option(
        False, "--accepted", help="I have registered or signed what the source asks for."
    ),
    again: bool = typer.Option(False, "--again", help="Fetch anew; hashes must be as in the lock."),
    keep_archives: bool = typer.Option(False, "--keep-archives", help="Keep what was downloaded."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Only say from where, how large, and which hashes are known."
    ),
    as_json: bool = _JSON,
) -> None:
    """Download, verify and unpack datasets; or print the steps that only a person can do.

    An interrupted fetch goes on where it stopped. For example:

      sammed data fetch msd_task04_hippocampus --root /archives

      HF_TOKEN=... sammed data fetch NAME --accepted
    """
    from sammed_data.get.fetch import FetchOptions, steps_by_hand
    from sammed_data.get.fetch import fetch as run_fetch
    from sammed_data.get.web import Web

    base, web = local_folder(root, "--root") if root else data_root(None), Web()
    options = FetchOptions(accepted=accepted, again=again, keep_archives=keep_archives)
    results: list[dict[str, Any]] = []
    for entry in _entries(source, names):
        steps = steps_by_hand(entry, base, web, accepted=accepted)
        row: dict[str, Any] = {"dataset": entry.id, "steps": steps, "error": None}
        if not steps:
            try:
                if dry_run:
                    results.append(row | _would_fetch(entry, base, web))
                    continue
                with progress_bars() as progress:
                    row |= asdict(run_fetch(entry, base, web, options, progress=progress))
            except FetchError as err:
                row["error"] = f"{err}; or by hand, from {entry.homepage}"
        results.append(row)
        if not as_json:
            print_fetched(row)
    if as_json:
        typer.echo(json.dumps(results, indent=1, default=str))
    elif dry_run:
        print_would_fetch([row for row in results if "would_fetch" in row])
    raise typer.Exit(_fetch_code([row for row in results if "would_fetch" not in row]))


def _would_fetch(entry: CatalogEntry, base: Path, web: Web) -> dict[str, Any]:
    """The files that a fetch would get, as their host or the entry describes them."""
    from sammed_data.discover import find_root
    from sammed_data.get.fetch import downloads_of
    from sammed_data.get.records import files_of

    files = [f for d in downloads_of(entry) for f in files_of(d, web)]
    keys = ("name", "urls", "bytes", "sha256", "md5")
    shown = [{key: getattr(file, key) for key in keys} for file in files]
    return {"would_fetch": shown, "to": base / entry.id, "place": find_root(entry, base)}


def _fetch_code(results: Sequence[Mapping[str, Any]]) -> int:
    if any(row["steps"] or row["error"] for row in results):
        return 1
    return QUARANTINED if any(row["place"] is None for row in results) else 0


def _entries(source: Path | None, names: Sequence[str]) -> list[CatalogEntry]:
    from sammed_data.catalog import load_catalogs, refuse_unknown

    entries = load_catalogs(source)
    refuse_unknown(names, entries, source)
    return [entries[name] for name in dict.fromkeys(names)]


def probe(
    name: str = typer.Argument(help="Dataset id."),
    source: Path | None = SOURCE,
    as_json: bool = _JSON,
) -> None:
    """Read the directory of a remote zip and compare with the entry, without downloading it.

    For example:

      sammed data probe kvasir_seg
    """
    from sammed_data.get.download import size_text
    from sammed_data.get.probe import probe as run_probe
    from sammed_data.get.web import Web

    found = run_probe(_entries(source, [name])[0], Web())
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        size = "unknown size" if found.bytes is None else size_text(found.bytes)
        typer.echo(f"{name}: {found.files} files in {size}, {size_text(found.read_bytes)} read")
        typer.echo(f"{found.cases} cases, {found.patients} patients or groups")
        if found.wrapper:
            typer.echo(f"all below the folder {found.wrapper!r}, which fetch takes away")
        if found.inner_archives:
            typer.echo(f"not looked into: {found.inner_archives} archives inside")
        for address in found.not_looked_into:
            typer.echo(f"not looked into: {address}")
        print_findings(found.findings)
    if found.findings:
        raise typer.Exit(QUARANTINED)


def check(
    name: str | None = typer.Argument(None, help="Dataset id."),
    source: Path | None = SOURCE,
    root: Path | None = ROOT,
    every: bool = typer.Option(False, "--all", help="Every dataset that lies under --root."),
    as_json: bool = _JSON,
) -> None:
    """Compare datasets on disk with their entries: cases, pairs, labels, splits; read one case.

    For example:

      sammed data check hc18 --root /archives

      sammed data check --all --root /archives --json
    """
    from sammed_data.get.checks import check as run_check
    from sammed_data.ontology import load_ontology

    if (name is None) == (not every):
        raise UsageError("expected the id of a dataset or --all, found neither or both")
    base, ontology = data_root(root), load_ontology(source)
    results: list[dict[str, Any]] = []
    for entry in _entries(source, [name]) if name else _present(source, base):
        try:
            row = asdict(run_check(entry, base, ontology))
        except SammedError as err:
            if not every:
                raise
            row = {"dataset": entry.id, "findings": [str(err)]}
        results.append(row)
        if not as_json:
            print_checked(row)
    if as_json:
        typer.echo(json.dumps(results if every else results[0], indent=1))
    elif every:
        good = sum(not row["findings"] for row in results)
        typer.echo(f"{len(results)} datasets under {base}: {good} as their entries say")
    if any(row["findings"] for row in results):
        raise typer.Exit(QUARANTINED)


def _present(source: Path | None, base: Path) -> list[CatalogEntry]:
    from sammed_data.get.listing import Filters, list_entries

    # What cannot even be looked at is a finding, too.
    rows = list_entries(source, base, Filters())
    return [row.entry for row in rows if row.place is not None or row.problem]
