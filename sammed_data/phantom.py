"""Procedural anatomy as small datasets in true formats, with catalogue entries of their own.

Every patient is drawn from one generator that depends on (seed, dataset, patient) alone, so the
files are the same on every call. They are phantoms: good for trying the tools, not for medicine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sammed_data.phantoms import files, pictures, volumes
from sammed_data.types import CorpusError, UsageError, nearest

ENTRIES = Path(__file__).parent / "phantoms" / "catalogs"
MIN_PATIENTS = 4
_TEST_SHARE, _VALIDATION_SHARE, _HELD_OUT_SHARE = 0.3, 0.1, 1 / 3
_FOLDERS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A kind of patient and how its publisher would lay it out.

    Attributes:
        draw: generator -> patient.
        write: (folder, patient, what was drawn); writes one patient.
        held_out: never trained on; has no official split.
    """

    draw: Callable[[np.random.Generator], Any]
    write: Callable[[Path, str, Any], None]
    held_out: bool = False


PHANTOMS: dict[str, Phantom] = {
    "phantom_ct": Phantom(draw=volumes.abdomen_ct, write=files.write_nifti),
    "phantom_ct_rt": Phantom(draw=volumes.thorax_ct, write=files.write_dicom),
    "phantom_mr": Phantom(draw=volumes.cardiac_mr, write=files.write_nrrd),
    "phantom_us": Phantom(draw=pictures.ultrasound, write=files.write_png),
    "phantom_fundus": Phantom(draw=pictures.fundus, write=files.write_jpeg),
    "phantom_derm": Phantom(draw=pictures.dermoscopy, write=files.write_jpeg),
    "phantom_endo": Phantom(draw=pictures.endoscopy, write=files.write_jpeg, held_out=True),
}


def check_phantoms(names: Sequence[str], n_patients: int) -> None:
    """Refuse what cannot be drawn.

    Raises:
        UsageError: an unknown id, or fewer than 4 patients.
    """
    for name in names:
        if name not in PHANTOMS:
            raise UsageError(f"unknown phantom {name!r}: {nearest(name, PHANTOMS)}")
    if n_patients < MIN_PATIENTS:
        raise UsageError(
            f"expected at least {MIN_PATIENTS} patients of each phantom, found {n_patients}"
        )


def write_phantoms(
    out: Path, *, n_patients: int = 36, seed: int = 0, only: Sequence[str] | None = None
) -> Path:
    """Write ``out/catalogs/<id>.yaml`` and ``out/data/<id>/...``.

    Args:
        out: is made; files of the same name are replaced.
        n_patients: of each dataset; 3 of 10 are its official test split, 1 of 10 validation. The
            held-out dataset has a third of them.
        seed: other seeds draw other patients.
        only: dataset ids; default all.

    Returns:
        ``out``.

    Raises:
        UsageError: an unknown id, or fewer than 4 patients.
        CorpusError: the folder cannot be written.
    """
    chosen = list(PHANTOMS) if only is None else list(only)
    check_phantoms(chosen, n_patients)
    try:
        for name in chosen:
            _write_dataset(out, name, n_patients, seed)
    except OSError as err:
        raise CorpusError(
            f"cannot write the phantoms to {err.filename or out} ({err.strerror}): "
            "make room or choose another folder"
        ) from err
    return out


def patient_rng(seed: int, dataset: str, patient: str) -> np.random.Generator:
    """The generator of one patient."""
    digest = hashlib.sha256("\0".join((str(seed), dataset, patient)).encode()).digest()
    return np.random.default_rng(list(digest))


def split_sizes(n_patients: int) -> dict[str, int]:
    """Patients in each official split; none is empty."""
    test = max(1, round(_TEST_SHARE * n_patients))
    validation = max(1, round(_VALIDATION_SHARE * n_patients))
    return {"train": n_patients - test - validation, "validation": validation, "test": test}


def _write_dataset(out: Path, name: str, n_patients: int, seed: int) -> None:
    phantom = PHANTOMS[name]
    entry = out / "catalogs" / f"{name}.yaml"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_bytes((ENTRIES / entry.name).read_bytes())
    root = out / "data" / name
    if phantom.held_out:
        folders = [root] * max(MIN_PATIENTS, round(_HELD_OUT_SHARE * n_patients))
    else:
        sizes = split_sizes(n_patients)
        folders = [root / split for split in _FOLDERS for _ in range(sizes[split])]
    for number, folder in enumerate(folders, 1):
        patient = f"p{number:03d}"
        phantom.write(folder, patient, phantom.draw(patient_rng(seed, name, patient)))
