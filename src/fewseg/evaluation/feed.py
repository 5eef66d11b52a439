"""The order in which episodes are evaluated, and the images that are loaded for them.

Episodes of a class follow each other; within a class, those of a query. Where several classes of a query are scored in
one map, they are one step. So a query is encoded once per class even
where no features are kept, and it is enough to keep the supports of one class. Workers load an image only if its
features are not kept yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from fewseg.data.dataset import EpisodeDataset, certain, make_loader
from fewseg.data.episodes.lists import EpisodeSpec
from fewseg.data.episodes.protocols import EvaluationProtocol
from fewseg.evaluation.benchmark import Benchmark
from fewseg.features.cache import FeatureCache, stack_queries, stack_supports
from fewseg.labels import IGNORE
from fewseg.models.base import Features
from fewseg.runtime.processes import own_share

Key = tuple[str, int, int, str]
"""What the cache knows features by: "query", "support" or "truth"; the image's index; the class id (a query is encoded
without one: 0); and a hash of the data, the input's size and, for the truth, the fold and the scoring rule."""


@dataclass(frozen=True)
class Entry:
    """One episode: its list's number, its place there, and what it is."""

    repeat: int
    place: int
    spec: EpisodeSpec


@dataclass(frozen=True)
class Need:
    """What a step asks a worker to load: an image with the masks of a class, and what of it."""

    image: int
    class_id: int
    pixels: bool
    truth: bool


@dataclass(eq=False)
class Loaded:
    """What a step asked for; None for what it did not need."""

    pixels: tuple[Tensor, Tensor] | None
    """An image (1, 3, S, S) and its mask (1, S, S) at the input's size."""
    truth: Features | None
    """What a query is scored against: `scored` (2, h, w), its mask and base labels at the size that the protocol scores
    at, and `labels` (H, W), all classes as the source gives them, at the query's own size.
    """


@dataclass(eq=False)
class Step:
    """Episodes that are matched at once, and what was loaded for them by image and class."""

    entries: tuple[Entry, ...]
    loaded: dict[tuple[int, int], Loaded] = field(default_factory=dict)
    promised: set[Key] = field(default_factory=set)
    """What this step will put into the cache, so that no other asks for it."""


