"""Steady masks in a video: the last frame, with what was sure in it, is a further support of small weight.

A pixel's probability is the mean of what the supports say and, with `WEIGHT`, what the last frame says. So the last
frame alone marks nothing: it decides where the supports are undecided. After a cut, and where the class was not found,
there is no last frame.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.decoding import PictureRule
from fewseg.labels import IGNORE, LEAST_FOUND, SURE
from fewseg.predictor import Result, eight_bit, nearest, pixels_of
from fewseg.runtime.engine import Engine, own_support
from fewseg.segment.planning import Job

WEIGHT = 0.4
"""Of what the last frame says. Below a half, so that it marks nothing alone."""
_METHOD = "dense"
"""The last frame shows the same object, little changed: to match features is enough, where the model offers it."""
_CUT = 24
"""Mean difference of grey levels, at 32 x 32 pixels, from which on two frames are of two scenes."""


class Predictor(Protocol):
    """What finds classes in a photo: a `FewShotPredictor` with its support, or a `Finder` of concepts."""

    names: tuple[str, ...] | None
    runtime: str
    pictures: PictureRule
    support_files: frozenset[Path]
    support_names: frozenset[str]
    support_side: int | None
    engine: Engine
    settings: dict[str, Any]

    def predict_each(self, image: Any, *, query: Any = None) -> dict[str, Result]: ...


class Steady:
    """Results of the frames of one video, in their order.

    A class that is there with less than the probability `presence` leaves no last frame.
    """

    def __init__(self, predictor: Predictor, *, presence: float = 0.5) -> None:
        self._predictor, self._presence = predictor, presence
        self._method = _METHOD if _METHOD in predictor.engine.methods else None
        self._last: dict[str, Any] = {}
        """Of each class the last frame, encoded as a support."""
        self._thumbnail: NDArray[np.float32] | None = None

    def predict_each(self, image: Any) -> dict[str, Result]:
        """The results of the next frame."""
        photo = eight_bit(pixels_of(image, self._predictor.pictures))
        if self._is_cut(photo):
            self._last = {}
        engine = self._predictor.engine
        query = engine.encode_query(photo)
        results = self._predictor.predict_each(photo, query=query)
        for name, support in self._last.items():
            again = engine.match(query, support, size=photo.shape[:2], method=self._method).proba
            proba = np.float32(1 - WEIGHT) * results[name].proba + np.float32(WEIGHT) * again
            results[name] = replace(results[name], proba=proba, mask=proba > 0.5)
        self._last = {}
        for name, result in results.items():
            if (mask := self._sure(result)) is not None:
                self._last[name] = own_support(engine, query, photo, mask)
        return results

    def _sure(self, result: Result) -> NDArray[np.uint8] | None:
        """What is sure in a frame, as a support's mask of the model's size; None where next to nothing is."""
        if result.presence is not None and result.presence < self._presence:
            return None
        mask = np.full(result.proba.shape, IGNORE, np.uint8)
        mask[result.proba > SURE], mask[result.proba < 1 - SURE] = 1, 0
        small = nearest(mask, self._predictor.engine.image_size)
        return small if (small == 1).mean() >= LEAST_FOUND else None

    def _is_cut(self, photo: NDArray[np.uint8]) -> bool:
        """Whether a frame is of another scene than the one before."""
        thumbnail = np.asarray(Image.fromarray(photo).convert("L").resize((32, 32), Image.Resampling.BOX), np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        return before is None or float(np.abs(thumbnail - before).mean()) > _CUT


class ByVideo:
    """What finds classes in a piece of work: if `on`, a `Steady` of its video for each frame; they come in order."""

    def __init__(self, predictor: Predictor, *, presence: float, on: bool) -> None:
        self.predictor, self._presence, self.on = predictor, presence, on
        self._now: tuple[Path, Steady] | None = None

    def __call__(self, piece: Job) -> Predictor | Steady:
        """For a piece that is looked at now."""
        if not self.on or not piece.is_video:
            return self.predictor
        if self._now is None or self._now[0] != piece.query:
            self._now = piece.query, Steady(self.predictor, presence=self._presence)
        return self._now[1]

    def passed_over(self) -> None:
        """A frame is not looked at: the next one begins anew."""
        self._now = None


def hinders(engine: Engine) -> str | None:
    """Why the frames of a video cannot be steadied with this model; None where they can."""
    if getattr(engine, "shots", None) not in (None, 1):
        return "the model takes a fixed number of supports"
    return "the model goes by the names of classes" if getattr(engine, "takes_classes", False) else None
