"""Whether tensors may hold something else than they did."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

State = tuple[tuple[int, int | None], ...]


def state_of(tensors: Iterable[Tensor]) -> State:
    """Where tensors lie and how often each was written: it changes when one of them may hold something else."""
    return tuple((t.data_ptr(), None if t.is_inference() else t._version) for t in tensors)
