"""Asking a model: an image is encoded once and all its masks are asked about in every mode.

What fails in a batch is tried image by image, so that one bad image costs its own rows only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sammed_bench import metrics, protocols
from sammed_bench.metric_cards import ALWAYS
from sammed_bench.protocols import SAM_MED2D, Protocol, Target
from sammed_bench.surface import TOLERANCE
from sammed_bench.types import ImagePrompts, KnowsTruth, Model, Prediction
from sammed_data.corpus import MaskRow, Row
from sammed_data.types import ModelError


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything but the model that a score depends on.

    Attributes:
        corpus_sha256: content hash of the corpus.
        splits: which of its splits.
        modes: prompt modes.
        limit: only the first so many images, for a quick look; None = all.
        metrics: what is measured.
        tolerance: of the normalised surface Dice, in mm, or px where the spacing is unknown.
    """

    corpus_sha256: str
    splits: tuple[str, ...]
    modes: tuple[str, ...]
    protocol: Protocol = SAM_MED2D
    seed: int = 0
    limit: int | None = None
    metrics: tuple[str, ...] = ALWAYS
    tolerance: float = TOLERANCE

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the hash of the protocol."""
        found = asdict(self) | {"splits": list(self.splits), "modes": list(self.modes)}
        found |= {"metrics": list(self.metrics)}
        return found | {"protocol_hash": self.protocol.hash, "metrics_version": metrics.VERSION}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The masks of one image in one mode: bool (M, H, W), or why there are none.

    Attributes:
        finite_M: False where the model gave something that is no number.
        clicks_M: clicks given, voids not counted.
        prompts: what was asked.
    """

    masks_MHW: Tensor | None = None
    finite_M: Tensor | None = None
    clicks_M: Tensor | None = None
    prompts: ImagePrompts | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One image with its masks as they are asked about."""

    row: Row
    masks: tuple[MaskRow, ...]
    target: Target

    @classmethod
    def of(
        cls,
        row: Row,
        masks: Sequence[MaskRow],
        conditions: Conditions,
        device: torch.device | str,
    ) -> Asked:
        """Bring the masks of a row with pixels to the device.

        Args:
            row: with pixels.
            masks: of its index row (which ones count).
            conditions: whose protocol is used.
            device: where to.
        """
        planes = [row.masks[m.index].mask_HW for m in masks]
        truth = torch.stack([torch.from_numpy(plane) for plane in planes]).to(device)
        valid = torch.ones(row.height, row.width, dtype=torch.bool, device=device)
        if row.ignore_HW is not None:
            valid = ~torch.from_numpy(row.ignore_HW).to(device)
        keys = [m.index for m in masks]
        target = Target.of(conditions.protocol, row.sample_id, keys, truth, valid)
        return cls(row=row, masks=tuple(masks), target=target)


def accepts(model: Model, mode: str) -> bool:
    """Whether the model can be asked in this mode."""
    return protocols.kind_of(mode) in model.facts.accepts


def answer_batch(
    model: Model, asked: Sequence[Asked], conditions: Conditions
) -> dict[str, list[Answer]]:
    """The answers of a model by mode, one per image; what fails in a batch is tried alone."""
    wanted = [mode for mode in conditions.modes if accepts(model, mode)]
    answers: dict[str, list[Answer]] = {mode: [Answer()] * len(asked) for mode in conditions.modes}
    if not wanted:
        return answers
    try:
        _ask(model, asked, conditions, wanted, answers)
    except Exception as err:  # noqa: BLE001 - a model may fail in any way; it is counted, not hidden
        if len(asked) > 1:
            for i, image in enumerate(asked):
                alone = answer_batch(model, [image], conditions)
                for mode in conditions.modes:
                    answers[mode][i] = alone[mode][0]
            return answers
        _fail_rest(model, asked, conditions, wanted, answers, f"{type(err).__name__}: {err}")
    return answers


def _fail_rest(
    model: Model,
    asked: Sequence[Asked],
    conditions: Conditions,
    wanted: Sequence[str],
    answers: dict[str, list[Answer]],
    error: str,
) -> None:
    """After a failure: kinds of prompts not yet tried get their own chance, the rest failed."""
    missing = [mode for mode in wanted if answers[mode][0].masks_MHW is None]
    failed_kind = protocols.kind_of(missing[0])
    for mode in missing:
        if protocols.kind_of(mode) == failed_kind:
            answers[mode] = [Answer(error=error)]
    untried = tuple(mode for mode in missing if protocols.kind_of(mode) != failed_kind)
    if untried:
        later = answer_batch(model, asked, replace(conditions, modes=untried))
        answers |= later


def _ask(
    model: Model,
    asked: Sequence[Asked],
    conditions: Conditions,
    wanted: Sequence[str],
    answers: dict[str, list[Answer]],
) -> None:
    """Encode once and go through the modes, filling ``answers`` as they come."""
    targets = [image.target for image in asked]
    if isinstance(model, KnowsTruth):
        model.reveal([target.truth_MHW for target in targets])
    state = model.encode([image.row.image for image in asked if image.row.image is not None])
    if "bbox" in wanted:
        given = [ImagePrompts(boxes_M4=protocols.boxes(conditions.protocol, t)) for t in targets]
        answers["bbox"] = [a for a, _ in _predict(model, state, given, targets)]
    rounds = protocols.click_rounds(wanted)
    if rounds:
        for number, made in _dialogue(model, state, targets, conditions, max(rounds)):
            if number in rounds:
                answers[rounds[number]] = made
    if "mask" in wanted:
        coarse = (protocols.coarse_masks(conditions.protocol, t) for t in targets)
        given = [ImagePrompts(masks_MHW=mask) for mask in coarse]
        answers["mask"] = [a for a, _ in _predict(model, state, given, targets)]


def _dialogue(
    model: Model, state: Any, targets: Sequence[Target], conditions: Conditions, rounds: int
) -> Iterator[tuple[int, list[Answer]]]:
    """``(number of clicks, answers)`` after each round."""
    protocol, seed = conditions.protocol, conditions.seed
    points: list[list[Tensor]] = [[] for _ in targets]
    labels: list[list[Tensor]] = [[] for _ in targets]
    last: list[tuple[Answer, Any]] = []
    for number in range(rounds):
        given = []
        for i, target in enumerate(targets):
            if number == 0:
                xy, label = protocols.first_clicks(protocol, target, seed)
            else:
                predicted = last[i][0].masks_MHW
                assert predicted is not None  # noqa: S101 - _predict raises otherwise
                xy, label = protocols.next_clicks(protocol, target, predicted, number, seed)
            points[i].append(xy)
            labels[i].append(label)
            given.append(
                ImagePrompts(
                    points_MN2=torch.stack(points[i], dim=1),
                    point_labels_MN=torch.stack(labels[i], dim=1),
                    memory=last[i][1] if last else None,
                )
            )
        last = _predict(model, state, given, targets)
        yield number + 1, [answer for answer, _ in last]


def _predict(
    model: Model, state: Any, given: Sequence[ImagePrompts], targets: Sequence[Target]
) -> list[tuple[Answer, Any]]:
    """Ask once: the thresholded answers and the model's memory of each image.

    Raises:
        ModelError: answers of a wrong number or shape.
    """
    found: Sequence[Prediction] = model.predict(state, given)
    if len(found) != len(targets):
        raise ModelError(f"expected answers for {len(targets)} images, found {len(found)}")
    answers = []
    for prediction, prompts, target in zip(found, given, targets, strict=True):
        logits = prediction.logits_MHW.to(target.truth_MHW.device)
        if logits.shape != target.truth_MHW.shape:
            raise ModelError(
                f"expected logits of shape {tuple(target.truth_MHW.shape)} (masks, height, width "
                f"of the slice), found {tuple(logits.shape)}"
            )
        labels = prompts.point_labels_MN
        clicks = torch.zeros(len(target), dtype=torch.int64)
        answer = Answer(
            masks_MHW=logits > 0,
            finite_M=logits.flatten(1).isfinite().all(dim=1),
            clicks_M=clicks if labels is None else (labels >= 0).sum(dim=1),
            prompts=prompts,
        )
        answers.append((answer, prediction.memory))
    return answers
