"""Serves a folder with the page on this machine alone, with the headers that let the browser use several threads."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fewseg.errors import UsageError, first_line

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
TYPES = {  # what the system says may be anything
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    "": "application/octet-stream",
}
FIRST_PORT, PORTS = 8020, 20
"""The ports that are tried where none is given: the same one, so that the browser knows the page again."""


class _Files(SimpleHTTPRequestHandler):
    extensions_map = TYPES

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the command."""


def open_server(folder: Path, port: int | None = None) -> ThreadingHTTPServer:
    """A server of the folder on the loopback address; `serve_forever` runs it. UsageError where no port is free."""
    ports = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS), 0]
    for number in ports:
        try:
            return ThreadingHTTPServer(("127.0.0.1", number), partial(_Files, directory=str(folder)))
        except OSError as error:
            failed = error
    raise UsageError(f"port {port} cannot be listened on ({first_line(failed)}); give another with --port")
