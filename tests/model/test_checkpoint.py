"""Weight files: round trips, published layouts, refusals, and pickles that would run code."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict, defaultdict

import pytest
import torch
from torch.nn import functional

from sammed_data.types import ModelError
from sammed_model import cards, checkpoint
from sammed_model.adapters import add_adapters, drop_adapters, train_only
from sammed_model.cards import file_sha256, load_cards
from sammed_model.checkpoint import load_model, save_model, save_trained, weight_digest
from sammed_model.frame import Preprocessing
from sammed_model.naming import published_state
from sammed_model.pickled import read_pickled
from sammed_model.sam import build_sam, spec_for
from sammed_model.tensorfile import read_metadata

SIZE = 64


def tiny(adapters="none", seed=1, image_size=SIZE):
    return build_sam(spec_for("vit_tiny", image_size=image_size, adapters=adapters), seed)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def adapted():
    return tiny("sam-med2d")


# ---------------------------------------------------------------- ours


def test_round_trip_keeps_weights_kind_preprocessing_and_words(adapted, tmp_path):
    adapted.kind = "sam-med2d"
    adapted.preprocessing = Preprocessing.named("released", SIZE)
    path = tmp_path / "model.safetensors"
    save_model(adapted, path, recipe="mended recipe", extra={"corpus": "abc"})
    back = load_model(path)
    assert weight_digest(back) == weight_digest(adapted)
    assert back.spec == adapted.spec
    assert back.kind == "sam-med2d"
    assert back.preprocessing == adapted.preprocessing
    assert back.metadata == {"recipe": "mended recipe", "corpus": "abc"}
    assert read_metadata(path)["recipe"] == "mended recipe"
    again = tmp_path / "again.safetensors"
    save_model(back, again)
    assert file_sha256(again) == file_sha256(path)
    assert not list(tmp_path.glob("*.partial"))


def test_files_carry_published_names(adapted, tmp_path):
    save_model(adapted, tmp_path / "a.safetensors")
    from safetensors.torch import load_file

    names = load_file(tmp_path / "a.safetensors").keys()
    assert "image_encoder.blocks.0.Adapter.norm.weight" in names
    assert "image_encoder.blocks.0.mlp.lin1.weight" in names


def test_the_kind_in_the_file_is_not_overruled(model, tmp_path):
    save_model(model, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"kind sam, found 'ft-sam'"):
        load_model(tmp_path / "a.safetensors", kind="ft-sam")


def trained_on(base_path, tmp_path, method="sam-med2d"):
    base = load_model(base_path)
    digest = weight_digest(base)
    if method == "sam-med2d":
        add_adapters(base, seed=5)
    names = train_only(base, method)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    path = tmp_path / f"{method}.safetensors"
    save_trained(base, path, digest, base_path=base_path.name, names=names, recipe="tiny")
    return base, path


@pytest.mark.parametrize("method", ["sam-med2d", "ft-sam"])
def test_trained_tensors_go_onto_their_base(model, tmp_path, method):
    save_model(model, tmp_path / "base.safetensors")
    trained, path = trained_on(tmp_path / "base.safetensors", tmp_path, method)
    assert path.stat().st_size < (tmp_path / "base.safetensors").stat().st_size * 2
    back = load_model(path)
    assert weight_digest(back) == weight_digest(trained)
    assert back.kind == method
    assert back.metadata["recipe"] == "tiny"
    assert load_model(path, image_size=96).spec.image_size == 96
    (tmp_path / "base.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(ModelError, match="needs its base, found none at"):
        load_model(path)
    assert weight_digest(load_model(path, base=tmp_path / "moved.safetensors")) == weight_digest(
        trained
    )


def test_trained_tensors_refuse_another_base(model, tmp_path):
    save_model(model, tmp_path / "base.safetensors")
    _, path = trained_on(tmp_path / "base.safetensors", tmp_path)
    save_model(tiny(seed=2), tmp_path / "base.safetensors")
    with pytest.raises(ModelError, match="give the base it was trained on"):
        load_model(path)


def test_trained_tensors_on_a_published_base(model, tmp_path):
    torch.save(published_state(model), tmp_path / "sam.pth")
    base = load_model(tmp_path / "sam.pth", kind="sam")
    digest = weight_digest(base)
    names = train_only(base, "ft-sam")
    save_trained(base, tmp_path / "t.safetensors", digest, base_path="sam.pth", names=names)
    assert load_model(tmp_path / "t.safetensors").kind == "ft-sam"


# ---------------------------------------------------------------- published layouts


class FakeOptimiser:
    """Stands for a whole pickled optimiser object."""

    def __init__(self, parameters):
        self.state = defaultdict(dict)
        self.param_groups = [{"params": list(parameters), "lr": 1e-4}]
        for p in self.param_groups[0]["params"]:
            self.state[p] = {"exp_avg": torch.zeros_like(p)}


def published_files(model, folder):
    state = OrderedDict((k, v.clone()) for k, v in published_state(model).items())
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(3, 5))])
    adam.param_groups[0]["params"][0].grad = torch.ones(3, 5)
    adam.step()
    files = {
        "flat": state,
        "wrapped": {"model": state, "optimizer": adam.state_dict(), "epoch": 3},
        "adam": {"model": state, "optimizer": adam},
        "object": {"model": state, "optimizer": FakeOptimiser([torch.nn.Parameter(torch.ones(2))])},
        "parallel": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        "constants": {
            **state,
            "pixel_mean": torch.zeros(3, 1, 1),
            "pixel_std": torch.ones(3, 1, 1),
        },
        "half": {k: v.half() for k, v in state.items()},
    }
    for name, content in files.items():
        torch.save(content, folder / f"{name}.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return [*files, "old"]


def test_every_published_layout_gives_the_same_weights(adapted, tmp_path):
    for name in published_files(adapted, tmp_path):
        back = load_model(tmp_path / f"{name}.pth", kind="sam-med2d")
        assert back.spec == adapted.spec, name
        assert back.preprocessing.name == "released"
        assert back.metadata == {"recipe": "released weights"}
        if name != "half":
            assert weight_digest(back) == weight_digest(adapted), name
        assert all(p.dtype == torch.float32 and p.requires_grad for p in back.parameters())


def test_the_restricted_reader_handles_views_and_types(tmp_path):
    table = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    state = {
        "view": table[1:, 2:5].t(),
        "same": table,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.full((2,), 7.0)),
        "long": torch.tensor([1, -2]),
    }
    torch.save({"model": state, "optimizer": FakeOptimiser([])}, tmp_path / "a.pth")
    back = read_pickled(tmp_path / "a.pth")
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(back[name], value), name
        assert back[name].dtype == value.dtype


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_foreign_code_never_runs(model, tmp_path, place):
    proof = tmp_path / "ran"
    state = dict(published_state(model))
    content = {"model": state, "optimizer": Malicious(proof)}
    if place == "inside":
        content = {"model": {**state, "x": Malicious(proof)}}
    torch.save(content, tmp_path / "evil.pth")
    with (tmp_path / "raw.pth").open("wb") as file:
        pickle.dump(Malicious(proof), file, protocol=2)
    if place == "beside":
        assert weight_digest(load_model(tmp_path / "evil.pth", kind="sam")) == weight_digest(model)
    else:
        with pytest.raises(ModelError, match="other things: x"):
            load_model(tmp_path / "evil.pth", kind="sam")
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path / "raw.pth", kind="sam")
    assert not proof.exists()


def test_dropping_the_adapters_of_a_file_is_sam_med2d_star(adapted, model, tmp_path):
    torch.save(published_state(adapted), tmp_path / "a.pth")
    star = drop_adapters(load_model(tmp_path / "a.pth", kind="sam-med2d"))
    assert published_state(star).keys() == published_state(model).keys()


# ---------------------------------------------------------------- kind


def test_a_file_without_a_card_needs_its_kind(model, adapted, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(published_state(model), path)
    with pytest.raises(ModelError, match=r"LABEL=.*a\.pth:KIND with KIND one of sam, ft-sam"):
        load_model(path)
    assert load_model(path, kind="medsam").preprocessing.name == "medsam"
    assert load_model(path, kind="ft-sam").mask_feedback == "sigmoid"
    with pytest.raises(ModelError, match="unknown kind"):
        load_model(path, kind="ftsam")
    torch.save(published_state(adapted), path)
    with pytest.raises(ModelError, match="kind sam-med2d, found 'sam'"):
        load_model(path, kind="sam")


def test_a_card_is_found_by_the_content_of_the_file(model, tmp_path, monkeypatch):
    path = tmp_path / "renamed.pth"
    torch.save(published_state(model), path)
    card = load_cards()["ft-sam_b"]
    facts = {"architecture": "vit_tiny", "image_size": SIZE, "sha256": file_sha256(path)}
    fields = {**vars(card), **facts, "bytes": path.stat().st_size}
    monkeypatch.setattr(cards, "load_cards", lambda: {"x": cards.ModelCard(**fields)})
    back = load_model(path)
    assert (back.kind, back.preprocessing.name) == ("ft-sam", "released")
    assert back.metadata["card"] == "ft-sam_b"
    with pytest.raises(ModelError, match="kind ft-sam, found 'sam' asked for"):
        load_model(path, kind="sam")
    # Weights that were trained on are no longer the card's.
    save_model(back, tmp_path / "b.safetensors", recipe="mended recipe")
    assert load_model(tmp_path / "b.safetensors").metadata == {"recipe": "mended recipe"}


def test_bundled_cards_say_what_they_must():
    found = load_cards()
    assert {
        "sam_vit_b",
        "sam_vit_l",
        "sam_vit_h",
        "ft-sam_b",
        "sam-med2d_b",
        "medsam_vit_b",
        "medico-sam_vit_b",
        "vit_tiny_scenes",
    } == set(found)
    for name, card in found.items():
        assert name == "vit_tiny_scenes" or card.source.startswith("https://")
        assert name == "vit_tiny_scenes" or card.training_sources
        assert card.sha256 is None or len(card.sha256) == 64
        assert (card.sha256 is None) or card.bytes


# ---------------------------------------------------------------- sizes


def test_another_image_size_resizes_positions_as_the_published_code(model, tmp_path):
    source = tiny(image_size=SIZE)
    with torch.no_grad():
        for name, p in source.named_parameters():
            if "pos" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    save_model(source, tmp_path / "a.safetensors")
    got = published_state(load_model(tmp_path / "a.safetensors", image_size=160))
    old = published_state(source)
    grid = old["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    want = functional.interpolate(grid, (20, 20), mode="bilinear", align_corners=False)
    assert torch.equal(got["image_encoder.pos_embed"], want.permute(0, 2, 3, 1))
    relative = "image_encoder.blocks.{}.attn.rel_pos_h"
    table = old[relative.format(2)]
    assert table.shape == (15, 32)
    linear = functional.interpolate(table.T[None], 39, mode="linear", align_corners=False)[0].T
    assert torch.allclose(got[relative.format(2)], linear, atol=1e-6)
    assert torch.equal(got[relative.format(1)], old[relative.format(1)])
    others = [k for k in old if "pos_embed" not in k and "rel_pos" not in k]
    assert all(torch.equal(got[k], old[k]) for k in others)


def test_the_size_in_the_file_is_taken_unless_told(model, tmp_path):
    save_model(model, tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").spec.image_size == SIZE
    other = load_model(tmp_path / "a.safetensors", image_size=128)
    assert other.spec.image_size == other.preprocessing.image_size == 128
    with torch.inference_mode():
        assert other.encode(torch.zeros(1, 3, 128, 128)).shape == (1, 64, 16, 16)


# ---------------------------------------------------------------- refusals


def test_missing_and_unexpected_names_are_listed(adapted, tmp_path):
    state = dict(published_state(adapted))
    del state["image_encoder.blocks.3.Adapter.norm.bias"]
    state["mask_decoder.extra"] = torch.zeros(1)
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 32)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "a.pth", kind="sam-med2d")
    message = str(caught.value)
    assert "missing image_encoder.blocks.3.Adapter.norm.bias" in message
    assert "unexpected mask_decoder.extra" in message
    assert "mask_decoder.iou_token.weight (1, 32) instead of (1, 64)" in message


def test_an_encoder_of_unknown_size_is_refused(model, tmp_path):
    state = {k: v for k, v in published_state(model).items() if "blocks.5" not in k}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"known size .* found 128 x 5 with patches of 8 px"):
        load_model(tmp_path / "a.pth", kind="sam")
    torch.save({"fc.weight": torch.zeros(2, 3)}, tmp_path / "b.pth")
    with pytest.raises(ModelError, match="1 tensors such as fc.weight"):
        load_model(tmp_path / "b.pth", kind="sam")


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", b"these are no weights\n", "another format"),
        ("a.safetensors", b"these are no weights\n", "another format"),
        ("empty.pth", b"", "another format"),
        ("pickle.pth", b"\x80\x02]q\x00.", "damaged"),
        ("head.safetensors", b"\xff\x00\x00\x00\x00\x00\x00\x00{", "damaged"),
    ],
)
def test_what_is_no_weight_file_is_one_sentence(tmp_path, name, content, words):
    with pytest.raises(ModelError, match=words) as caught:
        load_model(write(tmp_path / name, content), kind="sam")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(model, tmp_path, share):
    save_model(model, tmp_path / "a.safetensors")
    torch.save({"model": dict(published_state(model)), "o": FakeOptimiser([])}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        whole = (tmp_path / name).read_bytes()
        write(tmp_path / name, whole[: int(len(whole) * share)])
        with pytest.raises(ModelError, match="damaged"):
            load_model(tmp_path / name, kind="sam")


def test_a_flipped_byte_in_a_pth_file_is_noticed(model, tmp_path):
    content = {"model": dict(published_state(model)), "optimizer": FakeOptimiser([])}
    torch.save(content, tmp_path / "a.pth")
    raw = bytearray((tmp_path / "a.pth").read_bytes())
    raw[len(raw) // 2] ^= 0x40
    with pytest.raises(ModelError, match="damaged"):
        load_model(write(tmp_path / "a.pth", bytes(raw)), kind="sam")


def test_paths_that_cannot_be_used(model, tmp_path):
    with pytest.raises(ModelError, match="found none"):
        load_model(tmp_path / "absent.pth")
    with pytest.raises(ModelError, match="expected to write weights to"):
        save_model(model, tmp_path / "no" / "folder.safetensors")


def test_weights_of_a_later_version_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FULL", "full-9")
    save_model(model, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="format full-1 or trained-1 .* found 'full-9'"):
        load_model(tmp_path / "a.safetensors")


def test_a_description_that_is_not_ours_is_refused(tmp_path):
    from safetensors.torch import save_file

    for text in ("no json", "[1]", '{"kind": "sam"}', '{"format": "full-1", "kind": "sam"}'):
        save_file({"x": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"sammed": text})
        with pytest.raises(ModelError, match=r"a\.safetensors"):
            load_model(tmp_path / "a.safetensors")
