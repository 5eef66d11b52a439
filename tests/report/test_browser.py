"""The report in a real browser: phone and desktop, light and dark, and nothing from the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewseg.report.contents import ClassScores, Confusion, ReportPage, Row
from fewseg.report.html import write_report
from helpers import HOSTILE, full_page

CHROMIUM = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]

CONTRAST = """() => {
  const light = color => {
    const [r, g, b] = color.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || e.closest(".hidden") || !e.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0])[0];
}"""
CUT_OFF = """() => [...document.querySelectorAll("main *, header *")]
  .filter(e => e.getClientRects().length && !e.closest(".scroll, .hidden, svg"))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + " " + e.className + " " + e.textContent.trim().slice(0, 40))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (in the extra dev)")
    with playwright.sync_playwright() as started:
        # No sandbox: continuous integration runs as root, and the page is our own.
        opened = started.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False, args=list(QUIET))
        yield opened
        opened.close()


def wide_page(name: str) -> ReportPage:
    """All parts, with many methods, columns and classes."""
    rng, page = np.random.default_rng(0), full_page(name)
    columns = {"p": "< 0.001", "parameters": "46.7 M", "s/episode": "0.12", "peak memory": "1361 MB"}
    rows = tuple(
        Row(f"{name} {i}", x, (x * 0.9, x), x, published=0.6, columns=columns) for i, x in enumerate(rng.random(6))
    )
    classes = tuple(ClassScores(f"{name} {i}", x, episodes=50, marks={name: 0.4}) for i, x in enumerate(rng.random(20)))
    confusions = tuple(
        Confusion(f"{name} {i}", 0.5, 0.2, {f"{name} {k}": 0.03 for k in range(10)}, group="by class")
        for i in range(20)
    )
    return ReportPage(
        page.title,
        page.subtitle,
        (*page.rows, *rows),
        (*page.per_class, *classes),
        confusions,
        page.curves,
        page.panels,
        page.facts,
        page.sections,
        page.commands,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 760, 1280])
@pytest.mark.parametrize(
    "name", ["snail", HOSTILE + "\u202eabc\u200f" + "long" * 60 + "\x00"], ids=["plain", "hostile"]
)
def test_the_page_fits_loads_nothing_and_can_be_read(
    browser: Any, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    path = write_report(tmp_path / "report.html", wide_page(name))
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(path.as_uri())
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(CUT_OFF) == []
    images = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert images
    assert all(images)
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f}"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 150) == (scheme == "dark")
    context.close()


def test_print_is_light_and_leaves_no_bar_without_room(browser: Any, tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", wide_page("snail"))
    page = browser.new_page(viewport={"width": 680, "height": 900}, color_scheme="dark")
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(page.evaluate("[...document.querySelectorAll('.bar, .stack')].map(e => e.clientWidth)")) > 150
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.close()
