"""What a command may write: never a file that its user gave."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fewseg.errors import UsageError


def check_outputs(outputs: Iterable[Path], *given: object) -> None:
    """UsageError where a file to write is one of those given, as a path or after the = of a word; before any work."""
    named = [part for one in given if one is not None for part in (str(one), str(one).partition("=")[2])]
    paths = [Path(name) for name in named if os.path.exists(name)]
    for output in outputs:
        if output.exists() and any(output.samefile(path) for path in paths):
            raise UsageError(f"{output} is what the command reads: it would be written over; give another name")


def check_outside(output: Path, words: Iterable[str]) -> None:
    """UsageError for a file to write that is there already, in a directory that a word names (data.root=DIR)."""
    for word in words:
        folder = word.partition("=")[2]
        if output.exists() and os.path.isdir(folder) and output.resolve().is_relative_to(Path(folder).resolve()):
            raise UsageError(f"{output} is there already, among the data of {folder}; give another name")


def check_made_here(outputs: Iterable[Path], begins: str) -> None:
    """UsageError for a file to write that is there already and does not begin as such files do."""
    for output in outputs:
        if output.is_file() and output.stat().st_size and not output.read_bytes().startswith(begins.encode()):
            raise UsageError(f"{output} is there already and holds something else; give another name")
