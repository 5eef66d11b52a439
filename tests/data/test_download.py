import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fewseg.data import download as module
from fewseg.data.download import ARCHIVES, Archive, download, extract, fetch
from fewseg.errors import DataError, UsageError

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000).astype(np.uint8).tobytes()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `files`; the first part of the path says how it misbehaves."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        _, behaviour, name = self.path.split("/")
        content = server.files.get(name, CONTENT)
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1]) if behaviour != "norange" else 0
        server.asked.append(begin)
        if behaviour == "missing":
            return self.send_error(404)
        if behaviour == "flaky" and len(server.asked) == 1:
            return self.send_error(503)
        if begin and begin >= len(content) and behaviour != "endless":
            return self.send_error(416)
        body = content[begin:]
        self.send_response(206 if begin else 200)
        length = len(body) + {"longer": 1000, "endless": 1000, "shorter": -1000}.get(behaviour, 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if behaviour in ("cut", "norange") and len(server.asked) < 3:
            body = body[: len(body) // 2]
        self.wfile.write(body[:length])
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[int] = []

    def url(self, behaviour: str, name: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/{name}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0)


@pytest.mark.parametrize("behaviour", ["good", "cut", "norange", "flaky"])
def test_a_file_arrives_whole(server: Server, tmp_path: Path, behaviour: str) -> None:
    fetch(server.url(behaviour), tmp_path / "file.bin", md5=MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    assert len(server.asked) == {"good": 1, "flaky": 2}.get(behaviour, 3)


def test_a_broken_off_fetch_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:2_000_000])
    seen: list[tuple[str, int]] = []

    def progress(items, description, total):
        seen.append((description, total))
        return items

    fetch(server.url("good"), tmp_path / "file.bin", md5=MD5, size=len(CONTENT), progress=progress)
    assert server.asked == [2_000_000]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert seen == [("fetching file.bin (MiB)", 1)]


def test_all_fetched_but_not_yet_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(server.url("good"), tmp_path / "file.bin", md5=MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_promises_more_than_it_sends_is_given_up(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ended after 3000000 of 3001000 bytes, 5 times in a row; start again later"):
        fetch(server.url("endless"), tmp_path / "file.bin", md5=MD5)
    assert not (tmp_path / "file.bin").exists()
    fetch(server.url("longer"), tmp_path / "file.bin", md5=MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_file_that_is_too_short_or_other_than_published_is_deleted(server: Server, tmp_path: Path) -> None:
    fetch(server.url("good"), tmp_path / "file.bin", sha256=hashlib.sha256(CONTENT).hexdigest())
    (tmp_path / "file.bin").unlink()
    with pytest.raises(DataError, match=f"not {'1' * 64}; it was deleted"):
        fetch(server.url("good"), tmp_path / "file.bin", sha256="1" * 64)
    for behaviour, md5 in (("shorter", MD5), ("good", "0" * 32)):
        with pytest.raises(DataError, match=f"has the checksum .*, not {md5}; it was deleted"):
            fetch(server.url(behaviour), tmp_path / "file.bin", md5=md5)
        assert not list(tmp_path.iterdir())


def test_a_moved_file_and_a_dead_server_are_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the server answers 404 Not Found; has the file moved"):
        fetch(server.url("missing"), tmp_path / "file.bin")
    with pytest.raises(DataError, match=r"URLError: .*refused.*5 times in a row"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin")


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        for name, content in files.items():
            package.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as package:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            package.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            package.addfile(info)
    return buffer.getvalue()


def archive_of(server: Server, name: str, content: bytes, **options) -> Archive:
    server.files[name] = content
    return Archive(server.url("good", name), len(content), 100, hashlib.md5(content).hexdigest(), **options)


def test_download_unpacks_and_does_nothing_twice(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = {
        "set": (
            archive_of(server, "a.tgz", tarred({"x/1.txt": b"one"}), into="SBD"),
            archive_of(server, "b.zip", zipped({"y/2.txt": b"two"})),
        )
    }
    monkeypatch.setattr(module, "ARCHIVES", archives)
    for _ in range(2):
        download("set", tmp_path)
        assert len(server.asked) == 2
    assert (tmp_path / "SBD/x/1.txt").read_bytes() == b"one"
    assert (tmp_path / "y/2.txt").read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fewseg", "SBD", "y"]


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt", "..\\outside.txt"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_paths_outside_the_target_are_refused(tmp_path: Path, name: str, pack) -> None:
    archive = tmp_path / ("bad.zip" if pack is zipped else "bad.tgz")
    archive.write_bytes(pack({"fine.txt": b"fine", name: b"bad"}))
    with pytest.raises(DataError, match="would be written outside its directory; nothing was unpacked"):
        extract(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_links_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.tgz").write_bytes(tarred({}, link="out"))
    with pytest.raises(DataError, match="'out' is a link or a device"):
        extract(tmp_path / "link.tgz", tmp_path / "target")
    (tmp_path / "cut.tgz").write_bytes(tarred({"a": CONTENT})[:100_000])
    (tmp_path / "cut.zip").write_bytes(zipped({"a": CONTENT})[:100_000])
    for name in ("cut.tgz", "cut.zip"):
        with pytest.raises(DataError, match=f"{name} is damaged"):
            extract(tmp_path / name, tmp_path / "target")
    assert not (tmp_path / "target" / "a").exists()


def special(kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as package:
        info = tarfile.TarInfo("thing")
        info.type, info.linkname = kind, "fine.txt"
        package.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_are_refused_before_anything_is_written(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "bad.tgz").write_bytes(special(kind))
    with pytest.raises(DataError, match="'thing' is a link or a device"):
        extract(tmp_path / "bad.tgz", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as package:
        package.writestr(info, "/etc")
    with pytest.raises(DataError, match="'link' is a link or a device"):
        extract(tmp_path / "bad.zip", tmp_path / "target")


def test_a_link_that_lies_in_the_directory_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "door").symlink_to(tmp_path)
    (tmp_path / "bad.zip").write_bytes(zipped({"door/outside.txt": b"bad"}))
    with pytest.raises(DataError, match="outside its directory"):
        extract(tmp_path / "bad.zip", tmp_path / "target")
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize("suffix", ["zip", "tgz"])
def test_a_bomb_is_refused_by_what_it_says_it_holds(tmp_path: Path, suffix: str) -> None:
    content = {f"{n}": bytes(10**6) for n in range(10)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, zeros in content.items():
            package.writestr(name, zeros)
    (tmp_path / f"bomb.{suffix}").write_bytes(buffer.getvalue() if suffix == "zip" else tarred(content))
    with pytest.raises(
        DataError, match=r"would unpack to (10|6)000000 bytes or more, but this data set has at most 5000000"
    ):
        extract(tmp_path / f"bomb.{suffix}", tmp_path / "target", limit=5 * 10**6)
    assert not (tmp_path / "target").exists()


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as packed:
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, 10**9  # its content is read at once, before a member is seen
        packed.write(header.tobuf(tarfile.PAX_FORMAT))
        packed.write(bytes(40 * 2**20))
    (tmp_path / "bomb.tgz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"is damaged .a header of 1000000000 bytes"):
        extract(tmp_path / "bomb.tgz", tmp_path / "target")


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_MEMBERS", 2)
    (tmp_path / "many.tgz").write_bytes(tarred(dict.fromkeys("abc", b"")))
    with pytest.raises(DataError, match="more than 2 members"):
        extract(tmp_path / "many.tgz", tmp_path / "target")


def test_a_bomb_that_fills_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.zip").write_bytes(zipped({"a": bytes(1000)}))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 999})())
    with pytest.raises(DataError, match="the disk has 999; nothing was unpacked"):
        extract(tmp_path / "bomb.zip", tmp_path / "deep" / "target")


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("a", bytes(10**6))
    lie = buffer.getvalue().replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "bomb.zip").write_bytes(lie)
    with pytest.raises(DataError, match=r"holds more than the 10 bytes it says|is damaged"):
        extract(tmp_path / "bomb.zip", tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


def test_space_is_looked_at_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9})())
    with pytest.raises(DataError, match=r"has 1.0 GB free, but 4.0 GB are needed to fetch and unpack VOCtrainval"):
        download("voc2012", tmp_path)
    assert not server.asked


def test_what_cannot_be_downloaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FSS-1000 has no stable host: fetch"):
        download("fss1000", tmp_path)
    with pytest.raises(UsageError, match=r"unknown download 'voc'; choose voc2012, sbd, coco2014, .* mean 'voc2012'"):
        download("voc", tmp_path)
    with pytest.raises(UsageError, match=rf"suim is not fetched from here. Fetch it .* in {tmp_path}"):
        download("suim", tmp_path)
    assert all(
        (archive.md5 or archive.sha256) and archive.url.startswith("http")
        for files in ARCHIVES.values()
        for archive in files
    )
