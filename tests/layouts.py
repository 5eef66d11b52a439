"""Names and shapes of released checkpoints, as the released networks' structure gives them, on the meta device."""

from __future__ import annotations

import itertools

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

State = dict[str, Tensor]
VGG_CUTS = (0, 7, 14, 24, 34, 43)


def empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def conv(name: str, outputs: int, inputs: int, kernel: int = 1, *, bias: bool = False) -> State:
    state = {f"{name}.weight": empty(outputs, inputs, kernel, kernel)}
    return state | ({f"{name}.bias": empty(outputs)} if bias else {})


def norm(name: str, channels: int) -> State:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{n}": empty(channels) for n in names} | {f"{name}.num_batches_tracked": empty()}


def resnet(depth: int) -> State:
    with torch.device("meta"):
        net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    return dict(net.state_dict())


def deep_stem_resnet(depth: int) -> State:
    stages = {n: t for n, t in resnet(depth).items() if n.startswith("layer")}
    stem = conv("layer0.0", 64, 3, 3) | conv("layer0.3", 64, 64, 3) | conv("layer0.6", 128, 64, 3)
    stem |= norm("layer0.1", 64) | norm("layer0.4", 64) | norm("layer0.7", 128)
    return stages | stem | conv("layer1.0.conv1", 64, 128) | conv("layer1.0.downsample.0", 256, 128)


def cut_vgg() -> State:
    with torch.device("meta"):
        features = make_layers(cfgs["D"], batch_norm=True)
    cuts = itertools.pairwise(VGG_CUTS)
    layers = {f"layer{i}": nn.Sequential(*features[start:stop]) for i, (start, stop) in enumerate(cuts)}
    return {f"{name}.{n}": t for name, layer in layers.items() for n, t in layer.state_dict().items()}


def back_end(name: str) -> tuple[State, int, int]:
    """State, channels of [f3, f2], channels of f4; `name` as in the parity vectors: resnet50, resnet101, vgg16."""
    if name == "vgg16":
        return cut_vgg(), 768, 512
    return deep_stem_resnet(int(name.removeprefix("resnet"))), 1536, 2048


def head(name: str, reduce: int) -> State:
    return conv("down_query.0", 256, reduce) | conv("down_supp.0", 256, reduce) | conv(f"{name}.0", 256, 256, 3)


def pfenet(backbone: str, *, shots: int = 1, base_classes: int = 15) -> State:
    """The same file for any number of shots and classes."""
    _ = shots, base_classes
    state, mid, _ = back_end(backbone)
    state |= head("cls", mid) | conv("cls.3", 2, 256, bias=True) | conv("res1.0", 256, 1024)
    state |= conv("res2.0", 256, 256, 3) | conv("res2.2", 256, 256, 3)
    for i in range(4):
        state |= conv(f"init_merge.{i}.0", 256, 513) | conv(f"inner_cls.{i}.3", 2, 256, bias=True)
        state |= conv(f"inner_cls.{i}.0", 256, 256, 3)
        state |= conv(f"beta_conv.{i}.0", 256, 256, 3) | conv(f"beta_conv.{i}.2", 256, 256, 3)
    for i in range(3):
        state |= conv(f"alpha_conv.{i}.0", 256, 512)
    return state


