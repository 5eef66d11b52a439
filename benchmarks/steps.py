"""Seconds of a training step on kept features: `python -m benchmarks.steps [hdmnet bam pfenet lite] [--threads 1]`.

By turns, a method's plain network and what training takes, its view; `--against CHECKOUT` takes another checkout of
fewseg in place of the plain network, such as a `git worktree` of an earlier commit. Each runs in a process of its own.
A step is forward, losses, backward and the configured optimiser, on random images and weights, seed 0. Prints the
quickest steps, the median ratio of all turns, multiplications and additions in products and convolutions, and how far
loss and gradient (dropout off) are from each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHODS = ("hdmnet", "bam", "pfenet", "lite")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="a checkout of fewseg to compare with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=288, help="side of the images")
    parser.add_argument("--batch", type=int, default=4, help="episodes of a step")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn; its quickest counts")
    parser.add_argument("--serve", choices=["plain", "view"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.methods[0], options)
        return
    print("| method | before, ms | now, ms | ratio | before, GFLOP | now, GFLOP | loss | gradient |")
    print("|---|---|---|---|---|---|---|---|")
    for method in options.methods:
        print(compared(method, options), flush=True)


def compared(method: str, options: argparse.Namespace) -> str:
    """A row of the table."""
    own = Path(__file__).resolve().parents[1]
    before = started(method, options, options.against or own, "view" if options.against else "plain")
    now = started(method, options, own, "view")
    digits, work = zip(*(json.loads(answer(process)) for process in (before, now)), strict=True)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + options.rounds):
        for process, found in zip((before, now), seconds, strict=True):
            found.append(float(answer(process, options.steps)))
    for process in (before, now):
        process.communicate()
    turns = [b / a for a, b in zip(*(found[1:] for found in seconds), strict=True)]  # the first is to warm up
    ms = [f"{1000 * min(found[1:]):.1f}" for found in seconds]
    far = [f"{abs(b / a - 1):.0e}" for a, b in zip(*digits, strict=True)]
    return f"| {' | '.join([method, *ms, f'{statistics.median(turns):.2f}', *(f'{w:.1f}' for w in work), *far])} |"


def started(method: str, options: argparse.Namespace, checkout: Path, way: str) -> subprocess.Popen[str]:
    """A process that takes steps when it is asked to, on a checkout's code."""
    command = [sys.executable, str(Path(__file__).resolve()), method, "--serve", way, "--threads", str(options.threads)]
    command += ["--size", str(options.size), "--batch", str(options.batch)]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": str(options.threads)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str], steps: int | None = None) -> str:
    """The process's next line, after so many steps if they are asked for."""
    assert process.stdin is not None
    assert process.stdout is not None
    if steps is not None:
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
    if line := process.stdout.readline():
        return line
    raise SystemExit("a process of the benchmark ended; its reason stands above")


def serve(method: str, options: argparse.Namespace) -> None:
    """Prints loss, size of the gradient and GFLOP, then the quickest step of as many as every line asks for."""
    from torch.utils.flop_counter import FlopCounterMode

    step, digits = training(method, options)
    with FlopCounterMode(display=False) as counter:
        step()
    print(json.dumps([digits, counter.get_total_flops() / 1e9]), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(min(seconds), flush=True)


def training(method: str, options: argparse.Namespace) -> tuple[Callable[[], None], tuple[float, float]]:
    """A step to take, and loss and size of the gradient without dropout; only what earlier checkouts have too."""
    import torch

    from fewseg.build import create_model
    from fewseg.config import load_config
    from fewseg.episode import Episode
    from fewseg.runtime.heap import keep_freed_memory
    from fewseg.training.objectives import EpisodeObjective
    from fewseg.training.optimising import create_optimizer

    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    side, b = options.size, options.batch
    arguments: dict[str, Any] = {"hdmnet": {"base_classes": 12}, "bam": {"base_classes": 12}, "pfenet": {}}.get(
        method, {"base_classes": 12, "all_stages": True}
    )
    model: Any = create_model(method, backbone="lite0", image_size=side, **arguments)
    images = torch.rand(2 * b, 3, side, side)
    masks = torch.zeros(b, 1, side, side, dtype=torch.uint8)
    masks[:, :, side // 5 : 3 * side // 5, side // 4 : 2 * side // 3] = 1
    objective: Any = EpisodeObjective(model)
    with torch.no_grad():
        query = objective.model.extract_query(images[:b])
        support = objective.model.extract_support(images[b:, None], masks)
    if options.serve == "plain":
        objective.model = model
    episode = Episode(
        query_image=torch.empty(b, 0),
        support_images=torch.empty(b, 1, 0),
        support_masks=torch.empty(b, 1, 0),
        class_id=torch.ones(b, dtype=torch.long),
        base_index=torch.zeros(b, dtype=torch.long),
        query_mask=masks[:, 0],
        query_base_mask=masks[:, 0],
    ).as_dict()
    optimizer = create_optimizer(model.param_groups(3e-4), load_config(method, "train.optimizer=adamw"))

    def gradient() -> float:
        losses = objective(episode, query, support)["losses"]
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        return float(loss.detach())

    objective.eval()
    loss = gradient()
    size = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    optimizer.zero_grad()
    objective.train()

    def step() -> None:
        gradient()
        optimizer.step()
        optimizer.zero_grad()

    return step, (loss, size**0.5)


if __name__ == "__main__":
    main()
