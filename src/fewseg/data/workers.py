"""Worker processes end with the process that started them, and leave it to that one what a signal to all of them means.

`srun`, `timeout` and a terminal's end send SIGTERM to a whole group: a worker that it ended would take with it what its
parent is about to save.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

_TIMED = hasattr(signal, "sigtimedwait")
"""Whether the system tells who sent a signal (Linux does; macOS ends the workers of a group, as ever)."""
_EVERY = 0.5
"""Seconds between two looks for the parent."""
START = "fork" if sys.platform == "linux" else "spawn"
"""How processes are started: a fork shares what is kept in memory."""


def worker_pool() -> ProcessPoolExecutor:
    """A process per processor."""
    context = multiprocessing.get_context(START)
    return ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=follow_parent)


def follow_parent() -> None:
    """In a worker process, first of all: it ends when its parent has ended or terminates it, on no other SIGTERM."""
    if _TIMED:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "follow_parent is for worker processes"
    if not _TIMED:
        parent.join()
    while _TIMED and os.getppid() == parent.pid:
        sent = signal.sigtimedwait({signal.SIGTERM}, _EVERY)
        if sent is not None and sent.si_pid == parent.pid:
            break
    os._exit(0)


@contextmanager
def starting_workers() -> Iterator[None]:
    """Processes that are started inside get no SIGTERM before they follow their parent; it gets its own afterwards."""
    if not _TIMED:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
