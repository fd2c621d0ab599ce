"""Masks that lie wrong on their image are found, in the way they are wrong; others are let be."""

from __future__ import annotations

import numpy as np
import pytest

from sammed_data.audit import misplaced
from sammed_data.audit.fits import CaseFit, summed
from sammed_data.audit.outlines import TURNS, fit, make_ground, margins, place
from sammed_data.audit.outlines import trace as outline_of
from sammed_data.audit.shifts import Peak, Shifts
from sammed_data.audit.unlike import MIN_PEERS, by_dataset, find_unlike, unjudged, without_peers
from sammed_data.corpus import MaskRow, Row

SIDE = (90, 120)


def blob(y, x, radius, side=SIDE, egg=0.6):
    ys, xs = np.mgrid[: side[0], : side[1]]
    wide = radius * np.where(ys < y, 1.0, egg)  # unlike itself upside down
    return ((ys - y) / wide) ** 2 + ((xs - x) / (0.7 * radius + 0.15 * (ys - y))) ** 2 < 1


def mask_row(index, plane, structure="liver"):
    ys, xs = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
    return MaskRow(
        index=index, label=structure, structure=structure, organ="", group="", kind="", side="",
        instance=0, annotator=1, n_components=1, area_px=int(plane.sum()),
        box_xyxy=(int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1),
        touches_border=False, mask_HW=plane,
    )  # fmt: skip


def picture(planes, seed, bright=70, side=SIDE):
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 9, side)
    for plane in planes:
        image[plane] += bright
    return np.clip(image, 0, 255).astype(np.uint8)


def row(planes, image, slice_index=None):
    masks = tuple(mask_row(at, plane) for at, plane in enumerate(planes))
    height, width = image.shape[:2]
    return Row(
        sample_id=f"s{slice_index}", dataset="d", modality="CT", split="train", height=height,
        width=width, masks=masks, meta={"slice_index": slice_index, "axis": "axial"}, image=image,
    )  # fmt: skip


def measure(rows, case=0, moments=None):
    measured, moments = CaseFit(case), {} if moments is None else moments
    for number, one in enumerate(rows):
        measured.add(one, number, [0] * len(one.masks), moments)
    cases, parts = measured.close()
    cases["dataset"] = 0
    return cases, parts, moments


def verdict(rows):
    cases, parts, moments = measure(rows)
    table = summed(np.stack(list(moments.values())))
    return [detail for *_, detail in find_unlike(cases, parts, table)]


def spread_out(seed):
    """Three blobs at places that no turn or shift maps onto each other."""
    rng = np.random.default_rng(seed)
    return [blob(26 + rng.integers(4), 30, 15), blob(62, 40 + rng.integers(4), 11),
            blob(38, 88 + rng.integers(4), 12)]  # fmt: skip


def test_normals_point_into_the_mask_holes_included():
    plane = np.zeros(SIDE, bool)
    plane[20:60, 25:90] = True
    plane[34:46, 40:60] = False
    outline = outline_of(plane, (25, 20, 90, 60))
    assert plane[outline.y_5P[1], outline.x_5P[1]].all()
    assert not plane[outline.y_5P[2], outline.x_5P[2]].any()


def test_an_outline_fits_best_where_it_lies():
    planes = spread_out(0)
    ground = make_ground(picture(planes, 1))
    lines = [outline_of(p, mask_row(0, p).box_xyxy) for p in planes]
    found = fit(place(lines, ground))
    assert (found[:, :1] > np.nan_to_num(found[:, 1:], nan=-9)).all()
    assert np.isnan(found[:, 4:8]).all()  # not square: never transposed
    assert (margins(found) > 1).all()


def test_many_outlines_together_are_each_by_itself():
    planes = [blob(15 + 5 * (k % 9), 15 + k, 7) for k in range(70)]
    ground = make_ground(picture(planes, 2))
    lines = [outline_of(p, mask_row(0, p).box_xyxy) for p in planes]
    together = place(lines, ground)
    alone = np.concatenate([place([line], ground) for line in lines])
    assert np.allclose(together, alone, atol=1e-4, equal_nan=True)
    assert np.allclose(place(lines, ground, places=1), together[:, :1], atol=1e-4)


