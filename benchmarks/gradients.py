"""How far rounding alone takes a training step's gradients: both ways in 32 bits, against the plain one in 64.

`python -m benchmarks.gradients [SIDE]` takes a minute at 161 px.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from benchmarks.cases import TrainingStep
from benchmarks.measure import difference


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 161
    case = TrainingStep("gradients", "", side=side, batch=2)
    exact = replace(case, dtype=torch.float64).prepare("plain")()
    for way in ("plain", "fewseg"):
        found = case.prepare(way)()
        apart = ", ".join(f"{name} {difference(found[name].double(), exact[name]):.0e}" for name in exact)
        print(f"{way} in 32 bits, {side} px, relative to the largest of the plain one in 64: {apart}")


if __name__ == "__main__":
    main()
