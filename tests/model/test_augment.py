"""Image, masks and valid region move alike; sides are kept; draws are of the visit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sammed_model import augment as module
from sammed_model.augment import augment
from sammed_model.dataset import Batch
from sammed_model.prompts import prompt_seed

SIDE = 48


def batch_of(n=16, *, sided=(), epoch=0) -> Batch:
    """Disc on grey in an image of 36 x 40 px, padded; the disc is left of the middle."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    disc = ((y - 16) ** 2 + (x - 12) ** 2 <= 36)[None, None]
    valid = ((y < 36) & (x < 40))[None, None]
    image = torch.where(disc, 2.0, 0.3 + 0.1 * (x / SIDE))[0, 0].expand(3, SIDE, SIDE)
    return Batch(
        images_B3SS=(image * valid[0]).expand(n, 3, SIDE, SIDE).contiguous(),
        masks_M1SS=disc.expand(n, 1, SIDE, SIDE).contiguous(),
        valid_B1SS=valid.expand(n, 1, SIDE, SIDE).contiguous(),
        image_index_M=torch.arange(n),
        seeds_M=torch.arange(n),
        keys=tuple(map(str, range(n))),
        visit_seeds_B=torch.tensor([prompt_seed(str(i), 0, "augment", epoch, 0) for i in range(n)]),
        sided_B=torch.tensor([i in sided for i in range(n)]),
    )


@pytest.mark.parametrize("level", ["light", "strong"])
def test_all_three_move_alike(level):
    made = augment(batch_of(), level)
    moved = 0
    for image, mask, valid in zip(made.images_B3SS, made.masks_M1SS, made.valid_B1SS, strict=True):
        disc = mask[0]
        assert disc.any()
        assert valid[0][disc].float().mean() > 0.95
        inside, outside = image[0][disc].mean(), image[0][valid[0] & ~disc].mean()
        assert inside > outside + 0.5  # the bright disc is where its mask is
        # Padding stays exactly zero but for the seam of interpolation.
        seam = torch.nn.functional.max_pool2d(valid.float()[None], 5, 1, 2)[0] > 0
        assert (image[:, ~seam[0]] == 0).all()
        moved += int(not torch.equal(mask, batch_of(1).masks_M1SS[0]))
    assert moved >= 14


def handedness(made: Batch) -> list[bool]:
    """Whether the disc still lies on the left of its image, seen from the valid region."""
    x = torch.arange(SIDE).float()
    left = []
    for mask, valid in zip(made.masks_M1SS, made.valid_B1SS, strict=True):
        centres = [(p[0].float().sum(0) * x).sum() / p.sum() for p in (mask, valid)]
        left.append(bool(centres[0] < centres[1]))
    return left


def test_sided_structures_are_never_mirrored():
    free = handedness(augment(batch_of(32), "light"))
    assert 8 <= sum(free) <= 24
    sided = handedness(augment(batch_of(32, sided=range(32)), "light"))
    assert all(sided)
    some = handedness(augment(batch_of(32, sided=(3, 7)), "light"))
    assert [some[i] for i in range(32) if i not in (3, 7)] == [
        free[i] for i in range(32) if i not in (3, 7)
    ]


def test_draws_belong_to_the_visit_and_not_to_the_company():
    whole = augment(batch_of(6), "strong")
    again = augment(batch_of(6), "strong")
    assert torch.equal(whole.images_B3SS, again.images_B3SS)
    one = batch_of(6)
    alone = augment(
        replace(
            one,
            images_B3SS=one.images_B3SS[4:5], masks_M1SS=one.masks_M1SS[4:5],
            valid_B1SS=one.valid_B1SS[4:5], image_index_M=torch.zeros(1, dtype=torch.int64),
            visit_seeds_B=one.visit_seeds_B[4:5], sided_B=one.sided_B[4:5],
        ),
        "strong",
    )  # fmt: skip
    torch.testing.assert_close(alone.images_B3SS[0], whole.images_B3SS[4], rtol=1e-5, atol=1e-5)
    later = augment(batch_of(6, epoch=1), "strong")
    assert not any(
        torch.equal(a, b) for a, b in zip(whole.images_B3SS, later.images_B3SS, strict=True)
    )


def test_a_map_that_loses_a_mask_is_not_applied(monkeypatch):
    far = replace(module.STRENGTHS["light"], shift=0.9)
    monkeypatch.setitem(module.STRENGTHS, "light", far)
    plain, made = batch_of(32), augment(batch_of(32), "light")
    stayed = [torch.equal(a, b) for a, b in zip(made.masks_M1SS, plain.masks_M1SS, strict=True)]
    assert sum(stayed) > 8
    assert all(mask.any() for mask in made.masks_M1SS)
    for index, still in enumerate(stayed):
        if still:
            assert torch.equal(made.valid_B1SS[index], plain.valid_B1SS[index])
    assert not torch.equal(made.images_B3SS, plain.images_B3SS)


def test_none_is_the_batch():
    given = batch_of(2)
    assert augment(given, "none") is given
