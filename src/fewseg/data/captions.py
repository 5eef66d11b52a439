"""Words on pictures: a legend below one, and a sheet of pictures with captions, which are wrapped and never cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont, ImageOps

Color: TypeAlias = tuple[int, int, int]
BLACK: Color = (0, 0, 0)
_GAP = 8


class Word(NamedTuple):
    """What stays on one line where it fits, with a square of its colour before it where `keyed`."""

    text: str
    color: Color = BLACK
    keyed: bool = False


Caption: TypeAlias = Sequence[Sequence[Word]]
"""Paragraphs of words."""


def words(text: str, color: Color = BLACK) -> list[Word]:
    """A text as words."""
    return [Word(word, color) for word in text.split()]


def with_legend(image: Image.Image, entries: Sequence[tuple[str, Color]]) -> Image.Image:
    """An RGB picture above a white strip with a square of each colour and what it stands for."""
    text = max(12, round(min(image.size) / 40))
    block = _Block([[Word(name, color, keyed=True) for name, color in entries]], text, image.width - 2 * _GAP)
    shown = Image.new("RGB", (image.width, image.height + block.height + _GAP), "white")
    shown.paste(image, (0, 0))
    block.draw(shown, (_GAP, image.height + _GAP // 2))
    return shown


def sheet(
    pictures: Sequence[tuple[Image.Image, Caption]], *, columns: int, cell: int, text: int = 13, head: Caption = ()
) -> Image.Image:
    """Pictures in rows, each fitted into a square of `cell` pixels, its caption below it, and a `head` above all."""
    blocks = [_Block(caption, text, cell) for _, caption in pictures]
    width = columns * (cell + _GAP) + _GAP
    title = _Block(head, text, width - 2 * _GAP)
    rows = [range(first, min(first + columns, len(pictures))) for first in range(0, len(pictures), columns)]
    heights = [cell + max(blocks[i].height for i in row) + 2 * _GAP for row in rows]
    top = title.height + (2 if head else 1) * _GAP
    shown = Image.new("RGB", (width, top + sum(heights)), "white")
    title.draw(shown, (_GAP, _GAP))
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = _GAP + column * (cell + _GAP)
            small = ImageOps.contain(pictures[i][0], (cell, cell))
            shown.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
            blocks[i].draw(shown, (left, top + cell + _GAP // 2))
        top += height
    return shown


class _Block:
    """A caption in lines of at most `width` pixels."""

    def __init__(self, caption: Caption, size: int, width: int) -> None:
        self._font, self._size, self._step = ImageFont.load_default(size), size, round(1.35 * size)
        self._placed: list[tuple[float, int, Word]] = []
        row = 0
        for paragraph in caption:
            x = 0.0
            for word in paragraph:
                for part in self._fitting(word, width):
                    wide = self._wide(part)
                    if x and x + wide > width:
                        x, row = 0.0, row + 1
                    self._placed.append((x, row, part))
                    x += wide + (size if part.keyed else self._font.getlength(" "))
            row += 1
        self.height = row * self._step

    def draw(self, image: Image.Image, corner: tuple[int, int]) -> None:
        """Draw it, its upper left corner there."""
        draw = ImageDraw.Draw(image)
        for x, row, word in self._placed:
            left, top = corner[0] + x, corner[1] + row * self._step
            if word.keyed:
                draw.rectangle((left, top + 1, left + self._size, top + 1 + self._size), fill=word.color)
            key = self._key(word)
            draw.text((left + key, top), word.text, BLACK if word.keyed else word.color, self._font)

    def _wide(self, word: Word) -> float:
        return self._key(word) + self._font.getlength(word.text)

    def _key(self, word: Word) -> float:
        return 1.4 * self._size if word.keyed else 0.0

    def _fitting(self, word: Word, width: int) -> Iterator[Word]:
        """A word in parts that fit on a line, at least a letter each."""
        while len(word.text) > 1 and self._wide(word) > width:
            count = max(
                n for n in range(1, len(word.text)) if n == 1 or self._wide(word._replace(text=word.text[:n])) <= width
            )
            yield word._replace(text=word.text[:count])
            word = Word(word.text[count:], BLACK if word.keyed else word.color)
        yield word
