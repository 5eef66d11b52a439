"""3x3 convolutions with a quarter of the multiplications, on a CPU; so are their gradients.

Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, https://arxiv.org/abs/1509.09308: F(4 x 4,
3 x 3). A tile of 6 x 6 inputs and the kernel are each evaluated at 36 points, multiplied there, and taken back to 4 x 4
outputs. A dilated convolution is an ordinary one on every dilation-th row and column. Rounding errors are
about five times the direct sum's: some 2e-6 of the largest output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4
"""Outputs per side of a tile."""
SIDE = TILE + 2
"""Inputs per side of a tile."""
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where the polynomials are evaluated, besides infinity."""
FEWEST_CHANNELS = 128
"""Below, the multiplications saved are fewer than the additions made."""
FEWEST_POSITIONS = 400
"""Below, to evaluate the kernel takes longer than it saves (undilated: `python -m benchmarks.convolution`)."""
FEWEST_TRAINED = 1000
"""The same where the kernel is trained: it is evaluated three times."""
MOST_PRODUCTS = 0.45
"""Share of the direct way's products above which moving the tiles about takes longer than the products saved."""
KERNELS_AT_ONCE = 2**17
"""Kernels (3, 3) that are evaluated at once: at the points they take four times their memory."""
CHANNELS_AT_ONCE = 256
"""Channels of the input that are evaluated at once: as tiles they take more than twice their memory, twice."""


class QuickConv2d(nn.Conv2d):
    """A convolution that goes by tiles where they suit it, trained or not."""

    def forward(self, input: Tensor) -> Tensor:
        if not suits(input, self):
            return super().forward(input)
        return convolve(input, self.weight, self.bias, dilation=self.dilation[0])


