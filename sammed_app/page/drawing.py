"""What one tab has drawn: objects, and on each slice their prompts and their mask."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_app.predict.scan import Scan
from sammed_app.predict.types import Asked, Found, Segmented
from sammed_bench.openings import runs
from sammed_data.types import UsageError

MOST_OBJECTS = 64
MOST_POINTS = 500


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An object on a slice.

    Attributes:
        mask_HW: of the slice.
        iou: as the model predicts it.
        asked: the prompts, in pixels of the whole stored picture; None = followed from elsewhere.
        choice: which of the three alternatives was taken; None = the model's own answer.
    """

    mask_HW: NDArray[np.bool_]
    iou: float
    asked: Asked | None = None
    choice: int | None = None

    def about(self) -> dict[str, Any]:
        """For the page: the mask as lengths of runs."""
        return {
            "runs": runs(self.mask_HW),
            "iou": round(self.iou, 4),
            "area_px": int(self.mask_HW.sum()),
            "followed": self.asked is None,
            "choice": self.choice,
        }


@dataclass(kw_only=True)
class _Kept:
    """A mask at an eighth of its size: a volume has many."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]
    iou: float
    asked: Asked | None
    choice: int | None

    @property
    def drawn(self) -> Drawn:
        mask = np.unpackbits(self.bits, count=int(np.prod(self.shape))).reshape(self.shape)
        return Drawn(mask_HW=mask.astype(bool), iou=self.iou, asked=self.asked, choice=self.choice)


@dataclass(kw_only=True)
class _Object:
    name: str
    slices: dict[int, _Kept] = field(default_factory=dict)


class Drawing:
    """Objects by the number that the page gave them; every method may be called by any thread."""

    def __init__(self) -> None:
        self._objects: dict[int, _Object] = {}
        self._axis = ""
        self._lock = threading.Lock()

    @property
    def axis(self) -> str:
        """Of the slices that were drawn on; '' while there are none."""
        with self._lock:
            return self._axis if any(o.slices for o in self._objects.values()) else ""

    def check_axis(self, axis: str) -> None:
        """Refuse another axis than that of what is there.

        Raises:
            UsageError: it is another.
        """
        if self.axis not in ("", axis):
            raise UsageError(
                f"expected prompts on {self.axis} slices, as those before, found {axis}: export, "
                "then clear all to draw along another axis"
            )

    def put(self, number: int, name: str, axis: str, index: int, drawn: Drawn | None) -> None:
        """Keep an object's mask on a slice; None takes it away.

        Raises:
            UsageError: too many objects.
        """
        with self._lock:
            if number not in self._objects and len(self._objects) >= MOST_OBJECTS:
                raise UsageError(f"expected at most {MOST_OBJECTS} objects, found one more")
            found = self._objects.setdefault(number, _Object(name=name))
            found.name, self._axis = name, axis
            found.slices.pop(index, None)
            if drawn is not None:
                found.slices[index] = _Kept(
                    bits=np.packbits(drawn.mask_HW),
                    shape=drawn.mask_HW.shape,
                    iou=drawn.iou,
                    asked=drawn.asked,
                    choice=drawn.choice,
                )

    def rename(self, number: int, name: str) -> None:
        """Give an object its label."""
        with self._lock:
            if number in self._objects:
                self._objects[number].name = name

    def remove(self, numbers: Iterable[int] | None = None) -> None:
        """Forget objects; None = all."""
        with self._lock:
            for number in list(self._objects if numbers is None else numbers):
                self._objects.pop(number, None)

    def unfollow(self, number: int) -> None:
        """Forget the masks of an object that nobody prompted."""
        with self._lock:
            found = self._objects.get(number)
            if found is not None:
                found.slices = {k: d for k, d in found.slices.items() if d.asked is not None}

    def on(self, index: int) -> dict[int, Drawn]:
        """The objects of a slice by number."""
        with self._lock:
            kept = {n: o.slices[index] for n, o in self._objects.items() if index in o.slices}
        return {number: one.drawn for number, one in kept.items()}

    def slices(self) -> dict[int, list[int]]:
        """The slices on which each object has a mask."""
        with self._lock:
            return {number: sorted(one.slices) for number, one in self._objects.items()}

    def asked(self, number: int | None = None) -> list[Asked]:
        """The prompts of an object, or of all, in the order of objects and slices."""
        with self._lock:
            return [
                self._named(one.asked, found.name)
                for key, found in self._objects.items()
                for _, one in sorted(found.slices.items())
                if one.asked is not None and number in (None, key)
            ]

    @staticmethod
    def _named(one: Asked, name: str) -> Asked:
        """The prompts under the name that the object has by now."""
        return Asked(
            object=name, axis=one.axis, index=one.index, box_xyxy=one.box_xyxy, points=one.points
        )

    def segmented(self, scan: Scan) -> Segmented:
        """All masks on the grid of the image, for writing.

        Raises:
            UsageError: nothing is drawn.
        """
        with self._lock:
            drawn = [one for one in self._objects.values() if one.slices]
            if not drawn:
                raise UsageError("expected a mask to export, found none: click in the image first")
            objects = [_found(scan, self._axis, one) for one in drawn]
            return Segmented(objects=objects, axis=self._axis, seconds=0.0, encoded=0)


def _found(scan: Scan, axis: str, one: _Object) -> Found:
    found = Found(name=one.name, mask_ZYX=np.zeros(scan.shape_zyx, bool))
    for index, kept in one.slices.items():
        view = scan.view(found.mask_ZYX, axis, index)
        view |= kept.drawn.mask_HW
        found.iou[index] = kept.iou
    return found


def prompt_rows(asked: Iterable[Asked], image: str) -> list[dict[str, Any]]:
    """Prompts as ``sammed predict --prompts`` reads them: a row for each box and each point."""
    rows: list[dict[str, Any]] = []
    for one in asked:
        place = {"image": image, "axis": one.axis, "slice": one.index, "object": one.object}
        if one.box_xyxy:
            rows.append(place | {"box": list(one.box_xyxy)})
        rows += [place | {"point": [x, y], "label": label} for x, y, label in one.points]
    return rows
