"""HSNet: Hypercorrelation Squeeze Network.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021, https://arxiv.org/abs/2104.01538.

    query, support image -- back-end --> every block's features of three levels      (Fig. 2; docs/networks/peers.md)
    support features * mask, then both to unit length
    correlation per block: relu(cosine) of every query with every support position (h, w, h', w')
    pyramid: blocks of a level stacked as channels --> squeeze: centre-pivot 4D convolutions shrink (h', w')
    mix: coarse to fine, query positions up to the finer level's, added, three more 4D convolutions
    mean over what is left of (h', w') --> 2D decoder --> logits
    K shots: each shot segments alone; foreground where at least half of the most votes agree
    loss: CE, void counts as background

The back-end is the plain, undilated one, and features are taken *before* a block's last ReLU. Trained with one shot;
further shots only vote. Departure: back-ends unknown to the paper (lite0, timm/NAME) give their blocks' outputs.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.levels import LEVELS
from fewseg.models.parts.ops import cross_entropy, foreground, resize_ac

KERNELS_AND_STRIDES = {
    "layer4": ((3, 2), (3, 2), (3, 2)),
    "layer3": ((5, 4), (3, 2), (3, 2)),
    "layer2": ((5, 4), (5, 4), (3, 2)),
}
"""Of the squeezing convolutions; strides are over support positions."""


class HSNet(FewShotSegmenter):
    """HSNet: similarities of all pairs of positions, squeezed by 4-D convolutions, on a frozen back-end.

    `base_classes` is taken for the common signature and not used.
    """

    name = "hsnet"

    def __init__(
        self, *, backbone: str = "lite0", base_classes: int = 15, shots: int = 1, image_size: int = 320
    ) -> None:
        super().__init__()
        if backbone.endswith("-ds"):
            raise UsageError(f"hsnet works on undilated back-ends; take {backbone.removesuffix('-ds')}, not {backbone}")
        self.shots, self.image_size = shots, image_size
        self.backbone = create_backbone(backbone, output_stride=32)
        for module in self.backbone.modules():
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = False  # torchvision's own VGG, unlike the other papers'
        freeze(self.backbone)
        names = self.backbone.block_channels(image_size=image_size)
        self.blocks = {level: sum(name.startswith(level) for name in names) for level in LEVELS}
        self.learner = HypercorrelationLearner(self.blocks)

    def extract_query(self, image: Tensor) -> Features:
        return {name: _unit(f, dim=1) for name, f in self._features(image).items()}

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        fg = foreground(masks)
        features = {n: f.unflatten(0, masks.shape[:2]) for n, f in self._features(images.flatten(0, 1)).items()}
        masked = {n: f * resize_ac(fg, f.shape[-2:]).unsqueeze(2) for n, f in features.items()}
        return {name: _unit(f, dim=2) for name, f in masked.items()}

    @torch.no_grad()
    def _features(self, image: Tensor) -> Features:
        """Every block's features by name, such as layer3.1: (B, C, h, w)."""
        return dict(self.backbone.blocks(self.backbone.normalise(image)))

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        logits, *maps = self.each_shot(query, support)  # (B, K, 2, h, w), (B, K, h_l, w_l)
        shots = resize_ac(logits.flatten(0, 1), size).unflatten(0, logits.shape[:2])  # (B, K, 2, H, W)
        return Prediction(vote(shots), aux={"shots": shots}, correlations=tuple(level.mean(1) for level in maps))

    def each_shot(self, query: Features, support: Features) -> tuple[Tensor, ...]:
        """What `match_one` gives, for every shot: (B, K, ...)."""
        shots = next(iter(support.values())).shape[1]
        repeated = {name: f.unsqueeze(1).expand(-1, shots, *f.shape[1:]).flatten(0, 1) for name, f in query.items()}
        found = self.match_one(repeated, {name: f.flatten(0, 1) for name, f in support.items()})
        return tuple(f.unflatten(0, (-1, shots)) for f in found)

    def match_one(self, query: Features, support: Features) -> tuple[Tensor, ...]:
        """Logits (B, 2, h, w) from one shot, and its correlation maps (B, h_l, w_l), coarse to fine."""
        pyramid = self._correlate(query, support)
        return (self.learner(pyramid), *(level.flatten(4).amax(4).mean(1) for level in pyramid.values()))

    def _correlate(self, query: Features, support: Features) -> dict[str, Tensor]:
        """Features of one shot to the pyramid, coarse to fine: (B, blocks, h, w, h', w') per level."""
        pyramid = {}
        for level in reversed(LEVELS):
            names = [f"{level}.{i}" for i in range(self.blocks[level])]
            cosines = [torch.einsum("bchw,bcyx->bhwyx", query[name], support[name]) for name in names]
            pyramid[level] = torch.stack(cosines, 1).relu()
        return pyramid

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        # released: trained with one shot, and without an ignore label
        return {"final": cross_entropy(prediction.aux["shots"][:, 0], episode.truth == 1)}


