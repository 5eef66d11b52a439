"""Draws of test episodes: which images are the queries, of which class, and with which supports.

Everything is a function of the source's index, the seed and a number; protocols name the rules.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from fewseg.data.episodes.lists import EpisodeSpec
from fewseg.data.episodes.protocols import EvaluationProtocol
from fewseg.data.source import ImageSource, cut_from, labelled
from fewseg.errors import DataError, DataWarning, UsageError

# Every kind of draw has its own random stream: this number stands after the seed.
DRAW, EPOCH, _CLASS_ORDER, _QUERY_ORDER, _ABSENT, _REFERENCE, _WAYS = range(7)


Pools = dict[int, NDArray[np.int64]]
"""The images to draw of every class."""


@lru_cache(maxsize=4)
def epoch_order(length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The (length,) permutation of an epoch, or of a lap through a list."""
    return default_rng([seed, EPOCH, epoch]).permutation(length)


SpecsOf = Callable[[int], list[EpisodeSpec]]
"""A query's number -> its episodes."""


def _each(source: ImageSource, pools: Pools, shots: int, protocol: EvaluationProtocol, seed: int) -> SpecsOf:
    """Supports drawn anew for every query, of its class and of the further ones that are looked for in it."""
    if protocol.ways > len(pools):
        raise UsageError(f"{protocol.ways} classes at once, and {len(pools)} to draw in this fold; give fewer ways")
    draw, repeats = _DRAWS[protocol.query](source, pools, protocol, seed), protocol.support == "with_repeats"
    lacking = _lacking(source, pools) if protocol.absent else {}

    def specs_of(e: int) -> list[EpisodeSpec]:
        rng = default_rng([seed, DRAW, e])
        query, class_id = draw(rng, e)
        if class_id in lacking and (chance := default_rng([seed, _ABSENT, e])).random() < protocol.absent:
            query = int(chance.choice(lacking[class_id]))
        rngs = [(rng, class_id)]  # the first is that of a list with one draw and one class a query
        rngs += [(default_rng([seed, _REFERENCE, e, r]), class_id) for r in range(1, protocol.references)]
        if protocol.ways > 1:
            others = _others(source, pools, query, class_id, protocol.ways - 1, default_rng([seed, _WAYS, e]))
            rngs += [(default_rng([seed, _WAYS, e, w]), c) for w, c in enumerate(others, 1)]
        return [EpisodeSpec(query, c, draw_supports(own, source, pools[c], query, shots, repeats)) for own, c in rngs]

    return specs_of


def _others(source: ImageSource, pools: Pools, query: int, class_id: int, count: int, rng: Generator) -> list[int]:
    """Further classes to look for in a query, uniform without repeats among those of which its labels tell."""
    classes = [c for c in known_classes(source, query, pools) if c != class_id]
    if len(classes) < count:
        raise DataError(
            f"the labels of {source.index.ids[query]} tell of {1 + len(classes)} of the classes; give as many ways"
        )
    return rng.choice(classes, count, replace=False).tolist()


def _with_fixed_supports(
    source: ImageSource, pools: Pools, shots: int, protocol: EvaluationProtocol, seed: int
) -> SpecsOf:
    """Every class in every query, with the same supports: those of the seed, which are no queries."""
    supports = {
        c: draw_supports(default_rng([seed, _WAYS, c]), source, pool, -1, shots, False) for c, pool in pools.items()
    }
    taken = {i for images in supports.values() for i in images}
    if (cut := cut_from(source)) is not None:  # other parts of these photos neither
        taken = set(np.flatnonzero(np.isin(cut, cut[list(taken)])).tolist())
    marked = np.flatnonzero(source.index.counts[:, 1:].any(1)).tolist()
    images = [i for i in marked if i not in taken and len(known_classes(source, i, pools)) == len(pools)]
    if not images:
        raise DataError(
            f"no image of {source.name} ({source.subset}) is left as a query: none is no support and labelled for all "
            f"{len(pools)} novel classes"
        )

    def specs_of(e: int) -> list[EpisodeSpec]:
        lap, place = divmod(e, len(images))
        query = int(images[epoch_order(len(images), seed, lap)[place] if protocol.query == "all_shuffled" else place])
        return [EpisodeSpec(query, c, supports[c]) for c in pools]

    return specs_of


def _lacking(source: ImageSource, classes: Iterable[int]) -> dict[int, NDArray[np.int64]]:
    """Per class the images without a pixel of it, as their labels tell.

    A class that every image may hold is left out, which a DataWarning tells; DataError where all are.
    """
    found = {c: np.flatnonzero(source.index.counts[:, c] == 0) for c in classes}
    if hasattr(source, "labelled"):
        found = {
            c: np.array([i for i in v.tolist() if known_classes(source, i, [c])], np.int64) for c, v in found.items()
        }
    if everywhere := [source.class_names[c - 1] for c, images in found.items() if not len(images)]:
        told = f"no image of {source.name} ({source.subset}) is known to lack {', '.join(everywhere)}"
        if len(everywhere) == len(found):
            raise DataError(f"{told}; leave absent away")
        warnings.warn(DataWarning(f"{told}: all queries of these classes hold them"), stacklevel=1)
    return {c: images for c, images in found.items() if len(images)}


Draw = Callable[[Generator, int], tuple[int, int]]
"""Episode number -> query image and class id."""


