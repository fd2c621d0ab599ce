"""npy, npz and mat by name and axes; every refusal is a sentence."""

from __future__ import annotations

import struct
import sys
import zipfile

import numpy as np
import pytest
import scipy.io

from sammed_data.readers import arrays, limits, mat5
from sammed_data.readers.registry import read_label_map, read_volume
from sammed_data.types import Pick, ReadError

ZYX = np.arange(4 * 5 * 7).reshape(4, 5, 7).astype(np.uint8)


def _write(path, **named):
    if path.suffix == ".npy":
        np.save(path, next(iter(named.values())))
    elif path.suffix == ".npz":
        np.savez_compressed(path, **named)
    else:
        scipy.io.savemat(path, named, do_compression=True)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
@pytest.mark.parametrize("axes", [None, "ZYX", "YXZ", "XZY"])
def test_axes_bring_slices_first(tmp_path, suffix, axes):
    stored = ZYX if axes is None else ZYX.transpose(["ZYX".index(c) for c in axes])
    path = _write(tmp_path / f"a{suffix}", scan=stored)
    volume = read_volume(path, pick=Pick(axes=axes))
    np.testing.assert_array_equal(volume.array, ZYX)
    assert volume.geometry is None
    labels, geometry = read_label_map(path, pick=Pick(axes=axes))
    np.testing.assert_array_equal(labels, ZYX)
    assert geometry is None


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_arrays_are_chosen_by_name(tmp_path, suffix):
    path = _write(tmp_path / f"a{suffix}", images=ZYX, manualFluid1=ZYX[0] + 1)
    array = read_volume(path, pick=Pick(variable="manualFluid1")).array
    np.testing.assert_array_equal(array[0], ZYX[0] + 1)
    with pytest.raises(ReadError, match="did you mean 'manualFluid1'"):
        read_volume(path, pick=Pick(variable="manualFluid"))
    with pytest.raises(ReadError, match=r"found images, manualFluid1; name it in `variable`"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_one_item_of_many_colour_images(tmp_path, suffix):
    images = np.random.default_rng(3).integers(0, 256, (6, 5, 7, 3)).astype(np.float64)
    path = _write(tmp_path / f"a{suffix}", images=images)
    assert arrays.shape_of(path, None) == (6, 5, 7, 3)
    volume = read_volume(path, pick=Pick(axes="NYXC", item=4))
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array[0], images[4])
    with pytest.raises(ReadError, match="item 6 along axis 0"):
        read_volume(path, pick=Pick(axes="NYXC", item=6))


def test_an_item_of_a_fortran_array_is_the_same(tmp_path):
    images = np.random.default_rng(3).integers(0, 256, (6, 5, 7)).astype(np.uint16)
    np.save(tmp_path / "a.npy", np.asfortranarray(images))
    volume = read_volume(tmp_path / "a.npy", pick=Pick(axes="NYX", item=2))
    np.testing.assert_array_equal(volume.array[0], images[2])
    assert volume.bits == 16


def test_real_values_stay_and_whole_ones_below_256_become_bytes(tmp_path):
    np.save(tmp_path / "a.npy", ZYX.astype(np.float64) - 0.5)
    np.save(tmp_path / "b.npy", ZYX.astype(np.float64))
    assert read_volume(tmp_path / "a.npy").array.dtype == np.float32
    assert read_volume(tmp_path / "a.npy").bits == 32
    assert read_volume(tmp_path / "b.npy").array.dtype == np.uint8


def test_a_slice_of_nan_is_not_annotated_but_nan_inside_one_is_refused(tmp_path):
    array = ZYX.astype(float)
    array[2] = np.nan
    labels, _ = read_label_map(_write(tmp_path / "a.mat", x=array))
    assert not labels[2].any()
    np.testing.assert_array_equal(labels[3], ZYX[3])
    array[1, 0, 0] = np.nan
    with pytest.raises(ReadError, match="NaN inside a slice"):
        read_label_map(_write(tmp_path / "b.mat", x=array))


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        (Pick(axes="YX"), r"axes YX, found the shape \(4, 5, 7\)"),
        (Pick(axes="NYX"), r"axes NYX"),
        (Pick(axes="ZYC"), "axes that make ZYXC, found ZYC"),
        (Pick(axes="YXC"), "3 colour channels of whole numbers .*, found 7 channels"),
    ],
)
def test_axes_that_do_not_fit_are_named(tmp_path, pick, words):
    np.save(tmp_path / "a.npy", ZYX)
    with pytest.raises(ReadError, match=words):
        read_volume(tmp_path / "a.npy", pick=pick)


