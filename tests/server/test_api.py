"""The API as a client sees it: teach, find, take away, stop, forget."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

import fewseg
from fewseg.concept import Concept
from fewseg.errors import install_line
from fewseg.segment.formats import FORMATS
from helpers import Fewseg, iou, page_block
from served import QUERY, SUPPORT, Server, ask, events, photo, png, read, served, taught
from waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as one:
        yield one


def test_a_concept_is_taught_found_and_taken_away_as_the_command_line_does(
    server: Server, client: httpx.Client, concept: str, tmp_path: Path, fewseg: Fewseg
) -> None:
    query, _, truth = photo(QUERY)
    answer = ask(client, concept, query)
    told = dict(events(client, answer))["photo"]
    assert (told["name"], told["width"], told["height"]) == ("0.png", 240, 180)
    assert told["classes"][0]["name"] == "box"
    assert server.files() != []
    assert not [file for file in server.files() if file.read_bytes() == query]  # it was searched, and is gone
    place = answer.json()["url"]
    mask = read(client.get(f"{place}/photos/0/mask.png", params={"presence": 0}).content)
    assert set(np.unique(mask)) == {0, 255}
    assert iou(mask > 0, truth) > 0.6
    assert iou(mask > 0, client_side(client, place) > 0.5) > 0.97

    # the concept's file is one that the command line takes, and finds the same with
    (tmp_path / "box.concept").write_bytes(client.get(f"/v1/concepts/{concept}/file").content)
    kept = Concept.load(tmp_path / "box.concept")
    assert (kept.name, kept.model.name, kept.supports[0].name) == ("box", "lite", "support.png")
    (tmp_path / "query.png").write_bytes(query)
    words = ("--concept", tmp_path / "box.concept", "--presence", 0, "--out", tmp_path / "out")
    assert fewseg("segment", tmp_path / "query.png", *words).code == 0
    assert (read((tmp_path / "out/query.png").read_bytes()) == mask).mean() > 0.999

    again = client.post("/v1/concepts", files={"concept": ("box.concept", (tmp_path / "box.concept").read_bytes())})
    assert dict(events(client, again))["concept"]["name"] == "box"

    # a threshold is the command line's, of the probability that was there before it was moved by the concept's own
    chosen = tmp_path / "chosen.concept"
    replace(kept, choice=replace(kept.choice, threshold=0.65)).save(chosen)
    files = {"concept": ("chosen.concept", chosen.read_bytes())}
    key = dict(events(client, client.post("/v1/concepts", files=files)))["concept"]["concept"]
    answer = ask(client, key, query)
    events(client, answer)
    areas = []
    for threshold in ({}, {"threshold": 0.65}, {"threshold": 0.5}, {"threshold": 0.9}):
        options = [word for name, value in threshold.items() for word in (f"--{name}", value)]
        assert fewseg("segment", tmp_path / "query.png", "--concept", chosen, *words[2:], *options).code == 0
        shown = {"presence": 0} | threshold
        mask = read(client.get(f"{answer.json()['url']}/photos/0/mask.png", params=shown).content)
        assert (read((tmp_path / "out/query.png").read_bytes()) == mask).mean() > 0.999
        areas.append(np.count_nonzero(mask))
    own, same, more, less = areas
    assert less < own < more
    assert same == pytest.approx(own, abs=3)


def test_how_a_mask_is_understood_is_told_before_it_teaches(client: httpx.Client) -> None:
    image, _, truth = photo(SUPPORT)
    values = np.where(truth, 12, 0).astype(np.uint8)
    values[:5] = 255

    def sent(mask: np.ndarray, **label: str) -> httpx.Response:
        files = [("photo", ("p.png", image)), ("mask", ("m.png", png(mask)))]
        return client.post("/v1/mask", files=files, data=label)

    taken = sent(values)
    assert (read(taken.content) == np.select([values == 12, values == 255], [1, 255])).all()
    assert unquote(taken.headers["fewseg-told"]) == "0, 12 and 255: 12 is the object, 255 is ignored"
    wrong = sent(values[:50])
    told = "m.png is 240 x 50 but its image is 240 x 180 pixels; give a mask of the image's size"
    assert (wrong.status_code, wrong.json()["error"]) == (422, told)
    values[20:25] = 7
    assert "which of them is the object?" in sent(values).json()["error"]
    assert (read(sent(values, label="7").content) == 1).sum() == (values == 7).sum()
    assert client.post("/v1/mask", files={"photo": ("p.png", image)}).status_code == 400


def client_side(client: httpx.Client, place: str) -> np.ndarray:
    """The mask that a client draws itself."""
    answer = client.get(f"{place}/photos/0/probability", params={"side": 240})
    shape = tuple(map(int, answer.headers["fewseg-shape"].split(",")))
    return np.frombuffer(answer.content, "<u2").reshape(shape)[0] / 65535


def table(client: httpx.Client, place: str, *, presence: float) -> tuple[float, ...]:
    """What the table says of the first photo: presence, the IoU to expect and the doubt, as `fewseg segment` does."""
    content = client.get(f"{place}/masks.zip", params={"format": "csv", "presence": presence}).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        line = next(csv.DictReader(io.TextIOWrapper(archive.open("results.csv"))))
    return tuple(float(line[column]) for column in ("presence", "expected_iou", "doubt"))


def test_photos_are_told_one_by_one_what_is_broken_too_and_all_formats_are_in_a_zip(client, concept) -> None:
    query, _, _ = photo(QUERY)
    answer = ask(client, concept, query, b"no picture", query)
    told = [said for name, said in events(client, answer) if name == "photo"]
    assert [said["number"] for said in told] == [0, 1, 2]
    assert "1.png is not a picture that can be read" in told[1]["error"]
    place = answer.json()["url"]
    wanted = [("format", name) for name in ("png", "coco", "yolo", "geojson", "csv")]
    content = client.get(f"{place}/masks.zip", params=[*wanted, ("presence", 0)]).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {"0.png", "2.png", "0.txt", "2.geojson", "annotations.json", "classes.txt", "results.csv"} <= set(
            archive.namelist()
        )
        assert len(json.loads(archive.read("annotations.json"))["images"]) == 2
        assert archive.read("results.csv").count(b"\n") == 3
        assert archive.read("failures.csv").startswith(b"path,reason\n1.png,")
    told_of = told[0]["classes"][0]
    there, quality = told_of["presence"], told_of["expected_iou"]
    assert table(client, place, presence=0) == pytest.approx((there, quality, 1 - quality * there), abs=0.002)
    assert table(client, place, presence=1) == pytest.approx((there, 1 - there, there), abs=0.002)
    assert client.get(f"{place}/masks.zip?format=gif").status_code == 400
    assert client.get(f"{place}/photos/1/mask.png").status_code == 404
    assert client.delete(place).status_code == 204
    assert client.get(place).status_code == 404


def test_photos_without_the_object_calibrate_its_presence_and_notes_are_told(client) -> None:
    image, mask, _ = photo(SUPPORT)
    empty = png(np.full((180, 240, 3), 120, np.uint8))
    full = png(np.full((180, 240), 255, np.uint8))
    files = [("photo", ("a.png", image)), ("mask", ("m.png", mask)), ("absent", ("none.png", empty))]
    told = dict(events(client, client.post("/v1/concepts", data={"name": "with"}, files=files)))["concept"]
    assert (told["supports"], told["absent"]) == (1, 1)
    assert "a.png" in told["meanings"][0]
    files = [("photo", ("a.png", image)), ("mask", ("full.png", full))]
    told = dict(events(client, client.post("/v1/concepts", files=files)))["concept"]
    assert any("full.png leaves nothing as background" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("photo", ("a.png", b"1"))], "1 file `photo` and 0 files `mask`"),
        ([("foto", ("a.png", b"1"))], "the form has a field 'foto'; give name, label, photo, mask, absent, concept"),
        ([("concept", ("a", b"1")), ("photo", ("a.png", b"1"))], "one file `concept`, or photos and masks"),
    ],
)
def test_a_form_that_lacks_something_is_refused_in_words(client, files, words) -> None:
    answer = client.post("/v1/concepts", files=files)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_parameter_that_an_address_does_not_take_is_refused_by_name(client, concept) -> None:
    answer = ask(client, concept, photo(QUERY)[0])
    events(client, answer)
    place = answer.json()["url"]
    shown = "threshold, presence, min_area"
    for address, words in (
        ("masks.zip?tresh=0.3", f"a parameter 'tresh'; give format, {shown}"),
        ("masks.zip?threshold=0.3&min-area=20000", f"'min-area'; give format, {shown}"),
        ("photos/0/mask.png?instances=", f"'instances'; give {shown}"),
        ("photos/0/probability?threshold=0.3", "'threshold'; give side"),
        ("events?threshold=0.3", f"'threshold'; it takes none: {shown} go with masks.zip and mask.png"),
    ):
        refused = client.get(f"{place}/{address}")
        assert (refused.status_code, words in refused.json()["error"]) == (400, True), refused.text
    refused = client.post("/v1/segment?threshold=0.3", data={"concept": concept}, files={"photo": ("q", b"")})
    assert (refused.status_code, "'threshold'; it takes none" in refused.json()["error"]) == (400, True)
    assert client.get(f"{place}/masks.zip?threshold=0.3&presence=0&min_area=9&format=csv").status_code == 200


def test_what_cannot_be_taught_is_told_by_the_files_own_names(client) -> None:
    image, mask, _ = photo(SUPPORT)
    for files, words in (
        ([("photo", ("a.png", b"1")), ("mask", ("m.png", mask))], "a.png is not a picture"),
        ([("photo", ("a.png", image)), ("mask", ("m.png", png(np.zeros((9, 9), np.uint8))))], "m.png"),
        ([("concept", ("x.concept", b"x" * 99))], "x.concept: it is no concept"),
    ):
        told = dict(events(client, client.post("/v1/concepts", files=files)))
        assert words in told["failed"]["error"]
        assert "/" not in told["failed"]["error"].replace("/256", "")


def test_a_label_says_which_value_of_the_masks_is_the_object_as_on_the_command_line(client) -> None:
    image, _, truth = photo(SUPPORT)
    several = np.where(truth, np.uint8(2), np.uint8(1))
    several[:20] = 0
    files = [("photo", ("a.png", image)), ("mask", ("m.png", png(several)))]
    told = dict(events(client, client.post("/v1/concepts", files=files)))
    assert "m.png holds the values 0, 1 and 2" in told["failed"]["error"]
    assert "the field label of the API" in told["failed"]["error"]
    told = dict(events(client, client.post("/v1/concepts", files=files, data={"label": "2"})))
    assert "2 is the object" in told["concept"]["meanings"][0]
    wrong = client.post("/v1/concepts", files=files, data={"label": "leaf"})
    assert (wrong.status_code, wrong.json()["error"]) == (
        400,
        "label 'leaf': give a number, >=NUMBER, any, or a colour #rrggbb",
    )


def test_a_method_that_is_asked_for_is_told_and_a_concept_of_another_leads_on(tmp_path) -> None:
    with served(tmp_path, "--model", "dense") as server, server.client() as client:
        assert client.get("/v1/status").json()["model"] == "dense (features of lite)"
        assert client.get("/config.json").json()["model"] == "dense (features of lite)"
        assert f"{server.url}api.html  (dense (features of lite), " in server.second
        taught = fewseg.teach(*supports(), name="leaf", model="lite")
        taught.save(tmp_path / "leaf.concept")
        files = {"concept": ("leaf.concept", (tmp_path / "leaf.concept").read_bytes())}
        told = dict(events(client, client.post("/v1/concepts", files=files)))
        assert told["failed"]["error"] == (
            "leaf is looked for by lite, and --model dense runs here, which looks by dense alone: leave out --model "
            "dense (of fewseg serve, too, started anew), or choose anew how it is looked for: fewseg teach --concept "
            "FILE --model dense"
        )


def test_concepts_of_other_weights_are_told_of_or_refused_where_they_keep_no_photos(client, tmp_path) -> None:
    for keep_photos in (True, False):
        taught = fewseg.teach(*supports(), name="leaf", keep_photos=keep_photos)
        replace(taught, model=replace(taught.model, sha256=64 * "0")).save(tmp_path / "leaf.concept")
        files = {"concept": ("leaf.concept", (tmp_path / "leaf.concept").read_bytes())}
        told = dict(events(client, client.post("/v1/concepts", files=files)))
        if keep_photos:
            assert "leaf was taught with other weights (lite)" in told["concept"]["notes"][0]
        else:
            assert "leaf keeps features of another model (lite) and no photos" in told["failed"]["error"]


def supports() -> tuple[Any, Any]:
    image, _, truth = photo(SUPPORT)
    return read(image), truth


def test_sessions_do_not_see_one_another_and_one_that_leaves_leaves_nothing(server, client, concept) -> None:
    before = len(server.files())
    with server.client() as other:
        assert other.get(f"/v1/concepts/{concept}/file").status_code == 404
        answer = ask(other, concept, photo(QUERY)[0])
        assert answer.status_code == 404
        assert "keep the cookie" in answer.json()["error"]
        assert not other.cookies  # a page sends two at once, after a restart, too: they are one visitor
        own = taught(other)
        job = ask(other, own, *[photo(QUERY)[0]] * 20)
        assert other.delete("/v1/session").status_code == 204
        assert other.get(job.json()["url"]).status_code == 404
        assert other.get("/v1/concepts").json() == []
    until(lambda: client.get("/v1/status").json()["taken"]["waiting"] == 0)  # the photo that was being searched
    assert len(server.files()) <= before


def test_a_job_stops_when_it_is_removed(client, concept) -> None:
    answer = ask(client, concept, *[photo(QUERY)[0]] * 50)
    with client.stream("GET", answer.json()["events"]) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("data"))
        with httpx.Client(base_url=client.base_url, cookies=client.cookies) as same:
            same.delete(answer.json()["url"])
        told = [line for line in lines if line.startswith("data")]
    assert json.loads(told[-1].removeprefix("data: ")) == {"stopped": True}
    assert len(told) < 50


def test_events_can_be_taken_up_where_they_broke_off(client, concept) -> None:
    answer = ask(client, concept, photo(QUERY)[0], photo(QUERY)[0])
    events(client, answer)
    last = client.get(answer.json()["events"], headers={"Last-Event-ID": "0"})
    assert last.headers["x-accel-buffering"] == "no"  # nginx holds events back else
    assert re.findall(r"^id: (\d+)$", last.text, re.M) == ["1", "2"]
    assert [event["event"] for event in client.get(answer.json()["url"]).json()["events"]] == ["photo", "photo", "done"]


def test_the_description_of_the_api_names_every_route(client) -> None:
    from fewseg.server.api import QUERIES, Api

    described = client.get("/openapi.json").json()

    def meant(one: dict[str, Any]) -> dict[str, Any]:
        kind, _, name = one.get("$ref", "").removeprefix("#/components/").partition("/")
        return described["components"][kind][name] if kind else one

    paths = {path: {*methods} - {"parameters"} for path, methods in described["paths"].items()}
    routes: dict[str, set[str]] = {}
    for route in Api.__new__(Api).routes():
        assert route.methods
        path = route.path.replace(":int", "")
        routes.setdefault(path, set()).update(method.lower() for method in route.methods - {"HEAD"})
    assert paths == routes
    wanted = described["paths"]["/v1/jobs/{job}/masks.zip"]["get"]["parameters"][0]["schema"]["items"]["enum"]
    assert tuple(wanted) == FORMATS
    taken = {
        path.rpartition("/")[2]: tuple(meant(one)["name"] for one in methods["get"].get("parameters", ()))
        for path, methods in described["paths"].items()
        if "get" in methods  # beside the operation, where every tool shows them
    }
    assert {name: names for name, names in taken.items() if names} == QUERIES
    text = json.dumps(described)
    for name in re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', text):
        assert name[1] in described["components"][name[0]]


LANGUAGES = [
    "python",
    pytest.param(
        "bash", marks=pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="no curl, or no jq")
    ),
]


def run_client(
    language: str, url: str, place: Path, *, token: str = "", broken: str = "", portion: int = 50, pictures: bool = True
) -> Any:
    """The docs' client in that language, as cron would run it; `broken` is the name of a file that is no picture."""
    support, mask, _ = photo(SUPPORT)
    (place / "photos/a-folder.jpg").mkdir(parents=True)
    (place / "photos/notes.txt").write_text("no photo")
    files = {"a.jpg": support, "a.png": mask, "b.jpg": photo(QUERY)[0], "c.jpg": support}
    for name, content in files.items():
        (place / name).write_bytes(b"no picture" if name == broken else content)
        if pictures and name in ("b.jpg", "c.jpg"):
            shutil.copy(place / name, place / "photos" / name)
    code = page_block("server.md", language)
    assert "http://127.0.0.1:8040" in code
    assert "PORTION = 50 " in code or language == "bash"
    code = code.replace("PORTION = 50 ", f"PORTION = {portion} ")
    code = code.replace("http://127.0.0.1:8040", url.rstrip("/")).replace("TOKEN=\n", f"TOKEN={token}\n")
    if token:
        code = re.sub(r"timeout=600\)  # (headers=.*)", r"timeout=600, \1)", code).replace(
            "Bearer TOKEN", f"Bearer {token}"
        )
    program = [sys.executable, "-c"] if language == "python" else ["bash", "-c"]
    return subprocess.run([*program, code], cwd=place, capture_output=True, text=True, check=False)


