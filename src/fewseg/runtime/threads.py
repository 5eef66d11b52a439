"""Independent work side by side on a CPU.

The maps of a small network give several cores too little to share: they wait for each other at every layer, and for
the loader's workers. Two pieces of work at once, on half of the threads each, keep all cores busy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import torch

from fewseg.runtime.lanes import side_by_side

T = TypeVar("T")
R = TypeVar("R")

MOST = 2
"""Lanes at most: every one holds the activations of its own work."""


def lanes_for(device: torch.device) -> int:
    """How many lanes a model's device can use: two on a CPU with two threads or more."""
    return min(MOST, torch.get_num_threads()) if device.type == "cpu" else 1


def in_lanes(work: Callable[[T], R], items: Iterable[T], *, lanes: int) -> Generator[R, None, None]:
    """`work(item)` of every item, in the items' order; an exception ends all lanes.

    Items are taken as lanes become free. Every lane has its share of torch's threads, and none of the caller's modes:
    `work` itself must say `no_grad` or `inference_mode`.
    """
    if lanes == 1:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // lanes)
    try:
        yield from side_by_side(work, items, lanes=lanes, initializer=torch.set_num_threads, initargs=(share,))
    finally:
        torch.set_num_threads(threads)  # a lane's setting is the whole process's
