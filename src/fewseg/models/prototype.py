"""Two peers without training: what frozen back-end features give by themselves.

Prototype: after Wang et al., "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment", ICCV 2019,
https://arxiv.org/abs/1908.06391 (sections 3.2 and 3.3), without its training.
DenseMatching: nearest-pixel matching, after Zhang et al., "Feature Weighting and Boosting", ICCV 2019 (FWB).

    query, whole support images --> frozen back-end --> chosen levels, unit length, joined at the finest one's size
    masks --averaged over each feature position's pixels--> share of foreground and of background
    prototype: mean of foreground / background features, then over shots; cosine of every query position with both
    dense:     best cosine of every query position with foreground / with background positions of all shots
    logits = 20 * [background cosine, foreground cosine] --> the nearer one wins: nothing is tuned on any class

Departures: the support image is never masked, only its features are; no parameter is trained.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.levels import LEVELS
from fewseg.models.parts.matching import NearestCosines
from fewseg.models.parts.ops import cross_entropy, foreground, most_foreground, resize_ac

SCALE = 20.0
"""PANet's factor on cosines; it changes probabilities, never the mask."""


class NearerSide:
    """What is nearer to the supports' foreground than to their background; a subclass says what near means."""

    nearest: NearestCosines

    @abstractmethod
    def describe(self, maps: Tensor, share: Tensor) -> Features:
        """Support features (B, K, C, h, w) and shares of foreground (B, K, h, w) to what matching needs."""

    @abstractmethod
    def nearness(self, query: Tensor, support: Features) -> Tensor:
        """Cosines of query features (B, C, h, w) with background and foreground: (B, 2, h, w)."""

    def answer(self, query: Tensor, support: Features, size: tuple[int, int]) -> Prediction:
        """Query features (B, C, h, w) and described supports to logits of `size`."""
        cosines = self.nearness(query, support)
        return Prediction(resize_ac(SCALE * cosines, size), correlations=(cosines[:, 1] - cosines[:, 0],))


class NearerPrototype(NearerSide):
    """Two prototypes: mean foreground and mean background feature of the support, averaged over shots."""

    def describe(self, maps: Tensor, share: Tensor) -> Features:
        return {"background": _mean_feature(maps, 1 - share), "foreground": _mean_feature(maps, share)}

    def nearness(self, query: Tensor, support: Features) -> Tensor:
        prototypes = torch.stack([support["background"].mean(1), support["foreground"].mean(1)], 1)  # (B, 2, C)
        return torch.einsum("bchw,bpc->bphw", query, F.normalize(prototypes, dim=2))


class NearerPosition(NearerSide):
    """The nearest support position of all shots: foreground or background, whichever holds more of the position."""

    def describe(self, maps: Tensor, share: Tensor) -> Features:
        return {"features": maps, "fg": most_foreground(share)}

    def nearness(self, query: Tensor, support: Features) -> Tensor:
        sides = torch.stack([~support["fg"], support["fg"]], 1)  # (B, 2, K, h, w)
        return self.nearest(query, support["features"], sides)


class _FrozenMatcher(NearerSide, FewShotSegmenter):
    """Frozen features of `levels` (None: layer3 and layer4), matched."""

    trainable = False

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        output_stride: int | None = None,
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 320,
        levels: list[str] | None = None,
    ) -> None:
        super().__init__()
        levels = ["layer3", "layer4"] if levels is None else levels
        if not levels or any(level not in LEVELS for level in levels):
            raise UsageError(f"levels {list(levels)!r}: choose one or several of {', '.join(LEVELS)}")
        self.shots, self.image_size = shots, image_size
        self.levels = tuple(level for level in LEVELS if level in levels)  # the finest first
        self.backbone = create_backbone(backbone, output_stride=output_stride)
        freeze(self.backbone)
        self.nearest = NearestCosines()

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        levels = self.backbone(self.backbone.normalise(image))
        size = levels[self.levels[0]].shape[-2:]
        maps = [resize_ac(F.normalize(levels[level], dim=1), size) for level in self.levels]
        return {"features": F.normalize(torch.cat(maps, 1), dim=1)}

    @torch.no_grad()
    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        maps = self.extract_query(images.flatten(0, 1))["features"].unflatten(0, masks.shape[:2])
        h, w = maps.shape[-2:]
        return self.describe(maps, F.adaptive_avg_pool2d(foreground(masks), (h, w)))

    @torch.no_grad()
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        return self.answer(query["features"], support, size)

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        return {"final": cross_entropy(prediction.logits, episode.truth)}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return []


class Prototype(NearerPrototype, _FrozenMatcher):
    """Nearest of two prototypes of a frozen back-end's features."""

    name = "prototype"


class DenseMatching(NearerPosition, _FrozenMatcher):
    """Nearest support position by a frozen back-end's features."""

    name = "dense"


def _mean_feature(maps: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean direction of (B, K, C, h, w) over positions: (B, K, C), unit length; all weights 0 give 0."""
    return F.normalize((maps * weight.unsqueeze(2)).sum((-2, -1)), dim=2)
