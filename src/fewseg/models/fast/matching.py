"""Matching of the supports' foreground alone.

Background is left out before anything is multiplied, and positions are taken in parts, so that no table of all support
positions by all query positions is ever made; the numbers are those of the whole table. A GPU keeps the background: to
know how much is marked, the processor would have to wait for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewseg.models.hdmnet import CorrelationAttention
from fewseg.models.parts.matching import CosinePrior, NearestCosines
from fewseg.models.parts.ops import in_fp32

TABLE = 2**22
"""Most entries of a table of support by query positions (16 MB)."""
GPU_TABLE = 2**26
"""The same on a GPU (256 MB): enough to fill it."""
SMALL_TABLE = 2**17
"""Entries up to which the whole table is quicker than leaving the background out."""
KEPT_TABLE = 2**18
"""Entries up to which training keeps a table instead of making it again."""


def keeps_background(tensor: Tensor) -> bool:
    """Whether the background is multiplied too, and masked."""
    return tensor.is_cuda


class ForegroundAttention(CorrelationAttention):
    """Correlation attention without the background's votes: the softmax runs over query positions, so they touch no
    other.
    """

    @in_fp32
    def spread(self, q: Tensor, k: Tensor, v: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
        if q.shape[:-1].numel() * k.shape[-2] <= SMALL_TABLE:
            return super().spread(q, k, v, fg)
        q = q / self.vote_temperature
        if keeps_background(q):
            marks = fg[:, None, :, None]
            mean_key = (k * marks).sum(2) / (marks.sum(2) + 1e-9)
            return _votes(q, k, v * marks, table=GPU_TABLE), (q @ mean_key.unsqueeze(3))[..., 0]
        votes, means = [], []
        for query, key, value, marked in zip(q, k, v, fg, strict=True):
            chosen = marked.nonzero()[:, 0]
            keys, weight = key[:, chosen], marked[chosen, None]
            votes.append(_votes(query, keys, value[:, chosen] * weight, table=TABLE))
            mean_key = (keys * weight).sum(1) / (marked.sum() + 1e-9)  # the mean of products is that with the mean
            means.append((query @ mean_key.unsqueeze(2))[..., 0])
        return torch.stack(votes), torch.stack(means)


def _votes(query: Tensor, keys: Tensor, values: Tensor, *, table: int) -> Tensor:
    """Votes (..., L, d), support positions (..., M, d) in parts; training keeps no large table, it is made again."""
    part = _positions_at_once(table, query.shape[:-1].numel())
    large = query.shape[:-1].numel() * min(part, keys.shape[-2]) > KEPT_TABLE
    total = torch.zeros_like(query, dtype=values.dtype)
    for k, v in zip(keys.split(part, -2), values.split(part, -2), strict=True):
        if large and torch.is_grad_enabled() and query.requires_grad:
            votes = checkpoint(_part_votes, query, k, v, use_reentrant=False, preserve_rng_state=False)
        else:
            votes = _part_votes(query, k, v)
        total = total + votes
    return total


def _positions_at_once(table: int, entries: int) -> int:
    """How many support positions of `entries` each fit a table; by 64, since a GPU is slow at odd widths."""
    fitting = max(1, table // entries)
    return fitting // 64 * 64 or fitting


def _part_votes(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attention = (keys @ query.transpose(-2, -1)).softmax(-1)  # (..., support positions, L): over QUERY positions
    return attention.transpose(-2, -1) @ values


class ForegroundNearest(NearestCosines):
    """Nearest cosines with the marked positions alone."""

    @in_fp32
    def forward(self, query: Tensor, support: Tensor, sides: Tensor) -> Tensor:
        flat, size = query.flatten(2).transpose(1, 2), query.shape[-2:]  # (B, L, C)
        positions, marks = support.transpose(1, 2).flatten(2), sides.flatten(2)  # (B, C, M), (B, S, M)
        if marks.numel() * flat.shape[1] <= SMALL_TABLE:
            return super().forward(query, support, sides)
        if keeps_background(query):
            whole = super().forward
            return _largest(
                lambda part: whole(query, positions[:, None, :, None, part], marks[:, :, None, None, part]),
                marks.shape[2],
                marks.shape[1] * flat.shape[:2].numel(),
            )
        rows = [
            torch.stack([_best_product(q, s[:, mark.nonzero()[:, 0]]) for mark in of_side])
            for q, s, of_side in zip(flat, positions, marks, strict=True)
        ]
        return torch.stack(rows).unflatten(2, size)


def _best_product(query: Tensor, chosen: Tensor) -> Tensor:
    """Of every query position (L, C) with positions (C, M): (L,), in parts; -1 where there is none."""
    best = query.new_full(query.shape[:1], -1.0)
    for part in chosen.split(max(1, TABLE // len(query)), 1):
        best = torch.maximum(best, (query @ part).amax(1)) if part.shape[1] else best
    return best


def _largest(of_part: Callable[[slice], Tensor], positions: int, entries: int) -> Tensor:
    """The largest of what the parts of a table give; `entries` are those of one support position."""
    part = _positions_at_once(GPU_TABLE, entries)
    return functools.reduce(torch.maximum, (of_part(slice(i, i + part)) for i in range(0, positions, part)))


class ForegroundPrior(CosinePrior):
    """The prior from the foreground; a background position counts as the 0 that it gives."""

    def forward(self, query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
        if not keeps_background(query):
            return self._of_chosen(query, support, fg)
        if torch.is_autocast_enabled(query.device.type):
            return _prior_in_half(query, support, fg)
        whole, positions, marks = super().forward, support.flatten(3), fg.flatten(2)  # (B, K, C, M), (B, K, M)
        return _largest(
            lambda part: whole(query, positions[..., None, part], marks[..., None, part]),
            marks.shape[2],
            marks.shape[:2].numel() * query.shape[-2:].numel(),
        )

    @in_fp32
    def _of_chosen(self, query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
        rows = [
            torch.stack([_best_cosine(q, s, marked) for s, marked in zip(shots, marks, strict=True)])
            for q, shots, marks in zip(query, support, fg, strict=True)
        ]
        return torch.stack(rows).unflatten(2, query.shape[-2:])


def _prior_in_half(query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
    """The prior with products in autocast's precision, which the features have: 2,048 channels make them most of what
    is left to multiply in fp32.
    """
    dtype = torch.get_autocast_dtype(query.device.type)
    q, s = query.flatten(2), support.flatten(3) * fg.flatten(2).unsqueeze(2)  # (B, C, L), (B, K, C, M)
    units = (s / (_norms(s, 2) + 1e-7)).to(dtype)
    rows = q.transpose(1, 2).to(dtype).unsqueeze(1)  # (B, 1, L, C)
    entries = s.shape[:2].numel() * q.shape[2]
    best = _largest(lambda part: (rows @ units[..., part]).amax(3), s.shape[3], entries)
    return (best.float() / (_norms(q, 1) + 1e-7)).unflatten(2, query.shape[-2:])


def _norms(vectors: Tensor, dim: int) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=dim, keepdim=True, dtype=torch.float32)


def _best_cosine(query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
    """One query (C, h, w) and one shot (C, h', w') with its foreground (h', w') to (h * w,)."""
    q = query.flatten(1).t()
    q_norm = q.norm(dim=1, keepdim=True)
    chosen = fg.flatten().nonzero()[:, 0]
    # where there is background, its cosine is 0
    best = q.new_full(q.shape[:1], -torch.inf if len(chosen) == fg.numel() else 0.0)
    for part in chosen.split(max(1, TABLE // len(q))):
        s = support.flatten(1).t()[part] * fg.flatten()[part, None]
        best = torch.maximum(best, ((q @ s.t()) / (q_norm * s.norm(dim=1) + 1e-7)).amax(1)) if len(part) else best
    return best
