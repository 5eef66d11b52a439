"""A contact sheet: images of a data set with their labels drawn in, for a look at what was read."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fewseg.data.captions import Caption, Word, sheet
from fewseg.data.images import class_color, overlay
from fewseg.data.source import ImageSource, mask_of


def contact_sheet(
    source: ImageSource, *, count: int = 24, columns: int = 6, cell: int = 200, seed: int = 0
) -> Image.Image:
    """A sheet of `count` images drawn at random, every class outlined in its colour and named below the image."""
    chosen = np.random.default_rng(seed).permutation(len(source.index.ids))[:count]
    return sheet([_drawn(source, int(i)) for i in chosen], columns=columns, cell=cell, text=12)


def _drawn(source: ImageSource, i: int) -> tuple[Image.Image, Caption]:
    image, labels = source.load(i)
    present = source.index.classes_in(i).tolist()
    for c in present:
        image = overlay(image, mask_of(source, i, c, labels), color=class_color(c))
    return image, [[Word(source.class_names[c - 1], class_color(c), keyed=True) for c in present]]
