"""What PANet and SSP share: a back-end trained from a level on, and prototypes of both sides of a mask."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze, keep_in_eval
from fewseg.models.parts.levels import LEVELS, Backbone
from fewseg.models.parts.ops import in_fp32

ALL = "all"


class PrototypeNetwork(FewShotSegmenter):
    """Features of one level of a back-end, `trained` from a level on; what comes before is frozen, and may be cached.

    "all" trains the whole back-end, as both papers do: what is extracted of an image is then the image itself.
    """

    masks_features = True
    level: str
    """The level whose maps are matched."""
    trained: str

    def take_backbone(self, backbone: Backbone, *, level: str, trained: str) -> None:
        """Keep a back-end of which all up to `level` and from `trained` on is trained. UsageError for another level."""
        choices = [ALL, *(name for name in LEVELS[1:] if name <= level)]
        if trained not in choices:
            raise UsageError(f"model.trained={trained!r}: choose {' or '.join(choices)} ({self.name} matches {level})")
        self.backbone, self.level, self.trained = backbone, level, trained
        unused = [m for name in LEVELS[1:] if name > level for m in backbone.stage_of(name)]
        if trained == ALL:
            for module in unused:
                freeze(module)
        else:
            stages = [m for name in LEVELS[1:] if trained <= name <= level for m in backbone.stage_of(name)]
            kept = {id(part) for stage in stages for part in stage.modules()}
            freeze(backbone)
            for module in (m for m in backbone.modules() if id(m) in kept):
                object.__setattr__(module, "stays_in_eval", False)
                module.requires_grad_(True)
        # their ImageNet statistics are kept: batches are too small for others, and a step changes no buffer
        keep_in_eval(m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        x = self.backbone.normalise(image)
        if self.trained == ALL:
            return {"image": x}
        levels = self.backbone.first(x) if self.trained == "layer3" else self.backbone.lower(x)
        before = LEVELS[LEVELS.index(self.trained) - 1]
        return {name: maps for name, maps in levels.items() if name == before or name not in LEVELS}

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.as_support(self.extract_query(images.flatten(0, 1)), masks)

    def embed_query(self, features: Features) -> Features:
        return {"maps": self.embed(features)}

    def embed_support(self, features: Features) -> Features:
        return {"prototypes": self.prototypes(self.support_maps(features), features["mask"])}

    def embed(self, features: Features) -> Tensor:
        """Extracted features of images to the maps that are matched: (B, C, h, w)."""
        if "image" in features and self.level == LEVELS[-1]:
            return self.backbone(features["image"])[self.level]
        levels = self.backbone.first(features["image"]) if "image" in features else features
        levels = levels if "layer3" in levels else self.backbone.middle(levels)
        return levels["layer3"] if self.level == "layer3" else self.backbone.upper(levels)

    def support_maps(self, features: Features) -> Tensor:
        """Extracted features of supports to the maps that are matched: (B, K, C, h, w)."""
        flat = {name: f.flatten(0, 1) for name, f in features.items() if name != "mask"}
        return self.embed(flat).unflatten(0, features["mask"].shape[:2])

    def prototypes(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Background's and foreground's mean feature of every shot, of maps (B, K, C, h, w) and masks (B, K, H, W)
        uint8 {0, 1, 255}: (B, K, 2, C).
        """
        size = maps.shape[-2:]
        # what a position counts that the mask's border cuts is not said; chosen: for each side, its share
        sides = torch.stack([(masks == side).byte().float() for side in (0, 1)], 2).flatten(0, 1)  # (B K, 2, H, W)
        shares = F.adaptive_avg_pool2d(sides, (size[0], size[1])).unflatten(0, masks.shape[:2])
        return mean_features(maps, shares)

    def match_extracted(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        """As `match` of what is embedded, and with the maps of both, which the loss looks at."""
        q, maps = self.embed_query(query), self.support_maps(support)
        s = {"prototypes": self.prototypes(maps, support["mask"])}
        prediction = self.match(q, s, size=size, base_index=base_index)
        return replace(prediction, extra={"query": q["maps"], "support": maps, "mask": support["mask"]})

    @abstractmethod
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        """From the query's maps (B, C, h, w) and the shots' prototypes (B, K, 2, C)."""


@in_fp32
def mean_features(maps: Tensor, weights: Tensor) -> Tensor:
    """Masked averages of maps (..., C, h, w) by weights (..., P, h, w), PANet's Eq. 1 and 2: (..., P, C). A weight that
    is nothing everywhere gives 0.
    """
    sums = torch.einsum("...chw,...phw->...pc", maps, weights)
    return sums / (weights.sum((-2, -1)).unsqueeze(-1) + 1e-5)


@in_fp32
def cosines(maps: Tensor, prototypes: Tensor) -> Tensor:
    """Of every position of maps (..., C, h, w) with prototypes (..., P, C): (..., P, h, w)."""
    return torch.einsum("...chw,...pc->...phw", F.normalize(maps, dim=-3), F.normalize(prototypes, dim=-1))
