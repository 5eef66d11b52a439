"""SSP: Self-Support Prototypes.

Fan, Pei, Tai, Tang, "Self-Support Few-Shot Semantic Segmentation", ECCV 2022, https://arxiv.org/abs/2207.11549.
Further: docs/networks/more-peers.md.

    query, whole support images --> one back-end without its last level, trained --> maps
    support prototypes: masked averages of foreground and background, K shots: mean
    first guess: softmax of the query's cosines with both
    self-support prototypes: mean of the query's positions that are surely foreground (> 0.7), surely background (> 0.6)
    adaptive self-support background: for every query position, the sure background that looks like it
    foreground = 0.5 support + 0.5 self-support;  background = 0.3 self-support + 0.7 adaptive
    logits = 10 * cosine of every query position with both
    losses: CE(logits) + CE of query matched with itself by its true mask + 0.2 CE of every support matched with itself

Written from the paper; what it leaves open is told where it is chosen. The paper trains the whole of a ResNet
(`trained="all"`); the default trains layer3, so that the rest may be cached.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ops import cross_entropy, in_fp32, resize_ac
from fewseg.models.parts.prototype_network import PrototypeNetwork, cosines, mean_features

SCALE = 10.0
"""On cosines, before every softmax. The paper names none; chosen, since without one no position would be sure: a
foreground of 0.7 would take cosines that differ by 0.85."""
SURE_FOREGROUND, SURE_BACKGROUND = 0.7, 0.6
"""Of the first guess's probabilities."""


class SSP(PrototypeNetwork):
    """SSP: prototypes of what is sure in the query itself, beside the support's, on a trained back-end.

    `base_classes` is taken for the common signature and not used.

    `trained`: "layer3", or "all" of the back-end up to it. `query_weight` and `support_weight` are those of the losses
    of self-support.
    """

    name = "ssp"

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        output_stride: int | None = None,
        trained: str = "layer3",
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 320,
        query_weight: float = 1.0,
        support_weight: float = 0.2,
    ) -> None:
        super().__init__()
        self.shots, self.image_size = shots, image_size
        self.query_weight, self.support_weight = query_weight, support_weight
        # without the last stage and the last ReLU, where the back-end has one
        network = create_backbone(
            backbone, output_stride=output_stride, last_relu=not backbone.startswith(("resnet", "vgg"))
        )
        self.take_backbone(network, level="layer3", trained=trained)

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        maps, prototypes = query["maps"], support["prototypes"].mean(1)  # (B, C, h, w), (B, 2, C)
        guess = (SCALE * cosines(maps, prototypes)).softmax(1)  # (B, 2, h, w)
        background, foreground = sure(guess[:, 0], SURE_BACKGROUND), sure(guess[:, 1], SURE_FOREGROUND)
        own = mean_features(maps, torch.stack([background, foreground], 1).to(maps.dtype))  # (B, 2, C)
        for_foreground = 0.5 * prototypes[:, 1] + 0.5 * own[:, 1]  # (B, C)
        for_background = 0.3 * own[:, 0, :, None, None] + 0.7 * adaptive_background(maps, background)  # (B, C, h, w)
        nearness = torch.cat(
            [
                F.cosine_similarity(maps.float(), for_background.float(), dim=1).unsqueeze(1),
                cosines(maps, for_foreground.unsqueeze(1)),
            ],
            1,
        )
        return Prediction(resize_ac(SCALE * nearness, size), correlations=(nearness[:, 1] - nearness[:, 0],))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        query, support, mask = (prediction.extra[name] for name in ("query", "support", "mask"))
        terms = {"final": cross_entropy(prediction.logits, episode.truth)}
        if self.query_weight:
            terms["query"] = self.query_weight * self._self_support(query.unsqueeze(1), episode.truth.unsqueeze(1))
        if self.support_weight:
            terms["support"] = self.support_weight * self._self_support(support, mask)
        return terms

    def _self_support(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of images (B, K, C, h, w) that are matched with the prototypes of their own true masks
        (B, K, H, W).
        """
        logits = SCALE * cosines(maps, self.prototypes(maps, masks))  # (B, K, 2, h, w)
        return cross_entropy(resize_ac(logits.flatten(0, 1), masks.shape[-2:]), masks.flatten(0, 1))


def sure(probability: Tensor, threshold: float) -> Tensor:
    """Where a side's probability (B, h, w) is above the threshold: (B, h, w) bool.

    The paper does not say what is done where no position is. Chosen: the likeliest one counts.
    """
    above, most = probability > threshold, probability.amax((-2, -1), keepdim=True)
    return above | ((most <= threshold) & (probability == most))


@in_fp32
def adaptive_background(maps: Tensor, background: Tensor) -> Tensor:
    """For every position of maps (B, C, h, w) the mean of the sure background's (B, h, w), weighted by how alike both
    are: (B, C, h, w).

    The weights are a softmax over the background's positions. The paper's are of plain products, whose size hangs on
    the back-end; chosen: of cosines, times SCALE.
    """
    size, flat = maps.shape[-2:], maps.flatten(2)  # (B, C, L)
    unit = F.normalize(flat, dim=1)
    alike = SCALE * unit.transpose(1, 2) @ unit  # (B, L of the background, L)
    alike = alike.masked_fill((background.flatten(1) == 0).unsqueeze(2), -torch.inf)
    return (flat @ alike.softmax(1)).unflatten(2, size)
