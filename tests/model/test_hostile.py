"""Weight files that would run code, fill the memory or leave their archive: one sentence each."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from sammed_data.types import ModelError
from sammed_model.checkpoint import load_model, weight_digest
from sammed_model.naming import published_state
from sammed_model.pickled import read_pickled
from sammed_model.sam import build_sam, spec_for

MAGIC = 0x1950A86A20F9469CFC6C


def archive(path, pickled, storages=(), compress=zipfile.ZIP_STORED, folder="archive"):
    """A file in PyTorch's form around any pickle."""
    with zipfile.ZipFile(path, "w", compress) as out:
        out.writestr(f"{folder}/data.pkl", pickled)
        for name, raw in dict(storages).items():
            out.writestr(f"{folder}/data/{name}", raw)
        out.writestr(f"{folder}/version", "3")
    return path


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Built:
    """BUILD: the state is handed to __setstate__ of a name of the file's choosing."""

    def __init__(self, function, state):
        self.function, self.state = function, state

    def __reduce__(self):
        return self.function, (), self.state


def hostile(proof):
    code = f"open({str(proof)!r}, 'w').close()"
    touch = f"touch {proof}"
    nested = Call(getattr, Call(__import__, "os"), "system")
    return {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "nested": Call(map, nested, [touch]),
        "subprocess": Call(subprocess.Popen, ["touch", str(proof)]),
        "build": Built(OrderedDict, {"get": Call(exec, code)}),
        "items": OrderedDict(x=Call(exec, code)),
        "torch.load": Call(torch.load, io.BytesIO(b"")),
        "in a list": [Call(exec, code)],
    }


NAMES = [*hostile("x")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["raw", "archive", "stream", "value"])
def test_nothing_of_a_pickle_runs(tmp_path, name, form):
    proof = tmp_path / "ran"
    payload = hostile(proof)[name]
    path = tmp_path / "a.pth"
    if form == "raw":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    elif form == "archive":
        archive(path, pickle.dumps(payload, protocol=2))
    elif form == "stream":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"model": {"image_encoder.pos_embed": payload}}, path)
    with pytest.raises(ModelError) as caught:
        load_model(path, kind="sam")
    assert "\n" not in str(caught.value)
    assert "a.pth" in str(caught.value)
    assert not proof.exists()


OPCODES = {
    "global": b"cos\nsystem\n(S'touch {}'\ntR.",
    "inst": b"(S'touch {}'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch {}'\no.",
    "newobj": b"\x80\x02cos\nsystem\n(S'touch {}'\nt\x81.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
    "persistent id": b"Pcos\nsystem\n.",
    "binary persistent id": b"(S'storage'\ncos\nsystem\nS'0'\ntQ.",
    "extension": b"\x82\x01.",
    "endless number": b"\x8b\xff\xff\xff\x7f.",
    "bytes of exabytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "text of exabytes": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "memo far away": b"r\xff\xff\xff\xff.",
    "no end": b"\x80\x02}",
    "nothing": b".",
}


@pytest.mark.parametrize("name", OPCODES)
@pytest.mark.parametrize("form", ["raw", "archive"])
def test_opcodes_by_hand(tmp_path, name, form):
    proof = tmp_path / "ran"
    pickled = OPCODES[name].replace(b"{}", str(proof).encode())
    path = tmp_path / "a.pth"
    if form == "raw":
        path.write_bytes(b"\x80\x02" + pickled if pickled[:1] != b"\x80" else pickled)
    else:
        archive(path, pickled)
    with pytest.raises(ModelError, match=r"a\.pth"):
        load_model(path, kind="sam")
    assert not proof.exists()


def tensor_pickle(key="0", dtype="FloatStorage", offset=0, size=(2, 3), stride=(3, 1), numel=6):
    """The pickle of {"x": tensor} with any numbers in it."""

    class Stand:
        def __init__(self, *parts):
            self.parts = parts

        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, self.parts

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value if isinstance(value, tuple) and value[:1] == ("storage",) else None

    out = io.BytesIO()
    pid = ("storage", getattr(torch, dtype), key, "cpu", numel)
    Pickler(out, protocol=2).dump({"x": Stand(pid, offset, size, stride, False, OrderedDict())})
    return out.getvalue()


VALUES = struct.pack("<6f", *range(6))


