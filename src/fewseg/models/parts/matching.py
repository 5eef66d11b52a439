"""What only the supports' foreground takes part in: votes of support positions over the query, and the prior.

Background is left out before anything is multiplied, and positions are taken in parts, so that no table of all support
positions by all query positions is ever made; the numbers are those of the whole table.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewseg.models.parts.ops import in_fp32

TABLE = 2**22
"""Most entries of a table of support by query positions (16 MB)."""


def each_shot(
    match: Callable[[dict[str, Tensor], dict[str, Tensor]], tuple[Tensor, ...]],
    query: dict[str, Tensor],
    support: dict[str, Tensor],
) -> tuple[Tensor, ...]:
    """`match(query, support)` of every shot alone: support features (B, K, ...) to it as (B, ...), its outputs back as
    (B, K, ...).

    Memory is one shot's. Only an exported graph, which holds for any K, takes the shots as one batch.
    """
    shots = next(iter(support.values())).shape[1]
    if torch.compiler.is_exporting():
        repeated = {n: f.unsqueeze(1).expand(-1, shots, *f.shape[1:]).flatten(0, 1) for n, f in query.items()}
        found = match(repeated, {n: f.flatten(0, 1) for n, f in support.items()})
        return tuple(f.unflatten(0, (-1, shots)) for f in found)
    apart = [match(query, {n: f[:, shot] for n, f in support.items()}) for shot in range(shots)]
    return tuple(torch.stack(found, 1) for found in zip(*apart, strict=True))


@in_fp32
def spread_votes(
    query: Tensor, keys: Tensor, values: Tensor, fg: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Every foreground support position spreads its vote over the query: (B, heads, L, d), and the mean score of every
    query position (B, heads, L) (spec hdmnet.md section 4).

    `query` (B, heads, L, d), `keys` and `values` (B, heads, M, d), `fg` (B, M) of 0 and 1. The softmax runs over query
    positions, so the background's votes touch no other and need not be counted.
    """
    if torch.compiler.is_exporting():
        return _spread_all(query / temperature, keys, values, fg.unsqueeze(1).unsqueeze(3))
    votes, means = [], []
    for q, key, value, marked in zip(query / temperature, keys, values, fg, strict=True):
        chosen = marked.nonzero()[:, 0]
        k, v = key[:, chosen], value[:, chosen]
        votes.append(_votes(q, k, v))
        mean_key = k.sum(1) / (len(chosen) + 1e-9)  # the mean of products is the product with the mean
        means.append((q @ mean_key.unsqueeze(2))[..., 0])
    return torch.stack(votes), torch.stack(means)


def _spread_all(query: Tensor, keys: Tensor, values: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the whole table, the background's votes times 0: an exported graph cannot choose positions."""
    attention = (keys @ query.transpose(2, 3)).softmax(3)  # (B, heads, M, L)
    mean_key = (keys * fg).sum(2) / (fg.sum(2) + 1e-9)
    return attention.transpose(2, 3) @ (values * fg), (query @ mean_key.unsqueeze(3))[..., 0]


def _votes(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One episode's votes (heads, L, d), support positions in parts; training keeps no table, it is made again."""
    part = max(1, TABLE // (query.shape[0] * query.shape[1]))
    total = torch.zeros_like(query, dtype=values.dtype)
    for k, v in zip(keys.split(part, 1), values.split(part, 1), strict=True):
        if torch.is_grad_enabled() and query.requires_grad:
            votes = checkpoint(_part_votes, query, k, v, use_reentrant=False, preserve_rng_state=False)
        else:
            votes = _part_votes(query, k, v)
        total = total + votes
    return total


def _part_votes(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attention = (keys @ query.transpose(1, 2)).softmax(2)  # (heads, support positions, L): over QUERY positions
    return attention.transpose(1, 2) @ values


@in_fp32
def nearest_cosines(query: Tensor, support: Tensor, sides: Tensor) -> Tensor:
    """Highest product of every query position (B, C, h, w) with the positions of each side in all shots: (B, S, h, w).

    `support` (B, K, C, h', w'), `sides` (B, S, K, h', w') of 0 and 1; an empty side gives -1. Of unit features the
    products are cosines.
    """
    flat, size = query.flatten(2).transpose(1, 2), query.shape[-2:]  # (B, L, C)
    positions, marks = support.transpose(1, 2).flatten(2), sides.flatten(2)  # (B, C, M), (B, S, M)
    if torch.compiler.is_exporting():
        table = (flat @ positions).unsqueeze(1)  # (B, 1, L, M): an exported graph cannot choose positions
        return table.masked_fill(marks.unsqueeze(2) == 0, -1.0).amax(3).unflatten(2, size)
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


@in_fp32
def cosine_prior(query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
    """Highest cosine of every query position (B, C, h, w) with the supports' foreground (B, K, C, h, w), per shot:
    (B, K, h, w).

    `fg` (B, K, h, w) multiplies the support vectors, so background positions contribute 0 (spec hdmnet.md section 2).
    """
    if torch.compiler.is_exporting():
        return _all_cosines(query, support, fg).amax(3).unflatten(2, query.shape[-2:])
    rows = [
        torch.stack([_best_cosine(q, s, marked) for s, marked in zip(shots, marks, strict=True)])
        for q, shots, marks in zip(query, support, fg, strict=True)
    ]
    return torch.stack(rows).unflatten(2, query.shape[-2:])


def _all_cosines(query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
    """Every shot's whole table (B, K, L, M), since an exported graph cannot choose positions."""
    q = query.flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, L, C)
    s = (support * fg.unsqueeze(2)).flatten(3)  # (B, K, C, M)
    return (q @ s) / (q.norm(dim=-1, keepdim=True) * s.norm(dim=2, keepdim=True) + 1e-7)


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
