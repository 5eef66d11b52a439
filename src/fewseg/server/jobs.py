"""Jobs: what visitors asked for, done piece by piece in a few threads, and told as events."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from fewseg.errors import FewsegError, lacks_memory
from fewseg.progress import counted
from fewseg.server.limits import Reached
from fewseg.server.refused import Refused

Piece = Callable[["Job"], None]
"""A part of a job, which tells its events: one photo, or one concept."""
Event = tuple[str, dict[str, Any]]
_FIRST_GUESS = 1.0
"""Seconds that a piece takes, before one was seen."""
_NEWEST = 0.1
"""Weight of the newest piece in the mean of what pieces take."""


class UnneededError(Exception):
    """Raised in a job whose visitor needs it no more."""


class Job:
    """Pieces of work, and what came of them so far: events, which can be waited for."""

    def __init__(self, name: str, kind: str, pieces: Sequence[Piece], *, cleanup: Callable[[], None]) -> None:
        self.name, self.kind, self.total = name, kind, len(pieces)
        self.pieces = deque(pieces)
        self.events: list[Event] = []
        self.results: dict[int, Any] = {}
        """Of the photos that are done, by number."""
        self.ended = self.stopped = False
        self._cleanup = cleanup
        self._running = False
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def tell(self, event: str, told: dict[str, Any]) -> None:
        """Add an event; from any thread."""
        self.events.append((event, told))
        self._wake()

    def stop(self) -> None:
        """Do no further piece, and remove what the job holds; one that is being done ends where it next looks."""
        with self._lock:
            self.stopped = True
            if not self._running:
                self._end()
                self._cleanup()

    def check(self) -> None:
        """UnneededError where nobody needs it any more."""
        if self.stopped:
            raise UnneededError

    def work(self) -> bool:
        """Do the next piece; whether there is another."""
        with self._lock:
            if self.ended or self.stopped or not self.pieces:
                return False
            self._running = True
            piece = self.pieces.popleft()
        try:
            piece(self)
        except UnneededError:
            self.stopped = True
        except Exception as error:
            if not self.stopped:  # else its files may be gone
                self.tell("failed", failure(error))
        with self._lock:
            self._running = False
            if self.stopped or not self.pieces:
                self._end()
            if self.stopped:
                self._cleanup()
        return not self.ended

    async def news(self, count: int, *, seconds: float) -> None:
        """Wait until there are more than `count` events, or it has ended; not longer than `seconds`."""
        if len(self.events) > count or self.ended:
            return
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return

    def _end(self) -> None:
        """Once, under the lock."""
        if self.ended:
            return
        self.pieces.clear()
        self.events.append(("done", {"stopped": self.stopped}))
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)


def failure(error: Exception) -> dict[str, Any]:
    """What is told of an error, and the status of HTTP that it would have had."""
    if isinstance(error, Refused):
        return {"error": error.text, "status": error.status}
    if isinstance(error, FewsegError):
        return {"error": str(error), "status": 422}
    return {"error": fault(error), "status": 500}


def fault(error: Exception) -> str:
    """What is told of an error that nobody expected; it is written to the log."""
    if lacks_memory(error):
        return "there is too little memory for it; give smaller pictures"
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: this is a fault of fewseg, and stands in the server's log"


class Workers:
    """A few threads that do a piece of each job in turn, so that nobody waits for another's many photos."""

    def __init__(self, lanes: int, *, most: int, after: Callable[[], None]) -> None:
        self.lanes, self._most, self._after = lanes, most, after
        self._reached = Reached("waiting", most)
        self._jobs: deque[Job] = deque()
        self._at_work: list[Job] = []
        self._seconds = _FIRST_GUESS
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [threading.Thread(target=self._run, daemon=True, name=f"lane {i}") for i in range(lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def under_way(self) -> int:
        """How many jobs have not ended."""
        return len(self._jobs) + len(self._at_work)

    def check_room(self) -> None:
        """Refused with 429 where too many jobs wait."""
        if self.under_way >= self._most:
            seconds = self._retry_after()
            self._reached.note()
            raise Refused(429, f"the server is busy; try again in {counted(seconds, 'second')}", retry_after=seconds)

    def add(self, job: Job) -> None:
        """Refused as of `check_room`."""
        with self._changed:
            self.check_room()
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """No new piece is begun; those that are being done are waited for, a few seconds."""
        with self._changed:
            self._closing = True
            for job in self._jobs:
                job.stop()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5)

    def _retry_after(self) -> int:
        pieces = sum(len(job.pieces) for job in [*self._jobs, *self._at_work]) + len(self._at_work)
        return max(1, math.ceil(pieces * self._seconds / self.lanes / 2))  # some room is there before all is done

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                job = self._jobs.popleft()
                self._at_work.append(job)
            began = time.monotonic()
            more = job.work()
            with self._changed:
                self._at_work.remove(job)
                self._seconds += _NEWEST * (time.monotonic() - began - self._seconds)
                if more:
                    self._jobs.append(job)
                    self._changed.notify()
                idle = not self._jobs and not self._at_work
            if idle:
                self._after()
