from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sammed_data import masks
from sammed_data.curate import covers_image, no_structure
from sammed_data.masks import Plan
from sammed_data.types import LabelLayer


def plane_masks(planes, layers, plan):
    """The masks of one slice."""
    return masks.plane_masks([planes], layers, plan)[0]


def _layer(plane, names=None, **more):
    names = names or {int(v): str(v) for v in np.unique(plane) if v}
    return LabelLayer(array_ZYX=plane[None], names=names, **more)


def _plan(split=True, unions=None, least=4, raws="123456789"):
    unions = unions or {}
    return Plan(split=dict.fromkeys([*raws, *unions], split), unions=unions, min_part_px=least)


def test_parts_touching_at_a_corner_are_one():
    plane = np.zeros((8, 13), np.uint8)
    plane[1:3, 1:3] = 1
    plane[3:5, 3:5] = 1  # touches the first at a corner
    plane[6:8, 9:13] = 1
    parts = plane_masks([plane], [_layer(plane)], _plan()).parts
    assert [(p.area_px, p.box_xyxy) for p in parts] == [(8, (1, 1, 5, 5)), (8, (9, 6, 13, 8))]
    assert [p.touches_border for p in parts] == [False, True]


def test_vessels_stay_whole_and_count_their_components():
    plane = np.zeros((8, 13), np.uint8)
    plane[0:2, 0:2] = plane[5:7, 5:7] = 3
    (part,) = plane_masks([plane], [_layer(plane)], _plan(split=False)).parts
    assert (part.n_components, part.area_px, part.box_xyxy) == (2, 8, (0, 0, 7, 7))


def test_an_instance_in_two_pieces_is_one_object():
    plane = np.zeros((8, 13), np.uint8)
    plane[0:2, 0:2] = plane[5:7, 5:7] = 7
    layer = _layer(plane, names={7: "1"}, instances={7: 7})
    (part,) = plane_masks([plane], [layer], _plan()).parts
    assert (part.raw, part.instance, part.n_components) == ("1", 7, 2)


def test_small_parts_are_counted_by_label():
    plane = np.zeros((8, 13), np.uint8)
    plane[0, 0] = plane[0, 5:7] = 1
    plane[4:6, 4:6] = 1
    plane[7, 12] = 2
    found = plane_masks([plane], [_layer(plane)], _plan())
    assert dict(found.small) == {"1": 2, "2": 1}
    assert found.candidates == 4
    assert len(found.parts) == 1


def test_unions_join_labels_and_stand_beside_them():
    plane = np.zeros((8, 13), np.uint8)
    plane[2:4, 2:4], plane[2:4, 4:6] = 1, 2
    found = plane_masks([plane], [_layer(plane)], _plan(unions={"whole": ["1", "2"]}))
    assert [(p.raw, p.area_px) for p in found.parts] == [("1", 4), ("2", 4), ("whole", 8)]


def test_unions_do_not_mix_observers():
    first, second = np.zeros((8, 13), np.uint8), np.zeros((8, 13), np.uint8)
    first[2:4, 2:4], second[5:8, 5:8] = 1, 1
    layers = [_layer(first), _layer(second, annotator=2)]
    found = plane_masks([first, second], layers, _plan(unions={"whole": ["1"]}))
    unions = [(p.annotator, p.area_px, p.layer) for p in found.parts if p.raw == "whole"]
    assert unions == [(1, 4, 0), (2, 9, 1)]


def test_a_mask_of_every_pixel_is_no_object():
    plane = np.ones((5, 9), np.uint8)
    (part,) = plane_masks([plane], [_layer(plane)], _plan()).parts
    assert "all 45 pixels" in (covers_image(part, "organ") or "")


def test_background_and_unknown_are_no_structures():
    plane = np.zeros((5, 9), np.uint8)
    plane[1:4, 2:6] = 1
    (part,) = plane_masks([plane], [_layer(plane)], _plan()).parts
    assert no_structure(part, "ignore")
    assert no_structure(part, "organ") is None


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 17), st.integers(3, 23), st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_every_labelled_pixel_is_in_a_part_or_a_counted_one(height, width, seed, least):
    plane = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint8)
    found = plane_masks(
        [plane], [_layer(plane, names={1: "1", 2: "2", 3: "3"})], _plan(least=least)
    )
    expected = sum(ndimage.label(plane == v, np.ones((3, 3)))[1] for v in (1, 2, 3))
    assert found.candidates == expected
    for part in found.parts:
        x0, y0, x1, y1 = part.box_xyxy
        assert part.mask_HW.sum() == part.area_px == part.mask_HW[y0:y1, x0:x1].sum()
        assert (plane[part.mask_HW] == int(part.raw)).all()
    if least == 1:
        covered = np.logical_or.reduce([p.mask_HW for p in found.parts] or [plane > 9])
        assert np.array_equal(covered, plane > 0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(3, 17),
    st.integers(3, 23),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(3, 1), (16, 1), (40, 1), (12, 1000)]),
    st.sampled_from([np.uint8, np.int32]),
)
def test_few_and_many_classes_give_the_boxes_of_a_plain_search(height, width, seed, many, kind):
    count, step = many
    rng = np.random.default_rng(seed)
    plane = rng.integers(0, count + 1, (height, width)) * (rng.random((height, width)) < 0.4)
    if step > 1 and kind is np.uint8:
        step = 7
    plane = (plane * step).astype(kind)
    names = {v * step: str(v) for v in range(1, count + 1)}
    plan = Plan(split=dict.fromkeys(names.values(), False), unions={}, min_part_px=1)
    found = plane_masks([plane], [_layer(plane, names=names)], plan).parts
    values = [v for v in np.unique(plane).tolist() if v]
    assert [p.raw for p in found] == [names[v] for v in values]
    for part, value in zip(found, values, strict=True):
        ys, xs = np.nonzero(plane == value)
        assert part.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.array_equal(part.mask_HW, plane == value)


def test_a_layer_that_is_empty_on_a_turned_slice_gives_nothing():
    empty_HW, full_HW = np.zeros((9, 14), np.uint8), np.full((9, 14), 2, np.uint8)
    layers = [
        LabelLayer(array_ZYX=plane_HW[None], names={1 + n: name})
        for n, (plane_HW, name) in enumerate([(empty_HW, "liver"), (full_HW, "spleen")])
    ]
    plan = Plan(split={"liver": True, "spleen": True}, unions={}, min_part_px=1)
    planes = [layer.array_ZYX[0][::-1, ::-1] for layer in layers]
    found = plane_masks(planes, layers, plan)
    assert [part.raw for part in found.parts] == ["spleen"]
