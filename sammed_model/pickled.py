"""Tensors out of PyTorch files without running what is in them, and without reading the rest.

Both forms are read here by ``unpickle``: the archive (a zip of a pickle and one member per storage)
and the stream of before PyTorch 1.6. Only the storages of the state dict are read, each straight
into the memory it keeps, so a file of 2.4 GB costs what its model costs.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from sammed_data.types import ModelError
from sammed_model.unpickle import LazyTensor, Storage, Unpickler, state_of

_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    OSError,
    EOFError,
    MemoryError,
    ArithmeticError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
# The pickle of a SAM with its optimiser is 0.3 MB; one byte of a hostile one can cost 64 of memory.
_MAX_PICKLE_BYTES = 8 << 20
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
Read = Callable[[Storage], Tensor]


def read_pickled(path: Path, *, values: bool = True) -> dict[str, Tensor]:
    """The state dict of a ``.pth`` file, also from within ``{"model": ..., "optimizer": ...}``.

    Args:
        path: of the file.
        values: False reads names, types and shapes alone (tensors on ``meta``).

    Raises:
        ModelError: not a PyTorch file, damaged, or without a state dict.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if zipfile.is_zipfile(file):
                return _read_archive(path, file, values)
            file.seek(0)
            if start[:1] == b"\x80":
                return _read_stream(path, file, values)
    except ModelError:
        raise
    except _DAMAGE as err:
        raise _damaged(path, err) from err
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


def _read_archive(path: Path, file: IO[bytes], values: bool) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as archive:
        _check_members(archive, path.stat().st_size)
        names = [n for n in archive.namelist() if n.split("/")[-1] == "data.pkl"]
        if len(names) != 1:
            raise LookupError("expected one data.pkl in the archive")
        folder = names[0].removesuffix("data.pkl")
        if archive.getinfo(names[0]).file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"its data.pkl is larger than {_MAX_PICKLE_BYTES} bytes")
        if f"{folder}byteorder" in archive.namelist():
            _check_byteorder(archive.read(f"{folder}byteorder"))
        found = Unpickler(io.BytesIO(archive.read(names[0]))).load()

        def read(storage: Storage) -> Tensor:
            member = archive.getinfo(f"{folder}data/{storage.key}")
            with archive.open(member) as stream:  # checks the member's sum
                return _filled(stream, storage.dtype, member.file_size // storage.dtype.itemsize)

        return _state(path, found, read if values else None)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """PyTorch stores without compression: members are never larger than the file."""
    members = archive.infolist()
    if any(m.compress_type != zipfile.ZIP_STORED for m in members):
        raise ValueError("compressed members, which PyTorch does not write")
    if sum(m.file_size for m in members) > size or any(
        m.file_size != m.compress_size for m in members
    ):
        raise ValueError("members that are larger than the file")
    if len({m.filename for m in members}) != len(members):
        raise ValueError("two members of one name")


def _check_byteorder(raw: bytes) -> None:
    if raw != b"little":
        raise ValueError(f"values in byte order {raw[:8]!r}, only little is read")


def _read_stream(path: Path, file: IO[bytes], values: bool) -> dict[str, Tensor]:
    """The form of before PyTorch 1.6: three pickles, the object, the names, then all storages."""
    head = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    if Unpickler(head).load() != _OLD_MAGIC:
        raise ValueError("a pickle, but not of PyTorch")
    Unpickler(head).load()
    machine = Unpickler(head).load()
    if isinstance(machine, Mapping) and machine.get("little_endian") is False:
        _check_byteorder(b"big")
    content = Unpickler(head)
    found = content.load()
    keys = Unpickler(head).load()
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        raise ValueError("expected the names of the storages")
    if not values:
        return _state(path, found, None)
    file.seek(head.tell())
    places = _places(file, keys, content.storages, path.stat().st_size)

    def read(storage: Storage) -> Tensor:
        start, count = places[storage.key]
        file.seek(start)
        return _filled(file, storage.dtype, count)

    return _state(path, found, read)


def _places(
    file: IO[bytes], keys: list[str], dtypes: Mapping[str, torch.dtype], size: int
) -> dict[str, tuple[int, int]]:
    """Storage key -> (first byte, number of values)."""
    places = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        end = file.tell() + count * dtypes[key].itemsize
        if count < 0 or end > size:
            raise EOFError(f"storage {key} of {count} values ends behind the file")
        places[key] = file.tell(), count
        file.seek(end)
    return places


def _filled(stream: IO[bytes], dtype: torch.dtype, count: int) -> Tensor:
    """``count`` values of a stream, read into the memory they keep."""
    flat = torch.empty(count, dtype=dtype)
    bytes_ = flat.view(torch.uint8).numpy()
    done = 0
    while done < bytes_.size:
        got = stream.readinto(bytes_[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("a storage is cut short")
        done += got
    if stream.read(1) and isinstance(stream, zipfile.ZipExtFile):
        raise ValueError("a storage that is no whole number of values")
    return flat


def _state(path: Path, found: object, read: Read | None) -> dict[str, Tensor]:
    """Name -> tensor; ``read`` None makes them without values."""
    state = state_of(found)
    if state is None:
        kind = "an object" if not isinstance(found, str | int | list | tuple) else type(found)
        raise ModelError(
            f"expected a state dict (names and tensors) in {path}, found {kind}: "
            "save model.state_dict() and give that file"
        )
    wrong = [
        str(k) for k, v in state.items() if not isinstance(v, LazyTensor) or not isinstance(k, str)
    ]
    if wrong or not state:
        raise ModelError(
            f"expected a state dict (names and tensors) in {path}, found "
            f"{'other things: ' + ', '.join(w[:80] for w in wrong[:5]) if wrong else 'nothing'}"
        )
    storages: dict[Storage, Tensor] = {}
    return {name: _tensor(lazy, read, storages) for name, lazy in state.items()}


def _tensor(lazy: LazyTensor, read: Read | None, storages: dict[Storage, Tensor]) -> Tensor:
    if read is None or not lazy.count:
        return torch.empty(lazy.size, dtype=lazy.storage.dtype, device="meta" if not read else None)
    if lazy.storage not in storages:
        storages[lazy.storage] = read(lazy.storage)
    flat = storages[lazy.storage]
    if lazy.reach > flat.numel() or lazy.count > flat.numel():
        raise ValueError(f"a tensor of {lazy.size} in a storage of {flat.numel()} values")
    return torch.as_strided(flat, lazy.size, lazy.stride, lazy.offset)