def test_masks_that_fill_the_picture_have_no_outline():
    assert outline_of(np.ones(SIDE, bool), (0, 0, SIDE[1], SIDE[0])) is None
    whole = row([np.ones(SIDE, bool)], picture([], 3))
    assert [len(a) for a in measure([whole])[:2]] == [0, 0]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda p: p[:, ::-1], "left-right"),
        (lambda p: p[::-1], "up-down"),
        (lambda p: p[::-1, ::-1], "by 180 degrees"),
    ],
)
def test_a_turn_is_named_without_any_like_case(turn, said):
    planes = spread_out(4)
    image = picture(planes, 5)
    assert verdict([row(planes, image)]) == []
    assert verdict([row([turn(p) for p in planes], image)]) == [
        f"its 3 masks fit the image better turned {said}"
    ]


@pytest.mark.parametrize(("turn", "said"), [
    (np.transpose, "transposed"), (np.rot90, "by 90 degrees to the right"),
    (lambda p: np.rot90(p, -1), "by 90 degrees to the left"),
    (lambda p: p[::-1, ::-1].T, "transposed by 180 degrees"),
])  # fmt: skip
def test_a_square_picture_may_be_transposed(turn, said):
    side = (100, 100)
    planes = [blob(25, 30, 14, side), blob(60, 40, 10, side), blob(40, 78, 12, side)]
    image = picture(planes, 6, side=side)
    assert verdict([row(planes, image)]) == []
    (found,) = verdict([row([np.ascontiguousarray(turn(p)) for p in planes], image)])
    assert found == f"its 3 masks fit the image better turned {said}"


def test_a_shift_of_all_masks_is_measured():
    planes = spread_out(7)
    image = picture(planes, 8)
    moved = [np.roll(p, (7, -10), axis=(0, 1)) for p in planes]
    (said,) = verdict([row(moved, image)])
    down, right = (int(w) for w in said.replace("%", "").split() if w.lstrip("-").isdigit() and
                   w != "3")  # fmt: skip
    assert abs(down + 100 * 7 / 120) < 3  # back: up
    assert abs(right - 100 * 10 / 120) < 3


def test_shifts_hold_as_much_for_many_rows_as_for_one():
    planes = spread_out(9)
    ground = make_ground(picture(planes, 10))
    lines = [outline_of(p, mask_row(0, p).box_xyxy) for p in planes]
    once, often = Shifts(), Shifts()
    once.add(ground, lines)
    for _ in range(5):
        often.add(ground, lines)
    assert once._steep.nbytes == often._steep.nbytes
    assert (often.peak().dy, often.peak().dx) == (once.peak().dy, once.peak().dx) == (0, 0)
    assert Shifts().peak() == Peak()


def test_masks_one_slice_off_are_told_from_those_in_place():
    sizes = [9, 14, 19, 23, 25, 24, 20, 16, 12, 8]
    planes = [blob(40, 55 + 2 * k, r) for k, r in enumerate(sizes)]
    rows = [row([p], picture([p], 11 + k), k) for k, p in enumerate(planes)]
    assert verdict(rows) == []
    late = [row([planes[k + 1]], rows[k].image, k) for k in range(9)]
    (said,) = verdict(late)
    assert said == "its 9 masks fit the slice after their own better"
    gaps = [row([planes[k + 1]], rows[k].image, 2 * k) for k in range(9)]  # no neighbours known
    assert not any("slice" in s for s in verdict(gaps))


def like_cases(n, wrong=(), bright=70):
    """Cases of one dataset: a lone blob somewhere; those in ``wrong`` have another one's."""
    rng = np.random.default_rng(3)
    planes = [blob(28 + rng.integers(34), 30 + rng.integers(60), 10 + rng.integers(6))
              for _ in range(n)]  # fmt: skip
    cases, parts, moments = [], [], {}
    for k, plane in enumerate(planes):
        drawn = planes[(k + 1) % n] if k in wrong else plane
        case, part, _ = measure([row([drawn], picture([plane], k, bright))], k, moments)
        cases.append(case)
        parts.append(part)
    return np.concatenate(cases), np.concatenate(parts), summed(np.stack(list(moments.values())))


