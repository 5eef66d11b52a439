"""A picture of all supports of a concept: what each was understood to mark, and how well the others find it."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fewseg.concept.taught import Example, Taught
from fewseg.data.images import FOREGROUND_COLOR, overlay

_CELL, _TEXT, _GAP = 260, 14, 8
_MOST = 60
"""Photos that are shown."""


def contact_sheet(concept: Taught, *, columns: int = 4) -> Image.Image:
    """The supports with the class's colour on what they mark, and the photos without it."""
    shown = [*concept.supports, *concept.absent][:_MOST]
    columns = min(columns, max(len(shown), 2))
    step = _CELL + 2 * _TEXT + 3 * _GAP
    head = 3 * _TEXT + 2 * _GAP
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) + _GAP, head + rows * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    draw.rectangle((_GAP, _GAP, _GAP + 2 * _TEXT, _GAP + _TEXT), fill=FOREGROUND_COLOR)
    draw.text((_GAP + 2 * _TEXT + _GAP, _GAP - 2), _fitting(draw, concept.title, font, sheet.width / 2), "black", font)
    count = len(concept.supports)
    told = f"{count} support{'s' * (count != 1)}, expect {concept.expected}, by {concept.choice}"
    draw.text((_GAP, _GAP + _TEXT + 6), told, "black", font)
    each = concept.expected.each if len(concept.expected.each) == count > 1 else ()
    for number, example in enumerate(shown):
        row, column = divmod(number, columns)
        corner = (_GAP + column * (_CELL + _GAP), head + row * step)
        image = ImageOps.contain(_drawn(example), (_CELL, _CELL))
        sheet.paste(image, (corner[0] + (_CELL - image.width) // 2, corner[1] + _CELL - image.height))
        how = (
            f"{example.name}: the others find it with {100 * each[number]:.0f}" if number < len(each) else example.name
        )
        for line, text in enumerate((how, example.meaning)):
            place = (corner[0], corner[1] + _CELL + 2 + line * (_TEXT + 2))
            draw.text(place, _fitting(draw, text, font, _CELL), "black" if line == 0 else "#555555", font)
    return sheet


def _drawn(example: Example) -> Image.Image:
    image = Image.fromarray(example.photo)
    return overlay(image, example.mask, line=2) if example.marks else image


def _fitting(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float
) -> str:
    """A text cut to a width in pixels."""
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = text[: max(1, int(0.9 * len(text)) - 1)] + "\N{HORIZONTAL ELLIPSIS}"
    return text
