"""From a folder to proposals: each step once, the answers of the user applied as often as asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from sammed_data.catalog import CatalogEntry, LabelEncoding
from sammed_data.discover import discover
from sammed_data.ontology import Ontology
from sammed_data.patterns import compile_pattern
from sammed_data.propose.arrays import bundle_pairs, with_arrays
from sammed_data.propose.axes import agreed, told_axes
from sammed_data.propose.carriers import Answers, Group, Item, Pair, Proposal, Survey
from sammed_data.propose.coding import Coding
from sammed_data.propose.documents import Statement, outline_pairs, statements
from sammed_data.propose.encoding import empty_alpha, find_encoding
from sammed_data.propose.formats import Look, look
from sammed_data.propose.layout import MAX_GROUPS, find_groups
from sammed_data.propose.naming import knows
from sammed_data.propose.pairing import pair_up
from sammed_data.propose.proposal import Proposer
from sammed_data.propose.roles import Roles, find_roles, spread
from sammed_data.propose.run_rules import coding_of_runs
from sammed_data.propose.run_tables import RunTable, run_pairs, run_tables, table_of, with_table
from sammed_data.propose.survey import MAX_FILES, survey
from sammed_data.types import ReadError, SammedError, UsageError, counted, nearest

_A_GROUP = 3  # images of a group that are read for its modality
_FEW_LABELS, _FEW_PAIRS, _FEW_FOREIGN = 12, 60, 20


class Inspector:
    """A surveyed folder; what is costly is computed once."""

    def __init__(self, root: Path, ontology: Ontology, *, max_files: int = MAX_FILES) -> None:
        self.root = root
        self.ontology = ontology
        self.found: Survey = with_arrays(root, survey(root, max_files=max_files))
        self._codings: dict[tuple[object, ...], Coding] = {}

    @cached_property
    def roles(self) -> Roles:
        """Which items are images and which hold labels."""
        return find_roles(self.root, self.found.items)

    @cached_property
    def said(self) -> list[Statement]:
        """Documents of known layouts."""
        return statements(self.root, self.found)

    @cached_property
    def _tables(self) -> tuple[list[RunTable], list[tuple[str, str]]]:
        """Tables of runs, and (path, why) of those that cannot be proposed."""
        bad: list[tuple[str, str]] = []
        return run_tables(self.root, self.found, bad), bad

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(path, why) of all files that could not be read on the way."""
        codings = [bad for c in self._codings.values() for bad in c.unreadable]
        own = [*self.found.unreadable, *self.roles.unreadable, *self._tables[1]]
        return list(dict([*own, *codings]).items())

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of pairs by what lies in the folder.

        Raises:
            ReadError: an empty folder, no image, no mask, or nothing fits together.
        """
        self._refuse_empty()
        pairs = agreed(pair_up(self.root, self.found.items, self.roles.role))
        pairs += agreed(bundle_pairs(self.found))
        tables = self._tables[0]
        images = [i for i in self.found.items if self.roles.role.get(i.path) == "image"]
        pairs += run_pairs(images, tables)
        pairs += outline_pairs(self.found.items, self.said)
        named = frozenset(n for s in self.said for n in s.labels.values())
        found = find_groups(pairs, lambda n: knows(self.ontology, n), self._binary(pairs), named)
        if not found:
            raise ReadError(self._no_pairs())
        return [with_table(g, tables) for g in found]

    def proposals(self, answers: Answers) -> list[Proposal]:
        """One proposal a group, with the user's answers.

        Raises:
            UsageError: an answer that does not fit the data.
            ReadError: nothing to propose.
        """
        known = get_args(LabelEncoding.model_fields["type"].annotation)
        if answers.encoding not in (None, *known):
            raise UsageError(
                f"unknown --encoding {answers.encoding!r}; {nearest(str(answers.encoding), known)}"
            )
        told = answers.images is not None or answers.masks is not None
        groups = [self._told_group(answers)] if told else self.groups
        names = [g.name for g in groups]
        if answers.group is not None:
            if answers.group not in names:
                raise UsageError(f"no group {answers.group!r}: {nearest(answers.group, names)}")
            groups = [g for g in groups if g.name == answers.group]
        if answers.axes is not None:
            groups = [told_axes(g, answers.axes) for g in groups]
        return [self._proposal(g, answers) for g in groups[:MAX_GROUPS]]

    @cached_property
    def _proposer(self) -> Proposer:
        warnings = [*self.roles.conflicts]
        if self.found.limit:
            warnings.append(self.found.limit)
        if self.unreadable:
            path, why = self.unreadable[0]
            why = why.removeprefix(f"{path}: ")
            those = counted(len(self.unreadable), "file")
            warnings.append(f"{those} not read, such as {path}: {why}")
        return Proposer(
            self.root,
            self.ontology,
            self.said,
            [p for p, r in self.roles.role.items() if r == "image"],
            warnings,
        )

    def _proposal(self, group: Group, answers: Answers) -> Proposal:
        images = list({p.image.path: p.image for p in group.pairs}.values())
        coding = self._coding(group, answers)
        looks = [s for i in spread(images, _A_GROUP) if (s := self._look(i)) is not None]
        shared = False
        if answers.images is None:
            own = {i.path for i in images}
            others = {p.image.path for g in self.groups if g is not group for p in g.pairs}
            shared = bool(own & others)
        return self._proposer.propose(
            group, coding, looks, self._exclude(group), answers, shared=shared
        )

    def _refuse_empty(self) -> None:
        if self.found.items or self.found.bundles:
            return
        bad = self.found.unreadable
        others = ", ".join(f"{n} x {s}" for s, n in sorted(self.found.others.items()))
        why = f"; {bad[0][0]}: {bad[0][1]}" if bad else f"; it holds {others}" if others else ""
        raise ReadError(
            f"expected images and masks under {self.root}, found {self.found.n_files} files and "
            f"none that a reader knows{why}; name the folder that holds the images"
        )

    def _no_pairs(self) -> str:
        images = [p for p, r in self.roles.role.items() if r == "image"]
        labels = [p for p, r in self.roles.role.items() if r == "label"]
        limit = f" ({self.found.limit}: raise --max-files)" if self.found.limit else ""
        if self.unreadable:
            path, why = self.unreadable[0]
            those = counted(len(self.unreadable), "place was", "places were")
            limit += f"; {those} not read, such as {path}: {why.removeprefix(f'{path}: ')}"
        if not labels:
            return (
                f"expected images with masks under {self.root}, found "
                f"{counted(len(images), 'image')} (such as {images[0]}) and no mask{limit}; put "
                "the masks beside them, or name both with --images PATTERN --masks PATTERN"
            )
        if not images:
            return (
                f"expected images with masks under {self.root}, found "
                f"{counted(len(labels), 'mask')} (such as {labels[0]}) and no image{limit}; put "
                "the images beside them"
            )
        return (
            f"expected images that go with masks under {self.root}, found "
            f"{counted(len(images), 'image')} (such as {images[0]}) and "
            f"{counted(len(labels), 'mask')} (such as {labels[0]}) without a common part in their "
            f"names{limit}; say it with --images PATTERN --masks PATTERN"
        )

    def _binary(self, pairs: Sequence[Pair]) -> dict[str, bool]:
        """Whether label files hold one value; all labels of an image are read where it has few."""
        out = {p: s.n_values <= 2 for p, s in self.roles.looks.items()}
        many = Counter(p.image.path for p in pairs)
        for pair in pairs:
            label = pair.labels[0]
            few = 1 < many[pair.image.path] <= _FEW_LABELS and len(pairs) <= _FEW_PAIRS
            if few and label.path not in out:
                seen = self._look(label)
                if seen is not None:
                    out[label.path] = seen.n_values <= 2
        return out

    def _look(self, item: Item) -> Look | None:
        known = self.roles.looks.get(item.path)
        if item.kind not in ("nifti", "itk", "raster", "array", "dicom"):
            return known
        if known is not None and item.kind != "array":  # of an array another part may be meant
            return known
        try:
            return look(self.root, item)
        except SammedError:
            return None

    def _told_group(self, answers: Answers) -> Group:
        """The group of the user's own patterns."""
        if not (answers.images and answers.masks):
            raise UsageError("--images and --masks go together: give a pattern for each")
        for flag, pattern in (("--images", answers.images), ("--masks", answers.masks)):
            if re.search(r"[{}]", re.sub(r"\{\w+\}", "", pattern)):
                raise UsageError(
                    f"{flag} {pattern}: expected fields in braces, such as {{case}}, found a brace "
                    "alone; a ? stands for one in a file name"
                )
        found = discover(_minimal(answers.images, answers.masks), self.root)
        images = {i.path.rstrip("/"): i for i in self.found.items}
        masks = images | {x.path: x for _, x in self.found.bundles}
        images |= {i.path: i for i, _ in self.found.bundles}
        pairs: list[Pair] = []
        structures: set[str] = set()
        for case in found.cases:
            image = images.get(case.image_path.relative_to(self.root).as_posix())
            for label in case.labels:
                mask = masks.get(label.path.relative_to(self.root).as_posix())
                if image is not None and mask is not None:
                    pairs.append(Pair(image=image, labels=(mask,), how="told"))
                    structures |= {label.structure} if label.structure else set()
        if not pairs:
            why = found.problems[0].reason if found.problems else "no file matches --images"
            raise UsageError(f"--images {answers.images} --masks {answers.masks}: {why}")
        n = len({p.image.path for p in pairs})
        return Group(
            name="",
            pairs=tuple(agreed(pairs)),
            image_patterns=((answers.images, ""),),
            label_patterns=((answers.masks, 1),),
            doubt="low",
            evidence=f"told: {n} images with {len(pairs)} masks",
            structures=tuple(sorted(structures)),
        )

    def _coding(self, group: Group, answers: Answers) -> Coding:
        table = table_of(group, self._tables[0])
        told = answers.encoding if table is None else answers.runs
        array = group.pairs[0].labels[0].array
        key = (group.image_patterns, group.label_patterns, told, array)
        if key not in self._codings:
            if table is None:
                found = find_encoding(self.root, group, told)
            else:
                found = coding_of_runs(self.root, group, table, told)
            alpha = empty_alpha(self.root, [p.labels[0] for p in group.pairs[:20]])
            if alpha:
                found = replace(found, doubt="high", notes=(*found.notes, alpha))
            self._codings[key] = found
        return self._codings[key]

    def _exclude(self, group: Group) -> list[str]:
        """Globs of label files outside the group that its image patterns would take for images."""
        patterns = [compile_pattern(p) for p, _ in group.image_patterns]
        own = [compile_pattern(p) for p, _ in group.label_patterns]
        foreign = {
            p for p, r in self.roles.role.items()
            if r == "label" and any(x.fields_of(p) is not None for x in patterns)
            and not any(x.fields_of(p) is not None for x in own)
        }  # fmt: skip
        if len(foreign) <= _FEW_FOREIGN:
            return sorted(foreign)
        others = [p for g in self.groups if g is not group for p, _ in g.label_patterns]
        return sorted({re.sub(r"\{\w+\}", "*", p) for p in others})


def _minimal(images: str, masks: str) -> CatalogEntry:
    entry: dict[str, Any] = {
        "id": "told", "name": "told", "modality": "CT", "dims": "3D", "license": "", "homepage": "",
        "layout": {"images": [{"pattern": images}], "labels": [{"pattern": masks}]},
        "label_encoding": {"type": "index"}, "labels": {},
    }  # fmt: skip
    return CatalogEntry.model_validate(entry)
