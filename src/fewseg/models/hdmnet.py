"""HDMNet: Hierarchically Decoupled Matching Network.

Peng, Tian, Wu, Wang, Liu, Su, Jia, "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation", CVPR 2023,
https://arxiv.org/abs/2303.14652, and its supplementary material.

    query image ----------- back-end --> f2 f3 f4, f5 --> query features --+                      (3.2)
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

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features, FewShotSegmenter, freeze, keep_in_eval, named
from fewseg.models.parts import ops
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.base_learner import frozen_head
from fewseg.models.parts.ensemble import BaseEnsemble, ShotWeights
from fewseg.models.parts.matching import CosinePrior
from fewseg.models.parts.merge import Merge
from fewseg.models.parts.segformer import EncoderLayer, MixFFN, Projections

STAGES = (1, 2, 3)


class Extracted(NamedTuple):
    """What the frozen back-end and base learner see: of queries (B, ...), of supports (B, K, ...)."""

    f23: Tensor
    """(B, C3 + C2, h, w): f3 and f2 side by side."""
    f4: Tensor
    """(B, C4, h, w)."""
    f5: Tensor | None = None
    """(B, 512, h, w), before its ReLU; None without a base learner, as `gram`."""
    gram: Tensor | None = None
    """(B, C2, C2): the style, cosines between the channels of f2."""
    fg: Tensor | None = None
    """(B, K, H, W) bool: the supports' foreground, at the image's size."""


class Query(NamedTuple):
    """An encoded query."""

    maps: Tensor
    """(B, 256, h, w)."""
    f4: Tensor
    f5: Tensor | None = None
    gram: Tensor | None = None


class Support(NamedTuple):
    """Encoded supports."""

    prototype: Tensor
    """(B, K, 256)."""
    stage1: Tensor
    """(B, K, 64, h_1, w_1): the encoder's finest maps; the next two are coarser."""
    stage2: Tensor
    stage3: Tensor
    fg: Tensor
    f4: Tensor
    f5: Tensor | None = None
    gram: Tensor | None = None


