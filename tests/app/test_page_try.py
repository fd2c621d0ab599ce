"""The view Try in a browser: real clicks, drags, wheels, drops and downloads."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import nibabel as nib
import numpy as np
import pytest
from browser import free_port, until, watched
from predict_fakes import ball_ijk, image_of, oblique_flipped
from try_fakes import base64_of, disc, nifti, png

from sammed_app.predict.prompts import from_file
from sammed_app.predict.run import load_predictor
from sammed_app.predict.scan import Window, read_scan

DROP = """([name, data]) => {
  const held = new DataTransfer();
  held.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
  return held;
}"""


class Hand:
    """A user at the view Try."""

    def __init__(self, page, base):
        self.page = page
        page.goto(f"{base}/#/try")
        page.wait_for_selector("canvas")

    def drop(self, name, data):
        held = self.page.evaluate_handle(DROP, [name, base64_of(data)])
        self.page.locator(".well").dispatch_event("drop", {"dataTransfer": held})

    def ready(self):
        until(self.page, "document.querySelector('.state').textContent.startsWith('ready')", 40)

    @property
    def state(self):
        return self.page.inner_text(".state")

    def where(self, x, y):
        """Screen px of a place between pixel edges."""
        box = self.page.locator("canvas").bounding_box()
        ox, oy, sx, sy = json.loads(self.page.get_attribute("canvas", "data-view"))
        return box["x"] + ox + x * sx, box["y"] + oy + y * sy

    def click(self, x, y, **more):
        """On the centre of a pixel."""
        self.page.mouse.click(*self.where(x + 0.5, y + 0.5), **more)

    def drag(self, x0, y0, x1, y1):
        self.page.mouse.move(*self.where(x0 + 0.3, y0 + 0.3))
        self.page.mouse.down()
        self.page.mouse.move(*self.where(x1 - 0.3, y1 - 0.3), steps=4)
        self.page.mouse.up()

    def said(self, words):
        until(self.page, f"document.querySelector('.state').textContent.includes({words!r})")

    def area(self):
        """Pixels of the active object's mask, as the page says them; waits for the answer."""
        self.page.wait_for_timeout(150)
        self.said(" px, ")
        return int(self.state.split("; ")[1].split(" px")[0])

    def save(self, button):
        with self.page.expect_download() as waited:
            self.page.get_by_role("button", name=button).click()
        return waited.value


@pytest.fixture
def hand(open_page, settings):
    return Hand(*open_page(settings))


@pytest.fixture(scope="module")
def predictor(world):
    return load_predictor(world.weights, "sam", device="cpu")


def _answer(predictor, image, points=(), box=None):
    predictor.set_image(image)
    masks, iou, _ = predictor.predict(
        point_coords=np.array([p[:2] for p in points]) if points else None,
        point_labels=np.array([p[2] for p in points]) if points else None,
        box=None if box is None else np.array(box),
    )
    return masks[iou.argmax()]


def _prompts(hand, tmp_path):
    hand.save("Prompts (JSON)").save_as(tmp_path / "prompts.json")
    return from_file(tmp_path / "prompts.json")


def test_clicks_box_undo_redo_and_export_of_a_picture(hand, predictor, tmp_path):
    image = disc(90, 120, (70, 40), 20)
    hand.drop("disc.png", png(image))
    hand.ready()
    hand.click(70, 40)
    one = _answer(predictor, image, [(70, 40, 1)])
    assert hand.area() == one.sum()
    hand.click(10, 80, button="right")
    hand.page.keyboard.press("g")
    hand.click(115, 10)
    three = [(70, 40, 1), (10, 80, 0), (115, 10, 0)]
    hand.page.wait_for_timeout(300)
    (asked,) = _prompts(hand, tmp_path)
    assert np.allclose([p[:2] for p in asked.points], [p[:2] for p in three], atol=0.15)
    assert [p[2] for p in asked.points] == [1, 0, 0]
    assert hand.area() == _answer(predictor, image, asked.points).sum()

    hand.drag(48, 18, 92, 62)
    hand.page.wait_for_timeout(300)
    (asked,) = _prompts(hand, tmp_path)
    assert asked.box_xyxy == (48, 18, 92, 62)
    boxed = _answer(predictor, image, asked.points, asked.box_xyxy)
    assert hand.area() == boxed.sum()
    hand.save("PNG").save_as(tmp_path / "mask.png")
    assert ((cv2.imread(str(tmp_path / "mask.png"), -1) > 0) == boxed).all()

    for _ in range(3):
        hand.page.keyboard.press("u")
    hand.page.wait_for_timeout(400)
    assert hand.area() == one.sum()
    for key in "rrr":
        hand.page.keyboard.press(key)
    hand.page.wait_for_timeout(400)
    assert hand.area() == boxed.sum()
    hand.page.keyboard.press("c")
    until(hand.page, "!document.querySelector('.state').textContent.includes(' px, ')")
    assert hand.page.get_by_role("button", name="PNG").is_disabled()


