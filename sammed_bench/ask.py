"""Asking a model: an image is encoded once and all its masks are asked about in every mode.

What fails in a batch is tried image by image, so that one bad image costs its own rows only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sammed_bench import modes as mode_names
from sammed_bench import openings, protocols
from sammed_bench.conditions import Conditions
from sammed_bench.metrics import dice, iou, overlap
from sammed_bench.modes import BOX, POINTS
from sammed_bench.openings import Opening
from sammed_bench.protocols import Target
from sammed_bench.types import (
    ImagePrompts,
    KnowsSamples,
    KnowsTruth,
    Model,
    ModelFacts,
    Partial,
    Prediction,
)
from sammed_data.corpus import MaskRow, Row
from sammed_data.types import ModelError


@dataclass(frozen=True, kw_only=True)
class ClickRound:
    """One round of a dialogue about the masks of one image.

    Attributes:
        number: clicks given so far; 0 for the box alone.
        xy_M2, label_M: the newest click, None in round 0.
        dice_M, iou_M: of the answer to it.
        finite_M: False where the answer is no number.
    """

    number: int
    xy_M2: Tensor | None
    label_M: Tensor | None
    dice_M: Tensor
    iou_M: Tensor
    finite_M: Tensor


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The masks of one image in one mode: bool (M, H, W), or why there are none.

    Attributes:
        finite_M: False where the model gave something that is no number.
        clicks_M: clicks given, voids not counted.
        prompts: what was asked.
        rounds: of the dialogue up to this answer.
    """

    masks_MHW: Tensor | None = None
    finite_M: Tensor | None = None
    clicks_M: Tensor | None = None
    prompts: ImagePrompts | None = None
    error: str = ""
    rounds: tuple[ClickRound, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One image with its masks as they are asked about.

    Attributes:
        opening: prompts that do not wait for an answer; the same for every model.
    """

    row: Row
    masks: tuple[MaskRow, ...]
    target: Target
    opening: Opening

    @classmethod
    def of(
        cls,
        row: Row,
        masks: Sequence[MaskRow],
        conditions: Conditions,
        device: torch.device | str,
        store: openings.Store | None = None,
    ) -> Asked:
        """Bring the masks of a row with pixels to the device.

        Args:
            row: with pixels.
            masks: of its index row (which ones count).
            conditions: whose protocol is used.
            device: where to.
            store: of prompts made before; what it lacks is made.
        """
        planes = [row.masks[m.index].mask_HW for m in masks]
        truth = torch.stack([torch.from_numpy(plane) for plane in planes]).to(device)
        valid = torch.ones(row.height, row.width, dtype=torch.bool, device=device)
        if row.ignore_HW is not None:
            valid = ~torch.from_numpy(row.ignore_HW).to(device)
        keys = [m.index for m in masks]
        protocol = conditions.protocol
        target = Target.of(protocol, row.sample_id, keys, truth, valid)
        opening = None if store is None else store.get(target)
        if opening is None:
            opening = openings.make(protocol, conditions.modes, target, conditions.seed)
        return cls(row=row, masks=tuple(masks), target=target, opening=opening)

    def only(self, chosen: Sequence[bool]) -> Asked:
        """The same image and prompts with some of the masks."""
        if all(chosen):
            return self
        places = [i for i, wanted in enumerate(chosen) if wanted]
        return replace(
            self,
            masks=tuple(self.masks[i] for i in places),
            target=self.target.only(places),
            opening={name: prompts.only(places) for name, prompts in self.opening.items()},
        )


def takes(facts: ModelFacts, mode: str) -> bool:
    """Whether a model with these facts can be asked in this mode."""
    return frozenset(facts.needs) <= mode_names.kinds_of(mode) <= facts.accepts


def accepts(model: Model, mode: str) -> bool:
    """Whether the model can be asked in this mode."""
    return takes(model.facts, mode)


def covered(model: Model, image: Asked) -> Asked:
    """The image with the masks that the model can be asked about."""
    if not isinstance(model, Partial):
        return image
    return image.only(model.covers(image.row, image.masks))


def answer_batch(
    model: Model, asked: Sequence[Asked], conditions: Conditions
) -> dict[str, list[Answer]]:
    """The answers of a model by mode, one per image; what fails in a batch is tried alone."""
    wanted = tuple(mode for mode in conditions.modes if accepts(model, mode))
    answers: dict[str, list[Answer]] = {mode: [Answer()] * len(asked) for mode in conditions.modes}
    if not wanted:
        return answers
    try:
        state = _see(model, asked)
    except Exception as err:  # noqa: BLE001 - a model may fail in any way; it is counted, not hidden
        if len(asked) > 1:
            return answers | _alone(model, asked, replace(conditions, modes=wanted))
        return answers | {mode: [Answer(error=_said(err))] for mode in wanted}
    for thread, modes in mode_names.threads(wanted).items():
        answers |= _hear(model, state, asked, replace(conditions, modes=modes), thread)
    return answers


def _see(model: Model, asked: Sequence[Asked]) -> Any:
    if isinstance(model, KnowsTruth):
        model.reveal([image.target.truth_MHW for image in asked])
    if isinstance(model, KnowsSamples):
        model.introduce([(image.row, image.masks) for image in asked])
    # Copies: what one model does to its images must not reach the next one.
    images = [image.row.image.copy() for image in asked if image.row.image is not None]
    with _no_exit():
        return model.encode(images)


@contextmanager
def _no_exit() -> Iterator[None]:
    """A model that would end the program failed, as one that raises."""
    try:
        yield
    except SystemExit as err:
        raise ModelError(f"the model called sys.exit({err.code!r})") from err


def _said(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"


def _alone(model: Model, asked: Sequence[Asked], conditions: Conditions) -> dict[str, list[Answer]]:
    """Every image by itself."""
    each = [answer_batch(model, [image], conditions) for image in asked]
    return {mode: [answers[mode][0] for answers in each] for mode in conditions.modes}


def _hear(
    model: Model, state: Any, asked: Sequence[Asked], conditions: Conditions, thread: str
) -> dict[str, list[Answer]]:
    """The answers in the modes of one thread; after a failure those that are left failed."""
    found: dict[str, list[Answer]] = {}
    log: list[list[ClickRound]] = [[] for _ in asked]
    try:
        for mode, made in _thread(model, state, asked, conditions, thread, log):
            found[mode] = made
    except Exception as err:  # noqa: BLE001 - as above
        missing = tuple(mode for mode in conditions.modes if mode not in found)
        if len(asked) > 1:
            return found | _alone(model, asked, replace(conditions, modes=missing))
        lost = Answer(error=_said(err), rounds=tuple(log[0]))
        found |= {mode: [lost] for mode in missing}
    return found


def _thread(
    model: Model,
    state: Any,
    asked: Sequence[Asked],
    conditions: Conditions,
    thread: str,
    log: list[list[ClickRound]],
) -> Iterator[tuple[str, list[Answer]]]:
    """``(mode, answers)`` as they come; rounds of a dialogue are kept in ``log``."""
    if thread not in (POINTS, BOX):
        given = [image.opening[thread] for image in asked]
        targets = [image.target for image in asked]
        yield thread, [answer for answer, _ in _predict(model, state, given, targets)]
        return
    by_rounds: dict[int, list[str]] = {}
    for mode in conditions.modes:
        by_rounds.setdefault(mode_names.rounds_of(mode), []).append(mode)
    at_once = conditions.protocol.clicks == "at-once"
    passes = (_at_once if at_once else _dialogue)(model, state, asked, conditions, thread)
    for number, answers in passes:
        for image, answer, rounds in zip(asked, answers, log, strict=True):
            rounds.append(_round(number, image.target, answer))
        for mode in by_rounds.get(number, []):
            yield mode, [replace(a, rounds=tuple(r)) for a, r in zip(answers, log, strict=True)]


def pass_numbers(conditions: Conditions, thread: str) -> list[int]:
    """After how many clicks a model answers in a thread of ``points`` or ``bbox``."""
    modes = [mode for mode in conditions.modes if mode_names.thread_of(mode) == thread]
    asked = sorted({mode_names.rounds_of(mode) for mode in modes})
    whole = [mode for mode in modes if mode_names.click_target(mode)]
    if conditions.protocol.clicks == "at-once" and not whole:
        return asked
    return list(range(0 if thread == BOX else 1, max(asked, default=0) + 1))


def _round(number: int, target: Target, answer: Answer) -> ClickRound:
    """What is kept of a round: the newest click and how good the answer is."""
    assert answer.masks_MHW is not None  # noqa: S101 - _predict raises otherwise
    assert answer.finite_M is not None  # noqa: S101
    counts = overlap(answer.masks_MHW, target.truth_MHW, target.valid_HW)
    points = labels = None
    if number and answer.prompts is not None and answer.prompts.points_MN2 is not None:
        points = answer.prompts.points_MN2[:, -1]
        labels = answer.prompts.point_labels_MN
    return ClickRound(
        number=number,
        xy_M2=points,
        label_M=None if labels is None else labels[:, -1],
        dice_M=dice(counts),
        iou_M=iou(counts),
        finite_M=answer.finite_M,
    )


def _at_once(
    model: Model, state: Any, asked: Sequence[Asked], conditions: Conditions, thread: str
) -> Iterator[tuple[int, list[Answer]]]:
    """Passes that know nothing of each other: the first k points, with the box if there is one."""
    targets = [image.target for image in asked]
    for number in pass_numbers(conditions, thread):
        given = [_with_points(image.opening, thread, number) for image in asked]
        yield number, [answer for answer, _ in _predict(model, state, given, targets)]


def _with_points(opening: Opening, thread: str, number: int) -> ImagePrompts:
    box = opening[BOX] if thread == BOX else ImagePrompts()
    if not number:
        return box
    points, labels = opening[POINTS].points_MN2, opening[POINTS].point_labels_MN
    assert points is not None  # noqa: S101 - openings.make gives points under this name
    assert labels is not None  # noqa: S101
    return replace(box, points_MN2=points[:, :number], point_labels_MN=labels[:, :number])


def _dialogue(
    model: Model, state: Any, asked: Sequence[Asked], conditions: Conditions, thread: str
) -> Iterator[tuple[int, list[Answer]]]:
    """``(number of clicks, answers)`` after each round; a box stays through all of them."""
    targets = [image.target for image in asked]
    given = [
        image.opening[BOX] if thread == BOX else _with_points(image.opening, thread, 1)
        for image in asked
    ]
    last: list[tuple[Answer, Any]] = []
    for number in pass_numbers(conditions, thread):
        if last:
            # Draws are numbered from the first prompt on, be it a box or a click.
            round = number if thread == BOX else number - 1
            given = [
                _with_next(target, answer, memory, conditions, round)
                for target, (answer, memory) in zip(targets, last, strict=True)
            ]
        last = _predict(model, state, given, targets)
        yield number, [answer for answer, _ in last]


def _with_next(
    target: Target, answer: Answer, memory: Any, conditions: Conditions, round: int
) -> ImagePrompts:
    """The prompts so far with one more click in the error of the answer to them."""
    before, predicted = answer.prompts, answer.masks_MHW
    assert before is not None  # noqa: S101 - _predict raises otherwise
    assert predicted is not None  # noqa: S101
    points, labels = before.points_MN2, before.point_labels_MN
    xy, label = protocols.next_clicks(
        conditions.protocol, target, predicted, round, conditions.seed, points
    )
    xy, label = xy[:, None], label[:, None]
    return replace(
        before,
        points_MN2=xy if points is None else torch.cat([points, xy], dim=1),
        point_labels_MN=label if labels is None else torch.cat([labels, label], dim=1),
        memory=memory,
    )


def _predict(
    model: Model, state: Any, given: Sequence[ImagePrompts], targets: Sequence[Target]
) -> list[tuple[Answer, Any]]:
    """Ask once: the thresholded answers and the model's memory of each image.

    Raises:
        ModelError: answers of a wrong type, number or shape.
    """
    # Copies: the stored prompts go to every model, whatever one does to its own.
    with _no_exit():
        found: Sequence[Prediction] = model.predict(state, [prompts.copy() for prompts in given])
    if not isinstance(found, Sequence) or len(found) != len(targets):
        number = len(found) if isinstance(found, Sequence) else f"a {type(found).__name__}"
        raise ModelError(f"expected a list of answers for {len(targets)} images, found {number}")
    answers = []
    for prediction, prompts, target in zip(found, given, targets, strict=True):
        logits = _logits(prediction).to(target.truth_MHW.device)
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


def _logits(prediction: Any) -> Tensor:
    if not isinstance(prediction, Prediction):
        raise ModelError(
            "expected a sammed_bench.types.Prediction for each image, found a "
            f"{type(prediction).__name__}"
        )
    logits: Any = prediction.logits_MHW
    if not isinstance(logits, Tensor):
        raise ModelError(f"expected logits_MHW to be a torch tensor, found a {type(logits)}")
    return logits
