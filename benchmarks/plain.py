"""HDMNet as a careful engineer writes it straight from the paper's description: what every fast path is compared with.

Honest, not slow on purpose: all support shots in one batch, frozen parts without gradients, no pass done twice. But
nothing clever either: the default layout, BatchNorm as its own layer, the pyramid's convolution on all 2C channels,
priors and matching over all support positions at once, the support recomputed for each query. Module names are the
package's, so that `load_state_dict` takes a `fewseg` model's weights and the outputs can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction


def bilinear(maps: Tensor, size: Any, *, corners: bool = True) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=corners)


class PlainHDMNet(nn.Module):
    def __init__(self, *, backbone: str, base_classes: int, shots: int) -> None:
        super().__init__()
        self.backbone = PlainResNet() if backbone == "resnet50-ds" else PlainLite()
        c2, c3, c4 = self.backbone.widths
        self.base = PlainBaseHead(c4, base_classes)
        self.reduce_query = nn.Sequential(nn.Conv2d(c3 + c2, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.reduce_support = nn.Sequential(nn.Conv2d(c3 + c2, 256, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.merge_query = nn.Sequential(nn.Conv2d(514, 64, 1, bias=False), nn.ReLU())
        self.merge_support = nn.Sequential(nn.Conv2d(512, 64, 1, bias=False), nn.ReLU())
        self.encoder = PlainEncoder()
        self.matching = nn.ModuleList(PlainMatching() for _ in range(3))
        self.decoder = PlainDecoder()
        self.ensemble = nn.Module()
        self.ensemble.gram_merge = nn.Conv2d(2, 1, 1, bias=False)
        self.ensemble.base_merge = nn.Conv2d(2, 1, 1, bias=False)
        self.shot_weights = nn.Module()
        if shots > 1:
            self.shot_weights.mix = nn.Sequential(nn.Conv2d(shots, 2, 1), nn.ReLU(), nn.Conv2d(2, shots, 1))
        self.backbone.requires_grad_(False)
        self.base.requires_grad_(False)

    def train(self, mode: bool = True) -> PlainHDMNet:
        super().train(mode)
        for module in (self.backbone, *(m for m in self.modules() if isinstance(m, nn.BatchNorm2d))):
            module.eval()
        return self

    @torch.no_grad()
    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f2, f3, f4 = self.backbone(image)
        f2 = bilinear(f2, f3.shape[-2:])
        return f2, f3, f4, self.base(f4)

    def forward(self, episode: Episode) -> Prediction:
        size, (b, k) = episode.size, episode.support_masks.shape[:2]
        fg = (episode.support_masks == 1).float().flatten(0, 1).unsqueeze(1)  # (B*K, 1, H, W)
        supports = self.backbone.normalise(episode.support_images.flatten(0, 1)) * fg
        s2, s3, s4, s5 = self.features(supports)
        q2, q3, q4, q5 = self.features(self.backbone.normalise(episode.query_image))

        support = self.reduce_support(torch.cat([s3, s2], 1))
        h, w = support.shape[-2:]
        soft = bilinear(fg, (h, w))
        prototype = (support * soft).sum((2, 3)) / (soft.sum((2, 3)) + 0.0005)  # (B*K, 256)
        tiled = prototype[:, :, None, None].expand(-1, -1, h, w)
        support_stages = self.encoder(self.merge_support(torch.cat([support, tiled], 1)))

        priors = [self.prior(q, s, fg, b, k) for q, s in ((q5, s5), (q4, s4))]
        prior = bilinear(torch.cat(priors, 1), (h, w))
        query = self.reduce_query(torch.cat([q3, q2], 1))
        tiled = prototype.unflatten(0, (b, k)).mean(1)[:, :, None, None].expand(-1, -1, h, w)
        query_stages = self.encoder(self.merge_query(torch.cat([query, tiled, 10 * prior], 1)))

        outs, correlations = [], []
        for s in (2, 1, 0):
            hs, ws = query_stages[s].shape[-2:]
            tokens = support_stages[s].flatten(2).unflatten(0, (b, k)).permute(0, 1, 3, 2).flatten(1, 2)
            small = F.interpolate(fg, size=(hs, ws), mode="nearest").view(b, k * hs * ws)
            out, correlation = self.matching[s](query_stages[s], tokens, small, prior)
            outs.append(out)
            correlations.append(correlation)
        meta = self.decoder(outs)
        final, base = self.fuse(meta, q2, s2, q5, episode.base_index)
        aux = {"meta": bilinear(meta, size), "base": bilinear(base, size)}
        return Prediction(bilinear(final, size), aux=aux, correlations=tuple(correlations))

    def prior(self, query: Tensor, support: Tensor, fg: Tensor, b: int, k: int) -> Tensor:
        h, w = query.shape[-2:]
        masked = support * F.interpolate(fg, size=support.shape[-2:], mode="nearest")
        q = query.flatten(2).transpose(1, 2)
        total = torch.zeros_like(query[:, 0].flatten(1))
        for s in masked.flatten(2).unflatten(0, (b, k)).unbind(1):
            cosine = (q @ s) / (q.norm(dim=2).unsqueeze(2) * s.norm(dim=1).unsqueeze(1) + 1e-7)
            total = total + cosine.amax(2)
        return (total / k).view(b, 1, h, w)

    def fuse(self, meta: Tensor, q2: Tensor, s2: Tensor, q5: Tensor, base_index: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            base = self.base.classify(q5)
        support_gram = gram(s2).unflatten(0, (q2.shape[0], -1))
        distance = (gram(q2).unsqueeze(1) - support_gram).flatten(2).norm(dim=2) / q2.shape[1]  # (B, K)
        weight = torch.ones_like(distance)
        if distance.shape[1] > 1:
            weight = self.shot_weights.mix(distance.sort(1)[0][:, :, None, None]).flatten(1).softmax(1)
        psi = (weight * distance).sum(1)[:, None, None, None].expand(-1, 1, *meta.shape[-2:])
        p = meta.softmax(1)
        background = self.ensemble.gram_merge(torch.cat([p[:, :1], psi], 1))
        fg = self.ensemble.gram_merge(torch.cat([p[:, 1:], psi], 1))
        classes = base.softmax(1)[:, 1:]
        own = torch.arange(classes.shape[1], device=base.device) == base_index[:, None]
        others = (classes * ~own[:, :, None, None]).sum(1, keepdim=True)
        others = bilinear(others, meta.shape[-2:])
        return torch.cat([self.ensemble.base_merge(torch.cat([background, others], 1)), fg], 1), base

    def loss(self, prediction: Prediction, mask: Tensor) -> Tensor:
        labels = mask.long()
        seg = sum(F.cross_entropy(x, labels, ignore_index=255) for x in (prediction.logits, prediction.aux["meta"]))
        teacher, distill = torch.where(mask == 1, 1.0, -1e9), 0.0
        for student in prediction.correlations:
            target = bilinear(teacher.unsqueeze(1), student.shape[-2:], corners=False)
            t, s = target.flatten(1).softmax(1), student.flatten(1).softmax(1)
            distill = distill + (t * ((t + 1e-12).log() - (s + 1e-12).log())).sum(1).mean()
            teacher = student.detach()
        return seg + distill / 3


def gram(maps: Tensor) -> Tensor:
    flat = maps.flatten(2)
    norm = flat.norm(dim=2)
    return (flat @ flat.transpose(1, 2)) / (norm.unsqueeze(2) * norm.unsqueeze(1) + 1e-7)


class PlainBackbone(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class PlainResNet(PlainBackbone):
    """ResNet-50 with the deep stem, dilated in every block of its last two stages."""

    widths = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        net: Any = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        stem: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 64, 2), (64, 64, 1), (64, 128, 1)):
            stem += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        net.layer1[0].conv1 = nn.Conv2d(128, 64, 1, bias=False)
        net.layer1[0].downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
        for layer, dilation in ((net.layer3, 2), (net.layer4, 4)):
            layer[0].conv2.dilation = layer[0].conv2.padding = (dilation, dilation)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f2 = self.layer2(self.layer1(self.layer0(x)))
        f3 = self.layer3(f2)
        return f2, f3, self.layer4(f3)


class PlainLite(PlainBackbone):
    """EfficientNet-Lite0's last three levels."""

    def __init__(self) -> None:
        name = "tf_efficientnet_lite0"
        config: Any = timm.get_pretrained_cfg(name)
        super().__init__(config.mean, config.std)
        self.net = timm.create_model(name, features_only=True, pretrained=False, out_indices=(-3, -2, -1))
        self.widths = tuple(self.net.feature_info.channels())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(self.net(x))


