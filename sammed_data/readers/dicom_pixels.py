"""Pixels of DICOM frames: decoded one by one, in colour or as real values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.codestream import declared_size, has_broken_boxes
from sammed_data.readers.dicom_header import (
    PALETTE,
    FrameHeader,
    is_compressed,
    parse_errors,
    read_dataset,
)
from sammed_data.readers.limits import check_size
from sammed_data.types import ReadError

# Decoders of imagecodecs for compressions that pydicom may have no plug-in for.
_OTHER_DECODERS = {
    "1.2.840.10008.1.2.4.51": "jpeg_decode",
    "1.2.840.10008.1.2.4.57": "ljpeg_decode",
    "1.2.840.10008.1.2.4.70": "ljpeg_decode",
    "1.2.840.10008.1.2.4.80": "jpegls_decode",
    "1.2.840.10008.1.2.4.81": "jpegls_decode",
    "1.2.840.10008.1.2.4.90": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.91": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.201": "htj2k_decode",
    "1.2.840.10008.1.2.4.202": "htj2k_decode",
    "1.2.840.10008.1.2.4.203": "htj2k_decode",
}


def pixels(where: Path, headers: Sequence[FrameHeader]) -> NDArray[Any]:
    """Decode the frames in the given order, real values, (Z, Y, X), or (Z, Y, X, 3) uint8.

    Slope and intercept are applied per frame, MONOCHROME1 is inverted, palettes and YBR are RGB.

    Raises:
        ReadError: damaged, too large, or compressed in a way that nothing here decodes.
    """
    first = headers[0]
    colour = first.samples > 1
    dtype = np.dtype(np.uint8) if colour else _number_type(headers)
    shape = (len(headers), first.rows, first.columns, *((3,) if colour else ()))
    check_size(where, shape, dtype.itemsize)
    volume = np.empty(shape, dtype=dtype)
    files: dict[Path, list[int]] = {}
    for z, header in enumerate(headers):
        files.setdefault(header.path, []).append(z)
    for path, places in files.items():
        places = sorted(places, key=lambda z: headers[z].index)
        planes = _decoded(path, [headers[z] for z in places])
        for z, plane in zip(places, planes, strict=True):
            if plane.shape != shape[1:]:
                raise ReadError(
                    f"{path}: expected frame {headers[z].index + 1} of {shape[1:]} pixels, found "
                    f"{plane.shape}; fetch it again"
                )
            real = plane if colour else _real(plane, headers[z])
            volume = _wide_enough(volume, real)
            volume[z] = real
    return volume


def _number_type(headers: Sequence[FrameHeader]) -> np.dtype[Any]:
    if any(h.slope != 1 or h.intercept != round(h.intercept) for h in headers):
        return np.dtype(np.float32)
    plain = all(h.intercept == 0 and not h.signed for h in headers)
    return np.dtype(np.uint8 if plain and headers[0].bits_stored <= 8 else np.int16)


def _wide_enough(volume: NDArray[Any], real: NDArray[Any]) -> NDArray[Any]:
    """Most 16-bit scanners use 12 bits: widen where a frame does not fit."""
    if real.dtype.kind == "f" and volume.dtype.kind != "f":
        return volume.astype(np.float32)
    if volume.dtype == np.int16 and (real.min() < -(2**15) or real.max() >= 2**15):
        return volume.astype(np.int32)
    return volume


def _real(plane: NDArray[Any], header: FrameHeader) -> NDArray[Any]:
    """Stored -> real values; MONOCHROME1 is mirrored within the stored range first."""
    slope, intercept = header.slope, header.intercept
    whole = slope == 1 and intercept == round(intercept) and plane.dtype.kind in "ui"
    if whole and not header.inverted:
        return plane.astype(np.int32) + np.int32(intercept)
    values = plane.astype(np.float64)
    if header.inverted:
        values = (-1.0 if header.signed else 2.0**header.bits_stored - 1) - values
    values = values * slope + intercept
    return values.astype(np.int32) if whole else values


def _decoded(path: Path, headers: Sequence[FrameHeader]) -> Iterator[NDArray[Any]]:
    """Frames of one file in ascending order, (Y, X), or (Y, X, 3) uint8."""
    data = read_dataset(path, pixels=True)
    try:
        for plane in _planes(path, data, [h.index for h in headers]):
            yield _as_bytes(plane, headers[0]) if headers[0].samples > 1 else plane
    except parse_errors() as err:
        if isinstance(err, ReadError):
            raise
        first = headers[0]
        if not is_compressed(data):
            raise ReadError(
                f"{path}: expected {first.rows} x {first.columns} pixels a frame, found less "
                "data; the file is truncated, fetch it again"
            ) from err
        raise ReadError(
            f"{path}: expected pixels as the header describes them ({_syntax(data)}), found "
            f"others ({type(err).__name__}); fetch the file again"
        ) from err


def _planes(path: Path, data: Any, indices: list[int]) -> Iterator[NDArray[Any]]:
    """Frames by pydicom, or by imagecodecs where pydicom has no plug-in for the compression."""
    from pydicom.pixels import apply_color_lut, get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    palette = str(data.get("PhotometricInterpretation")) == PALETTE
    decoder = None
    with suppress(NotImplementedError):
        decoder = get_decoder(syntax)
    if decoder is not None and decoder.is_available:
        if syntax.is_encapsulated:
            _refuse_other_sizes(path, data, indices)
            planes = decoder.iter_array(data, indices=indices)
        else:  # iter_array of pydicom 3.0 miscounts YBR_FULL_422 after its first frame
            planes = (decoder.as_array(data, index=k) for k in indices)
        for plane, _ in planes:
            yield apply_color_lut(plane, data) if palette else plane
        return
    decode = _other_decoder(path, data)
    _refuse_other_sizes(path, data, indices)
    for plane in _by_imagecodecs(data, indices, decode):
        yield apply_color_lut(plane, data) if palette else plane


def _refuse_other_sizes(path: Path, data: Any, indices: list[int]) -> None:
    """A stream that declares more pixels than its header is not decoded: it may fill the memory."""
    from pydicom.encaps import generate_frames

    wanted, expected = set(indices), (int(data.Rows), int(data.Columns))
    n = int(data.get("NumberOfFrames") or 1)
    for index, code in enumerate(generate_frames(data.PixelData, number_of_frames=n)):
        if index in wanted and has_broken_boxes(code):
            raise ReadError(
                f"{path}: expected frame {index + 1} as JPEG 2000, found broken boxes; "
                "fetch it again"
            )
        size = declared_size(code) if index in wanted else None
        if size is not None and size != expected:
            raise ReadError(
                f"{path}: expected frame {index + 1} of {expected} pixels, found a compressed "
                f"stream that declares {size}; fetch it again"
            )


def _other_decoder(path: Path, data: Any) -> Callable[[bytes], NDArray[Any]]:
    import imagecodecs

    name = _OTHER_DECODERS.get(str(data.file_meta.TransferSyntaxUID))
    if name is None or not getattr(imagecodecs, name.split("_")[0].upper()).available:
        raise ReadError(
            f"{path}: expected pixels that pydicom or imagecodecs can decode, found "
            f"{_syntax(data)}, for which no plug-in is installed; try `pip install pylibjpeg[all]` "
            "(JPEG family), or decompress the file (videos: to frames) first"
        )
    found: Callable[[bytes], NDArray[Any]] = getattr(imagecodecs, name)
    return found


def _by_imagecodecs(
    data: Any, indices: list[int], decode: Callable[[bytes], NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    from pydicom.encaps import get_frame
    from pydicom.pixels import convert_color_space

    n = int(data.get("NumberOfFrames") or 1)
    colours = str(data.get("PhotometricInterpretation"))
    for index in indices:
        plane = np.asarray(decode(get_frame(data.PixelData, index, number_of_frames=n)))
        if colours.startswith("YBR_FULL"):
            plane = convert_color_space(plane, colours, "RGB")
        if int(data.get("PixelRepresentation") or 0) == 1 and plane.dtype.kind == "u":
            spare = plane.dtype.itemsize * 8 - int(data.BitsStored)
            signed = np.dtype(f"i{plane.dtype.itemsize}")
            plane = (plane << spare).view(signed) >> spare
        yield plane


def _syntax(data: Any) -> str:
    """Public name of the compression; a private or damaged one is only called unknown."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    known = syntax is not None and not syntax.is_private and syntax.name != str(syntax)
    return str(syntax.name) if known else "an unknown transfer syntax"


def _as_bytes(plane: NDArray[Any], header: FrameHeader) -> NDArray[np.uint8]:
    """Colours of more than 8 bits (palettes mostly have 16) keep their upper eight."""
    if plane.dtype == np.uint8:
        return plane
    bits = 16 if plane.max(initial=0) > 2**header.bits_stored - 1 else header.bits_stored
    return (plane >> max(0, bits - 8)).astype(np.uint8)
