"""Run as a program: kills a tiny training again and again, resumes it, and compares what it leaves with a whole run.

A process of its own, because its children are forked (starting one takes milliseconds, importing torch seconds), and
a process in which torch has already computed gradients cannot fork others that do.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch

from fewseg import registry
from fewseg.training.loop import train
from helpers import Toy, toy_config

SETTINGS = (
    "train.epochs=2",
    "train.episodes_per_epoch=4",
    "train.val_episodes=2",
    "train.save_every=1",
    "train.validation=base",
    "train.held_out=2",
    "train.accumulate=3",
)


def start(run: Path, before: Callable[[], None] = lambda: None) -> int:
    """Fork a process that trains into `run`, or goes on with it; `before` runs in it first."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            before()
            train(toy_config(*SETTINGS), run, resume=(run / "config.yaml").exists())
            code = 0
        finally:
            os._exit(code)
    return pid


def end(pid: int) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(run: Path) -> dict[str, str]:
    """Hashes of what a run leaves, and the names of all its files: nothing half-written may lie about."""
    files = ("last/model.safetensors", "best/model.safetensors", "metrics.jsonl")
    hashes = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files}
    names = sorted(str(p.relative_to(run)) for p in run.rglob("*"))
    return hashes | {"files": ", ".join(names)}


def random_kills(folder: Path, seed: int, kills: int, seconds: float) -> dict[str, Any]:
    """SIGKILL at random moments of runs until there were `kills` of them, every run gone on with to its end."""
    rng, done, runs, same = random.Random(seed), 0, 0, True
    whole = outcome(folder / "whole")
    while done < kills:
        run = folder / f"random{runs}"
        runs += 1
        for _ in range(kills):  # then it may end
            pid = start(run)
            time.sleep(rng.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
            code = end(pid)
            if code == 0:
                break
            assert code == -signal.SIGKILL, code
            done += 1
        else:
            assert end(start(run)) == 0
        same &= outcome(run) == whole
    return {"kills": done, "runs": runs, "same": same}


def every_step(folder: Path, *, stride: int, first: int) -> dict[str, Any]:
    """End the process at its 1st, 2nd, ... call that makes, moves or syncs a file, till it makes no more of them.

    With a stride only every stride-th of them.
    """
    whole, same = outcome(folder / "whole"), True
    for points, n in enumerate(count(1 + first % stride, stride)):
        run = folder / f"step{n}"
        code = end(start(run, lambda n=n: die_at(n)))
        if code == 0:
            return {"points": points, "same": same}
        assert code == 9, code
        assert end(start(run)) == 0
        same &= outcome(run) == whole
    raise AssertionError("never reached")


def die_at(n: int) -> None:
    """End this process just before its n-th call of os.replace, os.rename, os.fsync, os.mkdir or os.unlink."""
    calls = 0

    def counted(plain: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == n:
                os._exit(9)
            return plain(*args, **kwargs)

        return call

    for name in ("replace", "rename", "fsync", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def asked_to_stop(folder: Path, number: signal.Signals, seed: int, tries: int, seconds: float) -> dict[str, Any]:
    """A signal at random moments: the process ends by itself, and the run resumes to the same bits."""
    whole, rng, stopped, same = outcome(folder / "whole"), random.Random(seed), 0, True
    for i in range(tries):
        run = folder / f"{number.name}{i}"
        pid = start(run)
        time.sleep(rng.uniform(0.3, 1) * seconds)
        os.kill(pid, number)
        code = end(pid)
        assert code in (0, 3, -number), code  # it may have ended, or not yet have begun to listen
        stopped += code == 3
        if code:
            assert end(start(run)) == 0
        same &= outcome(run) == whole
    return {"stopped": stopped, "same": same}


def main(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """All of it, timed by a whole run."""
    torch.set_num_threads(1)
    registry._REGISTERED = {"model": {"toy": Toy}, "source": {}}
    toy_config(*SETTINGS)
    assert end(start(folder / "warm")) == 0
    begin = time.perf_counter()
    assert end(start(folder / "whole")) == 0
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "random": random_kills(folder, seed, kills, seconds),
        "every step": every_step(folder, stride=3, first=seed),
        "SIGINT": asked_to_stop(folder, signal.SIGINT, seed, 4, seconds),
        "SIGTERM": asked_to_stop(folder, signal.SIGTERM, seed + 1, 4, seconds),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
