"""What is computed of one image alone, as a CUDA graph: at a batch of one a GPU waits for the processor, which starts
every small kernel by itself; a graph is started as one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from fewseg.models.base import Features
from fewseg.models.fast.state import State, state_of

MOST = 8
"""Graphs of a network at most, one for each kind of work and shape; every one keeps the memory of its activations."""


class Recordings:
    """The graphs of a network, recorded when first asked for and made anew when one of its tensors is another."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._graphs: dict[Any, tuple[list[Tensor], torch.cuda.CUDAGraph, Features]] = {}
        self._hindered = False
        self._lock = threading.RLock()
        self._recording = False

    def of(self, network: nn.Module, name: str, work: Callable[..., Features], *given: Tensor) -> Features:
        """What `work(*given)` gives, by the graph of this name, shape and precision."""
        with self._lock:
            if self._recording or torch.cuda.is_current_stream_capturing() or _watched(network):
                return work(*given)
            tensors = [*network.parameters(), *network.buffers()]
            if (state := state_of(tensors)) != self._state:
                self._graphs, self._state = {}, state
            key = name, tuple((t.shape, t.dtype, t.stride()) for t in given), _settings()
            if key not in self._graphs and not self._record(key, work, given):
                return work(*given)
            inputs, graph, outputs = self._graphs[key]
            for kept, new in zip(inputs, given, strict=True):
                kept.copy_(new)
            graph.replay()
            return {name: f.clone() for name, f in outputs.items()}  # the next replay writes there

    def _record(self, key: Any, work: Callable[..., Features], given: tuple[Tensor, ...]) -> bool:
        """Whether it could be recorded."""
        if self._hindered or len(self._graphs) >= MOST:
            return False
        inputs, graph = [t.clone() for t in given], torch.cuda.CUDAGraph()
        self._recording = True
        try:
            aside = torch.cuda.Stream(given[0].device)
            aside.wait_stream(torch.cuda.current_stream(given[0].device))
            with torch.cuda.stream(aside):  # what libraries set up at first use is no part of a graph
                for _ in range(2):
                    work(*inputs)
            torch.cuda.current_stream(given[0].device).wait_stream(aside)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = work(*inputs)
        except RuntimeError:  # work that waits for the device, as a back-end from elsewhere may: it stays as it is
            self._hindered = True
            return False
        finally:
            self._recording = False
        self._graphs[key] = inputs, graph, outputs
        return True


def recordable(network: nn.Module, image: Tensor) -> bool:
    """Whether it is one image on a GPU, in full precision, and nothing is trained.

    In half precision a graph is not known to give the plain numbers.
    """
    plain = network.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda")
    return image.is_cuda and len(image) == 1 and not plain


def _watched(network: nn.Module) -> bool:
    """Whether hooks wait for what passes its modules, or a counter of operations, which a graph would not tell them."""
    if _get_current_dispatch_mode() is not None:
        return True
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _settings() -> tuple[Any, ...]:
    """What a graph is fixed to that is no tensor."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return torch.is_inference_mode_enabled(), matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
