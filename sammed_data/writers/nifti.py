"""Label maps as NIfTI: the header of the image with other voxels, or one made from a geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.geometry import lps_geometry
from sammed_data.types import Geometry
from sammed_data.writers.grid import onto_grid

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAID = "sammed label map"


def write_like(path: Path, labels_ZYX: NDArray[Any], geometry: Geometry, like: Path) -> None:
    """Write canonical labels on the stored grid of a NIfTI file: same affines, same codes.

    Nothing else of the header that could name a person is kept.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        labels_ZYX: unsigned integers in canonical axes.
        geometry: where they lie.
        like: the image they were made from.

    Raises:
        GeometryError: the image has another grid by now.
    """
    import nibabel

    image: Any = nibabel.load(like)
    header = image.header.copy()
    shape = tuple(int(n) for n in image.shape[:3])
    whole = shape + (1,) * (3 - len(shape))
    stored = lps_geometry(header.get_best_affine(), whole[::-1])
    array = onto_grid(labels_ZYX, geometry, stored).transpose(2, 1, 0).reshape(shape)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header.set_intent("label")
    header["cal_max"] = header["cal_min"] = 0
    header["descrip"] = _SAID
    for name in {"aux_file", "db_name"} & set(header.keys()):  # NIfTI-2 has no db_name
        header[name] = ""
    header.extensions.clear()
    # The affine is left to the header: nibabel would otherwise rewrite qform and codes.
    nibabel.save(image.__class__(np.ascontiguousarray(array), None, header), path)


def write(path: Path, labels_ZYX: NDArray[Any], geometry: Geometry | None) -> None:
    """Write labels in canonical axes; without a geometry the voxels are said to be of no place."""
    import nibabel

    array = np.ascontiguousarray(labels_ZYX.transpose(2, 1, 0))
    affine = np.eye(4) if geometry is None else _LPS_TO_RAS @ geometry.affine_lps[:, [2, 1, 0, 3]]
    made: Any = nibabel.Nifti1Image(array, affine)
    code = 0 if geometry is None else 1
    made.set_sform(affine, code)
    made.set_qform(affine, code, strip_shears=True)
    made.header.set_intent("label")
    made.header["descrip"] = _SAID
    nibabel.save(made, path)
