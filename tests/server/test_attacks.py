"""Attacks on `fewseg serve`, started as a user starts it, in small sizes (`benchmarks.soak_server`: large ones)."""

from __future__ import annotations

import io
import re
import resource
import shutil
import signal
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from fewseg.errors import UsageError, install_line
from fewseg.server.folder import run_folder
from fewseg.server.limits import Limits
from fewseg.server.refused import Refused
from fewseg.server.run import Address
from fewseg.server.visitors import Visitors
from helpers import Fewseg
from served import QUERY, SUPPORT, Server, ask, events, photo, png, served, taught
from waiting import LONG, until

pytestmark = pytest.mark.slow

SMALL = [
    f"--limit={name}"
    for name in ("file_mb=1", "request_mb=2", "megapixels=2", "waiting=4", "patience=1", "photos=3", "visitor_mb=3")
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    words = (*SMALL, "--allow-host", "photos.example:8443", "--no-token")
    with served(tmp_path_factory.mktemp("served"), *words, quiet=False) as one:
        yield one
    first, *others = one.said.splitlines()
    assert first == "note: no token: whoever reaches this server may use it"
    assert {*others} <= {"note: --limit waiting=4 is reached: who asks for more meanwhile is refused"}


def raw(server: Server, head: str, body: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", server.port), timeout=LONG)
    one.sendall(head.replace("\n", "\r\n").encode() + body)
    return one


def test_who_waits_to_be_asked_for_a_large_body_is_told_why_it_is_not_taken(server) -> None:
    head = "POST /v1/concepts HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=x\n"
    with raw(server, f"{head}Content-Length: 300000000\nExpect: 100-continue\n\n") as one:
        answer = one.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 413 ")  # with no "100 Continue" before
    assert "the request has 300.0 MB; at most " in answer


# ---- who asks ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),  # its name was made to lead here
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": "localhost:1"}, 404),
        ({"Host": "photos.example"}, 404),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
    ],
)
def test_another_page_cannot_ask_and_no_foreign_name_is_answered(client, headers, status) -> None:
    assert client.delete("/v1/jobs/none", headers=headers).status_code == status
    if "Host" in headers:
        assert client.get("/", headers=headers).status_code == (status if status == 421 else 200)


def test_a_proxy_that_puts_its_own_host_in_is_told_with_what_to_do(server, client) -> None:
    own, names = server.url[7:].rstrip("/"), {"Origin": "https://photos.example", "Sec-Fetch-Site": "same-origin"}
    answer = client.delete("/v1/jobs/none", headers=names)
    assert answer.json()["error"] == (
        f"this was asked of {own} (Host) by a page of https://photos.example (Origin); only this server's own page, or "
        "a program, may; a proxy between them must pass Host on as it came, port and all (nginx: proxy_set_header Host "
        "$http_host)"
    )
    assert client.delete("/v1/jobs/none", headers=names | {"Host": "photos.example"}).status_code == 404


