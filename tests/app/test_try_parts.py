"""What stands behind the view Try, without a server: uploads, store, worker, drawing, tabs."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

sys.path.insert(0, str(Path(__file__).parent))
from predict_fakes import ball_ijk, image_of, oblique_flipped
from try_fakes import bomb, disc, giant_nifti, giant_png, nifti, png, zipped

from sammed_app.page.drawing import Drawing, Drawn, prompt_rows
from sammed_app.page.embeddings import EmbeddingKey, Embeddings
from sammed_app.page.images import Inbox, sweep
from sammed_app.page.session import Look
from sammed_app.page.sessions import IDLE_S, Sessions
from sammed_app.page.weights import Weights
from sammed_app.page.worker import CancelledWork, Job, Worker
from sammed_app.predict.prompts import from_file
from sammed_app.predict.types import Asked
from sammed_bench.choose import Wanted
from sammed_bench.openings import filled
from sammed_data.types import ModelError, ReadError, SammedError, UsageError
from sammed_model.predictor import SammedPredictor
from sammed_model.sam import build_sam, spec_for


@pytest.fixture
def inbox():
    made = Inbox()
    yield made
    made.close()
    assert not made.folder.exists()


def _put(inbox, files):
    for name, data in files.items():
        inbox.place(name).write_bytes(data)
    return inbox


META = b"ObjectType = Image\nNDims = 2\nDimSize = 7 5\nElementType = MET_UCHAR\nElementDataFile = "
NRRD = b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 7 5\nencoding: raw\n"


@pytest.mark.parametrize(
    "name", ["../a.png", "a/b.png", "..", "C:a.png", "a\\b.png", "a\0.png", ".x"]
)
def test_names_that_lead_elsewhere_are_refused(inbox, name):
    with pytest.raises(UsageError, match="plain file name"):
        inbox.place(name)
    assert not any(p.is_file() for p in inbox.folder.rglob("*"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.png": giant_png()}, "pixels|decoded bytes"),
        ({"a.nii": giant_nifti()}, "decoded bytes"),
        ({"a.zip": bomb()}, "the zip declares"),
        ({"a.zip": zipped({"../../a.png": b"x"})}, "do not trust"),
        ({"a.zip": zipped({"/etc/cron.d/a.png": b"x"})}, "do not trust"),
        ({"a.zip": zipped({"notes.txt": b"x"})}, "expected images"),
        ({"a.zip": zipped({"a.png": png(disc()), "b.png": png(disc())})}, "or one series"),
        ({"a.zip": b"PK nothing"}, "damaged"),
        ({"a.txt": b"words"}, "expected one of .*or a DICOM"),
        ({"a.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}, "other content"),
        ({"a.npy": b"\x93NUMPY"}, "found array"),
        ({"a.png": b""}, "empty file"),
        ({}, "found none"),
        ({"a.mha": META + b"/etc/passwd\n"}, "dropped beside it"),
        ({"a.mhd": META + b"../other.raw\n"}, "dropped beside it"),
        ({"a.mhd": META + b"LIST\n/etc/passwd\n"}, "dropped beside it"),
        ({"a.mha": b"c = d\n" * 50_000 + META + b"/etc/passwd\n"}, "end of its header"),
        ({"a.nrrd": NRRD + b"data file: /etc/passwd\n\n"}, "dropped beside it"),
        ({"a.nhdr": NRRD + b"datafile: ../x.raw\n\n"}, "dropped beside it"),
        ({"a.nrrd": NRRD + b"# x\n" * 80_000 + b"data file: /etc/passwd\n\n"}, "end of its header"),
        ({"a.mha": NRRD + b"data file: /etc/passwd\n\n"}, "another header"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_with_a_sentence_that_names_no_folder(inbox, files, words):
    with pytest.raises(SammedError, match=words) as refused:
        _put(inbox, files).open()
    assert str(inbox.folder) not in str(refused.value)


def test_what_grows_beyond_the_limit_is_refused():
    inbox = Inbox(most_bytes=4000)
    with pytest.raises(ReadError, match="the zip declares 1 of 5,000"):
        _put(inbox, {"a.zip": zipped({"a.nii": bytes(5000)})}).open()
    inbox.take(3000)
    with pytest.raises(UsageError, match="drop one image"):
        inbox.take(1001)
    inbox.close()


def test_a_zip_of_a_picture_a_header_with_its_data_and_a_volume_open(inbox, tmp_path):
    opened = _put(
        inbox, {"x.zip": zipped({"in/__MACOSX/._a": b"x", "in/a.png": png(disc())})}
    ).open()
    assert opened.about()["axes"] == [
        {"axis": "native", "count": 1, "height": 50, "width": 70, "spacing_yx_mm": None}
    ]
    other = Inbox()
    data = bytes(range(35))
    meta = _put(other, {"b.mhd": META + b"b.raw\n", "b.raw": data}).open()
    assert meta.scan("paper").volume.array.reshape(5, 7).tolist()[1][0] == 7
    other.close()
    volume = Inbox()
    data = nifti(tmp_path / "s.nii.gz", image_of(ball_ijk()), oblique_flipped())
    about = _put(volume, {"s.nii.gz": data}).open().about()
    assert [(a["axis"], a["count"]) for a in about["axes"]] == [
        ("axial", 26), ("coronal", 19), ("sagittal", 14)
    ]  # fmt: skip
    volume.close()


def test_a_series_of_several_files_is_one_image(inbox, tmp_path):
    image = sitk.GetImageFromArray(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(4):
        plane = image[:, :, k]
        for tag, value in {
            "0020|000e": "1.2.3", "0020|000d": "1.2", "0008|0060": "CT", "0028|0030": "1.5\\0.5",
            "0020|0032": f"0\\0\\{2 * k}", "0020|0037": "1\\0\\0\\0\\1\\0",
            "0008|0018": f"1.2.3.{k + 1}", "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
        }.items():  # fmt: skip
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(plane)
    files = {p.name: p.read_bytes() for p in sorted(tmp_path.glob("*.dcm"))}
    opened = _put(inbox, files).open()
    assert opened.about()["modality"] == "CT"
    assert opened.scan().shape_zyx == (4, 5, 6)
    assert opened.scan("ct-lung").intensity.low != opened.scan("-10,10").intensity.low == -10
    with pytest.raises(UsageError, match="did you mean 'ct-lung'"):
        opened.scan("ct-lungs")


class _Counted:
    """A predictor's stand-in for the store."""

    def __init__(self, numbers):
        self._tensor = torch.zeros(numbers)

    def get_image_embedding(self):
        return self._tensor


