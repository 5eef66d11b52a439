"""timm's networks as back-ends: pyramids, Swin and vision transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import timm
import torch
from einops import rearrange
from timm.models import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.errors import UsageError, first_line
from fewseg.models.parts.imagenet_head import ImagenetHead
from fewseg.models.parts.levels import IMAGENET_MEAN, IMAGENET_STD, LEVELS, Backbone


class TimmPyramid(Backbone):
    """A convolutional timm network: its last three levels."""

    sizes: ClassVar[dict[str, Any]] = {}
    """What timm is told so that images of every size are taken."""

    def __init__(self, name: str, *, output_stride: int = 32, head: bool = False) -> None:
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
        if head:
            self.head = ImagenetHead(self.channels["layer4"])

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


def timm_backbone(name: str, *, output_stride: int | None, head: bool = False) -> Backbone:
    """A network by timm's name, with random weights; UsageError for one that cannot be a back-end."""
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
    return (TimmSwin if swin else TimmPyramid)(name, output_stride=output_stride or 32, head=head)
