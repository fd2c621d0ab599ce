"""What may be done with a dataset: its SPDX licence where that is sure, or what a user signed.

The catalogue's `license` is a hint found by others. It counts as sure only where it is an SPDX id
with high confidence; everything else is *unknown* until a person writes and signs an entry of
``licence-decisions.yaml``. Nothing here is legal advice, and nothing is guessed.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sammed_data.catalog import CatalogEntry, read_yaml
from sammed_data.types import CatalogError, UsageError, nearest

DECISIONS_FILE = "licence-decisions.yaml"
WORDS = ("redistribute", "commercial", "known", "unknown")


@dataclass(frozen=True)
class Terms:
    """What a licence lets one do with 2D slices made of the data.

    Attributes:
        redistribute: pass the slices on (a licence without derivatives does not).
        commercial: use them for profit.
    """

    redistribute: bool
    commercial: bool


_OPEN, _NON_COMMERCIAL, _NO_DERIVATIVES = Terms(True, True), Terms(True, False), Terms(False, False)
# https://spdx.org/licenses; the ones that datasets of the catalogue may have.
SPDX: dict[str, Terms] = {
    **dict.fromkeys(
        ["CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0",
         "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ODbL-1.0", "ODC-By-1.0", "PDDL-1.0"],
        _OPEN,
    ),
    **dict.fromkeys(
        ["CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"],
        _NON_COMMERCIAL,
    ),
    "CC-BY-ND-4.0": Terms(False, True),
    **dict.fromkeys(["CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0"], _NO_DERIVATIVES),
}  # fmt: skip


class Decision(BaseModel):
    """What a person decided about one dataset, and on what grounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    license: Annotated[str, Field(min_length=1)]
    redistribute: bool
    commercial: bool
    evidence: Annotated[str, Field(min_length=1)]
    signed_by: Annotated[str, Field(min_length=1)]
    date: datetime.date


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    decisions: dict[str, Decision]


class Licensed(Protocol):
    """What is said of a dataset's licence: a catalogue entry, or the words of a manifest."""

    @property
    def id(self) -> str:
        """Of the dataset."""

    @property
    def license(self) -> str:
        """SPDX id, or other words."""

    @property
    def license_confidence(self) -> Literal["high", "medium", "low"]:
        """How sure whoever wrote it was."""

    @property
    def license_evidence(self) -> str:
        """Where it was read; '' = not said."""

    @property
    def homepage(self) -> str:
        """Of the dataset."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known about a dataset's licence.

    Attributes:
        license: as the catalogue or the decision says it.
        spdx: the id, where it is sure; '' otherwise.
        confidence: 'signed', or the catalogue's high, medium or low.
        redistribute: None = unknown, which no filter takes for a yes.
        commercial: likewise.
        evidence: where it can be checked.
        signed_by: who decided; '' where nobody did.
    """

    dataset: str
    license: str
    spdx: str
    confidence: Literal["signed", "high", "medium", "low"]
    redistribute: bool | None
    commercial: bool | None
    evidence: str
    signed_by: str = ""

    @property
    def known(self) -> bool:
        """Whether anyone may rely on it."""
        return self.redistribute is not None


def load_decisions(path: Path | None) -> dict[str, Decision]:
    """The signed decisions of a file; none where ``path`` is None.

    Raises:
        CatalogError: not such a file, or a decision without licence, grounds, name or date.
    """
    if path is None:
        return {}
    try:
        return _File.model_validate(read_yaml(path)).decisions
    except ValidationError as err:
        said = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else "no mapping"
            for e in err.errors()
        )
        raise CatalogError(
            f"{path}: expected signed decisions (license, redistribute, commercial, evidence, "
            f"signed_by, date), found {said}; `sammed data licenses --write FILE` makes a form"
        ) from err


def digest(decisions: Mapping[str, Decision]) -> str:
    """Identity of some decisions, '' of none."""
    text = "\n".join(f"{k} {v.model_dump_json()}" for k, v in sorted(decisions.items()))
    return hashlib.sha256(text.encode()).hexdigest() if decisions else ""


