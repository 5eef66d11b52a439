"""PFENet: Prior Guided Feature Enrichment Network.

Tian, Zhao, Shu, Yang, Li, Jia, "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020,
https://arxiv.org/abs/2008.01449.

    query image   -- back-end --> f2 f3 f4                                                          (spec peers.md)
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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.parts.backbones import Backbone, create_backbone
from fewseg.models.parts.matching import cosine_prior
from fewseg.models.parts.ops import cross_entropy, masked_average, min_max, resize_ac, tile

PASCAL_BINS = (60, 30, 15, 8)
COCO_BINS = (1.0, 0.5, 0.25, 0.125)


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
        self.enrichment = Enrichment(bins or (PASCAL_BINS if base_classes == 15 else COCO_BINS))
        self.merge = nn.Sequential(nn.Conv2d(256 * len(self.enrichment.levels), 256, 1, bias=False), nn.ReLU())
        self.refine = nn.Sequential(*two_convolutions())
        self.classifier = nn.Sequential(*classifier())

    def extract_query(self, image: Tensor) -> Features:
        with torch.no_grad():
            levels = self.backbone(self.backbone.normalise(image))
        return {"mid": middle(levels), "f4": levels["layer4"]}

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        features, _ = masked_support(self.backbone, images, masks)
        return features

    def embed_query(self, features: Features) -> Features:
        return features | {"mid": self.reduce_query(features["mid"])}

    def embed_support(self, features: Features) -> Features:
        return embed_prototypes(self.reduce_support, features)

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        prior = shot_priors(query, support).mean(1, keepdim=True)  # (B, 1, h, w)
        enriched, inner = self.enrichment(query["mid"], support["prototype"].mean(1), prior)
        merged = self.merge(torch.cat(enriched, 1))
        logits = self.classifier(merged + self.refine(merged))
        aux = {"inner": torch.stack([resize_ac(i, size) for i in inner], 1)}  # (B, 4, 2, H, W)
        return Prediction(resize_ac(logits, size), aux=aux, correlations=(prior.squeeze(1),))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if episode.query_mask is None:
            raise ValueError("the loss needs episode.query_mask")
        inner = [cross_entropy(logits, episode.query_mask) for logits in prediction.aux["inner"].unbind(1)]
        return {"final": cross_entropy(prediction.logits, episode.query_mask), "inner": torch.stack(inner).mean()}


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
            given = torch.cat([pooled, tile(prototype, pooled), resize_ac(prior, (side, side))], 1)
            maps, logits = level(given, resize_ac(enriched[-1], (side, side)) if enriched else None)
            enriched.append(resize_ac(maps, query.shape[-2:]))
            inner.append(logits)
        return enriched, inner


class EnrichmentLevel(nn.Module):
    """One size: merge, let the finer size's features in, two convolutions, inner logits."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.merge = nn.Sequential(nn.Conv2d(513, 256, 1, bias=False), nn.ReLU())
        self.receive = None if first else nn.Sequential(nn.Conv2d(512, 256, 1, bias=False), nn.ReLU())
        self.refine = nn.Sequential(*two_convolutions())
        self.classifier = nn.Sequential(*classifier())

    def forward(self, given: Tensor, finer: Tensor | None) -> tuple[Tensor, Tensor]:
        maps = self.merge(given)
        if self.receive is not None and finer is not None:
            maps = maps + self.receive(torch.cat([maps, finer], 1))
        maps = maps + self.refine(maps)
        return maps, self.classifier(maps)


# What BAM shares: features, prototype and prior. (HDMNet masks the image itself, and keeps its priors unscaled.)


def middle(levels: Features) -> Tensor:
    """[f3, f2] concatenated, f2 at f3's size (VGG and pyramids differ in it)."""
    f3 = levels["layer3"]
    return torch.cat([f3, resize_ac(levels["layer2"], f3.shape[-2:])], 1)


@torch.no_grad()
def masked_support(backbone: Backbone, images: Tensor, masks: Tensor) -> tuple[Features, Features]:
    """Support features [f3, f2], f4 behind a masked f3, and the foreground, each (B, K, ...); and the levels that know
    no mask, each (B*K, ...).
    """
    fg = masks == 1
    levels = backbone.lower(backbone.normalise(images).flatten(0, 1))
    f3_fg = _at(fg, levels["layer3"]).flatten(0, 1).unsqueeze(1)
    features = {"mid": middle(levels), "f4": backbone.upper(levels, f3_fg)}
    return {name: f.unflatten(0, masks.shape[:2]) for name, f in features.items()} | {"fg": fg}, levels


def embed_prototypes(reduce: nn.Module, features: Features) -> Features:
    """Support features with [f3, f2] reduced to one prototype per shot (B, K, 256)."""
    maps = reduce(features["mid"].flatten(0, 1))
    fg = _at(features["fg"], maps).flatten(0, 1).unsqueeze(1)
    prototype = masked_average(maps, fg).unflatten(0, features["fg"].shape[:2])
    return {"f4": features["f4"], "fg": features["fg"], "prototype": prototype}


def shot_priors(query: Features, support: Features) -> Tensor:
    """The prior of every shot at the query features' size, min-max scaled: (B, K, h, w).

    The support is masked a second time here, from the image-size mask: released.
    """
    prior = cosine_prior(query["f4"], support["f4"], _at(support["fg"], support["f4"]))
    return resize_ac(min_max(prior), query["mid"].shape[-2:])


def reduction(backbone: Backbone) -> nn.Sequential:
    """[f3, f2] to 256 channels."""
    inputs = backbone.channels["layer3"] + backbone.channels["layer2"]
    return nn.Sequential(nn.Conv2d(inputs, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))


def two_convolutions() -> list[nn.Module]:
    """The inside of a residual block of 256 channels."""
    return [layer for _ in range(2) for layer in (nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.ReLU())]


def classifier() -> list[nn.Module]:
    """256 channels to two logits."""
    return [nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(256, 2, 1)]


def _at(fg: Tensor, maps: Tensor) -> Tensor:
    """Foreground (B, K, H, W) bool to the size of maps (..., h, w), as float."""
    return resize_ac(fg.float(), maps.shape[-2:])
