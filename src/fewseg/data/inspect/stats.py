"""How many images every fold has under each rule, by class."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewseg.data.episodes.sampling import training_images
from fewseg.data.source import Fold, ImageSource
from fewseg.errors import UsageError


def fold_statistics(train: ImageSource, test: ImageSource) -> list[dict[str, Any]]:
    """Per fold the images to train on under each rule and to test on, in all and by class; JSON-able.

    An image counts for a class from the data set's `min_pixels` on. A class's `train_*` are the images to train on that
    hold it (0 for unseen classes), its `test` the test images; the fold's own `test` is of its novel classes only.
    """
    return [_statistics(train, test, train.fold(i)) for i in all_folds(train)]


def all_folds(source: ImageSource) -> list[int]:
    """The numbers of a source's folds."""
    count = 0
    try:
        while source.fold(count):
            count += 1
    except UsageError:
        if not count:
            raise
    return list(range(count))


def _statistics(train: ImageSource, test: ImageSource, fold: Fold) -> dict[str, Any]:
    kept = {rule: training_images(train, fold, novel=rule) for rule in ("drop", "background")}
    enough = train.index.counts >= train.min_pixels
    tested = test.index.counts >= test.min_pixels
    classes = {
        name: {
            "role": "base" if c in fold.base else "novel" if c in fold.novel else "held out",
            **{f"train_{rule}": int(enough[images, c].sum()) * (c in fold.base) for rule, images in kept.items()},
            "test": int(tested[:, c].sum()),
        }
        for c, name in enumerate(train.class_names, 1)
    }
    return {
        "fold": fold.index,
        **{f"train_{rule}": len(images) for rule, images in kept.items()},
        "test": int(np.count_nonzero(tested[:, list(fold.novel)].any(axis=1))),
        "classes": classes,
    }
