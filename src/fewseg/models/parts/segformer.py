"""SegFormer's building blocks (Xie et al., NeurIPS 2021), as HDMNet uses them (docs/networks/hdmnet.md section 3)."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class EncoderLayer(nn.Module):
    """x + attention(LN(x)), then x + Mix-FFN(LN(x)); keys and values on a grid `reduction` times coarser."""

    def __init__(self, width: int, heads: int, reduction: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.projections = Projections(width, heads, dropout=dropout)
        self.reduce = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(width, eps=1e-6) if reduction > 1 else None
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = MixFFN(width, dropout=dropout)

    def forward(self, tokens: Tensor, h: int, w: int) -> Tensor:
        """Tokens (B, h * w, C) to tokens of the same shape."""
        x = self.norm1(tokens)
        context = x
        if self.reduce is not None and self.reduce_norm is not None:
            maps = self.reduce(rearrange(x, "b (h w) c -> b c h w", h=h))  # (B, C, h / r, w / r)
            context = self.reduce_norm(rearrange(maps, "b c h w -> b (h w) c"))  # (B, M, C)
        q, k, v = self.projections(x, context)  # (B, heads, L, d), twice (B, heads, M, d)
        tokens = tokens + self.projections.merge(F.scaled_dot_product_attention(q, k, v))
        return tokens + self.ffn(self.norm2(tokens), h, w)


class Projections(nn.Module):
    """q, k, v and output projections without bias, split into heads: (B, L, C) <-> (B, heads, L, C / heads)."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, L, C) to queries (B, heads, L, d), context (B, M, C) to keys and values (B, heads, M, d)."""
        projected = (self.q(tokens), self.k(context), self.v(context))
        q, k, v = (rearrange(p, "b l (n d) -> b n l d", n=self.heads) for p in projected)
        return q, k, v

    def merge(self, out: Tensor) -> Tensor:
        """(B, heads, L, d) to (B, L, C)."""
        return self.dropout(self.o(rearrange(out, "b n l d -> b l (n d)")))


class MixFFN(nn.Module):
    """SegFormer's feed-forward part: a depth-wise convolution between two 1x1 ones."""

    def __init__(self, width: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(4 * width, width, 1),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, h: int, w: int) -> Tensor:
        """Tokens (B, h * w, C) to tokens of the same shape."""
        maps = self.layers(rearrange(tokens, "b (h w) c -> b c h w", h=h))
        return rearrange(maps, "b c h w -> b (h w) c")
