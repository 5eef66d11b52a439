"""`Concept`: what was taught of a class, kept in a file, and found in photos."""

from __future__ import annotations

import os
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Self

from fewseg.concept.file import read, write
from fewseg.concept.finder import Finder
from fewseg.concept.taught import Taught
from fewseg.predictor import Picture, Result


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

    def segment(self, image: Picture) -> Result:
        """Mask, probability, presence and quality of one photo; its probabilities are such that 0.5 is the chosen
        threshold. The model is opened when it is first needed; `Finder` takes another, and several concepts at once.
        """
        found = self._finder.predict_full(image)
        return found if isinstance(found, Result) else found[self.title]

    @cached_property
    def _finder(self) -> Finder:
        return Finder([self])