def _key(index, model="m"):
    return EmbeddingKey(model=model, image="i", axis="axial", index=index, window="w")


def test_the_store_drops_the_least_used_above_its_bytes():
    store = Embeddings(most_bytes=1000)
    for k in range(3):
        store.put(_key(k), _Counted(100))
    assert store.bytes == 800
    assert store.get(_key(0)) is None
    assert store.get(_key(1))
    store.put(_key(3), _Counted(100))
    assert store.get(_key(2)) is None
    assert store.get(_key(1))
    store.put(_key(4), _Counted(900))  # alone above the limit: kept, it is what is clicked in
    assert (len(store), store.bytes) == (1, 3600)


@pytest.fixture(scope="module")
def model():
    return build_sam(spec_for("vit_tiny", image_size=64))


class _Held:
    """A model and a gate that its encoder waits at."""

    def __init__(self, model):
        self.model, self.gate, self.began = model, threading.Event(), []

    def make(self, number):
        def made():
            self.began.append(number)
            assert self.gate.wait(20)
            return self.model, disc(40 + number, 60)

        return made


def _until(check):
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_slice_left_is_not_encoded_unless_another_tab_waits(model):
    worker, held = Worker(), _Held(model)
    worker.want("a", _key(0), held.make(0))
    _until(lambda: held.began == [0])
    worker.want("a", _key(1), held.make(1))  # 0 runs, nobody waits for it
    worker.want("b", _key(1), held.make(1))
    worker.want("a", _key(2), held.make(2))  # 1 is still wanted by b
    assert worker.state(_key(0))[0] == "none"
    assert worker.state(_key(1))[0] == "waiting"
    held.gate.set()
    _until(lambda: worker.state(_key(2))[0] == "ready")
    assert worker.state(_key(1))[0] == "ready"
    assert worker.embeddings.get(_key(0)) is None
    assert held.began == [0, 1, 2]
    assert model.block_forward is None
    worker.close()


