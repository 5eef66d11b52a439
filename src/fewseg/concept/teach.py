"""`teach`: supports in, a concept out, with the setting that leave-one-out chose and what to expect of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewseg.concept.choosing import AS_IT_IS as UNCHOSEN
from fewseg.concept.choosing import (
    FOR_NEGATIVES,
    MOST_TRIED,
    THRESHOLDS,
    Counts,
    Way,
    best,
    counted,
    expected_of_one,
    expected_unseen,
    sureness,
)
from fewseg.concept.concept import Concept
from fewseg.concept.copies import copies
from fewseg.concept.finding import DETAIL, Found, against, encoded, found, methods_to_try, views
from fewseg.concept.presence import calibrated
from fewseg.concept.taught import MOST_EXAMPLES, Choice, Example, Expected, Taught, UsedModel, check_class_name
from fewseg.data.decoding import AS_IT_IS, PictureRule
from fewseg.data.masks import Label, check_one_value
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.linear import WITH
from fewseg.predictor import Picture, eight_bit, listed, pixels_of, read_support
from fewseg.progress import Silent
from fewseg.progress import counted as how_many
from fewseg.runtime.engine import Engine
from fewseg.storage.engines import open_engine

TILES = (1, 2)
"""Photos as a whole, and in so many parts along each side."""
MOST_NEGATIVES = 4
"""Photos without the class that may be matched as background."""
_COARSE = 4
"""One pixel in so many of a row and of a column tells how sure an answer is."""


def teach(
    images: Any = (),
    masks: Any = None,
    *,
    name: str | None = None,
    absent: Sequence[Picture] = (),
    label: Label | None = None,
    model: Any = None,
    former: Taught | None = None,
    keep_photos: bool = True,
    pictures: PictureRule | None = None,
    runtime: str | None = None,
    device: str | None = None,
    progress: Silent | None = None,
) -> Concept:
    """Learn a class from annotated photos, as `FewShotPredictor.set_support` takes them, and choose how to look for it.

    `name` is the class's. `absent` are photos without it; so are supports whose masks mark nothing. `label` is the
    value of the masks that is the object. `model` is what `FewShotPredictor` takes, by default `lite`, and so are
    `pictures`, `runtime` and `device`. `former` is a concept whose photos are learnt along, and whose name, model and
    pictures are taken where none are given; of a photo that it has already, the mask given now holds.
    Of a `former` that nothing is added to, a new `name` is all that changes. `keep_photos=False` keeps features alone:
    nobody sees the photos, and another model cannot take them. UsageError or DataError where photos or masks cannot be
    used, or none has the object.
    """
    asked = model is not None or label is not None or runtime is not None or device not in (None, "auto")
    as_it_was = not asked and keep_photos and pictures in (None, former and former.pictures)
    if former is not None and name not in (None, former.name) and as_it_was and not _any(images) and not absent:
        return Concept.of(replace(former, name=name))
    if former is not None and former.features:
        raise UsageError("that concept keeps no photos, so nothing can be added to it; teach a new one")
    if name is not None:
        check_class_name(name)
    rule = pictures or (former.pictures if former else AS_IT_IS)
    model = model or (former.model.name if former else "lite")
    engine = model if isinstance(model, Engine) else open_engine(model, runtime=runtime, device=device)
    side = DETAIL * engine.image_size
    images, masks = listed(name or "support", (images, masks)) if _any(images) else ([], [])
    number = count(1 + (len(former.supports) + len(former.absent) if former else 0))
    read = [
        _example(image, mask, next(number), label=label, rule=rule, side=side)
        for image, mask in zip(images, masks, strict=True)
    ]
    check_one_value(masks, (value for _, value in read))
    given = [example for example, _ in read]
    given += [_absent(image, next(number), rule=rule, side=side) for image in absent]
    _check_each_once(given)
    before = (*former.supports, *former.absent) if former else ()
    examples = _together(before, given)
    supports, without = [e for e in examples if e.marks], [e for e in examples if not e.marks]
    if not supports:
        told = f" ({read[0][0].name}: {read[0][0].meaning})" if read else ""
        raise NoObjectError(f"no photo has the object{told}: give at least one whose mask marks something")
    if len(examples) > MOST_EXAMPLES:
        raise UsageError(f"{len(examples)} photos were given; a concept takes {MOST_EXAMPLES}")
    used = UsedModel(engine.name, engine.weights, engine.image_size)
    lesson = Lesson(engine, supports, without, progress or Silent())
    choice, expectation, presence = lesson.chosen()
    features = {} if keep_photos else _features(engine, lesson.support(tiles=choice.tiles, negatives=choice.negatives))
    return Concept(
        name or (former.name if former else None),
        tuple(supports) if keep_photos else (),
        tuple(lesson.without) if keep_photos else (),
        used,
        choice,
        expectation,
        presence,
        rule,
        features,
    )


class NoObjectError(DataError):
    """None of the photos that teach has the object."""


class Lesson:
    """Supports and photos without the class, looked at in every way by leave-one-out."""

    def __init__(self, engine: Engine, supports: list[Example], without: list[Example], progress: Silent) -> None:
        self.engine, self.supports = engine, supports
        self._progress = progress
        ways = [Way(method, tiles) for tiles in TILES for method in methods_to_try(engine, len(supports))]
        # One of two is looked for by the other alone, where WITH is without its classifier: it is not tried at all.
        tried = ways if len(supports) > 2 else [way for way in ways if not way.method.endswith(WITH)]
        self.ways = tried if len(supports) > 1 and tried else ways[:1]
        """In which photos are looked at: one where nothing can be chosen, as of a single support."""
        self._encoded = {
            tiles: [encoded(engine, example, tiles) for example in supports] for tiles in {w.tiles for w in self.ways}
        }
        self.without = self._by_mistakes(without)
        """Those in which most is marked wrongly come first."""
        self._negatives = [encoded(engine, example) for example in self.without[:MOST_NEGATIVES]]

    def chosen(self) -> tuple[Choice, Expected, Any]:
        """The setting to take, what to expect of it, and the calibration of presence."""
        tried = self._tried()
        looks = self.looked_at(tried, self.ways, negatives=0)
        way, at, negatives = self.ways[0], UNCHOSEN, 0
        if len(self.ways) > 1:
            way, at = best({way: look.counts for way, look in looks.items()})
            if self._negatives:
                helped = self.looked_at(tried, [way], negatives=len(self._negatives))[way]
                if helped.counts.best[1] > looks[way].counts.best[1] + FOR_NEGATIVES:
                    looks[way], at, negatives = helped, helped.counts.best[0], len(self._negatives)
        choice = Choice(way.method, THRESHOLDS[at], way.tiles, negatives)
        look, marked = looks[way], np.array([example.marks for example, _ in tried])
        answers = [answer for answer, marks in zip(look.answers, marked, strict=True) if marks]
        sure = float(np.mean([sureness(answer.proba, choice.threshold) for answer in answers]))
        signs = np.array([answer.sign for answer in look.answers])
        if len(self.supports) > 1:
            told = expected_unseen({way: look.counts for way, look in looks.items()}, marked, choice, sure)
        else:
            right, union = look.counts.right[marked, at], look.counts.union[marked, at]
            told = expected_of_one(right / np.maximum(union, 1e-9), sure)
        return choice, told, calibrated(signs, marked)

    def support(self, *, out: Example | None = None, tiles: int, negatives: int) -> Any:
        """The supports but `out`, encoded for so many tiles, against so many photos without the class but `out`."""
        kept = [one for one, example in zip(self._encoded[tiles], self.supports, strict=True) if example is not out]
        pairs = zip(self._negatives[:negatives], self.without, strict=False)
        return against(self.engine, kept, [one for one, example in pairs if example is not out])

    def looked_at(
        self, tried: list[tuple[Example, Example | None]], ways: list[Way], *, negatives: int
    ) -> dict[Way, _Looks]:
        """What is found in the photos to try, in several ways."""
        answers: dict[Way, list[Found]] = {way: [] for way in ways}
        counts: dict[Way, list[NDArray[np.float64]]] = {way: [] for way in ways}
        title = "trying them against photos without it" if negatives else "trying the supports"
        for example, out in self._progress(tried, title, len(tried)):
            each = {way.tiles for way in ways}
            parts = {tiles: views(self.engine, example.photo, tiles) for tiles in each}
            support = {tiles: self.support(out=out, tiles=tiles, negatives=negatives) for tiles in each}
            for way in ways:
                answer = found(self.engine, parts[way.tiles], support[way.tiles], way.method)
                counts[way].append(counted(answer.proba, example.mask))
                answers[way].append(answer._replace(proba=answer.proba[::_COARSE, ::_COARSE].copy()))
        return {way: _Looks(Counts(*np.stack(counts[way], 1)), answers[way]) for way in ways}

    def _tried(self) -> list[tuple[Example, Example | None]]:
        """Photos to look at, with what is left out meanwhile: supports, then photos without the class. Of a single
        support its own copies.
        """
        some = [self.without[i] for i in _spread(len(self.without))]
        if len(self.supports) == 1:
            return [*((copy, None) for copy in copies(self.supports[0])), *((one, one) for one in some)]
        return [(one, one) for one in [*(self.supports[i] for i in _spread(len(self.supports))), *some]]

    def _by_mistakes(self, without: list[Example]) -> list[Example]:
        """Photos without the class, those first in which most is marked wrongly."""
        if len(without) < 2 or len(self.supports) == 1:
            return without
        everything = self.engine.joined(self._encoded[1])
        tried = [without[i] for i in _spread(len(without))]
        wrong = [
            float(
                (
                    found(self.engine, views(self.engine, one.photo, 1), everything, self.engine.method).proba > 0.5
                ).mean()
            )
            for one in tried
        ]
        first = [tried[i] for i in np.argsort(-np.array(wrong), kind="stable")]  # equal ones in their order
        return [*first, *(one for one in without if not any(one is other for other in first))]


class _Looks(NamedTuple):
    """What a way finds in the photos that were tried."""

    counts: Counts
    answers: list[Found]


def _example(
    image: Any, mask: Any, number: int, *, label: Label | None, rule: PictureRule, side: int
) -> tuple[Example, int | None]:
    """A support as it is kept, and the value of its object where the mask alone says it."""
    name = photo_name(image, number)
    what = str(mask) if isinstance(mask, str | os.PathLike) else f"the mask of {name}"
    photo, marking = read_support(image, mask, label=label, name=what, pictures=rule, may_be_empty=True)
    example = Example.of(eight_bit(photo), marking.mask, side=side, name=name, meaning=str(marking))
    if marking.share and not example.marks:
        raise DataError(
            f"{what} marks only {how_many((marking.mask == 1).sum(), 'pixel')}, which vanish at {side}; crop it closer"
        )
    return example, marking.value


def _absent(image: Picture, number: int, *, rule: PictureRule, side: int) -> Example:
    photo = eight_bit(pixels_of(image, rule))
    empty = np.zeros(photo.shape[:2], np.uint8)
    return Example.of(photo, empty, side=side, name=photo_name(image, number), meaning="without the class")


def _check_each_once(given: list[Example]) -> None:
    """UsageError for a photo that is given twice: it would be found by means of itself, and more be expected."""
    seen: dict[bytes, Example] = {}
    for example in given:
        if (other := seen.setdefault(example.jpeg, example)) is not example:
            again = "is given twice" if other.name == example.name else f"and {example.name} are the same photo"
            way = "one mask that marks all of the object" if other.marks and example.marks else "a mask or without one"
            raise UsageError(f"{other.name} {again}; give it once, with {way}")


def _same_photo(one: Example, other: Example) -> bool:
    """Whether two kept photos are of the same one; another version of Pillow may have written other bytes."""
    if one.jpeg == other.jpeg or one.photo.shape != other.photo.shape:
        return one.jpeg == other.jpeg
    return float(np.abs(one.photo.astype(np.float32) - other.photo).mean()) < 1


def _together(before: Sequence[Example], given: Sequence[Example]) -> list[Example]:
    """The photos of a concept and those given now, whose masks hold; of photos that it has, that is told."""
    known, new, replaced = list[str](), list[Example](), list[Example]()
    for example in given:
        theirs = [other for other in before if _same_photo(other, example)]
        if any(np.array_equal(example.mask, other.mask) for other in theirs):
            known.append(example.name)
        else:
            new.append(example)
            replaced += theirs
    if known:
        told = f"the concept has {', '.join(known)} already, with the same masks"
        warnings.warn(DataWarning(told), stacklevel=3)
    stay = [example for example in before if example not in replaced]
    if names := [example.name for example in before if example in replaced]:
        mended = "its mask is replaced by the one" if len(names) == 1 else "their masks are replaced by those"
        told = f"{', '.join(names)} in the concept: {mended} given now"
        warnings.warn(DataWarning(told), stacklevel=3)
    return [*stay, *new]


def photo_name(image: Any, number: int) -> str:
    """What a concept calls a photo: its file, or its number among those given, from 1."""
    return Path(image).name if isinstance(image, str | os.PathLike) else f"photo {number}"


def _any(images: Any) -> bool:
    return not isinstance(images, list | tuple) or bool(images)


def _features(engine: Engine, support: Any) -> dict[str, NDArray[Any]]:
    kept = engine.kept(support)
    return {name: value if value.dtype == np.uint8 else value.astype(np.float16) for name, value in kept.items()}


def _spread(length: int) -> list[int]:
    """At most `MOST_TRIED` of so many, evenly spread."""
    tried = min(length, MOST_TRIED)
    return [i * length // tried for i in range(tried)]
