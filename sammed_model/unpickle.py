"""A pickle reader that knows tensors and ordered dicts, and imports nothing.

Published files may hold a whole pickled optimiser. Any name other than those of ``_ALLOWED``
becomes an inert placeholder, so nothing of a file is ever called; a tensor becomes a note of where
its values lie.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch

_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state")
# More dimensions than any weight has.
_MAX_DIMENSIONS = 8
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert:
    """Stands for any object that is not a tensor; takes whatever a pickle does to it."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """One more placeholder, whatever it is given."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def _ignore(self, *_: Any, **__: Any) -> Inert:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _ignore


@dataclass(frozen=True)
class Storage:
    """The values of one or more tensors: their type and their name in the file."""

    dtype: torch.dtype
    key: str


@dataclass(frozen=True)
class LazyTensor:
    """Where a tensor lies in its storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.size)

    @property
    def reach(self) -> int:
        """Values of the storage that are needed, from its start."""
        if not self.count:
            return 0
        steps = zip(self.size, self.stride, strict=True)
        return self.offset + 1 + sum((n - 1) * step for n, step in steps)


def state_of(found: object) -> Mapping[Any, Any] | None:
    """The mapping of names to tensors, out of ``{"model": ...}`` and its like; None if none."""
    if not isinstance(found, Mapping):
        return None
    for key in _WRAPPERS:
        if isinstance(found.get(key), Mapping):
            return state_of(found[key])
    return found


class Unpickler(pickle.Unpickler):
    """Resolves the names of ``_ALLOWED`` and storage types; imports nothing.

    Attributes:
        storages: key -> type of all storages that were mentioned, an optimiser's too.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, torch.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the file; nothing is imported."""
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        return _ALLOWED.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        """The storage that a tensor lies in."""
        named = isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage"
        if not named or not isinstance(pid[1], torch.dtype) or not isinstance(pid[2], str):
            return Inert()
        if len(pid) > 5 and pid[5] is not None:
            return Inert()  # a view into another storage, which only very old files have
        if self.storages.setdefault(pid[2], pid[1]) != pid[1]:
            raise pickle.UnpicklingError(f"storage {pid[2][:40]} has two types")
        return Storage(pid[1], pid[2])


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> LazyTensor:
    """A note instead of torch's function of this name.

    Raises:
        ValueError: sizes that no tensor has.
    """
    numbers = (offset, *size, *stride)
    plain = all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)
    if not isinstance(storage, Storage) or not plain or len(size) != len(stride):
        raise ValueError("a tensor of impossible size")
    if len(size) > _MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(size)} dimensions")
    return LazyTensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
