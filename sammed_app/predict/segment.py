"""Prompts to masks of a scan, slice by slice; an object is followed both ways from its prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_app.predict.scan import Scan
from sammed_app.predict.types import Asked, Following, Found, Segmented
from sammed_data.types import ModelError, UsageError
from sammed_model.predictor import MaskAnswer, MaskPrompt, SammedPredictor

_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class _Track:
    """A mask that is followed: what the next slice is asked with, and what it is compared to."""

    name: str
    mask_HW: NDArray[np.bool_]
    low_res_1hw: NDArray[np.float32]
    seed_px: int


def check_prompts(scan: Scan, asked: Sequence[Asked], axis: str) -> list[Asked]:
    """The prompts with their slice filled in.

    Raises:
        UsageError: another axis, no slice, or a slice or coordinates outside the image.
    """
    height, width = scan.size(axis)
    count = scan.count(axis)
    done = []
    for one in asked:
        if one.axis not in ("", axis):
            raise UsageError(
                f"expected prompts on {axis} slices of {scan.path}, found one on {one.axis}: "
                "predict one axis at a time (--axis)"
            )
        if one.index is None and count > 1:
            raise UsageError(
                f"{scan.path} has {count} {axis} slices: say which one the prompt is on (--slice)"
            )
        index = one.index or 0
        if not 0 <= index < count:
            raise UsageError(f"expected a slice 0..{count - 1} of {scan.path}, found {index}")
        xs = [p[0] for p in one.points] + list((one.box_xyxy or ())[::2])
        ys = [p[1] for p in one.points] + list((one.box_xyxy or ())[1::2])
        if min(*xs, 0) < 0 or min(*ys, 0) < 0 or max(*xs, 0) > width or max(*ys, 0) > height:
            raise UsageError(
                f"expected prompts (x, y) within {width} x {height} px, the {axis} slices of "
                f"{scan.path}, found x {xs} and y {ys}"
            )
        done.append(
            Asked(object=one.object, axis=axis, index=index, box_xyxy=one.box_xyxy,
                  points=one.points)
        )  # fmt: skip
    return done


def mask_prompt(one: Asked, offset_xy: tuple[int, int], image: int = 0) -> MaskPrompt:
    """What the predictor is asked, in pixels of the volume's own slice.

    Args:
        one: in pixels of the whole stored picture.
        offset_xy: where the volume begins in it.
        image: number among the images that are set.
    """
    left, top = offset_xy
    points = np.array([p[:2] for p in one.points]) - (left, top) if one.points else None
    box = np.array(one.box_xyxy) - (left, top, left, top) if one.box_xyxy else None
    labels = np.array([p[2] for p in one.points]) if one.points else None
    return MaskPrompt(image=image, points_N2=points, labels_N=labels, box_xyxy=box)


def segment(
    predictor: SammedPredictor,
    scan: Scan,
    asked: Sequence[Asked],
    axis: str,
    following: Following,
    *,
    tick: Callable[[str], None] = lambda _: None,
) -> Segmented:
    """Masks of all objects asked for.

    Args:
        predictor: with its model.
        scan: the image.
        asked: of ``check_prompts``.
        axis: of the slices.
        following: whether and how far.
        tick: told what is done.
    """
    start = time.perf_counter()
    work = _Work(predictor, scan, axis, following)
    work.prompted(asked, tick)
    if following.on:
        for step in (1, -1):
            work.follow(step, tick)
    return Segmented(
        objects=list(work.found.values()),
        axis=axis,
        seconds=time.perf_counter() - start,
        encoded=work.encoded,
    )


class _Work:
    def __init__(
        self, predictor: SammedPredictor, scan: Scan, axis: str, following: Following
    ) -> None:
        self._predictor, self._scan, self._axis, self._rule = predictor, scan, axis, following
        self.found: dict[str, Found] = {}
        self.encoded = 0
        self._tracks: dict[int, list[_Track]] = {}

    def prompted(self, asked: Sequence[Asked], tick: Callable[[str], None]) -> None:
        """The slices that were asked about, several in one pass of the encoder."""
        for one in asked:
            if one.object not in self.found:
                empty = np.zeros(self._scan.shape_zyx, bool)
                self.found[one.object] = Found(name=one.object, mask_ZYX=empty)
        indices = sorted({one.index or 0 for one in asked})
        for at in range(0, len(indices), _BATCH):
            batch = indices[at : at + _BATCH]
            ask = [one for one in asked if (one.index or 0) in batch]
            self._encode(batch)
            prompts = [
                mask_prompt(one, self._scan.offset_xy, batch.index(one.index or 0)) for one in ask
            ]
            for one, answer in zip(ask, self._predictor.predict_batch(prompts), strict=True):
                index, mask = one.index or 0, answer.masks_CHW[0]
                self.found[one.object].prompted.add(index)
                self._keep(one.object, index, answer)
                track = _Track(
                    name=one.object,
                    mask_HW=mask,
                    low_res_1hw=answer.low_res_Chw,
                    seed_px=int(mask.sum()),
                )
                self._tracks.setdefault(index, []).append(track)
            tick(f"{self._axis} slices {batch[0]}..{batch[-1]}")

    def follow(self, step: int, tick: Callable[[str], None]) -> None:
        """Walk through the volume in one direction, all objects together."""
        rule, count = self._rule, self._scan.count(self._axis)
        low = max(0, rule.first or 0)
        high = min(count - 1, count - 1 if rule.last is None else rule.last)
        active: list[_Track] = []
        for index in range(count)[::step]:
            asked = [t for t in active if index not in self.found[t.name].prompted]
            for track in asked if not low <= index <= high else ():
                self._end(track, step, f"the range ends at slice {index - step}")
            asked = asked if low <= index <= high else []
            active = self._next(asked, index, step) if asked else []
            if asked:
                tick(f"{self._axis} slice {index}")
            active += [t for t in self._tracks.get(index, []) if t.seed_px >= rule.least_px]
        for track in active:
            self._end(track, step, "the volume ends")

    def _next(self, tracks: list[_Track], index: int, step: int) -> list[_Track]:
        self._encode([index])
        prompts = [MaskPrompt(box_xyxy=_tight(t.mask_HW), mask_1hw=t.low_res_1hw) for t in tracks]
        kept = []
        for track, answer in zip(tracks, self._predictor.predict_batch(prompts), strict=True):
            mask = answer.masks_CHW[0]
            reason = self._lost(track, mask)
            if reason:
                self._end(track, step, f"{reason} on slice {index}")
                continue
            self._keep(track.name, index, answer)
            kept.append(
                _Track(
                    name=track.name,
                    mask_HW=mask,
                    low_res_1hw=answer.low_res_Chw,
                    seed_px=track.seed_px,
                )
            )
        return kept

    def _lost(self, track: _Track, mask_HW: NDArray[np.bool_]) -> str:
        area = int(mask_HW.sum())
        if area < max(self._rule.least_px, self._rule.least_share * track.seed_px):
            return "it vanishes"
        if area > self._rule.most_share * track.seed_px:
            return f"it grows to {area / track.seed_px:.1f} times the prompted area"
        overlap = 2 * int((mask_HW & track.mask_HW).sum()) / (area + int(track.mask_HW.sum()))
        if overlap < self._rule.least_overlap:
            return f"it overlaps the slice before by Dice {overlap:.2f} only"
        return ""

    def _encode(self, indices: Sequence[int]) -> None:
        self._predictor.set_images([self._scan.picture(self._axis, k) for k in indices])
        self.encoded += len(indices)

    def _keep(self, name: str, index: int, answer: MaskAnswer) -> None:
        iou = float(answer.iou_C[0])
        if not np.isfinite(iou):
            raise ModelError(
                f"expected numbers from the model for {name} on slice {index}, found predicted "
                f"IoU {iou}: the weights are damaged, give others with --model"
            )
        found = self.found[name]
        view = self._scan.view(found.mask_ZYX, self._axis, index)
        view |= answer.masks_CHW[0]
        found.iou[index] = max(found.iou.get(index, -np.inf), iou)

    def _end(self, track: _Track, step: int, reason: str) -> None:
        self.found[track.name].ended["upwards" if step > 0 else "downwards"] = reason


def _tight(mask_HW: NDArray[np.bool_]) -> NDArray[Any]:
    """Half-open xyxy of the largest 8-connected part: a stray pixel must not widen the box."""
    import cv2

    _, _, table, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask_HW, np.uint8), connectivity=8
    )
    x, y, width, height, _ = table[1 + table[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([x, y, x + width, y + height], np.float32)
