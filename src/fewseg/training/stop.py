"""Ctrl-C and SIGTERM while training: a wish that the loop fulfils between two batches, where a checkpoint is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from fewseg.errors import StoppedError
from fewseg.progress import Silent


class Stop:
    """Inside `with Stop() as stop`, the first SIGINT or SIGTERM sets `stop.signal`; a second one interrupts at once.

    One that nobody took notice of, since the work was done, is raised again at the end: more work may follow.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._pid = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.signal is not None:
            signal.raise_signal(signal.Signals[self.signal])

    def watch(self, progress: Silent) -> Silent:
        """The same progress, but long work ends with StoppedError between two of its items once a stop is wished."""
        return _Watched(self, progress)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loader's process, which was forked with this handler: its parent decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name


class _Watched(Silent):
    def __init__(self, stop: Stop, inner: Silent) -> None:
        self._stop, self._inner = stop, inner
        self.note, self.log = inner.note, inner.log

    def __call__(self, items: Iterable[Any], description: str, total: int, *, done: int = 0) -> Iterator[Any]:
        for item in self._inner(items, description, total, done=done):
            if self._stop.signal is not None:
                raise StoppedError(f"{description} was stopped by {self._stop.signal}")
            yield item
