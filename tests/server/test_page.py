"""The page in a real browser, and what it gives out over HTTP."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import urllib.error
import urllib.request
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromium import opened_chromium
from fewseg.data.images import read_labels
from helpers import ColorSegmenter, iou, scene

httpx = pytest.importorskip("httpx")

BOX = (100, 70, 220, 190)
ROUNDS = int(os.environ.get("FEWSEG_SOAK_ROUNDS", "5"))
"""How often each of eight visitors does everything; docs/reliability.md has the figures of many more."""

STILL = """() => {
  const box = JSON.stringify(document.querySelector("#editor canvas").getBoundingClientRect());
  const still = box === window.lastBox;
  window.lastBox = box;
  return still;
}"""
"""True where the editor is where it was at the last look."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra `app`"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of gradio and its server
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def page():
    from fewseg.server.serve import serve

    page = serve(ColorSegmenter(64), wait=False)
    yield page
    page.close(verbose=False)
    gc.collect()  # what gradio and the visitors leave open, while the marks above let it pass


@pytest.fixture
def files(tmp_path):
    """A support photo with a red box in its middle, and two queries; returns the queries' truths."""
    pixels, _ = scene(size=(320, 260), box=BOX)
    Image.fromarray(pixels).save(tmp_path / "support.png")
    truths = {}
    for name, box in (("one", (30, 40, 150, 200)), ("two", (150, 20, 300, 120))):
        pixels, truths[name] = scene(size=(320, 260), box=box)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return truths


@pytest.fixture
def chromium():
    yield from opened_chromium()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_paint_find_threshold_and_download(page, chromium, files, tmp_path, width, height):
    view = chromium.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
    view.set_default_timeout(60_000)
    asked: list[str] = []
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page.local_url)
    view.set_input_files("#support input[type=file]", str(tmp_path / "support.png"))
    canvas = view.locator("#editor canvas").first
    canvas.wait_for()
    view.wait_for_function(STILL, polling=500)  # the editor has fitted the photo into itself
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    view.mouse.move(x - 30, y - 20)
    view.mouse.down()
    for step in range(8):
        view.mouse.move(x - 30 + 8 * step, y - 20 + (20 if step % 2 else 0), steps=4)
    view.mouse.up()
    view.wait_for_timeout(500)
    view.get_by_text("strokes: red object").click()
    view.locator("#add").click()
    view.locator("#supports img").first.wait_for()
    view.set_input_files("#queries input[type=file]", [str(tmp_path / f"{name}.png") for name in files])
    view.locator("#queries").get_by_text("two").first.wait_for()
    view.locator("#find").click()
    view.locator("#masks").get_by_text("one.png: object").first.wait_for()
    view.wait_for_function("!document.querySelector('#download').disabled")
    view.screenshot(path=str(tmp_path / "page.png"), full_page=True)
    with view.expect_download() as download:
        view.locator("#download").click()
    download.value.save_as(tmp_path / "masks.zip")
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        archive.extractall(tmp_path / "masks")
    for name, truth in files.items():
        assert iou(read_labels(tmp_path / f"masks/{name}.png") > 0, truth) > 0.9
    view.locator("#threshold input[type=number]").fill("1")
    view.locator("#threshold input[type=number]").press("Enter")
    view.locator("#masks").get_by_text("one.png: nothing found").first.wait_for()
    wide = view.evaluate("document.documentElement.scrollWidth")
    assert wide <= width  # nothing to scroll to sideways
    outside = [url for url in asked if not url.startswith((page.local_url, "data:", "blob:"))]
    assert not outside


@pytest.mark.browser
def test_what_is_too_large_or_missing_is_told_on_the_page(page, chromium, tmp_path):
    view = chromium.new_page()
    view.set_default_timeout(60_000)
    view.goto(page.local_url)
    view.locator("#find").click()
    view.get_by_text("Mark the object in at least one photo first").first.wait_for()
    Image.new("1", (6000, 5000)).save(tmp_path / "wide.png")
    view.set_input_files("#support input[type=file]", str(tmp_path / "wide.png"))
    view.get_by_text("at most 25 megapixels").first.wait_for()
    (tmp_path / "heavy.png").write_bytes(b"\x89PNG" + bytes(27_000_000))
    view.set_input_files("#queries input[type=file]", str(tmp_path / "heavy.png"))
    view.get_by_text("the maximum allowed size").first.wait_for()  # gradio's words


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_it_listens_on_loopback_and_gives_out_no_other_files(page, tmp_path):
    assert page.local_url.startswith("http://127.0.0.1:")
    assert status(page.local_url) == 200
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    own = Path(__file__).resolve()
    for path in (secret, "/etc/passwd", own, Path.cwd() / "pyproject.toml", "../../../etc/passwd"):
        assert status(f"{page.local_url}gradio_api/file={path}") in (403, 404)


