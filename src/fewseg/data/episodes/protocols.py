"""Evaluation protocols as records: which episodes are drawn, at which size they are seen, and how they are scored.

`fewseg` is the sound one, `whole` the same with every (image, class) pair as query once. `hdmnet`, `bam`, `pfenet` and
`hsnet` are the papers' rules, with their faults, which docs/protocols.md names; `patnet` and `matcher` are those of
papers on other data sets, whose code is built on HSNet's.
`NAME-cropped` is NAME without the fault of its padding. `NAME-generalised` is BAM's generalised few-shot evaluation at
NAME's sizes, `NAME-all-generalised` the same of all novel classes at once. The released code draws other episodes with
another number of workers: its rules can be reproduced, its episodes cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fewseg.errors import UsageError, check_choice

ABSENT = "+absent"
"""In a protocol's name, before the share of queries without the class."""
WAYS = "way"
"""In a protocol's name, after + and the number of classes in one map."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """One protocol, for one data set; printed beside every number that it led to. The defaults are HDMNet's rules."""

    name: str
    episodes: int | None
    """Queries per repeat, each an episode if nothing else is said; None: as many as there are (image, class) pairs."""
    seeds: tuple[int, ...]
    """One per repeat."""
    query: str = "in_order"
    """`stratified`: classes in rounds, shuffled, each class's images in turn, shuffled; `in_order`: the listed images
    in order, cycled; `pairs`: (image, class) pairs in order, cycled; `pairs_shuffled`: the same
    in shuffled laps; `uniform`: a class, then an image of it; `turns`: the classes in turn, then an image of it;
    `all_in_order`, `all_shuffled`: every test image that holds any class, in order or in shuffled laps."""
    query_class: str = "any_pixel"
    """`eligible`: of at least the data set's min_pixels in the query; `any_pixel` (in_order): any of the fold there;
    `any_novel` (all_*): one of the query's novel classes if it holds no base class, else any of the fold's."""
    support: str = "without_repeats"
    """`without_repeats` or `with_repeats`: of at least min_pixels; `any_pixel`: without repeats, of a pixel or more.
    Never the query. `fixed`: without repeats, of at least min_pixels, the same for every query, none of which is a
    support."""
    listed: str = "min_pixels"
    """Which images count for a class where min_pixels is asked for. `coarse`: those in which more than two of the label
    map's every 32nd pixels, along both sides, are the class's."""
    input_size: int | None = None
    """Side of the model's input in pixels; None is the model's own."""
    resize: str = "squeeze"
    """`squeeze` to the square, or `pad`: the long side to input_size, then padded right and below."""
    antialias: bool = False
    """Whether images are low-pass filtered when they are made smaller."""
    scored_at: str = "original"
    """`original`: the query's own size; `cropped`: the same, the padding cut off before; `input`: the model's;
    `padded_square`: a square of the query's long side."""
    labels: str = "class"
    """`class`: the episode's class against all else; `all`: base classes and the episode's class in one map."""
    undrawn: str = "zero"
    """What a novel class without episodes is in the mean: `zero`, an IoU of 0, or `left out`."""
    base_without_truth: str = "left out"
    """The same for base classes that no query holds: `left out` of the base learner's mean, or `zero`."""
    query_void: str = "left out"
    support_void: str = "background"
    novel_in_training: str = "drop"
    """What the method's own training does with images that hold novel classes; for the record."""
    absent: float = 0.0
    """Share of the episodes whose query does not hold the class."""
    supports: str = "mask"
    """`mask`, or what is made from it: `box`, `scribble`, `point` (`fewseg.data.weak_supports`)."""
    references: int = 1
    """Draws of supports for every query, each an episode of its own."""
    ways: int = 1
    """Classes that are looked for in every query at once, each with its supports, and scored in one map; 0: every novel
    class."""

    def as_dict(self) -> dict[str, Any]:
        """All fields, JSON-able; the last four only where they are not as published protocols have them."""
        told = asdict(self) | {"seeds": list(self.seeds), "repeats": len(self.seeds)}
        usual = {"absent": 0.0, "supports": "mask", "references": 1, "ways": 1}
        return {key: value for key, value in told.items() if key not in usual or value != usual[key]}

    def varied(
        self, *, absent: float = 0.0, supports: str = "mask", references: int = 1, ways: int = 1
    ) -> EvaluationProtocol:
        """The protocol with a share of queries without the class, with weak supports, with several draws of supports
        for every query, and with several classes at once; its name tells of them.

        UsageError for a share that is none, and for a protocol that labels all classes.
        """
        check_choice("supports", supports, CHOICES["supports"])
        if not 0 <= absent < 1:
            raise UsageError(f"absent={absent} is a share of the episodes; give 0 up to (not with) 1")
        if references < 1:
            raise UsageError(f"references={references} draws of supports a query; give 1 or more")
        if ways < 1 or (ways > 1 and (absent or references > 1)):
            raise UsageError(
                f"ways={ways}: give 1 or more classes a query; above 1 neither absent classes (a query lacks some in "
                "any case) nor several references are drawn"
            )
        told = {
            f"{ABSENT}{absent:g}": absent,
            f"+{supports}": supports != "mask",
            f"+{references}references": references > 1,
            f"+{ways}{WAYS}": ways > 1,
        }
        if any(told.values()) and self.labels == "all":
            raise UsageError(
                f"protocol {self.name} takes neither absent classes, weak supports, several references "
                "nor ways; choose another"
            )
        name = self.name + "".join(part for part, holds in told.items() if holds)
        return replace(self, name=name, absent=absent, supports=supports, references=references, ways=ways)

    def scored(self, classes: Sequence[int], drawn: Iterable[int]) -> tuple[int, ...]:
        """The classes that a mean is over: all of them, or only the drawn ones."""
        return tuple(classes) if self.undrawn == "zero" else tuple(c for c in classes if c in set(drawn))


