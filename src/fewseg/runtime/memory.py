"""How much memory a step takes."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fewseg.runtime.heap import trim_memory

if TYPE_CHECKING:
    import torch


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
        trim_memory()
        with suppress(OSError):  # a kernel that does not let it
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