class Feed:
    """The steps of this process with their features and truths, computed once within the cache's budget."""

    def __init__(
        self,
        cache: FeatureCache,
        benchmark: Benchmark,
        *,
        batch_size: int = 1,
        images: Dataset[Any] | None = None,
    ) -> None:
        self.cache, self.protocol = cache, benchmark.protocol
        self.image_size = benchmark.input_size(cache.model.image_size)
        self.base_index, self.matching, self.ways = benchmark.fold.base_index, benchmark.matching, benchmark.ways
        self.at_once = batch_size > 1 and cache.model.device.type not in ("cpu", "meta")
        """Whether what a step lacks is encoded as a batch: no quicker on a CPU, and a plan (meta) counts one by one."""
        self.images = images or _Images(benchmark.dataset(cache.model.image_size), benchmark.protocol)
        """Need -> its (image, class) and what was loaded."""
        # the cache may serve other data, folds and protocols as well
        inputs = (benchmark.source.index.sha256, self.protocol.resize, self.protocol.antialias, self.image_size)
        marks = () if self.protocol.supports == "mask" else (self.protocol.supports,)
        self._input, self._scored = _mark(*inputs, *marks), _mark(*inputs, benchmark.fold, self.protocol.scored_at)
        entries = [Entry(r, e, spec) for r, listed in enumerate(benchmark.lists) for e, spec in enumerate(listed.specs)]
        entries.sort(key=partial(_order, benchmark))
        # several processes share the steps, not the episodes: what is matched at once is the same in any number of them
        self.steps = own_share([Step(tuple(batch)) for batch in _batches(entries, batch_size * self.ways)])
        self._promised: set[Key] = set()
        self._arrived: WeakValueDictionary[tuple[int, int], Loaded] = WeakValueDictionary()
        cache.expect(key for step in self.steps for entry in step.entries for key in self._keys(entry.spec))

    def load(self, *, workers: int) -> Iterator[Step]:
        """The steps, with what they need loaded; `done` is to be called after each."""
        return self.with_loaded(make_loader(self.images, self.needs(), workers=workers))

    def with_loaded(self, batches: Iterable[dict[tuple[int, int], Loaded]]) -> Iterator[Step]:
        """The steps with what was loaded for each."""
        for step, loaded in zip(self.steps, batches, strict=True):
            step.loaded = loaded
            self._arrived.update(loaded)
            yield step

    def done(self, step: Step) -> None:
        """Forget what a step has loaded."""
        self._promised -= step.promised
        step.loaded = {}

    def features(self, step: Step) -> tuple[Features, Features]:
        """Encoded queries and supports of a step."""
        queries, supports = self.parts(step)
        return stack_queries(queries), stack_supports(supports)

    def parts(self, step: Step) -> tuple[list[Features], list[list[Features]]]:
        """The same one by one: of every episode its query, and its supports."""
        made = self._made_at_once(step) if self.at_once else {}

        def get(entry: Entry, key: Key) -> Features:
            return self.cache.get(key, lambda: made.get(key) or self._made(step, [(entry, key)]))

        queries, supports = [], []
        for entry in step.entries:
            query, _, *shots = self._keys(entry.spec)
            queries.append(get(entry, query))
            supports.append([get(entry, shot) for shot in shots])
        return queries, supports

    def truth(self, step: Step, entry: Entry) -> Features:
        """What an episode's query is scored against, on the model's device; see `Loaded`."""
        key = self._keys(entry.spec)[1]

        def compute() -> Features:
            truth = self._found(step, entry.spec.class_id, key).truth
            assert truth is not None
            return {name: part.to(self.cache.model.device) for name, part in truth.items()}

        return self.cache.get(key, compute)

    def needs(self) -> Iterator[list[Need]]:
        """Per step what is not in the cache by then; the loader asks a few steps ahead."""
        for step in self.steps:
            keys = {key for entry in step.entries for key in self._keys(entry.spec)}
            wanted = {key for key in keys if not self.cache.holds(key)}
            if not self.cache.full:  # what an earlier step is loading will be kept
                wanted -= self._promised
            step.promised = wanted
            self._promised |= wanted
            yield self._as_needs(step, wanted)

    def _as_needs(self, step: Step, wanted: set[Key]) -> list[Need]:
        kinds: dict[tuple[int, int], set[str]] = {}
        for entry in step.entries:
            for kind, i, *_ in wanted.intersection(self._keys(entry.spec)):
                kinds.setdefault((i, entry.spec.class_id), set()).add(kind)
        return [Need(i, c, bool(k - {"truth"}), "truth" in k) for (i, c), k in sorted(kinds.items())]

    def _keys(self, spec: EpisodeSpec) -> list[Key]:
        """The keys of an episode's query, its truth, and its supports."""
        c = spec.class_id
        query, truth = ("query", spec.query, 0, self._input), ("truth", spec.query, c, self._scored)
        return [query, truth, *(("support", i, c, self._input) for i in spec.support)]

    def _found(self, step: Step, class_id: int, key: Key) -> Loaded:
        """What was loaded for a key; anew where what an earlier step was to leave in the cache is gone again: the
        budget is that small.
        """
        kind, image, *_ = key
        place = image, class_id
        for found in (step.loaded.get(place), self._arrived.get(place)):
            if found is not None and (found.truth if kind == "truth" else found.pixels) is not None:
                return found
        return self.images[Need(*place, pixels=kind != "truth", truth=kind == "truth")][1]

    def _made(self, step: Step, wanted: Sequence[tuple[Entry, Key]]) -> Features:
        """Queries, or supports of one shot each, encoded as a batch."""
        found = [self._found(step, entry.spec.class_id, key).pixels for entry, key in wanted]
        model, (kind, *_) = self.cache.model, wanted[0][1]
        images, masks = (torch.cat(parts).to(model.device) for parts in zip(*filter(None, found), strict=True))
        if kind == "query":
            return model.encode_query(images)
        ids = (torch.tensor([entry.spec.class_id for entry, _ in wanted]),) if model.takes_classes else ()
        return model.encode_support(images[:, None], masks[:, None], *ids)

    def _made_at_once(self, step: Step) -> dict[Key, Features]:
        """What the cache lacks of a step, encoded as many at once as are matched at once.

        Filled up to a multiple of eight: a GPU plans every convolution anew for a batch size that it has not met.
        """
        owners = {key: entry for entry in step.entries for key in self._keys(entry.spec)}
        made = {}
        for kind in ("query", "support"):
            missing = [(entry, key) for key, entry in owners.items() if key[0] == kind and not self.cache.holds(key)]
            for start in range(0, len(missing), len(step.entries)):
                some = missing[start : start + len(step.entries)]
                batch = self._made(step, [*some, *[some[-1]] * (-len(some) % min(8, len(step.entries)))])
                # a part that is kept must not keep the whole batch
                made |= {key: {n: f[i : i + 1].clone() for n, f in batch.items()} for i, (_, key) in enumerate(some)}
        return made


