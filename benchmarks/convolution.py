"""From which size on a 3x3 convolution by tiles (`models/fast/winograd.py`) is quicker than torch's: seconds by turns.

    python -m benchmarks.convolution [--sides 9 12 20 36] [--layers 2] [--rounds 9]

Prints the median ratio, by tiles to direct, of square maps of one image; bounds `winograd.FEWEST_POSITIONS`.
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

from benchmarks.measure import alternate, median_ratio
from fewseg.models.fast import winograd
from fewseg.runtime.heap import keep_freed_memory

CHANNELS = ((128, 128), (256, 256), (320, 512), (1024, 512), (2048, 512))
"""In and out: the least that is done by tiles, and base heads of lite0 and the ResNets."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[9, 12, 15, 18, 20, 24, 30, 36, 60])
    parser.add_argument("--layers", type=int, help="the smallest so many, in place of all")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    keep_freed_memory()
    print("| in, out | " + " | ".join(f"{side} x {side}" for side in arguments.sides) + " |")
    print("|---" * (1 + len(arguments.sides)) + "|")
    for channels, outputs in CHANNELS[: arguments.layers]:
        weight = torch.randn(outputs, channels, 3, 3).contiguous(memory_format=torch.channels_last)
        ratios = [ratio(side, weight, arguments.rounds) for side in arguments.sides]
        print(f"| {channels}, {outputs} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |", flush=True)


def ratio(side: int, weight: torch.Tensor, rounds: int) -> float:
    """Seconds by tiles to seconds of torch's convolution."""
    maps = torch.randn(1, weight.shape[1], side, side).contiguous(memory_format=torch.channels_last)
    runs = {
        "direct": lambda: F.conv2d(maps, weight, padding=1),
        "tiles": lambda: winograd.convolve(maps, weight),
    }
    for run in (*runs.values(), *runs.values()):  # warm
        run()
    seconds, _ = alternate(runs, rounds)
    return median_ratio(seconds["tiles"], seconds["direct"])


if __name__ == "__main__":
    main()
