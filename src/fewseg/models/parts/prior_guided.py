"""What PFENet and BAM share: features whose mask enters before layer 4, prototypes, priors and heads of convolutions.

HDMNet masks the image itself, and keeps its priors unscaled. See docs/networks/peers.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewseg.models.parts.levels import Backbone
from fewseg.models.parts.matching import CosinePrior
from fewseg.models.parts.ops import masked_average, min_max, resize_ac


def side_by_side(levels: dict[str, Tensor]) -> Tensor:
    """[f3, f2], f2 at f3's size (VGG and pyramids differ in it): (B, C3 + C2, h, w)."""
    f3 = levels["layer3"]
    return torch.cat([f3, resize_ac(levels["layer2"], f3.shape[-2:])], 1)


@torch.no_grad()
def masked_support(backbone: Backbone, images: Tensor, fg: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Supports (B, K, 3, H, W) with foreground (B, K, H, W) to the levels that know no mask, each (B*K, ...), and f4
    (B*K, C, h, w) of f3 * mask.
    """
    levels = backbone.lower(backbone.normalise(images).flatten(0, 1))
    soft = foreground_at(levels["layer3"], fg).flatten(0, 1).unsqueeze(1)
    return levels, backbone.upper(levels | {"layer3": levels["layer3"] * soft})


def prototypes(maps: Tensor, fg: Tensor) -> Tensor:
    """Masked averages of support maps (B*K, C, h, w) over the foreground (B, K, H, W): (B, K, C)."""
    soft = foreground_at(maps, fg).flatten(0, 1).unsqueeze(1)
    return masked_average(maps, soft).unflatten(0, fg.shape[:2])


def shot_priors(prior: CosinePrior, query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
    """The prior of every shot, min-max scaled, from f4 of query (B, C, h, w) and supports (B, K, C, h, w):
    (B, K, h, w).

    The support is masked a second time here, from the image-size mask: released.
    """
    return min_max(prior(query, support, foreground_at(support, fg)))


def foreground_at(maps: Tensor, fg: Tensor) -> Tensor:
    """Foreground (B, K, H, W) bool to the size of maps (..., h, w), soft at its border: (B, K, h, w)."""
    return resize_ac(fg.float(), maps.shape[-2:])


def reduction(backbone: Backbone) -> nn.Sequential:
    """[f3, f2] to 256 channels."""
    inputs = backbone.channels["layer3"] + backbone.channels["layer2"]
    return nn.Sequential(nn.Conv2d(inputs, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))


def two_convolutions() -> nn.Sequential:
    """The inside of a residual block of 256 channels."""
    return nn.Sequential(
        *(layer for _ in range(2) for layer in (nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.ReLU()))
    )


def classifier() -> nn.Sequential:
    """256 channels to two logits."""
    return nn.Sequential(
        nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(256, 2, 1)
    )