def test_a_volume_is_scrolled_clicked_followed_and_exported_on_its_grid(hand, predictor, tmp_path):
    path = tmp_path / "scan.nii.gz"
    hand.drop("scan.nii.gz", nifti(path, image_of(ball_ijk()), oblique_flipped()))
    hand.ready()
    scan = read_scan(path, Window(), orientation="lps", channel=None)
    assert "slice 13 of 0 to 25" in hand.page.inner_text(".strip")
    hand.page.mouse.move(*hand.where(5, 5))
    hand.page.mouse.wheel(0, 100)
    hand.page.keyboard.press("ArrowUp")
    hand.page.keyboard.press("]")
    hand.page.keyboard.press("[")
    until(hand.page, "document.querySelector('.strip output').textContent.startsWith('slice 15')")
    hand.ready()
    hand.drag(3, 8, 10, 15)
    area = hand.area()
    hand.page.fill(".objects input[type=text]", "ball")
    hand.page.keyboard.press("Enter")
    hand.page.wait_for_timeout(200)
    (asked,) = _prompts(hand, tmp_path)
    assert (asked.object, asked.axis, asked.index) == ("ball", "axial", 15)
    mask = _answer(predictor, scan.picture("axial", 15), asked.points, asked.box_xyxy)
    assert area == mask.sum()
    hand.page.locator("canvas").focus()
    with hand.page.expect_download() as waited:
        hand.page.keyboard.press("e")
    waited.value.save_as(tmp_path / "mask.nii.gz")
    back, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(path)
    for field in ("srow_x", "srow_y", "srow_z", "quatern_c", "qoffset_z", "sform_code", "pixdim"):
        assert back.header[field].tobytes() == source.header[field].tobytes()
    read = read_scan(tmp_path / "mask.nii.gz", Window(), orientation="lps", channel=None)
    wanted = np.zeros(scan.shape_zyx, bool)
    wanted[15] = mask
    assert ((read.volume.array > 0) == wanted).all()

    hand.page.get_by_role("button", name="Follow through slices").click()
    until(hand.page, "document.getElementById('said').textContent.includes('slices of ball')", 40)
    hand.page.keyboard.press("ArrowDown")
    until(hand.page, "document.querySelector('.strip output').textContent.startsWith('slice 14')")
    hand.ready()
    assert hand.page.get_attribute("canvas", "aria-label") == "scan.nii.gz, axial slice 14"


def test_a_sample_of_the_corpus_three_masks_objects_and_the_keyboard_alone(open_page, settings):
    page, base = open_page(settings)
    page.goto(f"{base}/#/corpus")
    page.wait_for_selector("a.card")
    page.click("a.card >> nth=0")
    page.click("text=Click in this image")
    page.wait_for_selector(".well canvas")
    hand = Hand.__new__(Hand)
    hand.page = page
    hand.ready()
    page.locator("canvas").focus()
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    first = hand.area()
    page.keyboard.press("m")
    page.wait_for_selector(".choices button")
    texts = page.locator(".choices button").all_inner_texts()
    assert len(texts) == 3
    assert any(f" {first} px" in text for text in texts)
    page.locator(".choices button").nth(1).click()
    until(page, "document.querySelectorAll('.choices button[aria-pressed=true]').length === 1")
    hand.said(texts[1].split(": ")[1].split(",")[0])
    page.keyboard.press("n")
    assert page.locator(".objects li").count() == 2
    page.locator("canvas").focus()
    page.keyboard.press("b")
    for key in ("Enter", *["Shift+ArrowDown"] * 9, *["Shift+ArrowRight"] * 9, "Enter"):
        page.keyboard.press(key)
    assert hand.area() >= 0
    with page.expect_download() as waited:
        page.get_by_role("button", name="Prompts (JSON)").click()
    rows = json.loads(waited.value.path().read_text())
    assert {r["object"] for r in rows} == {"object 1", "object 2"}
    (box,) = [r["box"] for r in rows if "box" in r]
    assert (box[2] - box[0], box[3] - box[1]) == (10, 10)
    page.goto(f"{base}/#/corpus")
    page.wait_for_selector("a.card")
    page.goto(f"{base}/#/try")
    page.wait_for_selector(".objects li >> nth=1")  # what is drawn outlives the view


def test_two_tabs_do_not_disturb_each_other(open_page, chrome, settings, predictor):
    page, base = open_page(settings)
    images = [disc(80, 100, (30, 40), 14), disc(80, 100, (66, 30), 22)]
    with watched(chrome, base) as other:
        hands = [Hand(page, base), Hand(other, base)]
        for one, image in zip(hands, images, strict=True):
            one.drop("same-name.png", png(image))
        for one, at in zip(hands, [(30, 40), (66, 30)], strict=True):
            one.ready()
            one.click(*at)
        for one, image, at in zip(hands, images, [(30, 40), (66, 30)], strict=True):
            assert one.area() == _answer(predictor, image, [(*at, 1)]).sum()
        hands[0].page.keyboard.press("c")
        until(page, "!document.querySelector('.state').textContent.includes(' px, ')")
        assert hands[1].area() == _answer(predictor, images[1], [(66, 30, 1)]).sum()


def test_a_file_that_cannot_be_read_is_said_and_the_image_stays(chrome, open_page, settings):
    _, base = open_page(settings)
    context = chrome.new_context(viewport={"width": 1280, "height": 800})
    hand = Hand(context.new_page(), base)  # not watched: the refusal is an error in the console
    hand.drop("good.png", png(disc()))
    hand.ready()
    hand.drop("bad.nii.gz", b"no gzip")
    until(hand.page, "document.querySelector('#said.failed')?.textContent.includes('bad.nii.gz')")
    assert hand.page.inner_text(".name") == "good.png"
    hand.click(40, 20)
    assert hand.area() > 0
    context.close()


def test_without_a_model_the_page_says_how_to_get_one(open_page, settings):
    page, base = open_page(replace(settings, models=(), port=free_port()))
    hand = Hand(page, base)
    hand.drop("a.png", png(disc()))
    hand.said("no model: start sammed app with --model")
    until(page, "document.querySelector('canvas').dataset.view")
    zoomed = hand.page.get_attribute("canvas", "data-view")
    hand.page.keyboard.press("+")
    assert hand.page.get_attribute("canvas", "data-view") != zoomed
    hand.page.keyboard.press("0")
    assert hand.page.get_attribute("canvas", "data-view") == zoomed
