"""A picture of all supports of a concept: what each was understood to mark, and how well the others find it."""

from __future__ import annotations

from PIL import Image

from fewseg.concept.taught import Example, Taught
from fewseg.data.captions import Word, sheet, words
from fewseg.data.images import FOREGROUND_COLOR, overlay
from fewseg.progress import counted

_GREY = (85, 85, 85)
_MOST = 60
"""Photos that are shown."""


def contact_sheet(concept: Taught, *, columns: int = 4) -> Image.Image:
    """The supports with the class's colour on what they mark, and the photos without it."""
    shown = [*concept.supports, *concept.absent][:_MOST]
    count = len(concept.supports)
    told = f"{counted(count, 'support')}, expect {concept.expected}, by {concept.choice}"
    pictures = []
    for number, example in enumerate(shown):
        found = concept.found_by_others(number) if number < count else ""
        told_of_it = f"{example.name}: the others find it with {found}" if found else example.name
        pictures.append((_drawn(example), [words(told_of_it), words(example.meaning, _GREY)]))
    head = [[Word(concept.title, FOREGROUND_COLOR, keyed=True)], words(told)]
    return sheet(pictures, columns=min(columns, max(len(shown), 2)), cell=260, text=14, head=head)


def _drawn(example: Example) -> Image.Image:
    image = Image.fromarray(example.photo)
    return overlay(image, example.mask, line=2) if example.marks else image
