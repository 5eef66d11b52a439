"""The four networks once more, straight from the specification on the released names: plain functions of a state dict.

Nothing here comes from the package, so that shots, back-ends and class counts without a parity vector have a check that
shares no code (and no mistake) with it. Only what inference computes; loops where the package has tensor operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
VGG_CONVOLUTIONS = ((0, 3), (0, 3), (0, 3, 6), (0, 3, 6), (0, 3, 6))


def conv(s: State, name: str, x: Tensor, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> Tensor:
    weight = s[f"{name}.weight"]
    padding = weight.shape[-1] // 2 * dilation
    return F.conv2d(x, weight, s.get(f"{name}.bias"), stride, padding, dilation, groups)


def bn(s: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (s[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)


def layer_norm(s: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps=1e-6)


def at(x: Tensor, side: int, *, corners: bool = True) -> Tensor:
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=corners)


# Back-ends


def bottleneck(s: State, name: str, x: Tensor, *, stride: int, dilation: int) -> Tensor:
    """The sum of both branches, before its ReLU."""
    y = bn(s, f"{name}.bn1", conv(s, f"{name}.conv1", x)).relu()
    y = bn(s, f"{name}.bn2", conv(s, f"{name}.conv2", y, stride=stride, dilation=dilation)).relu()
    y = bn(s, f"{name}.bn3", conv(s, f"{name}.conv3", y))
    if f"{name}.downsample.0.weight" in s:
        x = bn(s, f"{name}.downsample.1", conv(s, f"{name}.downsample.0", x, stride=stride))
    return y + x


def stage(s: State, backbone: str, index: int, x: Tensor) -> Tensor:
    """layer0..layer4 of the dilated deep-stem ResNets, or of VGG-16-BN whose pools round up."""
    if backbone == "vgg16":
        for i in VGG_CONVOLUTIONS[index]:
            x = bn(s, f"layer{index}.{i + 1}", conv(s, f"layer{index}.{i}", x)).relu()
        return x if index == 4 else F.max_pool2d(x, 2, 2, ceil_mode=True)
    if index == 0:
        for i, stride in ((0, 2), (3, 1), (6, 1)):
            x = bn(s, f"layer0.{i + 1}", conv(s, f"layer0.{i}", x, stride=stride)).relu()
        return F.max_pool2d(x, 3, 2, padding=1)
    for i in range(BLOCKS[backbone][index - 1]):
        stride, dilation = (2 if index == 2 and i == 0 else 1), {3: 2, 4: 4}.get(index, 1)
        x = bottleneck(s, f"layer{index}.{i}", x, stride=stride, dilation=dilation).relu()
    return x


def lower(s: State, backbone: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """f2 at f3's size, and f3."""
    x = stage(s, backbone, 1, stage(s, backbone, 0, image))
    f2 = stage(s, backbone, 2, x)
    f3 = stage(s, backbone, 3, f2)
    return (f2 if f2.shape == f3.shape else at(f2, f3.shape[-1])), f3


# What several networks share


def pyramid_pooling(s: State, name: str, x: Tensor) -> Tensor:
    out = [x]
    for i, b in enumerate((1, 2, 3, 6)):
        y = conv(s, f"{name}.features.{i}.1", F.adaptive_avg_pool2d(x, b))
        out.append(at(bn(s, f"{name}.features.{i}.2", y).relu(), x.shape[-1]))
    return torch.cat(out, 1)


def average(x: Tensor, fg: Tensor) -> Tensor:
    return (x * fg).sum((2, 3), keepdim=True) / (fg.sum((2, 3), keepdim=True) + 0.0005)


def best_cosine(q: Tensor, s: Tensor) -> Tensor:
    """(B, C, h, w) twice to (B, 1, h, w): the best of all support positions."""
    out = torch.empty(len(q), 1, *q.shape[2:])
    for b in range(len(q)):
        a, c = q[b].flatten(1), s[b].flatten(1)
        norms = a.norm(dim=0)[:, None] * c.norm(dim=0)[None]
        out[b, 0] = ((a.T @ c) / (norms + 1e-7)).max(1).values.view(q.shape[2:])
    return out


