"""``corpus.yaml``: which sources, in which version, under which policies; one file for a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sammed_data.catalog import load_catalogs
from sammed_data.plan import BuildOptions
from sammed_data.types import CatalogError, UsageError, nearest


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A dataset, and the version of its catalogue entry that the recipe was written for."""

    id: str
    version: int | None = None


class _File(_Strict):
    sources: list[Source | str] = Field(min_length=1)
    root: str | None = None
    catalogs: str | None = None
    exclude: list[str] = Field(default_factory=list)
    decisions: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe, read and checked.

    Attributes:
        sources: dataset -> catalogue version, or None for whichever is there.
        root: where the datasets lie, or None if the command line says so.
        catalogs: catalogue folder, or None for the bundled one.
        exclude: lists as `sammed data build --exclude` takes them.
        decisions: signed `licence-decisions.yaml`, or None.
    """

    path: Path
    sources: Mapping[str, int | None]
    root: Path | None
    catalogs: Path | None
    exclude: tuple[Path, ...]
    decisions: Path | None
    options: BuildOptions


def read_recipe(path: Path) -> Recipe:
    """A recipe; relative folders in it are seen from where it lies.

    Raises:
        UsageError: no such file, unknown keys or options, a source twice.
    """
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as err:
        raise UsageError(
            f"expected a recipe at {path}, but {err.strerror}: see docs/recipe.md"
        ) from err
    except (UnicodeDecodeError, yaml.YAMLError, ValidationError) as err:
        raise UsageError(f"{path}: {_in_words(err)}; see docs/recipe.md") from err
    listed = [Source(id=s) if isinstance(s, str) else s for s in found.sources]
    names = [s.id for s in listed]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UsageError(f"{path}: expected each source once, found {', '.join(twice)} again")
    return Recipe(
        path=path,
        sources={s.id: s.version for s in listed},
        root=_seen_from(path, found.root),
        catalogs=_seen_from(path, found.catalogs),
        exclude=tuple(path.parent / name for name in found.exclude),
        decisions=_seen_from(path, found.decisions),
        options=_options(path, found.options),
    )


def _in_words(err: UnicodeDecodeError | yaml.YAMLError | ValidationError) -> str:
    if not isinstance(err, ValidationError):
        return f"expected YAML, found {' '.join(str(err).split())}"
    return "; ".join(
        f"{'.'.join(str(p) for p in e['loc'])}: {e['msg'].lower()}"
        if e["loc"]
        else "expected a recipe with keys and values, found none"
        for e in err.errors()
    )


def _seen_from(path: Path, folder: str | None) -> Path | None:
    return None if folder is None else path.parent / Path(folder).expanduser()


def _options(path: Path, said: Mapping[str, Any]) -> BuildOptions:
    kinds = {f.name: type(getattr(BuildOptions(), f.name)) for f in fields(BuildOptions)}
    wrong = [f"unknown option {k!r}; {nearest(k, kinds)}" for k in said if k not in kinds]
    wrong += [
        f"option {k} is {kinds[k].__name__}, not {v!r}"
        for k, v in said.items()
        if k in kinds and kinds[k] in (int, str, bool) and type(v) is not kinds[k]
    ]
    if wrong:
        raise UsageError(f"{path}: {'; '.join(wrong)}")
    options = BuildOptions.from_plain(said)
    options.check()
    return options


def check_versions(recipe: Recipe) -> None:
    """Whether the catalogue has the sources in the versions that the recipe names.

    Raises:
        CatalogError: all that differ.
    """
    entries = load_catalogs(recipe.catalogs)
    wrong = [f"unknown source {n!r}; {nearest(n, entries)}" for n in recipe.sources
             if n not in entries]  # fmt: skip
    wrong += [
        f"{name} in version {entries[name].version}, the recipe wants {version}"
        for name, version in recipe.sources.items()
        if name in entries and version not in (None, entries[name].version)
    ]
    if wrong:
        raise CatalogError(
            f"{recipe.path}: the catalogue has {'; '.join(wrong)}: name the catalogue folder of "
            f"that version under `catalogs`, or change the recipe"
        )
