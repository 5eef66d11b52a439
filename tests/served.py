"""`fewseg serve` as a user starts it, a process of its own, and a client of it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from helpers import scene
from waiting import LONG, free_port

ROOT = Path(__file__).resolve().parents[1]
SUPPORT, QUERY = (40, 30, 130, 110), (90, 50, 200, 150)
"""Where the box is in the two photos."""


class Server:
    """A server that is up, its address, and how to ask it."""

    def __init__(self, folder: Path, *words: object, at: Path | str = "/", **environment: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "fewseg", "serve", "--no-browser", "--folder", str(folder), *map(str, words)]
        env = os.environ | {"PYTHONPATH": f"{ROOT}/src", "COLUMNS": "300"} | environment
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=at, env=env, **pipes)
        assert self.process.stdout
        assert self.process.stderr
        self.line = self.process.stdout.readline()
        if not self.line:
            raise AssertionError(self.process.stderr.read())
        self.second = self.process.stdout.readline()
        self.address = self.line.split()[1]
        self.url, _, token = self.address.partition("#token=")
        self.token = token or None
        self.said = ""
        """What it wrote on standard error, once it has ended."""
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def client(self, **how: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=LONG, **how)

    def files(self) -> list[Path]:
        """All files that lie in its folder, but locks."""
        return [file for file in self.folder.rglob("*") if file.is_file() and file.name != ".lock"]

    @property
    def memory(self) -> float:
        """Resident, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def peak(self) -> float:
        """The most that was ever resident, in MB."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) / 1e3

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LONG)

    def errors(self) -> str:
        """What it wrote on standard error, once it has ended."""
        assert self.process.stderr
        return self.process.stderr.read()


@contextmanager
def served(folder: Path, *words: object, quiet: bool = True, **how: Any) -> Iterator[Server]:
    """A server, ended at the end; `quiet`: it must have written nothing on standard error."""
    server = Server(folder, "--port", free_port(), *words, **how)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        server.said = server.errors()
        for stream in (server.process.stdout, server.process.stderr):
            assert stream
            stream.close()
    assert not quiet or server.said == ""


def photo(box: tuple[int, int, int, int], size: tuple[int, int] = (240, 180)) -> tuple[bytes, bytes, NDArray[Any]]:
    """A photo with a box, and its mask, as PNGs, and where the box is."""
    pixels, mask = scene(size=size, box=box)
    return png(pixels), png(mask.astype(np.uint8) * np.uint8(255)), mask > 0


def png(pixels: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def read(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)))


def events(client: httpx.Client, answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """What a job's stream tells, to its end."""
    assert answer.status_code == 202, answer.text
    found: list[tuple[str, dict[str, Any]]] = []
    with client.stream("GET", answer.json()["events"]) as stream:
        name = ""
        for line in stream.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                found.append((name, json.loads(value)))
    assert found[-1][0] == "done"
    return found


def taught(client: httpx.Client, name: str = "box") -> str:
    """A concept of one photo; its key."""
    image, mask, _ = photo(SUPPORT)
    files = [("photo", ("support.png", image)), ("mask", ("mask.png", mask))]
    told = dict(events(client, client.post("/v1/concepts", data={"name": name}, files=files)))
    return told["concept"]["concept"]


def ask(client: httpx.Client, concept: str, *photos: bytes) -> httpx.Response:
    files = [("photo", (f"{number}.png", content)) for number, content in enumerate(photos)]
    return client.post("/v1/segment", data={"concept": concept}, files=files)
