"""`Finder`: concepts on photos, with the interface of `FewShotPredictor`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.concept.choosing import sureness
from fewseg.concept.finding import (
    Found,
    found,
    methods_to_try,
    moved,
    probability,
    surest,
    taught_supports,
    views,
)
from fewseg.concept.taught import Taught
from fewseg.data.decoding import PictureRule
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.labels import MOST_CLASSES
from fewseg.linear import FINEST
from fewseg.predictor import Picture, Result, eight_bit, pixels_of
from fewseg.runtime.engine import Engine
from fewseg.storage.engines import open_engine
from fewseg.storage.shipped import shipped_models


class Finder:
    """Finds the classes of concepts in photos, each as its concept chose.

    `model` is what `FewShotPredictor` takes, or None for the one that was taught, if it comes with fewseg; so are
    `runtime`, `device` and `provider`. `threshold` and `pictures` override the concepts'. UsageError where concepts of
    one name, of several models or of several rules for pictures come together; DataError where a concept of features
    alone was taught with other weights.
    """

    def __init__(
        self,
        concepts: Sequence[Taught],
        model: Any = None,
        *,
        runtime: str | None = None,
        device: str | None = None,
        provider: str | None = None,
        threshold: float | None = None,
        pictures: PictureRule | None = None,
    ) -> None:
        self._concepts = list(concepts)
        self.names = _names(self._concepts)
        """Names of the classes, in order; None for one class without a name."""
        self.pictures = pictures or _same(
            [c.pictures for c in concepts], "rules for pictures", "--range, --bands, --page"
        )
        how: dict[str, Any] = {"runtime": runtime, "device": device, "provider": provider}
        taken = model or self._taught_model()
        self.engine: Engine = taken if isinstance(taken, Engine) else open_engine(taken, **how)
        self.runtime = self.engine.runtime
        calibrated = any(concept.presence is not None for concept in concepts)
        self.tells_presence = self.engine.tells_presence or calibrated
        """Whether presence is told: by the model, or by photos without a concept's class."""
        self.support_files: frozenset[Path] = frozenset()
        """Files that must not be overwritten."""
        self.support_names = frozenset(example.name for concept in concepts for example in concept.supports)
        """File names of the photos that taught."""
        sides = [example.side for concept in concepts for example in concept.supports if example.side]
        self.support_side = round(float(np.median(sides))) if sides else None
        """The longer side of the supports' photos as they were given, in pixels: their median."""
        self.thresholds = tuple(c.choice.threshold if threshold is None else threshold for c in self._concepts)
        """The threshold of each class, by which its results' probabilities are moved to 0.5."""
        choices = [replace(c.choice, threshold=t) for c, t in zip(self._concepts, self.thresholds, strict=True)]
        self.settings: dict[str, Any] = {"method": "; ".join(map(str, choices)), "threshold": None}
        """How the classes are looked for. Results' probabilities are moved, so that 0.5 is no setting."""
        self._supports = [self._support(concept) for concept in self._concepts]

    def predict_each(self, image: Picture, *, threshold: float | None = None, query: Any = None) -> dict[str, Result]:
        """Mask, probability, presence and quality of every class by its name; see `Concept.segment`. `query` is the
        photo as the engine encoded it, where that was done.
        """
        photo = eight_bit(pixels_of(image, self.pictures))
        parts = {tiles: views(self.engine, photo, tiles, query) for tiles in {c.choice.tiles for c in self._concepts}}
        each = zip(self._concepts, self._supports, self.thresholds, strict=True)
        results = [
            _result(
                found(self.engine, parts[c.choice.tiles], support, c.choice.method),
                c,
                own if threshold is None else threshold,
            )
            for c, support, own in each
        ]
        return {c.title: result for c, result in zip(self._concepts, results, strict=True)}

    def _taught_model(self) -> str:
        name = _same([c.model.name for c in self._concepts], "models", "--model")
        if name not in shipped_models():
            raise UsageError(f"the concept was taught with the model {name}; give it: --model DIR (model= in Python)")
        return name

    def _support(self, concept: Taught) -> Any:
        """A concept's supports, encoded."""
        weights = self.engine.weights
        self._check_method(concept)
        if concept.features:
            if weights != concept.model.sha256:
                raise DataError(
                    f"{concept.title} keeps features of another model ({concept.model.name}) and no photos: take the "
                    "model that was taught, or teach it anew of its photos"
                )
            return restored(self.engine, concept.features)
        if weights != concept.model.sha256:
            told = f"{concept.title} was taught with other weights ({concept.model.name}): what it expects may not hold"
            anew = "fewseg teach --concept FILE --model THIS_MODEL chooses anew"
            warnings.warn(DataWarning(f"{told}; {anew}"), stacklevel=3)
        return taught_supports(self.engine, concept)

    def _check_method(self, concept: Taught) -> None:
        """UsageError where the concept's method is not that of the engine, or none that it has."""
        own, asked, wanted = self.engine.methods[0], self.engine.method, concept.choice.method
        if asked == own and wanted in self.engine.methods:
            return
        if wanted in (asked, *methods_to_try(self.engine, concept.shots)):
            return
        told = f"{concept.title} is looked for by {wanted}"
        anew = "choose anew how it is looked for: fewseg teach --concept FILE --model"
        if wanted in self.engine.methods:
            raise UsageError(
                f"{told}, and --model {asked} runs here, which looks by {asked} alone: leave out --model {asked} (of "
                f"fewseg serve, too, started anew), or {anew} {asked}"
            )
        raise UsageError(
            f"{told}, which the model that runs here, {self.engine.name}, does not offer: take the one that was "
            f"taught, {concept.model.name}, or {anew} MODEL, with what runs here"
        )


