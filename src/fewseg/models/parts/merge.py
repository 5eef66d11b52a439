"""Where the support's prototype and the priors are let into the query's maps (PFENet, BAM, HDMNet, lite)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewseg.models.parts.ops import tile


class Merge(nn.Sequential):
    """1x1 convolution of [maps, prototype at every position, priors], and what follows it."""

    def __init__(self, width: int, priors: int, outputs: int, *after: nn.Module) -> None:
        super().__init__(nn.Conv2d(2 * width + priors, outputs, 1, bias=False), *after)

    def forward(self, maps: Tensor, prototype: Tensor, *priors: Tensor) -> Tensor:
        """Maps (B, C, h, w), prototype (B, C) and priors (B, P, h, w) to (B, outputs, h, w)."""
        return super().forward(torch.cat([maps, tile(prototype, maps), *priors], 1))