def min_max(x: Tensor) -> Tensor:
    low, high = x.flatten(1).min(1).values, x.flatten(1).max(1).values
    return (x - low.view(-1, 1, 1, 1)) / (high - low + 1e-7).view(-1, 1, 1, 1)


def gram(x: Tensor) -> Tensor:
    x = x.flatten(2)
    norm = x.norm(dim=2)
    return torch.einsum("bcl,bdl->bcd", x, x) / (norm[:, :, None] * norm[:, None] + 1e-7)


def distances(query_f2: Tensor, support_f2: list[Tensor]) -> Tensor:
    """psi_k of every shot, (B, K)."""
    c = query_f2.shape[1]
    return torch.stack([(gram(query_f2) - gram(f)).pow(2).sum((1, 2)).sqrt() / c for f in support_f2], 1)


def shot_weights(s: State, psi: Tensor, *, undo_sort: bool) -> Tensor:
    """(B, K); one row at a time."""
    out = torch.ones_like(psi)
    if psi.shape[1] == 1:
        return out
    w0, b0, w2, b2 = (s[f"kshot_rw.{n}"] for n in ("0.weight", "0.bias", "2.weight", "2.bias"))
    for b, row in enumerate(psi):
        order = sorted(range(len(row)), key=lambda k: row[k].item())
        ascending = torch.stack([row[k] for k in order])
        scores = w2[:, :, 0, 0] @ (w0[:, :, 0, 0] @ ascending + b0).relu() + b2
        if undo_sort:
            placed = torch.empty_like(scores)
            for position, k in enumerate(order):
                placed[k] = scores[position]
            scores = placed
        out[b] = scores.softmax(0)
    return out


def fuse(s: State, meta: Tensor, base: Tensor, psi: Tensor) -> Tensor:
    """The ensemble for novel classes: final (B, 2, h, w)."""
    a, c = s["gram_merge.weight"].flatten()
    d, e = s["cls_merge.weight"].flatten()
    probability = meta.softmax(1)
    style = c * psi.view(-1, 1, 1)
    background, foreground = a * probability[:, 0] + style, a * probability[:, 1] + style
    others = at(base.softmax(1)[:, 1:].sum(1, keepdim=True), meta.shape[-1])[:, 0]
    return torch.stack([d * background + e * others, foreground], 1)


def masked_upper(s: State, backbone: str, f3: Tensor, fg: Tensor) -> Tensor:
    """PFENet's and BAM's support f4: the mask enters before layer 4, and once more on its result."""
    f4 = stage(s, backbone, 4, f3 * at(fg, f3.shape[-1]))
    return f4 * at(fg, f4.shape[-1])


def classify(s: State, name: str, x: Tensor) -> Tensor:
    return conv(s, f"{name}.3", conv(s, f"{name}.0", x).relu())


def residual(s: State, name: str, x: Tensor) -> Tensor:
    return x + conv(s, f"{name}.2", conv(s, f"{name}.0", x).relu()).relu()


def everywhere(vector: Tensor, x: Tensor) -> Tensor:
    return vector.expand(-1, -1, *x.shape[2:])


# The networks: query (B, 3, S, S) and supports (B, K, 3, S, S), normalised; masks (B, K, S, S) of 0, 1, 255