def restored(engine: Engine, features: dict[str, NDArray[Any]]) -> Any:
    """Encoded supports of what a concept kept; DataError where they are not such as this model's."""
    side = engine.image_size
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 1
    like = engine.kept(engine.encode_support([(np.zeros((side, side, 3), np.uint8), mask)]))
    if FINEST not in features:  # kept before there was the classifier; other methods do without
        like.pop(FINEST, None)
    if _form(like) != _form(features) or len({value.shape[1] for value in features.values()}) != 1:
        raise DataError("what the concept keeps are no features of this model; teach it anew")
    return engine.restored({name: features[name].astype(value.dtype) for name, value in like.items()})


def _form(features: dict[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape[2:] for name, value in features.items()}


def _result(answer: Found, concept: Taught, threshold: float) -> Result:
    sure = sureness(answer.proba, threshold)
    proba = moved(answer.proba, threshold)
    presence = answer.told if concept.presence is None else probability(concept.presence, answer.sign)
    mask = proba > 0.5
    if mask.any():
        quality = min(concept.expected.iou * sure / max(concept.expected.sureness, 1e-3), 1.0)
    else:  # it is right if nothing is there
        quality = 1 - (surest(proba) if presence is None else presence)
    return Result(mask, proba, (), presence, quality)


def _names(concepts: list[Taught]) -> tuple[str, ...] | None:
    if not 1 <= len(concepts) <= MOST_CLASSES:
        raise UsageError(f"{len(concepts)} concepts were given; give 1 to {MOST_CLASSES}")
    names = tuple(concept.title for concept in concepts)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"two concepts have the name {twice}; call one otherwise: fewseg teach --concept FILE --class NAME --out "
            "OTHER.concept"
        )
    return None if len(concepts) == 1 and concepts[0].name is None else names


def _same(values: Sequence[Any], what: str, option: str) -> Any:
    if any(value != values[0] for value in values):
        told = " and ".join(dict.fromkeys(map(str, values)))
        raise UsageError(f"the concepts were taught with several {what} ({told}); run them apart, or give {option}")
    return values[0]
