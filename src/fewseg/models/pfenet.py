"""PFENet: Prior Guided Feature Enrichment Network.

Tian, Zhao, Shu, Yang, Li, Jia, "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020,
https://arxiv.org/abs/2008.01449.

    query image   -- back-end --> f2 f3 f4                                             (docs/networks/peers.md)
    support image -- back-end --> f2 f3; f4 = layer4(f3 * mask): the mask enters before layer 4
    [f3, f2] --> 256 channels, query and support with their own weights
    prototype = masked average of the support features; K shots: mean
    prior = best cosine of query f4 with the support's foreground f4, min-max scaled per shot; K shots: mean
    enrichment, four sizes, large to small: [query, prototype, prior] at that size --> 256
        --> the larger size's result let in --> two convolutions --> back to full size; inner logits
    the four enriched maps --> 256 --> residual block --> logits
    losses: CE(logits) + mean CE of the inner logits

Departure from the released code: the frozen back-end's BNs stay in eval (released: batch statistics while training).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze, named
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.matching import CosinePrior
from fewseg.models.parts.merge import Merge
from fewseg.models.parts.ops import cross_entropy, resize_ac
from fewseg.models.parts.prior_guided import (
    classifier,
    masked_support,
    prototypes,
    reduction,
    shot_priors,
    side_by_side,
    two_convolutions,
)

PASCAL_BINS = (60, 30, 15, 8)
COCO_BINS = (1.0, 0.5, 0.25, 0.125)


class Extracted(NamedTuple):
    """What the frozen back-end sees: of queries (B, ...), of supports (B, K, ...)."""

    f23: Tensor
    """(B, C3 + C2, h, w): f3 and f2 side by side."""
    f4: Tensor
    """(B, C4, h, w); of a support, behind a masked f3."""
    fg: Tensor | None = None
    """(B, K, H, W) bool: the supports' foreground, at the image's size."""


class Query(NamedTuple):
    """An encoded query."""

    maps: Tensor
    """(B, 256, h, w)."""
    f4: Tensor


class Support(NamedTuple):
    """Encoded supports."""

    prototype: Tensor
    """(B, K, 256)."""
    f4: Tensor
    fg: Tensor


class PFENet(FewShotSegmenter):
    """PFENet on a frozen back-end.

    `bins` are the sides of the enrichment's maps: positions if above 1, else shares of the query map's height. None
    is the papers' choice: PASCAL's 60, 30, 15, 8 for 15 base classes, COCO's 1, 0.5, 0.25, 0.125 for others.
    """

    name = "pfenet"

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 320,
        bins: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.shots, self.image_size = shots, image_size
        self.backbone = create_backbone(backbone)
        freeze(self.backbone)
        self.reduce_query, self.reduce_support = reduction(self.backbone), reduction(self.backbone)
        self.prior = CosinePrior()
        self.enrichment = Enrichment(bins or (PASCAL_BINS if base_classes == 15 else COCO_BINS))
        self.merge = nn.Sequential(nn.Conv2d(256 * len(self.enrichment.levels), 256, 1, bias=False), nn.ReLU())
        self.refine = two_convolutions()
        self.classifier = classifier()

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        levels = self.backbone(self.backbone.normalise(image))
        return named(Extracted(side_by_side(levels), levels["layer4"]))

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        fg = masks == 1
        levels, f4 = masked_support(self.backbone, images, fg)
        f23, f4 = (f.unflatten(0, fg.shape[:2]) for f in (side_by_side(levels), f4))
        return named(Extracted(f23, f4, fg))

    def embed_query(self, features: Features) -> Features:
        e = Extracted(**features)
        return named(Query(self.reduce_query(e.f23), e.f4))

    def embed_support(self, features: Features) -> Features:
        e = Extracted(**features)
        assert e.fg is not None, "extract_support gives it"
        return named(Support(prototypes(self.reduce_support(e.f23.flatten(0, 1)), e.fg), e.f4, e.fg))

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        q, s = Query(**query), Support(**support)
        prior = resize_ac(shot_priors(self.prior, q.f4, s.f4, s.fg), q.maps.shape[-2:])  # (B, K, h, w)
        prior = prior.mean(1, keepdim=True)
        enriched, inner = self.enrichment(q.maps, s.prototype.mean(1), prior)
        merged = self.merge(torch.cat(enriched, 1))
        logits = self.classifier(merged + self.refine(merged))  # (B, 2, h, w)
        aux = {"inner": torch.stack([resize_ac(i, size) for i in inner], 1)}  # (B, 4, 2, H, W)
        return Prediction(resize_ac(logits, size), aux=aux, correlations=(prior.squeeze(1),))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        inner = [cross_entropy(logits, episode.truth) for logits in prediction.aux["inner"].unbind(1)]
        return {"final": cross_entropy(prediction.logits, episode.truth), "inner": torch.stack(inner).mean()}


class Enrichment(nn.Module):
    """The query at several sizes, each enriched with prototype, prior and the previous size's result (FEM)."""

    def __init__(self, bins: Sequence[float]) -> None:
        super().__init__()
        if any(b <= 0 or (b > 1 and b != int(b)) for b in bins):
            raise UsageError(f"bins {list(bins)}: give whole numbers of positions, or shares of the map in (0, 1]")
        self.bins = tuple(bins)
        self.levels = nn.ModuleList(EnrichmentLevel(first=i == 0) for i in range(len(bins)))

    def forward(self, query: Tensor, prototype: Tensor, prior: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Query (B, 256, h, w), prototype (B, 256), prior (B, 1, h, w) to enriched maps (B, 256, h, w) and inner
        logits (B, 2, bin, bin), per bin.
        """
        enriched: list[Tensor] = []
        inner = []
        for level, b in zip(self.levels, self.bins, strict=True):
            side = int(b) if b > 1 else max(1, int(query.shape[-2] * b))
            pooled = F.adaptive_avg_pool2d(query, side)
            finer = resize_ac(enriched[-1], (side, side)) if enriched else None
            maps, logits = level(pooled, prototype, resize_ac(prior, (side, side)), finer)
            enriched.append(resize_ac(maps, query.shape[-2:]))
            inner.append(logits)
        return enriched, inner


class EnrichmentLevel(nn.Module):
    """One size: merge, let the finer size's features in, two convolutions, inner logits."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.merge = Merge(256, 1, 256, nn.ReLU())
        self.receive = None if first else nn.Sequential(nn.Conv2d(512, 256, 1, bias=False), nn.ReLU())
        self.refine = two_convolutions()
        self.classifier = classifier()

    def forward(self, query: Tensor, prototype: Tensor, prior: Tensor, finer: Tensor | None) -> tuple[Tensor, Tensor]:
        maps = self.merge(query, prototype, prior)
        if self.receive is not None and finer is not None:
            maps = maps + self.receive(torch.cat([maps, finer], 1))
        maps = maps + self.refine(maps)
        return maps, self.classifier(maps)
