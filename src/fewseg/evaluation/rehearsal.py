"""What an evaluation will cost, told before it starts: `fewseg evaluate RUN --plan`.

The episodes pass through the same feed and the same cache as they will, with the sizes of features in place of features
and no image read; so what is read, encoded and kept is counted, not estimated. What one of each takes is the median of
a few that are done here and now.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fewseg.data.source import shape_of
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.feed import Feed, Loaded, Need, Step, at_scored_size
from fewseg.evaluation.scoring import Matched, score_step
from fewseg.features.cache import FeatureCache
from fewseg.features.overflow import CountedFile
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.progress import Silent
from fewseg.runtime.memory import peak_memory, reset_peak_memory
from fewseg.runtime.threads import lanes_for

T = TypeVar("T")
MEASURED = 3
"""Steps that are done to be timed, after one to warm up."""
_PREFETCHED = 2
"""Steps that torch's loader asks for ahead, per worker."""
_PER_EPISODE = 3000
"""Bytes that an episode's own objects take, besides its counts."""


@dataclass(frozen=True)
class Part:
    """A kind of work."""

    what: str
    count: int
    seconds: float
    """Median of what one took."""

    @property
    def total(self) -> float:
        """Seconds of all."""
        return self.count * self.seconds


@dataclass(frozen=True)
class Plan:
    """What an evaluation will do and take."""

    episodes: int
    repeats: int
    images: int
    """Different images."""
    read: Part
    """Images read, with labels, and brought to the input's size."""
    computed: tuple[Part, ...]
    """Queries and supports encoded, steps matched, episodes scored."""
    seconds: float
    """Wall time, where what is read and what is computed go on side by side."""
    kept: int
    """Bytes of features in memory, at most."""
    filed: int
    """Bytes of features in the temporary file."""
    dropped: bool
    """Whether neither has room for all that is used again: what had to go is then encoded anew."""
    memory: int | None
    """Bytes that the process (on a GPU, its memory) takes at most, loader processes not counted; None where unknown."""


def plan_evaluation(
    model: FewShotSegmenter,
    benchmark: Benchmark,
    *,
    score: Callable[[Matched], Any],
    batch_size: int = 1,
    workers: int = 2,
    cache_gb: float = 2.0,
    file_gb: float = 16.0,
    progress: Silent | None = None,
) -> Plan:
    """Go through an evaluation without its images, and time a few of its episodes; options as for `evaluate`.

    The counts are those of the evaluation itself as long as memory and file have room for what is used again. Where
    they have not, they are so for one lane (`fewseg.runtime.threads`): two take episodes in an order of their own.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    workers, lanes = min(workers, cores), lanes_for(model.device)
    found = _Measured(model.eval(), benchmark, score, batch_size=batch_size, lanes=lanes)
    counting, sizes = _Counting(found.query, found.support), _Sizes(benchmark, found)
    keeping = FeatureCache(counting, gigabytes=cache_gb, file_gigabytes=file_gb, file=CountedFile)  # type: ignore[arg-type]
    counting.image_size = model.image_size
    feed = Feed(keeping, benchmark, batch_size=batch_size, images=sizes)
    kept, dropped = 0, False
    asked = (dict(map(sizes.__getitem__, needs)) for needs in feed.needs())
    steps = feed.with_loaded(_ahead(asked, _PREFETCHED * workers + (lanes if lanes > 1 else 0)))
    for step in (progress or Silent())(steps, "planning", len(feed.steps)):
        feed.parts(step)
        for entry in step.entries:
            feed.truth(step, entry)
        feed.done(step)
        kept, dropped = max(kept, keeping.used), dropped or keeping.full
    read = Part("images read, at the input's size", sizes.read, found.median("read"))
    episodes = sum(map(len, benchmark.lists))
    computed = (
        Part("queries encoded", counting.queries, found.median("encode_query")),
        Part("supports encoded", counting.supports, found.median("encode_support")),
        Part(
            "matched" if batch_size == 1 else f"matched, {batch_size} at once", len(feed.steps), found.median("match")
        ),
        Part("scored", episodes, found.median("score")),
    )
    specs = [spec for listed in benchmark.lists for spec in listed.specs]
    memory = found.memory and found.memory + kept + episodes * (found.row_bytes + _PER_EPISODE)
    return Plan(
        episodes=episodes,
        repeats=len(benchmark.lists),
        images=len({i for spec in specs for i in (spec.query, *spec.support)}),
        read=read,
        computed=computed,
        seconds=_wall(
            read.total, sum(part.total for part in computed), model, workers=workers, lanes=lanes, cores=cores
        ),
        kept=kept,
        filed=keeping.filed,
        dropped=dropped,
        memory=memory,
    )


def _wall(read: float, compute: float, model: FewShotSegmenter, *, workers: int, lanes: int, cores: int) -> float:
    """Seconds of reading by workers beside computing in lanes, which share the processors."""
    if not workers and lanes == 1:
        return read + compute
    busy = compute * max(1, torch.get_num_threads() // lanes) if model.device.type == "cpu" else 0.0
    return max(read / max(workers, 1), compute / lanes, (read + busy) / cores)


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, each given when `count` more have been taken."""
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > count:
            yield taken.popleft()
    yield from taken


