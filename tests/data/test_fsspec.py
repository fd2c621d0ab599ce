"""A corpus on a store that cannot rename, lock or list what was just written in one step."""

from __future__ import annotations

import subprocess
import sys

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sammed_data.build import Order, build
from sammed_data.corpus import Corpus
from sammed_data.part import Part
from sammed_data.parts import build_part, merge, status
from sammed_data.plan import BuildOptions
from sammed_data.run_shards import How
from sammed_data.stores import RemotePath, local_folder, place
from sammed_data.types import CorpusError, UsageError
from tests.data import build_fakes as fakes


class NoRename(LocalFileSystem):
    """Local files behind an API without rename, append or lock, as an object store has."""

    protocol = "norename"

    def mv(self, *_, **__):
        raise NotImplementedError("no rename here")

    mv_file = rename = move = mv

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("norename://").lstrip("/")


fsspec.register_implementation("norename", NoRename, clobber=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    fakes.write_source(base / "data")
    fakes.write_source(base / "data", n=2, name="other_mr")
    cat = fakes.write_catalog(base / "cat", fakes.entry_dict(), fakes.entry_dict("other_mr"))
    return cat, base / "data"


@pytest.fixture(scope="module")
def local(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "corpus"
    return out, build(*source, out).manifest


@pytest.fixture(params=["memory", "norename"])
def url(request, tmp_path):
    if request.param == "memory":
        MemoryFileSystem.store.clear()
        yield "memory://bucket/corpus"
        MemoryFileSystem.store.clear()
    else:
        yield f"norename:/{tmp_path}/store/corpus"


def _objects(url):
    """Name -> bytes of all that is published there."""
    fs = fsspec.filesystem(url.partition(":")[0])
    root = url.partition(":")[2].replace("//", "/")
    return {
        name.removeprefix(root).lstrip("/"): fs.cat_file(name)
        for name in fs.find(root)
        if "/.partial/" not in name
    }


def test_build_and_read_at_a_url(source, local, url):
    result = build(*source, place(url))
    out, manifest = local
    assert result.manifest == manifest
    assert _objects(url) == {
        k: (out / k).read_bytes()
        for k in fakes.tree(out)
        if not k.startswith((".partial", "index"))
    }
    near, far = Corpus(out), Corpus(url)
    rows = far.index(["train"])
    assert [r.sample_id for r in rows] == [r.sample_id for r in near.index(["train"])]
    found, wanted = far.read(rows[3]), near.read(near.index(["train"])[3])
    assert (found.image == wanted.image).all()
    again = build(*source, place(url))
    assert (again.built, again.reused) == (0, result.built)


def test_the_manifest_comes_last_and_until_then_nothing_is_there(source, url, monkeypatch):
    from sammed_data import publish as publishing

    def stop(name):
        if name == "during_publish":
            raise RuntimeError("the machine went away")

    monkeypatch.setattr(publishing, "fail_point", stop)
    with pytest.raises(RuntimeError):
        build(*source, place(url))
    with pytest.raises(CorpusError, match=r"manifest\.json"):
        Corpus(url)
    assert not status(place(url)).published
    monkeypatch.undo()
    done = build(*source, place(url))
    assert done.built == 0
    assert len(Corpus(url).index()) == done.manifest["counts"]["images"]["kept"]


def test_parts_and_merge_at_a_url(source, local, url):
    for index in range(2):
        order = Order(source=source[0], root=source[1])
        build_part(order, place(url), Part(index=index, count=2), How())
    assert merge(place(url)).manifest == local[1]


def test_other_options_replace_it_and_old_objects_go(source, url):
    build(*source, place(url))
    build(*source, place(url), options=BuildOptions(min_part_px=1), drop=["other_mr"])
    assert not [name for name in _objects(url) if "other_mr" in name]


def test_the_command_line_takes_a_url_and_a_worker_writes_there(source, tmp_path):
    url = f"file://{tmp_path}/corpus"
    for verb in (
        ("build", "--source", source[0], "--root", source[1], "--out", url, "--workers", 2),
        ("describe", url),
        ("status", url),
    ):
        said = fakes.call_cli("data", *verb)
        assert said.returncode == 0, said.stderr
    assert (tmp_path / "corpus/manifest.json").is_file()


def test_a_url_survives_being_a_path():
    from pathlib import Path

    assert str(place(Path("s3://bucket/a/b".replace("s3", "memory")))) == "memory://bucket/a/b"
    assert place("file:///a/b") == Path("/a/b")
    assert place("a/b") == Path("a/b")
    assert isinstance(place("memory://x"), RemotePath)


def test_an_unknown_or_missing_store_is_a_sentence(source):
    with pytest.raises(CorpusError, match="no file system for nowhere://"):
        Corpus("nowhere://bucket/corpus")
    with pytest.raises(UsageError, match="--root is a local folder"):
        build(source[0], place("memory://archives"), place("memory://c"))


def test_fsspec_is_not_loaded_for_a_local_corpus(local):
    code = (
        "import sys; from sammed_data.corpus import Corpus\n"
        f"c = Corpus({str(local[0])!r}); c.read(c.index()[0])\n"
        "assert 'fsspec' not in sys.modules and 'datasets' not in sys.modules\n"
        "Corpus('memory://x')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=fakes.REPO, capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert "expected a corpus at memory://x" in run.stderr
    assert "AssertionError" not in run.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--root", "s3://bucket/raw", "--out", "c"),
        ("list", "--root", "memory://raw"),
        ("check", "hc18", "--root", "gs://bucket/raw"),
        ("fetch", "hc18", "--root", "s3://bucket/raw"),
        ("fetch", "hc18"),  # by $SAMMED_DATA
        ("init", "https://host/raw", "--yes"),
    ],
    ids=" ".join,
)
def test_raw_data_on_a_store_are_refused_with_a_way_out(words, tmp_path, monkeypatch):
    if "--root" not in words:
        monkeypatch.setenv("SAMMED_DATA", "s3://bucket/raw")
    run = fakes.call_cli("data", *words, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert "://" in run.stderr
    assert "mount it" in run.stderr
    assert "sammed data fetch" in run.stderr
    assert not list(tmp_path.iterdir())  # no local folder called s3:


def test_a_local_address_is_a_folder(tmp_path):
    assert local_folder(f"file://{tmp_path}", "--root") == tmp_path
    (tmp_path / "s3:").mkdir()
    assert local_folder(tmp_path / "s3:", "--root") == tmp_path / "s3:"
