"""`fewseg serve --label-studio` as Label Studio uses it: health, setup, predict, webhook; what tasks must not reach."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from annotation_tools import run_tool
from fewseg.concept import Concept
from fewseg.data.annotations.label_studio import decode_rle, encode_rle
from helpers import Fewseg, iou
from served import QUERY, SUPPORT, Server, photo, served
from waiting import LONG, until

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="img" value="$picture"/>
<BrushLabels name="brush" toName="img"><Label value="box"/><Label value="other"/><Label value="new"/>
</BrushLabels></View>"""
SMART = """<KeyPointLabels name="smart" toName="img" smart="true"><Label value="box"/></KeyPointLabels></View>"""
PROJECT = {"id": 3, "label_config": CONFIG}
TOKEN = "a-token-of-label-studio"


class Tool(BaseHTTPRequestHandler):
    """A Label Studio that gives out a photo to whoever has its token, and one address that leads elsewhere.

    What is called `held` it gives out once `free` is set.
    """

    asked: list[str] = []  # noqa: RUF012
    free = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        known = self.headers["Authorization"] in (f"Token {TOKEN}", "Bearer short")
        self.send_response(302 if "moved" in self.path else 200 if known else 401)
        if "moved" in self.path:
            self.send_header("Location", "http://127.0.0.1:9/secret.png")
        self.end_headers()
        assert "held" not in self.path or self.free.wait(LONG)
        self.wfile.write(photo(QUERY)[0])

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(f"{self.path} {sent}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"access": "short"}).encode())

    def log_message(self, *told: Any) -> None:
        pass


@contextmanager
def tool() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tool)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Tool.asked.clear()
    Tool.free.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "tool"
    place.mkdir()
    (place / "photos").mkdir()
    for name, box in (("support", SUPPORT), ("query", QUERY)):
        (place / f"photos/{name}.png").write_bytes(photo(box)[0])
    (place / "secret.png").write_bytes(photo(QUERY)[0])
    return place


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    words = ("--label-studio", place / "concepts", "--photos", place / "photos")
    with served(place / "files", *words) as one:
        yield one


def predicted(client: httpx.Client, *addresses: str, **more: Any) -> httpx.Response:
    tasks = [{"id": n, "data": {"picture": address}} for n, address in enumerate(addresses)]
    body = {"tasks": tasks, "project": "3.17", "label_config": CONFIG, "params": {"context": None}} | more
    return client.post("/predict", json=body)


def annotation(address: str, mask: Any, *, action: str = "ANNOTATION_CREATED", label: str = "box") -> dict[str, Any]:
    """The event of an annotation with one brush, or with none."""
    size = {"original_width": 240, "original_height": 180, "image_rotation": 0}
    value = {"format": "rle", "rle": encode_rle(mask), "brushlabels": [label]}
    region = {"id": "x", "type": "brushlabels", "from_name": "brush", "to_name": "img", "value": value, **size}
    task = {"id": 1, "data": {"picture": address}}
    return {"action": action, "project": PROJECT, "task": task, "annotation": {"id": 5, "result": [region]}}


def version_of(client: httpx.Client) -> str:
    return client.post("/setup", json={"project": "3.17", "schema": CONFIG}).json()["model_version"]


def learnt(client: httpx.Client, event: dict[str, Any]) -> str:
    """Send an event of something new while nothing else is being learnt, wait until it is learnt; the new version."""
    before = version_of(client)
    assert client.post("/webhook", json=event).status_code == 201
    until(lambda: version_of(client) != before, "nothing was learnt")
    return version_of(client)


