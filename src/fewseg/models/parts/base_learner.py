"""Base learner: PSPNet on the base classes (Zhao et al., CVPR 2017; docs/networks/hdmnet.md section 1).

    f4 --PPM--> 2C channels --conv3x3, BN--> f5 --ReLU, dropout, conv1x1--> base logits (1 + N)

HDMNet and BAM take the back-end and this head from a trained `PSPNet`, frozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewseg.models.base import FrozenParts, freeze
from fewseg.models.hub_model import HubModel
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ops import cross_entropy, resize_ac, resize_nearest


class PSPNet(FrozenParts, HubModel, library_name="fewseg", tags=["semantic-segmentation"]):
    """Supervised segmentation of background and N base classes."""

    name = "base"

    def __init__(self, *, backbone: str = "lite0", base_classes: int = 15, image_size: int = 320) -> None:
        super().__init__()
        self.image_size = image_size
        self.backbone = create_backbone(backbone)
        self.base = BaseHead(self.backbone.channels["layer4"], base_classes)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to logits (B, 1 + N, H, W)."""
        f4 = self.backbone(self.backbone.normalise(image))["layer4"]
        return resize_ac(self.base.classify(self.base(f4)), image.shape[-2:])

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy with labels (B, H, W) in 0..N, 255 ignored."""
        return {"base": cross_entropy(logits, labels)}

    def param_groups(self, lr: float, *, backbone_factor: float = 0.1) -> list[dict[str, Any]]:
        """The back-end at `backbone_factor` times the head's learning rate (PASCAL: 0.1, COCO: 1)."""
        return [
            {"name": "backbone", "params": list(self.backbone.parameters()), "lr": backbone_factor * lr},
            {"name": "head", "params": list(self.base.parameters()), "lr": lr},
        ]


class BaseHead(nn.Module):
    """Pyramid pooling, f5 and the base classifier."""

    def __init__(self, channels: int, base_classes: int, *, width: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.ppm = PyramidPooling(channels)
        self.reduce = nn.Sequential(nn.Conv2d(2 * channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, 1 + base_classes, 1)

    def forward(self, f4: Tensor, fg: Tensor | None = None) -> Tensor:
        """f4 (B, C, h, w), ReLU'd where the back-end has one, to f5 (B, 512, h, w), before its ReLU.

        `fg` (B, H, W): the pixels whose f5 counts; elsewhere (resized nearest) it is 0.
        """
        f5 = self.reduce(self.ppm(f4))
        return f5 if fg is None else f5 * nearest_foreground(f5, fg)

    def classify(self, f5: Tensor) -> Tensor:
        """f5 to base logits (B, 1 + N, h, w)."""
        return self.classifier(self.dropout(f5.relu()))


class PyramidPooling(nn.Module):
    """PPM: averages of f4 over 1, 2, 3 and 6 bins a side, each reduced to C/4 channels and beside f4 itself."""

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        width = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(b), nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            for b in bins
        )

    def forward(self, f4: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 2C, h, w)."""
        return torch.cat([f4, *(resize_ac(pool(f4), f4.shape[-2:]) for pool in self.features)], 1)


def nearest_foreground(maps: Tensor, fg: Tensor) -> Tensor:
    """Foreground (B, H, W) resized nearest to the size of maps (B, C, h, w): (B, 1, h, w) bool."""
    return resize_nearest(fg.unsqueeze(1), maps.shape[-2:]) > 0


def frozen_head(channels: int, base_classes: int) -> BaseHead:
    """The base head, frozen, but for its dropout: that stays active while the meta learner trains."""
    head = BaseHead(channels, base_classes)
    for part in (head.ppm, head.reduce, head.classifier):
        freeze(part)
    return head
