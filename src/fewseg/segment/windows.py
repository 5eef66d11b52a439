"""How a large picture is cut: windows that overlap, each of which decides about its middle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

OVERLAP = 0.25
"""Of neighbouring windows, as a share of their side: half of it is what a window sees and does not decide."""
LEAST = 64
"""Of a window's side, in pixels."""


class Window(NamedTuple):
    """Rows and columns that are looked at, and those, within them, that are decided."""

    top: int
    left: int
    bottom: int
    right: int
    core_top: int
    core_left: int
    core_bottom: int
    core_right: int

    @property
    def core(self) -> tuple[slice, slice]:
        """What is decided, counted from the window's own corner."""
        rows = slice(self.core_top - self.top, self.core_bottom - self.top)
        return rows, slice(self.core_left - self.left, self.core_right - self.left)


def windows(height: int, width: int, side: int) -> Iterator[Window]:
    """Windows of at most `side` x `side` pixels, row by row; each pixel is decided by exactly one."""
    columns = list(_cuts(width, side))
    for top, bottom, core_top, core_bottom in _cuts(height, side):
        for left, right, core_left, core_right in columns:
            yield Window(top, left, bottom, right, core_top, core_left, core_bottom, core_right)


def count_windows(height: int, width: int, side: int) -> int:
    """How many `windows` there are."""
    return len(list(_cuts(height, side))) * len(list(_cuts(width, side)))


def _cuts(length: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """Begin and end of each window, and of what it decides: up to the middle of what it shares with the next."""
    side = min(side, length)
    step = max(1, round(side * (1 - OVERLAP)))
    count = -(-(length - side) // step) + 1
    begins = [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]
    borders = [0, *((after + before + side) // 2 for before, after in pairwise(begins)), length]
    for begin, (core_begin, core_end) in zip(begins, pairwise(borders), strict=True):
        yield begin, begin + side, core_begin, core_end