def test_four_axes_need_to_be_named(tmp_path):
    np.save(tmp_path / "a.npy", ZYX[None])
    with pytest.raises(ReadError, match="state `axes`"):
        read_volume(tmp_path / "a.npy")


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([[1, "b"]], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ReadError, match="never unpickled"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_the_declared_size_is_checked_first(tmp_path, suffix, monkeypatch):
    path = _write(tmp_path / f"a{suffix}", x=ZYX)
    monkeypatch.setattr(limits, "MAX_DECODED_BYTES", 139)
    with pytest.raises(ReadError, match="at most 139 decoded bytes, the header declares 140"):
        read_volume(path)


def test_a_huge_array_is_read_item_by_item_only(tmp_path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (900, 800, 700, 3), }"
    body = header.ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body.encode()
    )
    with pytest.raises(ReadError, match="at most 4,000,000,000 decoded bytes"):
        read_volume(tmp_path / "a.npy", pick=Pick(axes="ZYXC"))
    with pytest.raises(ReadError, match="truncated"):
        read_volume(tmp_path / "a.npy", pick=Pick(axes="NYXC", item=3))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_half_a_file_ends_in_a_sentence(tmp_path, suffix):
    path = _write(tmp_path / f"a{suffix}", x=np.random.default_rng(0).random((9, 30, 31)))
    data = path.read_bytes()
    for length in (4, 60, 200, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:length])
        with pytest.raises(ReadError, match="expected"):
            read_volume(path)


def test_a_changed_value_is_seen_where_the_format_has_a_checksum(tmp_path):
    np.savez(tmp_path / "a.npz", x=ZYX)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        place = archive.infolist()[0].header_offset + 200
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[place] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ReadError, match="Bad CRC-32"):
        read_volume(tmp_path / "a.npz")


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_arrays_of_every_type_equal_those_of_scipy(tmp_path, compressed):
    rng = np.random.default_rng(5)
    kinds = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
    named = {f"v_{k}": rng.integers(0, 100, (3, 4, 5)).astype(k) for k in kinds}
    named |= {"flag": np.array([[True, False, True]]), "n": np.array([[3.0]])}
    others = {"text": "abc", "cell": np.array([[1, "a"]], dtype=object), "s": {"k": 1}, "z": 1 + 2j}
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {**named, **others}, do_compression=compressed)
    found = {v.name: v for v in mat5.variables(path)}
    expected = scipy.io.loadmat(path)
    for name in named:
        got = mat5.read(path, found[name])
        np.testing.assert_array_equal(got, expected[name])
        assert found[name].shape == expected[name].shape
    assert {n: found[n].kind for n in others} == {
        "text": "char", "cell": "cell", "s": "struct", "z": "complex",
    }  # fmt: skip
    with pytest.raises(ReadError, match="numbers in 's', found struct"):
        arrays.read_array(path, "s", item=None)


MAT73 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384)


def test_newer_mat_files_name_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    (tmp_path / "new.mat").write_bytes(MAT73 + b"\x89HDF\r\n\x1a\n")
    for ask in (read_volume, arrays.headers, lambda p: arrays.shape_of(p, None)):
        with pytest.raises(ReadError, match=r"'sammed\[mat\]'`; or save it again .* `-v7`"):
            ask(tmp_path / "new.mat")


@pytest.fixture
def hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: no mat file of version 7.3")
    path = tmp_path / "new.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = ZYX.T  # MATLAB's axes are written the other way round
        file["x"].attrs["MATLAB_class"] = np.bytes_(b"double")
        file["text"] = np.array([[104, 105]], np.uint16)
        file["text"].attrs["MATLAB_class"] = np.bytes_(b"char")
        file.create_dataset("cell", (2, 2), h5py.ref_dtype)
        file["#refs#/a"] = np.zeros((2, 2))
        file["elsewhere"] = h5py.ExternalLink("other.h5", "x")
        file["soft"] = h5py.SoftLink("/x")
        file.create_dataset("outside", (4,), "u1", external=[(str(tmp_path / "secret"), 0, 4)])
    (tmp_path / "secret").write_bytes(b"four")
    with path.open("r+b") as stream:
        stream.write(MAT73)
    return path


def test_mat_files_of_version_7_3_are_read_where_h5py_is(hdf5):
    assert arrays.headers(hdf5) == {"x": (ZYX.shape, ZYX.dtype.kind)}  # nothing that is elsewhere
    np.testing.assert_array_equal(arrays.read_array(hdf5, "x", item=None), ZYX)
    assert arrays.shape_of(hdf5, None) == ZYX.shape
    np.testing.assert_array_equal(
        read_volume(hdf5, pick=Pick(axes="ZYX")).array.astype(float), ZYX.astype(float)
    )
    with pytest.raises(ReadError, match="found x"):
        arrays.read_array(hdf5, "outside", item=None)
    data = bytearray(hdf5.read_bytes())
    data[600:900] = bytes(300)
    hdf5.write_bytes(data)
    with pytest.raises(ReadError, match="damaged"):
        arrays.headers(hdf5)


def test_older_mat_files_are_refused(tmp_path):
    scipy.io.savemat(tmp_path / "old.mat", {"x": ZYX[0]}, format="4")
    with pytest.raises(ReadError, match="version 5 to 7"):
        read_volume(tmp_path / "old.mat")
