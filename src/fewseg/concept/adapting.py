"""`teach --adapt`: a concept whose model was trained further on its supports, where that finds them better.

The supports are parted into folds; of each fold's photos the object is looked for by a model that was trained on the
others, with the others as supports. Training needs torch, and is imported by its name, as engines are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fewseg.concept.choosing import THRESHOLDS, Counts, Way, best, expected_unseen, sureness
from fewseg.concept.concept import Concept
from fewseg.concept.finding import Found
from fewseg.concept.presence import calibrated
from fewseg.concept.taught import Choice, Example, Expected, UsedModel
from fewseg.concept.teach import Lesson
from fewseg.errors import UsageError, missing_extra
from fewseg.progress import Silent
from fewseg.runtime.engine import Engine
from fewseg.storage.engines import open_engine

FOLDS = LEAST = 3
"""Parts of the supports; two photos must be left to train on."""
WORTH = 0.02
"""By how much the supports must be found better: an adapted model needs torch, a folder of its own and its time."""


@dataclass(frozen=True)
class Adapted:
    """What adapting came to."""

    concept: Concept
    """The adapted one if that is better, else the one that was given."""
    before: Expected
    after: Expected

    @property
    def better(self) -> bool:
        """Whether the adapted model was taken."""
        return _better(self.before, self.after)


def adapted(concept: Concept, folder: Path, *, device: str | None = None, progress: Silent | None = None) -> Adapted:
    """Train the shipped model further on a concept's supports, saved in `folder` if leave-one-out says it is better.

    UsageError where fewer than `LEAST` supports are there, the concept was taught with another model than `lite`, or
    what trains is not installed.
    """
    supports, progress = list(concept.supports), progress or Silent()
    if len(supports) < LEAST:
        raise UsageError(f"adapting needs {LEAST} supports or more with their photos; there are {len(supports)}")
    if concept.model.name != "lite":
        raise UsageError(f"--adapt trains the shipped lite further, and {concept.model.name} was taught; leave it out")
    adapt = trainer()
    looks: dict[Way, list[tuple[Example, Any, Found]]] = {}
    folds, order = min(FOLDS, len(supports)), list[int]()
    with TemporaryDirectory(prefix="fewseg-adapt-") as work:
        for number in range(folds):
            progress.log(f"trained on some supports, tried on the others: {number + 1} of {folds}")
            held, others = supports[number::folds], [s for i, s in enumerate(supports) if i % folds != number]
            engine = _engine(adapt, others, Path(work) / f"fold{number}", device, progress)
            lesson = Lesson(engine, others, [], progress)
            order += range(number, len(supports), folds)
            tried = [*held, *(concept.absent if number == 0 else ())]
            for way, look in lesson.looked_at([(one, None) for one in tried], lesson.ways, negatives=0).items():
                pairs = zip(look.counts.right, look.counts.union, strict=True)
                looks.setdefault(way, []).extend(zip(tried, pairs, look.answers, strict=True))
    choice, after, presence = _chosen(looks)
    places = [order.index(i) for i in range(len(supports))]
    of_each = {name: getattr(after, name) for name in ("each", "by_choice", "settings")}
    after = replace(after, **{name: tuple(values[i] for i in places) for name, values in of_each.items()})
    if not _better(concept.expected, after):
        return Adapted(concept, concept.expected, after)
    progress.log("found better: trained on all supports")
    engine = _engine(adapt, supports, folder, device, progress)
    used = UsedModel(engine.name, engine.weights, engine.image_size)
    taken = replace(concept, model=used, choice=choice, expected=after, presence=presence)
    return Adapted(taken, concept.expected, after)


def _chosen(looks: dict[Way, list[tuple[Example, Any, Found]]]) -> tuple[Choice, Expected, Any]:
    counts = {way: Counts(*np.stack([pair for _, pair, _ in found], 1)) for way, found in looks.items()}
    way, at = best(counts)
    marked = np.array([example.marks for example, *_ in looks[way]])
    choice = Choice(way.method, THRESHOLDS[at], way.tiles)
    answers = [answer for *_, answer in looks[way]]
    sure = [sureness(answer.proba, choice.threshold) for answer, marks in zip(answers, marked, strict=True) if marks]
    told = expected_unseen(counts, marked, choice, float(np.mean(sure)))
    signs = np.array([answer.sign for answer in answers])
    return choice, told, calibrated(signs, marked)


def _better(before: Expected, after: Expected) -> bool:
    return after.iou > before.iou + WORTH


def _engine(
    adapt: Callable[..., Path], examples: Sequence[Example], folder: Path, device: str | None, progress: Silent
) -> Engine:
    """The model trained on the examples, ready."""
    pairs = [(example.photo, example.mask) for example in examples]
    return open_engine(adapt(pairs, folder, progress=progress), device=device)


def trainer() -> Callable[..., Path]:
    """What trains; UsageError that says what to install where that is missing."""
    try:
        return import_module("fewseg.training.adapt").adapt
    except ModuleNotFoundError as error:
        if told := missing_extra(error):
            raise told from error
        raise
