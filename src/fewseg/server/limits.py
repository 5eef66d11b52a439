"""What a visitor, and all of them together, may ask of the server."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from fewseg.errors import UsageError, suggest

MB = 1_000_000
_WITHIN = ("all_mb", "visitor_mb", "request_mb", "file_mb")
"""Limits of which each lies within the one before."""


@dataclass(frozen=True)
class Limits:
    """Each can be set by its name: `fewseg serve --limit photos=10`."""

    file_mb: int = 25
    """A file."""
    megapixels: int = 25
    """A picture, in millions of pixels."""
    request_mb: int = 250
    """A request."""
    photos: int = 50
    """Photos to search in a request."""
    supports: int = 40
    """Photos that teach a concept, with and without the object."""
    concepts: int = 20
    """Concepts of a visitor; so many may be looked for at once."""
    jobs: int = 60
    """Jobs of a visitor that are kept."""
    visitor_mb: int = 500
    """Files of a visitor on the disk: photos until they are searched, concepts, results."""
    all_mb: int = 4000
    """Files of all visitors."""
    waiting: int = 32
    """Jobs of all visitors that are under way; beyond it: 429, with the seconds to wait."""
    visitors: int = 200
    """Visitors at once; the one who was longest idle is forgotten for a new one."""
    connections: int = 256
    """Connections at once; beyond it: 503."""
    idle_minutes: int = 30
    """After so long without a request a visitor is forgotten, and all files are removed."""
    patience: int = 10
    """Seconds that a client may take for the head of a request, and between two pieces of its body."""

    def changed(self, words: Sequence[str]) -> Limits:
        """With NAME=NUMBER of each word; UsageError for another name, or what is no whole number from 1 on.

        What lies within something smaller shrinks with it; where it was given itself, UsageError.
        """
        known = [field.name for field in fields(self)]
        found: dict[str, int] = {}
        for word in words:
            name, _, number = word.partition("=")
            if name not in known:
                raise UsageError(f"--limit {word}: give NAME=NUMBER of {', '.join(known)}.{suggest(name, known)}")
            if not (number.isascii() and number.isdigit() and 1 <= int(number) < 10**9):
                raise UsageError(f"--limit {word}: give a whole number from 1 on")
            found[name] = int(number)
        changed = replace(self, **found)
        outermost = _WITHIN[0]
        for outer, inner in pairwise(_WITHIN):
            most = getattr(changed, outer)
            outermost = outermost if getattr(changed, outermost) == most else outer
            if found.get(inner, 0) > most:
                told = f"--limit {inner}={found[inner]}: more than {outermost}={most}"
                raise UsageError(f"{told}; give --limit {outermost}=N, too")
            changed = replace(changed, **{inner: min(getattr(changed, inner), most)})
        return changed


_SELDOM = 60.0
"""Seconds between two lines on one limit."""


class Reached:
    """Says in the log that a limit of all visitors is reached, so that others are refused; once a minute."""

    def __init__(self, name: str, most: int) -> None:
        self._line = f"note: --limit {name}={most} is reached: who asks for more meanwhile is refused\n"
        self._last = -math.inf

    def note(self) -> None:
        """It is reached now."""
        if (now := time.monotonic()) - self._last >= _SELDOM:
            self._last = now
            sys.stderr.write(self._line)


def or_raise(name: str) -> str:
    """What else helps where a limit is reached, as the end of a sentence."""
    return f", or let whoever runs the server raise it: --limit {name}=N"


class Space:
    """Bytes that are taken, of a visitor or of all: not more than there are."""

    def __init__(self, most: int, whole: Space | None = None) -> None:
        self.most, self.whole, self.taken = most, whole, 0
        self.reached = Reached("all_mb", most // MB)
        """Of the space of all."""

    def take(self, number: int) -> bool:
        """Take so many bytes; False, and nothing taken, where there are not so many left."""
        if self.taken + number > self.most or (self.whole is not None and not self.whole.take(number)):
            return False
        self.taken += number
        return True

    def give_back(self, number: int) -> None:
        """Of bytes that were taken."""
        self.taken -= number
        if self.whole is not None:
            self.whole.give_back(number)
