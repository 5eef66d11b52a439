"""Kills and stops small trainings at random moments: `python -m benchmarks.soak [--kills 100] [--terms 30]`

`python -m benchmarks.soak server` is about `fewseg serve` (`benchmarks/soak_server.py`), `gigapixel` about memory
(`benchmarks/gigapixel.py`), `ray` about a node that is killed (`benchmarks/ray_nodes.py`).

Each is resumed until it ends. At the end no process and no temporary file may be left, and every run must have the bits
of one that nothing happened to. Trainings have two loader processes; SIGKILL goes to the training alone, SIGTERM to its
whole group, as srun and timeout send it. Linux only: trainings are forked, so that each starts in milliseconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import torch

from fewseg.config import Config, load_config
from fewseg.training.loop import train
from fewseg.training.stop import StoppedError

WORDS = (
    *("hdmnet", "scenes", "data.level=simple", "data.images=60", "data.size=64", "model.backbone=timm/test_resnet"),
    *("model.weights=null", "model.image_size=64", "model.base_learner=false", "train.epochs=4", "train.batch_size=2"),
    *("train.episodes_per_epoch=12", "train.val_episodes=4", "train.save_every=1", "train.workers=2"),
    *("train.validation=base", "train.held_out=2"),
)
ENDED, STOPPED, FAILED = 0, 3, 5
"""Exit codes of a training here."""
PATIENCE = 15.0
"""Seconds in which all processes of a group must be gone."""


OTHERS = {"server": "soak_server", "gigapixel": "gigapixel", "ray": "ray_nodes"}


def main() -> None:
    if sys.argv[1:] and sys.argv[1] in OTHERS:
        import_module(f"benchmarks.{OTHERS[sys.argv.pop(1)]}").main()
        return
    options = parse()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    signals = [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.terms
    chance.shuffle(signals)
    config, problems, sent, runs = load_config(*WORDS), [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name, "whole")
        began = time.monotonic()
        if life(whole, config) != ENDED:
            sys.exit("a training that nothing happens to does not end")
        length = time.monotonic() - began
        while signals:
            run, runs = Path(name, f"run-{runs}"), runs + 1
            code = None
            while code != ENDED:
                number = signals.pop() if signals else None
                code = life(run, config, number, after=chance.uniform(0, length), problems=problems)
                sent += number is not None
                if code == FAILED:
                    problems.append(f"{run.name}: it failed after {number}")
                    break
            problems += differences(run, whole)
            print(f"{sent} signals, {runs} runs, {len(problems)} problems", flush=True)
    for problem in problems:
        print(problem)
    sys.exit(bool(problems))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs to the training")
    parser.add_argument("--terms", type=int, default=30, help="SIGTERMs to its group")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def life(
    run: Path,
    config: Config,
    number: signal.Signals | None = None,
    *,
    after: float = 0.0,
    problems: list[str] | None = None,
) -> int:
    """Train into `run`, or go on with it, in a new group; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        _train(run, config)
    if number is not None:
        time.sleep(0.05 + after)  # the group is there by then
        (os.killpg if number == signal.SIGTERM else os.kill)(pid, number)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not gone(pid) and problems is not None:
        problems.append(f"{run.name}: processes of group {pid} are left after {number}")
    return code


def _train(run: Path, config: Config) -> None:
    """The forked process; it never returns."""
    code = FAILED
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what loaders say of a parent that was killed
        train(config, run, resume=(run / "config.yaml").exists())
        code = ENDED
    except StoppedError:
        code = STOPPED
    finally:
        os._exit(code)


def gone(group: int) -> bool:
    """Whether no process of a group is left within the time that they have."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def differences(run: Path, whole: Path) -> list[str]:
    """What a run that was resumed has otherwise than the whole one."""
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (run, whole)]
    found = [] if names[0] == names[1] else [f"{run.name}: other files: {sorted(set(names[0]) ^ set(names[1]))}"]
    for name in ("last/model.safetensors", "best/model.safetensors", "metrics.jsonl"):
        if _hash(run / name) != _hash(whole / name):
            found.append(f"{run.name}: {name} has other bits")
    return found


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


if __name__ == "__main__":
    main()