def test_its_own_page_may_ask_and_gets_the_headers_that_confine_it(server, client) -> None:
    own = {"Origin": server.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.delete("/v1/jobs/none", headers=own).status_code == 404
    for path in ("/", "/page.js", "/v1/status", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/example/..%2f..%2fpyproject.toml"]
)
def test_no_file_of_the_machine_is_given_out(server, path) -> None:
    with raw(server, f"GET {path} HTTP/1.1\nHost: localhost\nConnection: close\n\n") as one:
        assert one.makefile("rb").readline().split()[1] in (b"404", b"400")


def test_no_address_is_fetched(client, concept) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/a.jpg"
        answer = client.post("/v1/segment", data={"concept": concept, "photo": url}, files={"mask": ("m", b"")})
        assert answer.status_code == 400
        answer = ask(client, concept, url.encode())
        assert "error" in events(client, answer)[0][1]
        assert client.get(f"/file={url}").status_code == 404
        trap.settimeout(0.2)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_the_network_is_let_in_with_a_token_alone(tmp_path) -> None:
    with served(tmp_path, "--host", "0.0.0.0") as server:
        assert server.token
        local = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=local) as client:
            for path in ("/", "/v1/status", "/config.json", "/v1/concepts"):
                assert client.get(path).status_code == 401
            assert client.post("/v1/concepts").status_code == 401
            wrong = client.get("/v1/status", headers={"Authorization": "Bearer " + 32 * "x"})
            assert (wrong.status_code, "is not this server's" in wrong.json()["error"]) == (401, True)
            page = client.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
            assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
            assert "open the address with its token, as <code>fewseg serve</code> printed it" in page.text
            assert client.get("/enter.js").is_success  # what the page of the refusal needs
            lost = client.get("/<b>", headers={"Accept": "text/html"})
            assert (lost.status_code, "<b>" in lost.text, "enter.js" in lost.text) == (404, False, False)
            assert client.get("/health").json()["status"] == "UP"  # told to whatever watches over it
            for _ in range(5):  # who is cut off while it sends does not see why
                large = client.post("/v1/concepts", files={"photo": ("a.jpg", bytes(8_000_000))})
                assert "this server wants its token" in large.json()["error"]
            for path in ("/v1/status", "/"):
                address = client.get(f"{path}?token={server.token}")
                said = "a token behind ? would stand in logs, so none is read there"
                assert (address.status_code, address.json()["error"].partition(":")[0]) == (401, said)
            right = {"Authorization": f"Bearer {server.token}"}
            assert client.get("/v1/status", headers=right).status_code == 200
            assert "set-cookie" not in client.get("/", headers=right).headers  # a monitor is no visitor
            cookie = client.post("/v1/session", headers=right).headers["set-cookie"]
            assert "HttpOnly; SameSite=Lax" in cookie
            assert "Secure" not in cookie
            by_proxy = httpx.post(f"{local}/v1/session", headers=right | {"X-Forwarded-Proto": "https"})
            assert by_proxy.headers["set-cookie"].endswith("; Secure")
            assert server.token not in cookie
            assert client.delete("/v1/session").is_success  # as after a rest, or a restart with the same token
            assert client.get("/v1/concepts").json() == []  # the cookie's proof holds, for what is empty
            name, _, proof = cookie.partition(";")[0].partition("=")[2].partition(".")
            for forged in (f"{name}x.{proof}", f"{name}.", name, f".{proof}"):
                jar = {"cookie": f"{cookie.partition('=')[0]}={forged}"}
                assert httpx.get(f"{local}/v1/concepts", headers=jar).status_code == 401
            assert client.get("/").status_code == client.get("/config.json").status_code == 200
            larger = client.post("/v1/concepts", files={"photo": ("a.jpg", bytes(40_000_000))})
            assert "more than 25 MB" in larger.json()["error"]


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("fe80::2", "[fe80::2]"), ("a.example", "a.example")]
)
def test_the_address_that_is_shown_is_one_that_answers(host, shown) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = Address(listening, host, None)
        assert address.url == f"http://{shown}:{address.port}/"


def test_who_names_a_proxy_serves_others_and_wants_a_token(tmp_path) -> None:
    with served(tmp_path, "--allow-host", "photos.example") as server, server.client() as client:
        assert server.token
        assert client.get("/v1/status").status_code == 401
        assert client.get("/v1/status", headers={"Authorization": f"Bearer {server.token}"}).status_code == 200
        assert server.process.stdout
        assert server.process.stdout.readline() == f"for others: photos.example in place of 127.0.0.1:{server.port}\n"


