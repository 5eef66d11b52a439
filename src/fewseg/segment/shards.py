"""A part of the pictures: what one of several processes or machines that share the work does.

Every part writes masks into the same folder, and what tells of its pictures under names of its own. Once all are done,
the command with `--resume` and without `--shard` finds every mask there, and tells of all of them in one file each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fewseg.errors import UsageError
from fewseg.files import leftovers, write_failures

FAILURES = "failures.csv"
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Of "2/8"; UsageError where that is none."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"--shard {text}: give which part of how many, from 1, as in 2/8")
        return cls(number, count)

    def share(self, jobs: list[T]) -> list[T]:
        """What of all jobs is this part's."""
        return jobs[self.number - 1 :: self.count]

    @property
    def name(self) -> str:
        """As it stands in names of files."""
        return f"{self.number}of{self.count}"

    def named(self, path: Path) -> Path:
        """A file that tells of this part's pictures."""
        return path.with_stem(f"{path.stem}-{self.name}")


def parts_of(path: Path) -> Iterator[Path]:
    """The files that parts wrote in place of `path`, and itself, where they are there; the latest last."""
    name = _names_of(path)
    found = [file for file in path.parent.glob(f"*{path.suffix}") if name.fullmatch(file.name)]
    yield from sorted(found, key=lambda file: (file.stat().st_mtime_ns, file.name))


def leftovers_of_parts(path: Path) -> list[Path]:
    """What killed parts left half-written in place of `path`."""
    return leftovers(path.parent, _names_of(path).fullmatch)


def list_failures(out: Path, failed: Sequence[tuple[Path | str, str]], shard: Shard | None) -> Path | None:
    """The file in which is listed what of a run, or of a part of one, could not be done; None where all was.

    What parts listed was tried again by a run of all.
    """
    path = shard.named(out / FAILURES) if shard else out / FAILURES
    if not shard:
        remove_parts([path])
    return write_failures(path, failed)


def remove_parts(paths: Iterable[Path]) -> None:
    """Remove the files of parts that `paths` tell of as a whole."""
    for path in paths:
        for part in parts_of(path):
            if part != path:
                part.unlink()


def _names_of(path: Path) -> re.Pattern[str]:
    """The name of a file that tells of all pictures, and of those of parts in its place."""
    return re.compile(rf"{re.escape(path.stem)}(-\d+of\d+)?{re.escape(path.suffix)}")
