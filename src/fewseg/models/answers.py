"""What a method answers is as the contract says, or the error names the method; asked where it is first taken."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fewseg.episode import Prediction
from fewseg.errors import UsageError
from fewseg.models.base import FewShotSegmenter
from fewseg.models.hub_model import plain_model

_PAGE = "docs/add-a-method.md says what a method gives"


def checked(prediction: Any, model: FewShotSegmenter, *, count: int, size: tuple[int, int]) -> Prediction:
    """A prediction for `count` queries, logits (B, 2, H, W) at `size`; UsageError that names the method if it is none.

    Shapes alone are compared, which takes no time and waits for no GPU.
    """
    if not isinstance(prediction, Prediction):
        asked = f"a fewseg.episode.Prediction, with logits {(count, 2, *size)}"
        raise _wrong(model, "match", given=_form(prediction), asked=asked, advice="return Prediction(logits)")
    logits, asked = prediction.logits, (count, 2, *size)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != asked:
        told = f"logits {asked}: (B, 2, H, W), background and foreground, at `size`"
        raise _wrong(
            model, "match", given=f"logits that are {_form(logits)}", asked=told, advice=_advice(logits, asked)
        )
    return prediction


def checked_terms(terms: Any, model: FewShotSegmenter) -> dict[str, Tensor]:
    """What `loss` gave, a dict of scalar tensors of which one at least is trained; UsageError that names the method."""
    asked = "a dict of scalar tensors by name, whose plain sum is minimised"
    if not isinstance(terms, dict) or not terms:
        raise _wrong(model, "loss", given=_form(terms), asked=asked, advice='return {"final": loss}')
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim:
            given, advice = f"{name!r} as {_form(term)}", "take its mean or sum"
            raise _wrong(model, "loss", given=given, asked=asked, advice=advice)
    if torch.is_grad_enabled() and not any(term.requires_grad for term in terms.values()):
        given, advice = "terms without a gradient", "nothing between them and what is trained may be detached or frozen"
        raise _wrong(model, "loss", given=given, asked="terms that depend on trained parameters", advice=advice)
    return terms


def _wrong(model: FewShotSegmenter, part: str, *, given: str, asked: str, advice: str) -> UsageError:
    cls = type(plain_model(model))
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    where = f"{cls.__qualname__}.{part} ({file or cls.__module__})"
    return UsageError(f"{where} gave {given}; the contract asks for {asked}: {advice} ({_PAGE})")


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return "an empty dict" if value == {} else f"a {type(value).__name__}"


def _advice(logits: Any, asked: tuple[int, ...]) -> str:
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else ()
    if len(shape) != 4 or shape[0] != asked[0]:
        return "keep the batch of the queries as the first dimension, and two channels as the second"
    if shape[1] == 1:
        return "one logit x of the foreground is torch.cat([torch.zeros_like(x), x], 1)"
    if shape[1] != 2:
        return "give two channels, background and foreground; further maps belong into Prediction's aux"
    return "resize them: resize_ac(logits, size), from fewseg.models.parts.ops"
