"""A loaded model against upstream's own SAM in the same process: every prompt and combination."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from golden_fill import image_tensor, mask_prompt
from golden_fill import weights as golden_weights
from segment_anything import modeling

from sammed_model import load_model
from sammed_model.sam import SPECS
from sammed_model.types import Prompts

LIVE = 1.5e-6
KINDS = ("points", "boxes", "masks")
COMBINATIONS = [c for n in range(1, 4) for c in itertools.combinations(KINDS, n)]


def upstream(name, size):
    """Meta's SAM by its own classes at any image size, filled by name."""
    spec = SPECS[name]
    grid = size // 16
    live = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=spec.depth, embed_dim=spec.embed_dim, img_size=size, mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), num_heads=spec.num_heads,
            patch_size=16, qkv_bias=True, use_rel_pos=True, window_size=14, out_chans=256,
            global_attn_indexes=spec.global_attn_indexes,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=256, image_embedding_size=(grid, grid), input_image_size=(size, size),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3, transformer_dim=256, iou_head_depth=3,
            iou_head_hidden_dim=256,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
            ),
        ),
    ).eval()  # fmt: skip
    shapes = {k: tuple(v.shape) for k, v in live.state_dict().items()}
    live.load_state_dict(golden_weights(shapes))
    return live


def prompts_for(size, kinds):
    """Two masks of one image, in upstream's arguments."""
    s = size / 256
    every = {
        "points": (
            torch.tensor([[[120.0, 130], [30, 210]], [[77.5, 12], [9, 90]]]) * s,
            torch.tensor([[1, 0], [1, -1]]),
        ),
        "boxes": torch.tensor([[48.0, 60, 180, 200], [5, 9, 77, 31]]) * s,
        "masks": torch.cat([mask_prompt(size // 4), 1 - 2 * mask_prompt(size // 4)]),
    }
    return {kind: every[kind] if kind in kinds else None for kind in KINDS}


def distance(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm())


def check(model, live, size, combinations):
    x = image_tensor(size)
    with torch.inference_mode():
        wanted = live.image_encoder(x)
        assert distance(model.image_encoder(x), wanted) < LIVE
        embedding = model.encode(x)
        assert distance(embedding, wanted) < LIVE
        for kinds in combinations:
            asked = prompts_for(size, kinds)
            parts = [decoded(m, e, asked) for m, e in ((model, wanted), (live, wanted))]
            for got, want in zip(*parts, strict=True):
                assert distance(got, want) < LIVE, kinds
            output = model.decode(embedding, ours(asked))
            multi, single = parts[1][2:4], parts[1][4:6]
            assert distance(output.low_res_MKhw[:, 1:], multi[0]) < LIVE, kinds
            assert distance(output.iou_MK[:, 1:], multi[1]) < LIVE, kinds
            assert distance(output.low_res_MKhw[:, :1], single[0]) < LIVE, kinds
            assert distance(output.iou_MK[:, :1], single[1]) < LIVE, kinds


def decoded(sam, embedding, asked):
    """Sparse, dense, then masks and IoU with several masks and with one: upstream's own calls."""
    sparse, dense = sam.prompt_encoder(**asked)
    out = [sparse, dense] if sparse.numel() else [dense, dense]
    for several in (True, False):
        out += sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
    return out


def ours(asked):
    points, labels = asked["points"] or (None, None)
    return Prompts(
        image_index_M=torch.zeros(2, dtype=torch.int64),
        points_MN2=points,
        point_labels_MN=labels,
        boxes_M4=asked["boxes"],
        mask_M1hw=asked["masks"],
    )


def test_vit_b_at_256_px(tmp_path):
    live = upstream("vit_b", 256)
    torch.save(live.state_dict(), tmp_path / "sam.pth")
    model = load_model(tmp_path / "sam.pth", kind="sam")
    assert (model.spec.name, model.spec.image_size) == ("vit_b", 256)
    check(model, live, 256, COMBINATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_l", "vit_h"])
def test_larger_ones_at_256_px(tmp_path, name):
    live = upstream(name, 256)
    torch.save(live.state_dict(), tmp_path / "sam.pth")
    check(load_model(tmp_path / "sam.pth", kind="sam"), live, 256, COMBINATIONS[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_at_1024_px(tmp_path, name):
    live = upstream(name, 1024)
    torch.save(live.state_dict(), tmp_path / "sam.pth")
    model = load_model(tmp_path / "sam.pth", kind="sam")
    assert (model.spec.name, model.spec.image_size) == (name, 1024)
    check(model, live, 1024, COMBINATIONS if name == "vit_b" else COMBINATIONS[-1:])


@pytest.mark.slow
def test_a_file_of_1024_px_at_256_px_is_upstream_with_resized_positions(tmp_path):
    from sammed_model.naming import published_state

    torch.save(upstream("vit_b", 1024).state_dict(), tmp_path / "sam.pth")
    model = load_model(tmp_path / "sam.pth", kind="sam", image_size=256)
    live = upstream("vit_b", 256)
    live.load_state_dict(published_state(model))
    check(model, live, 256, COMBINATIONS)
