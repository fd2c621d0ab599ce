"""One group of pairs and the user's answers -> a proposal with its inferences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sammed_data import catalog
from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.ontology import Ontology
from sammed_data.propose import modality as modalities
from sammed_data.propose import patients
from sammed_data.propose.axes import axes_inference
from sammed_data.propose.carriers import Answers, Doubt, Group, Inference, Item, Proposal, worst
from sammed_data.propose.coding import LOOKS, Coding
from sammed_data.propose.documents import Statement
from sammed_data.propose.entry import entry_of, layout_of, slug
from sammed_data.propose.formats import Look, channels_of, grid_key
from sammed_data.propose.naming import Labels, find_labels, parse_labels
from sammed_data.propose.roles import ranked, spread
from sammed_data.propose.run_rules import runs_inference
from sammed_data.propose.told_splits import Splits, find_splits, splits_inference
from sammed_data.readers.raster import turned
from sammed_data.types import CatalogError, ReadError, UsageError, counted, nearest

_BY_HEADER = ("dicom_seg", "rtstruct", "seg_nrrd", "polygons")
_MAX_EXPLICIT = 60


class Proposer:
    """Makes proposals out of what was found in one folder.

    Attributes:
        root: surveyed folder.
        said: documents beside the data.
        everywhere: image paths of all groups.
        warnings: what is odd about the folder as a whole.
    """

    def __init__(
        self, root: Path, ontology: Ontology, said: Sequence[Statement],
        everywhere: Sequence[str], warnings: Sequence[str],
    ) -> None:  # fmt: skip
        self.root, self.said = root, said
        self._ontology = ontology
        self._everywhere, self._warnings = everywhere, warnings

    def propose(
        self, group: Group, coding: Coding, looks: Sequence[Look], exclude: Sequence[str],
        answers: Answers, *, shared: bool = False,
    ) -> Proposal:  # fmt: skip
        """The proposal of a group.

        Args:
            group: pairs and patterns.
            coding: how its labels are stored.
            looks: some of its images.
            exclude: globs of files that its image patterns match by mistake.
            answers: of the user.
            shared: another group has other masks of the same images.

        Raises:
            UsageError: an answer that does not fit the data.
        """
        images = list({p.image.path: p.image for p in group.pairs}.values())
        labels = self._labels(group, coding, answers)
        modality = self._modality(group, images, looks, answers)
        patient = self._patient(images, answers)
        flat = all(s.shape[0] == 1 for s in looks) if looks else images[0].kind == "raster"
        channels = self._channels(images[0])
        found = (coding, labels, modality, patient)
        splits = find_splits(answers.splits, [i.path for i in images], patient.regex, self.root)
        extra = self._extra(group, coding, images, splits)
        own = answers.id or self.root.resolve().name
        name = f"{own} {group.name.replace('_', ' ')}" if group.name else own
        layout = layout_of(_named_channels(group, self.said), channels, exclude)
        told = replace(answers, id=f"{slug(own)}_{group.name}" if group.name else own)
        entry = entry_of(name, told, layout, "2D" if flat else "3D", found, extra)
        _refuse_invalid(entry)
        pairs, entry = self._checked(group, entry)
        if shared:
            pairs = replace(
                pairs,
                doubt=worst(pairs.doubt, "medium"),
                evidence=f"{pairs.evidence}; other masks of these images make other entries",
            )
        axes = axes_inference(group, told=answers.axes is not None)
        runs = runs_inference(coding, told=answers.runs is not None)
        official = splits_inference(splits, answers.splits)
        inferences = [
            self._format(group, images), pairs, *([axes] if axes else []),
            _of_encoding(coding, entry, shared=shared), *([runs] if runs else []),
            _inference("labels", _shown(labels.labels), labels, "--labels"),
            _inference("modality", modality.value, modality, "--modality"),
            _inference("patient", f"{patient.regex} ({patient.unit})", patient, "--patient"),
            *([official] if official else []),
            *self._of_settings(entry, answers, extra),
        ]  # fmt: skip
        return Proposal(entry=entry, inferences=tuple(inferences),
                        label_comments=labels.comments, group=group)  # fmt: skip

    def _labels(self, group: Group, coding: Coding, answers: Answers) -> Labels:
        told = None if answers.labels is None else parse_labels(answers.labels, self._ontology)
        said = [] if coding.type in _BY_HEADER else self.said
        label = group.pairs[0].labels[0].path.split("/")
        image = group.pairs[0].image.path.rstrip("/").split("/")
        places = [label[-1], *reversed(label[:-1]), *reversed(image), self.root.resolve().name]
        return find_labels(coding, said, places, self._ontology, told)

    def _modality(
        self, group: Group, images: Sequence[Item], looks: Sequence[Look], answers: Answers
    ) -> modalities.Guess:
        if answers.modality is not None:
            value = _known_modality(answers.modality)
            return modalities.Guess(value=value, evidence="told", doubt="low")
        label = group.pairs[0].labels[0].path.split("/")
        image = group.pairs[0].image.path.rstrip("/").split("/")
        places = [*reversed(image), *reversed(label[:-1]), self.root.resolve().name]
        return modalities.find_modality(images, looks, self.said, places)

    def _patient(self, images: Sequence[Item], answers: Answers) -> patients.Candidate:
        paths = [i.path for i in images]
        if answers.patient is None:
            return patients.candidates(paths, everywhere=self._everywhere)[0]
        try:
            found = patients.told(answers.patient, paths)
        except re.error as err:
            raise UsageError(f"--patient {answers.patient!r}: {err}") from err
        if found is None:
            raise UsageError(
                f"--patient {answers.patient!r} needs one (group) and must match every image "
                f"path, such as {paths[0]!r}"
            )
        return found

    def _channels(self, image: Item) -> list[str]:
        n = channels_of(self.root, image)
        if n == 1:
            return []
        stated = next((list(s.channels) for s in self.said if len(s.channels) == n), None)
        return [slug(c) for c in stated] if stated else [f"c{k}" for k in range(n)]

    def _extra(
        self, group: Group, coding: Coding, images: Sequence[Item], splits: Splits | None
    ) -> dict[str, Any]:
        sequences = {s for _, s in group.image_patterns}
        sequence = sequences.pop() if len(sequences) == 1 else ""
        grid, apart = self._grid(group)
        return {
            "quirks": list(coding.notes),
            "root": self._folder(),
            "grid": grid,
            "apart": apart,
            "splits": None if splits is None else splits.globs,
            "sequence": "" if sequence.startswith("000") else sequence,
        }

    def _folder(self) -> list[str]:
        """The folder's name, so that a build finds it from the folder above too."""
        name = self.root.absolute().name  # not resolved: of a link, its own name
        return [name] if name not in ("", "..") and not (self.root / name).exists() else []

    def _grid(self, group: Group) -> tuple[str, str]:
        """``resample_image`` if most pairs lie on two grids, and how many do.

        A few that do may be mistakes: they are left to be rejected.
        """
        volumes = [p for p in group.pairs if p.labels[0].kind in ("nifti", "itk")]
        some = ranked(volumes, lambda p: p.labels[0].path)[:LOOKS]
        keys = [(grid_key(self.root, p.image), grid_key(self.root, p.labels[0])) for p in some]
        known = [pair for pair in keys if None not in pair]
        apart = sum(a != b for a, b in known)
        said = f"{apart} of {counted(len(known), 'pair')} looked at lie on two grids"
        return "resample_image" if 2 * apart > len(known) else "", said if apart else ""

    def _format(self, group: Group, images: Sequence[Item]) -> Inference:
        kinds = sorted({i.kind for i in images})
        labels = sorted({p.labels[0].kind for p in group.pairs})
        evidence = "; ".join(["endings and first bytes of the files", *self._warnings[:3]])
        value = f"{'+'.join(kinds)} with {'+'.join(labels)} labels"
        doubt: Doubt = "medium" if self._warnings else "low"
        return Inference(key="format", value=value, evidence=evidence, doubt=doubt)

    def _checked(self, group: Group, entry: dict[str, Any]) -> tuple[Inference, dict[str, Any]]:
        """The pairing as a build will find it by the patterns; explicit patterns if they leak."""
        wanted = {(p.image.path.rstrip("/"), p.labels[0].path.rstrip("/")) for p in group.pairs}
        value = f"{', '.join(p for p, _ in group.image_patterns)} with " + ", ".join(
            p for p, _ in group.label_patterns
        )
        doubt, evidence = group.doubt, group.evidence
        got, unpaired = _paired(entry, self.root)
        if got != wanted and 0 < len(group.structures) <= _MAX_EXPLICIT:
            entry = _explicit(entry, group.structures)
            got, unpaired = _paired(entry, self.root)
        if group.pairs[0].labels[0].kind == "runs" and got > wanted:
            evidence += f"; {len(got - wanted)} images without a line in it: a build rejects them"
            doubt, wanted = worst(doubt, "medium"), got
        lost, more = len(wanted - got), len(got - wanted)
        if lost or more:
            evidence += f"; the patterns lose {lost} of these pairs and add {more}"
            doubt = "high"
        upright = _turned(self.root, group)
        if upright:
            evidence += f"; {upright}"
            doubt = worst(doubt, "medium")
        if unpaired:
            evidence += f"; {counted(unpaired, 'file')} without a partner"
            doubt = worst(doubt, "medium")
        return Inference(key="pairs", value=value, evidence=evidence, doubt=doubt,
                         flag="--images --masks"), entry  # fmt: skip

    def _of_settings(
        self, entry: Mapping[str, Any], answers: Answers, extra: Mapping[str, Any]
    ) -> list[Inference]:
        said = next((s for s in self.said if s.license), None)
        hint = f"not told; {said.path} says {said.license!r}" if said else "not told"
        license_doubt: Doubt = "medium" if answers.license is None else "low"
        out = [
            Inference(key="license", value=entry["license"], doubt=license_doubt,
                      evidence=hint if answers.license is None else "told"),
            Inference(key="privacy", value=entry["privacy"], doubt="low",
                      evidence="told" if answers.public else "restricted unless told (--public)"),
        ]  # fmt: skip
        if extra.get("grid"):
            out.append(Inference(key="grid", value=extra["grid"], doubt="medium",
                                 evidence=f"{extra['apart']}: the image is resampled"))  # fmt: skip
        elif extra["apart"]:
            out.append(Inference(key="grid", value="same", doubt="medium",
                                 evidence=f"{extra['apart']}: a build rejects them"))  # fmt: skip
        return out


