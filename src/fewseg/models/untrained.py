"""Methods without training on the features of a model that was trained: a photo is encoded once for all.

`dense` and `prototype` (prototype.py) match the model's own features of `layer3` and `layer4`, of unit length as it
matches them. Lite's have mean 0 at every position, which those of a back-end as it is have not. `linear` trains a
classifier of positions on the supports (`fewseg.linear`), and `lite+linear` is the mean of its logits and the model's,
of a single support the model's alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from fewseg import linear
from fewseg.episode import Prediction
from fewseg.errors import check_choice
from fewseg.linear import LINEAR, WITH
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.parts.matching import NearestCosines
from fewseg.models.parts.ops import average_to, foreground, resize_ac
from fewseg.models.prototype import NearerPosition, NearerPrototype, NearerSide
from fewseg.models.wrapper import Wrapper

LEVELS = ("layer3_unit", "layer4_unit")
"""The finest first."""


class _Encoded(Wrapper):
    """Encodes as the model that it holds, and matches without what was trained in it."""

    def __init__(self, model: FewShotSegmenter, method: str) -> None:
        super().__init__(model, matched_by=method)
        self.name, self.tells_presence = method, False  # type: ignore[misc]

    def extract_query(self, image: Tensor) -> Features:
        return self.model.extract_query(image)

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.model.extract_support(images, masks)

    def embed_query(self, features: Features) -> Features:
        return self.model.embed_query(features)

    def embed_support(self, features: Features) -> Features:
        return self.model.embed_support(features)


class _Nearer(NearerSide, _Encoded):
    """Positions by what of the supports is nearer."""

    def __init__(self, model: FewShotSegmenter, method: str) -> None:
        super().__init__(model, method)
        self.nearest = NearestCosines()

    @torch.no_grad()
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        shots = support["mask"].shape[:2]
        maps = _joined({name: support[name].flatten(0, 1) for name in LEVELS}).unflatten(0, shots)
        share = average_to(foreground(support["mask"]), maps.shape[-2:])
        return self.answer(_joined(query), self.describe(maps, share), size)


class _Dense(NearerPosition, _Nearer):
    pass


class _Prototype(NearerPrototype, _Nearer):
    pass


class _Linear(_Encoded):
    """The classifier alone, or (`mixed`) with the model."""

    def __init__(self, model: FewShotSegmenter, method: str) -> None:
        super().__init__(model, method)
        self.mixed = method != LINEAR
        self.tells_presence = self.mixed and model.tells_presence
        self._learnt = WeakIdKeyDictionary()  # by a support's mask: photos of a folder have the same supports

    @torch.no_grad()
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        mask = support["mask"]
        if not linear.learns(self.name, mask.shape[1]):
            return self.model.match(query, support, size=size, base_index=base_index)
        if mask not in self._learnt:
            self._learnt[mask] = [linear.classifier(one) for one in _arrays(support)]
        pairs = zip(_arrays(query), self._learnt[mask], strict=True)
        lead = torch.from_numpy(np.stack([linear.lead(one, weights, size) for one, weights in pairs])).to(mask.device)
        logits = torch.stack([-lead / 2, lead / 2], 1)
        if not self.mixed:
            return Prediction(logits)
        own = self.model.match(query, support, size=size, base_index=base_index)
        mean = (own.logits.float() + logits) / 2
        return Prediction(mean, correlations=own.correlations, presence=own.presence)


UNTRAINED: dict[str, type[_Encoded]] = {"dense": _Dense, "prototype": _Prototype, LINEAR: _Linear}


def methods_of(model: FewShotSegmenter) -> tuple[str, ...]:
    """The methods that a model's features serve: its own first."""
    return (model.name, *((*UNTRAINED, model.name + WITH) if model.serves_untrained else ()))


def as_method(model: FewShotSegmenter, method: str | None) -> FewShotSegmenter:
    """The model itself, or one of the methods without training on its features; UsageError for another."""
    if method in (None, model.name):
        return model
    check_choice("method", method, methods_of(model))
    return UNTRAINED.get(method, _Linear)(model, method)


def _arrays(features: Features) -> list[dict[str, NDArray[Any]]]:
    """A batch's features, each by itself."""
    arrays = {name: value.float().cpu().numpy() for name, value in features.items()}
    return [{name: value[i] for name, value in arrays.items()} for i in range(len(next(iter(arrays.values()))))]


def _joined(features: Features) -> Tensor:
    """Levels of (B, C, h, w) as one of unit length, on the finest one's grid."""
    size = features[LEVELS[0]].shape[-2:]
    return F.normalize(torch.cat([resize_ac(features[name], size) for name in LEVELS], 1), dim=1)