def test_a_token_that_is_given_stands_in_no_log(tmp_path) -> None:
    secret = "sixteen-letters-and-more"
    one = ("--limit", "connections=1")  # this client's
    with served(tmp_path, *one, quiet=False, FEWSEG_TOKEN=secret) as server, server.client() as client:
        assert secret not in server.line
        assert "with the token that was given" in server.line
        assert client.get("/v1/status").status_code == 401
        assert client.get("/v1/status", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
        with raw(server, ""):
            until(lambda: client.get("/health").status_code == 503)
    assert server.said == "note: --limit connections=1 is reached: who asks for more meanwhile is refused\n"


def test_tokens_that_are_easily_guessed_unknown_limits_and_what_is_no_host_are_refused(fewseg: Fewseg) -> None:
    for words, told in (
        (("--token", "short"), "a token has 16 or more"),
        (("--token", "sixteen letters and more"), "letters, digits and -._~"),
        (("--token", 16 * "x", "--no-token"), "give one of them"),
        (("--limit", "fotos=3"), "Did you mean 'photos'?"),
        (("--limit", "photos=0"), "give a whole number from 1 on"),
        (
            ("--limit", "all_mb=10", "--limit", "request_mb=50"),
            "request_mb=50: more than all_mb=10; give --limit all_mb=N",
        ),
        (("--limit", "file_mb=300"), "file_mb=300: more than request_mb=250; give --limit request_mb=N, too"),
        (("--allow-host", "https://photos.example/"), "as it stands in the address: photos.example\n"),
        (("--allow-host", "photos.example/page"), "give a host's name alone"),
        (("--allow-host", "*.example"), "give a host's name alone"),
        (("--host", "203.0.113.1"), "203.0.113.1 cannot be listened on"),
    ):
        result = fewseg("serve", *words)
        assert result.code == 2
        assert told in result.err


def test_what_lies_in_something_smaller_shrinks_with_it() -> None:
    limits = Limits().changed(["visitor_mb=100"])
    assert (limits.all_mb, limits.visitor_mb, limits.request_mb, limits.file_mb) == (4000, 100, 100, 25)
    limits = Limits().changed(["file_mb=300", "request_mb=600", "visitor_mb=600"])
    assert (limits.visitor_mb, limits.request_mb, limits.file_mb) == (600, 600, 300)


def test_a_request_without_room_is_told_by_what_is_there_and_by_its_own_length(tmp_path) -> None:
    visitor = Visitors(tmp_path, Limits(visitor_mb=4)).enter()
    visitor.take(300_000)
    visitor.take(3_500_000, length=3_900_000)
    with pytest.raises(Refused) as refused:
        visitor.take(400_000, held=3_500_000, length=3_900_000)
    assert "take 0.3 of 4 MB, and 3.9 more are needed" in refused.value.text


# ---- what is sent ----


def ico(side: int = 46_000) -> bytes:
    """An icon that says it holds a PNG of two gigapixels."""
    ihdr = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    inner = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", ihdr) + _chunk(b"IDAT", zlib.compress(bytes(1000)))
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def bomb(side: int = 13_000) -> bytes:
    """A PNG of 169 megapixels in a few kilobytes."""
    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, "PNG")
    return out.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pages(count: int) -> bytes:
    """A TIFF of many pages."""
    tags = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 32, 279: 1024}
    length = 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", key, 4, 1, value) for key, value in tags.items())
    first = 8 + 1024
    body = b"".join(
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", first + n * length if n < count else 0)
        for n in range(1, count + 1)
    )
    return b"II*\0" + struct.pack("<I", first) + bytes(1024) + body


def test_pictures_that_are_made_to_do_harm_are_told_and_take_no_memory(server, client, concept) -> None:
    before = server.peak
    postscript = b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file 100 string readstring pop =\n"
    large, (support, mask, _) = bomb(), photo(SUPPORT)
    # making it takes about as long as the server keeps a connection open: one of before may be closed as it is used
    with server.client(cookies=client.cookies) as again:
        for content in (postscript, ico(), large):
            told = events(again, ask(again, concept, content))[0][1]
            assert "is not a picture that can be read" in told["error"] or "at most 2 megapixels" in told["error"]
        for files in (
            [("photo", ("a.jpg", support)), ("mask", ("m.png", large))],  # a layer of 13,000 x 13,000 on a small photo
            [("photo", ("a.jpg", large)), ("mask", ("m.png", mask))],
        ):
            told = dict(events(again, again.post("/v1/concepts", files=files)))["failed"]
            assert "at most 2 megapixels" in told["error"]
    assert server.peak - before < 150


def test_of_a_picture_of_thousands_of_pages_the_first_is_read(server, client, concept) -> None:
    began, before = time.monotonic(), server.peak
    told = events(client, ask(client, concept, pages(8000)))[0][1]
    assert told["notes"] == ["a TIFF of 8000 pages: the first is read; --page N chooses another"]
    assert server.peak - before < 100
    assert time.monotonic() - began < LONG  # a second or so, where nobody walks through all pages for each


