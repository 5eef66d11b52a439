"""Several trainings at once, each in a process of its own with its share of the threads and GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewseg.errors import FewsegError
from fewseg.files import write_json
from fewseg.progress import Silent

POLL = 0.2
"""Seconds between looks at the running processes."""


@dataclass
class _Running:
    """A process, and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def run_jobs(
    jobs: Mapping[str, dict[str, Any]], *, module: str, folder: Path, at_once: int, title: str, progress: Silent
) -> None:
    """Run jobs by name, `at_once` of them: `python -m module FILE`; FILE is in `folder` and says what the job is.

    Raises FewsegError with the first failure's last words, once the others that run have ended.
    """
    if jobs:
        ended = _processes(jobs, module=module, folder=folder, count=min(at_once, len(jobs)), progress=progress)
        for _ in progress(ended, title, len(jobs)):
            pass


def _processes(
    jobs: Mapping[str, dict[str, Any]], *, module: str, folder: Path, count: int, progress: Silent
) -> Iterator[None]:
    waiting, running, failed = list(jobs.items()), dict[int, _Running](), list[_Running]()
    try:
        while running or (waiting and not failed):
            while waiting and len(running) < count and not failed:
                slot = min(set(range(count)) - running.keys())
                name, job = waiting.pop(0)
                running[slot] = _start(name, job, module=module, folder=folder, slot=slot, count=count)
                progress.log(f"started {name} (log: {running[slot].log})")
            for slot in [slot for slot, one in running.items() if one.process.poll() is not None]:
                one = running.pop(slot)
                if one.process.returncode:
                    failed.append(one)
                else:
                    progress.note(f"finished {one.name}")
                    yield
            time.sleep(POLL)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()
    if failed:
        lines = failed[0].log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("error: ") if lines else f"exit code {failed[0].process.returncode}"
        raise FewsegError(f"{failed[0].name} failed: {reason} (log: {failed[0].log}); the same command goes on")


def _start(name: str, job: dict[str, Any], *, module: str, folder: Path, slot: int, count: int) -> _Running:
    file = folder / f"{name}.json"
    write_json(file, job)
    log = file.with_suffix(".log")
    with open(log, "wb") as output:
        command = [sys.executable, "-m", module, str(file)]
        process = subprocess.Popen(  # nosec B603: a module of fewseg, no shell, and a file that it wrote itself
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=job_environment(slot, count)
        )
    return _Running(name, process, log)


def job_environment(slot: int, count: int) -> dict[str, str]:
    """The environment of the process in a slot: its share of the threads, and a CUDA device of its own in turn."""
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    devices = torch.cuda.device_count()
    if devices > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[slot % len(visible)]
    return environment
