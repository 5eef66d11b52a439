"""BAM: Learning What Not to Segment.

Lang, Cheng, Tu, Han, "Learning What Not to Segment: A New Perspective on Few-Shot Segmentation", CVPR 2022,
https://arxiv.org/abs/2203.07615.

    query, support: as PFENet (the mask enters before layer 4) --> prototype and prior of every shot (spec peers.md)
    psi_k = distance between the Gram matrices of query f2 and (un-masked) support f2 (spec hdmnet.md section 6)
    K shots: two convolutions on the sorted psi_k give weights; prototype, prior and psi are weighted sums
    meta learner: [query, prototype, prior] --> 256 --> ASPP --> residual block --> meta logits
    base learner: query f4 --> PPM --> f5 --> base logits, frozen
    ensemble: psi and the base learner's classes correct the meta prediction --> final
    losses: CE(final) + CE(meta)

The step from PFENet: [f3, f2], prototype and prior are PFENet's own functions (pfenet.py, "What BAM shares"); one ASPP
takes the place of its four sizes; new are the base learner (base_learner.py), the ensemble with it and the weights of
the shots (ensemble.py), all three of which HDMNet takes over. The paper's generalised evaluation is
evaluation/generalised.py. No departure in what is computed: with released weights the numbers are the released ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.base_learner import frozen_head
from fewseg.models.parts.ensemble import BaseEnsemble, ShotWeights
from fewseg.models.parts.ops import cross_entropy, gram, gram_distance, resize_ac, tile
from fewseg.models.pfenet import (
    classifier,
    embed_prototypes,
    masked_support,
    middle,
    reduction,
    shot_priors,
    two_convolutions,
)


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
        self.merge = nn.Sequential(nn.Conv2d(513, 256, 1, bias=False), nn.ReLU())
        self.aspp = ASPP()
        self.join = nn.Sequential(nn.Conv2d(5 * 256, 256, 1, bias=False), nn.ReLU())
        self.refine = nn.Sequential(*two_convolutions())
        self.classifier = nn.Sequential(*classifier())
        self.ensemble = BaseEnsemble()
        self.shot_weights = ShotWeights(shots)

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        levels = self.backbone(self.backbone.normalise(image))
        f5 = self.base(self.backbone.activate(levels["layer4"]))
        return {"mid": middle(levels), "f4": levels["layer4"], "f5": f5, "gram": _style(levels)}

    @torch.no_grad()
    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        features, unmasked = masked_support(self.backbone, images, masks)
        return features | {"gram": _style(unmasked).unflatten(0, masks.shape[:2])}

    def embed_query(self, features: Features) -> Features:
        return features | {"mid": self.reduce_query(features["mid"])}

    def embed_support(self, features: Features) -> Features:
        return embed_prototypes(self.reduce_support, features) | {"gram": features["gram"]}

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        distance = gram_distance(query["gram"], support["gram"])
        weights = self.shot_weights(distance)  # (B, K)
        prototype = (weights.unsqueeze(2) * support["prototype"]).sum(1)
        prior = (weights[:, :, None, None] * shot_priors(query, support)).sum(1, keepdim=True)
        maps = query["mid"]
        merged = self.join(self.aspp(self.merge(torch.cat([maps, tile(prototype, maps), prior], 1))))
        meta = self.classifier(merged + self.refine(merged))
        with torch.no_grad():
            base = self.base.classify(query["f5"])
        final = self.ensemble(meta, base, (weights * distance).sum(1), base_index)
        aux = {"meta": resize_ac(meta, size), "base": resize_ac(base, size)}
        return Prediction(resize_ac(final, size), aux=aux, correlations=(prior.squeeze(1),))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if episode.query_mask is None:
            raise ValueError("the loss needs episode.query_mask")
        return {
            "final": cross_entropy(prediction.logits, episode.query_mask),
            "meta": cross_entropy(prediction.aux["meta"], episode.query_mask),
        }

    def logged(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if episode.query_base_mask is None:
            return {}
        return {"base": cross_entropy(prediction.aux["base"], episode.query_base_mask)}


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


def _style(levels: Features) -> Tensor:
    return gram(resize_ac(levels["layer2"], levels["layer3"].shape[-2:]))
