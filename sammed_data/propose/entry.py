"""What was inferred -> an entry of the catalogue, and its YAML with the doubts as comments."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sammed_data.propose.carriers import Answers, Group, Inference, Item, Proposal
from sammed_data.propose.coding import Coding
from sammed_data.propose.modality import Guess
from sammed_data.propose.naming import Labels
from sammed_data.propose.patients import Candidate

_NO_SEQUENCES = ("ct", "cta", "mr", "mri", "pet", "us", "")


def slug(text: str) -> str:
    """An id out of any name: lower case letters, digits and underscores."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_") or "dataset"


def layout_of(
    group: Group, channels: Sequence[str], exclude: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """``layout`` of an entry."""
    images: list[dict[str, Any]] = []
    for pattern, sequence in group.image_patterns:
        image: dict[str, Any] = {"pattern": pattern}
        if channels and len(group.image_patterns) == 1:
            image["channel"] = list(channels)
        elif len({s for _, s in group.image_patterns}) > 1:
            image["channel"] = sequence
        images.append(image | _of_array(group.pairs[0].image))
    labels: list[dict[str, Any]] = []
    for pattern, annotator in group.label_patterns:
        label: dict[str, Any] = {"pattern": pattern}
        if annotator != 1:
            label["annotator"] = annotator
        labels.append(label | _of_array(group.pairs[0].labels[0]))
    out: dict[str, Any] = {"images": images, "labels": labels}
    if exclude:
        out["exclude"] = list(exclude)
    first = group.pairs[0]
    out["example"] = {"image": first.image.path, "label": first.labels[0].path}
    return out


def _of_array(item: Item) -> dict[str, Any]:
    found = {} if item.array is None else {"variable": item.array.variable, "axes": item.array.axes}
    return {k: v for k, v in found.items() if v}


def entry_of(
    name: str,
    answers: Answers,
    layout: Mapping[str, Any],
    dims: str,
    found: tuple[Coding, Labels, Guess, Candidate],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The mapping of an entry, in the order of the catalogue."""
    coding, labels, modality, patient = found
    base = slug(answers.id or name)
    encoding: dict[str, Any] = {"type": coding.type, **coding.options}
    if labels.background:
        encoding["unlabelled_ok"] = [b for b in labels.background if b != "0"]
        if not encoding["unlabelled_ok"]:
            del encoding["unlabelled_ok"]
    entry: dict[str, Any] = {
        "id": base,
        "name": name,
        "modality": modality.value,
        "dims": dims,
        "layout": dict(layout),
        "label_encoding": encoding,
        "labels": dict(labels.labels),
        "patient": {"regex": patient.regex, "unit": patient.unit},
        "license": answers.license or "unknown",
        "homepage": "own data",
        "evidence": "written",
        "privacy": "public" if answers.public else "restricted",
    }
    if extra.get("sequence", "").lower() not in _NO_SEQUENCES and modality.value == "MR":
        entry["sequence"] = extra["sequence"]
    for key in ("root", "splits", "grid", "quirks"):
        if extra.get(key):
            entry[key] = extra[key]
    order = (
        "id", "name", "modality", "sequence", "dims", "root", "layout", "label_encoding", "labels",
        "patient", "splits", "grid", "license", "homepage", "quirks", "evidence", "privacy",
    )  # fmt: skip
    return {k: entry[k] for k in order if k in entry}


_KEY_OF = {
    "pairs": "layout", "format": "layout", "axes": "layout",
    "encoding": "label_encoding", "runs": "label_encoding",
}  # fmt: skip


def to_yaml(proposal: Proposal) -> str:
    """The entry with a line above each key that is in doubt, and one beside each doubtful label."""
    import yaml

    lines = ["# Proposed by `sammed data init`. What is in doubt is said above each key; mend it,"]
    lines.append("# then delete the comment.")
    for key, value in proposal.entry.items():
        for inference in proposal.inferences:
            owner = _KEY_OF.get(inference.key, inference.key)
            if owner == key and inference.doubt != "low":
                lines.append(_comment(inference))
        text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=96)
        lines += text.rstrip("\n").split("\n")
        if key == "labels":
            lines += [f"# {line}" for line in label_notes(proposal)]
    return "\n".join(lines) + "\n"


def label_notes(proposal: Proposal) -> list[str]:
    """Why label names are in doubt, one line a reason."""
    raws: dict[str, list[str]] = {}
    for raw, why in proposal.label_comments.items():
        raws.setdefault(why, []).append(raw)
    return [
        f"{', '.join(found[:12])}{', ...' if len(found) > 12 else ''}: {why}"
        for why, found in raws.items()
    ]


def _comment(inference: Inference) -> str:
    text = f"# doubt {inference.doubt}: {inference.key} from: {inference.evidence}"
    return " ".join(text.split())
