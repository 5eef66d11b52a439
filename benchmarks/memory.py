"""What keeping freed memory is worth: a base learner's training step with and without, in fresh processes by turns.

    python -m benchmarks.memory [--rounds 3] [--json FILE]

Prints seconds per step of both, and the median ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def step_seconds(keep: bool, steps: int = 6) -> float:
    import torch

    from fewseg.build import create_model
    from fewseg.runtime.heap import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("this C library cannot be told to keep freed memory")
    torch.manual_seed(0)
    model = create_model("base", image_size=256).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    image, labels = torch.rand(8, 3, 256, 256), torch.randint(0, 16, (8, 256, 256)).to(torch.uint8)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        sum(model.loss(model(image), labels).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=["keep", "give-back"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(step_seconds(arguments.one == "keep"))
        return
    rows = []
    for _ in range(arguments.rounds):
        row = {}
        for way in ("give-back", "keep"):
            done = subprocess.run([sys.executable, __file__, "--one", way], check=True, capture_output=True, text=True)
            row[way] = float(done.stdout.split()[-1])
        rows.append(row)
        print(f"given back {row['give-back']:.2f} s, kept {row['keep']:.2f} s a step")
    ratio = statistics.median(row["keep"] / row["give-back"] for row in rows)
    print(f"median ratio {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rounds": rows, "median_ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
