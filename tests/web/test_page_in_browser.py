"""The page in Chromium, its host gone after the first visit: it teaches and finds as Python does."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.data.marks import Marks, mask_from_marks
from fewseg.data.sets.scenes import Scenes
from fewseg.linear import FINEST, classifier, lead
from fewseg.predictor import FewShotPredictor
from helpers import iou
from npm_packages import barred
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SUPPORT, QUERIES = 17, (43, 66)
BOX = [90, 40, 280, 250]
STROKE = np.zeros((300, 320), np.uint8)
STROKE[130:251, 2:43] = 1  # about what the keys draw: what both find is large
READY = "#status.ready"
FETCHED = """async () => {
  const listed = JSON.parse((await (await fetch("files.js")).text()).slice("self.FEWSEG = ".length, -2));
  return (await Promise.all(listed.large.map((name) => caches.match(name)))).every(Boolean);
}"""
"""Whether the service worker keeps all that the model and its runtime need."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    source = Scenes(subset="test", level="simple", images=100, size=320)
    for number in (SUPPORT, *QUERIES):
        source.load(number)[0].crop((0, 0, 320, 300)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def view(browser, host, axe_or_none):
    """The page of the second visit, without a network."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    if axe_or_none:
        context.add_init_script(axe_or_none)
    view = context.new_page()
    view.set_default_timeout(300_000)
    url = f"http://127.0.0.1:{host.server_port}/"
    view.told, asked = [], []
    view.on("pageerror", lambda error: view.told.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    view.goto(url)
    view.wait_for_function("() => crossOriginIsolated")  # the host sent no header
    until(lambda: view.evaluate(FETCHED))  # wait_for_function takes a promise for true
    host.shutdown()
    host.server_close()
    context.set_offline(True)
    view.reload()
    view.locator(READY).wait_for()
    yield view
    assert not view.told
    assert all(address.startswith((url, "blob:")) for address in asked)
    context.close()


@pytest.fixture(scope="module")
def axe_or_none(request) -> str | None:
    try:
        return request.getfixturevalue("axe")
    except pytest.skip.Exception:
        return None


def found(view, count: int) -> None:
    view.wait_for_function(f"() => document.querySelectorAll('#found .take:not([disabled])').length === {count}")


def downloaded(view, selector: str) -> bytes:
    with view.expect_download() as download:
        view.locator(selector).click()
    return Path(download.value.path()).read_bytes()


def mask_in(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.mode == "L"
    return np.asarray(image)


def drawn(view, box: list[int]) -> None:
    """Draw a box on the photo that is marked."""
    canvas = view.locator("#editor")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    view.get_by_label("Box").check()
    area, scale = canvas.bounding_box(), 320 / canvas.bounding_box()["width"]
    (left, top), (right, bottom) = ((area["x"] + x / scale, area["y"] + y / scale) for x, y in (box[:2], box[2:]))
    view.mouse.move(left, top)
    view.mouse.down()
    view.mouse.move(right, bottom, steps=3)
    view.mouse.up()


def marked(photo: Path, box: list[int]) -> np.ndarray:
    """The mask that a box on a photo means."""
    return mask_from_marks(Image.open(photo).convert("RGB"), Marks(boxes=[(box[0], box[1], box[2], box[3])]))


def zipped_labels(view) -> np.ndarray:
    """The label map of the first query among all that is taken away."""
    with zipfile.ZipFile(io.BytesIO(downloaded(view, "#all"))) as archive:
        assert archive.read("classes.txt").decode() == "owl\nthe ground\n"
        return mask_in(archive.read(f"{QUERIES[0]}.png"))


def test_a_box_is_taught_and_found_offline_as_in_python_and_by_the_keyboard_a_second_class(view, photos):
    view.set_input_files("#teach-files", str(photos / f"{SUPPORT}.png"))
    canvas = view.locator("#editor")
    drawn(view, BOX)
    view.locator("#name").fill("owl")
    view.locator("#add").click()
    view.locator("#supports li").wait_for()
    view.set_input_files("#find-files", [str(photos / f"{number}.png") for number in QUERIES])
    found(view, 2)
    photo = Image.open(photos / f"{SUPPORT}.png").convert("RGB")
    mask = marked(photos / f"{SUPPORT}.png", BOX)
    predictor = FewShotPredictor("lite")
    predictor.set_support(photo, mask)
    given = mask_in(downloaded(view, "#found .take >> nth=0"))
    expected = predictor.predict(photos / f"{QUERIES[0]}.png")
    assert set(np.unique(given)) == {0, 255}
    assert iou(given > 0, expected) >= 0.99
    assert expected.mean() > 0.03

    # another threshold needs no second run, and is Python's too
    view.locator("#threshold").fill("80")
    proba = predictor.predict_proba(photos / f"{QUERIES[1]}.png")
    with zipfile.ZipFile(io.BytesIO(downloaded(view, "#all"))) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(f"{number}.png" for number in QUERIES)
        assert iou(mask_in(archive.read(f"{QUERIES[1]}.png")) > 0, proba > 0.8) >= 0.99
    view.locator("#threshold").fill("100")
    view.get_by_text("not found").first.wait_for()
    view.locator("#threshold").fill("50")

    # the ground, marked with the keyboard: a stroke along the left side
    view.set_input_files("#teach-files", str(photos / f"{SUPPORT}.png"))
    view.locator("#marking").wait_for()
    view.locator("#name").fill("the ground")
    view.get_by_label("Box").focus()
    view.keyboard.press("ArrowRight")  # to the brush
    canvas.focus()
    for key in [*["Shift+ArrowLeft"] * 9, " ", *["Shift+ArrowDown"] * 5, " "]:
        view.keyboard.press(key)
    for key in ("Tab", "Enter"):
        view.keyboard.press(key)
    view.locator("#supports li").nth(1).wait_for()
    view.get_by_text("Not all photos were searched for what is taught now.").wait_for()
    view.locator("#again").press("Enter")
    view.locator("#stale").wait_for(state="hidden")
    view.locator("#work").wait_for(state="hidden")
    view.locator("#kind").select_option("labels")
    predictor.set_support({"owl": (photo, mask), "the ground": (photo, STROKE)})
    labels = zipped_labels(view)
    expected = predictor.predict_labels(photos / f"{QUERIES[0]}.png")
    assert (labels == expected).mean() > 0.9
    assert {1, 2} <= set(np.unique(labels))


def test_of_several_supports_a_classifier_is_trained_as_in_python(view, photos):
    rng = np.random.default_rng(0)
    sides = {"layer3_unit": (20, 12), "layer4_unit": (30, 6), FINEST: (10, 24)}
    features = {name: rng.normal(0, 1, (3, c, side, side)).astype(np.float32) for name, (c, side) in sides.items()}
    mask = np.zeros((3, 96, 100), np.uint8)
    mask[:, 24:64, 24:64], mask[1, :7] = 1, 255
    photo = {name: maps[0] for name, maps in features.items()}
    expected = lead(photo, classifier(features | {"mask": mask}), (96, 96))

    def tensors(arrays, prefix):
        return {prefix + name: {"dims": [1, *a.shape], "data": a.ravel().tolist()} for name, a in arrays.items()}

    given = [tensors(features | {"mask": mask}, "support_"), tensors(photo, "query_")]
    found = view.evaluate(
        """async ([supports, photo]) => {
          const { classifier, lead } = await import("./linear.js");
          return [...lead(photo, classifier(supports), 96)];
        }""",
        given,
    )
    np.testing.assert_allclose(np.reshape(found, (96, 96)), expected, atol=1e-4)
    assert np.ptp(expected) > 1

    view.locator("#supports li").nth(1).wait_for()  # of the test before: an owl, and the ground
    box = [60, 30, 250, 260]
    view.set_input_files("#teach-files", str(photos / f"{QUERIES[1]}.png"))
    drawn(view, box)
    view.locator("#name").fill("owl")
    view.locator("#add").click()
    view.locator("#supports li").nth(2).wait_for()
    view.get_by_text("Not all photos were searched for what is taught now.").wait_for()
    view.locator("#again").press("Enter")
    view.locator("#stale").wait_for(state="hidden")
    view.locator("#work").wait_for(state="hidden")
    taught = [photos / f"{number}.png" for number in (SUPPORT, QUERIES[1])]
    masks = [marked(path, corners) for path, corners in zip(taught, (BOX, box), strict=True)]
    predictor, alone = FewShotPredictor(), FewShotPredictor("lite")
    for one in (predictor, alone):
        one.set_support({"owl": (taught, masks), "the ground": (taught[0], STROKE)})
    labels = zipped_labels(view)
    mine, other = (one.predict_labels(photos / f"{QUERIES[0]}.png") for one in (predictor, alone))
    assert (labels == mine).mean() > max(0.97, (labels == other).mean())


def test_what_cannot_be_read_is_told_and_the_others_are_done(view, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(np.full((40, 40), 40000, np.uint16)).save(tmp_path / "deep.png")
    before = view.locator("#found .take:not([disabled])").count()
    names = [tmp_path / "broken.jpg", tmp_path / "deep.png", photos / f"{QUERIES[0]}.png"]
    view.set_input_files("#find-files", [str(name) for name in names])
    view.get_by_text("broken.jpg cannot be read: it is damaged, or no JPEG").wait_for()
    view.get_by_text("deep.png has 16 bits a channel").wait_for()
    found(view, before + 1)
    view.get_by_text("1 photo done, 2 not").wait_for()
    (tmp_path / "leaf.concept").write_bytes(b"what a server would judge")
    view.set_input_files("#teach-files", [str(name) for name in (*names[:2], tmp_path / "leaf.concept")])
    view.get_by_text("leaf.concept is a concept, which takes a server: open it on the page of fewseg serve").wait_for()
    assert view.locator("#open").is_hidden()
    told = view.locator("#teach-told")
    told.get_by_text("deep.png").wait_for()
    assert "broken.jpg" in told.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_nobody_is_barred_from_it_and_nothing_is_cut_off(view, axe, photos, width, height, scheme):
    view.set_viewport_size({"width": width, "height": height})
    view.emulate_media(color_scheme=scheme)
    if view.locator("#marking").is_hidden():
        view.set_input_files("#teach-files", str(photos / f"{SUPPORT}.png"))
        view.locator("#marking").wait_for()
    marking = barred(view, width)
    view.keyboard.press("Escape")
    view.locator("#marking").wait_for(state="hidden")
    assert not marking + barred(view, width)
