"""Files that chance changes: how they are changed, and what reading one may do."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fewseg.errors import FewsegError
from fewseg.runtime.memory import peak_memory, reset_peak_memory

INPUTS = 100
"""Per test; docs/reliability.md names their number."""
MEMORY, SECONDS = 500_000_000, 60
"""What a file may cost its reader, beyond the memory that the process has; docs/reliability.md promises it.

Nothing takes five seconds on an idle machine; a loaded one was seen to count three times as many for the same work.
"""
CPU = torch.device("cpu")
FUZZ = settings(
    max_examples=INPUTS, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EXTREMES = st.sampled_from([-(2**63), -1, 0, 10**8, 10**9, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**70, 1e8, 1e300])
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | EXTREMES
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Bytes put in, taken out, replaced; the end cut off."""
    share = st.floats(0, 1)
    edits = draw(st.lists(st.tuples(share, st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4))
    cut = draw(st.none() | share)

    def change(content: bytes) -> bytes:
        for where, length, new in edits:
            at = int(where * len(content))
            content = content[:at] + new + content[at + length :]
        return content if cut is None else content[: int(cut * len(content))]

    return change


@st.composite
def swaps(draw: st.DrawFn) -> Callable[[Any], Any]:
    """A value somewhere in a document replaced by any other, or left out."""
    steps, new, absent = draw(st.lists(st.floats(0, 0.999), min_size=1, max_size=5)), draw(VALUES), draw(st.booleans())

    def swap(document: Any) -> Any:
        document = json.loads(json.dumps(document))
        node, place = None, None
        inner = document
        for step in steps:
            keys = (
                list(inner) if isinstance(inner, dict) else list(range(len(inner))) if isinstance(inner, list) else []
            )
            if not keys:
                break
            node, place = inner, keys[int(step * len(keys))]
            inner = node[place]
        if node is None:
            return new
        if absent:
            del node[place]
        else:
            node[place] = new
        return document

    return swap


def taken_or_told(read: Callable[[], Any]) -> None:
    """A FewsegError is the only one that may come out, within `MEMORY` and `SECONDS`."""
    reset_peak_memory()
    before = peak_memory(CPU) or 0
    with within(SECONDS), suppress(FewsegError):
        read()
    used = (peak_memory(CPU) or 0) - before
    assert used <= MEMORY, f"{used / 1e6:.0f} MB for one file"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A guard against work without end, in processor time: on a busy machine a reader is not at fault."""

    def late(*_: object) -> None:
        pytest.fail(f"not read after {seconds} s of work")  # no Exception: a reader takes those for a fault of the file

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