def test_a_body_without_end_and_a_file_beyond_the_limit_are_refused_and_leave_nothing(server, client, concept) -> None:
    before = server.files()
    head = "POST /v1/concepts HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n"
    head += "Content-Type: multipart/form-data; boundary=b\n\n"
    part = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with raw(server, head, f"{len(part):x}\r\n".encode() + part + b"\r\n") as one:
        sent = 0
        with suppress(OSError):
            while sent < 1000:
                one.sendall(chunk)
                sent += 1
        assert sent < 1000  # of 65 kB each, most of which lay in the system's buffers
    with raw(server, head, b"10\r\n" + part[:16]) as one:  # one that stops
        answer = one.makefile("rb").readline()
        assert answer.split()[1] == b"408"
    told = ask(client, concept, bytes(1_200_000)).json()["error"]
    assert re.match(r"\S+ has more than 1 MB \(the request has 1\.2\); scale it down, or .* --limit file_mb=N", told), (
        told
    )
    told = client.post("/v1/concepts", files=[("concept", ("big.concept", bytes(1_200_000)))]).json()["error"]
    assert told.startswith("big.concept has more than 1 MB (the request has 1.2); teach it of fewer photos"), told
    assert "at most 2 are taken at once" in ask(client, concept, *[bytes(900_000)] * 3).json()["error"]
    assert "at most 3 photos" in ask(client, concept, b"", b"", b"", b"").json()["error"]
    field = client.post("/v1/segment", data={"concept": "x" * 2000}, files={"photo": b""})
    assert "longer than 1000 bytes" in field.json()["error"]
    assert client.post("/v1/segment", content=b"{}", headers={"Content-Type": "application/json"}).status_code == 415
    assert server.files() == before


def test_many_slow_clients_keep_nobody_out_and_are_sent_away(server, client, concept) -> None:
    head = "POST /v1/segment HTTP/1.1\nHost: localhost\nContent-Length: 100000\n"
    slow = [raw(server, head[: 20 + n % 60]) for n in range(200)]
    began = time.monotonic()
    events(client, ask(client, concept, photo(QUERY)[0]))
    assert time.monotonic() - began < LONG  # one after the other they take 200 seconds
    for one in slow:
        one.settimeout(LONG)
        assert one.recv(1000) == b""
        one.close()


def test_a_visitor_takes_no_more_of_the_disk_than_is_allowed_and_gets_it_back(server) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (560, 560, 3)).astype(np.uint8)
    with server.client() as client:
        key = taught(client)
        jobs = []
        for _ in range(20):
            answer = ask(client, key, png(noise))
            if answer.status_code != 202:
                break
            jobs.append(answer)
            if "error" in events(client, answer)[0][1]:
                break
        else:
            raise AssertionError("nothing was refused")
        assert sum(file.stat().st_size for file in server.files()) < 4_000_000
        for job in jobs:
            client.delete(job.json()["url"])
        assert events(client, ask(client, key, photo(QUERY)[0]))[0][0] == "photo"
        client.delete("/v1/session")


# ---- how much, and when it ends ----