def test_failures_are_said_and_may_be_tried_again(model):
    worker = Worker()

    def broken():
        raise ModelError("no such weights")

    worker.want("a", _key(0), broken)
    _until(lambda: worker.state(_key(0)) == ("failed", 0.0, "no such weights"))
    worker.want("a", _key(0), lambda: (model, disc()))
    _until(lambda: worker.state(_key(0))[0] == "ready")
    worker.close()


def test_long_work_gives_way_to_slices_and_can_be_stopped(model):
    worker, order = Worker(), []
    started, go = threading.Event(), threading.Event()

    def long(job):
        started.set()
        assert go.wait(20)
        worker.give_way(job)
        order.append("after the slice" if worker.embeddings.get(_key(0)) else "before")
        job.cancelled = True
        worker.give_way(job)

    job = Job(run=long)
    worker.start(job)
    assert started.wait(20)
    worker.want("a", _key(0), lambda: (model, disc()))
    go.set()
    _until(lambda: job.state == "cancelled")
    assert order == ["after the slice"]
    worker.close()


def test_the_encoder_stops_at_a_block(model):
    worker, seen = Worker(), []
    with worker.stoppable(model, lambda: len(seen) < 2, seen.append), pytest.raises(CancelledWork):
        SammedPredictor(model).set_image(disc())
    assert seen == [1 / 6, 2 / 6]


def test_prompts_are_written_as_predict_reads_them(tmp_path):
    drawing = Drawing()
    mask = disc() > 128
    first = Asked(object="old name", axis="axial", index=3, points=((4.5, 6.0, 1), (1.0, 2.0, 0)))
    second = Asked(object="x", axis="axial", index=1, box_xyxy=(1.0, 2.0, 9.0, 8.0))
    drawing.put(1, "old name", "axial", 3, Drawn(mask_HW=mask, iou=0.5, asked=first))
    drawing.put(1, "liver", "axial", 1, Drawn(mask_HW=mask, iou=0.5, asked=second))
    drawing.put(1, "liver", "axial", 2, Drawn(mask_HW=mask, iou=0.5))
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(prompt_rows(drawing.asked(), "s.nii.gz")))
    read = {one.index: one for one in from_file(path)}
    assert read[3].points == first.points
    assert read[1].box_xyxy == second.box_xyxy
    assert {one.object for one in read.values()} == {"liver"}
    assert {one.image for one in read.values()} == {"s.nii.gz"}
    about = drawing.on(2)[1].about()
    assert (filled(about["runs"], mask.shape) == mask).all()
    assert about["followed"]
    drawing.unfollow(1)
    assert drawing.slices() == {1: [1, 3]}
    with pytest.raises(UsageError, match="clear all"):
        drawing.check_axis("coronal")
    drawing.remove()
    assert drawing.axis == ""


def test_weights_without_a_file_and_unknown_labels(tmp_path):
    with pytest.raises(ModelError, match="--model LABEL=PATH"):
        Weights([Wanted(label="oracle")]).model("oracle")
    weights = Weights([Wanted(label="mine", path=tmp_path / "x.safetensors")])
    with pytest.raises(UsageError, match="'mine'"):
        weights.model("mime")


def test_what_a_killed_server_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    inbox = Inbox()
    dead = tmp_path / "sammed-page-999999999-x"
    other = tmp_path / "sammed-page-mine"
    for folder in (dead, other):
        folder.mkdir()
    sweep()
    assert [p for p in (dead, other, inbox.folder) if p.exists()] == [other, inbox.folder]
    inbox.close()


def test_tabs_are_closed_when_idle_and_their_files_go():
    now = [0.0]
    sessions = Sessions(Weights([]), Worker(), clock=lambda: now[0])
    first = sessions.create()
    folder = first.incoming.folder
    first.incoming.place("a.png").write_bytes(png(disc()))
    first.show_dropped()
    with pytest.raises(UsageError, match="slices of a.png"):
        first.picture(Look(model="", axis="axial", index=0))
    assert first.picture(Look(model="", axis="native", index=0)).shape == (50, 70)
    assert folder.exists()
    now[0] = IDLE_S + 1
    second = sessions.create()
    assert not folder.exists()
    with pytest.raises(UsageError, match="idle"):
        sessions.get(first.name)
    sessions.close_all()
    assert not second.incoming.folder.exists()