def test_an_upload_beyond_the_limit_is_refused_by_the_server(page):
    heavy = {"files": ("heavy.png", b"\x89PNG" + bytes(27_000_000))}
    with httpx.Client(timeout=60) as http:
        assert http.post(f"{page.local_url}gradio_api/upload", files=heavy).status_code == 413


class Client:
    """A visitor who calls the page's functions over HTTP, as the page itself does."""

    def __init__(self, url: str, number: int) -> None:
        self.url, self.http, self.hash = url, httpx.Client(timeout=60), f"soak{number}"
        self.requests = 0
        config = self.http.get(f"{url}config").json()
        names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self.functions = {}
        for dependency in config["dependencies"]:
            for target, event in dependency["targets"]:
                self.functions.setdefault((names.get(target), event), dependency["id"])

    def upload(self, path: Path) -> dict:
        self.requests += 1
        with path.open("rb") as file:
            (place,) = self.http.post(f"{self.url}gradio_api/upload", files={"files": file}).json()
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def call(self, name: str, event: str, data: list) -> list:
        self.requests += 1
        body = {"data": data, "fn_index": self.functions[name, event], "session_hash": self.hash}
        self.http.post(f"{self.url}gradio_api/queue/join", json=body).raise_for_status()
        address = f"{self.url}gradio_api/queue/data?session_hash={self.hash}"
        with self.http.stream("GET", address) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return message["output"]["data"]
        raise AssertionError("the page did not answer")


def test_what_waits_is_bounded_and_more_is_told_that_the_page_is_busy(page, files, tmp_path, monkeypatch):
    from fewseg.server.serve import QUEUE

    go, plain = threading.Event(), ColorSegmenter.encode_query
    client = Client(page.local_url, 99)
    Image.fromarray(np.eye(260, 320, dtype=np.uint8) * np.uint8(255)).save(tmp_path / "mask.png")
    client.call("support", "change", [client.upload(tmp_path / "support.png")])
    mask = client.upload(tmp_path / "mask.png")
    client.call("add", "click", [None, "all", None, None, "the whole object, in red", mask])
    monkeypatch.setattr(ColorSegmenter, "encode_query", lambda self, image: (go.wait(60), plain(self, image))[1])
    body = {"data": [None, [client.upload(tmp_path / "one.png")]], "fn_index": client.functions["find", "click"]}
    joined = [
        client.http.post(f"{page.local_url}gradio_api/queue/join", json=body | {"session_hash": client.hash})
        for _ in range(QUEUE + 8)
    ]
    go.set()
    codes = [answer.status_code for answer in joined]
    assert QUEUE <= codes.count(200) <= QUEUE + 2  # two are being worked on
    assert codes.count(503) == len(codes) - codes.count(200)
    assert "full" in joined[-1].text
    client.http.close()


def memory() -> float:
    """Resident memory of this process in MB."""
    text = Path("/proc/self/statm").read_text().split()
    return int(text[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to measure memory")
def test_eight_visitors_at_once_are_served_in_flat_memory(page, files, tmp_path):
    """Marking, finding and moving the threshold in ROUNDS rounds; from two fifths of them on, memory stays."""
    pixels, mask = scene(size=(320, 260), box=BOX)
    Image.fromarray(np.uint8(255) * mask).save(tmp_path / "mask.png")
    assert pixels.shape[:2] == mask.shape
    begin, failed, counts, held = memory(), [], [], []

    def one_round(client: Client) -> None:
        client.call("support", "change", [client.upload(tmp_path / "support.png")])
        mask_file = client.upload(tmp_path / "mask.png")
        client.call("clear", "click", [None])
        client.call("add", "click", [None, "box", None, None, "the whole object, in red", mask_file])
        client.call("find", "click", [None, [client.upload(tmp_path / "one.png")]])
        (gallery,) = client.call("threshold", "change", [None, 0.5, 0.5, 0])
        assert gallery[0]["caption"].startswith("one.png: box")

    def visit(number: int) -> None:
        try:
            client, rounds = Client(page.local_url, number), 0
            while rounds < ROUNDS:
                try:
                    one_round(client)
                except httpx.HTTPStatusError as error:
                    if error.response.status_code != 503:  # a full queue asks to come back, as a busy machine's is
                        raise
                    time.sleep(0.5)
                    continue
                rounds += 1
                held.append(memory())
            counts.append(client.requests)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = f"{sum(counts)} requests; MB at the start {begin:.0f}, then {', '.join(f'{m:.0f}' for m in held)}"
    print(found)  # noqa: T201
    assert not failed
    assert len(counts) == 8
    assert max(held) < held[2 * len(held) // 5] + 80, found
