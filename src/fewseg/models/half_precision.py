"""Any method in 16 bits: what takes the time is, sums that would overflow and losses are not (`in_fp32`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewseg.episode import Prediction
from fewseg.errors import check_choice
from fewseg.labels import PRECISIONS
from fewseg.models.answers import checked
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.wrapper import Wrapper

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _in_half(method: Callable[..., Any]) -> Callable[..., Any]:
    """A part of the model in its precision."""

    @functools.wraps(method)
    def part(self: HalfPrecision, *given: Any, **options: Any) -> Any:
        with torch.autocast(self.device.type, self.dtype):
            return method(self, *given, **options)

    return part


def in_precision(model: FewShotSegmenter, precision: str) -> FewShotSegmenter:
    """The model itself for fp32, or one that computes in bf16 or fp16; UsageError for any other."""
    check_choice("precision", precision, PRECISIONS)
    return model if precision == "fp32" else HalfPrecision(model, precision)


class HalfPrecision(Wrapper):
    """A trained model under autocast: features are kept in 16 bits where they come out so, logits are fp32."""

    dtype: ClassVar[Any]

    def __init__(self, model: FewShotSegmenter, precision: str) -> None:
        super().__init__(model, precision=precision)
        self.dtype = DTYPES[precision]  # type: ignore[misc]

    @_in_half
    def extract_query(self, image: Tensor) -> Features:
        return self.model.extract_query(image)

    @_in_half
    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.model.extract_support(images, masks)

    @_in_half
    def embed_query(self, features: Features) -> Features:
        return self.model.embed_query(features)

    @_in_half
    def embed_support(self, features: Features) -> Features:
        return self.model.embed_support(features)

    @_in_half
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        answer = self.model.match(query, support, size=size, base_index=base_index)
        prediction = checked(answer, self.model, count=len(next(iter(query.values()))), size=size)
        return replace(prediction, logits=prediction.logits.float())
