"""One tab of the page: its image, its prompts, its files; worker and weights are shared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_app.page.drawing import Drawing, Drawn, prompt_rows
from sammed_app.page.embeddings import EmbeddingKey
from sammed_app.page.images import Inbox, Opened
from sammed_app.page.weights import Weights
from sammed_app.page.worker import Job, Worker
from sammed_app.predict import outputs
from sammed_app.predict.scan import Scan
from sammed_app.predict.segment import check_prompts, mask_prompt, segment
from sammed_app.predict.types import Asked, Following, Format
from sammed_data.manifest import sammed_version
from sammed_data.types import UsageError
from sammed_data.writers.dicom_seg import Author
from sammed_model.predictor import SammedPredictor
from sammed_model.sam import SamModel


@dataclass(frozen=True, kw_only=True)
class Look:
    """A slice as a tab shows it.

    Attributes:
        model: label of the weights.
        policy: name, or ``low,high``; '' = what the weights were trained with.
        modality: '' = as the file says.
    """

    model: str
    axis: str
    index: int
    policy: str = ""
    modality: str = ""


class Session:
    """One tab."""

    def __init__(self, name: str, weights: Weights, worker: Worker) -> None:
        self.name = name
        self.incoming = Inbox()
        self.drawing = Drawing()
        self.follow: Job | None = None
        self.used = time.monotonic()
        self._weights, self._worker = weights, worker
        self._image: Opened | None = None
        self._files: Inbox | None = None  # of the image, which is read again for export
        self._wanted: EmbeddingKey | None = None

    @property
    def image(self) -> Opened:
        """What is open.

        Raises:
            UsageError: nothing.
        """
        if self._image is None:
            raise UsageError("no image is open: drop a file, or open one from the corpus")
        return self._image

    def show(self, image: Opened) -> dict[str, Any]:
        """Open an image in place of the one before; its drawing is gone."""
        about = image.about()
        self.stop()
        self._worker.leave(self.name)
        self.drawing = Drawing()
        self._image, self._wanted = image, None
        if self._files is not None:
            self._files.close()
        self._files = None
        return about

    def expect_files(self) -> None:
        """Other files are about to be dropped; the image stays open until they are read."""
        self.incoming.close()
        self.incoming = Inbox()

    def show_dropped(self, channel: int | None = None) -> dict[str, Any]:
        """Open what was dropped.

        Raises:
            SammedError: it cannot be read; the image before stays open.
        """
        about = self.show(self.incoming.open(channel))
        self._files, self.incoming = self.incoming, Inbox()
        return about

    def close(self) -> None:
        """Leave, and remove the files."""
        self.stop()
        self._worker.leave(self.name)
        self._image = None
        self.incoming.close()
        if self._files is not None:
            self._files.close()

    def scan(self, look: Look) -> Scan:
        """The image in a window.

        Raises:
            UsageError: an unknown window, axis or slice.
        """
        policy = look.policy or (self._weights.policy(look.model) if look.model else "auto")
        if not look.policy and policy not in self.image.policies:
            policy = "auto"
        scan = self.image.scan(policy, look.modality)
        flat = scan.volume.geometry is None
        known = ("native",) if flat else ("axial", "coronal", "sagittal")
        if look.axis not in known or not 0 <= look.index < scan.count(look.axis):
            raise UsageError(
                f"expected one of the {'' if flat else 'axial, coronal or sagittal '}slices of "
                f"{self.image.name}, found {look.axis[:20]!r} {look.index}"
            )
        return scan

    def picture(self, look: Look) -> NDArray[np.uint8]:
        """A slice as the model sees it."""
        return self.scan(look).picture(look.axis, look.index)

    def want(self, look: Look) -> None:
        """Have a slice encoded."""
        key, scan = self._key(look)

        def make() -> tuple[SamModel, NDArray[np.uint8]]:
            return self._weights.model(look.model), scan.picture(look.axis, look.index)

        self._wanted = key
        self._worker.want(self.name, key, make)

    def state(self) -> dict[str, Any]:
        """Of the slice that is waited for, and of following."""
        if self._wanted is None:
            slice_: dict[str, Any] = {"state": "none", "share": 0.0, "error": ""}
        else:
            state, share, error = self._worker.state(self._wanted)
            slice_ = {"state": state, "share": round(share, 3), "error": error}
        return {"slice": slice_, "follow": None if self.follow is None else self.follow.about()}

    def ask(
        self, look: Look, number: int, asked: Asked, choice: int | None
    ) -> dict[str, Any] | None:
        """Ask the decoder; None where the slice is not encoded (any more): want it first.

        Args:
            look: the slice.
            number: of the object.
            asked: prompts in pixels of the slice as shown; without any, the mask is removed.
            choice: which alternative to keep; -1 = show all three, keep the model's own answer.

        Raises:
            UsageError: prompts outside the slice, or on another axis than those before.
        """
        self.drawing.check_axis(look.axis)
        key, scan = self._key(look)
        if not asked.points and asked.box_xyxy is None:
            self.drawing.put(number, asked.object, look.axis, look.index, None)
            return {"drawn": None, "choices": []}
        asked = check_prompts(scan, [_whole(asked, scan)], look.axis)[0]
        predictor = self._worker.embeddings.get(key)
        if predictor is None:
            return None
        drawn, choices = _decoded(predictor, scan, asked, choice)
        self.drawing.put(number, asked.object, look.axis, look.index, drawn)
        return {"drawn": drawn.about(), "choices": [one.about() for one in choices]}

    def start_follow(self, look: Look, number: int, first: int | None, last: int | None) -> None:
        """Follow an object from its prompted slices through the volume, at the side.

        Raises:
            UsageError: it has no prompts, or following is at work.
        """
        scan, asked = self.scan(look), self.drawing.asked(number)
        if not asked:
            raise UsageError("expected prompts of this object to follow, found none: click first")
        if self.follow is not None and self.follow.state in ("waiting", "running"):
            raise UsageError("an object is being followed: wait for it, or stop it")
        drawing = self.drawing

        def run(job: Job) -> None:
            def tick(text: str) -> None:
                job.said = text
                self._worker.give_way(job)

            model = self._weights.model(look.model)
            rule = Following(on=True, first=first, last=last)
            with self._worker.stoppable(model, lambda: not job.cancelled, lambda _: None):
                done = segment(SammedPredictor(model), scan, asked, look.axis, rule, tick=tick)
            found = done.objects[0]
            drawing.unfollow(number)
            for index in sorted(found.iou.keys() - found.prompted):
                mask = np.ascontiguousarray(scan.view(found.mask_ZYX, look.axis, index))
                drawn = Drawn(mask_HW=mask, iou=found.iou[index])
                drawing.put(number, found.name, look.axis, index, drawn)
            ended = "; ".join(f"{way}: {why}" for way, why in found.ended.items())
            job.said = f"{len(found.iou)} slices of {found.name} ({ended})"

        self.follow = Job(run=run)
        self._worker.start(self.follow)

    def stop(self) -> None:
        """Follow no further."""
        if self.follow is not None:
            self.follow.cancelled = True

    def export(self, folder: Path, form: Format, *, per_object: bool) -> list[Path]:
        """Write the masks on the grid of the image.

        Raises:
            UsageError: nothing is drawn.
            SammedError: the format does not suit the image.
        """
        scan = self.image.scan()
        done = self.drawing.segmented(scan)
        author = Author(algorithm="sammed app", version=sammed_version(), description="clicked")
        name = "masks" if scan.path.is_dir() else scan.name
        target = folder / f"{name}_mask{outputs.ending(form)}"
        return outputs.write(scan, done, target, form, author, per_object=per_object)

    def prompts(self) -> list[dict[str, Any]]:
        """The prompts as ``sammed predict --prompts`` reads them."""
        path = self.image.scan().path
        is_file = path.is_file()
        return prompt_rows(self.drawing.asked(), path.name if is_file else "")

    def _key(self, look: Look) -> tuple[EmbeddingKey, Scan]:
        scan = self.scan(look)
        chosen = scan.intensity
        return EmbeddingKey(
            model=look.model,
            image=self.image.key,
            axis=look.axis,
            index=look.index,
            window=f"{chosen.policy} {chosen.low} {chosen.high}",
        ), scan


def _whole(asked: Asked, scan: Scan) -> Asked:
    """Prompts of the slice as shown -> pixels of the whole stored picture."""
    left, top = scan.offset_xy
    box = asked.box_xyxy
    return Asked(
        object=asked.object,
        axis=asked.axis,
        index=asked.index,
        box_xyxy=box and (box[0] + left, box[1] + top, box[2] + left, box[3] + top),
        points=tuple((x + left, y + top, label) for x, y, label in asked.points),
    )


def _decoded(
    predictor: SammedPredictor, scan: Scan, asked: Asked, choice: int | None
) -> tuple[Drawn, list[Drawn]]:
    """The mask to keep, and the three alternatives where they were asked for."""
    prompt = [mask_prompt(asked, scan.offset_xy)]
    choices: list[Drawn] = []
    if choice is not None:
        all_ = predictor.predict_batch(prompt, multimask_output=True)[0]
        choices = [
            Drawn(mask_HW=mask, iou=float(iou), asked=asked, choice=k)
            for k, (mask, iou) in enumerate(zip(all_.masks_CHW, all_.iou_C, strict=True))
        ]
        if choice >= len(choices):
            raise UsageError(f"expected one of {len(choices)} alternatives, found {choice}")
        if choice >= 0:
            return choices[choice], choices
    own = predictor.predict_batch(prompt)[0]
    return Drawn(mask_HW=own.masks_CHW[0], iou=float(own.iou_C[0]), asked=asked), choices
