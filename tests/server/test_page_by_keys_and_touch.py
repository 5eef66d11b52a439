"""The page of `fewseg serve` without a mouse: from the first photo to what is taken away, by keys or by touch alone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import iou
from served_page import QUERIES, SUPPORT, done, outline, place, truth

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def marked(view: Any) -> float:
    """How much of the photo is marked, in percent."""
    found = re.match(r"[\d.]+", view.locator("#marked").text_content())
    assert found
    return float(found[0])


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right, bottom of an object."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def tab_to(view: Any, selector: str, key: str = "Tab") -> None:
    for _ in range(60):
        view.keyboard.press(key)
        if view.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached")


def chosen(view: Any, opens: Callable[[], None], *photos: Path) -> None:
    with view.expect_file_chooser() as chooser:
        opens()
    chooser.value.set_files([str(photo) for photo in photos])


def taken(view: Any, does: Callable[[], None]) -> np.ndarray:
    """The mask that is downloaded."""
    with view.expect_download() as download:
        does()
    return np.asarray(Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))) > 0


def test_by_the_keyboard_alone(view, photos) -> None:
    view.on("filechooser", lambda _: None)  # before the first: the browser is told in passing
    keys, last = view.keyboard.press, f"{QUERIES[0]}.png"
    at, steps = np.zeros(2), (0, 0)

    def go(x: float, y: float) -> None:
        """Move the cursor: by hundredths of the width, by five with Shift."""
        for axis, (to, names) in enumerate(((x, ("Left", "Right")), (y, ("Up", "Down")))):
            for step, before in zip(steps, ("Shift+", ""), strict=True):
                count = int(abs(to - at[axis]) // step)
                sign = 1 if to > at[axis] else -1
                for _ in range(count):
                    keys(f"{before}Arrow{names[sign > 0]}")
                at[axis] += sign * step * count

    def focus_photo(name: str) -> None:
        nonlocal steps
        with Image.open(photos / name) as image:
            at[:] = image.width / 2, image.height / 2
            steps = round(image.width / 20), round(image.width / 100)
        view.wait_for_function("() => document.activeElement.id === 'editor'")

    tab_to(view, "#teach-files")
    chosen(view, lambda: keys("Enter"), photos / f"{SUPPORT}.png")
    focus_photo(f"{SUPPORT}.png")
    wanted = truth(photos, SUPPORT)
    left, top, right, bottom = bounds(wanted)
    keys("1")
    for corner in ((left, top), (right, bottom)):
        go(*corner)
        keys("Space")
    assert marked(view) > 5
    before = marked(view)
    keys("6")  # not here: the ellipse's edge
    go(left + (right - left) * 0.2, top + (bottom - top) * 0.75)
    keys("Space")
    assert marked(view) < before
    keys("Control+z")
    assert marked(view) == before
    tab_to(view, "#name", "Shift+Tab")
    view.keyboard.insert_text("owl")
    keys("Escape")
    view.get_by_text("What you marked would be lost").wait_for()
    tab_to(view, "#add")
    keys("Enter")
    view.get_by_text("Expected overlap").wait_for()

    tab_to(view, "#find-files")
    chosen(view, lambda: keys("Enter"), photos / last)
    done(view, 1)
    tab_to(view, "#found .correct")
    keys("Enter")
    focus_photo(last)
    tab_to(view, "#clear", "Shift+Tab")
    keys("Enter")
    tab_to(view, "#editor")
    keys("4")
    for corner in outline(truth(photos, QUERIES[0]), 16):
        go(*corner)
        keys("Space")
    keys("Enter")
    tab_to(view, "#add")
    keys("Enter")
    view.get_by_text("(corrected)").wait_for()
    done(view, 1)
    assert view.locator("#supports li").count() == 2
    tab_to(view, "#all", "Shift+Tab")
    assert iou(taken(view, lambda: keys("Enter")), truth(photos, QUERIES[0])) > 0.8


@pytest.mark.parametrize("view", [PHONE], indirect=True)
def test_by_touch_alone(view, photos, tmp_path) -> None:
    support = tmp_path / "as phones save it.jpg"
    exif = Image.Exif()
    exif[274] = 6  # to be turned
    with Image.open(photos / f"{SUPPORT}.png") as image:
        turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    turned.resize((1600, 1600 * turned.height // turned.width)).save(support, exif=exif)
    touch = view.context.new_cdp_session(view)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    def drag(*points: tuple[float, float]) -> None:
        fingers("touchStart", points[0])
        for point in points[1:]:
            fingers("touchMove", point)
        for _ in range(3):  # a finger that comes to rest: else the next tap counts as stopping what was flung
            view.wait_for_timeout(50)
            fingers("touchMove", points[-1])
        fingers("touchEnd")

    def pinch(x: float, y: float) -> None:
        fingers("touchStart", to(x - 20, y))
        fingers("touchStart", to(x - 20, y), to(x + 20, y))
        for step in range(1, 5):
            fingers("touchMove", to(x - 20 - 10 * step, y), to(x + 20 + 10 * step, y))
        fingers("touchEnd")

    def choose(tool: str) -> None:
        view.get_by_label(tool, exact=True).tap()
        view.locator("input[name=tool]:checked + span").get_by_text(tool, exact=True).wait_for()

    view.on("filechooser", lambda _: None)
    chosen(view, view.locator("#teach-files").tap, support)
    view.locator("#marking").wait_for()
    to = place(view, photos / f"{SUPPORT}.png")
    wanted = truth(photos, SUPPORT)
    left, top, right, bottom = bounds(wanted)
    middle = (left + right) / 2, (top + bottom) / 2
    choose("Box")
    drag(to(left, top), to(*middle), to(right, bottom))
    whole = marked(view)
    assert whole > 5
    choose("Not here")
    view.touchscreen.tap(*to(left + (right - left) * 0.2, top + (bottom - top) * 0.75))
    assert marked(view) < whole
    for tool in ("Brush", "Click"):
        choose(tool)
        before = marked(view)
        pinch(*middle)
        assert marked(view) == before  # two fingers enlarge, and mark nothing
        view.locator("#editor").press("0")
    view.locator("#clear").tap()
    choose("Brush")
    drag(*(to(middle[0], middle[1] + 5 * step) for step in range(6)))
    assert marked(view) > 0
    view.locator("#undo").tap()
    assert marked(view) == 0
    choose("Polygon")
    corners = outline(wanted, 16)
    for number, corner in enumerate([*corners, corners[0]]):
        view.touchscreen.tap(*to(*corner))
        if number == 5:  # a look at the edge loses no corner
            pinch(*middle)
            view.locator("#editor").press("0")
    assert abs(marked(view) / 100 / wanted.mean() - 1) < 0.25
    view.locator("#name").fill("owl")
    view.locator("#add").tap()
    view.get_by_text("Expected overlap").wait_for()

    chosen(view, view.locator("#find-files").tap, photos / f"{QUERIES[0]}.png")
    done(view, 1)
    view.locator("#found .correct").tap()
    view.locator("#keep").wait_for()
    to, wanted = place(view, photos / f"{QUERIES[0]}.png"), truth(photos, QUERIES[0])
    choose("Polygon")
    corners = outline(wanted, 16)
    for corner in [*corners, corners[0]]:
        view.touchscreen.tap(*to(*corner))
    view.locator("#add").tap()
    view.get_by_text("(corrected)").wait_for()
    done(view, 1)
    assert view.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert iou(taken(view, view.locator("#found .take").tap), wanted) > 0.75
