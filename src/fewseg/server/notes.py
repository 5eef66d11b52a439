"""Notes on what was guessed while a visitor's files were read: of each thread's own work."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fewseg.errors import DataWarning

_here = threading.local()


@contextmanager
def collected() -> Iterator[list[str]]:
    """The texts of DataWarnings that this thread shows inside; `listen` must have been called.

    Not `warnings.catch_warnings`, which changes what other threads see.
    """
    _here.notes = notes = list[str]()
    try:
        yield notes
    finally:
        _here.notes = None


def listen() -> None:
    """Let `collected` have what a thread shows inside it; all else is shown as before."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        notes = getattr(_here, "notes", None)
        if notes is None or not issubclass(category, DataWarning):
            before(message, category, *where, **more)
        else:
            notes.append(str(message))

    warnings.simplefilter("always", DataWarning)
    warnings.showwarning = show