def test_who_comes_too_many_is_told_when_to_come_again_and_all_who_were_taken_are_done(server, client, concept) -> None:
    query = photo((20, 20, 80, 70), size=(120, 90))[0]  # of small ones a visitor has room for 40 jobs
    answers: list[httpx.Response] = []

    def asking() -> None:
        """Till one of all is refused: how soon hangs on who is faster, those who ask or who searches."""
        while 429 not in [answer.status_code for answer in answers] and len(answers) < 40:
            answers.append(ask(client, concept, query, query, query))

    until(lambda: client.get("/v1/status").json()["taken"]["waiting"] == 0)
    threads = [threading.Thread(target=asking) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {202, 429}
    assert codes.count(202) >= 4
    for answer in answers:
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        else:
            assert "classes" in events(client, answer)[0][1]
    assert ask(client, concept, query).status_code == 202


def test_a_disk_without_room_is_told_with_its_folder_and_what_to_do_and_others_are_served_on(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    small = photo((20, 20, 80, 70), size=(120, 90))[0]
    todo = "make room, or give another place: --folder DIR"
    told = (
        f"visitors' files cannot be written (no room is left); try again later, or let whoever runs the server {todo}"
    )
    with served(tmp_path, quiet=False) as server, server.client() as client:
        key = taught(client)
        before = server.files()
        # stands in for a full disk: no file of the server grows beyond that; maps of the small photo have 21,728 bytes
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
        answer = ask(client, key, png(noise))  # 180 kB
        assert (answer.status_code, answer.json()) == (507, {"error": told})
        assert server.files() == before
        grey = png(np.full((200, 300, 3), 120, np.uint8))  # in few bytes, with maps of 120 kB
        job = ask(client, key, small, grey)
        failed = next(said for name, said in events(client, job) if "error" in said)
        assert (failed["name"], failed["error"], failed["status"]) == ("1.png", told, 507)
        with zipfile.ZipFile(io.BytesIO(client.get(f"{job.json()['url']}/masks.zip").content)) as archive:
            assert archive.namelist() == ["0.png", "failures.csv"]
            assert b"1.png,\"visitors' files cannot be written (no room" in archive.read("failures.csv")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        kept = server.files()
        answer = client.get(f"{job.json()['url']}/masks.zip")
        assert (answer.status_code, answer.json()) == (507, {"error": told})
        assert server.files() == kept
        for folder in tmp_path.glob("run-*/*/"):
            shutil.rmtree(folder)  # as what cleans /tmp does
        assert "cannot be written (No such file or directory)" in ask(client, key, small).json()["error"]
    *lines, last = server.said.splitlines()
    assert lines == 3 * [f"error: {tmp_path}: visitors' files cannot be written (no room is left); {todo}"]
    assert "mend that, or give another place" in last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_removes_what_visitors_left(tmp_path, number) -> None:
    with served(tmp_path) as server, server.client() as client:
        job = ask(client, taught(client), *[photo(QUERY)[0]] * 50)
        assert len(server.files()) > 20
        with client.stream("GET", job.json()["events"]) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "id: 0"
            assert server.stop(number) == 0
            told = [*lines]  # it ended there and then, and whole: a broken one is an error
            assert "event: done" not in told
            assert told[-3] == "event: failed"
            assert "the server is ending, and this job with it" in told[-2]
        assert server.files() == []
        assert not list(tmp_path.glob("run-*"))


def test_what_a_killed_server_left_the_next_one_removes_and_a_living_one_s_stays(tmp_path) -> None:
    with served(tmp_path) as killed, run_folder(tmp_path) as living:
        (living / "photo").write_bytes(b"1")
        with killed.client() as client:
            taught(client)
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert len(killed.files()) == 2
        with run_folder(tmp_path):
            assert killed.files() == [living / "photo"]
    assert not list(tmp_path.glob("run-*"))


def test_a_place_for_files_that_is_another_s_is_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with (
        pytest.raises(UsageError, match=r"it is not this user's\); give another place: --folder DIR"),
        run_folder(tmp_path / "link"),
    ):
        pass


def test_idle_visitors_are_forgotten_and_the_longest_idle_one_for_a_new_one(tmp_path, monkeypatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr("fewseg.server.visitors.time.monotonic", lambda: now[0])
    visitors = Visitors(tmp_path, Limits(visitors=2, idle_minutes=1))
    first, second = visitors.enter(), visitors.enter()
    first.seen = second.seen = 0.0
    (first.new_path()).write_bytes(b"photo")
    for _ in range(3):
        with pytest.raises(Refused, match="too many visitors"):
            visitors.enter()
    line = "note: --limit visitors=2 is reached: who asks for more meanwhile is refused\n"
    assert capsys.readouterr().err == line  # once a minute
    now[0] = 61.0
    assert visitors.known(second.name) is second
    third = visitors.enter()  # in place of the first
    assert visitors.known(first.name) is None
    assert not first.folder.exists()
    third.seen = 0.0
    visitors.forget_idle()
    assert visitors.known(third.name) is None
    assert visitors.known(second.name) is second


def test_it_says_what_to_install(monkeypatch, fewseg: Fewseg) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "fewseg.server.run", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = fewseg("serve", "--no-browser")
    assert result.code == 2
    assert install_line("serve") in " ".join(result.err.split())
    assert Path("/").is_dir()
