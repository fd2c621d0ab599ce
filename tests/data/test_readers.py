from __future__ import annotations

import gzip

import numpy as np
import pytest

from sammed_data.geometry import same_grid
from sammed_data.readers import limits
from sammed_data.readers.registry import read_label_map, read_volume
from sammed_data.types import ReadError
from tests.data.anatomy import (
    answer_geometry,
    answer_image,
    answer_labels,
    write_itk,
    write_nifti,
    write_series,
)

WRITERS = {
    "a.nii": write_nifti,
    "a.nii.gz": write_nifti,
    "a.nrrd": write_itk,
    "a.mha": write_itk,
    "a.mhd": write_itk,
    "series": write_series,
}
ALL_SUFFIXES = [
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".mha",
    ".mhd",
    ".dcm",
    ".png",
    ".jpg",
    ".tif",
    ".bmp",
    ".gif",
]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_volume(tmp_path, name, order):
    path = WRITERS[name](tmp_path / name, answer_image(), order=order)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, answer_image())
    assert same_grid(volume.geometry, answer_geometry())
    np.testing.assert_allclose(volume.geometry.spacing_zyx_mm, (1, 2, 3), rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in WRITERS if n != "series"])
def test_every_format_gives_the_same_labels(tmp_path, name):
    array, geometry = read_label_map(WRITERS[name](tmp_path / name, answer_labels()))
    np.testing.assert_array_equal(array, answer_labels())
    assert same_grid(geometry, answer_geometry())


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_an_empty_file_gives_a_sentence(tmp_path, suffix):
    path = tmp_path / f"empty{suffix}"
    path.touch()
    for read in (read_volume, read_label_map):
        with pytest.raises(
            ReadError, match=r"empty.*expected data, found an empty file \(0 bytes\)"
        ):
            read(path)


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_other_content_gives_a_sentence(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_text("this is not an image\n" * 40)
    with pytest.raises(ReadError, match=r"text.*expected .*; "):
        read_volume(path)


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.jpg", "a.tif"]
)
def test_a_truncated_file_gives_a_sentence(tmp_path, name):
    path = tmp_path / name
    if name in WRITERS:
        WRITERS[name](path, answer_image())
    else:
        _save(path, np.random.default_rng(3).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ReadError, match=r"a\..*expected.*; "):
        read_volume(path)


def test_a_truncated_nifti_states_expected_and_found_bytes(tmp_path):
    path = write_nifti(tmp_path / "a.nii", answer_image())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        ReadError, match="expected 2,640 bytes of voxels after the header, found 2,540"
    ):
        read_volume(path)


def test_a_damaged_gzip_stream_is_no_image(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", answer_image())
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # the checksum of the member
    path.write_bytes(data)
    with pytest.raises(ReadError, match="damaged"):
        read_volume(path)


def test_gzip_of_many_members(tmp_path):
    raw = write_nifti(tmp_path / "a.nii", answer_image()).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(b"".join(gzip.compress(raw[k : k + 500]) for k in range(0, len(raw), 500)))
    np.testing.assert_array_equal(read_volume(path).array, answer_image())


def test_qform_serves_where_sform_has_code_zero(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", answer_image(), qform_only=True)
    assert same_grid(read_volume(path).geometry, answer_geometry())


def test_nifti_big_endian_scaled_and_sheared(tmp_path):
    import nibabel as nib

    affine = np.diag([3.0, 2, 1, 1])
    affine[0, 2] = 0.4
    stored = answer_image().T.astype(">i2")
    header = nib.Nifti1Image(stored, affine, nib.Nifti1Header(endianness=">")).header
    header.set_data_dtype(">i2")
    header.set_slope_inter(0.5, 10)
    header.set_sform(affine, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + b"\0" * 4 + stored.tobytes(order="F"))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.array[:, ::-1, ::-1], answer_image() * 0.5 + 10)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.geometry.affine_lps[:3, 0], (-0.4, 0, 1), atol=1e-6)