def standing(entry: Licensed, decisions: Mapping[str, Decision]) -> Standing:
    """What may be relied on: a signed decision, else an SPDX id of high confidence."""
    signed = decisions.get(entry.id)
    if signed is not None:
        return Standing(
            dataset=entry.id,
            license=signed.license,
            spdx=signed.license if signed.license in SPDX else "",
            confidence="signed",
            redistribute=signed.redistribute,
            commercial=signed.commercial,
            evidence=signed.evidence,
            signed_by=f"{signed.signed_by}, {signed.date.isoformat()}",
        )
    sure = entry.license in SPDX and entry.license_confidence == "high"
    terms = SPDX[entry.license] if sure else None
    return Standing(
        dataset=entry.id,
        license=entry.license,
        spdx=entry.license if sure else "",
        confidence=entry.license_confidence,
        redistribute=terms.redistribute if terms else None,
        commercial=terms.commercial if terms else None,
        evidence=entry.license_evidence or entry.homepage,
    )


def check_words(words: Iterable[str]) -> None:
    """Refuse filter words that mean nothing.

    Raises:
        UsageError: neither an SPDX id that we know nor one of ``WORDS``.
    """
    for word in words:
        if word not in SPDX and word not in WORDS:
            raise UsageError(
                f"unknown licence {word!r} in --license: expected SPDX ids or "
                f"{', '.join(WORDS)}; {nearest(word, [*SPDX, *WORDS])}"
            )


def admits(words: Sequence[str], found: Standing) -> bool:
    """Whether a filter lets a dataset through; an unknown licence only where it is asked for."""
    if not words:
        return True
    if not found.known:
        return "unknown" in words
    allowed = {
        "redistribute": bool(found.redistribute),
        "commercial": bool(found.commercial),
        "known": True,
        "unknown": False,
    }
    return any(allowed.get(word, found.spdx == word) for word in words)


def grounds(signed: Decision) -> str:
    """Where and by whom a licence was read."""
    return f"{signed.evidence}; signed by {signed.signed_by} on {signed.date.isoformat()}"


def signed_entry(entry: CatalogEntry, decisions: Mapping[str, Decision]) -> CatalogEntry:
    """The entry with the licence that was signed for it, if one was."""
    signed = decisions.get(entry.id)
    if signed is None:
        return entry
    return entry.model_copy(
        update={
            "license": signed.license,
            "license_confidence": "high",
            "license_evidence": grounds(signed),
        }
    )


def unsure(found: Standing) -> str:
    """That nobody is sure of a licence, where it can be read, and what to do then."""
    place = found.evidence if "://" in found.evidence else f"its source ({found.evidence})"
    return (
        f"its licence is not known for sure ({found.license}): read it at {place} and sign it in "
        f"{DECISIONS_FILE}"
    )


def refusal(words: Sequence[str], found: Standing) -> str:
    """Why a filter leaves a dataset out."""
    if not found.known:
        return f"{unsure(found)}, or ask for `unknown` as well"
    return f"its licence {found.license} is not among {', '.join(words)}"


def decision_form(standings: Iterable[Standing]) -> str:
    """A YAML form with the datasets nobody may rely on yet; it is not valid until it is filled."""
    lines = [
        "# What you decided about the licences of datasets. Read each at its source, then fill",
        "# in and sign: an entry with an empty field is refused. `license` is an SPDX id",
        "# (https://spdx.org/licenses) or LicenseRef-<name> for terms that have none.",
        "decisions:",
    ]
    for found in standings:
        if not found.known:
            hint = f"catalogue: {found.license} ({found.confidence} confidence)"
            lines += [
                f"  # {hint}; {found.evidence}",
                f"  {found.dataset}:",
                "    license:",
                "    redistribute:   # true or false: may 2D slices of it be passed on?",
                "    commercial:     # true or false",
                "    evidence:       # where you read it",
                "    signed_by:",
                "    date:           # YYYY-MM-DD",
            ]
    return "\n".join(lines) + "\n"
