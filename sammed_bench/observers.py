"""A second observer as a model: what another person drew of the same structure on the same image.

Where an image was marked by annotators 1 and 2 (CHASE_DB1), the masks of annotator 1 are scored and
those of annotator 2 are the answer, whatever the prompt: how well people agree bounds what a score
means. Where annotator 2 drew nothing of the structure a mask is 'unsupported', which is not 0.
Where an image has several masks of one structure, a mask is answered by the parts that touch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sammed_bench.saved import Asked, touching
from sammed_bench.types import OBSERVER, ImagePrompts, ModelFacts, Prediction
from sammed_data.corpus import MaskRow, Row

SECOND = 2


class SecondObserver:
    """The masks of annotator 2 behind the two methods of a model."""

    def __init__(self) -> None:
        self._asked: Sequence[Asked] = ()
        self.facts = ModelFacts(
            name="second-observer",
            kind=OBSERVER,
            recipe="second observer",
            weights_sha256="second-observer/1",
            source=f"annotator {SECOND} of the corpus",
        )

    def covers(self, row: Row, masks: tuple[MaskRow, ...]) -> list[bool]:
        """Where annotator 2 drew the structure on the image."""
        return [bool(_drawn(row, mask)) for mask in masks]

    def introduce(self, asked: Sequence[Asked]) -> None:
        """Which images and masks come next."""
        self._asked = asked

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """The planes of the masks of each image."""
        return [
            np.stack([_plane(row, mask, masks) for mask in masks]) for row, masks in self._asked
        ]

    def predict(self, state: Any, prompts: Sequence[ImagePrompts]) -> list[Prediction]:
        """The planes, whatever is asked."""
        return [Prediction(logits_MHW=torch.from_numpy(planes).float() * 2 - 1) for planes in state]


def _drawn(row: Row, mask: MaskRow) -> list[NDArray[np.bool_]]:
    """What annotator 2 drew of the structure of a mask."""
    return [
        other.mask_HW
        for other in row.masks
        if other.annotator == SECOND != mask.annotator
        and (other.structure, other.label) == (mask.structure, mask.label)
        and other.mask_HW is not None
    ]


def _plane(row: Row, mask: MaskRow, masks: Sequence[MaskRow]) -> NDArray[np.bool_]:
    plane_HW: NDArray[np.bool_] = np.logical_or.reduce(_drawn(row, mask))
    if sum(other.structure == mask.structure for other in masks) == 1:
        return plane_HW
    return touching(plane_HW, np.asarray(row.masks[mask.index].mask_HW, bool))
