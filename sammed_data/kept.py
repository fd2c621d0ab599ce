"""The catalogue entries a corpus was built by, kept in it as ``catalog/<dataset>.yaml``.

So a row can be made again without the folder of entries. Addresses with a token and folders of the
machine stay out. Of a restricted source only what makes rows is kept, and that only where no word
of it could be the name of a patient; else the lock says why there is no file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from sammed_data.catalog import CatalogEntry, read_yaml
from sammed_data.entry_parts import Table
from sammed_data.plan import DatasetPlan, Meaning
from sammed_data.propose.names import IMAGE_WORDS, LABEL_WORDS, SEQUENCE_WORDS, word_set
from sammed_data.sources import case_paths, relative
from sammed_data.splits import group_key
from sammed_data.types import Case, CatalogError

FOLDER = "catalog"
# A word of a restricted entry that is not common is kept if the paths of so many patients have it.
FEWEST_PATIENTS = 5
# All that rows of a given file depend on; the rest of a restricted entry stays out. Its splits
# may list patients, and each row has its split; its roots are names of archives, which are keyed.
_OF_ROWS = (
    "id", "name", "version", "modality", "sequence", "dims", "layout", "label_encoding", "labels",
    "unions", "patient", "role", "axes", "window", "intensity", "grid", "license", "homepage",
    "privacy", "burned_in",
)  # fmt: skip
# Words that name no patient, besides those of the structures that the entry labels.
_COMMON = IMAGE_WORDS | LABEL_WORDS | SEQUENCE_WORDS
_COMMON |= word_set(
    "png jpg jpeg tif tiff bmp gif nii gz nrrd nhdr mha mhd dcm ima npy npz mat csv tsv json xml "
    "zip train training tr val valid validation test testing ts patient patients pat subject "
    "subjects sub case cases study studies series"
)
_HEAD = "# What the rows of {} were made by; written by `sammed data build`, read by `trace`.\n"


@dataclass(frozen=True, kw_only=True)
class KeptText:
    """The file to keep for a dataset; without ``text``, ``refused`` says why there is none."""

    text: str = ""
    refused: str = ""

    @property
    def sha256(self) -> str:
        """Of the text; '' where there is none."""
        return text_hash(self.text) if self.text else ""


@dataclass(frozen=True, kw_only=True)
class KeptEntry:
    """A kept entry, parsed.

    Attributes:
        meanings: of its labels, by the ontology of the build.
        left_out: keys of the entry that the corpus does not keep.
    """

    entry: CatalogEntry
    meanings: Mapping[str, Meaning]
    left_out: tuple[str, ...]


def kept_path(dataset: str) -> str:
    """Where the entry of a dataset lies in a corpus."""
    return f"{FOLDER}/{dataset}.yaml"


def text_hash(text: str) -> str:
    """SHA-256 of a kept file."""
    return hashlib.sha256(text.encode()).hexdigest()


def kept_text(dataset: DatasetPlan) -> KeptText:
    """What to keep of a dataset's entry; the same for the same entry, ontology and files."""
    restricted = dataset.entry.privacy != "public"
    if restricted and (why := _identifying(dataset)):
        return KeptText(refused=why)
    said = dataset.entry.model_dump(mode="json", exclude_defaults=True)
    shown = _rows_only(said) if restricted else _without_tokens(said)
    document = {
        "left_out": sorted(_lost(said, shown)),
        "entry": shown,
        "meanings": {raw: list(astuple(m)) for raw, m in dataset.meanings.items()},
    }
    text = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return KeptText(text=_HEAD.format(dataset.entry.id) + text)


