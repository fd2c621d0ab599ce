"""Archives that are what they say, and archives that are not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from sammed_data.get.members import archive_kind
from sammed_data.get.split import group_archives
from sammed_data.get.unpack import Limits, unpack
from sammed_data.types import FetchError

FILES = {"set/images/a.png": b"A" * 1000, "set/images/b.png": b"", "set/read me.txt": b"hello"}


def make_zip(path, files=FILES, extra=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for info, data in extra:
            archive.writestr(info, data)
    return path


def make_tar(path, files=FILES, extra=(), mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info, data in extra:
            archive.addfile(info, io.BytesIO(data))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def zip_special(name, mode, data=b""):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (mode | 0o644) << 16
    return info, data


def held(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def run(path, tmp_path, limits=None):
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    unpack([path], path.name, out, limits)
    return held(out)


def refused(path, tmp_path, match, limits=None):
    before = {k for k in held(tmp_path) if not k.startswith("out/")}
    with pytest.raises(FetchError, match=match):
        run(path, tmp_path, limits)
    after = {k for k in held(tmp_path) if not k.startswith("out/")}
    assert after == before, "a byte landed outside"
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"),
                                              ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz"),
                                              ("tar.gz", "w")])  # fmt: skip
def test_tars_of_every_kind(tmp_path, suffix, mode):
    assert run(make_tar(tmp_path / f"a.{suffix}", mode=mode), tmp_path) == FILES


def test_zip_and_single_gz(tmp_path):
    mac = {"__MACOSX/set/._a.png": b"x", "set/._a.png": b"x"}
    assert run(make_zip(tmp_path / "a.zip", FILES | mac), tmp_path) == FILES
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"1,2"))
    assert run(tmp_path / "b.csv.gz", tmp_path) == {"b.csv": b"1,2"}
    assert archive_kind("x.nii.gz") is None
    assert archive_kind("X.ZIP") == "zip"
    with pytest.raises(FetchError, match="by hand"):
        archive_kind("x.rar")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil",
                                  "a/..", "\\evil"])  # fmt: skip
def test_no_member_points_outside(tmp_path, name):
    refused(make_zip(tmp_path / "a.zip", FILES | {name: b"x"}), tmp_path, "points outside")
    refused(make_tar(tmp_path / "a.tar", FILES | {name: b"x"}), tmp_path, "points outside")


@pytest.mark.parametrize("target", ["../../evil", "/etc/passwd", "a/../../../evil"])
def test_no_link_leads_out(tmp_path, target):
    link = special("set/l", tarfile.SYMTYPE, target)
    refused(make_tar(tmp_path / "a.tar", extra=[link]), tmp_path, "leads out")
    link = zip_special("set/l", stat.S_IFLNK, target.encode())
    refused(make_zip(tmp_path / "a.zip", extra=[link]), tmp_path, "leads out")


def test_links_through_links_are_followed_to_their_end(tmp_path):
    # Each looks harmless by its text; together they climb out.
    links = [special("set/deep/up", tarfile.SYMTYPE, ".."),
             special("x", tarfile.SYMTYPE, "set/deep/up/../.."),
             special("y", tarfile.SYMTYPE, "x/..")]  # fmt: skip
    refused(
        make_tar(tmp_path / "a.tar", FILES | {"set/deep/f": b"1"}, links), tmp_path, "leads out"
    )


def test_nothing_is_written_through_a_link(tmp_path):
    link = special("set/l", tarfile.SYMTYPE, "images")
    path = tmp_path / "a.tar"
    make_tar(path, extra=[link, (_sized("set/l/new.png", 1), b"x")])
    refused(path, tmp_path, "twice")


def _sized(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def test_links_inside_are_kept(tmp_path):
    links = [special("set/l", tarfile.SYMTYPE, "images/a.png"),
             special("set/h", tarfile.LNKTYPE, "set/images/a.png")]  # fmt: skip
    found = run(make_tar(tmp_path / "a.tar", extra=links), tmp_path)
    assert found["set/l"] == found["set/h"] == FILES["set/images/a.png"]
    bad = special("h", tarfile.LNKTYPE, "../../evil")
    refused(make_tar(tmp_path / "b.tar", extra=[bad]), tmp_path, "points outside")
    bad = special("h", tarfile.LNKTYPE, "not/there")
    refused(make_tar(tmp_path / "c.tar", extra=[bad]), tmp_path, "link to nothing")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path, kind):
    refused(make_tar(tmp_path / "a.tar", extra=[special("set/d/dev", kind)]), tmp_path, "device")
    for mode in (stat.S_IFCHR, stat.S_IFIFO):
        refused(make_zip(tmp_path / "a.zip", extra=[zip_special("dev", mode)]), tmp_path, "device")


def test_bombs_stop_early(tmp_path):
    limits = Limits(ratio=50, ratio_from=1 << 20)
    zeros = {"z.bin": bytes(20 << 20)}
    refused(make_zip(tmp_path / "a.zip", zeros), tmp_path, "bomb", limits)
    refused(make_tar(tmp_path / "a.tar.gz", zeros, mode="w:gz"), tmp_path, "bomb", limits)
    (tmp_path / "b.bin.gz").write_bytes(gzip.compress(bytes(20 << 20)))
    refused(tmp_path / "b.bin.gz", tmp_path, "bomb", limits)
    assert sum(len(v) for v in held(tmp_path / "out").values()) <= 2 << 20
    refused(make_zip(tmp_path / "a.zip"), tmp_path, "allowed or free", Limits(bytes=500))
    refused(make_zip(tmp_path / "a.zip"), tmp_path, "more than 2 members", Limits(members=2))


def test_a_zip_that_lies_about_sizes(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"z.bin": bytes(1 << 20)})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 10)
    path.write_bytes(data)
    with pytest.raises(FetchError):
        run(path, tmp_path)
    assert sum(len(v) for v in held(tmp_path / "out").values()) <= 10


def test_a_forged_header_does_not_eat_the_memory(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    refused(path, tmp_path, "declares")


def test_names_that_collide(tmp_path):
    for extra in ({"SET/images/c.png": b"1"}, {"set/Read Me.txt": b"2"}):
        refused(make_zip(tmp_path / "a.zip", FILES | extra), tmp_path, "ignores case")
    refused(make_zip(tmp_path / "a.zip", {"u/\u00e9.png": b"1", "u/e\u0301.png": b"2"}), tmp_path,
            "ignores case")  # fmt: skip
    path = make_tar(tmp_path / "a.tar", extra=[(_sized("set/read me.txt", 1), b"x")])
    refused(path, tmp_path, "twice")
    refused(make_zip(tmp_path / "a.zip", FILES | {"set/read me.txt/x": b"1"}), tmp_path, "twice")
    assert run(make_zip(tmp_path / "a.zip", {"a/": b"", "a/x": b"1"}), tmp_path) == {"a/x": b"1"}


def test_encryption_is_refused_with_a_sentence(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        data[at + offset] |= 1
    path.write_bytes(data)
    refused(path, tmp_path, "is encrypted: get the password")


def test_damaged_archives_are_sentences(tmp_path):
    packed = {"a.tar.gz": gzip.compress, "a.tar.bz2": bz2.compress, "a.tar.xz": lzma.compress}
    noise = np.random.default_rng(0).bytes(200_000)
    tar = make_tar(tmp_path / "x.tar", {"n.bin": noise}).read_bytes()
    for name, pack in packed.items():
        whole = pack(tar)
        for data in (whole[: len(whole) // 2], whole[:900] + b"\0" * 2000 + whole[2900:], b"junk"):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(FetchError):
                run(tmp_path / name, tmp_path)
    path = make_zip(tmp_path / "a.zip", {"n.bin": noise})
    for data in (path.read_bytes()[:-30], b"", path.read_bytes().replace(noise[:50], b"?" * 50)):
        path.write_bytes(data)
        with pytest.raises(FetchError):
            run(path, tmp_path)


def test_parts_are_grouped(tmp_path):
    names = ["a.zip.001", "a.zip.002", "b.z01", "b.zip", "c.tar", "d.z01", "d.z02", "d.zip"]
    paths = [tmp_path / n for n in names]
    groups = {n: [p.name for p in parts] for n, parts in group_archives(paths)}
    assert groups == {"a.zip": names[:2], "b.zip": names[2:4], "c.tar": ["c.tar"],
                      "d.zip": names[5:]}  # fmt: skip
    for missing in (["a.zip.002"], ["a.zip.001", "a.zip.003"], ["d.z01"], ["d.z02", "d.zip"]):
        with pytest.raises(FetchError, match="get the missing one"):
            group_archives([tmp_path / n for n in missing])


def test_numbered_parts(tmp_path):
    for whole in (make_zip(tmp_path / "a.zip"), make_tar(tmp_path / "a.tar.gz", mode="w:gz")):
        data = whole.read_bytes()
        parts = []
        for i in range(3):
            parts.append(tmp_path / f"{whole.name}.00{i + 1}")
            parts[-1].write_bytes(data[i * 150 : (i + 1) * 150 if i < 2 else None])
        out = tmp_path / f"out-{whole.name}"
        out.mkdir()
        unpack(parts, whole.name, out)
        assert held(out) == FILES


def test_a_zip_split_into_disks(tmp_path):
    """Made by the real program: offsets in it count from the start of each disk."""
    if shutil.which("zip") is None:
        pytest.skip("needs the program zip to make a split archive")
    rng = np.random.default_rng(1)
    files = {f"set/{i}.bin": rng.bytes(60_000) for i in range(5)}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    subprocess.run(["zip", "-q", "-r", "-s", "64k", tmp_path / "s.zip", "set"],
                   cwd=tmp_path / "in", check=True)  # fmt: skip
    paths = sorted(tmp_path.glob("s.z*"))
    assert len(paths) > 3
    ((name, parts),) = group_archives(paths)
    out = tmp_path / "out"
    out.mkdir()
    assert unpack(parts, name, out) == 5
    assert held(out) == files


def test_modes_of_the_archive_are_not_taken_over(tmp_path):
    info = _sized("tool", 2)
    info.mode = 0o6777
    run(make_tar(tmp_path / "a.tar", extra=[(info, b"#!")]), tmp_path)
    assert not os.stat(tmp_path / "out/tool").st_mode & 0o6111  # noqa: PTH116


def mutated(data, rng):
    """One of: cut off, bytes changed, a piece gone, a piece added, a field at its extreme."""
    out, at = bytearray(data), int(rng.integers(len(data)))
    how = rng.integers(5)
    if how == 0:
        return out[:at]
    if how == 1:
        for place in rng.integers(len(data), size=5):
            out[place] = int(rng.integers(256))
    elif how == 2:
        out[at : at + int(rng.integers(1, 600))] = b""
    elif how == 3:
        out[at:at] = rng.bytes(int(rng.integers(1, 300)))
    else:
        out[at : at + 8] = (b"\xff" * 8, bytes(8), b"7" * 8)[int(rng.integers(3))]
    return out


def test_mutated_archives_end_in_sentences(tmp_path):
    links = [special("set/l", tarfile.SYMTYPE, "images/a.png"),
             special("set/h", tarfile.LNKTYPE, "set/images/a.png")]  # fmt: skip
    rng = np.random.default_rng(5)
    files = FILES | {"set/n.bin": rng.bytes(3000)}
    seeds = {"a.zip": make_zip(tmp_path / "a.zip", files).read_bytes(),
             "b.csv.gz": gzip.compress(bytes(5000) + b"hi")}  # fmt: skip
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        seeds[name] = make_tar(tmp_path / name, files, links, mode).read_bytes()
    (tmp_path / "b.csv.gz").touch()
    refusals = 0
    for i in range(200):
        name = sorted(seeds)[i % len(seeds)]
        (tmp_path / name).write_bytes(mutated(seeds[name], rng))
        try:
            run(tmp_path / name, tmp_path, Limits(bytes=50 << 20))
        except FetchError:
            refusals += 1
        assert {p.name for p in tmp_path.iterdir()} == {*seeds, "out"}
    assert 100 < refusals < 200
