"""A page written once, and the browser that shows it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from chromium import opened_chromium
from fewseg.errors import FewsegError
from fewseg.web.ort_web import ort_files
from fewseg.web.site import write_page
from npm_packages import axe_script


@pytest.fixture(scope="session")
def ort() -> Path:
    """The folder of onnxruntime-web's files."""
    try:
        return ort_files()
    except FewsegError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")


@pytest.fixture(scope="module")
def site(ort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "page"
    write_page(folder, runtime=ort)
    return folder


class Plain(SimpleHTTPRequestHandler):
    """Any static host: no header of its own, and no type for what is younger than most hosts' lists."""

    types = (".html", "text/html"), (".css", "text/css"), (".js", "application/javascript"), (".svg", "image/svg+xml")

    def guess_type(self, path: Any) -> str:
        return dict(self.types).get(Path(path).suffix, "application/octet-stream")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host(site: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Plain, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from opened_chromium()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe_script(tmp_path_factory.mktemp("axe"))