def is_trained(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a gradient will pass through a convolution."""
    return torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)


def suits(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether `convolve` can and should take the place of a convolution of x."""
    return (
        x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == conv.dilation
        and conv.dilation[0] == conv.dilation[1]
        and conv.groups == 1
        and min(conv.weight.shape[:2]) >= FEWEST_CHANNELS
        and x.shape[0] * x.shape[-2] * x.shape[-1] >= (FEWEST_TRAINED if is_trained(conv, x) else FEWEST_POSITIONS)
        and _products(x.shape[-2:], conv.dilation[0]) <= MOST_PRODUCTS
        and not torch.compiler.is_compiling()
    )


def _products(size: torch.Size, dilation: int) -> float:
    """Products by tiles to products of the direct way, which leaves out the taps that read beyond the border."""
    tiles = [SIDE * dilation * count for count in _tiles(size, dilation)]
    direct = [side + 2 * max(0, side - dilation) for side in size]
    return math.prod(tiles) / math.prod(direct)


def _tiles(size: torch.Size, dilation: int) -> list[int]:
    """Tiles per side of a sub-grid."""
    return [-(-side // (TILE * dilation)) for side in size]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1) -> Tensor:
    """conv3x3 of (B, C, h, w) by a weight (O, C, 3, 3), with padding = dilation: (B, O, h, w)."""
    return _ByTiles.apply(x, weight, bias, dilation)  # type: ignore[return-value]


class _ByTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        out = _convolve(x, weight, dilation)
        return out if bias is None else out.add_(bias.view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _convolve(grad, weight.flip(2, 3).transpose(0, 1), ctx.dilation) if of_x else None,
            _weight_gradient(x, grad, ctx.dilation) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    kernels, outputs = (torch.from_numpy(np.kron(t, t)).to(x) for t in _transforms()[1:])
    (b, c, h, w), o = x.shape, weight.shape[0]
    rows, columns = _tiles(x.shape[-2:], dilation)
    points = _evaluated(x, rows, columns, dilation)

    def part(first: int, last: int) -> Tensor:
        chosen = weight[first:last].permute(0, 2, 3, 1).reshape(-1, 9, c)  # channels last, as it is
        products = points @ (kernels @ chosen).permute(1, 2, 0)  # (36, tiles, part of O)
        return (outputs @ products.flatten(1)).view(TILE**2, points.shape[1], -1)

    out = _in_parts(part, o, max(1, KERNELS_AT_ONCE // c))
    out = out.view(TILE, TILE, b, rows, dilation, columns, dilation, o).permute(2, 3, 0, 4, 5, 1, 6, 7)
    out = out.reshape(b, rows * TILE * dilation, columns * TILE * dilation, o)[:, :h, :w].permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last)


def _weight_gradient(x: Tensor, grad: Tensor, dilation: int) -> Tensor:
    """The gradient of the weight (O, C, 3, 3): outputs taken to the points, multiplied there, and taken to taps."""
    kernels, outputs = (torch.from_numpy(np.kron(t, t)).to(x) for t in _transforms()[1:])
    (b, o, h, w), c = grad.shape, x.shape[1]
    rows, columns = _tiles(grad.shape[-2:], dilation)
    right, bottom = columns * TILE * dilation - w, rows * TILE * dilation - h
    tiles = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, right, 0, bottom))
    tiles = tiles.view(b, rows, TILE, dilation, columns, TILE, dilation, o).permute(2, 5, 0, 1, 3, 4, 6, 7)
    points = (outputs.t() @ tiles.reshape(TILE**2, -1)).view(SIDE**2, -1, o)
    products = points.transpose(1, 2) @ _evaluated(x, rows, columns, dilation)  # (36, O, C)
    return (kernels.t() @ products.flatten(1)).view(3, 3, o, c).permute(2, 3, 0, 1)


def _evaluated(x: Tensor, rows: int, columns: int, dilation: int) -> Tensor:
    """All tiles of (B, C, h, w) at the 36 points: (36, tiles, C)."""
    (b, c, h, w), step = x.shape, TILE * dilation
    transform = torch.from_numpy(np.kron(_transforms()[0], _transforms()[0])).to(x)
    bottom, right = rows * step + dilation - h, columns * step + dilation - w

    def part(first: int, last: int) -> Tensor:
        chosen = x[:, first:last].permute(0, 2, 3, 1)
        padded = F.pad(chosen, (0, 0, dilation, right, dilation, bottom)).contiguous()
        image, line, position = padded.stride()[:3]
        tiles = padded.as_strided(  # the dilation's sub-grids are tiles like all others
            (SIDE, SIDE, b, rows, dilation, columns, dilation, last - first),
            (dilation * line, dilation * position, image, step * line, line, step * position, position, 1),
        ).reshape(SIDE**2, -1)
        return (transform @ tiles).view(SIDE**2, -1, last - first)

    return _in_parts(part, c, CHANNELS_AT_ONCE)


def _in_parts(part: Callable[[int, int], Tensor], channels: int, at_once: int) -> Tensor:
    """(..., channels), of which `part(first, last)` gives some; one part is the whole as it is."""
    if channels <= at_once:
        return part(0, channels)
    whole: Any = None
    for first in range(0, channels, at_once):
        given = part(first, min(first + at_once, channels))
        whole = given.new_empty(*given.shape[:-1], channels) if whole is None else whole
        whole[..., first : first + at_once] = given
        del given  # not beside the next one
    return whole


@lru_cache(maxsize=1)
def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Toom-Cook's matrices for four outputs of three taps: inputs (6, 6), kernel (6, 3), outputs (4, 6)."""
    count = len(POINTS)
    inputs, kernel, outputs = np.zeros((SIDE, SIDE)), np.zeros((SIDE, 3)), np.zeros((TILE, SIDE))
    for k, point in enumerate(POINTS):
        others = [p for i, p in enumerate(POINTS) if i != k]
        inputs[k, :count] = np.poly(others)[::-1]
        kernel[k] = point ** np.arange(3) / np.prod([point - p for p in others])
        outputs[:, k] = point ** np.arange(TILE)
    inputs[-1] = np.poly(POINTS)[::-1]
    kernel[-1, -1] = outputs[-1, -1] = 1  # infinity: the highest coefficient
    return inputs, kernel, outputs
