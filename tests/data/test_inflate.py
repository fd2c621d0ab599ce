"""Whole-file decoding must never give other voxels than the stream, nor hide damage."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from sammed_data import codecs
from sammed_data.readers import inflate
from sammed_data.readers.registry import read_volume
from sammed_data.types import ReadError
from tests.data.anatomy import write_nifti

SHAPE = (7, 9, 11)


def _image(seed=0):
    return np.random.default_rng(seed).integers(-1000, 2000, SHAPE).astype(np.int16)


@pytest.fixture
def calls(monkeypatch):
    """Counts how files were decoded: whole (True) or left to the stream (False)."""
    seen = []
    real = inflate.one_member

    def spy(path, n_bytes):
        found = real(path, n_bytes)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(inflate, "one_member", spy)
    return seen


@pytest.fixture(params=["fast", "plain"])
def either(request, monkeypatch):
    monkeypatch.setattr(codecs, "PLAIN", request.param == "plain")
    return request.param


def _whole(tmp_path, image):
    return write_nifti(tmp_path / "a.nii", image).read_bytes()


def test_one_member_is_decoded_whole(tmp_path, calls):
    path = write_nifti(tmp_path / "a.nii.gz", _image())
    np.testing.assert_array_equal(read_volume(path).array, _image())
    assert calls == [True]


def test_plain_codecs_give_the_same(tmp_path, calls, either):
    path = write_nifti(tmp_path / "a.nii.gz", _image())
    np.testing.assert_array_equal(read_volume(path).array, _image())
    assert calls == [either == "fast"]


@pytest.mark.parametrize("cut", [100, 352, 700])
def test_members_are_all_read(tmp_path, calls, either, cut):
    raw, path = _whole(tmp_path, _image()), tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:cut]) + gzip.compress(raw[cut:]))
    np.testing.assert_array_equal(read_volume(path).array, _image())
    assert calls == [False]


def test_a_last_member_as_long_as_the_whole_deceives_nobody(tmp_path, calls, either):
    raw, path = _whole(tmp_path, _image()), tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:] + bytes(500)))
    np.testing.assert_array_equal(read_volume(path).array, _image())
    assert calls == [False]


def test_an_empty_last_member_is_harmless(tmp_path, calls, either):
    raw, path = _whole(tmp_path, _image()), tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw) + gzip.compress(b""))  # as bgzip ends its files
    np.testing.assert_array_equal(read_volume(path).array, _image())
    assert calls == [False]


def test_a_length_that_wrapped_at_4_gib_is_no_length(tmp_path, calls):
    """The trailer says the expected length, the stream goes on: as in a file of 4 GiB and more."""
    raw, path = _whole(tmp_path, _image()), tmp_path / "b.nii.gz"
    packed = gzip.compress(raw + bytes(100_000))
    path.write_bytes(packed[:-4] + len(raw).to_bytes(4, "little"))
    np.testing.assert_array_equal(read_volume(path).array, _image())
    assert calls == [False]


def test_a_lying_length_takes_no_memory(tmp_path, monkeypatch):
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(b"abc")[:-4] + (3_000_000_000).to_bytes(4, "little"))
    monkeypatch.setattr(inflate, "scratch", lambda n: pytest.fail(f"{n} bytes were asked for"))
    assert inflate.one_member(path, 3_000_000_000) is None


@pytest.mark.parametrize("keep", [0.3, 0.9, -1, -6])
def test_truncated_files_are_refused(tmp_path, either, keep):
    path = write_nifti(tmp_path / "a.nii.gz", _image())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep > 0 else keep])
    with pytest.raises(ReadError, match=r"a\.nii\.gz: expected .*fetch"):
        read_volume(path)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, -6])
def test_flipped_bits_are_refused(tmp_path, either, place):
    path = write_nifti(tmp_path / "a.nii.gz", _image())
    data = bytearray(path.read_bytes())
    data[int(len(data) * place) if place > 0 else place] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ReadError, match="damaged"):
        read_volume(path)


def test_memory_is_used_again_only_when_nobody_looks():
    inflate.forget()
    first = inflate.scratch(5_000_000)
    kept = first[10:20]
    del first
    second = inflate.scratch(5_000_000)
    assert not np.shares_memory(kept, second)
    address = kept.__array_interface__["data"][0]
    del kept
    third = inflate.scratch(4_000_000)
    assert third.__array_interface__["data"][0] == address - 10
    inflate.forget()


def test_two_volumes_at_once_are_two(tmp_path):
    paths = [write_nifti(tmp_path / f"{i}.nii.gz", _image(i)) for i in range(3)]
    volumes = [read_volume(p) for p in paths]
    for number, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.array, _image(number))


def test_ct_with_an_intercept_stays_in_sixteen_bits(tmp_path):
    import nibabel as nib

    stored = (_image() + 1024).astype(np.uint16)
    header = nib.Nifti1Image(stored.T, np.diag([-3.0, -2, 1, 1])).header
    path = tmp_path / "a.nii"
    header.set_slope_inter(1, -1024)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + bytes(4) + stored.tobytes())
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, _image())