def zipped(place: Path) -> list[list[str]]:
    """The files in each zip that a client left, and nothing else of it."""
    found = sorted([*place.glob("masks-*.zip"), *place.glob("masks-*/*.zip")])
    assert not [*place.glob(".masks*"), *place.glob("*.part")]
    with ExitStack() as opened:
        return [opened.enter_context(zipfile.ZipFile(path)).namelist() for path in found]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("token", ["", "sixteen-letters-and-more"])
def test_the_clients_in_the_docs_run(server, tmp_path, token, language) -> None:
    with served(tmp_path / "files", "--token", token) if token else nullcontext(server) as one:
        done = run_client(language, one.url, tmp_path, token=token)
    assert done.returncode == 0, done.stderr
    assert "a.jpg: 0 and 255" in done.stdout  # how the mask was understood
    assert zipped(tmp_path) == [["b.png", "c.png", "results.csv"]]


def test_the_python_client_in_the_docs_sends_many_photos_in_portions_and_says_where_there_are_none(
    server, tmp_path
) -> None:
    for portion, place in ((1, tmp_path / "many"), (50, tmp_path / "none")):
        place.mkdir()
        done = run_client("python", server.url, place, portion=portion, pictures=place.name == "many")
        assert done.returncode == (place.name == "none"), done.stderr
    assert done.stderr.startswith(f"there is no picture in {place}/photos (.avif, .bmp, .heic")
    assert zipped(tmp_path / "many") == [["b.png", "results.csv"], ["c.png", "results.csv"]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_clients_in_the_docs_tell_why_nothing_was_taught_and_what_was_not_searched(
    server, tmp_path, language
) -> None:
    visitors = taken_visitors(server)
    for broken in ("a.jpg", "b.jpg"):
        place = tmp_path / broken
        place.mkdir()
        done = run_client(language, server.url, place, broken=broken)
        assert done.returncode == 1
        assert f"{broken} is not a picture" in done.stderr
        assert zipped(place) == ([] if broken == "a.jpg" else [["c.png", "failures.csv", "results.csv"]])
        assert taken_visitors(server) == visitors, "it left"


def taken_visitors(server: Server) -> int:
    return httpx.get(f"{server.url}v1/status").json()["taken"]["visitors"]


def test_a_portion_of_which_no_photo_can_be_searched_does_not_lose_the_others(server, tmp_path) -> None:
    done = run_client("python", server.url, tmp_path, broken="b.jpg", portion=1)
    assert done.returncode == 1
    assert "b.jpg is not a picture" in done.stderr
    assert zipped(tmp_path) == [["failures.csv", "results.csv"], ["c.png", "results.csv"]]


class Odd(BaseHTTPRequestHandler):
    """A server that goes astray: what it answers by the end of the path."""

    protocol_version = "HTTP/1.0"  # a body ends with its connection, whole or not
    DONE = 'event: done\ndata: {"stopped": false}\n\n'
    TAUGHT = 'event: concept\ndata: {"concept": "c"}\n\n'
    JOB = '{"ended": true, "events": [{"event": "concept", "concept": "c"}, {"event": "done", "stopped": false}]}'
    answers: dict[str, tuple[int, str]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, text = self.answers[self.path.partition("?")[0].rpartition("/")[2]]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_DELETE = do_GET

    def log_message(self, *told: Any) -> None:
        pass


UNDER_WAY = Odd.JOB.replace("true", "false", 1)
STOPPED = [text.replace('"stopped": false', '"stopped": true') for text in (Odd.DONE, Odd.JOB)]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"concepts": (401, '{"error": "it wants its token"}')}, "it wants its token"),
        ({"events": (200, Odd.TAUGHT), "j": (200, UNDER_WAY)}, "not done to its end|concept"),
        ({"events": (200, Odd.TAUGHT + STOPPED[0]), "j": (200, STOPPED[1])}, "not done to its end|stopped"),
        ({"events": (404, '{"error": "no such job"}')}, "no such job"),
        ({"masks.zip": (409, '{"error": "under way"}')}, "under way"),
    ],
    ids=["refused", "ended early", "stopped", "forgotten", "no zip"],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_clients_in_the_docs_fail_where_a_step_does(tmp_path, language, wrong, told) -> None:
    accepted = 202, '{"url": "/v1/jobs/j", "events": "/v1/jobs/j/events"}'
    Odd.answers = {"concepts": accepted, "segment": accepted, "events": (200, Odd.TAUGHT + Odd.DONE)}
    Odd.answers |= {"j": (200, Odd.JOB), "masks.zip": (200, "zip"), "session": (204, "")} | wrong
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as odd:
        threading.Thread(target=odd.serve_forever, daemon=True).start()
        done = run_client(language, f"http://127.0.0.1:{odd.server_port}", tmp_path)
        odd.shutdown()
    assert done.returncode != 0
    assert re.search(told, done.stderr)
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.glob("masks-*"), *tmp_path.glob(".masks*"), *tmp_path.glob("*.part")]


