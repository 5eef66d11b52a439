"""Nearness of query and support features: the prior, and nearest-pixel matching.

Modules without parameters, so that a view of a model (`fewseg.models.fast`) can put others in their place.
"""

from __future__ import annotations

from torch import Tensor, nn

from fewseg.models.parts.ops import in_fp32


class CosinePrior(nn.Module):
    """How near every query position is to the support's foreground (docs/networks/hdmnet.md section 2)."""

    @in_fp32
    def forward(self, query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
        """Highest cosine of every query position (B, C, h, w) with the support positions (B, K, C, h', w'), per shot:
        (B, K, h, w).

        `fg` (B, K, h', w') multiplies the support vectors, so background positions contribute 0.
        """
        q = query.flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, L, C)
        s = (support * fg.unsqueeze(2)).flatten(3)  # (B, K, C, M)
        cosine = (q @ s) / (q.norm(dim=-1, keepdim=True) * s.norm(dim=2, keepdim=True) + 1e-7)  # (B, K, L, M)
        return cosine.amax(3).unflatten(2, query.shape[-2:])


class NearestCosines(nn.Module):
    """How near every query position is to each side of the supports, such as foreground and background."""

    @in_fp32
    def forward(self, query: Tensor, support: Tensor, sides: Tensor) -> Tensor:
        """Highest product of every query position (B, C, h, w) with the positions of each side in all shots:
        (B, S, h, w).

        `support` (B, K, C, h', w'), `sides` (B, S, K, h', w') of 0 and 1; an empty side gives -1. Of unit features the
        products are cosines.
        """
        q, s = query.flatten(2).transpose(1, 2), support.transpose(1, 2).flatten(2)  # (B, L, C), (B, C, M)
        products = (q @ s).unsqueeze(1)  # (B, 1, L, M)
        outside = sides.flatten(2).unsqueeze(2) == 0  # (B, S, 1, M)
        return products.masked_fill(outside, -1.0).amax(3).unflatten(2, query.shape[-2:])
