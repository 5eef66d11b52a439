"""Work in a process of its own, beside what this one does.

Two networks that are trained at once, each on half of the processors, wait for nothing: threads that share one small
network wait for each other at every layer, and for whatever else runs on the machine.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from fewseg.data.workers import follow_parent, starting_workers
from fewseg.errors import FewsegError
from fewseg.runtime.heap import keep_freed_memory

R = TypeVar("R")


@contextmanager
def beside(work: Callable[..., R], *arguments: Any) -> Iterator[Callable[[], R]]:
    """`work(*arguments)` while the block runs, each on half of torch's threads; what is yielded waits for its result,
    and raises what it raised.

    Where torch has one thread, the work is done when its result is asked for. Work whose result nobody has asked for
    ends with the block. `work` and what goes in and out must be picklable. FewsegError if its process is killed.
    """
    threads = torch.get_num_threads()
    if threads < 2:
        yield lambda: work(*arguments)
        return
    ours, theirs = multiprocessing.Pipe(duplex=False)
    # not forked: a copy of a process whose threads compute has none of them, and waits for them for ever
    target = (theirs, threads // 2, work, arguments)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=target)
    with starting_workers():
        process.start()
    theirs.close()

    def result() -> R:
        try:
            good, found = ours.recv()
        except EOFError:
            process.join()
            raise FewsegError(
                f"a process beside this one ended with code {process.exitcode}, most often for lack of memory"
            ) from None
        if not good:
            raise found
        return found

    torch.set_num_threads(threads // 2)
    try:
        yield result
    finally:
        torch.set_num_threads(threads)
        process.terminate()
        process.join()


def _work(result: Connection, threads: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    follow_parent()
    keep_freed_memory()
    torch.set_num_threads(threads)
    try:
        result.send((True, work(*arguments)))
    except BaseException as error:  # Ctrl-C too: the other process tells of it
        result.send((False, error))
