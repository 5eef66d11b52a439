"""Runs the server: opens its socket, reads the model once, stops on every signal, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from fewseg.errors import FewsegError, UsageError, first_line
from fewseg.runtime.engine import Engine
from fewseg.runtime.heap import give_back_freed_memory, trim_memory
from fewseg.server.api import Api, health, told_as
from fewseg.server.folder import run_folder
from fewseg.server.guard import LOOPBACK, Guard, refusal
from fewseg.server.jobs import Workers, fault
from fewseg.server.limits import Limits, Reached
from fewseg.server.ml_backend import MlBackend
from fewseg.server.notes import listen
from fewseg.server.page_files import PageFiles
from fewseg.server.refused import Refused
from fewseg.server.studio import Studio
from fewseg.server.visitors import Visitors

FIRST_PORT, PORTS = 8040, 20
"""The ports that are tried where none is given."""
_GRACE = 5
"""Seconds that requests have to end once the server is to stop."""
_SWEEP = 20.0
"""Seconds between two looks for idle visitors."""
_NOT_OURS = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG"}
_NOT_OURS |= {"SIGWINCH", "SIGPIPE", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGABRT", "SIGIOT"}
_NOT_OURS |= {"SIGINFO", "SIGEMT", "SIGXFSZ"}
"""Signals that end no process (Python ignores SIGXFSZ: a write fails), cannot be caught, or say that the process itself
is broken.
"""


@dataclass(frozen=True)
class Address:
    """Where the server listens, and for whom."""

    sock: socket.socket
    host: str
    token: str | None

    @property
    def port(self) -> int:
        return self.sock.getsockname()[1]

    @property
    def url(self) -> str:
        """What a browser on this machine opens."""
        return f"http://{self.shown_host}:{self.port}/"

    @property
    def shown_host(self) -> str:
        """The host as it stands in addresses; of zeros, which are all of this machine's, its loopback."""
        host = self.host if self.host.strip("0.:") else "::1" if ":" in self.host else "127.0.0.1"
        return f"[{host}]" if ":" in host else host


def opened(host: str, port: int | None, token: str | None) -> Address:
    """Listen on a port, or on the first free one; UsageError where none is free, or there is no such address."""
    ports = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS), 0]
    for number in ports:
        try:
            family, _, _, _, place = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            sock = socket.create_server((place[0], number), family=family, backlog=256)
            return Address(sock, host, token)
        except OSError as error:
            failed = error
    where = host if port is None else f"{host}, port {port}"
    raise UsageError(f"{where} cannot be listened on ({first_line(failed)}); give others: --host, --port")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    return host in LOOPBACK or host.startswith("127.")


def serve(
    engine: Engine,
    address: Address,
    *,
    limits: Limits,
    hosts: Sequence[str] = (),
    folder: Path | None = None,
    backend: Callable[[Studio, Workers], MlBackend] | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve page and API until a signal comes; `ready` is called before. `backend` makes Label Studio's ML backend.

    UsageError where visitors' files have no place.
    """
    give_back_freed_memory()
    listen()
    stopping = threading.Event()
    with caught(stopping.set), run_folder(folder) as files:
        visitors = Visitors(files, limits)
        studio = Studio(engine, limits)
        workers = Workers(engine.lanes, most=limits.waiting, after=trim_memory)
        api = Api(studio, workers, visitors, limits, stopping)
        tool = backend(studio, workers) if backend else None
        routes = [
            Route("/health", health),
            *api.routes(),
            *(tool.routes() if tool else ()),
            *PageFiles(engine, limits).routes(),
        ]
        server = _Server(_config(_app(routes, visitors, address, hosts), limits), stopping)
        try:
            with tool.running(files) if tool else contextlib.nullcontext():
                ready()
                server.run([address.sock])
        finally:
            workers.close()
            visitors.forget_all()


def _config(app: Starlette, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Patient.of(limits),
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=limits.connections + 1,  # uvicorn refuses from that number on
        timeout_keep_alive=limits.patience,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=32_000,
    )


def _app(routes: list[Route], visitors: Visitors, address: Address, hosts: Sequence[str]) -> Starlette:
    @contextlib.asynccontextmanager
    async def alive(app: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(visitors))
        yield
        sweeping.cancel()

    named = [*hosts, address.host]
    guard = Middleware(Guard, visitors=visitors, hosts=named, token=address.token, cookie=f"fewseg-{address.port}")
    handlers: dict[Any, Any] = {Refused: _refused, FewsegError: _told, HTTPException: _no_route}
    handlers[ClientDisconnect] = _refused
    handlers[Exception] = _unexpected
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=alive)


async def _refused(request: Request, error: Exception) -> Response:
    return await refusal(request, error if isinstance(error, Refused) else Refused(400, "the client went away"))


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, FewsegError)
    return await refusal(request, told_as(error))


async def _unexpected(request: Request, error: Exception) -> Response:
    return await refusal(request, Refused(500, fault(error)))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return await refusal(
        request, Refused(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}")
    )


async def _sweep(visitors: Visitors) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        visitors.forget_idle()


class _Server(uvicorn.Server):
    """Stops when it is told; leaves signals to `caught`, which does not raise them anew: files are removed first."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stopping.is_set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def caught(stop: Callable[[], None]) -> Iterator[None]:
    """`stop` is called on every signal that would end the process, and nothing else happens."""
    names = [one for one in dir(signal) if one.startswith("SIG") and not one.startswith(("SIG_", "SIGRT"))]
    numbers = {signal.Signals[name] for name in names if name not in _NOT_OURS}
    former = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Patient(H11Protocol):
    """A connection that is closed where the head of a request does not come in time."""

    patience = 10

    reached: Reached

    @classmethod
    def of(cls, limits: Limits) -> type[_Patient]:
        own = {"patience": limits.patience, "reached": Reached("connections", limits.connections)}
        return type("_Patient", (cls,), own)

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self.reached.note()
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._waited()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waited()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(self.patience, self.transport.close)

    def _waited(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