def test_what_it_was_called_before_says_what_replaces_it(fewseg: Fewseg) -> None:
    result = fewseg("app", "--model", "runs/mine", "--port", "9000")
    assert result.code == 2
    assert f"`fewseg app` is `fewseg serve` now: {install_line('serve')}" in " ".join(result.err.split())


def test_masks_are_given_of_all_photos_or_of_none_and_what_lacks_is_listed(client) -> None:
    own = taught(client, "gone")
    job = ask(client, own, *[photo(QUERY)[0]] * 50)
    place = job.json()["url"]
    until(lambda: client.get(place).json()["events"])
    early = client.get(f"{place}/masks.zip")
    assert (early.status_code, early.json()["error"]) == (
        409,
        "this job is under way; take its masks once its events end with `done`",
    )
    assert client.delete(f"/v1/concepts/{own}").status_code == 204
    told = [said for name, said in events(client, job) if name == "photo"]
    assert sorted(said["number"] for said in told) == [*range(50)]
    lacking = [said for said in told if "error" in said]
    assert {(said["error"], said["status"]) for said in lacking} == {
        ("a concept was removed meanwhile; teach it again", 404)
    }
    with zipfile.ZipFile(io.BytesIO(client.get(f"{place}/masks.zip").content)) as archive:
        listed = list(csv.DictReader(io.TextIOWrapper(archive.open("failures.csv"))))
        assert len(archive.namelist()) == 50 - len(lacking) + 1
    assert sorted(line["path"] for line in listed) == sorted(said["name"] for said in lacking)
    client.delete(place)
