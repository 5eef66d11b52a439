"""Convolution and BatchNorm as one convolution where nothing is trained: same numbers, one pass less over the maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.models import winograd

Derived = TypeVar("Derived")


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(conv(x)); with one convolution if the statistics are fixed and no gradient is wanted."""
    if norm.training or is_trained(conv, x) or torch.compiler.is_compiling():
        return norm(conv(x))
    sources = [t for t in (conv.weight, conv.bias, *norm.parameters(), *norm.buffers()) if t is not None]
    if winograd.suits(x, conv):
        kernel, bias = derived("winograd", conv, sources, lambda: _evaluated(*_fold(conv, norm)))
        return winograd.convolve(x, kernel, bias, dilation=conv.dilation[0])
    weight, bias = derived("folded", conv, sources, lambda: _fold(conv, norm))
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)  # type: ignore[arg-type]


class FoldedSequential(nn.Sequential):
    """A sequence whose convolutions take in the BatchNorms behind them where nothing is trained."""

    def forward(self, input: Tensor) -> Tensor:
        return run_folded(self, input)


def run_folded(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """A sequence of modules, every convolution with a BatchNorm behind it as one."""
    waiting: nn.Conv2d | None = None
    for module in modules:
        if waiting is not None:
            if isinstance(module, nn.BatchNorm2d):
                x, waiting = conv_norm(waiting, module, x), None
                continue
            x, waiting = waiting(x), None
        if isinstance(module, nn.Conv2d):
            waiting = module
        else:
            x = module(x)
    return x if waiting is None else waiting(x)


def is_trained(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a gradient will pass through a convolution."""
    return torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)


def derived(name: str, conv: nn.Conv2d, sources: Sequence[Tensor], derive: Callable[[], Derived]) -> Derived:
    """What `derive` makes of weights, kept beside them until any of the `sources` changes.

    Changes by way of `.data`, which PyTorch itself does not notice, are not noticed.
    """
    if any(t.is_inference() for t in sources):  # such tensors do not tell that they were changed
        return derive()
    state = (name, *((t.data_ptr(), t._version) for t in sources))
    kept = conv.__dict__.get("_derived")
    if kept is None or kept[0] != state:
        with torch.inference_mode(False), torch.no_grad():
            kept = (state, derive())
        conv.__dict__["_derived"] = kept  # not a buffer: it is never saved, and follows the weights by itself
    return kept[1]


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = (variance + norm.eps).rsqrt() * norm.weight
    bias = norm.bias - mean * scale if conv.bias is None else norm.bias + (conv.bias - mean) * scale
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def _evaluated(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return winograd.evaluated(weight), bias
