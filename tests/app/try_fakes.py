"""Files to drop on the page, and a client of its routes."""

from __future__ import annotations

import base64
import http.client
import io
import json
import struct
import time
import urllib.parse
import zipfile
import zlib

import cv2
import nibabel as nib
import numpy as np


def disc(height=50, width=70, centre=(40, 20), radius=11):
    """A bright disc on noise, uint8."""
    image = np.random.default_rng(1).integers(0, 70, (height, width)).astype(np.uint8)
    cv2.circle(image, centre, radius, 220, -1)
    return image


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def nifti(path, array, affine):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path.read_bytes()


def giant_png(side=60_000):
    """A PNG whose header declares far more than it holds."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rest


def giant_nifti():
    """A header of 30000^3 voxels, and no voxel behind it."""
    header = nib.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 30_000))
    header.set_data_dtype(np.int16)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return header.binaryblock + b"\0" * 4


def zipped(files):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return whole.getvalue()


def bomb(declared=40 << 30):
    """A zip of one member that says it is 40 GB: the size in its directory is changed."""
    data = bytearray(zipped({"a.nii": b"\0" * 1000}))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, min(declared, 0xFFFFFFF0))
    return bytes(data)


class Client:
    """A tab without a browser."""

    def __init__(self, port):
        self.port = port
        self.name = self.call("POST", "session")["session"]

    def raw(self, method, path, body=None, headers=()):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.request(method, f"/api/try/{path}", body, {"X-Sammed": "1", **dict(headers)})
        answer = link.getresponse()
        data = answer.read()
        link.close()
        return answer.status, answer.headers, data

    def call(self, method, path, body=None, status=200):
        sent = None if body is None else json.dumps(body)
        code, _, data = self.raw(method, path, sent, {"Content-Type": "application/json"})
        assert code == status, data
        return json.loads(data)

    def at(self, rest):
        return f"session/{self.name}/{rest}"

    def upload(self, name, data, status=200):
        query = urllib.parse.urlencode({"session": self.name, "name": name})
        code, _, answer = self.raw("POST", f"upload?{query}", data)
        assert code == status, answer
        return json.loads(answer)

    def drop(self, files, status=200, **more):
        """Upload and open; the image, or the refusal."""
        self.call("POST", self.at("drop"), {})
        for name, data in files.items():
            self.upload(name, data)
        return self.call("POST", self.at("open"), more, status)

    def encode(self, look):
        state = self.call("POST", self.at("want"), look)["slice"]
        until = time.monotonic() + 60
        while state["state"] not in ("ready", "failed"):
            assert time.monotonic() < until, state
            time.sleep(0.02)
            state = self.call("GET", self.at("state"))["slice"]
        return state

    def ask(self, look, number=1, **prompts):
        body = {"look": look, "object": number, "name": f"object {number}", **prompts}
        found = self.call("POST", self.at("ask"), body)
        if found["again"]:
            assert self.encode(look)["state"] == "ready"
            found = self.call("POST", self.at("ask"), body)
        return found

    def export(self, form):
        code, headers, data = self.raw("GET", self.at(f"export?form={form}"))
        assert code == 200, data
        return headers["content-disposition"], data


def base64_of(data):
    return base64.b64encode(data).decode()
