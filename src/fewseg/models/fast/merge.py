"""A prototype's part of a 1x1 convolution, computed once instead of at every position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewseg.models.parts.merge import Merge


class SplitMerge(Merge):
    """Merge whose prototype is multiplied as it is, (B, C): the maps' and the priors' part is half of the work."""

    def forward(self, maps: Tensor, prototype: Tensor, *priors: Tensor) -> Tensor:
        modules: Any = list(self)
        convolution, *after = modules
        own, shared, others = convolution.weight.split([w := maps.shape[1], w, convolution.in_channels - 2 * w], 1)
        given = torch.cat([maps, *priors], 1) if priors else maps
        x = F.conv2d(given, torch.cat([own, others], 1)) + F.linear(prototype, shared.flatten(1))[..., None, None]
        for module in after:
            x = module(x)
        return x
