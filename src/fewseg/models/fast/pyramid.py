"""The base learner's 3x3 convolution without the work that pyramid pooling makes needless.

    conv3x3([f4, up-sampled averages]) = conv3x3(f4) + conv3x3(up-sampled averages)

Both up-sampling and convolution are linear. The kernel's nine taps multiply the at most 6 x 6 averages; then every
tap's products are up-sampled to where that tap would have read them, zeros beyond the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.models.fast import winograd
from fewseg.models.parts.base_learner import BaseHead, nearest_foreground
from fewseg.models.parts.ops import side_weights

TAPS = (-1, 0, 1)
MANY = 0.25
"""Share of wanted positions from which on the whole convolution is quicker than one of chosen positions."""


class FoldedBaseHead(BaseHead):
    """The base head whose convolution sees f4 and the averages apart, and f4 at the foreground alone."""

    keeps_plain: ClassVar = ("ppm",)

    def lay_out(self) -> None:
        """Lay out the convolution's weight channels last; no value changes."""
        with torch.inference_mode(False), torch.no_grad():
            self.reduce.to(memory_format=torch.channels_last)

    def forward(self, f4: Tensor, fg: Tensor | None = None) -> Tensor:
        convolution, norm = cast(nn.Conv2d, self.reduce[0]), self.reduce[1]
        averages = self._averages(f4)  # (B, C/4, bins, bins)
        pooled = pooled_convolution(averages, convolution, (f4.shape[-2], f4.shape[-1]))
        if fg is None:
            return norm(own_convolution(f4, convolution) + pooled)
        where = nearest_foreground(f4, fg)
        return norm(own_convolution(f4, convolution, where=where[:, 0]) + pooled) * where

    def _averages(self, f4: Tensor) -> list[Tensor]:
        pools: Any = self.ppm.features
        if not f4.is_cuda:
            return [pool(f4) for pool in pools]
        pooled = bin_averages(f4, [pool[0].output_size for pool in pools])
        return [pool[1:](maps) for pool, maps in zip(pools, pooled, strict=True)]


def bin_averages(maps: Tensor, bins: Sequence[int]) -> list[Tensor]:
    """Averages of (B, C, h, w) over 1 x 1, 2 x 2, ... bins, (B, C, b, b) each, by one product for all: torch's own pass
    over the maps for each takes a tenth of a GPU's time.
    """
    sides = [torch.eye(side, dtype=maps.dtype, device=maps.device).unsqueeze(0) for side in maps.shape[-2:]]
    shares = [[F.adaptive_avg_pool1d(side, b)[0].t() for side in sides] for b in bins]
    both = [(down[:, None, :, None] * across[:, None]).flatten(2).flatten(0, 1) for down, across in shares]
    found = (torch.cat(both) @ maps.flatten(2).transpose(1, 2)).transpose(1, 2)  # (B, C, sum of b * b)
    return [part.unflatten(2, (b, b)) for part, b in zip(found.split([b * b for b in bins], 2), bins, strict=True)]


def own_convolution(f4: Tensor, conv: nn.Conv2d, *, where: Tensor | None = None) -> Tensor:
    """The convolution's part on f4 (B, C, h, w) itself: (B, O, h, w).

    With `where` (B, h, w) it is needed at the positions that are true; elsewhere it may be anything.
    """
    weight = conv.weight[:, : f4.shape[1]]
    if where is not None and not where.is_cuda and where.float().mean() < MANY:  # on a GPU, both would wait for it
        return _convolution_where(f4, weight, where)
    if winograd.suits(f4, conv):
        return winograd.convolve(f4, weight)
    return F.conv2d(f4, weight, padding=1)


def pooled_convolution(pooled: list[Tensor], conv: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """The convolution's part on averages (B, c, b, b) that are resized-AC to `size` and concatenated: (B, O, h, w)."""
    weight = conv.weight[:, -sum(maps.shape[1] for maps in pooled) :]
    h, w = size
    columns = []
    kernels = weight.split([maps.shape[1] for maps in pooled], 1)  # (O, c, 3, 3) each
    for maps, kernel in zip(pooled, kernels, strict=True):
        taps = torch.einsum("bcij,ocyx->boyixj", maps, kernel)  # at the averages themselves
        across = _tap_resampling(maps.shape[-1], w, like=maps)  # (3, b, w)
        columns.append(torch.einsum("boyixj,xjw->boyiw", taps, across).flatten(2, 3))
    down = torch.cat([_tap_resampling(maps.shape[-2], h, like=maps).flatten(0, 1) for maps in pooled])  # (36, h)
    return torch.einsum("bokw,kh->bhwo", torch.cat(columns, 2), down).permute(0, 3, 1, 2)


def _tap_resampling(bins: int, side: int, *, like: Tensor) -> Tensor:
    """(3, bins, side): how much every bin counts, resized-AC to `side`, one position before, at and after each one."""
    padded = F.pad(side_weights(bins, side, align_corners=True, like=like), (1, 1))
    return torch.stack([padded[:, 1 + tap : 1 + tap + side] for tap in TAPS])


def _convolution_where(maps: Tensor, weight: Tensor, where: Tensor) -> Tensor:
    """Only the chosen positions: one product for each tap."""
    b, _, h, w = maps.shape
    rows = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).flatten(0, 2)  # (B * (h + 2) * (w + 2), C)
    item, y, x = where.nonzero(as_tuple=True)
    centre = (item * (h + 2) + y + 1) * (w + 2) + x + 1
    out = maps.new_zeros(len(centre), weight.shape[0])
    for dy in TAPS:
        for dx in TAPS:
            out = out + rows[centre + dy * (w + 2) + dx] @ weight[:, :, dy + 1, dx + 1].t()
    result = out.new_zeros(b, h, w, weight.shape[0])
    result[item, y, x] = out
    return result.permute(0, 3, 1, 2)
