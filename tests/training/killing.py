"""Run as a program: kills small trainings at named steps, resumes them, and compares what they leave with a whole run.

A process of its own, because its children are forked (starting one takes milliseconds, importing torch seconds), and
a process in which torch has already computed gradients cannot fork others that do.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from fewseg import registry
from fewseg.config import Config
from fewseg.data.dataset import EpisodeDataset
from fewseg.errors import StoppedError
from fewseg.progress import Silent
from fewseg.storage.run_directory import RunDirectory
from fewseg.training import loop
from fewseg.training.log import Log
from fewseg.training.loop import train
from fewseg.training.objectives import EpisodeObjective
from fewseg.training.tasks import EpisodeTask
from helpers import BASE_RECIPE, Toy, hdmnet_config, toy_config
from waiting import LONG

SETTINGS = (
    "train.epochs=2",
    "train.episodes_per_epoch=6",
    "train.val_episodes=2",
    "train.save_every=1",
    "train.validation=base",
    "train.held_out=2",
    "train.accumulate=2",
)
STEPS: dict[str, tuple[Any, str, int]] = {
    "an episode is loaded": (EpisodeDataset, "__getitem__", 3),
    "a batch is computed": (EpisodeObjective, "forward", 2),
    "the weights change": (torch.optim.AdamW, "step", 2),
    "the log is written": (Log, "write", 2),
    "a checkpoint is written": (loop, "save_state", 2),
    "the model is validated": (EpisodeTask, "validate", 2),
    "a model is saved": (loop, "save_model", 3),
}
"""What is called at a step, and the call that is the last of a life: late enough for every life to get further."""
GROUP_STEPS = ("a batch is computed", "the model is validated")
LIVES = 20


def start(run: Path, before: Callable[[], None] = lambda: None, config: Callable[[], Config] | None = None) -> int:
    """Fork a process that trains into `run`, or goes on with it; `before` runs in it first."""
    pid = os.fork()
    if pid == 0:
        code = 5
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            before()
            train(config() if config else toy_config(*SETTINGS), run, resume=(run / "config.yaml").exists())
            code = 0
        except StoppedError:
            code = 3
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


def signal_at(step: str, number: signal.Signals, *, group: bool = False) -> None:
    """Send this process (or all of a new group: its loaders too) a signal just before a call of the step."""
    if group:
        os.setsid()
    owner, name, at = STEPS[step]
    plain, calls = getattr(owner, name), count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            (signal_group if group else os.kill)(os.getpid(), number)
        return plain(*args, **kwargs)

    setattr(owner, name, call)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a group a signal from another process, and leave its processes the time to end of it."""
    sender = os.fork()
    if sender == 0:
        os.setsid()
        os.killpg(leader, number)
        os._exit(0)
    os.waitpid(sender, 0)
    time.sleep(0.3)


def killed_at(folder: Path, step: str, whole: dict[str, str]) -> dict[str, Any]:
    """SIGKILL at the step, and at the same one of every process that goes on, until one gets to the end."""
    run = folder / f"killed, {step}"
    codes = []
    while 0 not in codes and len(codes) < LIVES:
        codes.append(end(start(run, partial(signal_at, step, signal.SIGKILL))))
    return {"codes": codes, "same": outcome(run) == whole}


def asked_to_stop_at(folder: Path, step: str, number: signal.Signals, whole: dict[str, str]) -> dict[str, Any]:
    """The process ends by itself, and the run resumes to the same bits."""
    run = folder / f"{number.name}, {step}"
    codes = [end(start(run, partial(signal_at, step, number))), end(start(run))]
    return {"codes": codes, "same": outcome(run) == whole}


def group_stopped_at(folder: Path, step: str, whole: dict[str, str]) -> dict[str, Any]:
    """SIGTERM to the group of a run with loader processes, as srun and timeout send it: as if the run alone got it."""
    run, config = folder / f"group, {step}", partial(toy_config, *SETTINGS, "train.workers=2")
    first = start(run, partial(signal_at, step, signal.SIGTERM, group=True), config)
    codes, left = [end(first)], is_group(first)
    codes.append(end(start(run, config=config)))
    return {"codes": codes, "left": left, "same": outcome(run) == whole}


def is_group(number: int, *, seconds: float = LONG) -> bool:
    """Whether a process of the group is there for all that time; a loader looks for its parent twice a second."""
    end_of_it = time.monotonic() + seconds
    while time.monotonic() < end_of_it:
        try:
            os.killpg(number, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def every_file(folder: Path, whole: dict[str, str]) -> dict[str, Any]:
    """End the process at every second call that moves or removes a file, till it makes no more of them.

    The second, for those include the moment between a folder's two moves: the old one away, the new one in its place.
    """
    same = True
    for points, n in enumerate(count(2, 2)):
        run = folder / f"file {n}"
        code = end(start(run, partial(die_at, n)))
        if code == 0:
            return {"points": points, "same": same}
        assert code == 9, code
        assert end(start(run)) == 0
        same &= outcome(run) == whole
    raise AssertionError("never reached")


def die_at(n: int) -> None:
    """End this process just before its n-th call of os.replace, os.rename or os.unlink."""
    calls = count(1)

    def counted(plain: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == n:
                os._exit(9)
            return plain(*args, **kwargs)

        return call

    for name in ("replace", "rename", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def hdmnet(folder: Path) -> dict[str, Any]:
    """A whole run of HDMNet, its base learner first, and one that is killed in its third batch and goes on."""
    (folder / "base.yaml").write_text(BASE_RECIPE)
    config = partial(hdmnet_config, f"base.recipe={folder / 'base.yaml'}", "train.save_every=1", "train.val_every=2")
    whole, run = folder / "hdmnet", folder / "hdmnet, killed"
    codes = [end(start(whole, config=config))]
    codes += [end(start(run, partial(kill_hdmnet, run), config)), end(start(run, config=config))]
    return {"codes": codes, "same": outcome(run) == outcome(whole)}


def kill_hdmnet(run: Path) -> None:
    """Kill this process where HDMNet's second checkpoint is about to be written, not its base learner's."""
    plain = loop.save_state

    def call(directory: RunDirectory, state: Any, *args: Any) -> None:
        if directory.path == run and state.batches == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(directory, state, *args)

    loop.save_state = call


def main(folder: Path) -> dict[str, Any]:
    """All of it."""
    torch.set_num_threads(1)
    registry._REGISTERED = {"model": {"toy": Toy}, "source": {}}
    EpisodeTask(toy_config(*SETTINGS), progress=Silent())  # its scenes are drawn once, here
    assert end(start(folder / "whole")) == 0
    whole = outcome(folder / "whole")
    asked = [(number, step) for number in (signal.SIGINT, signal.SIGTERM) for step in list(STEPS)[3:6]]
    return {
        "killed": {step: killed_at(folder, step, whole) for step in STEPS},
        "asked": {f"{number.name}, {step}": asked_to_stop_at(folder, step, number, whole) for number, step in asked},
        "group": {step: group_stopped_at(folder, step, whole) for step in GROUP_STEPS},
        "files": every_file(folder, whole),
        "hdmnet": hdmnet(folder),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))  # noqa: T201
