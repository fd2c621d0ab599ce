"""Downloads from a server that drops, lies and redirects."""

from __future__ import annotations

import hashlib
import json

import pytest

from sammed_data.catalog import Download
from sammed_data.get import download as module
from sammed_data.get.download import download
from sammed_data.get.records import RemoteFile, file_name, files_of, is_file_address
from sammed_data.types import FetchError
from tests.data.get_server import Server, bad_server, patient_web  # noqa: F401  (fixture)

DATA = bytes(range(256)) * 9001  # 2.3 MB, more than one block


def remote(*urls, token_env=None, **known):
    line = Download(url=urls[0], token_env=token_env)
    return RemoteFile(name="a.bin", urls=urls, download=line, **known)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_a_plain_download(bad_server: Server, tmp_path):  # noqa: F811
    seen = []
    url = bad_server.put("/a.bin", DATA)
    got = download(
        remote(url), tmp_path / "x/a.bin", patient_web(), progress=lambda *a: seen.append(a)
    )
    assert got.path.read_bytes() == DATA
    assert got.sha256 == sha(DATA)
    assert seen[-1] == ("a.bin", len(DATA), len(DATA))
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["a.bin"]


def test_a_dropped_connection_goes_on_where_it_was(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", DATA, drop_at=1_200_000, drops=1)
    web = patient_web()
    assert download(remote(url), tmp_path / "a.bin", web).path.read_bytes() == DATA
    second = bad_server.asked("/a.bin")[1]
    assert second["Range"] == "bytes=1200000-"
    assert second["If-Range"] == '"one"'
    assert web.naps == [1.0]


def test_a_second_run_goes_on_too(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", DATA, drop_at=1_200_000, drops=9)
    bad_server.paths["/a.bin"].status = [200, 503, 503, 503, 503]
    with pytest.raises(FetchError, match="run again to continue"):
        download(remote(url), tmp_path / "a.bin", patient_web())
    assert not (tmp_path / "a.bin").exists()
    bad_server.paths["/a.bin"].drops = 0
    n = len(bad_server.requests)
    assert download(remote(url), tmp_path / "a.bin", patient_web()).sha256 == sha(DATA)
    assert bad_server.requests[n][1]["Range"] == "bytes=1200000-"


@pytest.mark.parametrize("fault", [{"ranges": False}, {"tags": ['"one"', '"two"']},
                                   {"tags": ['"one"', '"two"'], "if_range": False},
                                   {"tags": []}, {"length": False, "tags": []}])  # fmt: skip
def test_what_cannot_be_continued_starts_anew(bad_server, tmp_path, fault):  # noqa: F811
    url = bad_server.put("/a.bin", DATA, drop_at=1_200_000, drops=1, **fault)
    expected = {"bytes": len(DATA)} if fault.get("length") is False else {}
    got = download(remote(url, **expected), tmp_path / "a.bin", patient_web())
    assert got.path.read_bytes() == DATA


def test_a_part_without_validator_is_used_only_with_a_hash(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", DATA, tags=[])
    part = tmp_path / "a.bin.part"
    for known, asked in (({}, None), ({"sha256": sha(DATA)}, "bytes=1000-")):
        part.write_bytes(DATA[:1000])
        (tmp_path / "a.bin.part.json").write_text(f'{{"url": "{url}", "validator": null}}')
        download(remote(url, **known), tmp_path / "a.bin", patient_web())
        assert bad_server.requests[-1][1].get("Range") == asked


def test_a_wrong_part_costs_one_more_download(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", DATA)
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.bin.part.json").write_text(f'{{"url": "{url}", "validator": "\\"one\\""}}')
    got = download(remote(url, sha256=sha(DATA)), tmp_path / "a.bin", patient_web())
    assert got.path.read_bytes() == DATA


def test_wrong_bytes_are_thrown_away_and_the_mirror_asked(bad_server, tmp_path):  # noqa: F811
    bad = bad_server.put("/bad.bin", DATA[::-1])
    good = bad_server.put("/good.bin", DATA)
    md5 = hashlib.md5(DATA).hexdigest()  # noqa: S324
    got = download(remote(bad, good, md5=md5), tmp_path / "a.bin", patient_web())
    assert got.url == good
    with pytest.raises(FetchError, match="expected md5 .* found .* thrown away"):
        download(remote(bad, md5=md5), tmp_path / "b.bin", patient_web())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin"]


def test_wrong_size_is_seen_before_the_bytes(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", DATA)
    with pytest.raises(FetchError, match=f"5 bytes by the entry, the server has {len(DATA)}"):
        download(remote(url, bytes=5), tmp_path / "a.bin", patient_web())
    bad_server.put("/a.bin", DATA, length=False)
    with pytest.raises(FetchError, match="expected 5 bytes, found more"):
        download(remote(url, bytes=5), tmp_path / "a.bin", patient_web())
    assert list(tmp_path.iterdir()) == []


def test_busy_servers_are_asked_again_with_growing_pauses(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", DATA, status=[503, 429, 500])
    web = patient_web()
    download(remote(url), tmp_path / "a.bin", web)
    assert web.naps == [1.0, 2.0, 4.0]
    url = bad_server.put("/a.bin", DATA, status=[503] * 9)
    with pytest.raises(FetchError, match="503 .* gave up after 4 attempts"):
        download(remote(url), tmp_path / "b.bin", patient_web())
    with pytest.raises(FetchError, match="404"):
        download(remote(bad_server.base + "/none"), tmp_path / "c.bin", patient_web())


def test_nobody_answers(tmp_path):
    with pytest.raises(FetchError, match="gave up after 4 attempts"):
        download(remote("http://127.0.0.1:9/a.bin"), tmp_path / "a.bin", patient_web())


def test_a_token_comes_from_the_environment_and_stays_with_its_host(bad_server, tmp_path):  # noqa: F811
    other = Server()
    try:
        url = bad_server.put("/a.bin", DATA, token="sesame")
        with pytest.raises(FetchError, match="MY_TOKEN") as said:
            download(remote(url, token_env="MY_TOKEN"), tmp_path / "a.bin", patient_web())
        web = patient_web(MY_TOKEN="secret-word")
        with pytest.raises(FetchError, match="not accepted") as wrong:
            download(remote(url, token_env="MY_TOKEN"), tmp_path / "a.bin", web)
        assert "secret-word" not in str(said.value) + str(wrong.value)
        web = patient_web(MY_TOKEN="sesame")
        assert download(remote(url, token_env="MY_TOKEN"), tmp_path / "a.bin", web)

        away = other.put("/stored.bin", DATA)
        mirrored = remote(bad_server.base + "/no.bin", away, token_env="MY_TOKEN")
        download(mirrored, tmp_path / "m.bin", web)
        assert "Authorization" not in other.asked("/stored.bin")[-1]
        with pytest.raises(FetchError, match="unencrypted"):
            web.open("http://example.org/a.zip", token_env="MY_TOKEN")

        here = bad_server.put("/hop.bin", redirect="/a.bin")
        gone = bad_server.put("/away.bin", redirect=away)
        download(remote(here, token_env="MY_TOKEN"), tmp_path / "b.bin", web)
        download(remote(gone, token_env="MY_TOKEN"), tmp_path / "c.bin", web)
        assert bad_server.asked("/a.bin")[-1]["Authorization"] == "Bearer sesame"
        assert "Authorization" not in other.asked("/stored.bin")[-1]
    finally:
        other.close()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_to_other_schemes_are_refused(bad_server, tmp_path, target):  # noqa: F811
    url = bad_server.put("/a.bin", redirect=target)
    with pytest.raises(FetchError, match="redirect"):
        download(remote(url), tmp_path / "a.bin", patient_web())


def test_a_redirect_to_itself_ends(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", redirect="/a.bin")
    with pytest.raises(FetchError, match="302|redirects"):
        download(remote(url), tmp_path / "a.bin", patient_web())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y.zip", "/etc/passwd"])
def test_only_http_and_hf_addresses_enter_an_entry(url):
    with pytest.raises(ValueError, match="url"):
        Download(url=url)
    with pytest.raises(FetchError, match="http"):
        patient_web().open(url)


def test_passwords_in_addresses_are_not_repeated(bad_server, tmp_path):  # noqa: F811
    url = bad_server.base.replace("http://", "http://me:hush@") + "/none.bin?sig=hush"
    with pytest.raises(FetchError) as said:
        download(remote(url), tmp_path / "a.bin", patient_web())
    assert "hush" not in str(said.value)


def test_a_login_page_is_no_dataset(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/a.bin", b"<html>", content_type="text/html; charset=utf-8")
    with pytest.raises(FetchError, match="web page"):
        download(remote(url), tmp_path / "a.bin", patient_web())


def test_a_full_disk_is_seen_first(bad_server, tmp_path, monkeypatch):  # noqa: F811
    url = bad_server.put("/a.bin", DATA)
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match=r"needs 2\.3 MB, found 1\.05 MB free"):
        download(remote(url), tmp_path / "a.bin", patient_web())
    assert not (tmp_path / "a.bin.part").exists()


def test_records_give_sizes_hashes_and_links(bad_server):  # noqa: F811
    page = bad_server.put_record(77, {"images.zip": b"i" * 70, "read me.txt": b"r"})
    found = files_of(Download(url=page), patient_web())
    assert [(f.name, f.bytes, f.known_from) for f in found] == [
        ("images.zip", 70, "record"), ("read me.txt", 1, "record")]  # fmt: skip
    assert found[0].md5 == hashlib.md5(b"i" * 70).hexdigest()  # noqa: S324
    (one,) = files_of(Download(url=page, files=["*.zip"]), patient_web())
    assert one.urls[0].endswith("/images.zip/content")
    (direct,) = files_of(Download(url=page + "/files/images.zip"), patient_web())
    assert (direct.md5, direct.bytes) == (one.md5, 70)
    (known,) = files_of(Download(url=page + "/files/images.zip", sha256="a" * 64), patient_web())
    assert (known.sha256, known.md5, known.known_from) == ("a" * 64, None, "entry")
    with pytest.raises(FetchError, match=r"expected \*\.tar, found no such file"):
        files_of(Download(url=page, files=["*.tar"]), patient_web())


def test_records_that_lie_are_refused(bad_server):  # noqa: F811
    web = patient_web()
    for number, document in enumerate([b"<html>", b"[]", b'{"files": [1]}', b'{"files": [{}]}',
                                       b'{"files": [{"key": "../x", "links": {"self": "/y"}}]}'],
                                      500):  # fmt: skip
        bad_server.put(f"/api/records/{number}", document)
        with pytest.raises(FetchError, match="expected"):
            files_of(Download(url=f"{bad_server.base}/records/{number}"), web)


def test_a_record_does_not_pass_the_token_on(bad_server):  # noqa: F811
    bad_server.put_record(9, {"a.zip": b"x"}, links={"self": "https://elsewhere.org/a.zip"})
    line = Download(url=bad_server.base + "/records/9", token_env="MY_TOKEN")
    (found,) = files_of(line, patient_web(MY_TOKEN="sesame"))
    assert found.download.token_env is None


def test_hugging_face_repositories(bad_server, tmp_path):  # noqa: F811
    oid = sha(DATA)
    rows = [
        {"type": "directory", "path": "data"},
        {"type": "file", "path": "data/a.zip", "size": len(DATA), "lfs": {"oid": oid, "size": 1}},
    ]
    more = [{"type": "file", "path": "README.md", "size": 3}]
    tree = "/api/datasets/me/set/tree/main"
    bad_server.put(tree + "/more", json.dumps(more).encode())
    bad_server.put(tree, json.dumps(rows).encode(),
                   headers={"Link": f'<{tree}/more>; rel="next"'})  # fmt: skip
    bad_server.put("/datasets/me/set/resolve/main/data/a.zip", DATA, token="hf_x")
    web = patient_web(HF_ENDPOINT=bad_server.base, HF_TOKEN="hf_x")
    assert len(files_of(Download(url="hf://datasets/me/set"), web)) == 2
    (found,) = files_of(Download(url="hf://datasets/me/set/data"), web)
    assert (found.name, found.sha256) == ("data/a.zip", oid)
    assert download(found, tmp_path / "a.zip", web).bytes == len(DATA)


def test_which_addresses_are_files():
    for url in ("https://zenodo.org/records/3431873/files/CHAOS_Train_Sets.zip",
                "https://zenodo.org/record/1322001", "hf://datasets/a/b",
                "https://huggingface.co/datasets/a/b", "https://x.org/a.tar.gz?download=1",
                "https://figshare.com/ndownloader/files/30950821"):  # fmt: skip
        assert is_file_address(url), url
    for url in ("https://github.com/neheller/kits19", "https://doi.org/10.34894/AECRSD",
                "https://drive.google.com/file/d/abc/view", "https://x.org/data",
                "https://x.creatis.insa-lyon.fr/database/#collection/637218"):  # fmt: skip
        assert not is_file_address(url), url
    assert file_name("https://x.org/..%2Fb.zip?x=1") == "_b.zip"
    assert file_name("https://x.org/%2Fetc%2Fa:b.zip") == "_etc_a_b.zip"
