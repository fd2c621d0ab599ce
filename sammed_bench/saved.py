"""Saved predictions as a model: index maps in a folder, an nnU-Net run on our export, say.

``--model nnunet=predictions:FOLDER``. The folder holds ``dataset.json`` (nnU-Net's own, as its
``labels`` say structure -> number) and a PNG or NIfTI for each image, named as our nnU-Net export
names it. It takes no prompt: every mode has the same answer. Where an image has several masks of
one structure, a mask is answered by the parts of the class that touch it, which flatters; the
tables by image join them. A missing file scores worst and is counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sammed_bench.types import ImagePrompts, ModelFacts, Prediction
from sammed_data.codecs import decode_image
from sammed_data.corpus import MaskRow, Row
from sammed_data.export import safe_name
from sammed_data.types import ModelError, ReadError

KIND = "predictions"
_ENDINGS = (".png", ".nii.gz", ".nii")
Asked = tuple[Row, tuple[MaskRow, ...]]


class SavedPredictions:
    """A folder of index maps behind the two methods of a model.

    Args:
        name: label.
        folder: with ``dataset.json`` and the maps.

    Raises:
        ModelError: no folder, no usable ``dataset.json``, or no map.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._labels = _labels(folder)
        self._asked: Sequence[Asked] = ()
        self.facts = ModelFacts(
            name=name,
            kind=KIND,
            recipe="no prompt",
            weights_sha256=_digest(folder),
            source=str(folder),
        )

    def introduce(self, asked: Sequence[Asked]) -> None:
        """Which images and masks come next."""
        self._asked = asked

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """The planes of the masks of each image.

        Raises:
            ModelError: a map is missing, of another size, or without the structure.
        """
        return [self._planes(row, masks) for row, masks in self._asked]

    def predict(self, state: Any, prompts: Sequence[ImagePrompts]) -> list[Prediction]:
        """The planes, whatever is asked."""
        return [Prediction(logits_MHW=torch.from_numpy(planes).float() * 2 - 1) for planes in state]

    def _planes(self, row: Row, masks: Sequence[MaskRow]) -> NDArray[np.bool_]:
        index_HW = self._map(row)
        shared = [mask.structure for mask in masks]
        planes = []
        for mask in masks:
            number = self._labels.get(mask.structure)
            if number is None:
                raise ModelError(
                    f"expected a label {mask.structure!r} in {self._folder / 'dataset.json'}, "
                    f"found {', '.join(self._labels)}: export with the same structures"
                )
            plane = index_HW == number
            several = shared.count(mask.structure) > 1
            truth_HW = np.asarray(row.masks[mask.index].mask_HW, bool)
            planes.append(touching(plane, truth_HW) if several else plane)
        return np.stack(planes)

    def _map(self, row: Row) -> NDArray[Any]:
        name = safe_name(row.sample_id)
        paths = [self._folder / f"{name}{ending}" for ending in _ENDINGS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise ModelError(f"expected a prediction at {paths[0]} (or .nii.gz), found none")
        found = _read(path)
        if found.shape != (row.height, row.width):
            raise ModelError(
                f"expected {row.height} x {row.width} pixels in {path}, found "
                f"{' x '.join(map(str, found.shape))}"
            )
        return found


def _labels(folder: Path) -> dict[str, int]:
    path = folder / "dataset.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))["labels"]
        return {str(name): int(number) for name, number in raw.items() if int(number)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelError(
            f"expected nnU-Net's dataset.json with its labels in {folder}, found {err}: copy it "
            "beside the predictions"
        ) from err


def _digest(folder: Path) -> str:
    """Identity: names and contents of all maps and the labels."""
    digest = hashlib.sha256()
    paths = [p for p in sorted(folder.iterdir()) if p.name.endswith(_ENDINGS)]
    if not paths:
        raise ModelError(
            f"expected predictions (PNG or NIfTI index maps) in {folder}, found none: "
            "give --model LABEL=predictions:FOLDER"
        )
    for path in [folder / "dataset.json", *paths]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path) -> NDArray[Any]:
    """(H, W) whole numbers."""
    if path.suffix == ".png":
        try:
            return decode_image(path.read_bytes())
        except (ReadError, ValueError, OSError) as err:
            raise ModelError(f"expected a PNG in {path}, found: {err}") from err
    # Only where somebody saved NIfTI: a GPU machine need not have a reader of it.
    from sammed_data.readers.registry import read_label_map

    plane: NDArray[Any] = np.asarray(read_label_map(path)[0])
    return plane[0] if plane.ndim == 3 and plane.shape[0] == 1 else plane


def touching(plane_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a class (8-connected) that touch a true mask."""
    from scipy.ndimage import label

    parts_HW, _ = label(plane_HW, structure=np.ones((3, 3)))
    touched = np.unique(parts_HW[truth_HW & plane_HW])
    found: NDArray[np.bool_] = np.isin(parts_HW, touched) & plane_HW
    return found