def pfenet(s: State, backbone: str, query: Tensor, supports: Tensor, masks: Tensor, *, coco: bool) -> dict[str, Any]:
    f2, f3 = lower(s, backbone, query)
    f4, fgs = stage(s, backbone, 4, f3), (masks == 1).float()
    q = conv(s, "down_query.0", torch.cat([f3, f2], 1)).relu()
    side, prototypes, priors = q.shape[-1], [], []
    for k in range(supports.shape[1]):
        s2, s3 = lower(s, backbone, supports[:, k])
        features = conv(s, "down_supp.0", torch.cat([s3, s2], 1)).relu()
        prototypes.append(average(features, at(fgs[:, k : k + 1], side)))
        priors.append(min_max(best_cosine(f4, masked_upper(s, backbone, s3, fgs[:, k : k + 1]))))
    prototype, prior = sum(prototypes) / len(prototypes), sum(priors) / len(priors)
    kept, bins = [], [int(side * part) for part in (1, 0.5, 0.25, 0.125)] if coco else [60, 30, 15, 8]
    for i, b in enumerate(bins):
        pooled = F.adaptive_avg_pool2d(q, b)
        m = conv(s, f"init_merge.{i}.0", torch.cat([pooled, everywhere(prototype, pooled), at(prior, b)], 1)).relu()
        if i:
            m = conv(s, f"alpha_conv.{i - 1}.0", torch.cat([m, at(kept[-1], b)], 1)).relu() + m
        kept.append(at(residual(s, f"beta_conv.{i}", m), side))
    merged = residual(s, "res2", conv(s, "res1.0", torch.cat(kept, 1)).relu())
    return {"final": at(classify(s, "cls", merged), query.shape[-1])}


def bam(s: State, backbone: str, query: Tensor, supports: Tensor, masks: Tensor) -> dict[str, Any]:
    f2, f3 = lower(s, backbone, query)
    f4, fgs, size = stage(s, backbone, 4, f3), (masks == 1).float(), query.shape[-1]
    q = conv(s, "down_query.0", torch.cat([f3, f2], 1)).relu()
    prototypes, priors, styles = [], [], []
    for k in range(supports.shape[1]):
        s2, s3 = lower(s, backbone, supports[:, k])
        features = conv(s, "down_supp.0", torch.cat([s3, s2], 1)).relu()
        prototypes.append(average(features, at(fgs[:, k : k + 1], q.shape[-1])))
        priors.append(min_max(best_cosine(f4, masked_upper(s, backbone, s3, fgs[:, k : k + 1]))))
        styles.append(s2)
    psi = distances(f2, styles)
    weights = shot_weights(s, psi, undo_sort=True).T[:, :, None, None, None]  # (K, B, 1, 1, 1)
    prototype, prior = (sum(w * x for w, x in zip(weights, xs, strict=True)) for xs in (prototypes, priors))
    m = conv(s, "init_merge.0", torch.cat([q, everywhere(prototype, q), prior], 1)).relu()  # type: ignore[arg-type,list-item]
    branches = [everywhere(conv(s, "ASPP_meta.layer6_0.0", m.mean((2, 3), keepdim=True)).relu(), m)]
    branches += [
        conv(s, f"ASPP_meta.layer6_{i}.0", m, dilation=d).relu() for i, d in ((1, 1), (2, 6), (3, 12), (4, 18))
    ]
    meta = classify(s, "cls_meta", residual(s, "res2_meta", conv(s, "res1_meta.0", torch.cat(branches, 1)).relu()))
    f5 = bn(s, "learner_base.1.1", conv(s, "learner_base.1.0", pyramid_pooling(s, "learner_base.0", f4)))
    base = conv(s, "learner_base.1.4", f5.relu())
    final = fuse(s, meta, base, (weights.flatten(1).T * psi).sum(1))
    return {"final": at(final, size), "meta": at(meta, size), "base": at(base, size)}