def _stratified(source: ImageSource, pools: Pools, protocol: EvaluationProtocol, seed: int) -> Draw:
    """Every class once per round, in shuffled order; a class's images in turn, shuffled anew when used up."""

    def draw(_: Generator, e: int) -> tuple[int, int]:
        turn, position = divmod(e, len(pools))
        class_id = int(default_rng([seed, _CLASS_ORDER, turn]).permutation(list(pools))[position])
        lap, place = divmod(turn, len(pools[class_id]))
        return int(default_rng([seed, _QUERY_ORDER, class_id, lap]).permutation(pools[class_id])[place]), class_id

    return draw


def _in_order(source: ImageSource, pools: Pools, protocol: EvaluationProtocol, seed: int) -> Draw:
    """The listed images in order, cycled; the class uniform among the fold's in the image, as `query_class` says."""
    least = source.min_pixels if protocol.query_class == "eligible" else 1
    images = np.unique(np.concatenate(list(pools.values())))

    def draw(rng: Generator, e: int) -> tuple[int, int]:
        query = int(images[e % len(images)])
        return query, int(rng.choice([c for c in source.index.classes_in(query, min_pixels=least) if c in pools]))

    return draw


def _pairs(source: ImageSource, pools: Pools, protocol: EvaluationProtocol, seed: int) -> Draw:
    """The (image, class) pairs in order, or in shuffled laps: all are drawn before any comes again."""
    pairs = sorted((int(image), class_id) for class_id, pool in pools.items() for image in pool)

    def draw(_: Generator, e: int) -> tuple[int, int]:
        lap, place = divmod(e, len(pairs))
        return pairs[epoch_order(len(pairs), seed, lap)[place] if protocol.query == "pairs_shuffled" else place]

    return draw


def _uniform(source: ImageSource, pools: Pools, protocol: EvaluationProtocol, seed: int) -> Draw:
    """The class uniform, then the image uniform among the class's."""

    def draw(rng: Generator, e: int) -> tuple[int, int]:
        class_id = int(rng.choice(list(pools)))
        return _one(rng, source, pools[class_id]), class_id

    return draw


def _turns(source: ImageSource, pools: Pools, protocol: EvaluationProtocol, seed: int) -> Draw:
    """The classes in turn, then the image uniform among the class's."""
    classes = list(pools)

    def draw(rng: Generator, e: int) -> tuple[int, int]:
        class_id = classes[e % len(classes)]
        return _one(rng, source, pools[class_id]), class_id

    return draw


def _all_images(source: ImageSource, pools: Pools, protocol: EvaluationProtocol, seed: int) -> Draw:
    """Every image with any class, as `query` orders them; the class as BAM's generalised evaluation draws it.

    Where a class of no pool is present too, the class is any of the pools' of which the query's labels tell, whether
    it holds it or not. An image whose labels tell of none is left out.
    """
    marked = np.flatnonzero(source.index.counts[:, 1:].any(1))
    images = [i for i in marked.tolist() if known_classes(source, i, pools)]

    def draw(rng: Generator, e: int) -> tuple[int, int]:
        lap, place = divmod(e, len(images))
        shuffled = protocol.query == "all_shuffled"
        query = int(images[epoch_order(len(images), seed, lap)[place] if shuffled else place])
        present = source.index.classes_in(query).tolist()
        return query, int(rng.choice(present if set(present) <= pools.keys() else known_classes(source, query, pools)))

    return draw


_DRAWS: dict[str, Callable[[ImageSource, Pools, EvaluationProtocol, int], Draw]] = {
    "stratified": _stratified,
    "in_order": _in_order,
    "pairs": _pairs,
    "pairs_shuffled": _pairs,
    "uniform": _uniform,
    "turns": _turns,
    "all_in_order": _all_images,
    "all_shuffled": _all_images,
}


def _one(rng: Generator, source: ImageSource, pool: NDArray[np.int64]) -> int:
    """An image of the pool; where images are cut from photos, a photo first, then an image of it."""
    cut = cut_from(source)
    if cut is not None:
        pool = pool[cut[pool] == rng.choice(np.unique(cut[pool]))]
    return int(rng.choice(pool))


def draw_supports(
    rng: Generator, source: ImageSource, pool: NDArray[np.int64], query: int, shots: int, repeats: bool
) -> tuple[int, ...]:
    """Images of the pool, never the query (-1: there is none); where images are cut from photos, of other photos than
    the query's.
    """
    cut = cut_from(source)
    if cut is None:
        return tuple(rng.choice(pool[pool != query], shots, replace=repeats).tolist())
    others = pool if query < 0 else pool[cut[pool] != cut[query]]
    photos = rng.choice(np.unique(cut[others]), shots, replace=repeats)
    return tuple(int(rng.choice(others[cut[others] == photo])) for photo in photos)


def known_classes(source: ImageSource, image: int, classes: Iterable[int]) -> list[int]:
    """Those of the classes of which an image's labels tell whether it holds them."""
    known = labelled(source, image)
    return [c for c in classes if known is None or known[c]]


def count_photos(source: ImageSource, pool: NDArray[np.int64]) -> int:
    """How many photos the images of a pool are of."""
    cut = cut_from(source)
    return len(pool) if cut is None else len(np.unique(cut[pool]))


def specs_by(source: ImageSource, pools: Pools, shots: int, protocol: EvaluationProtocol, seed: int) -> SpecsOf:
    """The episodes of every query by its number, as the protocol draws them."""
    return (_with_fixed_supports if protocol.support == "fixed" else _each)(source, pools, shots, protocol, seed)
