"""A convolution with its bias, a sum and a ReLU in one pass over the maps: cuDNN's, on a GPU in half precision.

Apart, the passes over maps take longer there than the products. Folded weights are kept in half precision (the papers'
ResNet-50: 47 MB), since at small batches to fold them anew takes as long as everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fewseg.models.fast.state import State, state_of

_kept: WeakKeyDictionary[nn.Module, tuple[tuple[State, torch.dtype], list[Tensor], tuple[Tensor, Tensor]]]
_kept = WeakKeyDictionary()


def suits(x: Tensor) -> bool:
    """Whether maps lie on a GPU and convolutions are to be in half precision."""
    return x.is_cuda and torch.is_autocast_enabled("cuda")


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, conv: nn.Conv2d, *, plus: Tensor | None = None, relu: bool = False
) -> Tensor:
    """`conv` of x (B, C, H, W) with another weight and bias, plus maps of the result's shape, through a ReLU."""
    x = x.to(weight.dtype)
    where: Any = conv.stride, conv.padding, conv.dilation, conv.groups
    if not relu:
        out = torch.conv2d(x, weight, bias, *where)
        return out if plus is None else out.add_(plus)
    if plus is None:
        return torch.cudnn_convolution_relu(x, weight, bias, *where)
    return torch.cudnn_convolution_add_relu(x, weight, plus.to(weight.dtype), 1, bias, *where)


def in_half(
    conv: nn.Conv2d, norm: nn.Module, fold: Callable[[Any, Any], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The weight and bias that `fold(conv, norm)` makes, in autocast's precision; anew when what they hold changes."""
    tensors = [*conv.parameters(), *norm.parameters(), *norm.buffers()]
    state, dtype = state_of(tensors), torch.get_autocast_dtype("cuda")
    found = _kept.get(conv)
    if found is None or found[0] != (state, dtype):
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cuda", enabled=False):
            weight, bias = (t.to(dtype) for t in fold(conv, norm))
        # the references keep the memory, so that no other tensor can come to lie where these lay
        found = _kept[conv] = (state, dtype), [t.detach() for t in tensors], (weight, bias)
    return found[2]
