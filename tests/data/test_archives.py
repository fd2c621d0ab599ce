"""Data sets inside zip and tar: the same corpus as from the unpacked folder; hostile archives."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from sammed_data import archives, unpack
from sammed_data.build import build
from sammed_data.catalog import load_catalogs
from sammed_data.discover import discover, find_root
from sammed_data.gzip_seek import open_gzip
from sammed_data.plan import BuildOptions, DatasetPlan, plan_shards
from sammed_data.types import ReadError
from sammed_data.unpack import unpacked
from tests.fakes import build_fake

ENTRIES = load_catalogs(None)
KINDS = ("zip", "tar", "tar.gz")


def _pack(folder: Path, archive: Path, *, inside: str = "") -> None:
    """All files of a folder, the last first: archives keep no order."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), reverse=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as held:
            for path in files:
                held.write(path, f"{inside}{path.relative_to(folder)}")
        return
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as held:
        for path in files:
            held.add(path, f"{inside}{path.relative_to(folder)}")


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as held:
        for name, data in members.items():
            held.writestr(name, data)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry_id", ["busi", "ibsi_sts_ct_dicom", "metaimage_sts_pet"])
def test_the_same_corpus_as_from_the_folder(tmp_path, entry_id, kind):
    """A picture set, a DICOM series with RTSTRUCT, and a header with its data file beside it."""
    entry = ENTRIES[entry_id]
    truth = build_fake(entry, tmp_path / "open", n_cases=3)
    (tmp_path / "packed").mkdir()
    _pack(truth.root, tmp_path / "packed" / f"{entry_id}.{kind}", inside=f"{entry_id}/")

    found = {}
    for name in ("open", "packed"):
        out = tmp_path / f"corpus_{name}"
        result = build(None, tmp_path / name, out, only=[entry_id])
        assert result.quarantined == 0
        found[name] = result.manifest
    assert found["open"]["content_sha256"] == found["packed"]["content_sha256"]
    assert found["open"]["counts"] == found["packed"]["counts"]
    assert not list((tmp_path / "corpus_packed").rglob("*.unpacked"))


def test_members_are_named_in_the_rows(tmp_path):
    import pyarrow.parquet as pq

    entry = ENTRIES["busi"]
    truth = build_fake(entry, tmp_path / "open", n_cases=1)
    (tmp_path / "data").mkdir()
    _pack(truth.root, tmp_path / "data" / "busi.zip")
    build(None, tmp_path / "data", tmp_path / "out", only=["busi"])
    shard = next((tmp_path / "out" / "data").rglob("*.parquet"))
    sources = pq.read_table(shard, columns=["sources"]).to_pylist()[0]["sources"]
    assert sources[0]["path"] == truth.cases[0].image
    assert {s["member"] for s in sources} == {"in busi.zip"}


def test_a_root_may_lie_in_any_archive_of_the_data_sets_folder(tmp_path):
    entry = ENTRIES["kits23"]
    truth = build_fake(entry, tmp_path / "open", n_cases=2)
    folder = tmp_path / "data" / "kits23"
    folder.mkdir(parents=True)
    _pack(truth.root, folder / "download_v1.zip", inside="kits23/")
    root = find_root(entry, tmp_path / "data")
    assert root == folder / "download_v1.zip" / "kits23"
    cases = discover(entry, root).cases
    assert [c.case_id for c in cases] == ["case_00000", "case_00001"]
    assert archives.split(cases[0].image_path) == (
        folder / "download_v1.zip",
        "kits23/dataset/case_00000/imaging.nii.gz",
    )


def test_the_plan_hash_holds_archive_size_time_and_member(tmp_path):
    entry = ENTRIES["kits23"]
    truth = build_fake(entry, tmp_path / "open", n_cases=1)
    archive = tmp_path / "kits23.zip"

    def planned() -> str:
        cases = discover(entry, archive).cases
        dataset = DatasetPlan(entry=entry, cases=cases, meanings={})
        return plan_shards(dataset, BuildOptions())[0].plan_hash

    _pack(truth.root, archive)
    os.utime(archive, ns=(10, 10))
    first = planned()
    assert planned() == first
    os.utime(archive, ns=(20, 20))
    assert planned() != first
    (truth.root / "more.txt").write_text("x")
    _pack(truth.root, archive)
    os.utime(archive, ns=(10, 10))
    assert planned() != first