def pyramid_pooling(name: str, f4: int) -> State:
    state: State = {}
    for i in range(4):
        state |= conv(f"{name}.features.{i}.1", f4 // 4, f4) | norm(f"{name}.features.{i}.2", f4 // 4)
    return state


def shot_weights(shots: int) -> State:
    if shots == 1:
        return {}
    return conv("kshot_rw.0", 2, shots, bias=True) | conv("kshot_rw.2", shots, 2, bias=True)


def bam(backbone: str, *, shots: int = 1, base_classes: int = 15) -> State:
    state, mid, f4 = back_end(backbone)
    state |= pyramid_pooling("learner_base.0", f4)
    state |= conv("learner_base.1.0", 512, 2 * f4, 3) | norm("learner_base.1.1", 512)
    state |= conv("learner_base.1.4", 1 + base_classes, 512, bias=True)
    state |= head("cls_meta", mid) | conv("cls_meta.3", 2, 256, bias=True) | conv("init_merge.0", 256, 513)
    for i, kernel in enumerate((1, 1, 3, 3, 3)):
        state |= conv(f"ASPP_meta.layer6_{i}.0", 256, 256, kernel, bias=True)
    state |= conv("res1_meta.0", 256, 1280) | conv("res2_meta.0", 256, 256, 3) | conv("res2_meta.2", 256, 256, 3)
    return state | conv("gram_merge", 1, 2) | conv("cls_merge", 1, 2) | shot_weights(shots)


def linear(name: str, outputs: int, inputs: int) -> State:
    return {f"{name}.weight": empty(outputs, inputs)}


def layer_norm(name: str, channels: int) -> State:
    return {f"{name}.weight": empty(channels), f"{name}.bias": empty(channels)}


def hdmnet(backbone: str, *, shots: int = 1, base_classes: int = 15) -> State:
    state, mid, f4 = back_end(backbone)
    state |= pyramid_pooling("ppm", f4) | conv("cls.0", 512, 2 * f4, 3) | norm("cls.1", 512)
    state |= conv("base_learnear.2", 1 + base_classes, 512, bias=True)
    state |= conv("down_query.0", 256, mid) | conv("down_supp.0", 256, mid)
    state |= conv("query_merge.0", 64, 514) | conv("supp_merge.0", 64, 512)
    state |= conv("gram_merge", 1, 2) | conv("cls_merge", 1, 2) | shot_weights(shots)
    transformer: State = {}
    for i, (kernel, reduction) in enumerate(((1, 4), (3, 2), (3, 1))):
        name = f"down_sample_layers.{i}"
        transformer |= conv(f"{name}.0.projection", 64, 64, kernel, bias=True) | layer_norm(f"{name}.0.norm", 64)
        transformer |= layer_norm(f"{name}.3", 64)
        for layer in (1, 2):
            transformer |= attention_layer(f"{name}.{layer}")
            if reduction > 1:
                transformer |= conv(f"{name}.{layer}.attn.sr", 64, 64, reduction, bias=True)
                transformer |= layer_norm(f"{name}.{layer}.attn.norm", 64)
        transformer |= attention_layer(f"match_layers.{i}.0")
        transformer |= conv(f"match_layers.{i}.1.conv", 64, 66, 3) | norm(f"match_layers.{i}.1.bn", 64)
        transformer |= bottleneck(f"parse_layers.{i}", 64) | norm(f"parse_layers.{i}.5", 64)
    transformer |= bottleneck("cls", 2)
    return state | {f"transformer.mix_transformer.{n}": t for n, t in transformer.items()}


def attention_layer(name: str) -> State:
    state = layer_norm(f"{name}.norm1", 64) | layer_norm(f"{name}.norm2", 64)
    for p in "qkvo":
        state |= linear(f"{name}.attn.attn.linear_{p}", 64, 64)
    state |= conv(f"{name}.ffn.layers.0", 256, 64, bias=True) | conv(f"{name}.ffn.layers.1", 256, 1, 3, bias=True)
    return state | conv(f"{name}.ffn.layers.4", 64, 256, bias=True)


def bottleneck(name: str, outputs: int) -> State:
    state = conv(f"{name}.0", 256, 64, bias=True) | norm(f"{name}.1", 256) | conv(f"{name}.2", 256, 256, 3, bias=True)
    return state | norm(f"{name}.3", 256) | conv(f"{name}.4", outputs, 256, bias=True)


def hsnet(backbone: str, *, shots: int = 1, base_classes: int = 15) -> State:
    """The same file for any number of shots and classes."""
    _ = shots, base_classes
    if backbone == "vgg16":
        with torch.device("meta"):
            net: State = dict(torchvision.models.vgg16(weights=None).state_dict())
        blocks = (1, 3, 3)
    else:
        net = resnet(int(backbone.removeprefix("resnet")))
        blocks = (3, 23 if backbone == "resnet101" else 6, 4)
    state = {f"backbone.{n}": t for n, t in net.items()}
    kernels = ((3, 3, 3), (5, 3, 3), (5, 5, 3))
    stacks = {f"encoder_layer{4 - i}": ((inputs, 16, 64, 128), kernels[i]) for i, inputs in enumerate(blocks)}
    stacks |= dict.fromkeys(("encoder_layer4to3", "encoder_layer3to2"), ((128,) * 4, (3, 3, 3)))
    for name, (widths, sides) in stacks.items():
        for i, kernel in enumerate(sides):
            for pivot in ("conv1", "conv2"):
                layer = f"hpn_learner.{name}.{3 * i}.{pivot}"
                state |= conv(layer, widths[i + 1], widths[i], kernel, bias=True)
            state |= {f"hpn_learner.{name}.{3 * i + 1}.{n}": empty(widths[i + 1]) for n in ("weight", "bias")}
    state |= conv("hpn_learner.decoder1.0", 128, 128, 3, bias=True) | conv(
        "hpn_learner.decoder1.2", 64, 128, 3, bias=True
    )
    return (
        state
        | conv("hpn_learner.decoder2.0", 64, 64, 3, bias=True)
        | conv("hpn_learner.decoder2.2", 2, 64, 3, bias=True)
    )


LAYOUTS = {"hdmnet": hdmnet, "bam": bam, "pfenet": pfenet, "hsnet": hsnet}
