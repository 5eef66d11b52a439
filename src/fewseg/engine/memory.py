"""The C library's memory: large tensors of a CPU training are kept for the next step instead of given back."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory; returns whether it could be told to (Linux with glibc).

    By default every tensor above 32 MB is mapped anew and unmapped, and the kernel clears each of its pages: two
    thirds of the time of a training step on a CPU (`benchmarks/memory.py`). The process keeps its peak memory in
    exchange.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
