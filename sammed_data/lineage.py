"""Which datasets share patients and which published collections took them; needs no pydantic.

Reads two keys of the bundled catalogue's entries, so that a benchmark on a machine without the
libraries of the data room can say what a published model has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sammed_data.types import CatalogError


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What is known of a dataset's patients.

    Attributes:
        overlaps: datasets that share patients with it, as its own entry says.
        used_by: published collections that took it.
    """

    overlaps: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()


def bundled_catalogs() -> Path:
    """The folder of entries that comes with the package (in a source tree: beside it)."""
    inside = Path(__file__).parent / "catalogs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "catalogs"


def bundled_lineage() -> dict[str, Lineage]:
    """Dataset -> lineage, for every bundled entry.

    Raises:
        CatalogError: an entry is no YAML.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for path in sorted(bundled_catalogs().glob("[!_]*.yaml")):
        try:
            raw = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - safe
        except (OSError, yaml.YAMLError) as err:
            raise CatalogError(f"expected a catalogue entry in {path}, found {err}") from err
        found[path.stem] = lineage_of(raw if isinstance(raw, dict) else {})
    return found


def lineage_of(record: Mapping[str, object]) -> Lineage:
    """The lineage in an entry, or in a corpus' record of a dataset."""
    overlaps, used_by = (record.get(key) or () for key in ("overlaps", "used_by"))
    return Lineage(overlaps=_names(overlaps), used_by=_names(used_by))


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def joined(overlaps: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Dataset -> all that share patients with it, however indirectly, itself included."""
    groups = {name: {name} for name in overlaps}
    for name, others in overlaps.items():
        for other in others:
            if other in groups and groups[other] is not groups[name]:
                both = groups[name] | groups[other]
                groups |= dict.fromkeys(both, both)
    return {name: tuple(sorted(members)) for name, members in groups.items()}
