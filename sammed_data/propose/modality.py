"""The modality: from the DICOM header, documents, intensities, words in names, colours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sammed_data.propose.carriers import Doubt, Item
from sammed_data.propose.documents import Statement
from sammed_data.propose.formats import Look

_DICOM = {
    "CT": "CT", "MR": "MR", "PT": "PET", "NM": "PET", "US": "ultrasound", "CR": "X-ray",
    "DX": "X-ray", "RF": "X-ray", "XA": "X-ray", "PX": "X-ray", "IO": "X-ray", "MG": "mammography",
    "OP": "fundus", "OPT": "OCT", "ES": "endoscopy", "SM": "histopathology", "GM": "microscopy",
}  # fmt: skip
_WORDS = {
    "CT": "ct cta cect ncct",
    "MR": "mr mri mra t1 t1w t1ce t1c t1gd t2 t2w flair dwi adc swi bssfp cmr lge t1n t2f",
    "PET": "pet fdg suv",
    "X-ray": "xray cxr radiograph radiography panoramic dental",
    "ultrasound": "ultrasound us sonography echo echocardiography",
    "dermoscopy": "dermoscopy skin melanoma dermatology naevus nevus",
    "endoscopy": "endoscopy endoscopic colonoscopy polyp polyps laparoscopy gastroscopy",
    "fundus": "fundus retina retinal",
    "OCT": "oct",
    "histopathology": "histopathology histology pathology wsi gland glands",
    "microscopy": "microscopy fluorescence nuclei nucleus cell cells dapi",
    "mammography": "mammography mammogram mammograms",
}
MODALITIES = tuple(_WORDS)
_VOLUMES = ("CT", "MR", "PET", "ultrasound", "OCT")
_BY_WORD = {word: modality for modality, words in _WORDS.items() for word in words.split()}
_AIR_HU, _BONE_HU = -900, 200


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A modality, from what, with which doubt."""

    value: str
    evidence: str
    doubt: Doubt


def find_modality(
    items: Sequence[Item],
    looks: Sequence[Look],
    said: Sequence[Statement],
    places: Sequence[str],
) -> Guess:
    """Infer the modality of a group's images.

    Args:
        items: the images.
        looks: those that were read.
        said: documents beside the data.
        places: paths and names that may speak of it, nearest first.
    """
    header = _of_header(items)
    if header is not None:
        return header
    volume = any(i.kind in ("nifti", "itk", "dicom") for i in items)
    if any(i.kind == "array" for i in items):  # which may hold either
        volume = any(s.shape[0] > 1 or s.low < 0 or s.high > 255 for s in looks)
    named = _of_documents(said) or _of_names(places, _VOLUMES if volume else MODALITIES)
    seen = _of_values(looks) if volume else _of_picture(looks)
    if named is None:
        return seen
    if seen.doubt != "high" and seen.value != named.value:
        return Guess(
            value=seen.value,
            evidence=f"{seen.evidence}; but {named.evidence} says {named.value}",
            doubt="high",
        )
    if seen.value == named.value:
        doubt: Doubt = "low" if "low" in (named.doubt, seen.doubt) else "medium"
        return Guess(value=named.value, evidence=f"{named.evidence}; {seen.evidence}", doubt=doubt)
    return named


def _of_header(items: Sequence[Item]) -> Guess | None:
    codes = {i.modality for i in items if i.kind == "dicom"}
    if not codes:
        return None
    known = {_DICOM[c] for c in codes if c in _DICOM}
    if len(known) == 1 and all(c in _DICOM for c in codes):
        return Guess(value=known.pop(), evidence="Modality of the DICOM headers", doubt="low")
    words = ", ".join(sorted(c or "none" for c in codes))
    value = sorted(known)[0] if known else "X-ray"
    return Guess(value=value, evidence=f"DICOM headers say {words}", doubt="high")


def _of_documents(said: Sequence[Statement]) -> Guess | None:
    for statement in said:
        found = {m for c in statement.channels for w in _split(c) if (m := _BY_WORD.get(w))}
        if len(found) == 1:
            return Guess(value=found.pop(), evidence=f"channels named in {statement.path}",
                         doubt="low")  # fmt: skip
    return None


def _of_names(places: Sequence[str], possible: Sequence[str]) -> Guess | None:
    for place in places:
        words = [w for w in _split(place) if _BY_WORD.get(w) in possible]
        found = {_BY_WORD[w] for w in words}
        if len(found) == 1:
            return Guess(value=found.pop(), evidence=f"the word {words[0]!r} in {place!r}",
                         doubt="medium")  # fmt: skip
    return None


def _split(text: str) -> list[str]:
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return [w for w in re.split(r"[^a-z0-9]+", text.lower()) if w]


def _of_values(looks: Sequence[Look]) -> Guess:
    if not looks:
        return Guess(value="MR", evidence="no image could be looked at", doubt="high")
    low, high = min(s.low for s in looks), max(s.high for s in looks)
    if all(s.low <= _AIR_HU and s.high >= _BONE_HU and s.low >= -5000 for s in looks):
        return Guess(value="CT", evidence=f"values from {low:g} to {high:g}: Hounsfield units",
                     doubt="low")  # fmt: skip
    if low < -100:
        return Guess(value="CT", evidence=f"values from {low:g} to {high:g}, cut Hounsfield units?",
                     doubt="high")  # fmt: skip
    return Guess(value="MR", evidence=f"a volume with values from {low:g} to {high:g}, no units",
                 doubt="high")  # fmt: skip


def _of_picture(looks: Sequence[Look]) -> Guess:
    if not looks:
        return Guess(value="X-ray", evidence="no image could be looked at", doubt="high")
    coloured = [s for s in looks if s.colours]
    if not coloured:
        return Guess(value="ultrasound", doubt="high",
                     evidence="grey pictures: X-ray, ultrasound, CT, MR look so")  # fmt: skip
    r, g, b = np.mean([s.mean_rgb[:3] for s in coloured], axis=0)
    dark = float(np.mean([s.dark_border for s in coloured]))
    words = f"colour pictures of mean ({r:.0f}, {g:.0f}, {b:.0f}), corners {dark:.0%} black"
    if b > g + 15 and r > g + 15:
        value = "histopathology"
    elif dark > 0.7 and r > 1.8 * b:
        value = "fundus" if g > 1.3 * b else "endoscopy"
    elif r > 1.5 * b:
        value = "endoscopy"
    else:
        value = "dermoscopy"
    return Guess(value=value, evidence=words, doubt="high")
