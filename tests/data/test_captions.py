"""Words on pictures are wrapped, never cut."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fewseg.data.captions import Word, sheet, with_legend, words

LONG = "a_name_without_any_space_that_is_far_longer_than_the_picture_is_wide"


def ink(image: Image.Image) -> int:
    """Pixels that are not white."""
    return int((np.asarray(image.convert("L")) < 128).sum())


def test_a_legend_grows_downwards_until_every_name_fits():
    photo = Image.new("RGB", (120, 90), "white")
    short, long, wide = (
        with_legend(image, [(name, (230, 57, 70)), ("b", (0, 119, 187))])
        for image, name in ((photo, "a"), (photo, LONG), (Image.new("RGB", (1200, 90), "white"), LONG))
    )
    assert short.width == long.width == 120
    assert long.height > short.height > 90
    assert wide.height < long.height
    assert abs(ink(long) - ink(wide)) < 0.1 * ink(wide), "no letter is lost"


def test_a_sheet_s_captions_are_whole():
    photo = Image.new("RGB", (50, 40), "white")
    captions = [[words(f"{LONG} and more"), [Word(f"class {n}", (0, 153, 136), keyed=True) for n in range(30)]], [[]]]
    narrow, wide = (
        sheet([(photo, caption) for caption in captions], columns=2, cell=cell, head=[words(LONG)])
        for cell in (100, 900)
    )
    assert narrow.width < 250
    assert abs(ink(narrow) - ink(wide)) < 0.1 * ink(wide)
