"""What the SAM-Med2D paper printed, read from ``published/sam-med2d.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sammed_data.types import UsageError

FILE = Path(__file__).parent / "published" / "sam-med2d.yaml"
STAMPS = ("in-sample", "overlapping", "gated", "")


@dataclass(frozen=True, kw_only=True)
class Printed:
    """One published line.

    Attributes:
        name: of the line in the paper.
        key: dataset id or modality that it is about; '' = the whole test set.
        values: per column, in per cent; '1pt gain' in points, 'fps' in images per second.
        masks: how many each mean is over; None where the source does not say.
        stamp: ``in-sample``, ``overlapping``, ``gated`` or ''.
        why: reason of the stamp.
    """

    name: str
    key: str
    values: Mapping[str, float]
    masks: int | None
    stamp: str
    why: str

    def same_masks(self, masks: int) -> bool:
        """Whether a mean over so many of our masks may stand beside it."""
        return self.masks is not None and self.masks == masks


@dataclass(frozen=True, kw_only=True)
class Published:
    """A paper's tables.

    Attributes:
        paper: citation.
        view: which masks its rule keeps.
        protocols: ours that draw prompts as it did.
        note: on the prompts.
        sources: where each table stands.
        test_set, modality, miccai2023: lines; the models are columns of the latter two.
        weighted: the means of ``miccai2023``.
    """

    paper: str
    view: str
    protocols: tuple[str, ...]
    note: str
    sources: Mapping[str, str]
    test_set: tuple[Printed, ...]
    modality: tuple[Printed, ...]
    miccai2023: tuple[Printed, ...]
    weighted: Mapping[str, float] = field(default_factory=dict)


@cache
def published(path: Path = FILE) -> Published:
    """The values of a file.

    Raises:
        UsageError: the file does not hold what it should.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _parsed(raw)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as err:
        raise UsageError(
            f"expected the published values of a paper in {path}, found {err!r}: see the bundled "
            "one for its form"
        ) from err


def _parsed(raw: Mapping[str, Any]) -> Published:
    whole, apart, sets = raw["test_set"], raw["modality"], raw["miccai2023"]
    columns = ("bbox", "1pt", "3pt", "5pt", "fps", "image_px")
    return Published(
        paper=raw["paper"],
        view=raw["view"],
        protocols=tuple(raw["protocols"]),
        note=raw["protocol_note"],
        sources={name: raw[name]["source"] for name in ("test_set", "modality", "miccai2023")},
        test_set=tuple(
            _line(r["model"], "", {c: float(r[c]) for c in columns}, whole) for r in whole["rows"]
        ),
        modality=tuple(
            _line(r["modality"], r["modality"], _by_modality(r, apart["models"]), apart)
            for r in apart["rows"]
        ),
        miccai2023=tuple(
            _line(r["name"], r["dataset"], _by_model(r, sets["models"]), r) for r in sets["rows"]
        ),
        weighted=_by_model(sets["weighted"], sets["models"]),
    )


def _line(name: str, key: str, values: Mapping[str, float], about: Mapping[str, Any]) -> Printed:
    if about["stamp"] not in STAMPS:
        raise ValueError(f"stamp {about['stamp']!r} of {name}")
    return Printed(
        name=name,
        key=key,
        values=values,
        masks=about["masks"],
        stamp=about["stamp"],
        why=about["why"],
    )


def _by_model(row: Mapping[str, Any], models: Sequence[str]) -> dict[str, float]:
    """``mode: model`` -> value."""
    return {
        f"{mode}: {model}": float(value)
        for mode in ("bbox", "1pt")
        for model, value in zip(models, row[mode], strict=True)
    }


def _by_modality(row: Mapping[str, Any], models: Sequence[str]) -> dict[str, float]:
    """Model -> value after one click, ``model gain`` -> what five clicks add."""
    gains = row.get("gain") or []
    return {m: float(v) for m, v in zip(models, row["one"], strict=True)} | {
        f"{m} gain": float(v) for m, v in zip(models, gains, strict=bool(gains))
    }
