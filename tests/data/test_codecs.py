"""Fast and plain writers: other bytes, the same pixels and the same identity."""

from __future__ import annotations

import numpy as np
import pytest

from sammed_data import codecs
from sammed_data.build import build
from sammed_data.plan import BuildOptions
from tests.data import build_fakes as fakes


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", ["grey", "deep", "rgb"])
def test_images_come_back(monkeypatch, plain, kind):
    monkeypatch.setattr(codecs, "PLAIN", plain)
    rng = np.random.default_rng(2)
    image = {
        "grey": rng.integers(0, 256, (13, 29), dtype=np.uint8),
        "deep": rng.integers(0, 65536, (13, 29), dtype=np.uint16),
        "rgb": rng.integers(0, 256, (13, 29, 3), dtype=np.uint8),
    }[kind]
    np.testing.assert_array_equal(codecs.decode_image(codecs.encode_image(image)), image)


@pytest.mark.parametrize("width", [1, 7, 8, 30])
@pytest.mark.parametrize("x0", [0, 3, 8, 15])
def test_a_box_is_the_whole_mask(x0, width):
    inside = np.random.default_rng(x0).random((5, width)) < 0.5
    mask = np.zeros((11, 50), bool)
    box = (x0, 4, x0 + width, 9)
    mask[4:9, x0 : x0 + width] = inside
    bits = np.packbits(np.pad(inside, ((0, 0), (x0 % 8, 0))), axis=1)
    (found,) = codecs.encode_parts([(bits, box)], mask.shape)
    assert found == codecs.encode_mask(mask)
    np.testing.assert_array_equal(codecs.decode_mask(found), mask)


@pytest.mark.parametrize("depth", [8, 16])
def test_fast_and_plain_corpora_have_one_identity(tmp_path, monkeypatch, depth):
    fakes.write_source(tmp_path / "data", n=3)
    catalogs = fakes.write_catalog(tmp_path / "catalogs")
    found = []
    for plain in (False, True):
        monkeypatch.setattr(codecs, "PLAIN", plain)
        out = tmp_path / f"corpus{plain}"
        result = build(catalogs, tmp_path / "data", out, options=BuildOptions(depth=depth))
        found.append(result.manifest["content_sha256"])
    assert found[0] == found[1]


def test_the_environment_chooses(tmp_path):
    import subprocess
    import sys

    code = "from sammed_data import codecs; print(codecs.PLAIN, codecs.libdeflate())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=fakes.REPO,
        env={"SAMMED_CODECS": "plain", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["True", "None"]
