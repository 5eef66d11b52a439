"""Steady masks in a video: the last frame, with what was sure in it, is a further support of small weight.

A pixel's probability is the mean of what the supports say and, with `WEIGHT`, what the last frame says. So the last
frame alone marks nothing: it decides where the supports are undecided. After a cut, and where the class was not found,
there is no last frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.concept.finding import eight_bit
from fewseg.labels import IGNORE, LEAST_FOUND, SURE
from fewseg.predictor import Result, nearest, pixels_of

if TYPE_CHECKING:
    from fewseg.segment.run import Predictor

WEIGHT = 0.35
"""Of what the last frame says. Below a half, so that it marks nothing alone."""
_CUT = 24
"""Mean difference of grey levels, at 32 x 32 pixels, from which on two frames are of two scenes."""


class Steady:
    """A predictor for the frames of one video, in their order; see `Predictor`.

    A class that is there with less than the probability `presence` leaves no last frame.
    """

    def __init__(self, predictor: Predictor, *, presence: float = 0.5) -> None:
        self._predictor, self._presence = predictor, presence
        self._last: dict[str, Any] = {}
        """Of each class the last frame, encoded as a support."""
        self._thumbnail: NDArray[np.float32] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def predict_each(self, image: Any) -> dict[str, Result]:
        """The results of the next frame."""
        photo = eight_bit(pixels_of(image, self._predictor.pictures))
        if self._is_cut(photo):
            self._last = {}
        results = self._predictor.predict_each(photo)
        engine = self._predictor.engine
        if self._last:
            query = engine.encode_query(photo)
            for name, support in self._last.items():
                again = engine.match(query, support, size=photo.shape[:2]).proba
                proba = (1 - WEIGHT) * results[name].proba + np.float32(WEIGHT) * again
                results[name] = replace(results[name], proba=proba, mask=proba > 0.5)
        sure = {name: self._sure(result) for name, result in results.items()}
        self._last = {n: engine.encode_support([(photo, mask)]) for n, mask in sure.items() if mask is not None}
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
