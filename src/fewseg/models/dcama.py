"""DCAMA: Dense Cross-Query-and-Support Attention Weighted Mask Aggregation.

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng, "Dense Cross-Query-and-Support Attention Weighted Mask Aggregation for
Few-Shot Segmentation", ECCV 2022, https://arxiv.org/abs/2207.08549. Further: docs/networks/more-peers.md.

    query, whole support images --> frozen back-end --> every block's maps at 1/8, 1/16, 1/32, the last at 1/4
        (section 3.2)
    support mask --> bilinear to every level's size: values between 0 and 1
    attention, per block: every query position looks at every support position, foreground and background alike;
        what it gathers is mask values, not features: softmax(Q K^T / sqrt d) V, mean over heads   (Eq. 1)
    K shots: the positions of all K side by side, one pass   (section 3.3)
    the masks of a level's blocks as channels --> three convolutions; coarse to fine, up and added, three more
    mixer: [masks, last maps at 1/8 of query and support] --> up --> [.., those at 1/4] --> up --> logits
    loss: CE

Written from the paper; what it leaves open is told where it is chosen. The back-end is the plain, undilated one,
as HSNet's.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.levels import LEVELS
from fewseg.models.parts.ops import cross_entropy, foreground, in_fp32, resize_ac

WIDTHS = (16, 64, 128)
"""Of the three convolutions on a level's masks. The paper gives no widths; chosen: those of HSNet's squeeze."""


class DCAMA(FewShotSegmenter):
    """DCAMA: support masks, summed by attention of all pairs of positions, on a frozen back-end.

    `base_classes` is taken for the common signature and not used.
    """

    name = "dcama"
    masks_features = True

    def __init__(
        self, *, backbone: str = "lite0", base_classes: int = 15, shots: int = 1, image_size: int = 320, heads: int = 8
    ) -> None:
        super().__init__()
        if backbone.endswith("-ds"):
            raise UsageError(f"dcama works on undilated back-ends; take {backbone.removesuffix('-ds')}, not {backbone}")
        self.shots, self.image_size = shots, image_size
        self.backbone = create_backbone(backbone, output_stride=32)
        freeze(self.backbone)
        channels = self.backbone.block_channels(image_size=image_size)
        self.blocks = {level: [name for name in channels if name.startswith(level)] for level in LEVELS}
        groups = {
            level: [[n for n in names if channels[n] == width] for width in dict.fromkeys(channels[n] for n in names)]
            for level, names in self.blocks.items()
        }
        self.attention = nn.ModuleDict(
            {level: LevelAttention(of, [channels[names[0]] for names in of], heads) for level, of in groups.items()}
        )
        self.first = nn.ModuleDict({level: convolutions(len(self.blocks[level]), WIDTHS) for level in reversed(LEVELS)})
        self.mixed = nn.ModuleDict(
            {level: convolutions(WIDTHS[-1], (WIDTHS[-1],) * 3) for level in reversed(LEVELS[:-1])}
        )
        last = self.blocks["layer2"][-1]
        # a vision transformer has no layer1: its query and support then come in once
        self.skips = [last, *(name for name in channels if name.startswith("layer1"))]
        self.mixer = Mixer([2 * channels[name] for name in self.skips])

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        return dict(self.backbone.all_blocks(self.backbone.normalise(image)))

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.as_support(self.extract_query(images.flatten(0, 1)), masks)

    def as_support(self, features: Features, masks: Tensor) -> Features:
        return {name: f.unflatten(0, masks.shape[:2]) for name, f in features.items()} | {"fg": masks == 1}

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        fg = foreground(support["fg"])  # (B, K, H, W)
        masks = {
            level: self.attention[level](query, support, resize_ac(fg, support[names[0]].shape[-2:]))
            for level, names in self.blocks.items()
        }  # (B, blocks, h, w)
        coarse_to_fine = [masks[level] for level in reversed(LEVELS)]
        x = self.first["layer4"](masks["layer4"])
        for level in reversed(LEVELS[:-1]):
            # the paper's figure merges the scales; chosen: the coarser one is resized and added, as HSNet's
            x = self.mixed[level](resize_ac(x, masks[level].shape[-2:]) + self.first[level](masks[level]))
        # of the supports' maps the mixer takes one shot's, by the paper; chosen for several: the largest values
        skips = [torch.cat([query[name], support[name].amax(1)], 1) for name in self.skips]
        return Prediction(
            resize_ac(self.mixer(x, skips), size), correlations=tuple(level.mean(1) for level in coarse_to_fine)
        )

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        return {"final": cross_entropy(prediction.logits, episode.truth)}


class LevelAttention(nn.Module):
    """A level's attention weighted mask aggregation, for all its blocks (section 3.2).

    The paper has one attention a level, which its blocks share. Where a back-end's blocks of a level differ in width
    (EfficientNet), those of one width do.
    """

    def __init__(self, blocks: list[list[str]], channels: list[int], heads: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.widths = nn.ModuleList(MaskAttention(width, heads) for width in channels)

    def forward(self, query: Features, support: Features, fg: Tensor) -> Tensor:
        """Features of all blocks by name, and the shots' foreground (B, K, h', w'): (B, blocks, h, w)."""
        found = [
            attention(query[name], support[name], fg)
            for attention, names in zip(self.widths, self.blocks, strict=True)
            for name in names
        ]
        return torch.stack(found, 1)