PROTOCOLS = (
    "fewseg",
    "whole",
    "hdmnet",
    "bam",
    "pfenet",
    "hsnet",
    "patnet",
    "matcher",
    "bam-cropped",
    "pfenet-cropped",
    "fewseg-generalised",
    "fewseg-all-generalised",
    "bam-generalised",
)

CHOICES: dict[str, tuple[str, ...]] = {
    "query": (
        *("stratified", "in_order", "pairs", "pairs_shuffled", "uniform", "turns"),
        *("all_in_order", "all_shuffled"),
    ),
    "query_class": ("eligible", "any_pixel", "any_novel"),
    "support": ("without_repeats", "with_repeats", "any_pixel", "fixed"),
    "listed": ("min_pixels", "coarse"),
    "resize": ("squeeze", "pad"),
    "scored_at": ("original", "cropped", "input", "padded_square"),
    "labels": ("class", "all"),
    "undrawn": ("zero", "left out"),
    "base_without_truth": ("left out", "zero"),
    "supports": ("mask", "box", "scribble", "point"),
}
"""What the fields of words may be."""

_SIDES = {"patnet": 400, "matcher": 518}
"""Input sizes of the protocols that are HSNet's but for what `_DRAWN` says."""
_TURNS: dict[str, Any] = {"query": "turns", "episodes": 600}
_EVERY_IMAGE: dict[str, Any] = {"query": "pairs", "episodes": 2400}
_DRAWN: dict[str, dict[str, dict[str, Any]]] = {
    "patnet": {
        "deepglobe": _TURNS,
        "isic2018": _TURNS,
        "chest_xray": _TURNS,
        "fss1000": _EVERY_IMAGE,
        "suim": {"query": "turns", "episodes": 3859},
    },
    "matcher": {
        "lvis92i": {"query": "turns", "episodes": 2300},
        "pascal_part": {"query": "turns", "episodes": 2500, "support": "without_repeats"},
        "paco_part": {"query": "uniform", "episodes": 2500},
        "fss1000": _EVERY_IMAGE,
    },
}
"""What their code draws on the data sets that the papers report, where it is not what HSNet's draws on PASCAL."""


def get_protocol(name: str, *, dataset: str) -> EvaluationProtocol:
    """The protocol of that name for a data set (the papers' differ between COCO-20i and everything else)."""
    check_choice("protocol", name, PROTOCOLS)
    paper, _, variant = name.partition("-")
    protocol = _paper(paper, dataset)
    if variant == "cropped":
        return replace(protocol, name=name, scored_at="cropped")
    if is_generalised(name):
        order = "all_shuffled" if paper == "fewseg" else "all_in_order"
        without = protocol.undrawn
        rules: dict[str, Any] = {"query_class": "any_novel", "support": "any_pixel", "labels": "all"}
        if variant.startswith("all-"):
            rules |= {"support": "fixed", "ways": 0}
        return replace(protocol, name=name, query=order, base_without_truth=without, **rules)
    return protocol


def may_lack(name: str) -> bool:
    """Whether queries of a protocol of that name may lack the episode's class."""
    return is_generalised(name) or ABSENT in name or ways_of(name) > 1


def ways_of(name: str) -> int:
    """How many classes at once a protocol of that name looks for; 1 of a generalised one."""
    found = re.search(rf"\+(\d+){WAYS}$", name)
    return int(found[1]) if found else 1


def is_generalised(name: str) -> bool:
    """Whether a protocol of that name is a generalised one, whose queries may lack the episode's class."""
    return name.endswith("-generalised")


def _paper(name: str, dataset: str) -> EvaluationProtocol:
    coco = dataset == "coco20i"
    # PFENet's and BAM's: the picture is padded to the square and scored with the padding
    padded: dict[str, Any] = {"input_size": 641 if coco else 473, "resize": "pad", "scored_at": "padded_square"}
    match name:
        case "hdmnet":
            return EvaluationProtocol(name, 10000 if coco else 1000, paper_seeds(10), input_size=633 if coco else 473)
        case "bam":
            return EvaluationProtocol(name, 1000, paper_seeds(5), **padded)
        case "pfenet":
            # one more than the paper says: the released code stops one episode late
            return EvaluationProtocol(name, 20001 if coco else 5001, (321,), novel_in_training="background", **padded)
        case "hsnet":
            return EvaluationProtocol(
                name,
                1000,
                (0,),
                query="uniform" if coco else "pairs",
                query_class="eligible",
                support="with_repeats",
                listed="coarse" if dataset == "pascal5i" else "min_pixels",
                input_size=400,
                antialias=True,
                scored_at="input",
                novel_in_training="background",
            )
        case "patnet" | "matcher":
            rules = _DRAWN[name].get(dataset, {})
            return replace(_paper("hsnet", dataset), name=name, input_size=_SIDES[name], **rules)
    whole = name == "whole"
    rules: dict[str, Any] = {
        "query": "pairs_shuffled" if whole else "stratified",
        "query_class": "eligible",
        "undrawn": "left out",
    }
    return EvaluationProtocol(name, None if whole else 1000, tuple(range(5)), **rules)


def paper_seeds(repeats: int) -> tuple[int, ...]:
    """The seeds that BAM and HDMNet evaluate with: integers in [0, 999] drawn by NumPy's legacy generator, seed 123."""
    return tuple(np.random.RandomState(123).randint(0, 1000, repeats).tolist())