def _refuse_invalid(entry: Mapping[str, Any]) -> None:
    """An answer may need keys that no flag gives, such as the table of ``instance_csv``."""
    try:
        catalog.entry_of(entry, "these answers")
    except CatalogError as err:
        raise UsageError(f"{err}; write the entry by hand, see docs/catalogue.md") from err


def _turned(root: Path, group: Group) -> str:
    """A sentence if photographs are to be shown turned, '' else."""
    images = list({p.image.path: p.image for p in group.pairs if p.image.kind == "raster"}.values())
    some = spread(images, LOOKS)
    found = [i.path for i in some if _is_turned(root / i.path)]
    if not found:
        return ""
    return (
        f"{len(found)} of {len(some)} pictures looked at, such as {found[0]}, are to be shown "
        "turned (EXIF), which is not applied: look whether their masks lie on them, else save "
        "them upright"
    )


def _is_turned(path: Path) -> bool:
    try:
        return bool(turned(path))
    except ReadError:  # said where it is read
        return False


def _paired(entry: Mapping[str, Any], root: Path) -> tuple[set[tuple[str, str]], int]:
    """(image, label) pairs by the entry's patterns, and how many files have no partner."""
    try:
        found = discover(CatalogEntry.model_validate(dict(entry)), root)
    except CatalogError:
        return set(), 0
    pairs = {
        (c.image_path.relative_to(root).as_posix(), x.path.relative_to(root).as_posix())
        for c in found.cases for x in c.labels
    }  # fmt: skip
    return pairs, len(found.problems)


