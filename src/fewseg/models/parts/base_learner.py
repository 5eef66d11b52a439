"""Base learner: PSPNet on the base classes (Zhao et al., CVPR 2017; spec hdmnet.md section 1).

    f4 --PPM--> 2C --conv3x3, BN--> f5 --ReLU, dropout, conv1x1--> base logits (1 + N)

The convolution is linear, so its half on the up-sampled averages is done on the few averages themselves (`pyramid`).

HDMNet and BAM take the back-end and this head from a trained `PSPNet`, frozen.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from fewseg.models.base import freeze
from fewseg.models.fast.pyramid import own_convolution, pooled_convolution
from fewseg.models.hub_model import HubModel
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ops import cross_entropy, resize_ac, resize_nearest


class PSPNet(nn.Module, HubModel, library_name="fewseg", tags=["semantic-segmentation"]):
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
        self.reduce.to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, 1 + base_classes, 1)

    def forward(self, f4: Tensor, fg: Tensor | None = None) -> Tensor:
        """f4 (B, C, h, w), ReLU'd where the back-end has one, to f5 (B, 512, h, w), before its ReLU.

        `fg` (B, H, W): the pixels whose f5 is asked for; elsewhere (resized nearest) it is 0.
        """
        convolution, norm = cast(nn.Conv2d, self.reduce[0]), self.reduce[1]
        pooled = pooled_convolution(self.ppm(f4), convolution, (f4.shape[-2], f4.shape[-1]))
        if fg is None:
            return norm(own_convolution(f4, convolution) + pooled)
        where = resize_nearest(fg.float().unsqueeze(1), f4.shape[-2:])[:, 0] > 0
        return norm(own_convolution(f4, convolution, where=where) + pooled) * where.unsqueeze(1)

    def classify(self, f5: Tensor) -> Tensor:
        """f5 to base logits (B, 1 + N, h, w)."""
        return self.classifier(self.dropout(f5.relu()))


def frozen_head(channels: int, base_classes: int) -> BaseHead:
    """The base head, frozen, but for its dropout: that stays active while the meta learner trains (spec section 1)."""
    head = BaseHead(channels, base_classes)
    for part in (head.ppm, head.reduce, head.classifier):
        freeze(part)
    return head


class PyramidPooling(nn.Module):
    """PPM: averages of f4 over 1, 2, 3 and 6 bins a side, each reduced to C/4 channels."""

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        width = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(b), nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            for b in bins
        )

    def forward(self, f4: Tensor) -> list[Tensor]:
        """f4 (B, C, h, w) to maps (B, C/4, bins, bins)."""
        return [pool(f4) for pool in self.features]