class _Images(Dataset[Any]):
    """Need -> its (image, class) and what was loaded."""

    def __init__(self, dataset: EpisodeDataset, protocol: EvaluationProtocol) -> None:
        self.dataset, self.protocol = dataset, protocol

    def __getitem__(self, need: Need) -> tuple[tuple[int, int], Loaded]:
        return (need.image, need.class_id), loaded(self.dataset, need, self.protocol)

    collate = staticmethod(dict)
    """All that a step needs."""


def loaded(dataset: EpisodeDataset, need: Need, protocol: EvaluationProtocol) -> Loaded:
    """An image as the model sees it, and what is scored there."""
    image, labels, maps = dataset.read(need.image, need.class_id)
    maps[1] = certain(maps[1], dataset.known_bases(need.image))
    pixels = None
    scored = at_scored_size(torch.from_numpy(maps), protocol)
    if need.pixels or (need.truth and protocol.scored_at == "input"):
        given = dataset.as_marked(image, maps)
        shrunk, small = dataset.transform(image, given, 0)
        pixels = shrunk[None], small[:1]
        if protocol.scored_at == "input":
            scored = small if given is maps else dataset.transform(image, maps, 0)[1]
    kind = np.uint8 if labels.dtype == np.uint8 else np.int32  # torch has no uint16 to compute with
    truth = {"scored": scored, "labels": torch.from_numpy(labels.astype(kind))} if need.truth else None
    return Loaded(pixels, truth)


def at_scored_size(maps: Tensor, protocol: EvaluationProtocol) -> Tensor:
    """Labels (n, H, W), padded where the protocol scores on a padded square."""
    if protocol.scored_at != "padded_square":
        return maps
    height, width = maps.shape[-2:]
    side = max(height, width)
    return F.pad(maps, (0, side - width, 0, side - height), value=IGNORE)


def _order(benchmark: Benchmark, entry: Entry) -> tuple[int, ...]:
    """By what entries are sorted: classes of one query stay together, and go where the first of them goes."""
    first = benchmark.lists[entry.repeat].specs[entry.place - entry.place % benchmark.ways]
    return len(first.support), first.class_id, first.query, entry.repeat, entry.place


def _batches(entries: list[Entry], size: int) -> Iterator[list[Entry]]:
    """`size` at a time, all of as many shots."""
    for _, same in groupby(entries, key=lambda entry: len(entry.spec.support)):
        while batch := list(islice(same, size)):
            yield batch


def _mark(*parts: Any) -> str:
    """A short text that differs where the parts do; its hash is computed once."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