def parse_kept(path: Path) -> KeptEntry:
    """A file that :func:`kept_text` made.

    Raises:
        CatalogError: it is none, or of a sammed that knows other keys.
    """
    raw = read_yaml(path)
    try:
        if not isinstance(raw, dict):
            raise TypeError(f"{type(raw).__name__} at the top")
        meanings = {str(raw_label): _meaning(row) for raw_label, row in raw["meanings"].items()}
        return KeptEntry(
            entry=CatalogEntry.model_validate(raw["entry"]),
            meanings=meanings,
            left_out=tuple(map(str, raw["left_out"])),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as err:  # ValidationError is the last
        said = str(err).splitlines()[0]
        raise CatalogError(
            f"{path}: expected an entry that a build kept, found {said}; run the same `sammed data "
            f"build` again, or pass --source FOLDER"
        ) from err


def _meaning(row: Iterable[str]) -> Meaning:
    names = (f.name for f in fields(Meaning))
    return Meaning(**dict(zip(names, row, strict=True)))


def _lost(said: Mapping[str, Any], shown: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in said.items():
        if key not in shown:
            yield above + key
        elif isinstance(value, dict):
            yield from _lost(value, shown[key], f"{above}{key}.")
        elif value != shown[key]:
            yield f"{above}{key} (part)"


def _rows_only(said: Mapping[str, Any]) -> dict[str, Any]:
    layout = {k: v for k, v in said["layout"].items() if k in ("images", "labels")}
    return {k: layout if k == "layout" else said[k] for k in _OF_ROWS if k in said}


def _without_tokens(said: Mapping[str, Any]) -> dict[str, Any]:
    """A public entry without folders of the machine and addresses that may hold a token."""
    shown = dict(said)
    roots = [r for r in said.get("root", ()) if not Path(r).is_absolute() and r[:1] != "~"]
    downloads = said.get("downloads", [])
    urls = [u for d in downloads for u in (d["url"], *d.get("mirrors", ()))]
    if roots != said.get("root", []):
        shown["root"] = roots
    if any(map(_has_token, urls)):
        del shown["downloads"]
    if _has_token(said.get("download_url") or ""):
        del shown["download_url"]
    return shown


def _has_token(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.query) or "@" in parts.netloc


def _identifying(dataset: DatasetPlan) -> str:
    """Why the entry of a restricted dataset is not kept; '' = no word of it names a patient."""
    entry = dataset.entry
    if entry.collection is not None:
        return "it is a released collection, whose rules may name patients"
    if entry.layout.exclude:
        return "layout.exclude may name files of a patient"
    named = {w for meaning in dataset.meanings.values() for w in _words(meaning.structure)}
    own: dict[str, str] = {}
    for key, text in _path_texts(entry):
        own |= {w: key for w in _words(text) if w not in _COMMON | named | own.keys()}
    if own and (entry.patient is None or entry.patient.unit != "patient"):
        key = next(iter(own.values()))
        return f"{key} has words of its own, and without the patients of its files one may be named"
    texts = _paths_by_patient(dataset.cases) if own else ()
    for word, key in own.items():
        if not _shared(word, texts):
            return (
                f"{key} has a word that fewer than {FEWEST_PATIENTS} patients have in their paths"
            )
    return ""


def _paths_by_patient(cases: Iterable[Case]) -> list[str]:
    patients: dict[str, list[str]] = {}
    for case in cases:
        paths = [relative(path, case.root).casefold() for _, path in case_paths(case)]
        patients.setdefault(group_key(case), []).extend(paths)
    return ["\n".join(paths) for paths in patients.values()]


def _shared(word: str, texts: Iterable[str]) -> bool:
    having = (text for text in texts if word in text)
    return len(list(islice(having, FEWEST_PATIENTS))) == FEWEST_PATIENTS


def _path_texts(entry: CatalogEntry) -> Iterator[tuple[str, str]]:
    """(key, text) of all in an entry that is written after paths."""
    tables: list[tuple[str, Table | None]] = [("label_encoding.table", entry.label_encoding.table)]
    for image in entry.layout.images:
        yield "layout.images", image.pattern
        tables.append(("layout.images.frames", image.frames))
    for label in entry.layout.labels:
        yield "layout.labels", label.pattern
    if entry.patient is not None:
        yield "patient.regex", _without_syntax(entry.patient.regex)
    yield "label_encoding.image_name", entry.label_encoding.image_name or ""
    for key, table in tables:
        if table is not None:
            yield key, f"{table.pattern} {table.id}"


def _without_syntax(regex: str) -> str:
    """A regular expression without its syntax and single letters, such as the p of ``p12``."""
    syntax = r"\\[A-Za-z]|\[[^\]]*\]|\(\?P<\w+>|\(\?[:=!<]+|\{[\d,]+\}"
    return re.sub(r"(?<![^\W_])[^\W\d_](?![^\W_])", " ", re.sub(syntax, " ", regex))


def _words(text: str) -> list[str]:
    """Words of a pattern outside its ``{fields}`` and ``[classes]``."""
    plain = re.sub(r"\{\w+\}|\[[^\]]*\]", " ", text)
    return re.findall(r"[^\W_]+", plain.casefold())
