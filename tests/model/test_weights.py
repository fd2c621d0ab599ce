"""`sammed weights`: list, fetch, add, show, merge; and names where a path would do."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import sammed
from sammed_bench.choose import choose
from sammed_data.get.download import silent
from sammed_data.types import FetchError, ModelError, UsageError
from sammed_model import cards, load_model
from sammed_model.about import about
from sammed_model.adapters import train_only
from sammed_model.cards import bundled_cards, file_sha256, load_cards, located, weights_folder
from sammed_model.checkpoint import save_model, save_trained, weight_digest
from sammed_model.lora import add_lora
from sammed_model.naming import published_state
from sammed_model.register import add
from sammed_model.sam import build_sam, spec_for
from sammed_model.weights import fetch, merge, steps_by_hand

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from get_server import bad_server, patient_web  # noqa: E402, F401 - a fixture

SIZE = 64


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    folder = tmp_path / "library"
    monkeypatch.setenv("SAMMED_WEIGHTS", str(folder))
    return folder


@pytest.fixture(scope="module")
def model():
    return build_sam(spec_for("vit_tiny", image_size=SIZE), 4)


@pytest.fixture
def published(model, tmp_path):
    path = tmp_path / "sam.pth"
    torch.save(published_state(model), path)
    return path


def run(*words):
    result = CliRunner().invoke(sammed.app, ["weights", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def served(monkeypatch, server, path, **facts):
    """A card of the package whose file a loopback server gives."""
    raw = path.read_bytes()
    card = dataclasses.replace(
        bundled_cards()["medico-sam_vit_b"],
        **{"name": "tiny", "architecture": "vit_tiny", "image_size": SIZE, "file": "tiny.pth",
           "source": server.put("/tiny.pth", raw), "kind": "ft-sam",
           "preprocessing": "released"} | facts,
    )  # fmt: skip
    monkeypatch.setattr(cards, "bundled_cards", lambda: {"tiny": card})
    monkeypatch.setattr("sammed_model.weights.bundled_cards", lambda: {"tiny": card})
    return card


# ---------------------------------------------------------------- list


def test_list_says_what_is_known_and_what_is_here(published):
    document = json.loads(run("list", "--json").stdout)
    rows = {row["name"]: row for row in document["weights"]}
    assert document["folder"] == str(weights_folder())
    assert rows["sam_vit_b"]["bytes"] == 375042383
    assert rows["sam-med2d_b"]["by_hand"]
    assert not rows["sam-med2d_b"]["present"]
    assert rows["medsam_vit_b"]["source"].startswith("https://zenodo.org/")
    shipped = rows.pop("vit_tiny_scenes")
    assert shipped["present"]
    assert shipped["training_sources"] == []
    assert all(row["source"].startswith("https://") and row["license"] for row in rows.values())
    add("mine", published, kind="sam")
    text = run("list").stdout
    assert "mine" in text
    assert "unverified" in text


# ---------------------------------------------------------------- fetch


def test_the_first_fetch_is_unverified_and_recorded(monkeypatch, bad_server, published, library):  # noqa: F811
    served(monkeypatch, bad_server, published)
    card = load_cards()["tiny"]
    got = fetch(card, patient_web(), silent)
    assert (got.verified, got.new) == ("unverified", True)
    assert got.path == library / "tiny.pth"
    lock = yaml.safe_load((library / "weights.lock.yaml").read_text())
    assert lock["files"]["tiny"]["sha256"] == got.sha256 == file_sha256(published)
    assert lock["files"]["tiny"]["url"].endswith("/tiny.pth")
    # From now on the digest tells what the file is, wherever it lies.
    back = load_model("tiny")
    assert (back.kind, back.preprocessing.name) == ("ft-sam", "released")
    assert load_model(published).kind == "ft-sam"
    assert fetch(load_cards()["tiny"], patient_web(), silent).new is False
    assert fetch(load_cards()["tiny"], patient_web(), silent, again=True).verified == "lock"
    bad_server.put("/tiny.pth", b"PK another file")
    with pytest.raises(FetchError, match="expected"):
        fetch(load_cards()["tiny"], patient_web(), silent, again=True)
    assert load_model("tiny").kind == "ft-sam"


def test_a_broken_download_goes_on_where_it_stopped(monkeypatch, bad_server, published):  # noqa: F811
    raw = published.read_bytes()
    served(monkeypatch, bad_server, published, sha256=file_sha256(published), bytes=len(raw))
    bad_server.put("/tiny.pth", raw, drop_at=len(raw) // 3, drops=1)
    got = fetch(load_cards()["tiny"], patient_web(), silent)
    assert (got.verified, got.bytes) == ("card", len(raw))
    assert "Range" in bad_server.asked("/tiny.pth")[-1]
    assert not list(weights_folder().glob("*.part"))


@pytest.mark.parametrize("facts", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"bytes": 12}])
def test_other_bytes_than_the_card_says_are_refused(monkeypatch, bad_server, published, facts):  # noqa: F811
    served(monkeypatch, bad_server, published, **facts)
    with pytest.raises(FetchError, match="expected"):
        fetch(load_cards()["tiny"], patient_web(), silent)
    assert not list(weights_folder().glob("tiny*"))


def test_a_mirror_is_asked_when_the_first_address_fails(monkeypatch, bad_server, published):  # noqa: F811
    card = served(monkeypatch, bad_server, published)
    gone = dataclasses.replace(card, source=bad_server.base + "/gone.pth", mirrors=(card.source,))
    assert fetch(gone, patient_web(), silent).new


def test_a_file_that_is_another_model_is_refused(monkeypatch, bad_server, published):  # noqa: F811
    served(monkeypatch, bad_server, published, architecture="vit_b")
    with pytest.raises(ModelError, match="expected vit_b .* found vit_tiny"):
        fetch(load_cards()["tiny"], patient_web(), silent)


def test_an_md5_of_the_publisher_is_enough_to_know_a_file(monkeypatch, bad_server, published):  # noqa: F811
    import hashlib

    md5 = hashlib.md5(published.read_bytes()).hexdigest()  # noqa: S324 - what the publisher gives
    served(monkeypatch, bad_server, published, md5=md5)
    assert load_model(published).kind == "ft-sam"
    assert fetch(load_cards()["tiny"], patient_web(), silent).verified == "card"


def test_a_drive_page_gives_steps_and_exit_code_1():
    result = run("fetch", "sam-med2d_b")
    assert result.exit_code == 1
    assert "1. address: https://drive.google.com/" in result.stdout
    assert "sammed weights add sam-med2d_b PATH" in result.stdout
    rows = json.loads(run("fetch", "ft-sam_b", "--json").stdout)
    assert rows[0]["steps"] == steps_by_hand(load_cards()["ft-sam_b"])


def test_unknown_names_list_their_neighbours():
    with pytest.raises(UsageError, match="sam_vit_b"):
        run("fetch", "sam_vitb")


def test_fetching_by_command(monkeypatch, bad_server, published):  # noqa: F811
    served(monkeypatch, bad_server, published)
    result = run("fetch", "tiny")
    assert result.exit_code == 0
    assert "unverified" in result.stdout
    assert json.loads(run("fetch", "tiny", "--json").stdout)[0]["new"] is False
    bad_server.paths.clear()
    result = run("fetch", "tiny", "--again", "--json")
    assert result.exit_code == 1
    assert "404" in json.loads(result.stdout)[0]["error"]


# ---------------------------------------------------------------- add


def test_a_file_of_the_users_is_known_by_name_and_by_content(published, library):
    card = add("liver-2024", published, kind="ft-sam", preprocessing="default",
               trained_on=["our liver CT"], license_="CC-BY-4.0")  # fmt: skip
    assert card.verified == "unverified"
    for path in ("liver-2024", published):
        back = load_model(path)
        assert (back.kind, back.preprocessing.name) == ("ft-sam", "default")
        assert back.metadata["card"] == "liver-2024"
    found = about(published)
    assert found.trained_on == ("our liver CT",)
    assert found.known_from == "card liver-2024"
    assert (library / "cards" / "liver-2024.yaml").is_file()
    published.unlink()
    with pytest.raises(ModelError, match="sammed weights fetch liver-2024"):
        load_model("liver-2024")


def test_a_published_file_got_by_hand_takes_what_its_card_says(monkeypatch, published):
    card = dataclasses.replace(bundled_cards()["ft-sam_b"], architecture="vit_tiny", image_size=64)
    monkeypatch.setattr(cards, "bundled_cards", lambda: {"ft-sam_b": card})
    monkeypatch.setattr("sammed_model.register.bundled_cards", lambda: {"ft-sam_b": card})
    made = add("ft-sam_b", published)
    assert (made.kind, made.preprocessing) == ("ft-sam", "released")
    assert made.training_sources == card.training_sources
    assert load_model("ft-sam_b").kind == "ft-sam"
    with pytest.raises(ModelError, match="the card ft-sam_b says ft-sam, --kind says sam"):
        add("ft-sam_b", published, kind="sam")


def test_what_cannot_be_registered(published, model, tmp_path):
    with pytest.raises(UsageError, match="give --kind sam, ft-sam"):
        add("mine", published)
    with pytest.raises(ModelError, match="unknown kind"):
        add("mine", published, kind="ftsam")
    with pytest.raises(UsageError, match="expected a name of letters"):
        add("../mine", published, kind="sam")
    with pytest.raises(ModelError, match="found none"):
        add("mine", tmp_path / "absent.pth", kind="sam")
    with pytest.raises(ModelError, match="SHA-256 ec2df6273261"):
        add("sam_vit_b", published)
    with pytest.raises(ModelError, match="expected vit_b for ft-sam_b, found vit_tiny"):
        add("ft-sam_b", published)
    adapted = tmp_path / "adapted.pth"
    torch.save(published_state(build_sam(spec_for("vit_tiny", adapters="sam-med2d"))), adapted)
    with pytest.raises(ModelError, match="has adapters"):
        add("mine", adapted, kind="ft-sam")
    add("mine", published, kind="sam")
    with pytest.raises(ModelError, match="already registered as mine, of kind sam"):
        add("other", published, kind="ft-sam")
    other = tmp_path / "other.safetensors"
    save_model(build_sam(spec_for("vit_tiny", image_size=SIZE), 9), other)
    with pytest.raises(UsageError, match="or --replace"):
        add("mine", other)
    assert add("mine", other, replace_=True).kind == "sam"


def test_our_own_files_say_themselves_what_they_are(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path, recipe="mended recipe")
    assert add("ours", path).kind == "sam"
    with pytest.raises(ModelError, match="the file says sam, --kind says ft-sam"):
        add("ours", path, kind="ft-sam")
    with pytest.raises(ModelError, match="wants preprocessing default"):
        add("ours", path, preprocessing="medsam")


def test_cards_that_cannot_be_understood_are_named(library):
    (library / "cards").mkdir(parents=True)
    for text in ("[1]", "kind: sam", "kind: sam\nunknown: 1", ": :"):
        (library / "cards" / "bad.yaml").write_text(text)
        with pytest.raises(ModelError, match=r"bad\.yaml"):
            load_cards()
    (library / "cards" / "bad.yaml").unlink()
    (library / "weights.lock.yaml").write_text("lock_version: 2")
    with pytest.raises(ModelError, match="lock of version 1"):
        load_cards()


# ---------------------------------------------------------------- names elsewhere


def test_names_do_where_a_path_would(published, tmp_path):
    add("mine", published, kind="medsam")
    assert located("mine") == published
    (wanted,) = choose(["medsam=mine"], tmp_path / "runs")
    assert wanted.path == published
    (bare,) = choose(["mine"], tmp_path / "runs")
    assert (bare.label, bare.path) == ("mine", published)
    with pytest.raises(ModelError, match="sammed weights fetch NAME"):
        load_model(tmp_path / "nowhere.pth")
    with pytest.raises(ModelError, match="sammed weights fetch sam_vit_b"):
        load_model("sam_vit_b")
    with pytest.raises(ModelError, match="sammed weights fetch"):
        choose(["medsam"], tmp_path / "runs")


# ---------------------------------------------------------------- show, merge


def test_show_says_what_a_file_is(model, published, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path, recipe="mended recipe")
    record = {"datasets": ["phantom_ct"], "init": "sam_vit_b"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    document = json.loads(run("show", path, "--json").stdout)
    assert document["sha256"] == file_sha256(path)
    assert document["kind"] == "sam"
    assert document["spec"]["image_size"] == SIZE
    assert document["trained_on"] == ["phantom_ct", "what its start had seen (sam_vit_b)"]
    text = run("show", published).stdout
    assert "vit_tiny at 64 px, adapters: none" in text
    assert "not known: give it as LABEL=PATH:KIND" in text


def test_merge_gives_the_model_that_the_two_files_give(model, tmp_path):
    save_model(model, tmp_path / "base.safetensors")
    base = load_model(tmp_path / "base.safetensors")
    digest = weight_digest(base)
    add_lora(base, rank=2, alpha=4.0)
    names = train_only(base, "lora")
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.requires_grad:
                parameter += 0.02
    trained = tmp_path / "trained.safetensors"
    save_trained(base, trained, digest, base_path="base.safetensors", names=names,
                 extra={"lora": json.dumps({"rank": 2, "alpha": 4.0})})  # fmt: skip
    result = run("merge", trained, "--out", tmp_path / "whole.safetensors")
    assert result.exit_code == 0
    whole = load_model(tmp_path / "whole.safetensors")
    assert weight_digest(whole) == weight_digest(load_model(trained))
    assert about(trained).base == "base.safetensors"
    with pytest.raises(UsageError, match="found a whole model"):
        merge(tmp_path / "whole.safetensors", tmp_path / "x.safetensors")
    other = tmp_path / "other.safetensors"
    save_model(build_sam(spec_for("vit_tiny", image_size=SIZE), 8), other)
    with pytest.raises(ModelError, match="give the base it was trained on"):
        merge(trained, tmp_path / "x.safetensors", base=other)
    assert not (tmp_path / "x.safetensors").exists()
