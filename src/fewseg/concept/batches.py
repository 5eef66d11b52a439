"""Concepts on batches of photos, for engines that share work out: Ray Data, Dask, Spark take the same callable."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.concept.concept import Concept
from fewseg.concept.finder import Finder
from fewseg.concept.taught import Taught
from fewseg.data.images import mask_picture, read_image
from fewseg.data.winners import label_map
from fewseg.errors import DataError, UsageError
from fewseg.predictor import told_of_all

Concepts = str | os.PathLike[str] | Taught


class BatchSegmenter:
    """`segmenter(batch)`: the batch with masks. It can be pickled; the model is opened where it is first called.

    `concepts` are one or several, or their files, which are read here: workers need none. A batch is a mapping of
    columns; `column` holds photos as paths, as encoded bytes, or as arrays (H, W, 3) uint8. New columns: `mask`, the
    PNG that `fewseg segment` would write, byte by byte; `presence` and `expected_iou`, (N, classes), NaN where not
    told; and `error`, why a photo has no mask (b""), else "". Options are those of `segment_folder` and of `Finder`.
    """

    def __init__(
        self,
        concepts: Concepts | Sequence[Concepts],
        model: Any = None,
        *,
        column: str = "image",
        presence: float = 0.5,
        min_area: int = 0,
        **how: Any,
    ) -> None:
        listed = [concepts] if isinstance(concepts, str | os.PathLike | Taught) else list(concepts)
        self.concepts = [c if isinstance(c, Taught) else Concept.load(c) for c in listed]
        self.model, self.column, self.presence, self.min_area, self.how = model, column, presence, min_area, how
        self._finder: Finder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_finder": None}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with the new columns; UsageError where it has no such column."""
        if self.column not in batch:
            raise UsageError(f"the batch has no column {self.column!r}; it has {', '.join(map(str, batch))}")
        self._finder = self._finder or Finder(self.concepts, self.model, **self.how)
        rows = [self._row(self._finder, photo) for photo in batch[self.column]]
        masks = np.empty(len(rows), object)
        masks[:] = [mask for mask, _, _ in rows]
        told = np.array([told for _, told, _ in rows], np.float32).reshape(len(rows), 2, len(self.concepts))
        errors = np.array([error for _, _, error in rows], object)
        return {**batch, "mask": masks, "presence": told[:, 0], "expected_iou": told[:, 1], "error": errors}

    def _row(self, finder: Finder, photo: Any) -> tuple[bytes, NDArray[np.float32], str]:
        unknown = np.full((2, len(self.concepts)), np.nan, np.float32)
        try:
            results = list(finder.predict_each(_picture(photo, finder)).values())
        except (DataError, UsageError) as error:
            return b"", unknown, str(error)
        labels = label_map((r.proba_if(self.presence) for r in results), min_area=self.min_area)
        png = io.BytesIO()
        mask_picture(labels, several=len(results) > 1).save(png, "PNG")
        told = [(presence, quality) for presence, quality, _ in told_of_all(results, labels)]
        return png.getvalue(), np.array(told, np.float32).T, ""


def _picture(photo: Any, finder: Finder) -> Any:
    if isinstance(photo, bytes | memoryview):
        return read_image(io.BytesIO(photo), finder.pictures)
    if isinstance(photo, str | Path):
        return read_image(photo, finder.pictures)
    return photo if isinstance(photo, Image.Image) else np.asarray(photo)