class HDMNet(FewShotSegmenter):
    """HDMNet on a frozen back-end and, unless `base_learner` is off, a frozen base learner.

    `last_relu`, `support_mask`, `distill` and `temperature` are the switches of the supplement's experiments
    (docs/networks/hdmnet.md section 9).
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
        f23 = self.backbone.channels["layer3"] + self.backbone.channels["layer2"]
        self.reduce_query = nn.Sequential(nn.Conv2d(f23, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.reduce_support = nn.Sequential(nn.Conv2d(f23, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.prior = CosinePrior()
        self.merge_query = Merge(256, priors, 64, nn.ReLU())
        self.merge_support = Merge(256, 0, 64, nn.ReLU())
        self.encoder = HierarchicalEncoder()
        self.matching = nn.ModuleList(MatchingStage(priors) for _ in STAGES)
        self.decoder = Decoder()
        self.ensemble = BaseEnsemble() if base_learner else None
        self.shot_weights = ShotWeights(shots) if base_learner else None
        # released: every BN is a learned affine map, its statistics never move
        keep_in_eval(m for m in self.modules() if isinstance(m, nn.BatchNorm2d))

    # 3.2: features. The support image is masked, so that its features hold the object alone.

    def extract_query(self, image: Tensor) -> Features:
        return self._extract(self.backbone.normalise(image))

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        fg = masks == 1 if self.support_mask else torch.ones_like(masks, dtype=torch.bool)
        masked = self.backbone.normalise(images) * fg.unsqueeze(2)  # (B, K, 3, H, W)
        features = self._extract(masked.flatten(0, 1), fg.flatten(0, 1))
        return {name: f.unflatten(0, masks.shape[:2]) for name, f in features.items()} | {"fg": fg}

    @torch.no_grad()
    def _extract(self, image: Tensor, fg: Tensor | None = None) -> Features:
        """A normalised image (B, 3, H, W) to its features; f5 counts where `fg` (B, H, W) is true."""
        levels = self.backbone(image)
        f3, f4 = levels["layer3"], levels["layer4"]
        f2 = ops.resize_ac(levels["layer2"], f3.shape[-2:])
        f23 = torch.cat([f3, f2], 1)
        if self.base is None:
            return named(Extracted(f23, f4))
        return named(Extracted(f23, f4, self.base(self.backbone.activate(f4), fg), ops.gram(f2)))

    def embed_query(self, features: Features) -> Features:
        e = Extracted(**features)
        return named(Query(self.reduce_query(e.f23), e.f4, e.f5, e.gram))

    def embed_support(self, features: Features) -> Features:
        e = Extracted(**features)
        prototype, merged = self.merged_support(e)
        return named(encoded_support(e, prototype, self.encoder(merged)))

    def merged_support(self, e: Extracted) -> tuple[Tensor, Tensor]:
        """The supports' prototypes (B*K, 256), and what their encoder gets: (B*K, 64, h, w)."""
        assert e.fg is not None, "extract_support gives it"
        maps = self.reduce_support(e.f23.flatten(0, 1))  # (B*K, 256, h, w)
        fg = ops.resize_ac(e.fg.float().flatten(0, 1).unsqueeze(1), maps.shape[-2:])  # soft at the object's border
        prototype = ops.masked_average(maps, fg)
        return prototype, self.merge_support(maps, prototype)

    # 3.3: matching, coarse to fine, and the decoder.

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        q, s = Query(**query), Support(**support)
        prior = self.prior_of(q, s)
        stages = self.encoder(self.merge_query(q.maps, s.prototype.mean(1), 10 * prior))
        return self.match_stages(q, stages, s, prior, size=size, base_index=base_index)

    def match_stages(
        self,
        q: Query,
        query_stages: list[Tensor],
        s: Support,
        prior: Tensor,
        *,
        size: tuple[int, int],
        base_index: Tensor | None,
    ) -> Prediction:
        """What follows the encoder of the query, whose stages are given fine to coarse."""
        support_stages = (s.stage1, s.stage2, s.stage3)
        matched, correlations = [], []
        for i in (2, 1, 0):
            out, correlation = self.matching[i](query_stages[i], support_stages[i], s.fg, prior)
            matched.append(out)
            correlations.append(correlation)
        meta = self.decoder(matched)  # (B, 2, h, w)
        final, aux = self._with_base(meta, q, s, base_index)
        return Prediction(ops.resize_ac(final, size), aux=ops.Resized(aux, size), correlations=tuple(correlations))

    def prior_of(self, q: Query, s: Support | Extracted) -> Tensor:
        """(B, 2, h, w): from f5 and from f4, the mean over shots; (B, 1, h, w), from f4, without a base learner."""
        pairs = [(q.f4, s.f4)] if q.f5 is None or s.f5 is None else [(q.f5, s.f5), (q.f4, s.f4)]
        assert s.fg is not None, "extract_support gives it"
        priors = []
        for high, support in pairs:
            fg = ops.resize_nearest(s.fg, support.shape[-2:])
            priors.append(self.prior(high, support, fg).mean(1, keepdim=True))
        return ops.resize_ac(torch.cat(priors, 1), q.maps.shape[-2:])

    def _with_base(
        self, meta: Tensor, q: Query, s: Support, base_index: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The final map and what it was fused from (BAM's ensemble); the meta logits alone without a base learner."""
        if self.base is None or self.ensemble is None or self.shot_weights is None:
            return meta, {}
        assert q.f5 is not None and q.gram is not None and s.gram is not None, "extracted with a base learner"  # noqa: PT018
        with torch.no_grad():
            base = self.base.classify(q.f5)
        distance = ops.gram_distance(q.gram, s.gram)  # (B, K)
        # released: its K-shot code permutes twice, so the weights stay in the order of ascending distances
        psi = (self.shot_weights(distance, restore_order=False) * distance).sum(1)
        return self.ensemble(meta, base, psi, base_index), {"meta": meta, "base": base}

    # 3.4: losses, and what is trained.

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        labels = episode.truth.long()
        terms = {"final": ops.cross_entropy(prediction.logits, labels)}
        if "meta" in prediction.aux:
            terms["meta"] = ops.cross_entropy(prediction.aux["meta"], labels)
        if self.distill:
            terms["distill"] = distillation(prediction.correlations, episode.truth, temperature=self.temperature)
        return terms

    def logged(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        if "base" not in prediction.aux or episode.query_base_mask is None:
            return {}
        return {"base": ops.base_cross_entropy(prediction.aux["base"], episode)}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        transformer = [p for part in (self.encoder, self.matching, self.decoder) for p in part.parameters()]
        inside = {id(p) for p in transformer}
        others = [p for p in self.trainable_parameters() if id(p) not in inside]
        return [
            {"name": "transformer", "params": transformer, "lr": lr},
            {"name": "others", "params": others, "lr": 10 * lr},
        ]


def encoded_support(e: Extracted, prototype: Tensor, stages: list[Tensor]) -> Support:
    """Supports from their prototypes (B*K, 256) and encoded maps (B*K, 64, h_s, w_s)."""
    assert e.fg is not None, "extract_support gives it"
    prototype, stage1, stage2, stage3 = (f.unflatten(0, e.fg.shape[:2]) for f in (prototype, *stages))
    return Support(prototype, stage1, stage2, stage3, e.fg, e.f4, e.f5, e.gram)


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
    """One cross layer of correlation attention, then a convolution that lets the prior in (paper 3.3)."""

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
        """Maps of this stage, query (B, C, h, w) and supports (B, K, C, h, w), foreground (B, K, H, W) of the image's
        size and priors (B, P, h', w') to a map (B, C, h, w) and the correlation map (B, h, w).
        """
        h, w = query.shape[-2:]
        fg = ops.resize_nearest(fg, support.shape[-2:]).flatten(1)  # (B, K*L)
        tokens = rearrange(query, "b c h w -> b (h w) c")
        context = rearrange(support, "b k c h w -> b (k h w) c")
        # released: one LayerNorm for both
        out, correlation = self.attention(self.norm1(tokens), self.norm1(context), fg)
        tokens = tokens + out
        tokens = tokens + self.ffn(self.norm2(tokens), h, w)
        maps = rearrange(tokens, "b (h w) c -> b c h w", h=h)
        mixed = self.mix(torch.cat([maps, ops.resize_ac(prior, (h, w))], 1))
        return mixed, rearrange(correlation, "b (h w) -> b h w", h=h)


class CorrelationAttention(nn.Module):
    """Cosine attention in which every support position spreads its vote over the query (paper eq. 2-4)."""

    def __init__(self, width: int, *, heads: int = 2, vote_temperature: float = 0.1, dropout: float = 0.1) -> None:
        super().__init__()
        self.projections = Projections(width, heads, dropout=dropout)
        self.vote_temperature = vote_temperature

    def forward(self, query: Tensor, support: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, query (B, L, C) and support (B, M, C), and foreground (B, M) to tokens (B, L, C) and correlation
        (B, L).
        """
        q, k, v = self.projections(query, support)  # (B, heads, L, d), twice (B, heads, M, d)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        votes, correlation = self.spread(q, k, v, fg)
        return self.projections.merge(votes), correlation.mean(1)  # over heads

    @ops.in_fp32
    def spread(self, q: Tensor, k: Tensor, v: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
        """Votes (B, heads, L, d) and mean scores (B, heads, L) of the foreground."""
        scores = q @ k.transpose(-2, -1) / self.vote_temperature  # (B, heads, L, M)
        fg = fg[:, None, None, :]
        # softmax over QUERY positions: each support position shares out one vote. The background's votes are dropped,
        # not shared out again.
        votes = (scores.softmax(-2) * fg) @ v
        return votes, (scores * fg).sum(-1) / (fg.sum(-1) + 1e-9)


class Decoder(nn.Module):
    """Coarse to fine, then the classification head (supplement Fig. 3)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bottleneck(width, width, nn.BatchNorm2d(width), nn.ReLU()) for _ in STAGES)
        self.head = Bottleneck(width, 2)

    def forward(self, matched: list[Tensor]) -> Tensor:
        """Maps of stages 3, 2, 1 (B, 64, h_s, w_s) to meta logits (B, 2, h, w)."""
        y = self.blocks[2](matched[0])
        for block, out in zip((self.blocks[1], self.blocks[0]), matched[1:], strict=True):
            y = ops.resize(y, out.shape[-2:])
            y = y + block(out + y)
        return self.head(y)


class Bottleneck(nn.Sequential):
    """1x1, 3x3 and 1x1 convolution, four times as wide inside; released: no activation between them."""

    def __init__(self, width: int, outputs: int, *after: nn.Module) -> None:
        wide = 4 * width
        super().__init__(
            nn.Conv2d(width, wide, 1),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, outputs, 1),
            *after,
        )


def distillation(correlations: tuple[Tensor, ...], query_mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Correlation map distillation: the mask teaches the coarsest stage, every stage the next finer one (supplement
    eq. 1).

    `correlations` are (B, h, w), coarse to fine. Teachers are resized raw, before their softmax, and detached.
    """
    fg = ops.foreground(query_mask)
    teacher = fg + (fg - 1) * 1e9  # 1 and -1e9
    total = correlations[0].new_zeros((), dtype=torch.float32)
    for student in correlations:
        # resized raw, before its softmax: void and background stay without any share
        target = ops.resize(teacher.unsqueeze(1), student.shape[-2:])
        t, s = (m.float().flatten(1).div(temperature).softmax(1) for m in (target, student))
        total = total + (t * ((t + 1e-12).log() - (s + 1e-12).log())).sum(1).mean()
        teacher = student.detach().float()
    return total / len(correlations)
