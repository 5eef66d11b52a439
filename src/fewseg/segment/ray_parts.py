"""Parts of the work on other machines: `fewseg segment --engine ray`.

Every part is the same command with `--shard` and `--resume`, in a process of its own on whatever machine Ray gives it;
photos, concept, model and output folder lie where all machines see them. A part whose machine dies is started again
elsewhere, and leaves out what is done.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fewseg.errors import FewsegError, UsageError, install_line
from fewseg.progress import Silent, counted
from fewseg.segment.outputs import OF_ENGINE

PARTS_PER_CORE = 4
"""So many parts for each core, so that what a dead machine loses is little."""


def run_parts(words: Sequence[str], pictures: int, *, progress: Silent) -> None:
    """Do all parts of `fewseg segment` with `words`; what fails for single photos is told by who comes after.

    Ray's running cluster where RAY_ADDRESS names one, else one on this machine. FewsegError where a part cannot run at
    all, with what it said.
    """
    try:
        ray: Any = import_module("ray")
    except ModuleNotFoundError as error:
        raise UsageError(f"--engine ray needs Ray; install it with: {install_line('ray')}") from error
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    try:
        cores = int(ray.cluster_resources().get("CPU", 1))
        parts = max(1, min(pictures, PARTS_PER_CORE * cores))
        # of a machine that dies; a part that says no by itself says so again
        remote = ray.remote(num_cpus=1, max_retries=-1, retry_exceptions=False)(_part)
        command = [sys.executable, "-m", "fewseg", "segment", *words, "--resume"]
        waiting = [remote.remote([*command, "--shard", f"{n}/{parts}"], os.getcwd()) for n in range(1, parts + 1)]
        progress.log(
            f"{counted(parts, 'part')} on {counted(cores, 'core')} of {counted(len(ray.nodes()), 'machine')}, by Ray "
            f"{ray.__version__}"
        )
        for _ in progress(range(parts), "parts", parts):
            done, waiting = ray.wait(waiting, num_returns=1)
            code, said = ray.get(done[0])
            if code not in (0, 1):  # 1: photos that cannot be read, which the last run lists
                raise FewsegError(f"a part of the work ended with {code}: {said}")
    finally:
        if started_here:
            ray.shutdown()


def _part(command: list[str], folder: str) -> tuple[int, str]:
    """Run in a process of its own: the exit code, and the end of what was said."""
    own = {"OMP_NUM_THREADS": "1", OF_ENGINE: "1"}
    how = {"cwd": folder, "env": os.environ | own, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **how)  # nosec B603  (fewseg itself, without a shell)
    return done.returncode, done.stderr.strip()[-2000:]
