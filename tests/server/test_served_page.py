"""The page that `fewseg serve` gives out, in Chromium: the server computes, and nothing else is asked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chromium import opened_chromium
from fewseg.data.sets.scenes import Scenes
from helpers import iou
from served import Server, served

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SUPPORT, QUERIES = 17, (43, 66)
OWL = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    source = Scenes(subset="test", level="simple", images=100, size=320)
    for number in (SUPPORT, *QUERIES):
        image, labels = source.load(number)
        image.save(folder / f"{number}.png")
        Image.fromarray((labels == OWL).astype(np.uint8)).save(folder / f"{number}-mask.png")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from opened_chromium()


@pytest.fixture
def view(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    view = context.new_page()
    view.set_default_timeout(60_000)
    told: list[str] = []
    asked: list[str] = []
    view.on("pageerror", lambda error: told.append(str(error)))
    view.on("console", lambda line: told.append(line.text) if line.type == "error" and "404" not in line.text else None)
    context.on("request", lambda request: asked.append(request.url))
    view.goto(server.url)
    view.locator("#status.ready").wait_for()
    yield view
    context.close()
    assert told == []
    assert all(address.startswith((server.url, "blob:")) for address in asked)


def downloaded(view: Any, selector: str) -> bytes:
    with view.expect_download() as download:
        view.locator(selector).click()
    return Path(download.value.path()).read_bytes()


def done(view: Any, count: int) -> None:
    view.wait_for_function(f"() => document.querySelectorAll('#found .take:not([disabled])').length === {count}")


def test_a_box_is_taught_and_found_by_the_server_which_keeps_no_photo(view, server, photos) -> None:
    view.set_input_files("#teach-files", str(photos / f"{SUPPORT}.png"))
    canvas = view.locator("#editor")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    area, scale = canvas.bounding_box(), 320 / canvas.bounding_box()["width"]
    rows, columns = np.nonzero(np.asarray(Image.open(photos / f"{SUPPORT}-mask.png")))
    box = columns.min(), rows.min(), columns.max(), rows.max()
    view.mouse.move(area["x"] + box[0] / scale, area["y"] + box[1] / scale)
    view.mouse.down()
    view.mouse.move(area["x"] + box[2] / scale, area["y"] + box[3] / scale, steps=3)
    view.mouse.up()
    view.locator("#name").fill("owl")
    view.locator("#add").click()
    view.locator("#supports li").wait_for()
    view.set_input_files("#find-files", [str(photos / f"{number}.png") for number in QUERIES])
    done(view, 2)
    truth = np.asarray(Image.open(photos / f"{QUERIES[0]}-mask.png")) > 0
    found = Image.open(io.BytesIO(downloaded(view, "#found .take >> nth=0")))
    assert found.size == truth.shape[::-1]
    assert iou(np.asarray(found) > 0, truth) > 0.6
    view.wait_for_function("async () => (await (await fetch('v1/concepts')).json()).length === 1")
    kept = {file.read_bytes()[:4] for file in server.files()}
    assert b"\x89PNG" not in kept
    assert len(server.files()) <= 2  # the concept, and what was just being removed


def test_a_photo_that_is_too_large_is_told_and_the_others_are_done(view, photos, tmp_path) -> None:
    Image.new("1", (6000, 5000)).save(tmp_path / "wide.png")
    view.locator("#example").click()
    done(view, 3)
    view.set_input_files("#find-files", [str(tmp_path / "wide.png"), str(photos / f"{QUERIES[0]}.png")])
    view.get_by_text("wide.png has 6000 x 5000 pixels; at most 25 megapixels").wait_for()
    done(view, 4)


def test_a_server_that_was_started_anew_is_taught_again(view, photos) -> None:
    view.locator("#example").click()
    done(view, 3)
    view.evaluate("() => fetch('v1/session', {method: 'DELETE'})")
    view.set_input_files("#find-files", str(photos / f"{QUERIES[0]}.png"))
    done(view, 4)
