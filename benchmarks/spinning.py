"""What waiting threads cost: libgomp's spins, alone and beside a busy core. `python -m benchmarks.spinning [ROUNDS]`

A thread that has finished its share of a layer spins, by default for milliseconds, before it sleeps. That is quick on a
quiet machine; where cores are shared, it takes the core from the thread that is waited for. The settings are read when
torch is loaded, so each has a process of its own; they take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    **{f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": str(n)} for n in (1000, 10_000, 100_000)},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}
JOBS = ("predict", "train")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    workers = {name: _started(plain | setting) for name, setting in SETTINGS.items()}
    for beside in ("alone", "beside a busy core"):
        seconds: dict[str, dict[str, list[float]]] = {job: {name: [] for name in workers} for job in JOBS}
        for r in range(rounds):
            for job, by_name in seconds.items():
                for name in [*list(workers)[r % len(workers) :], *list(workers)[: r % len(workers)]]:
                    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside != "alone" else None
                    by_name[name].append(_asked(workers[name], job))
                    if other is not None:
                        other.kill()
                        other.wait()
        for job, by_name in seconds.items():
            for name, found in by_name.items():
                ratio = statistics.median(a / b for a, b in zip(found, by_name["default"], strict=True))
                print(
                    f"{beside:18}  {job:7}  {name:23}  {statistics.median(found):7.3f} s  {ratio:5.2f} of the default"
                )
    for worker in workers.values():
        worker.kill()
        worker.wait()


def _started(environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.spinning", "worker"]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def _asked(worker: subprocess.Popen[str], job: str) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(job, file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def _worker() -> None:
    """Does one job for every line that it is sent, and says how long it took."""
    jobs = _jobs()
    for job in jobs.values():
        job()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        jobs[line.strip()]()
        print(time.perf_counter() - start, flush=True)


def _jobs() -> dict[str, Callable[[], object]]:
    import numpy as np
    import torch

    from fewseg import Episode, FewShotPredictor, create_model, load_model
    from fewseg.runtime.heap import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    support, query = (np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8) for _ in range(2))
    mask = np.zeros((375, 500), bool)
    mask[100:250, 150:350] = True
    predictor = FewShotPredictor(load_model("lite"))
    predictor.set_support([support], [mask])
    model = create_model("hdmnet", image_size=224).train()
    masks = (torch.rand(3, 2, 224, 224) > 0.5).to(torch.uint8)
    episode = Episode(
        query_image=torch.rand(2, 3, 224, 224),
        support_images=torch.rand(2, 1, 3, 224, 224),
        support_masks=masks[0][:, None],
        class_id=torch.tensor([1, 2]),
        base_index=torch.tensor([0, 1]),
        query_mask=masks[1],
        query_base_mask=masks[2],
    )

    def train() -> None:
        model.zero_grad()
        torch.stack(list(model.loss(model(episode), episode).values())).sum().backward()

    return {"predict": lambda: predictor.predict(query), "train": train}


if __name__ == "__main__":
    _worker() if sys.argv[1:] == ["worker"] else main()
