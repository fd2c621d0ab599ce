"""Writers for entries whose images or labels are parts of files: arrays, halves, frames, tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sammed_data.entry_parts import RawPixels, RunLengths, Table
from tests import fake_files

ARRAYS = (".npy", ".npz", ".mat")
N_ITEMS = 2
N_FRAMES = 5


def write_array(path: Path, variable: str | None, array: np.ndarray) -> None:
    """npy, or one more variable of a npz or mat file."""
    import scipy.io

    path.parent.mkdir(parents=True, exist_ok=True)
    name = variable or "data"
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        old = dict(np.load(path)) if path.exists() else {}
        np.savez_compressed(path, **old, **{name: array})
    else:
        old = scipy.io.loadmat(path) if path.exists() else {}
        kept = {k: v for k, v in old.items() if not k.startswith("__")}
        scipy.io.savemat(path, {**kept, name: array}, do_compression=True)


def in_axes(array: np.ndarray, letters: str, axes: str | None) -> np.ndarray:
    """Bring an array with the named axes into those of the entry; N repeats it."""
    wanted = axes or ("YX" if array.shape[letters.index("Z")] == 1 else "ZYX")
    if "Z" not in wanted:
        array = array.take(0, axis=letters.index("Z"))
        letters = letters.replace("Z", "")
    if "N" in wanted:
        array, letters = np.stack([array] * N_ITEMS), "N" + letters
    return array.transpose([letters.index(letter) for letter in wanted])


def write_raw(path: Path, raw: RawPixels, array_HW: np.ndarray) -> None:
    """Big or little endian numbers without a header, the picture in the upper left corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.zeros((raw.rows, raw.columns), raw.numpy_dtype)
    height, width = array_HW.shape
    whole[:height, :width] = array_HW
    path.write_bytes(whole.tobytes())


def beside(path: Path, label: np.ndarray, half: str) -> None:
    """Put a label beside the image that the file holds already."""
    from PIL import Image

    image = np.asarray(Image.open(path).convert("RGB"))
    label = label[..., None].repeat(3, axis=-1) if label.ndim == 2 else label
    pair = [image, label] if half == "right" else [label, image]
    fake_files.write_picture(path, np.concatenate(pair, axis=1))


def boundaries(mask_ZYX: np.ndarray, *, from_one: bool) -> np.ndarray:
    """(B, Z, X) rows of the upper edge, the middle and the lower edge; NaN where nothing is."""
    found = mask_ZYX.any(axis=1)
    top = mask_ZYX.argmax(axis=1).astype(float)
    bottom = top + mask_ZYX.sum(axis=1)
    rows = np.stack([top, (top + bottom) / 2, bottom]) + from_one
    return np.where(found, rows, np.nan)


def frames(array_ZYX: np.ndarray, shown: Sequence[int]) -> np.ndarray:
    """(T, Z, Y, X) with the array in the named frames, 0 in the others."""
    out = np.zeros((N_FRAMES, *array_ZYX.shape), array_ZYX.dtype)
    out[list(shown)] = array_ZYX
    return out


def add_lines(root: Path, table: Table, cells: Sequence[Mapping[str | int, str]]) -> None:
    """Append lines to a table; its header is written first where columns have names."""
    path = root / table.pattern.replace("**/", "").replace("*", "train")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [table.id_column, table.value_column, table.class_column, table.rle_column]
    columns = [c for c in [*columns, *table.frame_columns] if c is not None]
    named = any(isinstance(c, str) for c in columns)
    order = list(columns) if named else list(range(max(int(c) for c in columns) + 1))
    is_new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.writer(stream, delimiter=table.separator)
        if named and is_new:
            writer.writerow([*order, "remark"])
        for line in cells:
            writer.writerow([line.get(c, "x") for c in order])


def run_lengths(mask_HW: np.ndarray, rule: RunLengths) -> str:
    """Runs of a mask, pixel by pixel, the slow and plain way."""
    flat = mask_HW.ravel() if rule.order == "row" else mask_HW.T.ravel()
    runs: list[list[int]] = []
    for place in np.flatnonzero(flat):
        if runs and sum(runs[-1]) == place:
            runs[-1][1] += 1
        else:
            runs.append([int(place), 1])
    if not runs:
        return rule.empty[-1]
    if rule.offsets == "absolute":
        return " ".join(f"{start + rule.first} {length}" for start, length in runs)
    ends = [0, *(start + length for start, length in runs)]
    return " ".join(
        f"{start - end + (rule.first if k == 0 else 0)} {length}"
        for k, ((start, length), end) in enumerate(zip(runs, ends, strict=False))
    )
