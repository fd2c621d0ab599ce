"""`fetch`, `probe`, `check`, `plan` and `list` from an entry to a folder that can be built."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from sammed_data.catalog import load_catalogs
from sammed_data.get.estimate import bytes_on_disk, cost_of, totals
from sammed_data.get.fetch import FetchOptions, downloads_of, fetch, steps_by_hand
from sammed_data.get.listing import Filters, list_entries
from sammed_data.get.lock import LOCK_NAME, read_lock
from sammed_data.get.probe import probe
from sammed_data.get.remote_zip import list_remote_zip
from sammed_data.get.sizes import ask_size
from sammed_data.get.unpack import Limits
from sammed_data.types import FetchError, UsageError
from tests.data import build_fakes as fakes
from tests.data.get_server import Server, bad_server, patient_web  # noqa: F401  (fixture)

N = 3


def dataset(tmp_path, n=N):
    """relative path -> bytes of a small dataset that can be built."""
    root = fakes.write_source(tmp_path / "made", n=n)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.gz"))}


def zipped(files, prefix=""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return out.getvalue()


def entry_with(*downloads, **more):
    return fakes.make_entry(downloads=list(downloads), expected={"cases": N}, **more)


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("prefix", ["", "Set_v2/"])
def test_from_an_address_to_a_folder_that_fits(bad_server: Server, tmp_path, prefix):  # noqa: F811
    data = zipped(dataset(tmp_path), prefix)
    url = bad_server.put("/set.zip", data, drop_at=len(data) // 2, drops=1)
    root = tmp_path / "data"
    done = fetch(entry_with({"url": url, "sha256": sha(data)}), root, patient_web())
    assert done.place == root / "fake_mr"
    assert sorted(p.name for p in done.place.iterdir()) == ["images", "labels"]
    assert done.files[0].verified == "entry"
    assert sorted(p.name for p in root.iterdir()) == ["fake_mr", LOCK_NAME]
    again = fetch(entry_with({"url": url}), root, patient_web())
    assert "already" in again.said[0]


def test_first_sight_is_unverified_and_the_lock_remembers(bad_server, tmp_path):  # noqa: F811
    data = zipped(dataset(tmp_path))
    url = bad_server.put("/set.zip", data)
    entry, root = entry_with({"url": url}), tmp_path / "data"
    assert fetch(entry, root, patient_web()).files[0].verified == "unverified"
    row = read_lock(root)[url]
    assert (row.sha256, row.bytes, row.dataset) == (sha(data), len(data), "fake_mr")
    again = FetchOptions(again=True, keep_archives=True)
    fetch(entry, root, patient_web(), again)
    assert (root / ".fetch/fake_mr/files/set.zip").read_bytes() == data
    before = fakes.tree(root / "fake_mr")
    bad_server.put("/set.zip", zipped(dataset(tmp_path, n=4)))
    (root / ".fetch/fake_mr/files/set.zip").unlink()
    with pytest.raises(FetchError, match="expected .* found|the server has"):
        fetch(entry, root, patient_web(), again)
    assert fakes.tree(root / "fake_mr") == before
    (root / LOCK_NAME).write_text("files: 3")
    with pytest.raises(FetchError, match="lock of version 1"):
        read_lock(root)


def test_several_downloads_make_one_dataset(bad_server, tmp_path):  # noqa: F811
    files = dataset(tmp_path)
    images = {k.removeprefix("images/"): v for k, v in files.items() if k.startswith("images")}
    labels = {k: v for k, v in files.items() if k.startswith("labels")}
    page = bad_server.put_record(5, {"labels.zip": zipped(labels), "notes.csv": b"a,b"})
    entry = entry_with(
        {"url": bad_server.put("/i.zip", zipped(images)), "unpack_to": "images"}, {"url": page}
    )
    done = fetch(entry, tmp_path / "data", patient_web())
    assert {f.name: f.verified for f in done.files} == {
        "i.zip": "unverified", "labels.zip": "record", "notes.csv": "record"}  # fmt: skip
    assert (done.place / "notes.csv").read_bytes() == b"a,b"
    assert len(list((done.place / "images").iterdir())) == N
    more = bad_server.put("/more.zip", zipped(labels))
    clash = entry_with({"url": page, "files": ["labels.zip"]}, {"url": more}, id="other")
    with pytest.raises(FetchError, match="already there from another archive"):
        fetch(clash, tmp_path / "data", patient_web())


def test_a_numbered_file_and_split_parts(bad_server, tmp_path):  # noqa: F811
    data = zipped(dataset(tmp_path))
    entry = entry_with({"url": bad_server.put("/ndownloader/files/309", data)})
    assert fetch(entry, tmp_path / "a", patient_web()).place is not None
    half = len(data) // 2
    parts = [{"url": bad_server.put(f"/s.zip.00{i + 1}", d)}
             for i, d in enumerate((data[:half], data[half:]))]  # fmt: skip
    assert fetch(entry_with(*parts), tmp_path / "b", patient_web()).place is not None


def test_an_unsafe_archive_leaves_nothing(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/set.zip", zipped(dataset(tmp_path) | {"../../evil": b"x"}))
    root = tmp_path / "data"
    with pytest.raises(FetchError, match="points outside"):
        fetch(entry_with({"url": url}), root, patient_web())
    assert not (root / "fake_mr").exists()
    assert not list(tmp_path.rglob("evil"))
    assert not (root / ".fetch/fake_mr/unpacked").exists()
    n = len(bad_server.requests)
    with pytest.raises(FetchError):  # the archive itself is whole: not downloaded again
        fetch(entry_with({"url": url}), root, patient_web())
    assert len(bad_server.requests) == n
    options = FetchOptions(limits=Limits(bytes=10))
    with pytest.raises(FetchError, match="allowed or free"):
        fetch(entry_with({"url": bad_server.put("/b.zip", zipped(dataset(tmp_path)))}), root,
              patient_web(), options)  # fmt: skip


def test_folders_of_the_user_are_not_replaced(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/set.zip", zipped(dataset(tmp_path)))
    (tmp_path / "data/fake_mr").mkdir(parents=True)
    (tmp_path / "data/fake_mr/mine.txt").write_text("precious")
    for again in (False, True):
        with pytest.raises(FetchError, match="did not write"):
            fetch(entry_with({"url": url}), tmp_path / "data", patient_web(),
                  FetchOptions(again=again))  # fmt: skip
    assert (tmp_path / "data/fake_mr/mine.txt").read_text() == "precious"


def test_two_entries_of_one_archive_fetch_it_once(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/set.zip", zipped(dataset(tmp_path)))
    root = tmp_path / "data"
    fetch(entry_with({"url": url}), root, patient_web())
    n = len(bad_server.requests)
    second = fetch(entry_with({"url": url}, id="fake_two"), root, patient_web())
    assert second.place == root / "fake_two"
    assert len(bad_server.requests) == n


def test_what_fits_nothing_is_said(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/set.zip", zipped({"other/x.txt": b"1"}))
    done = fetch(entry_with({"url": url}), tmp_path / "data", patient_web())
    assert done.place is None
    assert "it holds other" in done.said[0]


def test_what_a_person_must_do(tmp_path):
    web = patient_web()
    form = fakes.make_entry(access="registration", access_note="form by mail",
                            download_url="https://drive.google.com/x")  # fmt: skip
    steps = "\n".join(steps_by_hand(form, tmp_path, web))
    for word in (
        form.homepage,
        "form by mail",
        "drive.google.com",
        "fake_mr",
        "check",
    ):
        assert word in steps
    gated = entry_with({"url": "https://x.org/a.zip", "token_env": "MY_TOKEN"}, access="DUA")
    assert "$MY_TOKEN" in "\n".join(steps_by_hand(gated, tmp_path, web))
    assert steps_by_hand(gated, tmp_path, web, accepted=True) == []
    assert steps_by_hand(gated, tmp_path, patient_web(MY_TOKEN="x")) == []
    assert steps_by_hand(fakes.make_entry(), tmp_path, web)
    every = load_catalogs(None).values()
    assert all(steps_by_hand(e, tmp_path, web) or downloads_of(e) for e in every)


def test_probe_reads_a_directory_and_no_data(bad_server, tmp_path):  # noqa: F811
    files = dataset(tmp_path)
    files["big.bin"] = bytes(3 << 20)
    url = bad_server.put("/set.zip", zipped(files, "Set/"))
    found = probe(entry_with({"url": url}), patient_web())
    assert (found.cases, found.patients, found.wrapper, found.findings) == (N, N, "Set", ())
    assert found.read_bytes < 200_000 < found.bytes
    del files["labels/p001.nii.gz"]
    bad_server.put("/set.zip", zipped(files))
    found = probe(entry_with({"url": url}), patient_web())
    assert "expected 3 cases by the entry, found 2" in found.findings[0]
    assert "p001" in found.findings[1]
    bad_server.put("/set.zip", zipped({"x.txt": b""}))
    assert "no file fits" in probe(entry_with({"url": url}), patient_web()).findings[0]


def test_probe_of_zip64_records_and_connections_that_drop(bad_server, tmp_path):  # noqa: F811
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", allowZip64=True) as archive:
        for i in range(66_000):  # more than the old directory can count
            archive.writestr(f"f/{i}", b"")
        for name, data in dataset(tmp_path).items():
            archive.writestr(name, data)
    data = out.getvalue()
    page = bad_server.put_record(8, {"set.zip": data})
    link = bad_server.paths["/api/records/8/files/set.zip/content"]
    link.drop_at, link.drops = len(data) - 100, 2
    found = probe(entry_with({"url": page}), patient_web())
    assert (found.files, found.cases, found.findings) == (66_000 + 2 * N, N, ())
    line = downloads_of(entry_with({"url": bad_server.put("/a.zip", data)}))[0]
    from sammed_data.get.records import files_of

    with pytest.raises(FetchError, match="larger than"):
        list_remote_zip(files_of(line, patient_web())[0], patient_web(), max_bytes=1 << 20)


@pytest.mark.parametrize(("fault", "said"), [
    ({"ranges": False}, "sends it whole"), ({"tags": ['"a"', '"b"']}, "changed meanwhile"),
    ({"data": b"no zip at all" * 9}, "expected a zip")])  # fmt: skip
def test_probe_says_why_it_cannot(bad_server, tmp_path, fault, said):  # noqa: F811
    url = bad_server.put("/set.zip", **({"data": zipped(dataset(tmp_path))} | fault))
    with pytest.raises(FetchError, match=said):
        probe(entry_with({"url": url}), patient_web())
    tar = bad_server.put("/set.tar", b"x")
    with pytest.raises(FetchError, match="only a zip"):
        probe(entry_with({"url": tar}), patient_web())
    with pytest.raises(FetchError, match="by hand"):
        probe(fakes.make_entry(), patient_web())


def test_filters_name_their_neighbours(tmp_path):
    rows = list_entries(None, tmp_path, Filters(organ=("Liver",), modality=("ct",)))
    names = {row.entry.id for row in rows}
    assert {"msd_task03_liver", "chaos_ct", "amos22_ct"} <= names
    assert not names & {"hc18", "chaos_mr"}
    tumour = list_entries(None, tmp_path, Filters(organ=("liver_tumor",)))
    assert "msd_task03_liver" in {r.entry.id for r in tumour}
    assert "chaos_ct" not in {r.entry.id for r in tumour}
    licences = {
        r.entry.license for r in list_entries(None, tmp_path, Filters(license=("CC0-1.0",)))
    }
    assert licences
    assert all(found.startswith("CC0-1.0") for found in licences)
    wrong = Filters(organ=("livr",), modality=("CTT",), evidence=("build",), access=("opn",))
    with pytest.raises(UsageError) as said:
        list_entries(None, tmp_path, wrong)
    for word in ("'liver'", "'CT'", "'built'", "'open'"):
        assert word in str(said.value)


def test_costs_are_known_or_unknown_never_made_up():
    pictures = cost_of(fakes.make_entry(dims="2D", modality="ultrasound", expected={"cases": 100}))
    assert (pictures.images, pictures.masks, pictures.download_bytes) == (100, None, None)
    assert pictures.corpus_bytes == 16_000_000
    assert cost_of(fakes.make_entry(expected={"cases": 100})).images is None
    sized = entry_with({"url": "https://x.org/a.zip", "bytes": 10**9}, access="DUA")
    volumes = cost_of(sized)
    assert volumes.download_bytes == 10**9
    assert volumes.core_hours == pytest.approx(230 / 3600)
    assert volumes.to_do == "DUA"
    dermoscopy = cost_of(fakes.make_entry(dims="2D", modality="dermoscopy", expected={"images": 9}))
    assert dermoscopy.core_hours is None  # nobody measured it
    sums = totals([pictures, volumes])
    assert (sums["images"].known, sums["images"].unknown) == (100, 1)
    assert sums["masks"].known is None


def test_ones_own_data_have_no_address_to_open(tmp_path):
    (step,) = steps_by_hand(fakes.make_entry(homepage="own data"), tmp_path, patient_web())
    assert "no address to fetch from (own data)" in step


def test_the_commands(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/set.zip", zipped(dataset(tmp_path)))
    plain = fakes.entry_dict(downloads=[{"url": url}], expected={"cases": N})
    gated = fakes.entry_dict("gated", access="DUA", access_note="sign here")
    fakes.write_catalog(tmp_path / "cat", plain, gated)
    at = ("--source", tmp_path / "cat")
    root = ("--root", tmp_path / "data")

    def call(*args):
        return fakes.call_cli("data", *args, *at)

    run = call("fetch", "gated", "fake_mr", *root)
    assert run.returncode == 1  # one needs a person, the other was fetched
    assert "1. open https://example.org/fake" in run.stdout
    assert "unverified, hash recorded" in run.stdout
    run = call("fetch", "fake_mr", "--json", *root)
    assert (run.returncode, json.loads(run.stdout)[0]["error"]) == (0, None)
    run = call("fetch", "fake_mrr", *root)
    assert (run.returncode, "fake_mr" in run.stderr) == (2, True)

    run = call("probe", "fake_mr", "--json")
    assert (run.returncode, json.loads(run.stdout)["cases"]) == (0, N)
    document = json.loads(call("plan", "--json", *root).stdout)
    assert [s["present"] for s in document["sources"]] == [True, False]
    assert "sign here" in call("plan", *root).stdout
    assert call("list", "--modality", "CTT", *root).returncode == 2
    shown = call("list", *root).stdout
    assert "2 datasets, 1 of them under" in shown
    assert "evidence: written 2, tree-seen 0, built 0" in shown
    assert [r["id"] for r in json.loads(call("list", "--present", "--json", *root).stdout)] == [
        "fake_mr"]  # fmt: skip

    run = call("check", "fake_mr", *root)
    assert (run.returncode, "as the entry says" in run.stdout) == (0, True)
    folder = tmp_path / "data/fake_mr"
    (folder / "images/p000.nii.gz").write_bytes(b"junk")
    (folder / "labels/p002.nii.gz").unlink()
    run = call("check", "fake_mr", *root)
    assert run.returncode == 3
    for word in ("expected 3 cases", "first case cannot be read", "p002"):
        assert word in run.stdout
    run = call("check", "--all", "--json", *root)
    assert (run.returncode, len(json.loads(run.stdout))) == (3, 1)
    assert call("check", *root).returncode == 2
    assert call("check", "gated", *root).returncode == 1


def test_check_names_a_split_that_no_case_is_in(tmp_path):
    fakes.write_source(tmp_path / "data", n=2)
    entry = fakes.entry_dict(splits={"train": ["images/**"], "test": ["test/**"]})
    fakes.write_catalog(tmp_path / "cat", entry)
    run = fakes.call_cli("data", "check", "fake_mr", "--source", tmp_path / "cat", "--root",
                         tmp_path / "data")  # fmt: skip
    assert (run.returncode, "'test'" in run.stdout) == (3, True)


def test_a_restricted_dataset_names_no_file(tmp_path):
    root = fakes.write_source(tmp_path / "data", n=2)
    (root / "labels/p001.nii.gz").unlink()
    (root / "images/p000.nii.gz").write_bytes(b"junk")
    fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(privacy="restricted"))
    run = fakes.call_cli("data", "check", "fake_mr", "--source", tmp_path / "cat", "--root",
                         tmp_path / "data")  # fmt: skip
    assert run.returncode == 3
    assert "p00" not in run.stdout + run.stderr


def test_the_bundled_list_is_long_and_light(tmp_path):
    document = json.loads(fakes.call_cli("data", "list", "--json", cwd=tmp_path).stdout)
    assert len(document) >= 170
    for width in ("80", "120"):
        run = fakes.run_cli("data", "list", cwd=tmp_path, COLUMNS=width)
        assert max(map(len, run.stdout.splitlines())) <= int(width)
        assert f"{len(document)} datasets" in run.stdout


def test_two_runs_do_not_write_one_file(bad_server, tmp_path):  # noqa: F811
    url = bad_server.put("/set.zip", zipped(dataset(tmp_path)))
    work = tmp_path / "data/.fetch/fake_mr"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="another `fetch`"):
            fetch(entry_with({"url": url}), tmp_path / "data", patient_web())
    assert fetch(entry_with({"url": url}), tmp_path / "data", patient_web()).place


def test_servers_are_asked_for_sizes(bad_server, tmp_path):  # noqa: F811
    page = bad_server.put_record(3, {"a.zip": b"x" * 30})
    direct = bad_server.put("/b.zip", b"y" * 12)
    whole = bad_server.put("/c.zip", b"z" * 5, ranges=False)
    entry = entry_with({"url": page}, {"url": direct}, {"url": whole})
    assert ask_size(entry, patient_web()) == (47, "")
    gone = entry_with({"url": bad_server.base + "/gone.zip"})
    assert ask_size(gone, patient_web())[0] is None
    assert cost_of(entry, 47).download_bytes == 47


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_fetch_goes_on(bad_server, tmp_path, signal_number):  # noqa: F811
    data = zipped(dataset(tmp_path) | {"big.bin": bytes(9 << 20)})
    url = bad_server.put("/set.zip", data, stall_at=6 << 20)
    fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(downloads=[{"url": url}]))
    command = [sys.executable, "-m", "sammed", "data", "fetch", "fake_mr",
               "--source", tmp_path / "cat", "--root", tmp_path / "data"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(fakes.REPO)}
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = tmp_path / "data/.fetch/fake_mr/files/set.zip.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= 4 << 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal_number)
    _, said = run.communicate(timeout=20)
    assert run.returncode == (130 if signal_number == signal.SIGINT else -signal.SIGKILL), said
    assert not (tmp_path / "data/fake_mr").exists()
    bad_server.paths["/set.zip"].stall_at = None
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    start = int(bad_server.asked("/set.zip")[-1]["Range"].removeprefix("bytes=").rstrip("-"))
    assert start >= 4 << 20
    assert (tmp_path / "data/fake_mr/big.bin").stat().st_size == 9 << 20


def test_archives_can_get_a_folder_of_their_own_name(bad_server, tmp_path):  # noqa: F811
    files = {k.partition("/")[2]: v for k, v in dataset(tmp_path).items() if k.startswith("images")}
    page = bad_server.put_record(6, {"images.zip": zipped(files), "labels.zip": zipped(files)})
    entry = entry_with({"url": page, "unpack_to": "{stem}"})
    assert probe(entry, patient_web()).cases == N
    done = fetch(entry, tmp_path / "data", patient_web())
    assert sorted(p.name for p in done.place.iterdir()) == ["images", "labels"]


def test_what_lies_here_is_measured(tmp_path):
    root = fakes.write_source(tmp_path / "data", n=2)
    size = sum(p.stat().st_size for p in root.rglob("*.gz"))
    entry = fakes.make_entry()
    assert bytes_on_disk(entry, root) == size
    assert cost_of(entry, disk_bytes=size).corpus_bytes == pytest.approx(size / 2, abs=1)
