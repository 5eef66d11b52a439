"""`Concept`: what was taught of a class, kept in a file, and found in photos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Self

from fewseg.concept.file import read, write
from fewseg.concept.finder import Finder
from fewseg.concept.taught import Taught
from fewseg.predictor import Picture, Result, only
from fewseg.runtime.lanes import side_by_side


class Concept(Taught):
    """What was taught of one class: `fewseg.teach(...)` makes one, `load` reads it, `segment` finds it in a photo."""

    @classmethod
    def of(cls, taught: Taught) -> Self:
        """A concept of what was taught."""
        return cls(**{field.name: getattr(taught, field.name) for field in fields(taught)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a concept's file; DataError where it is none, is damaged, or was written by a newer fewseg."""
        return cls.of(read(Path(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all."""
        write(Path(path), self)

    def segment(self, image: Picture, *, threshold: float | None = None) -> Result:
        """Mask, probability, presence and quality of one photo; its probabilities are such that 0.5 is the threshold:
        the chosen one, unless another is given. The model is opened when it is first needed; `Finder` takes another,
        and several concepts at once.
        """
        return only(self._finder.predict_each(image, threshold=threshold))

    def segment_all(self, images: Iterable[Picture], *, threshold: float | None = None) -> Iterator[Result]:
        """The results of many photos, in their order, as they come; several at a time where that is quicker."""
        lanes = self._finder.engine.lanes
        return side_by_side(partial(self.segment, threshold=threshold), images, lanes=lanes)

    @cached_property
    def _finder(self) -> Finder:
        return Finder([self])
