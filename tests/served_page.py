"""The page of `fewseg serve` in Chromium, for its tests: opened, marked on, and what it gives away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from served import Server
from waiting import LONG

SUPPORT, QUERIES = 17, (43, 66)
OWL = 5
"""Scenes by number, and the class of what is looked for in them."""


@contextmanager
def opened(browser: Any, server: Server, **how: Any) -> Iterator[Any]:
    """The page, which asks nothing of anyone else and has no error."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}} | how, accept_downloads=True)
    view = context.new_page()
    view.set_default_timeout(1000 * LONG)
    told: list[str] = []
    asked: list[str] = []
    view.on("pageerror", lambda error: told.append(str(error)))
    # 404: forgotten; 409, 413: no room, too many; 422: a mask that is not understood; 502, 504: a proxy's; each is told
    error = re.compile("(?!.*status of (404|409|413|422|502|504))")
    view.on("console", lambda line: told.append(line.text) if line.type == "error" and error.match(line.text) else None)
    context.on("request", lambda request: asked.append(request.url))
    view.goto(server.url)
    view.locator("#status.ready").wait_for()
    yield view
    view.evaluate("() => fetch('v1/session', {method: 'DELETE'})")
    context.close()
    assert not told, told
    assert all(address.startswith((server.url, "blob:")) for address in asked)


def downloaded(view: Any, selector: str, kind: str = "each") -> bytes:
    view.select_option("#kind", kind)
    with view.expect_download() as download:
        view.locator(selector).click()
    return Path(download.value.path()).read_bytes()


def done(view: Any, count: int) -> None:
    view.wait_for_function(
        """(count) => document.querySelector("#work").hidden &&
           document.querySelectorAll("#found .take:not([disabled])").length === count""",
        arg=count,
    )


def place(view: Any, photo: Path) -> Callable[[float, float], tuple[float, float]]:
    """Where on the screen a photo's pixel is, in the editor."""
    area = view.locator("#editor").bounding_box()
    with Image.open(photo) as image:
        scale = area["width"] / image.width
    return lambda x, y: (area["x"] + x * scale, area["y"] + y * scale)


def outline(mask: np.ndarray, count: int = 24) -> list[tuple[float, float]]:
    """Corners of a polygon around an object that is round, more or less."""
    rows, columns = np.nonzero(mask)
    middle = np.array([columns.mean(), rows.mean()])
    angles = np.arctan2(rows - middle[1], columns - middle[0])
    far = np.hypot(rows - middle[1], columns - middle[0])
    corners = []
    for angle in np.linspace(-np.pi, np.pi, count, endpoint=False):
        near = np.abs(np.angle(np.exp(1j * (angles - angle)))) < np.pi / count
        corners.append(middle + (far[near].max() if near.any() else 1) * np.array([np.cos(angle), np.sin(angle)]))
    return [(float(x), float(y)) for x, y in corners]


def truth(photos: Path, number: int) -> np.ndarray:
    return np.asarray(Image.open(photos / f"{number}-mask.png")) > 0