class MaskAttention(nn.Module):
    """Eq. 1: multi-head attention whose values are the support's mask."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        # the paper's number of heads is not said for a width that it does not divide; chosen: the next one that does
        self.heads = next(h for h in range(min(heads, channels), 0, -1) if channels % h == 0)
        self.query, self.key = (likeness(channels) for _ in range(2))

    @in_fp32
    def forward(self, query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
        """Query maps (B, C, h, w), supports' (B, K, C, h', w') and foreground (B, K, h', w'): (B, h, w)."""
        q = self._heads(self.query(tokens(query)))  # (B, heads, L, d)
        k = self.key(tokens(support.flatten(0, 1))).unflatten(0, support.shape[:2]).flatten(1, 2)
        k, v = self._heads(k), fg.flatten(1)[:, None, :, None]  # (B, heads, K M, d), (B, 1, K M, 1)
        # torch's attention makes no table of all pairs where values are as wide as keys: the rest is nothing
        values = F.pad(v, (0, q.shape[-1] - 1)).expand(-1, self.heads, -1, -1)
        gathered = F.scaled_dot_product_attention(q, k, values)[..., 0]  # (B, heads, L)
        return gathered.mean(1).unflatten(1, query.shape[-2:])

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b l (n d) -> b n l d", n=self.heads)


def likeness(channels: int) -> nn.Linear:
    """A projection that starts as a share of the identity: the attention then begins with the features' own likeness.

    The paper does not say how they start; chosen. From a random start two projections say nothing of each other, and
    where features have both signs (EfficientNet's do) the gathered masks are no better than chance for hundreds of
    steps. The share keeps the first softmax soft; GroupNorm makes up for its scale.
    """
    projection = nn.Linear(channels, channels)
    nn.init.eye_(projection.weight).data.mul_(0.2)
    nn.init.zeros_(projection.bias)
    return projection


def tokens(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as tokens (B, h w, C) with Vaswani et al.'s sines of the token's number added (section 3.2)."""
    flat = maps.flatten(2).transpose(1, 2)
    return flat + positions(flat.shape[1], flat.shape[2], like=flat)


def positions(count: int, channels: int, *, like: Tensor) -> Tensor:
    """Sine and cosine by turns of every token's number, at wavelengths from 2 pi to 20,000 pi: (count, channels)."""
    number = torch.arange(count, device=like.device, dtype=like.dtype).unsqueeze(1)
    even = torch.arange(0, channels, 2, device=like.device, dtype=like.dtype)
    angle = number * torch.exp(-math.log(10000.0) / channels * even)  # (count, half)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :channels]


class Mixer(nn.Module):
    """The mask-feature mixer: masks and the images' own maps, by three blocks from 1/8 to the logits (section 3.2).

    The paper's widths are not given; chosen: 128, 64 and 16.
    """

    def __init__(self, skips: list[int]) -> None:
        super().__init__()
        widths = (WIDTHS[2], WIDTHS[1])
        before = (WIDTHS[2], WIDTHS[2])
        self.skips = nn.ModuleList(
            convolutions(width + skip, (out, out)) for width, skip, out in zip(before, skips, widths, strict=False)
        )
        self.last = nn.Sequential(
            nn.Conv2d(widths[len(skips) - 1], WIDTHS[0], 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTHS[0], 2, 3, padding=1)
        )

    def forward(self, masks: Tensor, skips: list[Tensor]) -> Tensor:
        """Masks (B, 128, h, w) and the maps of both images, coarse to fine: logits at twice the finest one's size."""
        x = masks
        for block, skip in zip(self.skips, skips, strict=True):
            x = block(torch.cat([resize_ac(x, skip.shape[-2:]), skip], 1))
        return self.last(resize_ac(x, (2 * x.shape[-2], 2 * x.shape[-1])))


def convolutions(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3x3 convolutions, each with a ReLU. The paper names no norm; chosen: GroupNorm of 4, as HSNet's."""
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers)
