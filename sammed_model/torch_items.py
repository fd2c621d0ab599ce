"""What a dataset of torch gives of a corpus: an image with its masks, and batches of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Place = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class CorpusItem:
    """One image with the masks that the view keeps.

    Attributes:
        image_CHW: uint8, 1 channel where the corpus is grey, 3 (RGB) where it is in colour.
        masks_MHW: bool; masks may overlap.
        boxes_M4: int64, half-open ``xyxy`` in pixels ``(x, y)`` around each mask.
        ignore_HW: bool, pixels that count as neither inside nor outside; none in most rows.
        structures: name of each mask; ``organs``, ``groups`` and ``kinds`` belong to it.
        mask_keys: which masks of the row they are (``MaskRow.index``).
        sample_id, dataset, modality, split: of the row.
        number: of the row in the index; ``CorpusDataset.row`` tells all that is known of it.
        place: where a stream stood: (epoch, worker, workers, offset); None of a map.
    """

    image_CHW: Tensor
    masks_MHW: Tensor
    boxes_M4: Tensor
    ignore_HW: Tensor
    structures: tuple[str, ...]
    organs: tuple[str, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    mask_keys: tuple[int, ...]
    sample_id: str
    dataset: str
    modality: str
    split: str
    number: int
    place: Place | None = None


@dataclass(frozen=True, kw_only=True)
class CorpusBatch:
    """B images with their M masks, padded at the bottom and on the right to one size.

    Attributes:
        images_B3HW: uint8; grey images three times.
        masks_MHW: bool, of all images.
        image_index_M: int64, the image of the batch each mask belongs to.
        boxes_M4: int64, half-open ``xyxy``.
        valid_BHW: bool; False in padding and where the truth is not known.
        sizes_B2: int64 (height, width) before padding.
        items: the metadata of each image; their tensors are empty.
        place: of the last image.
    """

    images_B3HW: Tensor
    masks_MHW: Tensor
    image_index_M: Tensor
    boxes_M4: Tensor
    valid_BHW: Tensor
    sizes_B2: Tensor
    items: tuple[CorpusItem, ...]
    place: Place | None = None

    def to(self, device: torch.device | str) -> CorpusBatch:
        """The same batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> CorpusBatch:
        """The same batch in pinned memory; a DataLoader with ``pin_memory=True`` calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> CorpusBatch:
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def collate(items: Sequence[CorpusItem]) -> CorpusBatch:
    """A batch of items of any sizes: the ``collate_fn`` of a DataLoader."""
    sizes = [tuple(item.image_CHW.shape[1:]) for item in items]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    counts = torch.tensor([len(item.masks_MHW) for item in items])
    images = torch.zeros(len(items), 3, height, width, dtype=torch.uint8)
    masks = torch.zeros(int(counts.sum()), height, width, dtype=torch.bool)
    valid = torch.zeros(len(items), height, width, dtype=torch.bool)
    first = 0
    for n, (item, (h, w)) in enumerate(zip(items, sizes, strict=True)):
        images[n, :, :h, :w] = item.image_CHW
        masks[first : first + len(item.masks_MHW), :h, :w] = item.masks_MHW
        valid[n, :h, :w] = ~item.ignore_HW
        first += len(item.masks_MHW)
    return CorpusBatch(
        images_B3HW=images,
        masks_MHW=masks,
        image_index_M=torch.repeat_interleave(torch.arange(len(items)), counts),
        boxes_M4=torch.cat([item.boxes_M4 for item in items]),
        valid_BHW=valid,
        sizes_B2=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        items=tuple(map(_without_pixels, items)),
        place=items[-1].place,
    )


def _without_pixels(item: CorpusItem) -> CorpusItem:
    nothing: dict[str, Any] = {k: v[:0] for k, v in vars(item).items() if isinstance(v, Tensor)}
    return replace(item, **nothing)


def boxes_around(masks_MHW: Tensor) -> Tensor:
    """Half-open boxes around masks, none of which is empty."""
    sides = []
    for axis in (1, 2):  # what is left after taking "any" over rows, then over columns
        seen = masks_MHW.any(dim=axis).to(torch.uint8)
        low = seen.argmax(dim=1)
        sides += [low, seen.shape[1] - seen.flip(1).argmax(dim=1)]
    x0, x1, y0, y1 = sides
    return torch.stack([x0, y0, x1, y1], dim=1)
