"""What one episode costs a model: seconds and memory, in the same way for every model and in any order of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from fewseg.episode import Episode
from fewseg.models.base import FewShotSegmenter
from fewseg.models.fast import accelerate
from fewseg.runtime.memory import peak_memory, reset_peak_memory

WARM_UP, TIMED = 2, 8


@dataclass(frozen=True)
class Cost:
    """One episode's cost, with nothing cached and the images loaded."""

    seconds: float
    """Median over the timed episodes: query and supports encoded, matched, the mask on the CPU."""
    peak_bytes: int | None
    """The model's own weights, and what its episodes took at most beyond what was there before; None where unknown."""


@torch.inference_mode()
def measure_cost(model: FewShotSegmenter, episodes: Iterable[Episode]) -> Cost:
    """Run the first ten episodes, two of them to warm up; they are loaded before.

    Memory that other models and the data hold is there before and after, and therefore counts for none of them.
    """
    model = accelerate(model.eval())
    loaded = list(islice(episodes, WARM_UP + TIMED))
    for episode in loaded[:WARM_UP]:  # libraries load code and make kernels at their first use
        _run(model, episode)
    could_reset = reset_peak_memory()
    before = peak_memory(model.device)
    seconds = []
    for episode in loaded[WARM_UP:] or loaded:
        start = time.perf_counter()
        _run(model, episode)
        seconds.append(time.perf_counter() - start)
    after = peak_memory(model.device)
    if not could_reset or before is None or after is None:
        return Cost(float(np.median(seconds)), None)
    own = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    return Cost(float(np.median(seconds)), own + max(0, after - before))


def _run(model: FewShotSegmenter, episode: Episode) -> None:
    model(episode.to(model.device)).mask.cpu()  # on a GPU, this waits for it