def test_a_walk_is_that_of_the_disk(tmp_path):
    for name in ("b/z.txt", "b/a/x.txt", "b-1.txt", "b.txt", "a/.hidden/y", "__MACOSX/._b.txt"):
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    _pack(tmp_path / "t", tmp_path / "t.zip")
    assert list(archives.walk(tmp_path / "t.zip")) == [
        ("__MACOSX", True), ("a", True), ("b", True), ("b/a", True), ("b/a/x.txt", False),
        ("b/z.txt", False), ("b-1.txt", False), ("b.txt", False),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../out.txt", "/etc/x", "a/../../b", "C:\\x.txt", "a\\..\\..\\b"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_leave_their_folder_are_refused(tmp_path, name, kind):
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        _zip(path, {"ok.txt": b"1", name: b"2"})
    else:
        with tarfile.open(path, "w") as held:
            info = tarfile.TarInfo(name)
            info.size = 1
            held.addfile(info, io.BytesIO(b"2"))
    with pytest.raises(ReadError, match="do not trust this archive"):
        archives.index_of(path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as held:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"link{kind!r}")
            info.type, info.linkname = kind, "/etc/passwd"
            held.addfile(info)
    assert archives.index_of(path).members == {}


def test_an_encrypted_archive_is_refused_with_what_to_do(tmp_path):
    path = _zip(tmp_path / "x.zip", {"a.txt": b"1"})
    data = bytearray(path.read_bytes())
    directory = data.find(b"PK\x01\x02")
    data[directory + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ReadError, match=r"found 'a.txt' encrypted; unpack it with its password"):
        archives.index_of(path)


def test_a_part_of_a_split_zip_is_refused_with_what_to_do(tmp_path):
    path = _zip(tmp_path / "x.zip", {"a.txt": b"1" * 99})
    path.with_suffix(".z01").write_bytes(b"PK")
    path.write_bytes(path.read_bytes()[60:-30])
    with pytest.raises(ReadError, match="zip -s 0 x.zip --out whole.zip"):
        archives.index_of(path)


def _sizes_changed(path: Path, name: bytes, size: int) -> None:
    """State another unpacked size in both headers of a member."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(mark)
        assert name in data[at : at + 80]
        struct.pack_into("<I", data, at + offset, size)
    path.write_bytes(data)


def _one_case(tmp_path, kind="zip"):
    entry = ENTRIES["kits23"]
    truth = build_fake(entry, tmp_path / "open", n_cases=1)
    archive = tmp_path / f"kits23.{kind}"
    return entry, truth, archive


def test_a_declared_bomb_is_refused_before_a_byte_is_written(tmp_path, monkeypatch):
    entry, truth, archive = _one_case(tmp_path)
    _pack(truth.root, archive)
    monkeypatch.setattr(unpack, "MAX_DECODED_BYTES", 100)
    with unpacked(discover(entry, archive).cases, tmp_path) as (case,):
        assert "expected at most 100 bytes a file" in case.damage
        assert not case.image_path.exists()


def test_an_actual_bomb_stops_at_what_it_declares(tmp_path):
    entry, truth, archive = _one_case(tmp_path)
    image = truth.root / truth.cases[0].image
    image.write_bytes(b"\0" * 5_000_000)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as held:
        held.write(image, truth.cases[0].image)
        label = truth.cases[0].image.replace("imaging", "segmentation")
        held.write(truth.root / label, label)
    _sizes_changed(archive, b"imaging", 1000)
    archives._index.cache_clear()
    with unpacked(discover(entry, archive).cases, tmp_path) as (case,):
        assert "imaging.nii.gz: expected a whole member of kits23.zip" in case.damage
        assert not case.image_path.exists()
        assert case.labels[0].path.exists()


def test_a_damaged_member_costs_its_case_only(tmp_path):
    entry = ENTRIES["busi"]
    truth = build_fake(entry, tmp_path / "open", n_cases=3)
    archive = tmp_path / "data" / "busi.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as held:
        for path in sorted(p for p in truth.root.rglob("*") if p.is_file()):
            held.write(path, str(path.relative_to(truth.root)))
    data = bytearray(archive.read_bytes())
    inner = (truth.root / truth.cases[1].image).read_bytes()
    data[data.find(inner) + len(inner) // 2] ^= 255
    archive.write_bytes(data)
    result = build(None, archive.parent, tmp_path / "out", only=["busi"])
    assert result.manifest["counts"]["cases"]["rejected"] == {"unreadable": 1}


def test_a_cut_archive_is_a_sentence_and_the_others_are_built(tmp_path):
    entry, other = ENTRIES["busi"], ENTRIES["kits23"]
    truth = build_fake(entry, tmp_path / "open", n_cases=1)
    build_fake(other, tmp_path / "data", n_cases=1)
    archive = tmp_path / "data" / "busi.tar.gz"
    _pack(truth.root, archive)
    archive.write_bytes(archive.read_bytes()[:-200])
    result = build(None, tmp_path / "data", tmp_path / "out")
    assert "busi.tar.gz: expected a whole archive" in result.failed["busi"]


def test_a_tar_whose_names_are_huge_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    path.write_bytes(info.tobuf() + b"\0" * 1024)
    with pytest.raises(ReadError, match="name takes 3,221,225,472 bytes"):
        archives.index_of(path)


def test_scratch_of_dead_processes_is_removed(tmp_path):
    entry, truth, archive = _one_case(tmp_path, "tar")
    _pack(truth.root, archive)
    from socket import gethostname

    dead = tmp_path / f"{gethostname()}-999999999.unpacked"
    dead.mkdir()
    with unpacked(discover(entry, archive).cases, tmp_path) as (case,):
        assert not dead.exists()
        assert case.archive == "kits23.tar"
        assert case.root.parent.name == f"{gethostname()}-{os.getpid()}.unpacked"
        assert case.image_path.read_bytes() == (truth.root / truth.cases[0].image).read_bytes()
    assert not list(tmp_path.glob("*.unpacked"))


def test_gzip_reads_backwards_from_a_copy_of_its_decoder(tmp_path, monkeypatch):
    from sammed_data import gzip_seek

    monkeypatch.setattr(gzip_seek, "_STEP", 50_000)
    plain = np.random.default_rng(3).integers(0, 40, 400_000, np.uint8).tobytes()
    packed = [zlib.compressobj(6, zlib.DEFLATED, 31) for _ in range(2)]
    halves = plain[:150_000], plain[150_000:]
    path = tmp_path / "x.gz"
    path.write_bytes(
        b"".join(c.compress(h) + c.flush() for c, h in zip(packed, halves, strict=True)) + b"\0" * 9
    )
    with open_gzip(path) as stream:
        assert stream.read() == plain
        assert len(stream.raw._points) > 4
        for start in (399_990, 7, 149_999, 260_001, 50_000, 0):
            stream.seek(start)
            assert stream.read(11) == plain[start : start + 11]
    path.write_bytes(path.read_bytes()[:100_000])
    with open_gzip(path) as stream, pytest.raises(EOFError, match="before its end mark"):
        stream.read()


@pytest.mark.parametrize("name", ["Kvasir-SEG.zip", "kvasir-seg.tar.gz", "kvasir_seg/any.zip"])
def test_archives_may_have_the_name_of_the_top_folder_or_the_download(tmp_path, name):
    url = "https://example.org/get/kvasir-seg.tar.gz?x=1"
    entry = ENTRIES["kvasir_seg"].model_copy(update={"download_url": url})
    truth = build_fake(entry, tmp_path / "open", n_cases=1)
    archive = tmp_path / "data" / name
    archive.parent.mkdir(parents=True)
    _pack(truth.root, archive)
    assert find_root(entry, tmp_path / "data") == archive


def test_folders_win_over_archives(tmp_path):
    entry, truth, archive = _one_case(tmp_path)
    _pack(truth.root, archive)
    shutil.copytree(truth.root, tmp_path / "kits23")
    assert find_root(entry, tmp_path) == tmp_path / "kits23"


def test_arrays_that_hold_many_images_must_be_unpacked(tmp_path):
    entry = next(e for e in ENTRIES.values() if any("N" in (r.axes or "") for r in e.layout.images))
    truth = build_fake(entry, tmp_path / "open", n_cases=1)
    archive = tmp_path / f"{entry.id}.zip"
    _pack(truth.root, archive)
    with pytest.raises(ReadError, match="unpack the archive"):
        discover(entry, archive)


def test_tables_are_found_in_archives(tmp_path):
    entry = ENTRIES["uw_madison_gi"]
    truth = build_fake(entry, tmp_path / "open", n_cases=2)
    (tmp_path / "packed").mkdir()
    _pack(truth.root, tmp_path / "packed" / f"{entry.id}.zip")
    found = [
        build(None, tmp_path / name, tmp_path / f"out_{name}", only=[entry.id]).manifest
        for name in ("open", "packed")
    ]
    assert found[0]["content_sha256"] == found[1]["content_sha256"]
    assert found[0]["counts"] == found[1]["counts"]
    assert found[0]["counts"]["cases"]["rejected"] == {}
