"""Models that need no weights, for the tests of the benchmark."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from sammed_bench.types import ModelFacts, Prediction


class Bright:
    """Takes the connected bright or dark patch around what it is asked about."""

    def __init__(self, name="bright", accepts=("box", "point", "mask"), digest="1"):
        self.facts = ModelFacts(
            name=name,
            kind="other",
            recipe="other",
            weights_sha256=digest,
            accepts=frozenset(accepts),
        )
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return [ndimage.uniform_filter(np.asarray(i, float), 3) for i in images]

    def predict(self, state, prompts):
        return [self._one(image, p) for image, p in zip(state, prompts, strict=True)]

    def _one(self, image, prompts):
        planes = []
        for m in range(len(prompts)):
            if prompts.boxes_M4 is not None:
                x0, y0, x1, y1 = prompts.boxes_M4[m].tolist()
                x, y = (x0 + x1) / 2, (y0 + y1) / 2
            elif prompts.points_MN2 is not None:
                # The newest click counts: an answer that changes from round to round.
                x, y = prompts.points_MN2[m, -1].tolist()
            else:
                y, x = (float(v.float().mean()) for v in prompts.masks_MHW[m].nonzero().T)
            near = np.abs(image - image[int(y), int(x)]) < 30
            parts = ndimage.label(near)[0]
            planes.append(parts == parts[int(y), int(x)])
        logits = torch.from_numpy(np.stack(planes)).float() - 0.5
        return Prediction(logits_MHW=logits)


class Broken(Bright):
    """Fails in its own way on some images."""

    def __init__(self, name="broken", how="raise"):
        super().__init__(name)
        self.how = how

    def predict(self, state, prompts):
        if self.how == "raise":
            raise RuntimeError("out of luck")
        found = super().predict(state, prompts)
        if self.how == "shape":
            return [Prediction(logits_MHW=p.logits_MHW[:, :-1]) for p in found]
        if self.how == "few":
            return found[:-1]
        for p in found:
            p.logits_MHW[0] = float("nan")
        return found


class FailsOn(Bright):
    """Raises whenever one image of the batch has this height x width."""

    def __init__(self, shape, name="picky"):
        super().__init__(name)
        self.shape = shape

    def encode(self, images):
        if any(i.shape[:2] == self.shape for i in images):
            raise ValueError("an image I cannot see")
        return super().encode(images)


def make_bright():
    return Bright("factory")


def make_nothing():
    return object()


class Spoils(Bright):
    """Writes into the images and prompts that it is given."""

    def encode(self, images):
        for image in images:
            image[:] = 0
        return super().encode(images)

    def predict(self, state, prompts):
        for given in prompts:
            for name in ("points_MN2", "point_labels_MN", "boxes_M4", "masks_MHW"):
                if getattr(given, name) is not None:
                    getattr(given, name).zero_()
        return [
            Prediction(logits_MHW=-torch.ones(len(p), *i.shape[:2]))
            for i, p in zip(state, prompts, strict=True)
        ]


class Leaves(Bright):
    """Ends the program."""

    def predict(self, state, prompts):
        raise SystemExit(3)


class Arrays(Bright):
    """Answers with numpy arrays."""

    def predict(self, state, prompts):
        return [
            Prediction(logits_MHW=p.logits_MHW.numpy()) for p in super().predict(state, prompts)
        ]


class Peeks(Bright):
    """Would be shown the truth."""

    def reveal(self, truths):
        self.truths = truths


def make_peeks():
    return Peeks()


def make_trivial():
    model = Bright()
    model.facts = ModelFacts(name="x", kind="trivial", recipe="other", weights_sha256="1")
    return model


def make_broken():
    raise RuntimeError("no weights here")
