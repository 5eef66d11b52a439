"""The C library's memory: whether freed blocks are kept for the next step, or given back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory; returns whether it could be told to (Linux with glibc).

    For programs, not for libraries: it changes the whole process. The command line does it.

    By default every tensor above 32 MB is mapped anew and unmapped, and the kernel clears each of its pages: two
    thirds of the time of a training step on a CPU (`python -m benchmarks.memory`). The process keeps its peak memory in
    exchange.
    """
    return _told({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def give_back_freed_memory() -> bool:
    """The opposite, for programs that stay: memory that is freed goes back to the system; returns as above.

    Blocks from 256 kB on are mapped and unmapped, whatever was freed before (glibc raises that bound otherwise), and
    threads share two heaps, for what one freed of another's is kept by that one.
    """
    return _told({_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 2**18, _M_TRIM_THRESHOLD: 2**20, _M_ARENA_MAX: 2})


def trim_memory() -> None:
    """Give freed memory back now, where the C library can."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _told(values: dict[int, int]) -> bool:
    """Whether glibc could be told values of its mallopt."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    done = [bool(mallopt(name, value)) for name, value in values.items()]
    return all(done)
