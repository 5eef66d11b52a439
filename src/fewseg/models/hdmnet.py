"""HDMNet: Hierarchically Decoupled Matching Network.

Peng, Tian, Wu, Wang, Liu, Su, Jia, "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation", CVPR 2023,
https://arxiv.org/abs/2303.14652, and its supplementary material.

    query image ----------- back-end --> f2 f3 f4, f5 --> query features --+                      (3.2; spec 2)
    support image * mask -- back-end --> f2 f3 f4, f5 --> support features |
    prototype = masked average of the support features; prior = best cosine of f5 and f4 -+       (3.2)
    [features, prototype (, 10 prior)] --> 64 channels --> encoder, 3 stages, query and support apart  (3.2, Fig. 3)
    stage 3, 2, 1: correlation attention: every foreground support token votes over the query      (3.3, eq. 2-4)
    decoder, coarse to fine --> meta logits --> ensemble with the base learner --> final           (suppl. Fig. 3; BAM)
    losses: CE(final) + CE(meta) + correlation map distillation, mask -> 3 -> 2 -> 1               (3.4; suppl. eq. 1)

The step from BAM (bam.py): the support *image* is masked; a second prior comes from f5; encoder, matching and decoder
take the place of merge and ASPP; back-end, base learner and ensemble are the same.
Stage s = 1 is the finest. The released code's choices that the paper does not tell are marked "released". Departure
from it: the K-shot weights are trained (the released optimiser forgets them).
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features, FewShotSegmenter, freeze, image_by_image, keep_in_eval
from fewseg.models.fast.folding import FoldedSequential
from fewseg.models.parts import ops
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.base_learner import frozen_head
from fewseg.models.parts.ensemble import BaseEnsemble, ShotWeights
from fewseg.models.parts.matching import cosine_prior, spread_votes
from fewseg.models.parts.segformer import EncoderLayer, MixFFN, Projections

STAGES = (1, 2, 3)


class HDMNet(FewShotSegmenter):
    """HDMNet on a frozen back-end and, unless `base_learner` is off, a frozen base learner.

    `last_relu`, `support_mask`, `distill` and `temperature` are the switches of the supplement's experiments (spec
    section 9).
    """

    name = "hdmnet"
    needs_base_learner = True

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 320,
        base_learner: bool = True,
        last_relu: bool = True,
        support_mask: bool = True,
        distill: bool = True,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.shots, self.image_size = shots, image_size
        self.support_mask, self.distill, self.temperature = support_mask, distill, temperature
        self.backbone = create_backbone(backbone, last_relu=last_relu)
        freeze(self.backbone)
        self.base = frozen_head(self.backbone.channels["layer4"], base_classes) if base_learner else None
        priors = 2 if base_learner else 1
        mid = self.backbone.channels["layer3"] + self.backbone.channels["layer2"]
        self.reduce_query = nn.Sequential(nn.Conv2d(mid, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.reduce_support = nn.Sequential(nn.Conv2d(mid, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.merge_query = nn.Sequential(nn.Conv2d(512 + priors, 64, 1, bias=False), nn.ReLU())
        self.merge_support = nn.Sequential(nn.Conv2d(512, 64, 1, bias=False), nn.ReLU())
        self.encoder = HierarchicalEncoder()
        self.matching = nn.ModuleList(MatchingStage(priors) for _ in STAGES)
        self.decoder = Decoder()
        self.ensemble = BaseEnsemble() if base_learner else None
        self.shot_weights = ShotWeights(shots) if base_learner else None
        # released: every BN is a learned affine map, its statistics never move
        keep_in_eval(m for m in self.modules() if isinstance(m, nn.BatchNorm2d))

    def extract_query(self, image: Tensor) -> Features:
        return self._extract(self.backbone.normalise(image))

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        fg = masks == 1 if self.support_mask else torch.ones_like(masks, dtype=torch.bool)
        masked = self.backbone.normalise(images) * fg.unsqueeze(2)  # (B, K, 3, H, W)
        features = self._extract(masked.flatten(0, 1), fg.flatten(0, 1))
        return {name: f.unflatten(0, masks.shape[:2]) for name, f in features.items()} | {"fg": fg}

    @torch.no_grad()
    @image_by_image
    def _extract(self, image: Tensor, fg: Tensor | None = None) -> Features:
        levels = self.backbone(image)
        f2, f3, f4 = levels["layer2"], levels["layer3"], levels["layer4"]
        f2 = ops.resize_ac(f2, f3.shape[-2:])
        features = {"mid": torch.cat([f3, f2], 1), "f4": f4}
        if self.base is not None:
            features |= {"f5": self.base(self.backbone.activate(f4), fg), "gram": ops.gram(f2)}
        return features

    def embed_query(self, features: Features) -> Features:
        return features | {"mid": self.reduce_query(features["mid"])}

    def embed_support(self, features: Features) -> Features:
        shots, kept = features["mid"].shape[:2], {k: v for k, v in features.items() if k != "mid"}
        maps = self.reduce_support(features["mid"].flatten(0, 1))
        fg = ops.resize_ac(features["fg"].float().flatten(0, 1).unsqueeze(1), maps.shape[-2:])
        prototype = ops.masked_average(maps, fg)  # (B*K, 256)
        tokens = self.encoder(self.merge_support(torch.cat([maps, ops.tile(prototype, maps)], 1)))
        stages = {f"stage{s}": t.unflatten(0, shots) for s, t in zip(STAGES, tokens, strict=True)}
        return kept | stages | {"prototype": prototype.unflatten(0, shots)}

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        maps, prototype = query["mid"], support["prototype"].mean(1)
        prior = self._prior(query, support)  # (B, 2, h, w): f5, f4
        merged = self.merge_query(torch.cat([maps, ops.tile(prototype, maps), 10 * prior], 1))
        query_stages = self.encoder(merged)
        matched, correlations = [], []
        for s in reversed(STAGES):
            maps = support[f"stage{s}"]
            fg = ops.resize_nearest(support["fg"].float(), maps.shape[-2:]).flatten(1)  # (B, K*L)
            tokens = rearrange(maps, "b k c h w -> b (k h w) c")
            out, correlation = self.matching[s - 1](query_stages[s - 1], tokens, fg, prior)
            matched.append(out)
            correlations.append(correlation)
        return self._fuse(self.decoder(matched), tuple(correlations), query, support, size=size, base_index=base_index)

    def _fuse(
        self,
        meta: Tensor,
        correlations: tuple[Tensor, ...],
        query: Features,
        support: Features,
        *,
        size: tuple[int, int],
        base_index: Tensor | None,
    ) -> Prediction:
        if self.base is None or self.ensemble is None or self.shot_weights is None:
            return Prediction(ops.resize_ac(meta, size), correlations=correlations)
        with torch.no_grad():
            base = self.base.classify(query["f5"])
        distance = ops.gram_distance(query["gram"], support["gram"])
        # released: its K-shot code permutes twice, so the weights stay in the order of ascending distances
        psi = (self.shot_weights(distance, restore_order=False) * distance).sum(1)
        final = self.ensemble(meta, base, psi, base_index)
        aux = {"meta": ops.resize_ac(meta, size), "base": ops.resize_ac(base, size)}
        return Prediction(ops.resize_ac(final, size), aux=aux, correlations=correlations)

    def _prior(self, query: Features, support: Features) -> Tensor:
        priors = []
        for level in ("f5", "f4") if self.base is not None else ("f4",):
            fg = ops.resize_nearest(support["fg"].float(), support[level].shape[-2:])
            priors.append(cosine_prior(query[level], support[level], fg).mean(1, keepdim=True))
        return ops.resize_ac(torch.cat(priors, 1), query["mid"].shape[-2:])

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if episode.query_mask is None:
            raise ValueError("the loss needs episode.query_mask")
        terms = {"final": ops.cross_entropy(prediction.logits, episode.query_mask)}
        if "meta" in prediction.aux:
            terms["meta"] = ops.cross_entropy(prediction.aux["meta"], episode.query_mask)
        if self.distill:
            terms["distill"] = distillation(prediction.correlations, episode.query_mask, temperature=self.temperature)
        return terms

    def logged(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if "base" not in prediction.aux or episode.query_base_mask is None:
            return {}
        return {"base": ops.cross_entropy(prediction.aux["base"], episode.query_base_mask)}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        transformer = [p for part in (self.encoder, self.matching, self.decoder) for p in part.parameters()]
        inside = {id(p) for p in transformer}
        others = [p for p in self.trainable_parameters() if id(p) not in inside]
        return [
            {"name": "transformer", "params": transformer, "lr": lr},
            {"name": "others", "params": others, "lr": 10 * lr},
        ]


class HierarchicalEncoder(nn.Module):
    """Three stages of self-attention, fine to coarse; query and support pass through it separately (paper 3.2)."""

    def __init__(self, width: int = 64, *, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        shapes = zip((1, 3, 3), (1, 2, 2), (2, 4, 8), (4, 2, 1), strict=True)
        self.stages = nn.ModuleList(EncoderStage(width, *shape, layers=layers, dropout=dropout) for shape in shapes)

    def forward(self, maps: Tensor) -> list[Tensor]:
        """(B, 64, h, w) to the maps of stages 1, 2, 3."""
        out = []
        for stage in self.stages:
            maps = stage(maps)
            out.append(maps)
        return out


class EncoderStage(nn.Module):
    """Patch embedding, encoder layers (the paper's two), LayerNorm."""

    def __init__(
        self, width: int, kernel: int, stride: int, heads: int, reduction: int, *, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, width, kernel, stride, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(width, eps=1e-6)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, reduction, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.embed(maps)
        h, w = maps.shape[-2:]
        tokens = self.embed_norm(rearrange(maps, "b c h w -> b (h w) c"))
        for layer in self.layers:
            tokens = layer(tokens, h, w)
        return rearrange(self.norm(tokens), "b (h w) c -> b c h w", h=h)


class MatchingStage(nn.Module):
    """One cross layer of correlation attention, then a convolution that lets the prior in (paper 3.3, spec section
    4).
    """

    def __init__(self, priors: int, width: int = 64) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = CorrelationAttention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = MixFFN(width)
        self.mix = nn.Sequential(
            nn.Conv2d(width + priors, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        nn.init.kaiming_normal_(self.mix[0].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]

    def forward(self, query: Tensor, support: Tensor, fg: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Query map (B, C, h, w), support tokens (B, K*L, C) and foreground (B, K*L) to a map and a correlation map
        (B, h, w).
        """
        h, w = query.shape[-2:]
        tokens = rearrange(query, "b c h w -> b (h w) c")
        out, correlation = self.attention(self.norm1(tokens), self.norm1(support), fg)
        tokens = tokens + out
        tokens = tokens + self.ffn(self.norm2(tokens), h, w)
        maps = rearrange(tokens, "b (h w) c -> b c h w", h=h)
        mixed = self.mix(torch.cat([maps, ops.resize_ac(prior, (h, w))], 1))
        return mixed, rearrange(correlation, "b (h w) -> b h w", h=h)


class CorrelationAttention(nn.Module):
    """Cosine attention in which every support position spreads its vote over the query (paper eq. 2-4)."""

    def __init__(self, width: int, *, heads: int = 2, temperature: float = 0.1, dropout: float = 0.1) -> None:
        super().__init__()
        self.projections = Projections(width, heads, dropout=dropout)
        self.temperature = temperature

    def forward(self, query: Tensor, support: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.projections(query, support)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        # softmax over QUERY positions; the background's votes are dropped, not re-distributed
        votes, correlation = spread_votes(q, k, v, fg, temperature=self.temperature)
        return self.projections.merge(votes), correlation.mean(1)


class Decoder(nn.Module):
    """Coarse to fine, then the classification head (supplement Fig. 3); no activation inside: the released
    architecture.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            FoldedSequential(*_bottleneck(width, width), nn.BatchNorm2d(width), nn.ReLU()) for _ in STAGES
        )
        self.head = FoldedSequential(*_bottleneck(width, 2))

    def forward(self, matched: list[Tensor]) -> Tensor:
        """Maps of stages 3, 2, 1 (B, 64, h_s, w_s) to meta logits (B, 2, h, w)."""
        y = self.blocks[2](matched[0])
        for block, out in zip((self.blocks[1], self.blocks[0]), matched[1:], strict=True):
            y = ops.resize(y, out.shape[-2:])
            y = y + block(out + y)
        return self.head(y)


def _bottleneck(width: int, outputs: int) -> list[nn.Module]:
    wide = 4 * width
    return [
        nn.Conv2d(width, wide, 1),
        nn.BatchNorm2d(wide),
        nn.Conv2d(wide, wide, 3, padding=1),
        nn.BatchNorm2d(wide),
        nn.Conv2d(wide, outputs, 1),
    ]


def distillation(correlations: tuple[Tensor, ...], query_mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Correlation map distillation: the mask teaches the coarsest stage, every stage the next finer one (supplement
    eq. 1).

    `correlations` are (B, h, w), coarse to fine. Teachers are resized raw, before their softmax, and detached.
    """
    teacher = torch.where(query_mask == 1, 1.0, -1e9)
    total = correlations[0].new_zeros((), dtype=torch.float32)
    for student in correlations:
        target = ops.resize(teacher.unsqueeze(1), student.shape[-2:])
        t, s = (m.float().flatten(1).div(temperature).softmax(1) for m in (target, student))
        total = total + (t * ((t + 1e-12).log() - (s + 1e-12).log())).sum(1).mean()
        teacher = student.detach().float()
    return total / len(correlations)
