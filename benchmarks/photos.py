"""Seconds that the shipped model takes for a photo, with its support and with the support kept.

`python -m benchmarks.photos [THREADS]`
"""

from __future__ import annotations

import statistics
import sys

import numpy as np
import torch

from benchmarks.measure import alternate
from fewseg import FewShotPredictor, load_model
from fewseg.runtime.heap import keep_freed_memory


def main() -> None:
    keep_freed_memory()  # as `fewseg segment` does
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    rng = np.random.default_rng(0)
    support, query = (rng.integers(0, 256, (375, 500, 3), dtype=np.uint8) for _ in range(2))
    mask = np.zeros((375, 500), bool)
    mask[100:250, 150:350] = True
    for flip in (False, True):
        predictor = FewShotPredictor(load_model("lite"), flip=flip)

        def with_support(predictor: FewShotPredictor = predictor) -> None:
            predictor.set_support([support], [mask])
            predictor.predict(query)

        def support_kept(predictor: FewShotPredictor = predictor) -> None:
            predictor.predict(query)

        with_support()
        seconds, _ = alternate({"with its support": with_support, "support kept": support_kept}, 15)
        told = ", ".join(f"{name} {statistics.median(s):.2f} s" for name, s in seconds.items())
        print(f"500 x 375 px, 1 shot, {torch.get_num_threads()} threads{', mirrored too' if flip else ''}: {told}")


if __name__ == "__main__":
    main()