def test_the_tensor_made_by_hand_is_read(tmp_path):
    path = archive(tmp_path / "a.pth", tensor_pickle(), {"0": VALUES})
    assert read_pickled(path)["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_pickled(path, values=False)["x"].shape == (2, 3)


@pytest.mark.parametrize(
    "numbers",
    [
        {"size": (1 << 40, 1 << 40)},
        {"size": (1 << 40, 1), "stride": (0, 0)},  # terabytes out of one value
        {"size": (7, 1), "stride": (0, 0)},
        {"size": (2, -3)},
        {"offset": 1},
        {"offset": -1},
        {"stride": (1 << 60, 1)},
        {"stride": (-3, 1)},
        {"size": (2, 3, 1)},
        {"size": (1,) * 70, "stride": (1,) * 70},
        {"size": ("ab", 1 << 30)},
        {"size": 5},
        {"key": "../../../etc/passwd"},
        {"key": "/etc/passwd"},
        {"key": "1"},
        {"dtype": "DoubleStorage"},
    ],
)
def test_declared_sizes_and_places_are_checked(tmp_path, numbers):
    path = archive(tmp_path / "a.pth", tensor_pickle(**numbers), {"0": VALUES})
    with pytest.raises(ModelError, match="damaged"):
        read_pickled(path)


def test_zip_bombs_and_odd_archives(tmp_path):
    path = tmp_path / "a.pth"
    good = tensor_pickle()
    archive(path, good, {"0": bytes(1 << 22)}, compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed members"):
        read_pickled(path)
    archive(path, bytes(9 << 20))
    with pytest.raises(ModelError, match=r"data\.pkl is larger"):
        read_pickled(path)
    with zipfile.ZipFile(path, "w") as out:
        for folder in ("a", "b"):
            out.writestr(f"{folder}/data.pkl", good)
    with pytest.raises(ModelError, match=r"one data\.pkl"):
        read_pickled(path)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a/data.pkl", good)
        out.writestr("a/data/0", VALUES)
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr("a/data/0", VALUES)
    with pytest.raises(ModelError, match="two members"):
        read_pickled(path)
    archive(path, good, {"0": VALUES})
    # Two entries of the directory over the same bytes: more than the file holds.
    raw = path.read_bytes().replace(
        struct.pack("<II", 24, 24), struct.pack("<II", 1 << 20, 1 << 20)
    )
    path.write_bytes(raw)
    with pytest.raises(ModelError, match="larger than the file"):
        read_pickled(path)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a/data.pkl", good)
        out.writestr("a/data/0", VALUES)
        out.writestr("a/byteorder", "big")
    with pytest.raises(ModelError, match="byte order"):
        read_pickled(path)


def test_old_forms(tmp_path):
    """The tar of before 0.4 is not read; a stream says no more than it holds."""
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w") as out:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 4
            out.addfile(info, io.BytesIO(b"\x80\x02N."))
    with pytest.raises(ModelError, match="another format"):
        load_model(path, kind="sam")
    heads = b"".join(pickle.dumps(part, protocol=2) for part in (MAGIC, 1001, {}))
    body = tensor_pickle(numel=1 << 50)
    keys = pickle.dumps(["0"], protocol=2)
    for count, values in ((1 << 50, VALUES), (-1, VALUES), (6, VALUES[:-1]), (5, VALUES)):
        path.write_bytes(heads + body + keys + struct.pack("<q", count) + values)
        with pytest.raises(ModelError, match="damaged"):
            read_pickled(path)
    path.write_bytes(heads + body + keys + struct.pack("<q", 6) + VALUES)
    assert read_pickled(path)["x"].sum() == 15
    path.write_bytes(pickle.dumps(7, protocol=2) + heads)
    with pytest.raises(ModelError, match="not of PyTorch"):
        read_pickled(path)


@pytest.fixture(scope="module")
def model():
    return build_sam(spec_for("vit_tiny", image_size=64), 3)


def adam_of(parameters):
    adam = torch.optim.Adam(parameters)
    for p in adam.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    adam.step()
    return adam


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_optimiser_beside_the_model_is_left_out(model, tmp_path, new):
    """As SAM-Med2D is published; also in the form of before PyTorch 1.6."""
    adam = adam_of([torch.nn.Parameter(torch.ones(3, 5))])
    content = {"model": published_state(model), "optimizer": adam}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    back = load_model(tmp_path / "a.pth", kind="sam")
    assert weight_digest(back) == weight_digest(model)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


@pytest.mark.parametrize("prefix", ["", "sam.", "module.sam."])
def test_the_layout_of_torch_em(model, tmp_path, prefix):
    """medico-sam's trainer: {"model_state": ...}, with or without ``sam.`` before the names."""
    state = {prefix + name: value for name, value in published_state(model).items()}
    content = {"model_state": state, "optimizer_state": {}, "decoder_state": {"x": torch.ones(2)}}
    torch.save(content, tmp_path / "a.pt")
    assert weight_digest(load_model(tmp_path / "a.pt", kind="sam")) == weight_digest(model)


def test_weights_that_share_memory_are_given_their_own(model, tmp_path):
    state = dict(published_state(model))
    flat = torch.cat([value.flatten() for value in state.values()])
    parts = flat.split([value.numel() for value in state.values()])
    views = {k: p.view(v.shape) for (k, v), p in zip(state.items(), parts, strict=True)}
    torch.save(views, tmp_path / "a.pth")
    back = load_model(tmp_path / "a.pth", kind="sam")
    assert weight_digest(back) == weight_digest(model)
    places = {p.untyped_storage().data_ptr() for p in back.state_dict().values()}
    assert len(places) == len(back.state_dict())


PROBE = """
import sys
from pathlib import Path
from segment_anything import modeling
from sammed_model.checkpoint import load_model
from sammed_model.sam import build_sam, spec_for
build_sam(spec_for("vit_tiny"))
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
model = load_model(sys.argv[1], kind="sam-med2d")
after = peak()
print(after - before, sum(p.numel() * 4 for p in model.parameters()) // 1024)
"""


@pytest.mark.slow
def test_loading_costs_the_model_and_not_the_optimiser(tmp_path):
    """{"model", "optimizer"} of SAM-Med2D: 271 M values and twice as many of Adam."""
    big = build_sam(spec_for("vit_b", image_size=256, adapters="sam-med2d"))
    adam = adam_of(big.parameters())
    path = tmp_path / "a.pth"
    torch.save({"model": published_state(big), "optimizer": adam}, path)
    del big, adam
    assert path.stat().st_size > 2.5e9
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    grown_kib, model_kib = map(int, run.stdout.split())
    assert 0.9 * model_kib < grown_kib < 1.1 * model_kib
