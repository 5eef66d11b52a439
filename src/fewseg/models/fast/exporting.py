"""Operations as an exported graph needs them: torch's exporter writes adaptive pooling down only where sides divide."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SizeFreeOperations(TorchFunctionMode):
    """Within it, adaptive average pooling is two matrix products, right for every size."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.adaptive_avg_pool2d:
            return adaptive_average(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def adaptive_average(input: Tensor, output_size: Any) -> Tensor:
    """F.adaptive_avg_pool2d of maps (..., h, w): (..., H, W). The names are its."""
    height, width = output_size if isinstance(output_size, (tuple, list, torch.Size)) else (output_size, output_size)
    rows = _inside(input.shape[-2] if height is None else height, of=input.shape[-2], like=input)
    columns = _inside(input.shape[-1] if width is None else width, of=input.shape[-1], like=input)
    # whole sums first, as torch has them: a mask's share of exactly a half must not become a little more
    return (rows @ input @ columns.t()) / (rows.sum(1).unsqueeze(1) * columns.sum(1))


def _inside(bins: int, *, of: int, like: Tensor) -> Tensor:
    """(bins, of): 1 where a position lies in a bin, else 0; neighbouring bins may share one."""
    bin_ = torch.arange(bins, device=like.device).unsqueeze(1)
    position = torch.arange(of, device=like.device)
    inside = (position >= bin_ * of // bins) & (position < ((bin_ + 1) * of + bins - 1) // bins)
    return inside.to(like.dtype)