def hdmnet(s: State, backbone: str, query: Tensor, supports: Tensor, masks: Tensor) -> dict[str, Any]:
    fgs, shots, size = (masks == 1).float(), supports.shape[1], query.shape[-1]
    t = {n.removeprefix("transformer.mix_transformer."): v for n, v in s.items() if n.startswith("transformer.")}
    f2, f3, f4, f5 = _hdmnet_levels(s, backbone, query)
    side, prototypes, tokens, styles, priors = f3.shape[-1], [], [], [], []
    for k in range(shots):
        fg = fgs[:, k : k + 1]
        s2, s3, s4, s5 = _hdmnet_levels(s, backbone, supports[:, k] * fg)
        features = conv(s, "down_supp.0", torch.cat([s3, s2], 1)).relu()
        prototypes.append(average(features, at(fg, side)))
        merged = conv(s, "supp_merge.0", torch.cat([features, everywhere(prototypes[-1], features)], 1)).relu()
        tokens.append(_hdmnet_encoder(t, merged))
        near = F.interpolate(fg, size=f4.shape[2:], mode="nearest")
        priors.append(torch.cat([best_cosine(f5, s5 * near), best_cosine(f4, s4 * near)], 1))
        styles.append(s2)
    prior, prototype = sum(priors) / shots, sum(prototypes) / shots
    q = conv(s, "down_query.0", torch.cat([f3, f2], 1)).relu()
    maps = _hdmnet_encoder(
        t,
        conv(s, "query_merge.0", torch.cat([q, everywhere(prototype, q), 10 * prior], 1)).relu(),  # type: ignore[arg-type]
    )
    out, correlations = {}, {}
    for i in (2, 1, 0):
        support, h = torch.cat([shot[i] for shot in tokens], 1), maps[i].shape[1]
        n = int(h**0.5)
        fg = torch.cat(
            [F.interpolate(fgs[:, k : k + 1], size=(n, n), mode="nearest").flatten(1) for k in range(shots)], 1
        )
        matched, correlations[i] = _hdmnet_match(t, f"match_layers.{i}.0", maps[i], support, fg)
        matched = torch.cat([matched.transpose(1, 2).unflatten(2, (n, n)), at(prior, n)], 1)  # type: ignore[arg-type,list-item]
        out[i] = bn(t, f"match_layers.{i}.1.bn", conv(t, f"match_layers.{i}.1.conv", matched)).relu()
    y = _hdmnet_block(t, "parse_layers.2", out[2]).relu()
    for i in (1, 0):
        y = at(y, out[i].shape[-1], corners=False)
        y = y + _hdmnet_block(t, f"parse_layers.{i}", out[i] + y).relu()
    meta, base = _hdmnet_block(t, "cls", y), conv(s, "base_learnear.2", f5.relu())
    psi = distances(f2, styles)
    # the released K-shot weights stay in the order of ascending distances
    final = fuse(s, meta, base, (shot_weights(s, psi, undo_sort=False) * psi).sum(1))
    found = {f"correlation_stage{i + 1}": c for i, c in correlations.items()}
    return found | {"final": at(final, size), "meta": at(meta, size), "base": at(base, size)}


