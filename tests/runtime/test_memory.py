"""The process that fewseg runs in is the host's: only a command line may change it."""

from __future__ import annotations

from pathlib import Path

import fewseg

PROGRAMS = {"cli/main.py", "experiments/cross_validation_cells.py", "experiments/sweep.py", "runtime/beside.py"}
"""All but the first in processes that they start."""


def test_only_the_command_line_tells_the_c_library_to_keep_memory() -> None:
    root = Path(fewseg.__file__).parent
    callers = {f.relative_to(root).as_posix() for f in root.rglob("*.py") if "keep_freed_memory()" in f.read_text()}
    assert callers - {"runtime/heap.py"} == PROGRAMS
