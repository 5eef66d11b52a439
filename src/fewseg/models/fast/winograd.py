"""3x3 convolutions with a quarter of the multiplications, for maps that need no gradient, on a CPU.

Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, https://arxiv.org/abs/1509.09308: F(4 x 4,
3 x 3). A tile of 6 x 6 inputs and the kernel are each evaluated at 36 points, multiplied there, and taken back to 4 x 4
outputs. A dilated convolution is an ordinary one on every dilation-th row and column. Rounding errors are
about five times the direct sum's: some 2e-6 of the largest output.
"""

from __future__ import annotations

from functools import lru_cache

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
KERNELS_AT_ONCE = 2**17
"""Kernels (3, 3) that are evaluated at once: at the points they take four times their memory."""
CHANNELS_AT_ONCE = 256
"""Channels of the input that are evaluated at once: as tiles they take more than twice their memory, twice."""


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
        and x.shape[0] * x.shape[-2] * x.shape[-1] >= FEWEST_POSITIONS
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1) -> Tensor:
    """conv3x3 of (B, C, h, w) by a weight (O, C, 3, 3), with padding = dilation: (B, O, h, w)."""
    kernels, outputs = (torch.from_numpy(np.kron(t, t)).to(x) for t in _transforms()[1:])
    (b, c, h, w), o = x.shape, weight.shape[0]
    rows, columns = (-(-side // (TILE * dilation)) for side in (h, w))
    points = _evaluated(x, rows, columns, dilation)
    out = x.new_empty(TILE, TILE, b * rows * dilation * columns * dilation, o)
    count = max(1, KERNELS_AT_ONCE // c)
    for part in range(0, o, count):
        chosen = weight[part : part + count]
        kernel = kernels @ chosen.permute(0, 2, 3, 1).reshape(-1, 9, c)  # (part of O, 36, C): channels last as it is
        products = points @ kernel.permute(1, 2, 0)  # (36, tiles, part of O)
        out[..., part : part + count] = (outputs @ products.flatten(1)).view(*out.shape[:3], -1)
    if bias is not None:
        out += bias
    out = out.view(TILE, TILE, b, rows, dilation, columns, dilation, o).permute(2, 3, 0, 4, 5, 1, 6, 7)
    out = out.reshape(b, rows * TILE * dilation, columns * TILE * dilation, o)[:, :h, :w].permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last)


def _evaluated(x: Tensor, rows: int, columns: int, dilation: int) -> Tensor:
    """All tiles of (B, C, h, w) at the 36 points: (36, tiles, C)."""
    (b, c, h, w), step = x.shape, TILE * dilation
    transform = torch.from_numpy(np.kron(_transforms()[0], _transforms()[0])).to(x)
    bottom, right = rows * step + dilation - h, columns * step + dilation - w
    points = x.new_empty(SIDE**2, b * rows * dilation * columns * dilation, c)
    for part in range(0, c, CHANNELS_AT_ONCE):
        chosen = x[:, part : part + CHANNELS_AT_ONCE].permute(0, 2, 3, 1)
        padded = F.pad(chosen, (0, 0, dilation, right, dilation, bottom)).contiguous()
        image, line, position = padded.stride()[:3]
        tiles = padded.as_strided(  # the dilation's sub-grids are tiles like all others
            (SIDE, SIDE, b, rows, dilation, columns, dilation, chosen.shape[-1]),
            (dilation * line, dilation * position, image, step * line, line, step * position, position, 1),
        ).reshape(SIDE**2, -1)
        points[..., part : part + CHANNELS_AT_ONCE] = (transform @ tiles).view(*points.shape[:2], -1)
    return points


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
