"""Label maps that people saved again, however their programs do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.data.images import label_colors
from fewseg.errors import DataError
from fewseg.segment.corrected import saved_again

NAMES = tuple("abcdefgh")
LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:9, 3:12], LABELS[10:18, 15:28] = 1, 8  # the eighth colour is a grey
RGB = label_colors()[LABELS]


def palette(indices: np.ndarray, colors: list[list[int]]) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8)).convert("L")
    picture.putpalette([channel for color in colors for channel in color])
    return picture


def read(path: Path, picture: Image.Image) -> np.ndarray:
    picture.save(path / "m.png")
    return saved_again(path / "m.png", NAMES)


def test_colours_say_the_classes_whatever_the_order_of_a_palette(tmp_path: Path) -> None:
    red, grey = label_colors()[1].tolist(), label_colors()[8].tolist()
    for picture, expected in (
        (Image.fromarray(RGB), LABELS),
        (palette(np.select([LABELS == 1, LABELS == 8], [2, 0], 1), [grey, [0, 0, 0], red]), LABELS),
        (palette((LABELS == 1) + 1, [red, [0, 0, 0], red]), LABELS * (LABELS == 1)),
        (palette(LABELS == 0, [grey, [0, 0, 0]]), np.where(LABELS, 8, 0)),
        (palette(np.ones_like(LABELS), [red, [0, 0, 0]]), np.zeros_like(LABELS)),  # all was erased
        (Image.fromarray(RGB * (LABELS == 8)[..., None]), LABELS * (LABELS == 8)),
        (Image.fromarray(RGB * (LABELS == 8)[..., None]).convert("RGBA"), LABELS * (LABELS == 8)),
    ):
        np.testing.assert_array_equal(read(tmp_path, picture), expected)


def test_values_say_them_where_there_are_no_such_colours(tmp_path: Path) -> None:
    edged = LABELS.copy()
    edged[0] = 255
    bits = (np.arange(256)[:, None, None] >> (3 * np.arange(8)[:, None] + np.arange(3))) & 1
    voc = (bits << (7 - np.arange(8))[:, None]).sum(1).tolist()
    for picture in (Image.fromarray(edged), Image.fromarray(np.repeat(edged[..., None], 3, 2)), palette(edged, voc)):
        np.testing.assert_array_equal(read(tmp_path, picture), edged)


def test_what_was_erased_is_background_and_what_is_half_see_through_is_refused(tmp_path: Path) -> None:
    alpha = np.where(LABELS == 1, 0, 255).astype(np.uint8)  # an eraser that keeps the colours below
    erased = Image.fromarray(np.dstack([RGB, alpha]))
    np.testing.assert_array_equal(read(tmp_path, erased), np.where(LABELS == 1, 0, LABELS))
    alpha[5, 5] = 100
    with pytest.raises(DataError, match=r"m\.png: it is partly half see-through: save it without transparency"):
        read(tmp_path, Image.fromarray(np.dstack([RGB, alpha])))


def test_other_colours_and_values_are_refused(tmp_path: Path) -> None:
    soft = Image.fromarray(RGB).resize((15, 10), Image.Resampling.BILINEAR).resize((30, 20))
    with pytest.raises(DataError, match=r"which fewseg gave to no class: paint with those of the classes \(#e63946"):
        read(tmp_path, soft)
    for white in (LABELS == 1, np.repeat((LABELS == 1)[..., None], 3, 2)):
        with pytest.raises(
            DataError, match=r"m\.png is black and white, which is none of its classes, a, b, c.*--mask"
        ):
            read(tmp_path, Image.fromarray(white * np.uint8(255)))
    with pytest.raises(DataError, match=r"holds 110, 136, and the classes are a 1, b 2"):
        read(tmp_path, Image.fromarray(RGB).convert("L"))
