"""Visitors: who they are, and what is theirs. A visitor is known by a random name in a cookie, and by nothing else."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewseg.server.folder import writing
from fewseg.server.jobs import Job
from fewseg.server.limits import MB, Limits, Reached, Space
from fewseg.server.refused import Refused

_UNTOUCHED = 60.0
"""Seconds: whoever asked for something meanwhile is not forgotten for a new visitor."""


def random_name() -> str:
    """A name that nobody guesses."""
    return secrets.token_urlsafe(18)


@dataclass(frozen=True)
class Stored:
    """A file of a visitor."""

    path: Path
    size: int


@dataclass(frozen=True)
class Kept:
    """A concept of a visitor: its file, and what is told of it."""

    file: Stored
    told: dict[str, Any]


@dataclass
class Visitor:
    """One visitor's files, concepts and jobs."""

    name: str
    folder: Path
    space: Space
    seen: float = field(default_factory=time.monotonic)
    concepts: dict[str, Kept] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    gone: bool = False
    _sizes: dict[Path, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new_path(self) -> Path:
        """A place for a file, under a name of its own."""
        return self.folder / random_name()

    def stored(self, path: Path, *, taken: int = 0) -> Stored:
        """A file that was written to `new_path`, for which so many bytes were taken before; Refused, and the file
        removed, where there is no space for it.
        """
        size = path.stat().st_size
        try:
            self.take(size - taken)
        except Refused:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            self._sizes[path] = size
        return Stored(path, size)

    def take(self, number: int, *, held: int = 0, length: int = 0) -> None:
        """Take bytes of the disk; Refused where there are not so many: told without those that the request holds, with
        its whole length.
        """
        with self._lock:
            if self.gone:
                raise Refused(410, "you were forgotten meanwhile, with all that was yours; begin anew")
            if self.space.take(number):
                return
            whole = self.space.whole
            if whole is not None and whole.taken + number > whole.most:
                whole.reached.note()
                raise Refused(503, "the server has no space left; try again later", retry_after=60)
            there, more = (self.space.taken - held) / MB, max(held + number, length) / MB
            raise Refused(
                413,
                f"your photos, concepts and results take {there:.1f} of {self.space.most // MB} MB, and {more:.1f} "
                "more are needed; remove jobs and concepts that you need no more",
            )

    def give_back(self, number: int) -> None:
        """Of bytes that were taken."""
        with self._lock:
            if not self.gone:
                self.space.give_back(number)

    def remove(self, file: Stored) -> None:
        """A file that is needed no more; a second time does nothing."""
        with self._lock:
            size = self._sizes.pop(file.path, 0)
        file.path.unlink(missing_ok=True)
        self.give_back(size)

    def forget_job(self, job: Job) -> None:
        """Stop a job, and remove what it holds."""
        self.jobs.pop(job.name, None)
        job.stop()

    def leave(self) -> None:
        """Stop all jobs, remove all files."""
        for job in list(self.jobs.values()):
            self.forget_job(job)
        with self._lock:
            self.gone = True
            self.space.give_back(self.space.taken)
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """All visitors, by the name in their cookie."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._space = Space(limits.all_mb * MB)
        self._all: dict[str, Visitor] = {}
        self._reached = Reached("visitors", limits.visitors)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def stored(self) -> int:
        """Bytes of all visitors' files."""
        return self._space.taken

    def known(self, name: str | None) -> Visitor | None:
        """Whose name it is, and that they were here now."""
        visitor = self._all.get(name or "")
        if visitor is not None:
            visitor.seen = time.monotonic()
        return visitor

    def enter(self) -> Visitor:
        """A new visitor; Refused where there are too many who are not idle."""
        if len(self._all) >= self._limits.visitors:
            longest = min(self._all.values(), key=lambda one: one.seen)
            if time.monotonic() - longest.seen < _UNTOUCHED:
                self._reached.note()
                raise Refused(429, "there are too many visitors; try again later", retry_after=int(_UNTOUCHED))
            self.forget(longest)
        name = random_name() + random_name()
        folder = self._folder / random_name()  # not the visitor's own: names of files are seen by others of the machine
        with writing(folder):
            folder.mkdir(mode=0o700)
        visitor = Visitor(name, folder, Space(self._limits.visitor_mb * MB, self._space))
        self._all[name] = visitor
        return visitor

    def forget(self, visitor: Visitor) -> None:
        """Everything of a visitor."""
        self._all.pop(visitor.name, None)
        visitor.leave()

    def forget_idle(self) -> None:
        """Those who asked for nothing in `idle_minutes`, unless a job of theirs is under way."""
        latest = time.monotonic() - 60 * self._limits.idle_minutes
        for visitor in list(self._all.values()):
            if visitor.seen < latest and all(job.ended for job in visitor.jobs.values()):
                self.forget(visitor)

    def forget_all(self) -> None:
        """When the server ends."""
        for visitor in list(self._all.values()):
            self.forget(visitor)