def vote(shots: Tensor) -> Tensor:
    """Logits of K shots (B, K, 2, H, W) to logits (B, 2, H, W) whose argmax is the paper's vote.

    Foreground is where the votes, divided by the image's most votes (at least 1), reach a half. One shot's logits stay.
    """
    alone = shots.new_ones(shots.shape[1]).sum() == 1  # no Python number: an exported graph holds for any K
    votes = shots.argmax(2).sum(1)  # (B, H, W)
    most = votes.amax((-2, -1), keepdim=True).clamp(min=1)
    # 2 votes - most is whole, so half a vote more makes a tie foreground and changes nothing else
    margin = (2 * votes - most + 0.5) / most
    return torch.where(alone, shots[:, 0], torch.stack([-margin, margin], 1).to(shots.dtype))


class HypercorrelationLearner(nn.Module):
    """Squeeze every level, mix coarse to fine, decode (the paper's encoder and decoder)."""

    def __init__(self, blocks: dict[str, int], widths: tuple[int, ...] = (16, 64, 128)) -> None:
        super().__init__()
        self.squeeze = nn.ModuleDict(
            {level: _stack((blocks[level], *widths), KERNELS_AND_STRIDES[level]) for level in reversed(LEVELS)}
        )
        self.mix = nn.ModuleDict({level: _stack((widths[-1],) * 4, ((3, 1),) * 3) for level in ("layer3", "layer2")})
        self.decoder1 = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 64, 3, padding=1), nn.ReLU()
        )
        self.decoder2 = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1))

    def forward(self, pyramid: dict[str, Tensor]) -> Tensor:
        """Correlations (B, blocks, h, w, h', w') by level to logits (B, 2, 2h, 2w) of the finest level's size."""
        squeezed = {level: self.squeeze[level](correlation) for level, correlation in pyramid.items()}
        mixed = squeezed["layer4"]
        for level in ("layer3", "layer2"):
            mixed = self.mix[level](_fit(mixed, squeezed[level]) + squeezed[level])
        maps = self.decoder1(mixed.mean((-2, -1)))
        return self.decoder2(resize_ac(maps, (2 * maps.shape[-2], 2 * maps.shape[-1])))


class CentrePivot4d(nn.Module):
    """4D convolution by its two pivots: over query positions at every kept support position, and over support
    positions at every query position; (B, C, h, w, h', w').
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.query = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.support = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape[:4]
        kept = x[..., :: self.stride, :: self.stride]
        y, z = kept.shape[-2:]
        over_query = self.query(rearrange(kept, "b c h w y z -> (b y z) c h w"))
        over_support = self.support(rearrange(x, "b c h w y z -> (b h w) c y z"))
        query = rearrange(over_query, "(b y z) c h w -> b c h w y z", b=b, y=y, z=z)
        return query + rearrange(over_support, "(b h w) c y z -> b c h w y z", b=b, h=h, w=w)


def _stack(widths: tuple[int, ...], shapes: tuple[tuple[int, int], ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, (kernel, stride) in zip(widths, widths[1:], shapes, strict=False):
        layers += [CentrePivot4d(inputs, outputs, kernel, stride), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _fit(coarse: Tensor, fine: Tensor) -> Tensor:
    """A coarse level's query positions up to the fine level's.

    The support sides agree for ResNets; where a back-end's sides are rounded another way, pooling makes them.
    """
    y, z = coarse.shape[-2:]
    maps = resize_ac(rearrange(coarse, "b c h w y z -> (b y z) c h w"), fine.shape[2:4])
    maps = rearrange(maps, "(b y z) c h w -> b c h w y z", y=y, z=z)
    pooled = F.adaptive_avg_pool2d(maps.flatten(1, 3), (fine.shape[-2], fine.shape[-1]))
    return pooled.unflatten(1, maps.shape[1:4])


def _unit(features: Tensor, *, dim: int) -> Tensor:
    return features / (features.norm(dim=dim, keepdim=True) + 1e-5)
