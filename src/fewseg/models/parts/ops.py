"""Pure functions that two methods share: resizing, masked averages, Gram matrices, cross-entropy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from einops import repeat
from torch import Tensor
from torch.nn import functional as F

from fewseg.episode import Episode
from fewseg.labels import IGNORE

Result = TypeVar("Result")


def in_fp32(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function or method see fp32 tensors (or fp64 ones), no autocast: its sums overflow fp16, and its guards
    against 0 vanish there.
    """

    @functools.wraps(function)
    def wrapped(*given: Any, **options: Any) -> Result:
        exact = [v.float() if isinstance(v, Tensor) and v.dtype != torch.float64 else v for v in given]
        device = next(value.device.type for value in given if isinstance(value, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*exact, **options)
        with torch.autocast(device, enabled=False):
            return function(*exact, **options)

    return wrapped


def resize_ac(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """(B, C, H, W) to another size, bilinear with align_corners=True: "resize-AC" in docs/networks."""
    return _bilinear(maps, tuple(size), align_corners=True)


class Resized(Mapping[str, Tensor]):
    """Maps (B, C, h, w) by name, each resized by `resize_ac` when it is asked for: most are looked at now and then."""

    def __init__(self, maps: dict[str, Tensor], size: tuple[int, int]) -> None:
        self._maps, self._size = maps, size

    def __getitem__(self, name: str) -> Tensor:
        return resize_ac(self._maps[name], self._size)

    def __contains__(self, name: object) -> bool:
        return name in self._maps

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)


def resize(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """(B, C, H, W) to another size, bilinear with align_corners=False."""
    return _bilinear(maps, tuple(size), align_corners=False)


def _bilinear(maps: Tensor, size: tuple[int, ...], *, align_corners: bool) -> Tensor:
    few = maps.shape[1] < 8
    if few and maps.requires_grad and maps.device.type == "cpu" and not torch.compiler.is_compiling():
        # logits that are trained: a product for each side, whose gradient takes a quarter of the time of torch's
        down, across = (
            side_weights(before, after, align_corners=align_corners, like=maps)
            for before, after in zip(maps.shape[-2:], size, strict=True)
        )
        return down.t() @ (maps @ across)
    # channel by channel in memory: torch's way for channels-last takes four times as long on two
    given = maps.contiguous() if few else maps
    return F.interpolate(given, size=size, mode="bilinear", align_corners=align_corners)


def side_weights(before: int, after: int, *, align_corners: bool, like: Tensor) -> Tensor:
    """How much of each of `before` positions of a side a linear resize to `after` takes: (before, after)."""
    positions = torch.eye(before, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(positions, size=after, mode="linear", align_corners=align_corners)[0]


def resize_nearest(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """(B, C, H, W) to another size, nearest neighbour; bool and uint8 as floats."""
    if maps.dtype in (torch.bool, torch.uint8):  # not all of it is looked at, so it is no float before
        return F.interpolate(maps.byte(), size=tuple(size), mode="nearest").float()
    return F.interpolate(maps, size=tuple(size), mode="nearest")


def average_to(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """(B, C, H, W) to a smaller size: every position the mean of the pixels that it covers."""
    return F.adaptive_avg_pool2d(maps, (size[0], size[1]))


def foreground(masks: Tensor) -> Tensor:
    """1.0 where a mask says 1; background and 255 are 0."""
    return (masks == 1).byte().float()  # from bool at once takes six times as long


def most_foreground(share: Tensor) -> Tensor:
    """Positions (..., h, w) that a mask counts for, given its share of each: more than half, and always the position
    with most of it, so that an object smaller than a position does not vanish.
    """
    most = share.amax((-2, -1), keepdim=True)
    return (share > 0.5) | ((share == most) & (most > 0))


def masked_average(maps: Tensor, fg: Tensor) -> Tensor:
    """Prototype: mean of (B, C, h, w) over the foreground (B, 1, h, w), as (B, C). No foreground gives 0."""
    return (maps * fg).sum((-2, -1)) / (fg.sum((-2, -1)) + 0.0005)


def tile(vectors: Tensor, like: Tensor) -> Tensor:
    """(B, C) at every position of a map (B, ..., h, w): (B, C, h, w)."""
    return repeat(vectors, "b c -> b c h w", h=like.shape[-2], w=like.shape[-1])


def min_max(maps: Tensor) -> Tensor:
    """(..., h, w) scaled to [0, 1] over positions (PFENet's prior)."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low + 1e-7)


@in_fp32
def gram(maps: Tensor) -> Tensor:
    """(B, C, h, w) to the (B, C, C) matrix of cosines between channels (docs/networks/hdmnet.md section 6)."""
    flat = maps.flatten(2)
    norm = flat.norm(dim=2)
    return (flat @ flat.transpose(1, 2)) / (norm.unsqueeze(2) * norm.unsqueeze(1) + 1e-7)


def gram_distance(query: Tensor, support: Tensor) -> Tensor:
    """Distance of the query's Gram matrix (B, C, C) to every support's (B, K, C, C): (B, K)."""
    return (query.unsqueeze(1) - support).flatten(2).norm(dim=2) / query.shape[-1]


def cross_entropy(logits: Tensor, labels: Tensor, *, ignore: int = IGNORE) -> Tensor:
    """Mean cross-entropy in fp32 over pixels whose label is not `ignore`; 0 (not NaN) where all are."""
    # CUDA's own sum takes another order every time, which `train.deterministic` would not let pass
    reduction = "none" if logits.is_cuda else "sum"
    losses = F.cross_entropy(logits.float(), labels.long(), ignore_index=ignore, reduction=reduction)
    return losses.sum() / (labels != ignore).count_nonzero().clamp(min=1)


def unmarked_as_background(logits: Tensor, known: Tensor) -> Tensor:
    """Logits (B, ..., 1 + N, H, W) in which background stands for all classes that are not known, (B, N), too.

    The probability of background becomes theirs together, so that a pixel without a mark says nothing of them.
    """
    unknown = F.pad(~known, (1, 0)).view(-1, *[1] * (logits.ndim - 4), known.shape[1] + 1, 1, 1)
    either = unknown.index_fill(-3, torch.zeros(1, dtype=torch.long, device=known.device), True)
    background = logits.float().masked_fill(~either, -1e4).logsumexp(-3, keepdim=True)
    return torch.cat([background, logits[..., 1:, :, :].float().masked_fill(unknown[..., 1:, :, :], -1e4)], -3)


def base_cross_entropy(logits: Tensor, episode: Episode) -> Tensor:
    """Mean cross-entropy of logits (B, 1 + N, H, W) with the query's base labels, as far as they tell."""
    assert episode.query_base_mask is not None
    if episode.base_known is not None:
        logits = unmarked_as_background(logits, episode.base_known)
    return cross_entropy(logits, episode.query_base_mask)
