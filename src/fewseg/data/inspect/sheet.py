"""A contact sheet: images of a data set with their labels drawn in, for a look at what was read."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fewseg.data.images import class_color, overlay
from fewseg.data.source import ImageSource, mask_of

_TEXT = 16
"""Height in pixels of the line of class names below an image."""


def contact_sheet(
    source: ImageSource, *, count: int = 24, columns: int = 6, cell: int = 200, seed: int = 0
) -> Image.Image:
    """A sheet of `count` images drawn at random, every class outlined in its colour and named in it below the image."""
    chosen = np.random.default_rng(seed).permutation(len(source.index.ids))[:count]
    rows = -(-len(chosen) // columns)
    step = cell + _TEXT + 8
    sheet = Image.new("RGB", (columns * (cell + 8) + 8, rows * step + 8), "white")
    for n, i in enumerate(chosen):
        row, column = divmod(n, columns)
        _paste(sheet, source, int(i), corner=(8 + column * (cell + 8), 8 + row * step), cell=cell)
    return sheet


def _paste(sheet: Image.Image, source: ImageSource, i: int, *, corner: tuple[int, int], cell: int) -> None:
    image, labels = source.load(i)
    present = source.index.classes_in(i).tolist()
    for c in present:
        image = overlay(image, mask_of(source, i, c, labels), color=class_color(c))
    small = ImageOps.contain(image, (cell, cell))
    sheet.paste(small, (corner[0] + (cell - small.width) // 2, corner[1] + (cell - small.height) // 2))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 4)
    x = float(corner[0])
    for c in present:
        name = source.class_names[c - 1]
        if x + draw.textlength(name, font) > corner[0] + cell:
            break
        draw.text((x, corner[1] + cell + 2), name, fill=class_color(c), font=font)
        x += draw.textlength(f"{name}  ", font)
