"""How things are measured: alternating runs in one process, peak memory in a fresh process, counted operations."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fewseg.evaluation.evaluate import versions
from fewseg.runtime.memory import peak_memory, reset_peak_memory

Run = Callable[[], Any]


def alternate(runs: Mapping[str, Run], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every run, taken by turns, so that what else the machine does meets all; and what each gave last."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            start = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def counted(run: Run) -> float:
    """A run's multiplications and additions in matrix products and convolutions, in GFLOP."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() / 1e9


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two tensors (or dicts, lists of them), relative to the largest value."""
    if isinstance(ours, Mapping):
        return max(difference(ours[name], theirs[name]) for name in theirs)
    if isinstance(ours, list | tuple):
        return max(difference(a, b) for a, b in zip(ours, theirs, strict=True))
    scale = float(theirs.abs().max())
    return float((ours - theirs).abs().max()) / max(scale, 1e-12)


def peak_above(run: Run) -> float:
    """MB that the run takes at most above what the process holds before it (model and inputs)."""
    gc.collect()
    reset_peak_memory()
    before = _resident()
    run()
    peak = peak_memory(torch.device("cpu"))
    return ((peak or before) - before) / 1e6


def peak_in_fresh_process(case: str, way: str, *, point: int = 0, quick: bool = False) -> float:
    """`peak_above` of one way of a case (of its `point`, if it is a curve), in a process that has done nothing else."""
    command = [sys.executable, "-m", "benchmarks", case, "--only-peak-of", way, "--point", str(point)]
    command += ["--quick"] if quick else []
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
    if done.returncode:
        raise SystemExit(f"measuring the memory of {case} ({way}) failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def machine() -> dict[str, Any]:
    """What the numbers depend on, with the machine's measured matrix speed and memory bandwidth."""
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    big, copy = torch.rand(64 * 2**20), torch.empty(64 * 2**20)
    seconds = alternate({"matmul": lambda: a @ b, "copy": lambda: copy.copy_(big)}, 7)[0]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "versions": versions(),
        "matmul_gflops": 2 * 2048**3 / min(seconds["matmul"]) / 1e9,
        "copy_gb_per_s": 2 * big.numel() * 4 / min(seconds["copy"]) / 1e9,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of our time by theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
