"""Convolution and BatchNorm as one convolution where nothing is trained: same numbers, one pass less over the maps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(conv(x)); with one convolution if the statistics are fixed and no gradient is wanted."""
    trained = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
    if norm.training or trained or torch.compiler.is_compiling():
        return norm(conv(x))
    weight, bias = _folded(conv, norm)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)  # type: ignore[arg-type]


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


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution, kept beside the weights until any of them changes."""
    sources = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(t is not None and t.is_inference() for t in sources):  # such tensors do not tell that they were changed
        return _fold(conv, norm)
    state = tuple((t.data_ptr(), t._version) for t in sources if t is not None)
    kept = conv.__dict__.get("_folded")
    if kept is None or kept[0] != state:
        with torch.inference_mode(False):
            kept = (state, *_fold(conv, norm))
        conv.__dict__["_folded"] = kept  # not a buffer: it is never saved, and follows the weights by itself
    return kept[1], kept[2]


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = (variance + norm.eps).rsqrt() * norm.weight
    bias = norm.bias - mean * scale if conv.bias is None else norm.bias + (conv.bias - mean) * scale
    return conv.weight * scale.view(-1, 1, 1, 1), bias
