"""Back-ends with their BatchNorms folded into the convolutions, and everything laid out channels last."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from fewseg.models.fast.folding import FoldedCopy, conv_norm, run_folded
from fewseg.models.fast.seen import seen_levels
from fewseg.models.parts.backbones import VGG, ResidualBlock, ResNet
from fewseg.models.parts.levels import LEVELS, Backbone
from fewseg.models.parts.timm_backbones import TimmPyramid, TimmSwin, TimmViT


class ChannelsLast(Backbone):
    """Weights and images channels last: what convolutions want on a CPU, and on a GPU in half precision."""

    def lay_out(self) -> None:
        """Lay out the weights; no value changes."""
        with torch.inference_mode(False), torch.no_grad():
            self.to(memory_format=torch.channels_last)

    def lower(self, image: Tensor) -> dict[str, Tensor]:
        return super().lower(_channels_last(image))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return seen_levels(self, image, lambda one: super(ChannelsLast, self).forward(_channels_last(one)))


class QuickResNet(ChannelsLast, ResNet):
    """A ResNet; its blocks are `FoldedResidualBlock`s, which end with their ReLU at no cost."""

    def activated_stage(self, index: int, x: Tensor) -> Tensor:
        return getattr(self, f"layer{index}")(x)  # the first ends in a max-pool of what passed a ReLU


class FoldedResidualBlock(ResidualBlock):
    """A bottleneck of three convolutions that have taken in their BatchNorms."""

    def forward(self, x: Tensor) -> Tensor:
        return self._sum(x, relu=True)

    def residual_sum(self, x: Tensor) -> Tensor:
        return self._sum(x, relu=False)

    def _sum(self, x: Tensor, *, relu: bool) -> Tensor:
        b: Any = self
        out = conv_norm(b.conv1, b.bn1, x, relu=True)
        out = conv_norm(b.conv2, b.bn2, out, relu=True)
        plus = x if b.downsample is None else b.downsample(x)
        return conv_norm(b.conv3, b.bn3, out, plus=plus, relu=relu)


class QuickVGG(ChannelsLast, VGG):
    """A VGG whose convolutions have taken in their BatchNorms, if it has any."""

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        return run_folded(self.stage(index), x)


class QuickTimmPyramid(ChannelsLast, TimmPyramid):
    """A timm network whose convolutions have taken in their BatchNorms, in a copy where nothing of it is trained."""

    shares: ClassVar = ("net",)  # its code is not ours: it stays one network, and a copy of it is folded
    _folded: FoldedCopy

    def lay_out(self) -> None:
        super().lay_out()
        self._folded = FoldedCopy()

    def network(self) -> Any:
        return self._folded.of(self.net)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if not self.has_stages:
            return super().forward(image)
        stages = self.stages(image)  # what lies between the levels is computed on the way to them in any case
        return {level: stages[level] for level in LEVELS}

    def stages(self, image: Tensor) -> dict[str, Tensor]:
        if not self.has_stages:
            return super().stages(image)
        return seen_levels(self, image, lambda one: super(QuickTimmPyramid, self).stages(_channels_last(one)))


class QuickTimmSwin(QuickTimmPyramid, TimmSwin):
    """A Swin transformer."""


class QuickTimmViT(ChannelsLast, TimmViT):
    """A vision transformer."""

    shares: ClassVar = ("net",)


def _channels_last(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)
