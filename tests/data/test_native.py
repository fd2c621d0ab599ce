"""The compiled loops against numpy; `test_runs.py` holds their regions to OpenCV's."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from sammed_data import codecs, intensity, native, runs


@pytest.fixture
def compiled():
    found = native.planes()
    if found is None:
        pytest.skip("no compiled loops: no C compiler was there at installation")
    return found


@pytest.mark.parametrize("size", [0, 1, 3, 4, 1001])
def test_counts(compiled, size):
    codes = np.random.default_rng(size).integers(0, 1 << 16, size).astype(np.uint16)
    codes[: size // 2] = 65535
    np.testing.assert_array_equal(compiled.counts(codes), np.bincount(codes, minlength=1 << 16))


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
@pytest.mark.parametrize(
    ("low", "high"),
    [(-160, 240), (0, 1), (-1350, 150.5), (3.3, 3.3), (-32768, 65535), (0.1, 32767.7), (9, -9)],
)
def test_windows_are_those_of_numpy(compiled, kind, low, high):
    values = np.arange(1 << 16, dtype=np.uint16).view(kind)
    wanted = intensity._scaled(values, low, high)
    for part in (values, values[3:], values[: 1 << 10].reshape(32, 32)):
        found = intensity._windowed(part, low, high)
        np.testing.assert_array_equal(found, intensity._scaled(part, low, high))
    np.testing.assert_array_equal(
        wanted, intensity._table(low, high, values.dtype.str)[values.view(np.uint16)]
    )


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 5, 7), (3, 4, 8), (2, 6, 33)])
def test_runs_are_those_of_numpy(compiled, monkeypatch, shape):
    for values in (2, 3, 250):
        planes = np.random.default_rng(values).integers(0, values, shape).astype(np.uint8)
        planes = np.repeat(planes, 5, axis=2)
        found = runs.of_planes(planes)
        with monkeypatch.context() as patched:
            patched.setattr(native, "planes", lambda: None)
            wanted = runs.of_planes(planes)
        assert len(found) == len(wanted) == shape[0]
        for one, other in zip(found, wanted, strict=True):
            for a, b in zip(one, other, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


def test_more_runs_than_there_is_room_for(compiled):
    planes = np.tile(np.array([0, 9], np.uint8), (1, 4, 10))
    assert compiled.runs(planes, 39) is None
    assert len(compiled.runs(planes, 40)[0]) == 40


def test_a_library_that_cannot_be_used_is_left_alone(compiled, monkeypatch, tmp_path):
    for name, text in (("none.so", None), ("text.so", "no library")):
        if text:
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(native, "LIBRARY", tmp_path / name)
        assert native._loaded.__wrapped__() is None
    with pytest.raises(AttributeError):
        native.Planes(ctypes.CDLL(None))
    monkeypatch.undo()
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert native._loaded.__wrapped__() is None


def test_plain_codecs_do_without(monkeypatch):
    monkeypatch.setattr(codecs, "PLAIN", True)
    assert native.planes() is None
