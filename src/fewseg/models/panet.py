"""PANet: Prototype Alignment Network.

Wang, Liew, Zou, Zhou, Feng, "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment", ICCV 2019,
https://arxiv.org/abs/1908.06391. Further: docs/networks/more-peers.md.

    query, whole support images --> one back-end, trained --> maps   (section 3.2)
    prototypes of a shot: masked averages of foreground and background   (section 3.3, Eq. 1 and 2; late fusion)
    K shots: mean of the prototypes
    logits = 20 * cosine of every query position with both prototypes   (section 3.4, Eq. 3 and 5)
    training, alignment: prototypes from the query's own prediction segment every support   (section 3.5, Eq. 6)
    loss: CE(query) + CE(supports)   (Eq. 4, 7, 8)

Written from the paper; what it leaves open is told where it is chosen. The paper's back-end is VGG-16 at stride
8, trained as a whole (`trained="all"`); the default trains the last level, so that the rest may be cached.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ops import cross_entropy, resize_ac
from fewseg.models.parts.prototype_network import PrototypeNetwork, cosines, mean_features

SCALE = 20.0
"""The paper's alpha (section 3.4)."""


class PANet(PrototypeNetwork):
    """PANet: nearest of two prototypes, on a back-end whose end is trained to align support and query.

    `base_classes` is taken for the common signature and not used.

    `trained`: "layer4", or "all" of the back-end. `alignment` is the weight of the alignment loss (Eq. 8's lambda).
    """

    name = "panet"

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        output_stride: int | None = None,
        trained: str = "layer4",
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 320,
        alignment: float = 1.0,
    ) -> None:
        super().__init__()
        self.shots, self.image_size, self.alignment = shots, image_size, alignment
        self.take_backbone(create_backbone(backbone, output_stride=output_stride), level="layer4", trained=trained)

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        nearness = cosines(query["maps"], support["prototypes"].mean(1))  # (B, 2, h, w)
        # the paper does not say where its maps come to the image's size; chosen: the logits, bilinear
        return Prediction(resize_ac(SCALE * nearness, size), correlations=(nearness[:, 1] - nearness[:, 0],))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        terms = {"final": cross_entropy(prediction.logits, episode.truth)}
        return terms | {"alignment": self.alignment * self._alignment(prediction)} if self.alignment else terms

    def _alignment(self, prediction: Prediction) -> Tensor:
        """Cross-entropy of the supports, segmented by the query's prototypes (section 3.5, Algorithm 1).

        Eq. 7 names the query's mask; by the text, and here, it is the supports'.
        """
        query, support, mask = (prediction.extra[name] for name in ("query", "support", "mask"))
        found = resize_ac(prediction.logits.detach(), query.shape[-2:]).argmax(1)
        sides = F.one_hot(found, 2).movedim(-1, 1).to(query.dtype)  # (B, 2, h, w): predicted, not true
        prototypes = mean_features(query, sides).unsqueeze(1)  # (B, 1, 2, C)
        logits = SCALE * cosines(support, prototypes.expand(-1, support.shape[1], -1, -1))  # (B, K, 2, h, w)
        return cross_entropy(resize_ac(logits.flatten(0, 1), mask.shape[-2:]), mask.flatten(0, 1))
