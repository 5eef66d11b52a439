"""BAM: Learning What Not to Segment.

Lang, Cheng, Tu, Han, "Learning What Not to Segment: A New Perspective on Few-Shot Segmentation", CVPR 2022,
https://arxiv.org/abs/2203.07615.

    query, support: as PFENet (the mask enters before layer 4) --> prototype and prior of every shot (peers.md)
    psi_k = distance between the Gram matrices of query f2 and (un-masked) support f2
    K shots: two convolutions on the sorted psi_k give weights; prototype, prior and psi are weighted sums
    meta learner: [query, prototype, prior] --> 256 --> ASPP --> residual block --> meta logits
    base learner: query f4 --> PPM --> f5 --> base logits, frozen
    ensemble: psi and the base learner's classes correct the meta prediction --> final
    losses: CE(final) + CE(meta)

The step from PFENet: [f3, f2], prototype and prior are the same (models/parts/prior_guided.py). One ASPP takes the
place of its four sizes. New are the base learner (models/parts/base_learner.py), the ensemble with it and the weights
of the shots (models/parts/ensemble.py), all three of which HDMNet takes over. The paper's generalised evaluation is
evaluation/generalised.py. No departure in what is computed: with released weights the numbers are the released ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features, FewShotSegmenter, freeze, named
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.base_learner import frozen_head
from fewseg.models.parts.ensemble import BaseEnsemble, ShotWeights
from fewseg.models.parts.matching import CosinePrior
from fewseg.models.parts.merge import Merge
from fewseg.models.parts.ops import Resized, base_cross_entropy, cross_entropy, gram, gram_distance, resize_ac
from fewseg.models.parts.prior_guided import (
    classifier,
    masked_support,
    prototypes,
    reduction,
    shot_priors,
    side_by_side,
    two_convolutions,
)


class Extracted(NamedTuple):
    """What the frozen back-end and base learner see: of queries (B, ...), of supports (B, K, ...)."""

    f23: Tensor
    """(B, C3 + C2, h, w): f3 and f2 side by side."""
    f4: Tensor
    """(B, C4, h, w); of a support, behind a masked f3."""
    gram: Tensor
    """(B, C2, C2): the style, cosines between the channels of f2; the support's f2 is not masked."""
    f5: Tensor | None = None
    """(B, 512, h, w), before its ReLU: of queries."""
    fg: Tensor | None = None
    """(B, K, H, W) bool: the supports' foreground, at the image's size."""


class Query(NamedTuple):
    """An encoded query."""

    maps: Tensor
    """(B, 256, h, w)."""
    f4: Tensor
    f5: Tensor
    gram: Tensor


class Support(NamedTuple):
    """Encoded supports."""

    prototype: Tensor
    """(B, K, 256)."""
    f4: Tensor
    gram: Tensor
    fg: Tensor


class BAM(FewShotSegmenter):
    """BAM on a frozen back-end and a frozen base learner."""

    name = "bam"
    needs_base_learner = True

    def __init__(
        self, *, backbone: str = "lite0", base_classes: int = 15, shots: int = 1, image_size: int = 320
    ) -> None:
        super().__init__()
        self.shots, self.image_size = shots, image_size
        self.backbone = create_backbone(backbone)
        freeze(self.backbone)
        self.base = frozen_head(self.backbone.channels["layer4"], base_classes)
        self.reduce_query, self.reduce_support = reduction(self.backbone), reduction(self.backbone)
        self.prior = CosinePrior()
        self.merge = Merge(256, 1, 256, nn.ReLU())
        self.aspp = ASPP()
        self.join = nn.Sequential(nn.Conv2d(5 * 256, 256, 1, bias=False), nn.ReLU())
        self.refine = two_convolutions()
        self.classifier = classifier()
        self.ensemble = BaseEnsemble()
        self.shot_weights = ShotWeights(shots)

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        levels = self.backbone(self.backbone.normalise(image))
        f5 = self.base(self.backbone.activate(levels["layer4"]))
        return named(Extracted(side_by_side(levels), levels["layer4"], style(levels), f5=f5))

    @torch.no_grad()
    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        fg = masks == 1
        levels, f4 = masked_support(self.backbone, images, fg)
        found = (f.unflatten(0, fg.shape[:2]) for f in (side_by_side(levels), f4, style(levels)))
        return named(Extracted(*found, fg=fg))

    def embed_query(self, features: Features) -> Features:
        e = Extracted(**features)
        assert e.f5 is not None, "extract_query gives it"
        return named(Query(self.reduce_query(e.f23), e.f4, e.f5, e.gram))

    def embed_support(self, features: Features) -> Features:
        e = Extracted(**features)
        assert e.fg is not None, "extract_support gives it"
        return named(Support(prototypes(self.reduce_support(e.f23.flatten(0, 1)), e.fg), e.f4, e.gram, e.fg))

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        q, s = Query(**query), Support(**support)
        distance = gram_distance(q.gram, s.gram)
        weights = self.shot_weights(distance)  # (B, K)
        prototype = (weights.unsqueeze(2) * s.prototype).sum(1)  # (B, 256)
        priors = resize_ac(shot_priors(self.prior, q.f4, s.f4, s.fg), q.maps.shape[-2:])  # (B, K, h, w)
        prior = (weights[:, :, None, None] * priors).sum(1, keepdim=True)
        merged = self.merge(q.maps, prototype, prior)
        merged = self.join(self.aspp(merged))
        meta = self.classifier(merged + self.refine(merged))  # (B, 2, h, w)
        with torch.no_grad():
            base = self.base.classify(q.f5)
        final = self.ensemble(meta, base, (weights * distance).sum(1), base_index)
        aux = Resized({"meta": meta, "base": base}, size)
        return Prediction(resize_ac(final, size), aux=aux, correlations=(prior.squeeze(1),))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        return {
            "final": cross_entropy(prediction.logits, episode.truth),
            "meta": cross_entropy(prediction.aux["meta"], episode.truth),
        }

    def logged(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if episode.query_base_mask is None:
            return {}
        return {"base": base_cross_entropy(prediction.aux["base"], episode)}


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the map's mean, 1x1, and 3x3 with dilation 6, 12, 18; 5 x 256 channels."""

    def __init__(self, width: int = 256, dilations: tuple[int, ...] = (6, 12, 18)) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)]
        convolutions += [nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in dilations]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.branches = nn.ModuleList(nn.Sequential(convolution, nn.ReLU()) for convolution in convolutions)

    def forward(self, maps: Tensor) -> Tensor:
        mean = self.branches[0](maps.mean((-2, -1), keepdim=True)).expand_as(maps)
        return torch.cat([mean, *(branch(maps) for branch in list(self.branches)[1:])], 1)


def style(levels: dict[str, Tensor]) -> Tensor:
    """The Gram matrix of f2 at f3's size (docs/networks/hdmnet.md section 6)."""
    return gram(resize_ac(levels["layer2"], levels["layer3"].shape[-2:]))
