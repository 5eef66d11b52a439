"""Lite: HDMNet's matching made for one's own photos on a laptop. Not a published method.

    image -- back-end --> stages from f2 to f4       one frozen pass per photo: query, and support of every class
    [stages] --> 128 channels                        query and support share it
    per stage: best cosine with the supports' foreground, with their background, and with both means --> priors
    base heads: what the photo holds of the classes trained on, each by a head that never saw the episode's class
    [features, prototype, priors] --> encoder, 3 stages --> correlation attention, coarse to fine  (HDMNet 3.2, 3.3)
    decoder --> coarse logits; with f2, at twice the grid --> final logits
    [decoder's map, priors], where the coarse logits are highest --> presence: is the class there at all?
        in use by the back-end's ImageNet head too: how like the supports' foreground is what is there, and of its kind?
    losses: CE + Dice of both, correlation map distillation (HDMNet 3.4), CE of the base heads and of presence

Where it departs from HDMNet (hdmnet.py), and why:
- The support is masked at the features, not the image: a photo's features serve every class, and can be kept.
- The priors see the supports' background too: how much nearer a position is to the object than to what is around it.
- The votes are divided by the number of foreground positions: neither the object's size nor the shots scale them.
- In place of a base learner trained before: `heads` small classifiers on one embedding, trained along. Head g knows
  nothing of the classes g, g + heads, ..., and an episode of such a class is shown that head, so that a base class in
  training is strange to it, as a novel one will be. What the supports' foreground looks like to the head counts for
  the episode: a cow that looks like a sheep stays foreground.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.labels import IGNORE, WIDE_IGNORE
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.hdmnet import STAGES, CorrelationAttention, HierarchicalEncoder, distillation
from fewseg.models.parts import ops
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.levels import Backbone
from fewseg.models.parts.matching import NearestCosines
from fewseg.models.parts.merge import Merge
from fewseg.models.parts.segformer import MixFFN

PRIORS = 5
"""Maps of every stage of the back-end."""
BASE_MAPS = 4
GRID, FINEST, COARSEST = "layer3", "layer2", "layer4"
"""The stages on whose grids photos are matched and masks drawn, and the one that the ImageNet head sees."""
BEST = 16
"""The ImageNet head looks at the likeliest of as many positions."""
UNLIKE = 0.25
"""What the ImageNet head finds less like the supports than that speaks against the class; with more, right masks of
parts of people are left out."""
WIDTH, MID, PRIOR_WIDTH, FINE = 64, 128, 16, 48


class Lite(FewShotSegmenter):
    """Few-shot segmenter of about a million trained parameters on a frozen back-end.

    `all_stages` takes what lies between the back-end's three levels too; `output_stride` 16 dilates the last level;
    `presence` adds a score that says whether the class is in the query at all. In use, `imagenet_head` is how much the
    head of an EfficientNet-Lite, which tells a thousand kinds of things apart, has to say in it, and `margin` is added
    to the foreground's logit: classes that were not trained on are found with less certainty than those that were.
    """

    name = "lite"
    masks_features = True
    serves_untrained = True
    of_classes = ("base_heads.classify.",)

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        output_stride: int | None = None,
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 384,
        heads: int = 3,
        all_stages: bool = False,
        presence: bool = False,
        imagenet_head: float = 0.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 2:
            raise UsageError(f"heads={heads}: one head would leave out every class; give 2 or more")
        if imagenet_head and not presence:
            raise UsageError(
                f"imagenet_head={imagenet_head} has its say in presence; set presence=true, or leave it out"
            )
        self.shots, self.image_size, self.margin, self.imagenet_head = shots, image_size, margin, imagenet_head
        self.backbone = create_backbone(backbone, output_stride=output_stride, head=bool(imagenet_head))
        freeze(self.backbone)
        self.nearest = NearestCosines()
        channels = _stage_channels(self.backbone) if all_stages else self.backbone.channels
        self.stages = tuple(channels)  # in this order, whatever order a feature cache returns them in
        mid = sum(channels.values())
        self.reduce = _norm_relu(nn.Conv2d(mid, MID, 1, bias=False))
        self.base_heads = BaseHeads(mid, base_classes, heads)
        self.drop = nn.Dropout2d(0.5)
        priors = PRIORS * len(channels) + BASE_MAPS
        self.merge_query = Merge(MID, priors, WIDTH, nn.GroupNorm(8, WIDTH), nn.ReLU())
        self.merge_support = Merge(MID, 1, WIDTH, nn.GroupNorm(8, WIDTH), nn.ReLU())
        self.reduce_priors = _norm_relu(nn.Conv2d(priors, PRIOR_WIDTH, 1, bias=False))
        self.encoder = HierarchicalEncoder(WIDTH, layers=1, dropout=0.0)
        self.matching = nn.ModuleList(LiteStage(WIDTH, PRIOR_WIDTH) for _ in STAGES)
        self.decoder = nn.ModuleList(nn.Sequential(_conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH)) for _ in STAGES)
        self.coarse_head = nn.Conv2d(WIDTH, 2, 1)
        self.reduce_fine = _norm_relu(nn.Conv2d(channels[FINEST], PRIOR_WIDTH, 1, bias=False))
        self.refine = Refinement(WIDTH + 2 * PRIOR_WIDTH, FINE)
        self.presence = Presence(WIDTH + PRIOR_WIDTH) if presence else None
        self.tells_presence = presence

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        stages = self.backbone.stages(self.backbone.normalise(image))
        found = {name: _standardise(stages[name]) for name in self.stages}
        return found | ({"scale": _scale(stages[COARSEST])} if self.imagenet_head else {})

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.as_support(self.extract_query(images.flatten(0, 1)), masks)

    def embed_query(self, features: Features) -> Features:
        grid = features[GRID].shape[-2:]
        joined = torch.cat([_to_grid(features[name], grid) for name in self.stages], 1)
        units = {f"{name}_unit": F.normalize(_at_most(features[name], grid), dim=1) for name in self.stages}
        scale = {"scale": features["scale"]} if self.imagenet_head else {}
        found = {"maps": self.reduce(joined), "base": self.base_heads(joined), "fine": features[FINEST]}
        return units | scale | found

    def embed_support(self, features: Features) -> Features:
        shots = features["mask"].shape[:2]
        maps = {name: f.flatten(0, 1) for name, f in features.items() if name != "mask"}
        embedded = self.embed_query(maps)
        mid, fg = embedded["maps"], ops.foreground(features["mask"]).flatten(0, 1).unsqueeze(1)
        share = ops.average_to(fg, mid.shape[-2:])  # (B*K, 1, h, w)
        prototype = ops.masked_average(mid, share)
        tokens = self.encoder(self.merge_support(self.drop(mid), prototype, share))
        found = {f"stage{s}": t for s, t in zip(STAGES, tokens, strict=True)}
        found |= {name: f for name, f in embedded.items() if name.endswith("_unit")}
        found |= {"prototype": prototype, "held": _held(embedded["base"], share), "fine": embedded["fine"]}
        if self.imagenet_head and not self.training:
            seen = self.backbone.head(_restored(embedded[f"{COARSEST}_unit"], embedded["scale"]))
            found["seen"] = ops.masked_average(seen, ops.average_to(fg, seen.shape[-2:]))
        return {n: f.unflatten(0, shots) for n, f in found.items()} | {"mask": features["mask"]}

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        mid, fg = query["maps"], ops.foreground(support["mask"])
        base_maps = self.base_heads.compare(query["base"], support["held"], base_index)
        prior = torch.cat([self._priors(query, support, fg), base_maps], 1)
        stages = self.encoder(self.merge_query(self.drop(mid), support["prototype"].mean(1), prior))
        prior = self.reduce_priors(prior)
        y, correlations = None, []
        for s in reversed(STAGES):
            tokens = rearrange(support[f"stage{s}"], "b k c h w -> b (k h w) c")
            marked = ops.most_foreground(ops.average_to(fg, support[f"stage{s}"].shape[-2:])).flatten(1)
            out, correlation = self.matching[s - 1](stages[s - 1], tokens, marked, prior)
            correlations.append(correlation)
            if y is None:
                y = self.decoder[s - 1](out)
            else:
                y = ops.resize(y, out.shape[-2:])
                y = y + self.decoder[s - 1](out + y)
        assert y is not None
        coarse = self.coarse_head(y)
        fine = self.reduce_fine(query["fine"])
        final = self.refine(y, prior, fine) + ops.resize(coarse, fine.shape[-2:])
        logits = ops.resize(final, size)
        if self.margin and not self.training:
            logits = logits + logits.new_tensor([0.0, self.margin]).view(2, 1, 1)
        presence = None if self.presence is None else self.presence(torch.cat([y, prior], 1), coarse)
        if presence is not None and self.imagenet_head and not self.training:
            presence = presence + self.imagenet_head * (self._likeness(query, support, coarse) - UNLIKE)
        return Prediction(
            logits,
            aux={"coarse": ops.resize(coarse, size)},
            correlations=tuple(correlations),
            presence=presence,
            extra={"final": final, "coarse": coarse, "heads": query["base"]},
        )

    def _priors(self, query: Features, support: Features, fg: Tensor) -> Tensor:
        """Per stage, nearness to foreground and background, and to the mean of each: (B, 5 * stages, h, w)."""
        priors = []
        for name in self.stages:
            q, s = query[f"{name}_unit"], support[f"{name}_unit"]
            share = ops.average_to(fg, s.shape[-2:])
            sides = torch.stack([ops.most_foreground(share), share < 0.2], 1)  # (B, 2, K, h, w)
            near = self.nearest(q, s, sides)
            weights = torch.stack([share, 1 - share], 1).flatten(2)
            means = F.normalize(weights @ rearrange(s, "b k c h w -> b (k h w) c"), dim=2)  # (B, 2, C)
            mean = torch.einsum("bpc,bchw->bphw", means, q)
            # factors: differences are small beside the cosines
            maps = [near, 3 * (near[:, :1] - near[:, 1:]), mean[:, :1], 2 * (mean[:, :1] - mean[:, 1:])]
            priors.append(ops.resize(torch.cat(maps, 1), query["maps"].shape[-2:]))
        return torch.cat(priors, 1).detach()

    def _likeness(self, query: Features, support: Features, coarse: Tensor) -> Tensor:
        """How like the supports' foreground the likeliest positions are to the ImageNet head: (B,)."""
        unit = query[f"{COARSEST}_unit"]
        lead = ops.resize(coarse[:, 1:] - coarse[:, :1], unit.shape[-2:]).flatten(1)
        best = lead.topk(max(1, lead.shape[1] // BEST)).indices[:, None]  # (B, 1, n)
        unit, scale = (
            f.flatten(2).gather(2, best.expand(-1, f.shape[1], -1))[..., None] for f in (unit, query["scale"])
        )
        seen = self.backbone.head(_restored(unit, scale)).mean((2, 3))
        return self.backbone.head.likeness(seen, support["seen"].mean(1))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        h, w = prediction.extra["final"].shape[-2:]
        # twice the fine grid: the whole image's pixels cost a quarter of a step, and say little more
        labels = ops.resize_nearest(episode.truth.unsqueeze(1), (2 * h, 2 * w))[:, 0]
        terms = {}
        for name, weight in (("final", 1.0), ("coarse", 0.4)):
            logits = ops.resize(prediction.extra[name], (2 * h, 2 * w))
            terms[name] = weight * ops.cross_entropy(logits, labels)
            terms[f"{name}_dice"] = weight * dice(logits, labels)
        terms["distill"] = 0.3 * distillation(prediction.correlations, episode.truth)
        if prediction.presence is not None:
            terms["presence"] = 0.5 * presence_loss(prediction.presence, episode.truth)
        if episode.query_base_mask is not None:
            terms["base"] = 0.5 * self.base_heads.loss(
                prediction.extra["heads"], episode.query_base_mask, episode.base_known
            )
        return terms


class LiteStage(nn.Module):
    """HDMNet's cross layer of correlation attention, with votes that no object's size scales, then the priors."""

    def __init__(self, width: int, priors: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = CorrelationAttention(width, dropout=0.0)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = MixFFN(width, dropout=0.0)
        self.mix = _conv(width + priors, width)

    def forward(self, query: Tensor, support: Tensor, fg: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Query map (B, C, h, w), support tokens (B, K*L, C) and foreground (B, K*L) to a map and a correlation map
        (B, h, w).
        """
        h, w = query.shape[-2:]
        tokens = rearrange(query, "b c h w -> b (h w) c")
        votes, correlation = self.attention(self.norm1(tokens), self.norm1(support), fg.float())
        tokens = tokens + votes * (h * w / (fg.sum(1) + 1)).view(-1, 1, 1)
        tokens = tokens + self.ffn(self.norm2(tokens), h, w)
        maps = rearrange(tokens, "b (h w) c -> b c h w", h=h)
        mixed = self.mix(torch.cat([maps, ops.resize(prior, (h, w))], 1))
        return mixed, rearrange(correlation, "b (h w) -> b h w", h=h)


class Refinement(nn.Module):
    """Decoder map, priors and fine features to logits on the fine features' grid."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm_relu(nn.Conv2d(inputs, width, 1, bias=False)),
            _conv(width, width),
            _norm_relu(nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2, 1),
        )

    def forward(self, maps: Tensor, prior: Tensor, fine: Tensor) -> Tensor:
        """(B, C, h, w), (B, P, h, w) and (B, F, 2h, 2w) to (B, 2, 2h, 2w)."""
        size = fine.shape[-2:]
        return self.layers(torch.cat([ops.resize(maps, size), fine, ops.resize(prior, size)], 1))


class Presence(nn.Module):
    """Whether the class is in the query, from what the matching found; it teaches the maps nothing."""

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * inputs + 2, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, maps: Tensor, coarse: Tensor) -> Tensor:
        """Maps (B, C, h, w) and logits (B, 2, h, w) to a logit (B,)."""
        lead = (coarse[:, 1] - coarse[:, 0]).detach().flatten(1)  # (B, h*w)
        flat = maps.detach().flatten(2)
        there = torch.einsum("bcl,bl->bc", flat, lead.softmax(1))
        seen = [there, flat.mean(2), lead.amax(1, keepdim=True), lead.mean(1, keepdim=True)]
        return self.layers(torch.cat(seen, 1)).squeeze(1)


class BaseHeads(nn.Module):
    """Semantic heads over the base classes, head g without every `count`-th class from class g on."""

    excluded: Tensor

    def __init__(self, inputs: int, classes: int, count: int, width: int = 128) -> None:
        super().__init__()
        self.count = count
        self.embed = nn.Sequential(
            _norm_relu(nn.Conv2d(inputs, width, 1, bias=False)),
            nn.Dropout2d(0.2),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            _norm_relu(nn.Conv2d(width, width, 1)),
        )
        self.classify = nn.Conv2d(width, count * (1 + classes), 1)
        excluded = F.pad(torch.arange(classes) % count == torch.arange(count).unsqueeze(1), (1, 0))
        self.register_buffer("excluded", excluded, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to logits (B, heads, 1 + N, h, w); classes that a head leaves out have -1e4."""
        logits = self.classify(self.embed(features)).unflatten(1, self.excluded.shape)
        return logits.masked_fill(self.excluded[None, :, :, None, None], -1e4)

    def compare(self, query: Tensor, held: Tensor, base_index: Tensor | None) -> Tensor:
        """The query's logits and what the supports' foreground held, (B, K, heads, 1 + N), to four maps (B, 4, h, w):
        background, other classes, likeness to the supports, and the classes that the supports hold.

        A base class is compared by the head that leaves it out, a novel one by the mean of all.
        """
        chosen = self._chosen(base_index, like=query)  # (B, heads)
        found = torch.einsum("bg,bgnhw->bnhw", chosen, query.detach().softmax(2))
        wanted = torch.einsum("bg,bgn->bn", chosen, held.detach().mean(1))
        likeness = torch.einsum("bn,bnhw->bhw", F.normalize(wanted, dim=1), F.normalize(found, dim=1))
        kept = wanted[:, 1:] / (wanted[:, 1:].amax(1, keepdim=True) + 1e-4)
        others = torch.einsum("bn,bnhw->bhw", 1 - kept, found[:, 1:])
        same = torch.einsum("bn,bnhw->bhw", kept, found[:, 1:])
        return torch.stack([found[:, 0], others, likeness, same], 1)

    def _chosen(self, base_index: Tensor | None, *, like: Tensor) -> Tensor:
        even = like.new_full((like.shape[0], self.count), 1 / self.count)
        if base_index is None:
            return even
        own = F.one_hot(base_index.clamp(min=0) % self.count, self.count).to(even)
        return torch.where((base_index >= 0).unsqueeze(1), own, even)

    def loss(self, logits: Tensor, labels: Tensor, known: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of the heads' logits (B, heads, 1 + N, h, w), each where the label (B, H, W) is none that
        it leaves out. Background may be any class that is not `known` (B, N); None: all are.
        """
        if known is not None:
            logits = ops.unmarked_as_background(logits, known)
        ignore = WIDE_IGNORE if labels.dtype == torch.int32 else IGNORE
        small = ops.resize_nearest(labels.unsqueeze(1).float(), logits.shape[-2:])[:, 0].long()
        unseen = self.excluded[:, small.clamp(max=self.excluded.shape[1] - 1)] & (small != ignore)  # (heads, B, h, w)
        each = [
            ops.cross_entropy(head, small.masked_fill(left_out, ignore), ignore=ignore)
            for head, left_out in zip(logits.unbind(1), unseen, strict=True)
        ]
        return torch.stack(each).mean()


def _held(logits: Tensor, share: Tensor) -> Tensor:
    """Mean class probabilities (B, heads, 1 + N) of logits (B, heads, 1 + N, h, w) over a share (B, 1, h, w)."""
    weight = share / (share.sum((-2, -1), keepdim=True) + 1e-4)
    return torch.einsum("bhw,bgnhw->bgn", weight[:, 0], logits.detach().softmax(2))


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of 1 - Dice of the foreground probability with labels (B, H, W) {0, 1, 255}."""
    counted, truth = labels != IGNORE, (labels == 1).float()
    proba = logits.float().softmax(1)[:, 1] * counted
    overlap, total = (proba * truth).sum((1, 2)), proba.sum((1, 2)) + truth.sum((1, 2))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def presence_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of (B,) with whether labels (B, H, W) have a 1, over those that are not all 255."""
    there, told = (labels == 1).flatten(1).any(1), (labels != IGNORE).flatten(1).any(1)
    each = F.binary_cross_entropy_with_logits(logits.float(), there.float(), reduction="none")
    return (each * told).sum() / told.sum().clamp(min=1)


def _stage_channels(backbone: Backbone) -> dict[str, int]:
    """Channels of every stage by name."""
    with torch.no_grad():
        return {name: maps.shape[1] for name, maps in backbone.stages(torch.zeros(1, 3, 64, 64)).items()}


def _standardise(maps: Tensor) -> Tensor:
    """Every position's channels to mean 0 and variance 1, whatever the level's scale."""
    return F.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2)


def _scale(maps: Tensor) -> Tensor:
    """What `_standardise` and a length of 1 take away at every position: the channels' mean, and the length of what is
    left without it: (B, 2, h, w).
    """
    mean = maps.mean(1, keepdim=True)
    return torch.cat([mean, (maps - mean).norm(dim=1, keepdim=True)], 1)


def _restored(unit: Tensor, scale: Tensor) -> Tensor:
    """Positions (B, C, h, w) of length 1 as they were before, by their `_scale`."""
    mean, length = scale.split(1, 1)
    return unit * length + mean


def _to_grid(maps: Tensor, grid: torch.Size) -> Tensor:
    """Finer maps averaged down, coarser ones interpolated."""
    return ops.average_to(maps, grid) if maps.shape[-1] > grid[-1] else ops.resize(maps, grid)


def _at_most(maps: Tensor, grid: torch.Size) -> Tensor:
    return ops.average_to(maps, grid) if maps.shape[-1] > grid[-1] else maps


def _norm_relu(convolution: nn.Conv2d) -> nn.Module:
    return nn.Sequential(convolution, nn.GroupNorm(8, convolution.out_channels), nn.ReLU())


def _conv(inputs: int, outputs: int) -> nn.Module:
    return _norm_relu(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
