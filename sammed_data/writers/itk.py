"""Label maps as NRRD or MetaImage on the grid of such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import Geometry, ReadError
from sammed_data.writers.grid import onto_grid


def write_like(path: Path, labels_ZYX: NDArray[Any], geometry: Geometry, like: Path) -> None:
    """Write canonical labels on the stored grid: same origin, spacing and directions.

    Args:
        path: ``.nrrd``, ``.mha`` or any ending SimpleITK writes.
        labels_ZYX: unsigned integers in canonical axes.
        geometry: where they lie.
        like: the image they were made from, of three dimensions.

    Raises:
        ReadError: an image of other than three dimensions.
        GeometryError: the image has another grid by now.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(like))
    reader.ReadImageInformation()
    if reader.GetDimension() != 3:
        raise ReadError(
            f"{like}: expected an image of three dimensions, found {reader.GetDimension()}; "
            "write NIfTI (--format nifti)"
        )
    axes = np.asarray(reader.GetDirection()).reshape(3, 3) * reader.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3] = axes[:, ::-1]
    affine[:3, 3] = reader.GetOrigin()
    x, y, z = reader.GetSize()
    stored = Geometry(affine_lps=affine, shape_zyx=(z, y, x))
    array = onto_grid(labels_ZYX, geometry, stored)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetOrigin(reader.GetOrigin())
    image.SetSpacing(reader.GetSpacing())
    image.SetDirection(reader.GetDirection())
    sitk.WriteImage(image, str(path), useCompression=True)