def test_an_annotation_teaches_and_the_next_task_is_predicted(server: Server, place: Path, fewseg: Fewseg) -> None:
    truth, taught = photo(QUERY)[2], photo(SUPPORT)[2]
    with server.client() as client:
        assert client.get("/health").json()["status"] == "UP"
        assert predicted(client, "/data/local-files/?d=query.png").json()["results"][0]["result"] == []

        version = learnt(client, annotation("/data/upload/3/0123abcd-support.png", taught))
        assert version.startswith("1 support, ")
        answer = predicted(client, "/data/local-files/?d=query.png", "query.png").json()
        assert answer["model_version"] == version
        assert len(answer["results"]) == 2
        prediction = answer["results"][0]
        assert prediction["model_version"] == version
        (region,) = prediction["result"]
        assert (region["from_name"], region["to_name"], region["type"]) == ("brush", "img", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (240, 180)
        assert region["value"]["brushlabels"] == ["box"]
        assert 0 < prediction["score"] <= 1
        mask = decode_rle(region["value"]["rle"]).reshape(180, 240, 4)[..., 3] > 0
        assert iou(mask, truth) > 0.6

        # polygons, where the project has no brushes
        shown = predicted(client, "query.png", label_config=CONFIG.replace("BrushLabels", "PolygonLabels"))
        outline = shown.json()["results"][0]["result"][0]
        assert outline["type"] == "polygonlabels"
        assert np.max(outline["value"]["points"]) <= 100

        # what was corrected takes the place of what was there, and a photo without regions is one without the class
        learnt(client, annotation("support.png", np.roll(taught, 5, 1), action="ANNOTATION_UPDATED"))
        kept = Concept.load(place / "concepts/box.concept")
        assert [example.name for example in kept.supports] == ["support.png"]
        assert kept.model.name == "lite"
        assert client.post("/webhook", json=annotation("query.png", truth, label="other")).status_code == 201
        until((place / "concepts/other.concept").is_file)
        assert [one.name for one in Concept.load(place / "concepts/box.concept").absent] == ["query.png"]
    words = ("--concept", place / "concepts/box.concept", "--out", place / "out", "--no-overlay")
    assert fewseg("segment", place / "photos/support.png", *words).code == 0


def said(server: Server, words: str) -> Iterator[str]:
    """Lines of its log that have these words, as they come."""
    assert server.process.stdout
    return (line for line in iter(server.process.stdout.readline, "") if words in line)


def test_a_label_that_was_the_wrong_one_keeps_no_other_from_being_learnt(server: Server, place: Path) -> None:
    box, other = (place / f"concepts/{name}.concept" for name in ("box", "other"))
    mended = annotation("support.png", photo(SUPPORT)[2], action="ANNOTATION_UPDATED", label="other")
    with server.client() as client:
        learnt(client, annotation("support.png", photo(SUPPORT)[2]))
        learnt(client, mended)
        assert next(said(server, "was not learnt")) == (
            f"support.png: box was not learnt: it is on no other photo, so {box} stays as it was: annotate another "
            "photo of box, then submit this one again; or remove that file and start the server anew\n"
        )
        assert [one.name for one in Concept.load(other).supports] == ["support.png"]
        for event, last in (
            (annotation("query.png", photo(QUERY)[2]), "other.concept: learnt query.png"),
            (mended, "box.concept: learnt support.png"),
        ):
            assert client.post("/webhook", json=event).status_code == 201
            assert next(said(server, last))
    kept = Concept.load(box)
    assert [[one.name for one in some] for some in (kept.supports, kept.absent)] == [["query.png"], ["support.png"]]


def test_a_task_reaches_no_other_file_and_no_address(server: Server) -> None:
    with server.client() as client, tool() as elsewhere:
        taught = annotation("support.png", photo(SUPPORT)[2])
        learnt(client, taught)
        for address in (
            "../secret.png",
            "/data/local-files/?d=../secret.png",
            f"{elsewhere}/secret.png",
            "/etc/passwd",
        ):
            answer = predicted(client, address)
            assert answer.status_code == 422, address
            assert "is not in" in answer.json()["error"]
        assert Tool.asked == []
        for body in ({}, {"tasks": 3}, {"tasks": [1], "label_config": "<View/>"}, {"tasks": [{}], "label_config": "<"}):
            assert client.post("/predict", json=body).status_code in (400, 422)
        assert client.post("/predict", content=b"[" * 100_000).status_code == 400
        assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 400
        assert client.post("/webhook", json={"action": "TASKS_CREATED"}).status_code == 200
        assert client.post("/predict", content=b"[" + 25_100_000 * b" ").status_code == 413
        odd = annotation("support.png", photo(SUPPORT)[2], action="ANNOTATION_UPDATED")
        odd["annotation"]["result"][0]["value"]["brushlabels"] = 5  # told on the terminal, and the server goes on
        assert client.post("/webhook", json=odd).status_code == 201
        page = {"Origin": "http://evil.example"}
        assert client.post("/webhook", json=taught, headers=page).status_code == 403
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421


def clicked(
    client: httpx.Client, kind: str, value: dict[str, Any], *more: dict[str, Any], label: str
) -> httpx.Response:
    """What a smart tool's point or rectangle is answered with; values in per cent."""
    place = {"type": kind, "from_name": "smart", "to_name": "img", "original_width": 240, "original_height": 180}
    regions = [{"id": "s", "value": value | {kind: [label]}, "is_positive": True, **place}, *more]
    config = CONFIG.replace("</View>", SMART)
    return predicted(client, "query.png", label_config=config, params={"context": {"result": regions}})


def test_smart_tools_get_the_object_that_they_mark(server: Server, tmp_path: Path) -> None:
    truth, middle = photo(QUERY)[2], {"x": 60, "y": 55, "width": 1}
    around = {"x": 35, "y": 25, "width": 51, "height": 61, "rotation": 0}
    with server.client() as client:
        learnt(client, annotation("support.png", photo(SUPPORT)[2], action="ANNOTATION_UPDATED"))
        tasks = []
        for label, kind, value, least in (
            ("new", "keypointlabels", middle, 0.95),  # not taught: grown by colour
            ("new", "rectanglelabels", around, 0.6),  # what looks like the rectangle's content
            ("box", "keypointlabels", middle, 0.6),  # the part of what the concept finds
            ("box", "rectanglelabels", around, 0.6),
        ):
            answer = clicked(client, kind, value, label=label)
            assert answer.status_code == 200, answer.text
            (prediction,) = answer.json()["results"]
            (region,) = prediction["result"]
            assert region["value"]["brushlabels"] == [label]
            mask = decode_rle(region["value"]["rle"]).reshape(180, 240, 4)[..., 3] > 0
            assert iou(mask, truth) > least, (label, kind)
            tasks.append({"data": {"picture": f"?d={len(tasks)}.png"}, "predictions": [prediction]})
        beside = {
            "type": "keypointlabels",
            "value": {"x": 60, "y": 60, "keypointlabels": ["box"]},
            "is_positive": False,
        }
        answer = clicked(client, "keypointlabels", middle, beside, label="box").json()["results"][0]["result"]
        assert not answer or decode_rle(answer[0]["value"]["rle"]).reshape(180, 240, 4)[108, 144, 3] == 0
        for wrong, told in ((("keypointlabels", {"x": 1}), "use one of them"), (("polygonlabels", around), "use one")):
            refused = clicked(client, *wrong, label="box")
            assert (refused.status_code, told in refused.json()["error"]) == (422, True)
        assert "masks are for box" in clicked(client, "keypointlabels", middle, label="odd").json()["error"]
    config = CONFIG.replace("</View>", SMART)
    (tmp_path / "project.json").write_text(json.dumps({"config": config, "tasks": tasks}))
    run_tool("label-studio", tmp_path / "project.json", tmp_path / "read")  # Label Studio takes what was answered


@pytest.mark.parametrize("token", [TOKEN, "personal.access.token"])
def test_photos_come_from_the_host_that_was_named_and_no_other(token: str, place: Path, tmp_path: Path, fewseg) -> None:
    concept = tmp_path / "concepts/box.concept"
    (tmp_path / "mask.png").write_bytes(photo(SUPPORT)[1])
    marked = ("--support", place / "photos/support.png", "--mask", tmp_path / "mask.png")
    concept.parent.mkdir()
    assert fewseg("teach", "--class", "box", *marked, "--out", concept).code == 0
    with tool() as url:
        words = ("--label-studio", concept.parent, "--label-studio-url", url, "--token", "sixteen-letters-and-more")
        with served(tmp_path / "files", *words, LABEL_STUDIO_API_KEY=token) as server, server.client() as client:
            assert client.get("/health").status_code == 200
            assert predicted(client, "/data/upload/1/a.png").status_code == 401
            client.auth = ("anyone", "sixteen-letters-and-more")  # all that Label Studio can be told
            assert predicted(client, "/data/upload/1/a.png").json()["results"][0]["result"] != []
            assert Tool.asked[-1] == "/data/upload/1/a.png"
            assert (len(Tool.asked) == 2) == (token != TOKEN)
            for address in (
                "http://127.0.0.1:9/a.png",
                "//127.0.0.1:9/a.png",
                f"{url}@127.0.0.1:9/a.png",
                "s3://b/a.png",
            ):
                assert "nothing is fetched from elsewhere" in predicted(client, address).json()["error"]
            assert "leads elsewhere" in predicted(client, "/data/moved.png").json()["error"]
            assert server.files() == []
            # Label Studio waits a second for an answer, however long the photo and the lesson take
            before = version_of(client)
            event = annotation("/data/upload/1/held.png", photo(QUERY)[2])
            assert client.post("/webhook", json=event).status_code == 201
            until(lambda: "/data/upload/1/held.png" in Tool.asked)
            assert version_of(client) == before
            Tool.free.set()
            until(lambda: version_of(client) != before)


def test_a_folder_of_concepts_that_cannot_be_written_is_told_with_what_to_do(place: Path) -> None:
    words = ("--label-studio", place / "concepts", "--photos", place / "photos")
    with served(place / "files", *words) as server, server.client() as client:
        (place / "concepts").rmdir()
        (place / "concepts").write_text("")  # in its way
        assert client.post("/webhook", json=annotation("support.png", photo(SUPPORT)[2])).status_code == 201
        told = next(said(server, "was not learnt"))
    assert told == (
        f"support.png: box was not learnt: {place}/concepts/box.concept cannot be written (File exists): make room in "
        f"{place}/concepts, and let this user write there; then submit it again\n"
    )


def test_what_is_lacking_is_said(fewseg: Fewseg, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, told in (
        (("--label-studio", tmp_path / "c"), "--photos"),
        (
            ("--label-studio", tmp_path / "file" / "c", "--photos", tmp_path),
            "cannot keep what is learnt (Not a directory)",
        ),
        (("--photos", tmp_path), "--label-studio DIR"),
        (("--label-studio", tmp_path / "c", "--label-studio-url", "localhost:8080"), "http://localhost:8080"),
        (("--label-studio", tmp_path / "c", "--photos", tmp_path / "none"), "no such folder"),
    ):
        failed = fewseg("serve", "--no-browser", *words)
        assert failed.code == 2
        assert told in failed.err
