"""How far long work is: a bar on a terminal, plain lines in a pipe or a log file, nothing in a library call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def visible(text: str) -> str:
    """A text for a terminal: characters that would steer it (escape sequences, turned writing) are spelled out."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def counted(number: int, what: str) -> str:
    """As in "1 repeat", "2 repeats" and "2 classes"."""
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


class Silent:
    """Shows nothing; the default of library calls."""

    def __call__(self, items: Iterable[Any], description: str, total: int, *, done: int = 0) -> Iterable[Any]:
        """The items, unchanged; `done` of `total` were finished before."""
        return items

    def note(self, text: str) -> None:
        """Show a short text beside the running bar."""

    def log(self, text: str) -> None:
        """Show a line that stays."""


class Bars(Silent):
    """Bars on a terminal, a plain line every `seconds` elsewhere."""

    def __init__(self, console: Console | None = None, *, seconds: float = 15.0) -> None:
        self.console = console or Console(stderr=True)
        self.seconds = seconds
        self._note = ""
        self._depth = 0

    def __call__(self, items: Iterable[Any], description: str, total: int, *, done: int = 0) -> Iterator[Any]:
        self._note = ""
        # rich draws one live display at a time: work inside other work is told in lines
        show = self._bar if self.console.is_terminal and self._depth == 0 else self._lines
        self._depth += 1
        try:
            yield from show(items, description, total, done)
        finally:
            self._depth -= 1

    def note(self, text: str) -> None:
        self._note = visible(text)

    def log(self, text: str) -> None:
        self.console.print(visible(text), highlight=False, markup=False, emoji=False)

    def _bar(self, items: Iterable[Any], description: str, total: int, done: int) -> Iterator[Any]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console) as bars:
            task = bars.add_task(description, total=total, completed=done, note="")
            for item in items:
                yield item
                bars.update(task, advance=1, note=self._note)

    def _lines(self, items: Iterable[Any], description: str, total: int, done: int) -> Iterator[Any]:
        start = last = time.monotonic()
        count = done
        for count, item in enumerate(items, done + 1):
            yield item
            now = time.monotonic()
            if now - last >= self.seconds and count < total:
                last = now
                left = (now - start) / (count - done) * (total - count)
                self.log(f"{description}: {count}/{total}, {_clock(left)} left  {self._note}".rstrip())
        spent = time.monotonic() - start
        if spent >= 1 or count < total:
            self.log(f"{description}: {count}/{total} in {_clock(spent)}  {self._note}".rstrip())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
