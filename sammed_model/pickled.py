"""Tensors out of PyTorch files without running what is in them.

Published files may hold a whole pickled optimiser, which ``torch.load(weights_only=True)`` refuses.
The reader here resolves tensors and ordered dicts; any other name becomes an inert placeholder, and
storages are read only for the tensors that are asked for.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sammed_data.types import ModelError

_WRAPPERS = ("model", "state_dict", "model_state_dict")
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
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


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The state dict of a ``.pth`` file, also from within ``{"model": ..., "optimizer": ...}``.

    Raises:
        ModelError: not a PyTorch file, damaged, or without a state dict.
    """
    if not zipfile.is_zipfile(path):
        return _read_old(path)
    try:
        # mmap: a file of 2.4 GB costs what its model costs.
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return _read_restricted(path)
    except _DAMAGE as err:
        raise _damaged(path, err) from err
    return _as_tensors(path, _state_dict(path, found))


def _read_old(path: Path) -> dict[str, Tensor]:
    """Files of before PyTorch 1.6, which are no archives; or no PyTorch file at all."""
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except _DAMAGE as err:
            raise _damaged(path, err) from err
        return _as_tensors(path, _state_dict(path, found))
    if start == b"PK":
        raise _damaged(path, EOFError("the archive's directory is missing"))
    raise ModelError(
        f"expected weights (.safetensors or a PyTorch .pth file) at {path}, found a file of "
        "another format: give a weight file"
    )


def _damaged(path: Path, err: Exception) -> ModelError:
    words = (str(err).strip() or type(err).__name__).splitlines()[0][:160]
    return ModelError(
        f"expected a complete PyTorch weight file at {path} ({path.stat().st_size:,} bytes), "
        f"found a damaged one ({words}): download or copy it again"
    )


def _state_dict(path: Path, found: object) -> Mapping[Any, Any]:
    """The mapping of names to tensors, unwrapped."""
    if isinstance(found, Mapping):
        for key in _WRAPPERS:
            if isinstance(found.get(key), Mapping):
                return _state_dict(path, found[key])
        return found
    raise ModelError(
        f"expected a state dict (names and tensors) in {path}, found {type(found).__name__}: "
        "save model.state_dict() and give that file"
    )


def _as_tensors(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    wrong = [
        str(k) for k, v in state.items() if not isinstance(v, Tensor) or not isinstance(k, str)
    ]
    if wrong or not state:
        raise ModelError(
            f"expected a state dict (names and tensors) in {path}, found "
            f"{'other things: ' + ', '.join(wrong[:5]) if wrong else 'nothing'}"
        )
    return dict(state)


class _Inert:
    """Stands for any object that is not a tensor; takes whatever a pickle does to it."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def _ignore(self, *_: Any, **__: Any) -> _Inert:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _ignore


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str


@dataclass(frozen=True)
class _LazyTensor:
    """Where a tensor lies in its storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> _LazyTensor:
    return _LazyTensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: _LazyTensor, *_: Any) -> _LazyTensor:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Resolves the names of ``_ALLOWED`` and storage types; imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        return _ALLOWED.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return _Inert()
        return _Storage(dtype, str(key))


def _read_restricted(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.split("/")[-1] == "data.pkl"]
            if len(names) != 1:
                raise _damaged(path, LookupError("expected one data.pkl in the archive"))
            folder = names[0].removesuffix("data.pkl")
            with archive.open(names[0]) as file:
                found = _unpickle(file)
            state = {
                key: _materialise(archive, folder, value)
                if isinstance(value, _LazyTensor)
                else value
                for key, value in _state_dict(path, found).items()
            }
    except ModelError:
        raise
    except _DAMAGE as err:
        raise _damaged(path, err) from err
    return _as_tensors(path, state)


def _unpickle(file: IO[bytes]) -> Any:
    return _Unpickler(file).load()


def _materialise(archive: zipfile.ZipFile, folder: str, lazy: _LazyTensor) -> Tensor:
    """Read one tensor; the archive checks its sum."""
    count = math.prod(lazy.size)
    if not count:
        return torch.empty(lazy.size, dtype=lazy.storage.dtype)
    raw = bytearray(archive.read(f"{folder}data/{lazy.storage.key}"))
    flat = torch.frombuffer(raw, dtype=lazy.storage.dtype)
    return torch.as_strided(flat, lazy.size, lazy.stride, lazy.offset)
