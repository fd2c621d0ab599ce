"""Prompt protocols: which prompts a mask gets, a function of the mask and its names alone.

``sam-med2d`` as released: prompts are found on a 256 x 256 grid (both sides under 256: padded in
the middle, else stretched by OpenCV's nearest rule) and handed over in slice pixels; an object too
thin for the grid is prompted at native size. All other protocols find prompts at native size.

Clicks ``random``: first a uniform pixel of the object, then each round one uniform pixel of the
error of the model's last answer (label 1 where it missed, 0 where it went too far, -1 void when
there is no error). ``centre``: the pixel deepest inside the object, then inside the error.
``at-once``: k uniform pixels of the object in one pass. Draws are seeded by (sample, mask,
protocol, round, seed), not by mode. ``docs/protocols.md`` has a line on each protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from sammed_bench.centres import deepest
from sammed_bench.scribbles import along_midline
from sammed_data.types import UsageError, nearest
from sammed_model import prompts
from sammed_model.frame import Frame, Preprocessing

GRID_PX = 256
MAX_JITTER_PX = 32
MAX_SCALE = 3.0
_CELL = 4
# Streams of draws beside the clicks of round 0.
_SHIFT, _JITTER = 1, 2
# In every hash; fields that came later count only where they differ from what was done before.
_FIRST_FIELDS = ("name", "version", "grid_px", "largest_component", "accumulate")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A versioned way to prompt; ``hash`` is its identity in the score rows.

    Attributes:
        grid_px: side of the grid on which prompts are found; None = the slice itself.
        largest_component: boxes of the largest part only.
        accumulate: clicks of earlier rounds stay.
        clicks: how they are chosen.
        box_shift: the released jitter moves the whole box by up to 5 px of the grid.
        box_jitter_px: each edge of the box moves by up to so many px.
        box_scale: sides of the box are this many times as long.
        scribble_points: along the midline.
    """

    name: str = "sam-med2d"
    version: int = 1
    grid_px: int | None = GRID_PX
    largest_component: bool = True
    accumulate: bool = True
    clicks: Literal["random", "centre", "at-once"] = "random"
    box_shift: bool = False
    box_jitter_px: int = 0
    box_scale: float = 1.0
    scribble_points: int = 8

    def as_dict(self) -> dict[str, Any]:
        """The fields that tell it from others, for JSON and the hash."""
        kept = {f.name: f.default for f in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name in _FIRST_FIELDS or value != kept[name]
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the fields."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def about(self) -> str:
        """What it does, in a sentence or two."""
        where = "the slice itself" if self.grid_px is None else f"a grid of {self.grid_px} px"
        part = "largest part" if self.largest_component else "whole mask"
        box = f"bbox: the tight box of the {part}"
        if self.box_shift:
            box += ", shifted as a whole by up to 5 px"
        if self.box_jitter_px:
            box += f", each edge moved by up to {self.box_jitter_px} px"
        if self.box_scale != 1:
            box += f", sides {self.box_scale:g} times as long"
        return f"Prompts found on {where}. {box}. {_CLICK_TEXT[self.clicks]}"


_MEMORY = (
    "clicks accumulate, and from the second pass on the model also gets its own last answer as "
    "mask prompt"
)
_CLICK_TEXT = {
    "random": "1pt, 3pt, 5pt, clicks: rounds of one dialogue, first a uniform pixel of the object, "
    f"then each a uniform pixel of the error of the model's last answer; {_MEMORY}.",
    "centre": "1pt, 3pt, 5pt, clicks: rounds of one dialogue, first the pixel deepest inside the "
    f"object, then the one deepest inside the error of the model's last answer; {_MEMORY}.",
    "at-once": "1pt, 3pt, 5pt, clicks: that many uniform pixels of the object at once, one pass.",
}
SAM_MED2D = Protocol()


def _native(name: str, **more: Any) -> Protocol:
    return Protocol(name=name, grid_px=None, largest_component=False, **more)


PROTOCOLS: Mapping[str, Protocol] = {
    "sam-med2d": SAM_MED2D,
    "sam-med2d-shift": Protocol(name="sam-med2d-shift", box_shift=True),
    "centre-click": _native("centre-click", clicks="centre"),
    "random-click": _native("random-click"),
    "uniform-k": _native("uniform-k", clicks="at-once"),
    "box-tight": _native("box-tight"),
}


def _jitter(text: str) -> Protocol | None:
    if not text.isdecimal() or int(text) > MAX_JITTER_PX:
        return None
    return _native(f"box-jitter:{int(text)}", box_jitter_px=int(text))


def _scale(text: str) -> Protocol | None:
    try:
        scale = float(text)
    except ValueError:
        return None
    return _native(f"box-scale:{scale:g}", box_scale=scale) if 1 <= scale <= MAX_SCALE else None


_NUMBERED: Mapping[str, tuple[Callable[[str], Protocol | None], str]] = {
    "box-jitter": (_jitter, f"box-jitter:N with N px from 0 to {MAX_JITTER_PX}"),
    "box-scale": (_scale, f"box-scale:F with F from 1 to {MAX_SCALE:g}"),
}


def parse_protocol(text: str) -> Protocol:
    """``'centre-click'``, ``'box-jitter:4'``, ``'box-scale:1.2'`` -> the protocol.

    Raises:
        UsageError: unknown, or a number out of range.
    """
    name = text.strip()
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    stem, _, number = name.partition(":")
    if stem in _NUMBERED:
        make, form = _NUMBERED[stem]
        made = make(number)
        if made is None:
            raise UsageError(f"expected {form}, found {text!r}: write for example {_example(stem)}")
        return made
    known = [*PROTOCOLS, *map(_example, _NUMBERED)]
    raise UsageError(
        f"expected a prompt protocol out of {', '.join(known)}, found {text!r} "
        f"({nearest(name, known)})"
    )


def _example(stem: str) -> str:
    return {"box-jitter": "box-jitter:4", "box-scale": "box-scale:1.2"}[stem]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The true masks of one image, ready to be prompted.

    Attributes:
        sample_id: row of the corpus.
        mask_keys: position of each mask in its row.
        truth_MHW: bool, ignored pixels removed.
        valid_HW: False where the corpus says 'ignore'.
        frame: slice to grid.
        grid_MSS: the truth on the grid (coarse masks are always made there).
        native: prompts are found on the slice, not on the grid.
    """

    sample_id: str
    mask_keys: tuple[int, ...]
    truth_MHW: Tensor
    valid_HW: Tensor
    frame: Frame
    grid_MSS: Tensor
    native: bool = False

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        sample_id: str,
        mask_keys: Sequence[int],
        truth_MHW: Tensor,
        valid_HW: Tensor,
    ) -> Target:
        """Bring the truth onto the grid of a protocol."""
        height, width = truth_MHW.shape[-2:]
        frame = Preprocessing.named("released", protocol.grid_px or GRID_PX).frame(height, width)
        truth = truth_MHW & valid_HW
        return cls(
            sample_id=sample_id,
            mask_keys=tuple(mask_keys),
            truth_MHW=truth,
            valid_HW=valid_HW,
            frame=frame,
            grid_MSS=frame.masks_to_model(truth)[:, 0],
            native=protocol.grid_px is None,
        )

    def __len__(self) -> int:
        return len(self.mask_keys)

    def only(self, places: Sequence[int]) -> Target:
        """Some of the masks; their prompts stay the same."""
        index = list(places)
        return replace(
            self,
            mask_keys=tuple(self.mask_keys[i] for i in index),
            truth_MHW=self.truth_MHW[index],
            grid_MSS=self.grid_MSS[index],
        )

    @property
    def seen_MHW(self) -> Tensor:
        """The truth where prompts are found: on the slice or on the grid."""
        return self.truth_MHW if self.native else self.grid_MSS

    def look(self, mask_MHW: Tensor) -> Tensor:
        """An answer at slice size, ignored pixels removed, where prompts are found."""
        valid = mask_MHW & self.valid_HW
        return valid if self.native else self.frame.masks_to_model(valid)[:, 0]

    def place(self, xy: Tensor) -> Tensor:
        """(..., 2) points where they were found -> slice pixels."""
        return xy if self.native else to_pixels(self.frame, xy)

    def seeds(self, protocol: Protocol, round: int, seed: int) -> Tensor:
        """(M,) seeds of one round."""
        made = [
            prompts.prompt_seed(self.sample_id, key, protocol.name, round, seed)
            for key in self.mask_keys
        ]
        return torch.tensor(made, dtype=torch.int64, device=self.truth_MHW.device)


def boxes(protocol: Protocol, target: Target, seed: int = 0) -> Tensor:
    """(M, 4) half-open boxes in slice pixels; ``seed`` of the run matters where they are moved."""
    if target.native:
        tight = prompts.tight_boxes(target.truth_MHW, protocol.largest_component)
        return _moved(protocol, target, tight, seed)
    seeds = prompts.derive_seeds(target.seeds(protocol, 0, seed), _SHIFT)
    grid = _shifted(
        protocol, prompts.tight_boxes(target.grid_MSS, protocol.largest_component), seeds
    )
    found = _outwards(target.frame.boxes_to_slice(grid.double()))
    thin = ~target.grid_MSS.flatten(1).any(dim=1)
    if bool(thin.any()):
        native = prompts.tight_boxes(target.truth_MHW[thin], protocol.largest_component)
        found[thin] = _shifted(protocol, native, seeds[thin]).to(found.dtype)
    return found


def _shifted(protocol: Protocol, boxes_M4: Tensor, seeds_M: Tensor) -> Tensor:
    """As the released training code draws boxes; they may leave the image, as there."""
    if not protocol.box_shift:
        return boxes_M4
    return prompts.jitter_boxes(boxes_M4, seeds_M, (0, 0), released=True)


def _moved(protocol: Protocol, target: Target, tight_M4: Tensor, seed: int) -> Tensor:
    """Boxes made larger or with moved edges, whole pixels within the image."""
    low, high = tight_M4[:, :2], tight_M4[:, 2:]
    height, width = target.truth_MHW.shape[-2:]
    if protocol.box_scale != 1:
        more = ((high - low).double() * (protocol.box_scale - 1) / 2).repeat(1, 2)
        more[:, :2] *= -1
        tight_M4 = _outwards(tight_M4.double() + more)
    if protocol.box_jitter_px:
        reach = protocol.box_jitter_px
        seeds = prompts.derive_seeds(target.seeds(protocol, 0, seed), _JITTER)
        moves = (prompts.uniform(seeds, 4) * (2 * reach + 1)).floor() - reach
        tight_M4 = tight_M4 + moves.to(tight_M4.dtype)
    edge = tight_M4.new_tensor([width, height])
    # At least a pixel stays, inside the image.
    low = torch.minimum(tight_M4[:, :2].clamp(min=0), edge - 1)
    high = torch.minimum(torch.maximum(tight_M4[:, 2:], low + 1), edge)
    empty = ~target.truth_MHW.flatten(1).any(dim=1)
    return torch.cat([low, high], dim=1) * ~empty[:, None]


def _outwards(boxes_M4: Tensor) -> Tensor:
    """To whole pixels; what is whole but for rounding stays."""
    low, high = (boxes_M4[:, :2] + 1e-6).floor(), (boxes_M4[:, 2:] - 1e-6).ceil()
    return torch.cat([low, high], dim=1).float()


def coarse_masks(protocol: Protocol, target: Target) -> Tensor:
    """(M, H, W) bool mask prompts: the object seen through 64 x 64 blurred cells."""
    cells = functional.avg_pool2d(target.grid_MSS[:, None].float(), _CELL)
    blurred = functional.avg_pool2d(cells, 3, stride=1, padding=1)
    share = target.frame.logits_to_slice(blurred)
    top = share.flatten(1).max(dim=1).values
    coarse = share > (top / 2)[:, None, None]
    thin = (top <= 0)[:, None, None]
    return torch.where(thin, target.truth_MHW, coarse)


def scribbles(protocol: Protocol, target: Target) -> tuple[Tensor, Tensor]:
    """(M, N, 2) points along the midline of the largest part and (M, N) labels.

    A line shorter than N px repeats its pixels as void points (-1).
    """
    xy, label = along_midline(target.seen_MHW, protocol.scribble_points)
    xy = target.place(xy)
    thin = (label < 0).all(dim=1)
    if bool(thin.any()) and not target.native:
        native, native_label = along_midline(target.truth_MHW[thin], protocol.scribble_points)
        xy[thin], label[thin] = native.to(xy.dtype), native_label
    return xy, label


def first_clicks(
    protocol: Protocol, target: Target, seed: int, n: int = 1
) -> tuple[Tensor, Tensor]:
    """Points inside the objects and their labels; -1 only for an empty mask.

    Returns:
        (M, 2) points and (M,) labels, or (M, n, 2) and (M, n) where ``n`` is above 1.
    """
    seeds = target.seeds(protocol, 0, seed)

    def clicks(mask_MHW: Tensor, its_seeds: Tensor) -> tuple[Tensor, Tensor]:
        if protocol.clicks == "centre":
            xy, depth = deepest(mask_MHW)
            return xy[:, None], torch.where(depth > 0, 1, -1)[:, None]
        xy, found = prompts.pick_several(mask_MHW, its_seeds, n)
        return xy, torch.where(found, 1, -1)[:, None].repeat(1, xy.shape[1])

    xy, label = clicks(target.seen_MHW, seeds)
    xy = target.place(xy)
    thin = label[:, 0] < 0
    if bool(thin.any()) and not target.native:
        native, native_label = clicks(target.truth_MHW[thin], seeds[thin])
        xy[thin], label[thin] = native.to(xy.dtype), native_label
    return (xy, label) if n > 1 else (xy[:, 0], label[:, 0])


def next_clicks(
    protocol: Protocol,
    target: Target,
    predicted_MHW: Tensor,
    round: int,
    seed: int,
    clicked_MN2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(M, 2) points in the error of the last answer and (M,) labels 1, 0 or -1.

    Args:
        protocol: grid and seeds.
        target: truth.
        predicted_MHW: bool answer of the round before, at slice size.
        round: 1 for the second click.
        seed: of the run.
        clicked_MN2: slice pixels clicked before; ``centre`` clicks no pixel twice.
    """
    predicted = target.look(predicted_MHW)
    if protocol.clicks != "centre":
        seeds = target.seeds(protocol, round, seed)
        xy, label = prompts.error_click(predicted, target.seen_MHW, seeds)
        return target.place(xy), label
    truth = target.seen_MHW
    missed, missed_px = deepest(truth & ~predicted, clicked_MN2)
    extra, extra_px = deepest(predicted & ~truth, clicked_MN2)
    # RITM's rule: the deeper error is clicked, the background one where both are as deep.
    miss = missed_px > extra_px
    label = torch.where((missed_px > 0) | (extra_px > 0), miss.long(), -1)
    return target.place(torch.where(miss[:, None], missed, extra)), label


def to_pixels(frame: Frame, xy: Tensor) -> Tensor:
    """(..., 2) grid pixels -> the slice pixels they were sampled from, by OpenCV's nearest rule."""
    inner = torch.tensor([frame.inner_width, frame.inner_height], dtype=torch.float64)
    size = torch.tensor([frame.width, frame.height], dtype=torch.float64)
    pad = torch.tensor([frame.pad_left, frame.pad_top], dtype=torch.float64)
    step = (1.0 / (inner / size)).to(xy.device)
    last = (size - 1).to(xy.device)
    position = ((xy.double() - pad.to(xy.device)) * step).floor()
    return torch.minimum(position.clamp(min=0), last).float()
