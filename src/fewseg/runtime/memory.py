"""The C library's memory: large tensors of a CPU training are kept for the next step instead of given back."""

from __future__ import annotations

import ctypes
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory; returns whether it could be told to (Linux with glibc).

    For programs, not for libraries: it changes the whole process. The command line does it.

    By default every tensor above 32 MB is mapped anew and unmapped, and the kernel clears each of its pages: two
    thirds of the time of a training step on a CPU (`python -m benchmarks.memory`). The process keeps its peak memory in
    exchange.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def reset_peak_memory() -> bool:
    """Start a new measurement of `peak_memory`, and return whether that could be done.

    Freed memory is given back first, so that it is not counted again.
    """
    import torch

    done = torch.cuda.is_available()
    if done:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library, or a kernel that does not let it
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the kernel's way to reset VmHWM
            done = True
    return done


def peak_memory(device: torch.device) -> int | None:
    """Largest memory since `reset_peak_memory` in bytes: allocated on a CUDA device, else resident; None where
    unknown.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return None if found is None else int(found[1]) * 1024
