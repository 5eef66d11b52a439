"""Operations as an exported graph of any size needs them.

torch's tracer writes adaptive pooling down for the very size that it sees, not for any; and the padding of lite0,
which depends on whether a side is even, as a formula that grows with every layer until no end is in sight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SizeFreeOperations(TorchFunctionMode):
    """Within it, adaptive average pooling is two matrix products, right for every size."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.adaptive_avg_pool2d:
            return adaptive_average(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def onnx_padding(module: nn.Module) -> Iterator[None]:
    """Within it, timm's convolutions with TensorFlow's padding are ONNX's own, which know it: for exporting alone."""
    convolutions: list[Any] = [m for m in module.modules() if isinstance(m, Conv2dSame)]
    for convolution in convolutions:
        convolution.forward = functools.partial(_same_convolution, convolution)
    try:
        yield
    finally:
        for convolution in convolutions:
            del convolution.forward


def _same_convolution(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    stride = [int(s) for s in convolution.stride]
    given = (x, convolution.weight) if convolution.bias is None else (x, convolution.weight, convolution.bias)
    options = {
        "auto_pad": "SAME_UPPER",
        "strides": stride,
        "dilations": [int(d) for d in convolution.dilation],
        "group": convolution.groups,
    }
    sides = [(side - 1) // step + 1 for side, step in zip(x.shape[-2:], stride, strict=True)]
    shape = (x.shape[0], convolution.out_channels, *sides)
    return torch.onnx.ops.symbolic("Conv", given, options, dtype=x.dtype, shape=shape)


def adaptive_average(input: Tensor, output_size: Any) -> Tensor:
    """F.adaptive_avg_pool2d of maps (..., h, w): (..., H, W). The names are its."""
    height, width = output_size if isinstance(output_size, (tuple, list, torch.Size)) else (output_size, output_size)
    rows = _inside(input.shape[-2] if height is None else height, of=input.shape[-2], like=input)
    columns = _inside(input.shape[-1] if width is None else width, of=input.shape[-1], like=input)
    # whole sums first, as torch has them: a mask's share of exactly a half must not become a little more
    return (rows @ input @ columns.t()) / (rows.sum(1).unsqueeze(1) * columns.sum(1))


def _inside(bins: int, *, of: int, like: Tensor) -> Tensor:
    """(bins, of): 1 where a position lies in a bin, else 0; neighbouring bins may share one."""
    bin_ = torch.arange(bins, device=like.device).unsqueeze(1)
    position = torch.arange(of, device=like.device)
    inside = (position >= bin_ * of // bins) & (position < ((bin_ + 1) * of + bins - 1) // bins)
    return inside.to(like.dtype)