def test_channels_of_a_4d_file(tmp_path):
    import nibabel as nib

    four = np.stack([answer_image().T, answer_image().T + 7], axis=-1)
    nib.save(nib.Nifti1Image(four, np.diag([-3.0, -2, 1, 1])), tmp_path / "a.nii.gz")
    got = read_volume(tmp_path / "a.nii.gz", channel=1)
    np.testing.assert_array_equal(got.array, answer_image() + 7)
    with pytest.raises(ReadError, match="found 2 channels"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(ReadError, match="expected a channel 2"):
        read_volume(tmp_path / "a.nii.gz", channel=2)
    _save(tmp_path / "b.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(ReadError, match="remove `channel`"):
        read_volume(tmp_path / "b.png", channel=0)


def test_a_2d_nifti_is_one_slice(tmp_path):
    import nibabel as nib

    nib.save(nib.Nifti1Image(answer_image()[0].T, np.diag([-3.0, -2, 1, 1])), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").array, answer_image()[:1])


def test_declared_size_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DECODED_BYTES", 1000)
    _save(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    _save(tmp_path / "a.tif", np.zeros((40, 50), np.uint8))
    paths = [w(tmp_path / n, answer_image()) for n, w in WRITERS.items()]
    for path in [*paths, tmp_path / "a.png", tmp_path / "a.tif"]:
        with pytest.raises(ReadError, match="expected at most 1,000 decoded bytes"):
            read_volume(path)


def test_label_values_must_be_whole(tmp_path):
    whole = write_nifti(tmp_path / "whole.nii", answer_labels().astype(np.float32))
    array, _ = read_label_map(whole)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, answer_labels())
    half = write_nifti(tmp_path / "half.nii", answer_labels() * np.float32(0.5))
    with pytest.raises(ReadError, match=r"half.nii: expected integer labels, found the value 0.5"):
        read_label_map(half)


def test_an_unknown_ending_names_the_known_ones(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"?" * 200)
    with pytest.raises(ReadError, match=r"expected one of \.nii.*; convert the file"):
        read_volume(tmp_path / "a.xyz")
    with pytest.raises(ReadError, match="No such file"):
        read_volume(tmp_path / "absent.png")


# Raster files


def _save(path, array, **how):
    from PIL import Image

    Image.fromarray(array).save(path, **how)


def _grey(dtype=np.uint8):
    return np.arange(13 * 17).reshape(13, 17).astype(dtype)


def test_alpha_is_dropped_and_grey_stays_grey(tmp_path):
    rgba = np.stack([_grey(), _grey() // 2, _grey() // 3, _grey() // 4], axis=-1)
    _save(tmp_path / "a.png", rgba)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png").array[0], rgba[..., :3])
    _save(tmp_path / "b.png", rgba[..., [0, 3]])
    np.testing.assert_array_equal(read_volume(tmp_path / "b.png").array[0], _grey())
    volume = read_volume(tmp_path / "b.png")
    assert (volume.geometry, volume.bits, volume.spacing_yx_mm) == (None, 8, None)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    deep = _grey(np.uint16) * 290
    _save(tmp_path / f"a{suffix}", deep)
    volume = read_volume(tmp_path / f"a{suffix}")
    assert (volume.bits, volume.array.dtype) == (16, np.uint16)
    np.testing.assert_array_equal(volume.array[0], deep)


def test_sixteen_bits_of_three_channels_are_kept(tmp_path):
    import cv2

    deep = np.stack([_grey(np.uint16) * k for k in (290, 150, 70)], axis=-1)
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png").array[0], deep)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".gif"])
def test_palette_is_colour_for_images_and_index_for_masks(tmp_path, suffix):
    from PIL import Image

    image = Image.fromarray(_grey() % 3).convert("P")
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
    image.putdata((_grey() % 3).ravel().tolist())
    image.save(tmp_path / f"a{suffix}")
    colours = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 10]])[_grey() % 3]
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array[0], colours)
    array, _ = read_label_map(tmp_path / f"a{suffix}", colours=True)
    np.testing.assert_array_equal(array[0], colours)
    if suffix != ".gif":  # GIF writers sort their palette
        np.testing.assert_array_equal(read_label_map(tmp_path / f"a{suffix}")[0][0], _grey() % 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_masks_are_zero_and_one(tmp_path, suffix):
    bits = _grey() % 3 == 0
    _save(tmp_path / f"a{suffix}", bits)
    mask = read_label_map(tmp_path / f"a{suffix}")[0][0]
    np.testing.assert_array_equal(mask > 0, bits)
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array[0], bits * 255)


def test_exif_orientation_is_not_applied(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    _save(tmp_path / "a.png", _grey(), exif=exif)
    assert read_volume(tmp_path / "a.png").array.shape == (1, 13, 17)


def test_pages_of_a_tiff_are_slices(tmp_path):
    import tifffile

    pages = np.stack([_grey(), _grey() // 2])
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array, pages)
    rgb = np.stack([pages, pages, pages // 2], axis=-1)
    tifffile.imwrite(tmp_path / "b.tif", rgb, photometric="rgb", compression="zlib")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif").array, rgb)
    tifffile.imwrite(tmp_path / "c.tif", np.moveaxis(rgb[0], -1, 0), photometric="rgb")
    np.testing.assert_array_equal(read_volume(tmp_path / "c.tif").array, rgb[:1])
    tifffile.imwrite(tmp_path / "d.tif", pages[0], photometric="miniswhite")
    np.testing.assert_array_equal(read_volume(tmp_path / "d.tif").array[0], 255 - pages[0])


def test_a_moving_gif_is_refused(tmp_path):
    from PIL import Image

    first, second = Image.fromarray(_grey()), Image.fromarray(_grey() // 2)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    with pytest.raises(ReadError, match="GIF of one frame, found 2"):
        read_volume(tmp_path / "a.gif")


# Real files


def test_samples_in_two_formats_are_equal(samples):
    for name in ("STS_008_MR_T1_image.mha", "STS_008_PET_image.mhd"):
        other = name.removeprefix("STS_008_").split(".")[0]
        a = read_volume(samples / "metaimage_reencoded" / name)
        b = read_volume(samples / "ibsi_validation/nifti/STS_008" / f"{other}.nii.gz")
        np.testing.assert_array_equal(a.array, b.array)
        assert same_grid(a.geometry, b.geometry)


def test_sample_labels_with_gaps_and_other_axes(samples):
    gapped, _ = read_label_map(samples / "dcmqi/segmentations/liver_spine_gapped_seg.nrrd")
    assert np.unique(gapped).tolist() == [0, 1, 5]
    folder = samples / "tptbox/sample_ct"
    image = read_volume(folder / "sub-ct_label-22_ct.nii.gz")
    assert np.argmax(np.abs(image.geometry.affine_lps[:3, :3]), axis=0).tolist() == [2, 1, 0]
    assert (np.diag(image.geometry.affine_lps[[2, 1, 0], :3]) > 0).all()
    for path in folder.glob("*seg*.nii.gz"):
        labels, geometry = read_label_map(path)
        assert same_grid(geometry, image.geometry)
        assert len(np.unique(labels)) in (4, 11)


def test_sample_rasters(samples):
    mask, _ = read_label_map(samples / "CHASEDB1/Image_01L_1stHO.png")
    assert np.unique(mask).tolist() == [0, 1]
    nucleus = next((samples / "dsb2018/stage1_train").iterdir())
    assert read_volume(next((nucleus / "images").iterdir())).array.shape[-1] == 3
    assert read_volume(next((samples / "stardist").rglob("img2d.tif"))).bits == 16