class _Measured:
    """What a few steps of a benchmark took, and how large what they gave is."""

    def __init__(
        self,
        model: FewShotSegmenter,
        benchmark: Benchmark,
        score: Callable[[Matched], Any],
        *,
        batch_size: int,
        lanes: int,
    ) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)
        whole = Feed(FeatureCache(model), benchmark, batch_size=batch_size)
        self.image_size = whole.image_size
        reset_peak_memory()
        before, threads = peak_memory(model.device), torch.get_num_threads()
        torch.set_num_threads(max(1, threads // lanes))
        try:
            for number, step in enumerate(_spread(whole.steps, 1 + MEASURED)):
                if number == 1:  # libraries load code and make kernels at their first use
                    self._seconds.clear()
                self._take(model, benchmark, step, score, batch_size=batch_size)
        finally:
            torch.set_num_threads(threads)
        after = peak_memory(model.device)
        self.memory = None if before is None or after is None else before + lanes * (after - before)

    def _take(
        self,
        model: FewShotSegmenter,
        benchmark: Benchmark,
        step: Step,
        score: Callable[[Matched], Any],
        *,
        batch_size: int,
    ) -> None:
        specs = tuple(entry.spec for entry in step.entries)
        alone = replace(benchmark, lists=(replace(benchmark.lists[0], specs=specs),))
        cache = FeatureCache(model)
        cache.model = _Timed(cache.model, self.timed)  # type: ignore[assignment]
        feed = Feed(cache, alone, batch_size=batch_size)
        (step,) = feed.steps
        images: Any = feed.images
        step.loaded = dict(self.timed("read", images.__getitem__, need) for need in next(feed.needs()))
        parts = sum(map(sum, self._seconds.values()))
        start = time.perf_counter()
        _, scored = score_step(feed, score, step)
        passed = time.perf_counter() - start - (sum(map(sum, self._seconds.values())) - parts)
        self._seconds["score"].append(passed / len(scored))
        with torch.inference_mode():
            queries, supports = feed.parts(step)
        self.query, self.support = _sizes(queries[0]), _sizes(supports[0][0])
        self.labels = feed.truth(step, step.entries[0])["labels"].dtype
        self.row_bytes = sum(v.nbytes for v in vars(scored[0][1]).values() if isinstance(v, np.ndarray))

    def timed(self, what: str, call: Callable[..., T], *given: Any, items: int = 1, **named: Any) -> T:
        """What a call gives; how long it took for each of its items is kept."""
        start = time.perf_counter()
        result = call(*given, **named)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seconds[what] += [(time.perf_counter() - start) / items] * items
        return result

    def median(self, what: str) -> float:
        """Seconds of one."""
        return float(np.median(self._seconds[what]))


class _Timed:
    """A model whose parts are timed."""

    def __init__(self, model: FewShotSegmenter, timed: Callable[..., Any]) -> None:
        self._model, self._timed = model, timed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in ("encode_query", "encode_support", "match"):
            return found
        if name == "match":
            return lambda *given, **named: self._timed(name, found, *given, **named)
        return lambda *given: self._timed(name, found, *given, items=len(given[0]))


class _Counting(nn.Module):
    """Stands for a model: counts what it is to encode, and gives the sizes of that."""

    device = torch.device("meta")
    image_size: int
    takes_classes = False

    def __init__(self, query: Features, support: Features) -> None:
        super().__init__()
        self._query, self._support = query, support
        self.queries = self.supports = 0

    def encode_query(self, image: Tensor) -> Features:
        """One more query."""
        self.queries += 1
        return self._query

    def encode_support(self, images: Tensor, masks: Tensor) -> Features:
        """One more support."""
        self.supports += 1
        return self._support


class _Sizes(Dataset[Any]):
    """Stands for the images: counts what is to be read, and gives the sizes of that."""

    def __init__(self, benchmark: Benchmark, found: _Measured) -> None:
        self.read = 0
        self._protocol, self._labels = benchmark.protocol, found.labels
        self._shape = cache(partial(shape_of, benchmark.source))
        self._side = found.image_size
        self._input = _empty(1, 3, self._side, self._side, dtype=torch.float32), _empty(1, self._side, self._side)

    def __getitem__(self, need: Need) -> tuple[tuple[int, int], Loaded]:
        self.read += 1
        truth = self._truth(need.image) if need.truth else None
        return (need.image, need.class_id), Loaded(self._input if need.pixels else None, truth)

    def _truth(self, i: int) -> Features:
        height, width = self._shape(i)
        maps = _empty(2, self._side, self._side) if self._protocol.scored_at == "input" else _empty(2, height, width)
        labels = _empty(height, width, dtype=self._labels)
        return {"scored": at_scored_size(maps, self._protocol), "labels": labels}


def _sizes(features: Features) -> Features:
    return {name: torch.empty_like(f, device="meta") for name, f in features.items()}


def _empty(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items at even distances; all of fewer."""
    few = min(count, len(items))
    return [items[n * len(items) // few] for n in range(few)]