def _hdmnet_levels(s: State, backbone: str, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    f2, f3 = lower(s, backbone, image)
    f4 = stage(s, backbone, 4, f3)
    return f2, f3, f4, bn(s, "cls.1", conv(s, "cls.0", pyramid_pooling(s, "ppm", f4)))


def _hdmnet_ffn(t: State, name: str, x: Tensor) -> Tensor:
    n = int(x.shape[1] ** 0.5)
    y = conv(t, f"{name}.layers.0", x.transpose(1, 2).unflatten(2, (n, n)))
    y = F.gelu(conv(t, f"{name}.layers.1", y, groups=y.shape[1]))
    return conv(t, f"{name}.layers.4", y).flatten(2).transpose(1, 2)


def _hdmnet_encoder(t: State, x: Tensor) -> list[Tensor]:
    """The tokens (B, L, 64) of the three stages."""
    out = []
    for i, (stride, heads, reduction) in enumerate(((1, 2, 4), (2, 4, 2), (2, 8, 1))):
        name = f"down_sample_layers.{i}"
        x = conv(t, f"{name}.0.projection", x, stride=stride)
        n = x.shape[-1]
        y = layer_norm(t, f"{name}.0.norm", x.flatten(2).transpose(1, 2))
        for layer in (1, 2):
            y = y + _hdmnet_attention(t, f"{name}.{layer}", y, heads=heads, reduction=reduction)
            y = y + _hdmnet_ffn(t, f"{name}.{layer}.ffn", layer_norm(t, f"{name}.{layer}.norm2", y))
        out.append(layer_norm(t, f"{name}.3", y))
        x = out[-1].transpose(1, 2).unflatten(2, (n, n))
    return out


def _hdmnet_attention(t: State, name: str, y: Tensor, *, heads: int, reduction: int) -> Tensor:
    x = layer_norm(t, f"{name}.norm1", y)
    context, n = x, int(x.shape[1] ** 0.5)
    if reduction > 1:
        weight, bias = t[f"{name}.attn.sr.weight"], t[f"{name}.attn.sr.bias"]
        maps = F.conv2d(x.transpose(1, 2).unflatten(2, (n, n)), weight, bias, stride=reduction)
        context = layer_norm(t, f"{name}.attn.norm", maps.flatten(2).transpose(1, 2))
    q, k, v, o = (t[f"{name}.attn.attn.linear_{p}.weight"] for p in "qkvo")
    q, k, v, d = x @ q.T, context @ k.T, context @ v.T, x.shape[2] // heads
    parts = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        parts.append((q[..., part] @ k[..., part].transpose(1, 2) / d**0.5).softmax(2) @ v[..., part])
    return torch.cat(parts, 2) @ o.T


def _hdmnet_match(t: State, name: str, x: Tensor, support: Tensor, fg: Tensor) -> tuple[Tensor, Tensor]:
    """Query tokens after the cross layer, and the correlation map (B, h, w): the mean over all shots' foreground."""
    a, b = layer_norm(t, f"{name}.norm1", x), layer_norm(t, f"{name}.norm1", support)
    q, k, v, o = (t[f"{name}.attn.attn.linear_{p}.weight"] for p in "qkvo")
    q, k, v = a @ q.T, b @ k.T, b @ v.T
    parts, correlation, n = [], torch.zeros(x.shape[:2]), int(x.shape[1] ** 0.5)
    for h in (0, 1):
        part = slice(32 * h, 32 * (h + 1))
        unit_q = q[..., part] / q[..., part].norm(dim=2, keepdim=True).clamp(min=1e-12)
        unit_k = k[..., part] / k[..., part].norm(dim=2, keepdim=True).clamp(min=1e-12)
        score = unit_q @ unit_k.transpose(1, 2) / 0.1  # (B, query, support)
        parts.append((score.softmax(1) * fg[:, None]) @ v[..., part])
        correlation += (score * fg[:, None]).sum(2) / (fg.sum(1, keepdim=True) + 1e-9) / 2
    y = x + torch.cat(parts, 2) @ o.T
    return y + _hdmnet_ffn(t, f"{name}.ffn", layer_norm(t, f"{name}.norm2", y)), correlation.unflatten(1, (n, n))


def _hdmnet_block(t: State, name: str, x: Tensor) -> Tensor:
    y = bn(t, f"{name}.1", conv(t, f"{name}.0", x))
    y = conv(t, f"{name}.4", bn(t, f"{name}.3", conv(t, f"{name}.2", y)))
    return bn(t, f"{name}.5", y) if f"{name}.5.weight" in t else y


def hsnet(s: State, backbone: str, query: Tensor, supports: Tensor, masks: Tensor) -> dict[str, Any]:
    size, votes, found = query.shape[-1], torch.zeros(len(query), *query.shape[2:]), {}
    levels = _hsnet_levels(s, backbone, query)
    for k in range(supports.shape[1]):
        fg = (masks[:, k : k + 1] == 1).float()
        pyramid = []
        for own, theirs in zip(levels, _hsnet_levels(s, backbone, supports[:, k]), strict=True):
            cosines = []
            for q, x in zip(own, theirs, strict=True):
                masked = x * F.interpolate(fg, size=x.shape[2:], mode="bilinear", align_corners=True)
                unit = [f.flatten(2) / (f.flatten(2).norm(dim=1, keepdim=True) + 1e-5) for f in (q, masked)]
                cosines.append(torch.bmm(unit[0].transpose(1, 2), unit[1]).relu())
            n = own[0].shape[2:]
            pyramid.append(torch.stack(cosines, 1).unflatten(3, n).unflatten(2, n))
        found[f"logits_shot{k}"] = at(_hsnet_learner(s, pyramid), size)
        votes += found[f"logits_shot{k}"].argmax(1)
    for b in range(len(votes)):
        votes[b] /= max(1, votes[b].max().item())
    return found | {"vote": (votes >= 0.5).long()}


def _hsnet_levels(s: State, backbone: str, x: Tensor) -> list[list[Tensor]]:
    """Features of [layer4, layer3, layer2], before the blocks' last ReLU."""
    if backbone == "vgg16":
        kept = {}
        for i in range(31):
            if f"backbone.features.{i}.weight" in s:
                x = conv(s, f"backbone.features.{i}", x)
            else:
                x = F.max_pool2d(x, 2) if i in (4, 9, 16, 23, 30) else x.relu()
            kept[i] = x
        return [[kept[30]], [kept[i] for i in (24, 26, 28)], [kept[i] for i in (17, 19, 21)]]
    x = F.conv2d(x, s["backbone.conv1.weight"], stride=2, padding=3)
    x, out = F.max_pool2d(bn(s, "backbone.bn1", x).relu(), 3, 2, padding=1), []
    for index, count in enumerate(BLOCKS[backbone], 1):
        sums = []
        for i in range(count):
            name = f"backbone.layer{index}.{i}"
            sums.append(bottleneck(s, name, x, stride=2 if index > 1 and i == 0 else 1, dilation=1))
            x = sums[-1].relu()
        out.insert(0, sums)
    return out[:3]


def _pivot(s: State, name: str, x: Tensor, stride: int) -> Tensor:
    """Centre-pivot 4D convolution of (B, C, h, w, h', w')."""
    weight, bias = s[f"{name}.conv1.weight"], s[f"{name}.conv1.bias"]
    kept = x[..., ::stride, ::stride]
    rows = [
        torch.stack(
            [F.conv2d(kept[..., y, z], weight, bias, padding=weight.shape[-1] // 2) for z in range(kept.shape[5])], 4
        )
        for y in range(kept.shape[4])
    ]
    over_query = torch.stack(rows, 4)
    weight, bias = s[f"{name}.conv2.weight"], s[f"{name}.conv2.bias"]
    over_support = [
        torch.stack(
            [F.conv2d(x[:, :, h, w], weight, bias, stride, weight.shape[-1] // 2) for w in range(x.shape[3])], 2
        )
        for h in range(x.shape[2])
    ]
    return over_query + torch.stack(over_support, 2)


def _hsnet_stack(s: State, name: str, x: Tensor, strides: tuple[int, ...]) -> Tensor:
    for i, stride in enumerate(strides):
        x = _pivot(s, f"hpn_learner.{name}.{3 * i}", x, stride)
        weight, bias = (s[f"hpn_learner.{name}.{3 * i + 1}.{n}"] for n in ("weight", "bias"))
        x = F.group_norm(x.flatten(2), 4, weight, bias).view(x.shape).relu()
    return x


def _hsnet_learner(s: State, pyramid: list[Tensor]) -> Tensor:
    four, three, two = (
        _hsnet_stack(s, f"encoder_{level}", x, strides)
        for level, x, strides in zip(
            ("layer4", "layer3", "layer2"), pyramid, ((2, 2, 2), (4, 2, 2), (4, 4, 2)), strict=True
        )
    )
    for name, finer in (("encoder_layer4to3", three), ("encoder_layer3to2", two)):
        b, c, h, w, y, z = four.shape
        up = at(four.permute(0, 4, 5, 1, 2, 3).reshape(b * y * z, c, h, w), finer.shape[2])
        up = up.view(b, y, z, c, *finer.shape[2:4]).permute(0, 3, 4, 5, 1, 2)
        four = _hsnet_stack(s, name, up + finer, (1, 1, 1))
    x = four.mean((4, 5))
    x = conv(s, "hpn_learner.decoder1.2", conv(s, "hpn_learner.decoder1.0", x).relu()).relu()
    x = at(x, 2 * x.shape[-1])
    return conv(s, "hpn_learner.decoder2.2", conv(s, "hpn_learner.decoder2.0", x).relu())
