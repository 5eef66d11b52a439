"""Ensemble of the meta learner with the base learner (BAM section 3.4; docs/networks/hdmnet.md section 6)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.models.parts.ops import resize_ac


class BaseEnsemble(nn.Module):
    """Fuses meta and base predictions, led by how far the query's style is from the support's."""

    def __init__(self) -> None:
        super().__init__()
        self.gram_merge = _keep_first()
        self.base_merge = _keep_first()

    def forward(self, meta: Tensor, base: Tensor, psi: Tensor, base_index: Tensor | None = None) -> Tensor:
        """Meta logits (B, 2, h, w), base logits (B, 1 + N, h', w') and psi (B,) to fused probabilities (B, 2, h, w).

        A class that the base learner knows (`base_index` >= 0) does not speak against itself.
        """
        probability = meta.softmax(1)
        style = psi.view(-1, 1, 1, 1).expand_as(probability[:, :1])  # (B, 1, h, w): one number a query
        # one 1x1 convolution for both, which starts as "keep the probability, leave the style out"
        background = self.gram_merge(torch.cat([probability[:, :1], style], 1))
        fg = self.gram_merge(torch.cat([probability[:, 1:], style], 1))
        # what the base learner takes for another class speaks for the background; this weight starts at 0 too
        other = resize_ac(base_foreground(base, base_index), meta.shape[-2:])
        return torch.cat([self.base_merge(torch.cat([background, other], 1)), fg], 1)


def base_foreground(base: Tensor, base_index: Tensor | None = None) -> Tensor:
    """The base learner's probability of any base class but the episode's own: (B, 1, h, w)."""
    probability = base.softmax(1)[:, 1:]
    if base_index is not None:
        # one more class for -1, so that a novel class leaves all N in
        own = F.one_hot(base_index % (probability.shape[1] + 1), probability.shape[1] + 1)[:, :-1]
        probability = probability * (1 - own[:, :, None, None].to(probability.dtype))
    return probability.sum(1, keepdim=True)


class ShotWeights(nn.Module):
    """Weights of K shots from their Gram distances: two 1x1 convolutions on the ascending distances, then a softmax.

    One shot weighs 1. A number of shots other than the trained one has no trained weights: all weigh the same.
    """

    def __init__(self, shots: int) -> None:
        super().__init__()
        self.shots = shots
        if shots > 1:
            self.mix = nn.Sequential(nn.Conv2d(shots, 2, 1), nn.ReLU(), nn.Conv2d(2, shots, 1))

    def forward(self, distance: Tensor, *, restore_order: bool = True) -> Tensor:
        """Distances (B, K) to weights (B, K) that sum to 1, in the shots' order (or, if not restored, in ascending
        order).
        """
        if distance.shape[1] != self.shots or self.shots == 1:
            return torch.full_like(distance, 1 / distance.shape[1])
        ascending, order = distance.sort(1)
        scores = self.mix(rearrange(ascending, "b k -> b k 1 1")).flatten(1)  # (B, K)
        if restore_order:
            scores = torch.zeros_like(scores).scatter(1, order, scores)
        return scores.softmax(1)


def _keep_first() -> nn.Conv2d:
    conv = nn.Conv2d(2, 1, 1, bias=False)
    nn.init.dirac_(conv.weight)
    return conv
