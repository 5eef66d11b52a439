"""`dense` and `prototype` (prototype.py) on the features of a model that was trained: a photo is encoded once for all.

The model's own features of `layer3` and `layer4` are matched, of unit length as it matches them. Lite's have mean 0 at
every position, which those of a back-end as it is have not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewseg.episode import Prediction
from fewseg.errors import check_choice
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.parts.matching import NearestCosines
from fewseg.models.parts.ops import average_to, foreground, resize_ac
from fewseg.models.prototype import NearerPosition, NearerPrototype, NearerSide
from fewseg.models.wrapper import Wrapper

LEVELS = ("layer3_unit", "layer4_unit")
"""The finest first."""


class _Untrained(NearerSide, Wrapper):
    """Encodes as the model that it holds, and matches without what was trained in it."""

    def __init__(self, model: FewShotSegmenter, method: str) -> None:
        super().__init__(model, matched_by=method)
        self.name, self.tells_presence = method, False  # type: ignore[misc]
        self.nearest = NearestCosines()

    def extract_query(self, image: Tensor) -> Features:
        return self.model.extract_query(image)

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.model.extract_support(images, masks)

    def embed_query(self, features: Features) -> Features:
        return self.model.embed_query(features)

    def embed_support(self, features: Features) -> Features:
        return self.model.embed_support(features)

    @torch.no_grad()
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        shots = support["mask"].shape[:2]
        maps = _joined({name: support[name].flatten(0, 1) for name in LEVELS}).unflatten(0, shots)
        share = average_to(foreground(support["mask"]), maps.shape[-2:])
        return self.answer(_joined(query), self.describe(maps, share), size)


class _Dense(NearerPosition, _Untrained):
    pass


class _Prototype(NearerPrototype, _Untrained):
    pass


UNTRAINED: dict[str, type[_Untrained]] = {"dense": _Dense, "prototype": _Prototype}


def methods_of(model: FewShotSegmenter) -> tuple[str, ...]:
    """The methods that a model's features serve: its own first."""
    return (model.name, *(UNTRAINED if model.serves_untrained else ()))


def as_method(model: FewShotSegmenter, method: str | None) -> FewShotSegmenter:
    """The model itself, or one of the methods without training on its features; UsageError for another."""
    if method in (None, model.name):
        return model
    check_choice("method", method, methods_of(model))
    return UNTRAINED[method](model, method)


def _joined(features: Features) -> Tensor:
    """Levels of (B, C, h, w) as one of unit length, on the finest one's grid."""
    size = features[LEVELS[0]].shape[-2:]
    return F.normalize(torch.cat([resize_ac(features[name], size) for name in LEVELS], 1), dim=1)
