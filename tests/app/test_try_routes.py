"""The routes of the view Try over HTTP: the answer of SammedPredictor, files, two tabs."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import sys
import zipfile
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser import free_port, serving
from predict_fakes import ball_ijk, image_of, oblique_flipped
from try_fakes import Client, bomb, disc, giant_nifti, giant_png, nifti, png

from sammed_app.page.settings import PageSettings
from sammed_app.predict.run import load_predictor
from sammed_app.predict.scan import Window, read_scan
from sammed_bench.choose import Wanted
from sammed_bench.openings import filled
from sammed_data.corpus import Corpus
from sammed_model.setup import SHIPPED

FLAT = {"model": "tiny", "axis": "native", "index": 0}


@pytest.fixture(scope="module")
def weights():
    return SHIPPED / "vit_tiny_scenes.safetensors"


@pytest.fixture(scope="module")
def predictor(weights):
    return load_predictor(weights, "sam", device="cpu")


@pytest.fixture(scope="module")
def port(weights, world):
    settings = PageSettings(
        corpus=world.corpus,
        models=(Wanted(label="tiny", path=weights, kind="sam"),),
        port=free_port(),
        upload_bytes=3 << 20,
    )
    with serving(settings):
        yield settings.port


@pytest.fixture
def tab(port):
    made = Client(port)
    yield made
    made.call("DELETE", f"session/{made.name}")


def _mask(found, shape):
    return filled(found["drawn"]["runs"], shape)


def test_answers_are_those_of_the_predictor(tab, predictor):
    image = disc()
    assert tab.drop({"a.png": png(image)})["name"] == "a.png"
    code, _, data = tab.raw("GET", tab.at("slice.png?model=tiny&axis=native&index=0"))
    assert code == 200
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) == image).all()
    predictor.set_image(image)
    points, box = [[40.0, 20.0, 1], [5.0, 44.0, 0]], [28, 8, 52, 32]
    given = {"point_coords": np.array([p[:2] for p in points]), "multimask_output": True,
             "point_labels": np.array([1, 0]), "box": np.array(box)}  # fmt: skip
    masks, iou, _ = predictor.predict(**given)
    found = tab.ask(FLAT, points=points, box=box, choice=-1)
    best = int(iou.argmax())
    assert (_mask(found, image.shape) == masks[best]).all()
    assert found["drawn"]["iou"] == pytest.approx(float(iou[best]), abs=1e-4)
    for k, choice in enumerate(found["choices"]):
        assert (filled(choice["runs"], image.shape) == masks[k]).all()
    worst = int(iou.argmin())
    assert (_mask(tab.ask(FLAT, points=points, box=box, choice=worst), image.shape)
            == masks[worst]).all()  # fmt: skip
    assert tab.call("GET", tab.at("drawn?index=0"))["objects"]["1"]["choice"] == worst
    assert tab.ask(FLAT)["drawn"] is None  # no prompts: the mask goes
    assert tab.call("GET", tab.at("drawn?index=0"))["objects"] == {}


def test_nifti_goes_and_comes_on_its_grid(tab, predictor, tmp_path):
    path = tmp_path / "scan.nii.gz"
    about = tab.drop({"scan.nii.gz": nifti(path, image_of(ball_ijk()), oblique_flipped())})
    assert [a["axis"] for a in about["axes"]] == ["axial", "coronal", "sagittal"]
    scan = read_scan(path, Window(), orientation="lps", channel=None)
    wanted = np.zeros(scan.shape_zyx, bool)
    for index in (9, 13):
        look = {"model": "tiny", "axis": "coronal", "index": index}
        image = scan.picture("coronal", index)
        rows, columns = np.nonzero(image > 128)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        predictor.set_image(image)
        three, iou, _ = predictor.predict(box=np.array(box))
        mask = three[iou.argmax()]
        found = tab.ask(look, box=[float(v) for v in box])
        assert (_mask(found, image.shape) == mask).all()
        assert mask.sum() > 10
        view = scan.view(wanted, "coronal", index)
        view |= mask
    name, data = tab.export("nifti")
    assert "scan_mask.nii.gz" in name
    (tmp_path / "back.nii.gz").write_bytes(data)
    back, source = nib.load(tmp_path / "back.nii.gz"), nib.load(path)
    for field in ("srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "sform_code", "pixdim"):
        assert back.header[field].tobytes() == source.header[field].tobytes()
    again = read_scan(tmp_path / "back.nii.gz", Window(), orientation="lps", channel=None)
    assert ((again.volume.array > 0) == wanted).all()
    name, data = tab.export("png")
    assert sorted(zipfile.ZipFile(io.BytesIO(data)).namelist()) == [
        "scan_mask_coronal-0009.png", "scan_mask_coronal-0013.png"
    ]  # fmt: skip
    rows = json.loads(tab.export("prompts")[1])
    assert [(r["slice"], r["image"]) for r in rows] == [(9, "scan.nii.gz"), (13, "scan.nii.gz")]
    refused = tab.call("POST", tab.at("ask"), {
        "look": {"model": "tiny", "axis": "axial", "index": 3}, "object": 1, "name": "x",
        "points": [[3, 3, 1]],
    }, 400)  # fmt: skip
    assert "clear all" in refused["error"]


def test_following_fills_other_slices_and_can_be_forgotten(tab, tmp_path):
    tab.drop({"scan.nii": nifti(tmp_path / "scan.nii", image_of(ball_ijk()), oblique_flipped())})
    look = {"model": "tiny", "axis": "axial", "index": 15}
    assert (
        "click first"
        in tab.call("POST", tab.at("follow"), {"look": look, "object": 1}, 400)["error"]
    )
    tab.ask(look, box=[3, 3, 12, 12])
    state = tab.call("POST", tab.at("follow"), {"look": look, "object": 1, "first": 13, "last": 17})
    while state["follow"]["state"] in ("waiting", "running"):
        state = tab.call("GET", tab.at("state"))
    assert state["follow"]["state"] == "done", state
    slices = tab.call("GET", tab.at("drawn?index=15"))["slices"]["1"]
    assert 15 in slices
    assert set(slices) <= set(range(13, 18))
    tab.call("DELETE", tab.at("objects/1/followed"))
    assert tab.call("GET", tab.at("drawn?index=15"))["slices"]["1"] == [15]


def test_two_tabs_share_embeddings_and_nothing_else(port, tab):
    other = Client(port)
    image = disc(radius=9)
    for one in (tab, other):
        one.drop({"a.png": png(image)})
    assert tab.encode(FLAT)["state"] == "ready"
    assert other.call("POST", other.at("want"), FLAT)["slice"]["state"] == "ready"
    tab.ask(FLAT, points=[[40, 20, 1]])
    assert other.call("GET", other.at("drawn?index=0"))["objects"] == {}
    other.ask(FLAT, number=7, box=[2, 2, 30, 30])
    assert list(tab.call("GET", tab.at("drawn?index=0"))["objects"]) == ["1"]
    other.call("DELETE", f"session/{other.name}")
    assert tab.ask(FLAT, points=[[40, 20, 1]])["drawn"]
    gone = other.call("GET", other.at("state"), status=400)
    assert "load the page again" in gone["error"]


def test_a_sample_of_the_corpus_opens_by_number_and_by_name(tab, world):
    row = Corpus(world.corpus).index()[2]
    about = tab.call("POST", tab.at("open"), {"sample": row.sample_id})
    assert (about["axes"][0]["height"], about["axes"][0]["width"]) == (row.height, row.width)
    assert about["name"] == row.sample_id
    tab.ask(FLAT, points=[[row.width // 2, row.height // 2, 1]])
    name, data = tab.export("png")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), -1).shape[:2] == (row.height, row.width)
    assert "no sample" in tab.call("POST", tab.at("open"), {"sample": "x/../../y"}, 400)["error"]
    assert tab.call("POST", tab.at("open"), {"row": 0})["name"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.png", giant_png(), "pixels"),
        ("a.nii", giant_nifti(), "decoded bytes"),
        ("a.nii.gz", gzip.compress(giant_nifti(), mtime=0), "decoded bytes"),
        ("a.zip", bomb(), "the zip declares"),
        ("a.exe", b"MZ", "NIfTI|.nii"),
    ],
    ids=["png", "nifti", "gzip", "zip", "exe"],
)
def test_hostile_uploads_are_refused_and_the_image_before_stays(tab, name, data, words):
    tab.drop({"ok.png": png(disc())})
    refused = tab.drop({name: data}, 422)
    assert any(word in refused["error"] for word in words.split("|")), refused
    assert "sammed-page" not in refused["error"]
    assert tab.ask(FLAT, points=[[40, 20, 1]])["drawn"]


def test_names_sizes_and_coordinates_are_checked_at_the_door(tab, caplog):
    assert "plain file name" in tab.upload("../../etc/passwd", b"x", 400)["error"]
    # The page refuses by the declared size and may close before all was sent.
    refused = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with caplog.at_level(logging.WARNING, "sammed.page"), refused:
        body = b"x" * (3 << 20) + b"xx"
        assert tab.raw("POST", f"upload?session={tab.name}&name=a.png", body)[0] == 413
    assert "413" in caplog.text
    assert "found none" in tab.call("POST", tab.at("open"), {}, 400)["error"]
    tab.drop({"ok.png": png(disc())})
    ask = {"look": FLAT, "object": 1, "name": "x"}
    for wrong in (
        {"points": [[1e9, 0, 1]]},
        {"points": [[0, 0, 2]]},
        {"points": [[0, 0, 1]] * 600},
        {"more": 1},
    ):
        assert (
            tab.raw(
                "POST", tab.at("ask"), json.dumps(ask | wrong), {"Content-Type": "application/json"}
            )[0]
            == 422
        )
    tab.encode(FLAT)
    beside = tab.call("POST", tab.at("ask"), ask | {"points": [[900, 3, 1]]}, 400)
    assert "within 70 x 50 px" in beside["error"]
    assert "an area" in tab.call("POST", tab.at("ask"), ask | {"box": [5, 5, 5, 9]}, 400)["error"]
    other = tab.call("POST", tab.at("want"), FLAT | {"model": "tinny"}, 400)
    assert "'tiny'" in other["error"]
    assert "click in the image" in tab.call("GET", tab.at("export?form=nifti"), status=400)["error"]


def test_windows_change_the_picture_and_a_channel_is_asked_for(tab, tmp_path):
    values = np.where(ball_ijk(), 60, -950).astype(np.int16)
    values[:5] = 900
    about = tab.drop({"ct.nii": nifti(tmp_path / "ct.nii", values, oblique_flipped())})
    assert about["windows"]
    assert "choose CT" in about["warnings"][0]
    query = "slice.png?axis=axial&index=13&policy={}&modality=CT"
    shown = {p: tab.raw("GET", tab.at(query.format(p)))[2] for p in ("auto", "ct-lung", "-10,70")}
    assert len(set(shown.values())) == 3
    assert tab.raw("GET", tab.at(query.format("9,3")))[0] == 400
    both = np.stack([values, values[::-1]], axis=-1)
    refused = tab.drop({"two.nii": nifti(tmp_path / "two.nii", both, oblique_flipped())}, 422)
    assert "2 channels" in refused["error"]
    assert tab.call("POST", tab.at("open"), {"channel": 1})["name"] == "two.nii"
    look = {"model": "tiny", "axis": "axial", "index": 13}
    tab.ask(look, box=[3, 3, 12, 12])
    (tmp_path / "back.nii.gz").write_bytes(tab.export("nifti")[1])
    assert nib.load(tmp_path / "back.nii.gz").shape == values.shape
