"""Carriers of this room: what a promptable model is, what it is asked, what it answers.

Prompts and answers are in pixels of the stored slice: points ``(x, y)`` whose integers are pixel
centres, boxes half-open ``xyxy``. Imports no sibling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sammed_data.corpus import MaskRow, Row

PROMPT_KINDS = ("box", "point", "mask")
# Kind of a model that answers about some masks of a corpus only; see ``Partial``.
OBSERVER = "observer"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a score row says about its model.

    Attributes:
        name: label in the tables.
        kind: ``sam``, ``ft-sam``, ``sam-med2d``, ``medsam``, ``trivial``, ``oracle``,
            ``observer``, ``other``.
        recipe: ``released weights``, ``released recipe``, ``mended recipe``, ``tiny`` or
            ``trivial`` / ``oracle`` / ``other``.
        weights_sha256: identity of the numbers behind it.
        accepts: prompt kinds it can be asked with; other modes are 'unsupported', not 0.
        needs: prompt kinds it cannot do without (none: any that it accepts will do).
        source: where it came from, for the printed list.
        image_px: side that its encoder sees; None where that is not known or means nothing.
    """

    name: str
    kind: str
    recipe: str
    weights_sha256: str
    accepts: frozenset[str] = field(default_factory=lambda: frozenset(PROMPT_KINDS))
    needs: tuple[str, ...] = ()
    source: str = ""
    image_px: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImagePrompts:
    """Prompts for the M masks of one image, on the device of the run.

    Attributes:
        points_MN2: float clicks so far, the same number for every mask.
        point_labels_MN: 1 object, 0 background, -1 void (nothing left to click on).
        boxes_M4: half-open.
        masks_MHW: bool mask prompt.
        memory: what the model's own answer of the round before carried; None in a first round.
    """

    points_MN2: Tensor | None = None
    point_labels_MN: Tensor | None = None
    boxes_M4: Tensor | None = None
    masks_MHW: Tensor | None = None
    memory: Any = None

    def __len__(self) -> int:
        for value in (self.points_MN2, self.boxes_M4, self.masks_MHW):
            if value is not None:
                return int(value.shape[0])
        return 0

    def only(self, places: Sequence[int]) -> ImagePrompts:
        """The prompts of some of the masks, before the first answer."""
        chosen = {n: None if v is None else v[list(places)] for n, v in self._tensors().items()}
        return ImagePrompts(**chosen)

    def copy(self) -> ImagePrompts:
        """The same prompts in memory of their own; the memory of an answer is its model's."""
        own = {n: None if v is None else v.clone() for n, v in self._tensors().items()}
        return ImagePrompts(**own, memory=self.memory)

    def _tensors(self) -> dict[str, Tensor | None]:
        names = ("points_MN2", "point_labels_MN", "boxes_M4", "masks_MHW")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one image: (M, H, W) logits at slice size, above 0 is object.

    ``memory`` comes back in the prompts of the next round (low-res logits, say).
    """

    logits_MHW: Tensor
    memory: Any = None


class Model(Protocol):
    """Two methods and a card: all that the benchmark knows of a model."""

    @property
    def facts(self) -> ModelFacts:
        """Who it is."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """See a batch of images, (H, W) grey or (H, W, 3) RGB, once for all prompts."""

    def predict(self, state: Any, prompts: Sequence[ImagePrompts]) -> Sequence[Prediction]:
        """Answer the prompts of each image of the batch, in its order."""


@runtime_checkable
class KnowsTruth(Protocol):
    """A model that is shown the true masks (the oracle)."""

    def reveal(self, truths: Sequence[Tensor]) -> None:
        """The (M, H, W) bool truth of each image of the batch encoded next."""


@runtime_checkable
class KnowsSamples(Protocol):
    """A model that is told which images come next (predictions saved by their names)."""

    def introduce(self, asked: Sequence[tuple[Row, tuple[MaskRow, ...]]]) -> None:
        """Each image of the batch encoded next, with pixels, and the masks it is asked about."""


@runtime_checkable
class Partial(Protocol):
    """A model that has an answer about some masks only (a second observer of some images)."""

    def covers(self, row: Row, masks: tuple[MaskRow, ...]) -> Sequence[bool]:
        """Which masks of an image with pixels it can be asked about; others are 'unsupported'."""
