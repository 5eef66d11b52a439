"""Independent work side by side, in threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Iterable[T], *, lanes: int, **how: Any) -> Generator[R, None, None]:
    """`work(item)` of every item, in the items' order; an exception ends all lanes.

    Items are made in the caller's thread, as lanes become free. `how` as for `ThreadPoolExecutor`.
    """
    if lanes == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane", **how)
    running: deque[Future[R]] = deque()
    try:
        for item in items:  # a loader forks here, before the pool has a thread
            running.append(pool.submit(work, item))
            if len(running) > lanes:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