class PlainBaseHead(nn.Module):
    def __init__(self, channels: int, base_classes: int) -> None:
        super().__init__()
        width = channels // 4
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(b), nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            for b in (1, 2, 3, 6)
        )
        self.reduce = nn.Sequential(nn.Conv2d(2 * channels, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512))
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(512, 1 + base_classes, 1)

    def forward(self, f4: Tensor) -> Tensor:
        pooled = [bilinear(pool(f4), f4.shape[-2:]) for pool in self.ppm.features]
        return self.reduce(torch.cat([f4, *pooled], 1))

    def classify(self, f5: Tensor) -> Tensor:
        return self.classifier(self.dropout(f5.relu()))


class PlainEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shapes = zip((1, 3, 3), (1, 2, 2), (2, 4, 8), (4, 2, 1), strict=True)
        self.stages = nn.ModuleList(PlainEncoderStage(*shape) for shape in shapes)

    def forward(self, maps: Tensor) -> list[Tensor]:
        out = []
        for stage in self.stages:
            maps = stage(maps)
            out.append(maps)
        return out


class PlainEncoderStage(nn.Module):
    def __init__(self, kernel: int, stride: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(64, 64, kernel, stride, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(64, eps=1e-6)
        self.layers = nn.ModuleList(PlainEncoderLayer(heads, reduction) for _ in range(2))
        self.norm = nn.LayerNorm(64, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.embed(maps)
        h, w = maps.shape[-2:]
        x = self.embed_norm(maps.flatten(2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x, h, w)
        return self.norm(x).transpose(1, 2).unflatten(2, (h, w))


class PlainEncoderLayer(nn.Module):
    def __init__(self, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(64, eps=1e-6)
        self.projections = PlainProjections(heads)
        self.reduce = nn.Conv2d(64, 64, reduction, reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(64, eps=1e-6) if reduction > 1 else None
        self.norm2 = nn.LayerNorm(64, eps=1e-6)
        self.ffn = PlainFFN()

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        y = self.norm1(x)
        context = y
        if self.reduce is not None and self.reduce_norm is not None:
            context = self.reduce(y.transpose(1, 2).unflatten(2, (h, w)))
            context = self.reduce_norm(context.flatten(2).transpose(1, 2))
        q, k, v = self.projections.split(y, context)
        attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.projections.merge(attention @ v)
        return x + self.ffn(self.norm2(x), h, w)


class PlainProjections(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(64, 64, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(0.1)

    def split(self, x: Tensor, context: Tensor) -> list[Tensor]:
        return [t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (self.q(x), self.k(context), self.v(context))]

    def merge(self, out: Tensor) -> Tensor:
        return self.dropout(self.o(out.transpose(1, 2).flatten(2)))


class PlainFFN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(64, 256, 1),
            nn.Conv2d(256, 256, 3, padding=1, groups=256),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Conv2d(256, 64, 1),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        return self.layers(x.transpose(1, 2).unflatten(2, (h, w))).flatten(2).transpose(1, 2)


class PlainMatching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(64, eps=1e-6)
        self.attention = nn.Module()
        self.attention.projections = PlainProjections(2)
        self.norm2 = nn.LayerNorm(64, eps=1e-6)
        self.ffn = PlainFFN()
        self.mix = nn.Sequential(nn.Conv2d(66, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())

    def forward(self, query: Tensor, support: Tensor, fg: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        h, w = query.shape[-2:]
        x = query.flatten(2).transpose(1, 2)
        projections: Any = self.attention.projections
        q, k, v = projections.split(self.norm1(x), self.norm1(support))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) / 0.1  # (B, 2, L, K*L)
        columns = fg[:, None, None, :]
        attention = scores.softmax(-2) * columns
        correlation = ((scores * columns).sum(-1) / (columns.sum(-1) + 1e-9)).mean(1)
        x = x + projections.merge(attention @ v)
        x = x + self.ffn(self.norm2(x), h, w)
        maps = x.transpose(1, 2).unflatten(2, (h, w))
        return self.mix(torch.cat([maps, bilinear(prior, (h, w))], 1)), correlation.view(-1, h, w)


class PlainDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(*self.bottleneck(64), nn.BatchNorm2d(64), nn.ReLU()) for _ in range(3)
        )
        self.head = nn.Sequential(*self.bottleneck(2))

    @staticmethod
    def bottleneck(outputs: int) -> list[nn.Module]:
        middle = [nn.Conv2d(64, 256, 1), nn.BatchNorm2d(256), nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256)]
        return [*middle, nn.Conv2d(256, outputs, 1)]

    def forward(self, outs: list[Tensor]) -> Tensor:
        y = self.blocks[2](outs[0])
        for block, out in ((self.blocks[1], outs[1]), (self.blocks[0], outs[2])):
            y = bilinear(y, out.shape[-2:], corners=False)
            y = y + block(out + y)
        return self.head(y)


def plain_copy(model: Any, *, backbone: str, base_classes: int, shots: int) -> PlainHDMNet:
    """The plain network with a package model's weights, in PyTorch's default layout."""
    plain = PlainHDMNet(backbone=backbone, base_classes=base_classes, shots=shots)
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def plain_evaluation(model: PlainHDMNet, episodes: Any, score: Callable[[Any, Prediction], None]) -> None:
    """One episode after the other, batch 1, everything computed anew."""
    with torch.inference_mode():
        for sample in episodes:
            score(sample, model(sample.episode))
