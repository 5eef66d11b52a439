"""Training steps on kept features as CUDA graphs: some thousand small kernels that the processor starts as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fewseg.errors import first_line
from fewseg.models.base import Features
from fewseg.training.objectives import EpisodeObjective

MOST = 8
"""Graphs at most, one for each shape of a batch; every one keeps the memory of a step."""


class GraphedObjective(nn.Module):
    """An objective whose steps on features are recorded, forward and backward, and replayed with the same numbers.

    Steps from images and those that are watched are computed as they are, and so is all that cannot be recorded, which
    `tell` hears once.
    """

    def __init__(self, objective: EpisodeObjective, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.objective = objective
        self._tell = tell
        self._steps: dict[Any, nn.Module | None] = {}
        self._pool: Any = None
        """Memory that the graphs share, since no step needs anything of another."""

    def forward(
        self,
        episode: dict[str, Tensor],
        query: Features | None = None,
        support: Features | None = None,
        *,
        watch: bool = False,
    ) -> dict[str, Any]:
        """As `EpisodeObjective.forward`."""
        if query is None or support is None or watch or not (self.training and torch.is_grad_enabled()):
            return self.objective(episode, query, support, watch=watch)
        tensors, layout = tree_flatten((episode, query, support))
        key = str(layout), tuple((t.shape, t.dtype) for t in tensors), _autocast()
        if key not in self._steps and len(self._steps) < MOST:
            self._steps[key] = self._recorded(tensors, layout)
        step = self._steps.get(key)
        if step is None:
            return self.objective(episode, query, support)
        out = step(*tensors)
        # what a graph gives lies where its next replay writes
        losses = {name: loss.clone() for name, loss in out["losses"].items()}
        return {"losses": losses, "logged": {}, "counts": out["counts"].clone()}

    def _recorded(self, tensors: list[Tensor], layout: TreeSpec) -> nn.Module | None:
        """A step as a graph; None where it cannot be one."""
        if any(step is None for step in self._steps.values()):
            return None  # it was tried, and said
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        if quiet := getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None):
            quiet(False)  # a plain step after a recorded one waits for its stream, and need not say so
        try:
            with _nothing_changed(self.objective, tensors[0].device):
                step, kept = _Step(self.objective, layout), tuple(t.clone() for t in tensors)
                torch.cuda.make_graphed_callables(step, kept, allow_unused_input=True, pool=self._pool)
        except RuntimeError as error:
            self._tell(f"steps are computed kernel by kernel, not as a CUDA graph: {first_line(error)}")
            return None
        return step


class _Step(nn.Module):
    """An objective of flat tensors."""

    def __init__(self, objective: EpisodeObjective, layout: TreeSpec) -> None:
        super().__init__()
        self.objective, self.layout = objective, layout

    def forward(self, *tensors: Tensor) -> dict[str, Any]:
        out = self.objective(*tree_unflatten(list(tensors), self.layout))
        return {"losses": out["losses"], "counts": out["counts"]}


@contextmanager
def _nothing_changed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Recording computes a few steps: running statistics and random numbers are put back after it."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    state, cached = torch.cuda.get_rng_state(device), torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # a cached cast would be no part of the graph
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.cuda.set_rng_state(state, device)


def _autocast() -> torch.dtype | None:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
