"""Classes by their names: which names stand for one thing, in whatever data set they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from fewseg.errors import UsageError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "airplane": ("aeroplane",),
    "cell phone": ("mobile phone",),
    "couch": ("sofa",),
    "donut": ("doughnut",),
    "hair drier": ("hair dryer",),
    "motorcycle": ("motorbike",),
    "refrigerator": ("fridge",),
    "rhinoceros": ("rhino",),
    "tv": ("tv monitor", "television"),
}
"""Names that data sets have for one thing. No word of two meanings is here (bike, pavement), and no part of a whole."""


def bare(name: str) -> str:
    """A class's name without what does not count: case, spaces, `_` and `-`."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name)).casefold() or name


def synonym_table(own: Mapping[str, list[str]]) -> dict[str, str]:
    """The name that every known name stands for; one's own table adds to the built-in one, and names anew."""
    table = {bare(n): name for name, others in SYNONYMS.items() for n in (name, *others)}
    said: dict[str, str] = {}
    for name, others in own.items():
        same = {bare(n) for n in (name, *others)}
        if twice := sorted(same & said.keys()):
            raise UsageError(f"data.synonyms has {twice[0]!r} under {said[twice[0]]!r} and {name!r}; write one of them")
        said |= dict.fromkeys(same, name)
        known = {table[b] for b in same if b in table}
        table |= dict.fromkeys([b for b, former in table.items() if former in known] + sorted(same), name)
    return table


def matched_names(these: Iterable[str], those: Sequence[str]) -> dict[str, str]:
    """The names of `these` that are in `those` too, by the built-in table, each with its name there.

    A name that a data set gave to a class without one (`class_3`) is no other's.
    """
    table = synonym_table({})

    def known(name: str) -> str:
        return bare(table.get(bare(name), name))

    there = {known(name): name for name in reversed(those)}
    return {name: there[known(name)] for name in these if known(name) in there and not is_numbered(name)}


def is_numbered(name: str) -> bool:
    """Whether a name is one that a class without a name was given."""
    return re.fullmatch(r"class_\d+", name) is not None
