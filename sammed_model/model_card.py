"""README.md beside exported weights: what they are, from the file and its run's record alone.

The front matter is what the Hugging Face Hub reads. A fact that neither the weight file nor
``run.json`` nor a card of known weights states is called *not recorded*; nothing is filled in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sammed_data.lineage import bundled_lineage, joined
from sammed_data.types import ModelError
from sammed_model.about import About, about
from sammed_model.cards import find_card, find_place
from sammed_model.runs import write_text
from sammed_model.types import kind_facts

FILE = "README.md"
_MARK = "<!-- written by sammed from the weight file and run.json -->"
_UNSAID = "not recorded"
_MODES = {"bbox": "box", "1pt": "1 click", "3pt": "3 clicks", "5pt": "5 clicks"}


def write_model_card(
    weights: Path,
    folder: Path,
    *,
    files: Sequence[str] = (),
    record: Mapping[str, Any] | None = None,
    kind: str | None = None,
    image_size: int | None = None,
) -> Path:
    """Write the card of weights into the folder of an export.

    Args:
        weights: file of ours, or a published one.
        folder: of the export.
        files: its names there; default the weight file's own.
        record: of its run; default ``run.json`` beside the weights.
        kind: as exported, where the file does not say it.
        image_size: side in px as exported; default the file's.

    Returns:
        ``README.md``, or ``<name>.README.md`` where somebody else's README lies in the folder.

    Raises:
        ModelError: the record of the run is no JSON.
    """
    said = read_record(weights) if record is None else record
    found = about(weights)
    spec = replace(found.spec, image_size=image_size or found.spec.image_size)
    found = replace(found, kind=found.kind or kind, spec=spec)
    text = model_card(found, said, files or (weights.name,))
    path = card_place(folder, files[0] if files else weights.name)
    write_text(path, text)
    return path


def card_place(folder: Path, name: str) -> Path:
    """Where the card of an export goes whose first file has this name."""
    path = folder / FILE
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return folder / f"{Path(name).stem}.{FILE}"
    return path


def read_record(weights: Path) -> dict[str, Any]:
    """What ``run.json`` beside a weight file says; {} where there is none.

    Raises:
        ModelError: it is no JSON object.
    """
    path = weights.parent / "run.json"
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(f"expected the record of a training run in {path}: {err}") from err
    if not isinstance(raw, dict):
        raise ModelError(f"expected the record of a training run in {path}, found other JSON")
    return raw


def model_card(found: About, record: Mapping[str, Any], files: Sequence[str]) -> str:
    """The text of the card.

    Args:
        found: of the weight file.
        record: ``run.json``; {} where there is none.
        files: names of the export.
    """
    title = " ".join(str(part) for part in (found.spec.name, record.get("method")) if part)
    body = [
        f"# {title}",
        _MARK,
        "\n".join(_summary(found, record, files)),
        "## Use",
        "\n".join(_use(found, record)),
        "## Training",
        _table(_training(found, record)),
        *_data(record),
        "## Validation",
        "\n".join(_validation(record)),
        "## What it has seen",
        "\n".join(_seen(found, record)),
    ]
    return _front_matter(found, record, title) + "\n\n".join(body) + "\n"


def _front_matter(found: About, record: Mapping[str, Any], title: str) -> str:
    import yaml

    said: dict[str, Any] = {
        "library_name": "sammed",
        "pipeline_tag": "mask-generation",
        "tags": ["medical", "segment-anything", str(found.kind or "sam"), found.spec.name],
    }
    license_ = found.card.license if found.card else None
    if license_:  # of weights that were trained here nobody has said one
        said["license"] = license_.lower()
    if record.get("best_dice"):
        metrics = [
            {"type": "dice", "name": f"Dice, {_MODES.get(mode, mode)}", "value": round(value, 4)}
            for mode, value in record["best_dice"].items()
        ]
        data = {"name": ", ".join(record.get("datasets", ())), "type": "sammed-corpus"}
        result = {"task": {"type": "mask-generation"}, "dataset": data, "metrics": metrics}
        said["model-index"] = [{"name": title, "results": [result]}]
    return f"---\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100)}---\n\n"


def _summary(found: About, record: Mapping[str, Any], files: Sequence[str]) -> Iterator[str]:
    spec = found.spec
    adapters = "" if spec.adapters == "none" else ", with adapters"
    yield (
        f"{', '.join(f'`{name}`' for name in files)}: a Segment Anything model ({spec.name} at "
        f"{spec.image_size} px{adapters}) of kind {found.kind or _UNSAID}, which answers prompts "
        f"({', '.join(_prompts(found))}) on one 2D image. {found.parameters:,} values, SHA-256 of "
        f"the weight file `{found.sha256}`."
    )
    if record.get("control", "none") != "none":
        yield (
            f"\n**A control, of no use:** its images were {record['control']}, so it has learned "
            "from prompts and masks alone."
        )


def _prompts(found: About) -> tuple[str, ...]:
    return kind_facts(found.kind).prompts if found.kind else (_UNSAID,)


def _use(found: About, record: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "For research on interactive segmentation: a person, or a coarse mask, points at the "
        "object. It names nothing and finds nothing by itself. It is no medical device, and "
        "nobody has tested it for any decision about a patient."
    )
    yield ""
    yield f"- preprocessing: `{found.preprocessing or _UNSAID}` at {found.spec.image_size} px"
    for key, words in (("modalities", "modalities"), ("structures", "structures")):
        if names := record.get(key):
            yield f"- {words} it was trained on: {', '.join(map(str, names))}; others are untested"
    if patients := record.get("patients"):
        yield (
            f"- it learned from {patients:,} patients: scanners, sites and groups of people that "
            "are not among them are untested"
        )
    if found.spec.name == "vit_tiny":
        yield "- vit_tiny is a small model for CPU and demonstration, not SAM ViT-B"


def _training(found: About, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config = record.get("config") or {}
    yield "method", _text(record.get("method"))
    yield "recipe", _text(record.get("recipe") or found.recipe)
    yield "started from", _start(record)
    yield "digest of the start", _code(record.get("base_sha256"))
    yield "digest of the weights", _code(record.get("weights_sha256"))
    yield "corpus, by content", _code(record.get("corpus_sha256"))
    for key, words in (("images", "images"), ("masks", "masks"), ("patients", "patients")):
        yield f"training {words}", _text(record.get(key))
    yield "steps", _text(record.get("steps"))
    wanted = ("batch_images", "accumulate", "masks_per_image", "passes", "lr", "seed", "precision")
    said = [f"{key} {config[key]}" for key in wanted if key in config]
    yield "settings", ", ".join(said) or _UNSAID
    code = " ".join(str(record[key]) for key in ("code_version", "code_commit") if record.get(key))
    yield "sammed", code or _UNSAID
    yield "finished", _text(record.get("finished"))


def _start(record: Mapping[str, Any]) -> str:
    if not record:
        return _UNSAID
    init = str(record.get("init", _UNSAID))
    # A path tells strangers nothing but how the trainer's disk is laid out.
    return "random numbers" if init == "random" else f"`{Path(init).name}`"


def _data(record: Mapping[str, Any]) -> Iterator[str]:
    licenses = record.get("licenses") or {}
    yield "### Data and licences"
    if not licenses:
        yield f"Datasets: {_UNSAID}."
        return
    yield _table(
        [(name, str(said)) for name, said in sorted(licenses.items())], ("dataset", "licence")
    )
    yield (
        "The licences are those of the data as the corpus states them. None of these weights is "
        "declared here: whoever passes them on decides that, by the licences of the data and of "
        "the start."
    )


def _validation(record: Mapping[str, Any]) -> Iterator[str]:
    best, start = record.get("best_dice") or {}, record.get("start_dice") or {}
    if not best:
        yield f"Validation numbers: {_UNSAID}."
        return
    rows = [
        (_MODES.get(mode, mode), _number(start.get(mode)), _number(value))
        for mode, value in best.items()
    ]
    yield _table(rows, ("prompt", "Dice of the start", "Dice"))
    yield ""
    yield (
        "Mean Dice over masks of held-out images of the same corpus, prompts drawn from the truth. "
        f"The checkpoint (step {_text(record.get('best_step'))}) was chosen by these images, so "
        "the numbers flatter it: `sammed bench` scores it on test patients, with intervals."
    )


def _seen(found: About, record: Mapping[str, Any]) -> Iterator[str]:
    """What decides whether a test set is clean for these weights."""
    names = [str(name) for name in record.get("datasets", ())]
    if names:
        yield f"- trained on, or chosen by: {', '.join(names)}"
        groups = joined({n: item.overlaps for n, item in bundled_lineage().items()})
        kin = sorted({other for name in names for other in groups.get(name, ())} - set(names))
        if kin:
            yield f"- may hold the same patients (by the catalogue): {', '.join(kin)}"
    if record:
        yield f"- its start had seen: {_start_seen(record, frozenset())}"
    elif found.trained_on:
        yield f"- declared sources: {', '.join(found.trained_on)}"
    else:
        yield f"- training data: {_UNSAID}; take no test set for clean"


def _start_seen(record: Mapping[str, Any], before: frozenset[Path]) -> str:
    init = str(record.get("init", ""))
    if init == "random":
        return "nothing"
    place = find_place(init) if init else None
    if place is None or place in before:
        return f"{_UNSAID} (the start is not here)"
    if (place.parent / "run.json").is_file():
        earlier = read_record(place)
        names = ", ".join(map(str, earlier.get("datasets", ()))) or _UNSAID
        return f"{names}; before that: {_start_seen(earlier, before | {place})}"
    card = find_card(place)
    if card is None:
        return f"{_UNSAID} (no card records it)"
    return ", ".join(card.training_sources) or f"no dataset ({card.title})"


def _table(rows: Any, head: tuple[str, ...] = ("what", "")) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if value in (None, ""):
        return _UNSAID
    return f"{value:,}" if isinstance(value, int) else str(value)


def _code(value: Any) -> str:
    return f"`{value}`" if value else _UNSAID


def _number(value: Any) -> str:
    return _UNSAID if value is None else f"{value:.3f}"
