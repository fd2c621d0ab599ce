"""Documents beside the data: dataset.json, BIDS, and outlines as COCO, LabelMe or CVAT."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sammed_data.propose.carriers import Item, Pair, Survey

_MAX_DOCUMENTS, _MAX_BYTES = 400, 64 << 20
OUTLINES = ("coco", "labelme", "cvat")
_CVAT_IMAGE = re.compile(r'<image\b[^>]*\bname="([^"]+)"')
_CVAT_LABEL = re.compile(r'<(?:polygon|mask|ellipse)\b[^>]*\blabel="([^"]+)"')


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a document says: ``kind`` is msd, nnunet, coco, labelme, cvat or bids.

    Attributes:
        labels: raw value -> name.
        channels: names along the fourth axis, or of the files ``_0000``, ``_0001``.
        images: file names of images that outlines belong to.
    """

    kind: str
    path: str
    labels: Mapping[str, str]
    channels: tuple[str, ...] = ()
    name: str = ""
    license: str = ""
    images: tuple[str, ...] = ()


def statements(root: Path, found: Survey) -> list[Statement]:
    """Documents of known layouts, nearest to the top first."""
    candidates = [p for p in found.documents if p.lower().endswith((".json", ".xml"))]
    candidates.sort(key=lambda p: (p.count("/"), p))
    out = []
    for path in candidates[:_MAX_DOCUMENTS]:
        try:
            if (root / path).stat().st_size > _MAX_BYTES:
                continue
            text = (root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        said = _of_xml(text, path) if path.lower().endswith(".xml") else _of_json(text, path)
        if said is not None:
            out.append(said)
    return out


def outline_pairs(items: Sequence[Item], said: Sequence[Statement]) -> list[Pair]:
    """Images joined to the outline files that name them."""
    by_name: dict[str, list[Item]] = {}
    for item in items:
        if item.kind in ("raster", "dicom"):
            by_name.setdefault(PurePosixPath(item.path).name, []).append(item)
    pairs = []
    for statement in said:
        if statement.kind not in OUTLINES:
            continue
        label = Item(path=statement.path, kind=statement.kind, names=tuple(statement.labels))
        for name in dict.fromkeys(statement.images):
            clean = name.replace("\\", "/")
            found = by_name.get(PurePosixPath(clean).name, [])
            exact = [i for i in found if i.path.endswith(clean.lstrip("./"))]
            chosen = exact or found
            if len(chosen) == 1:
                pairs.append(Pair(image=chosen[0], labels=(label,), how="named by the outlines"))
    return pairs


def _of_xml(text: str, path: str) -> Statement | None:
    if "<annotations" not in text[:4096] or "<image " not in text:
        return None
    labels = {n: n for n in sorted(set(_CVAT_LABEL.findall(text)))}
    return Statement(kind="cvat", path=path, labels=labels, images=tuple(_CVAT_IMAGE.findall(text)))


def _of_json(text: str, path: str) -> Statement | None:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    if PurePosixPath(path).name == "dataset_description.json" and "BIDSVersion" in raw:
        return Statement(
            kind="bids", path=path, labels={}, name=str(raw.get("Name", "")),
            license=str(raw.get("License", "")),
        )  # fmt: skip
    if isinstance(raw.get("categories"), list) and "annotations" in raw:
        names = {str(c["name"]): str(c["name"]) for c in _mappings(raw["categories"], "name")}
        images = tuple(str(i["file_name"]) for i in _mappings(raw.get("images"), "file_name"))
        return Statement(kind="coco", path=path, labels=names, images=images)
    if isinstance(raw.get("shapes"), list) and "imagePath" in raw:
        names = {str(s["label"]): str(s["label"]) for s in _mappings(raw["shapes"], "label")}
        beside = str(PurePosixPath(path).with_name(PurePosixPath(str(raw["imagePath"])).name))
        return Statement(kind="labelme", path=path, labels=names, images=(beside,))
    return _dataset_json(raw, path) if isinstance(raw.get("labels"), dict) else None


def _mappings(raw: object, key: str) -> list[Mapping[str, Any]]:
    found = raw if isinstance(raw, list) else []
    return [m for m in found if isinstance(m, dict) and key in m]


def _dataset_json(raw: Mapping[str, Any], relative: str) -> Statement:
    """The dataset.json of the Decathlon (value -> name) and of nnU-Net v2 (name -> value)."""
    channels = raw.get("channel_names") or raw.get("modality") or {}
    names = channels.values() if isinstance(channels, dict) else [channels]
    return Statement(
        kind="nnunet" if "channel_names" in raw or "file_ending" in raw else "msd",
        path=relative,
        labels=dict(_named_values(raw["labels"])),
        channels=tuple(str(n) for n in names),
        name=str(raw.get("name", "")),
        license=str(raw.get("licence") or raw.get("license") or ""),
    )


def _named_values(labels: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in labels.items():
        if str(key).lstrip("-").isdigit():
            yield str(key), str(value)
        elif isinstance(value, int):
            yield str(value), str(key)
        # a list of values is a region (union of classes), not a class
