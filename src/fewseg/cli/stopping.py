"""What Ctrl-C ends a command with: exit code 130, and a line that says what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from fewseg.errors import StoppedError


class StoppableGroup(TyperGroup):
    """Commands that all end with a StoppedError where they are stopped; Typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError("stopped") from None


@contextmanager
def if_stopped(kept: str = "nothing was written") -> Iterator[None]:
    """Work of which it is known what is there when it is stopped, and how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; {kept}") from None
