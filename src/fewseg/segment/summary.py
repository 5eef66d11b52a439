"""What a run over many pictures has done, gathered while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewseg.errors import DataError
from fewseg.segment.finished import Seen
from fewseg.segment.outputs import Planned
from fewseg.segment.planning import Job


@dataclass(frozen=True)
class SegmentSummary:
    """What a run over many pictures has done."""

    written: tuple[tuple[Path | str, Path], ...]
    """(picture, or its address, and the first of its files)."""
    empty: tuple[Path | str, ...]
    """Pictures in which nothing was found (their masks are written, all background)."""
    failed: tuple[tuple[Path | str, str], ...]
    """(picture, what is wrong with it): those that could not be read, and those whose files vanished meanwhile."""
    skipped: int
    """Pictures whose files were there already: corrected, or finished before, with `resume`."""
    planned: int
    """Pictures and videos that there are, those of other parts too."""
    annotations: Path | None
    """The COCO file, if one was asked for."""
    runtime: str
    """What ran the model, in words."""
    sizes: Mapping[str, tuple[NDArray[np.int64], ...]] | None = None
    """With `instances`: of each class the pixels of every object, by picture; pictures without it are left out."""


class Gathered:
    """A summary in the making, of what was `planned` of several classes."""

    def __init__(self, work: Planned, classes: Sequence[str]) -> None:
        self._work, self._classes = work, classes
        self._written: list[tuple[Path | str, Path]] = []
        self.empty: list[tuple[Job, int]] = []
        """Pictures in which nothing was found, and their longer sides."""
        self.failed: list[tuple[Path | str, str]] = []
        self.corrected: dict[Path, Path] = {}
        """Masks that were there and are somebody's work, and their pictures."""
        self.claimed = np.zeros((len(classes), len(classes)), np.int64)
        """Of the pixels of each class, how many each marks: see `data.winners.claimed`."""
        self._skipped = 0
        self._sizes: dict[str, list[NDArray[np.int64]]] = {name: [] for name in classes}

    def add(self, piece: Job, seen: Seen | DataError | None) -> None:
        """What was found in a picture or frame, or is there, or what is wrong with it; None: its files are there."""
        if isinstance(seen, DataError):
            self.failed.append((piece.place, str(seen)))
            return
        outputs = self._work.named(piece.stem)
        if seen is None or seen.there:
            self._skipped += 1
        else:
            self._written.append((piece.place, next(iter((*outputs.values(), *self._work.books.values())))))
            self.empty += [] if seen.labels.any() else [(piece, max(seen.labels.shape))]
        if seen is None:
            return
        self.claimed += 0 if seen.claimed is None else seen.claimed
        self.corrected |= {outputs["png"]: piece.query} if seen.corrected else {}
        for label, parts in (seen.objects or {}).items():
            self._sizes[self._classes[label - 1]].append(parts.pixels)

    def check_there(self, out: Path) -> None:
        """Take files that are gone for failures."""
        gone = dict.fromkeys(query for query, path in self._written if not path.exists())
        self.failed += [
            (q, f"its output is gone: was {out} removed meanwhile? segment it again (--resume)") for q in gone
        ]
        self._written = [(query, path) for query, path in self._written if path.exists()]

    def summary(self, runtime: str, *, instances: bool) -> SegmentSummary:
        """The whole of it."""
        sizes = {name: tuple(found) for name, found in self._sizes.items()} if instances else None
        parts = tuple(self._written), tuple(piece.place for piece, _ in self.empty), tuple(self.failed), self._skipped
        return SegmentSummary(*parts, self._work.count, self._work.books.get("coco"), runtime, sizes)