def _explicit(entry: Mapping[str, Any], structures: Sequence[str]) -> dict[str, Any]:
    """The entry with one label pattern a structure, in place of ``{structure}``."""
    patterns = [
        {**label, "pattern": label["pattern"].replace("{structure}", name), "structure": name}
        for label in entry["layout"]["labels"]
        for name in structures
    ]
    return {**entry, "layout": {**entry["layout"], "labels": patterns}}


def _of_encoding(coding: Coding, entry: Mapping[str, Any], *, shared: bool) -> Inference:
    rule = entry["label_encoding"]
    if coding.type == "rle_csv":
        strange = [f"odd: {n}" for n in coding.notes]
        return Inference(
            key="encoding", value=f"rle_csv ({rule['table']['pattern']})",
            evidence="; ".join(["cells of pairs of numbers", *strange]),
            doubt="medium" if strange or shared else "low",
        )  # fmt: skip
    more = ", ".join(f"{k} {v}" for k, v in rule.items() if k != "type")
    value = f"{rule['type']} ({more})" if more else str(rule["type"])
    bad = Counter(why for _, why in coding.unreadable)
    said = [f"{counted(sum(bad.values()), 'label file')} cannot be read"] if bad else []
    doubt = coding.doubt
    if shared and coding.type not in _BY_HEADER:
        doubt = worst(doubt, "medium")
        said.append("the same images have other masks: these may be classes of one entry")
    return Inference(key="encoding", value=value, flag="--encoding", doubt=doubt,
                     evidence="; ".join([coding.evidence, *coding.notes, *said]))  # fmt: skip


def _inference(
    key: str, value: str, found: Labels | modalities.Guess | patients.Candidate, flag: str
) -> Inference:
    return Inference(key=key, value=value, evidence=found.evidence, doubt=found.doubt, flag=flag)


def _named_channels(group: Group, said: Sequence[Statement]) -> Group:
    """Sequences ``0000``, ``0001`` by the names that a dataset.json gives them."""
    names = next((s.channels for s in said if s.channels), ())
    renamed = tuple(
        (p, slug(names[int(q)]) if q.isdigit() and int(q) < len(names) else q)
        for p, q in group.image_patterns
    )
    return replace(group, image_patterns=renamed)


def _shown(labels: Mapping[str, str]) -> str:
    pairs = [f"{k}={v}" for k, v in labels.items()]
    return ", ".join(pairs[:6]) + (f", ... {len(pairs)} in all" if len(pairs) > 6 else "")


def _known_modality(text: str) -> str:
    for known in modalities.MODALITIES:
        if known.lower() == text.lower():
            return known
    raise UsageError(f"unknown --modality {text!r}: {nearest(text, modalities.MODALITIES)}")
