"""Convolution and BatchNorm as one convolution where nothing is trained: same numbers, one pass less over the maps."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.models.fast import fused, winograd
from fewseg.models.fast.state import state_of
from fewseg.models.hdmnet import Bottleneck

KNOWN = (nn.Conv2d, Conv2dSame)
"""Convolutions of timm's networks whose weights are used as they are."""


def conv_norm(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, *, plus: Tensor | None = None, relu: bool = False
) -> Tensor:
    """norm(conv(x)), plus maps of its shape, through a ReLU.

    One convolution if the statistics are fixed and no gradient is wanted.
    """
    if norm.training or not _foldable(conv, norm) or winograd.is_trained(conv, x) or torch.compiler.is_compiling():
        out = norm(conv(x))
    elif fused.suits(x):
        return fused.convolve(x, *fused.in_half(conv, norm, _fold), conv, plus=plus, relu=relu)
    else:
        out = _folded_convolution(conv, norm, x)
    out = out if plus is None else out.add_(plus)
    return out.relu_() if relu else out


def _folded_convolution(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    weight, bias = _fold(conv, norm)  # made anew each time: a pass over weights is nothing beside one over maps
    if winograd.suits(x, conv):
        return winograd.convolve(x, weight, bias, dilation=conv.dilation[0])
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)  # type: ignore[arg-type]


def _foldable(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether both are torch's own, as they are: a subclass, a hook or another padding may compute something else."""
    plain = (
        type(conv) in (nn.Conv2d, winograd.QuickConv2d)
        and conv.padding_mode == "zeros"
        and type(norm) is nn.BatchNorm2d
    )
    return plain and norm.affine and norm.running_mean is not None and not (_hooked(conv) or _hooked(norm))


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class FoldedSequential(nn.Sequential):
    """A sequence whose convolutions take in the BatchNorms behind them where nothing is trained."""

    def forward(self, input: Tensor) -> Tensor:
        return run_folded(self, input)


def run_folded(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """A sequence of modules, every convolution with a BatchNorm behind it as one."""
    waiting = list(modules)
    while waiting:
        module, after, last = (*waiting, None, None)[:3]
        if isinstance(module, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            relu = type(last) is nn.ReLU and not _hooked(last)
            x = conv_norm(module, after, x, relu=relu)
            del waiting[: 3 if relu else 2]
        else:
            x = waiting.pop(0)(x)
    return x


class MergedBottleneck(Bottleneck):
    """A bottleneck without activations is linear: its convolutions are one 3x3, which is 64 channels wide, not 256.

    The gradient flows through the merging, so this serves training too.
    """

    def forward(self, input: Tensor) -> Tensor:
        modules: Any = list(self)
        first, norm1, middle, norm2, last, *after = modules
        plain = _foldable(first, norm1) and _foldable(middle, norm2) and not (norm1.training or norm2.training)
        autocast = torch.is_autocast_enabled(input.device.type)  # it would merge in few digits
        if not plain or _hooked(last) or autocast or torch.compiler.is_compiling():
            return run_folded(self, input)
        scale, outward = _scale(norm2), last.weight.flatten(1)  # (wide,), (out, wide)
        joined = ((outward * scale) @ middle.weight.flatten(1)).unflatten(1, middle.weight.shape[1:])
        bias = outward @ (norm2.bias + (middle.bias - norm2.running_mean) * scale) + last.bias
        # a border pixel's 3x3 sees zeros outside, where the first bias is not added either: so it is a channel of ones
        weight, first_bias = _fold(first, norm1)
        inward = torch.cat([weight.flatten(1), first_bias.unsqueeze(1)], 1)  # (wide, in + 1)
        merged = torch.einsum("owyx,wi->oiyx", joined, inward)
        maps = F.conv2d(input, merged[:, :-1], bias, padding=1)
        ones = input.new_ones(1, 1, *input.shape[-2:])
        return run_folded(after, maps + F.conv2d(ones, merged[:, -1:], padding=1))


class FoldedCopy:
    """A copy of a network with folded convolutions, for networks whose code is not ours.

    Each BatchNorm must be registered right behind the convolution that it follows. Not a module's part: it is neither
    saved nor trained, and made anew when the network's tensors are others or hold something else.
    """

    _copy: nn.Module

    def __init__(self) -> None:
        self._state: tuple[tuple[int, int | None], ...] | None = None
        self._kept: list[Tensor] = []

    def of(self, net: nn.Module) -> nn.Module:
        """The copy; the network itself where a gradient is wanted, statistics are gathered or a graph is captured."""
        if torch.compiler.is_compiling():
            return net
        tensors = [*net.parameters(), *net.buffers()]
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        gathers = any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        if wanted or gathers or any(t.is_inference() for t in tensors):
            return net
        state = state_of(tensors)
        if state != self._state:
            # the references keep the memory, so that no other tensor can come to lie where these lay
            self._state, self._kept, self._copy = state, [t.detach() for t in tensors], _folded(net)
        return self._copy


@torch.inference_mode(False)
@torch.no_grad()
def _folded(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    for parent in net.modules():
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and type(conv) in KNOWN and isinstance(norm, nn.BatchNorm2d):
                weight, bias = _fold(conv, norm)
                conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
                setattr(parent, name, getattr(norm, "act", nn.Identity()))  # timm's BatchNorms end with theirs
    return net.requires_grad_(False)


def _fold(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    # torch.nn.utils.fusion rounds the bias another way, which would change the last digits of what was trained on it
    scale = _scale(norm)
    before = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    return conv.weight * scale.view(-1, 1, 1, 1), norm.bias + before * scale


def _scale(norm: Any) -> Tensor:
    if norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    return (norm.running_var + norm.eps).rsqrt() * norm.weight