def test_a_mask_of_another_case_is_seen_beside_like_cases():
    cases, parts, moments = like_cases(16, wrong=(5,))
    cases["row"] = cases["case"]
    found = find_unlike(cases, parts, moments)
    assert [(kind, number) for kind, number, *_ in found] == [("mask-unlike-image", 5)]


def test_cases_in_place_are_let_be():
    for bright in (70, 25, 0):  # 0: the masks show nothing
        assert find_unlike(*like_cases(20, bright=bright)) == []


def test_outlines_that_follow_nothing_are_said_to_be_unjudged():
    assert unjudged(*like_cases(12, bright=0)) == [0]
    assert unjudged(*like_cases(12)) == []
    assert unjudged(*like_cases(5, bright=0)) == [0]
    assert unjudged(*like_cases(5)) == []
    assert without_peers(like_cases(MIN_PEERS - 1)[0]) == [0]
    assert without_peers(like_cases(MIN_PEERS)[0]) == []


def test_a_dataset_that_is_turned_as_a_whole_is_found():
    cases, parts, moments = [], [], {}
    for k in range(MIN_PEERS + 2):
        planes = spread_out(k)
        image = picture(planes, 40 + k)
        case, part, _ = measure([row([p[::-1] for p in planes], image)], k, moments)
        cases.append(case)
        parts.append(part)
    table = summed(np.stack(list(moments.values())))
    found = find_unlike(np.concatenate(cases), np.concatenate(parts), table)
    assert len(found) == MIN_PEERS + 2
    assert all("turned up-down" in detail for *_, detail in found)


def test_a_case_does_not_count_for_what_it_is_compared_with():
    cases, parts, moments = like_cases(12)
    ((usual, _),) = by_dataset(cases, parts, moments)
    far = usual.own_parts(3).copy()
    far["own"] += 50
    altered = parts.copy()
    altered[altered["case"] == 3] = far
    sums = moments.copy()
    sums["own"] += far["own"].sum(0) - usual.own_parts(3)["own"].sum(0)
    ((other, _),) = by_dataset(cases, altered, sums)
    other._precision = usual._precision
    own = usual.own_parts(3)
    assert np.allclose(usual._part_scores(own, own), other._part_scores(own, far))


def test_places_count_for_structures_that_have_one():
    cases, parts, moments = like_cases(16)
    parts["at"] = (0.5, 0.3) + np.random.default_rng(0).normal(0, 0.02, (16, 2))
    parts["at"][4] = (0.5, 0.7)
    cases["row"] = cases["case"]
    ((_, number, _, said),) = find_unlike(cases, parts, moments)
    assert (number, said) == (4, "its 1 masks lie where no like case has them")
    parts["at"][:, 1] = np.linspace(0.1, 0.9, 16)
    assert find_unlike(cases, parts, moments) == []


def test_the_same_rows_measure_the_same():
    first, second = like_cases(9), like_cases(9)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_misplaced_masks_are_what_they_are_called():
    plane = blob(30, 45, 12)
    mask = mask_row(0, plane)
    (upside,) = misplaced.turned(mask, 1)
    assert np.array_equal(upside.mask_HW, plane[::-1])
    assert misplaced.transposed(mask) == ()
    (moved,) = misplaced.moved_a_tenth(mask, 1)  # down and right
    assert np.array_equal(moved.mask_HW, np.roll(plane, (9, 12), axis=(0, 1)))
    (far,) = misplaced.shifted(mask)
    for changed in (upside, moved, far):
        assert changed.area_px == mask.area_px
        x0, y0, x1, y1 = changed.box_xyxy
        assert changed.mask_HW[y0:y1, x0:x1].sum() == changed.area_px
    full = mask_row(0, np.ones(SIDE, bool))
    assert misplaced.shifted(full) == ()
    assert len(TURNS) == 7
