"""Released layouts of other back-ends and shots than the parity vectors': every name and shape must find its place."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from fewseg.checkpoints import create_model
from fewseg.errors import DataError
from fewseg.models.released import rename_released
from fewseg.models.weights import load_strict

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
    """State, channels of [f3, f2], channels of f4."""
    if name == "vgg16_bn":
        return cut_vgg(), 768, 512
    return deep_stem_resnet(101), 1536, 2048


def head(name: str, reduce: int) -> State:
    return conv("down_query.0", 256, reduce) | conv("down_supp.0", 256, reduce) | conv(f"{name}.0", 256, 256, 3)


def pfenet(backbone: str) -> State:
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


def bam(backbone: str, *, shots: int, base_classes: int) -> State:
    state, mid, f4 = back_end(backbone)
    for i in range(4):
        state |= conv(f"learner_base.0.features.{i}.1", f4 // 4, f4) | norm(f"learner_base.0.features.{i}.2", f4 // 4)
    state |= conv("learner_base.1.0", 512, 2 * f4, 3) | norm("learner_base.1.1", 512)
    state |= conv("learner_base.1.4", 1 + base_classes, 512, bias=True)
    state |= head("cls_meta", mid) | conv("cls_meta.3", 2, 256, bias=True) | conv("init_merge.0", 256, 513)
    for i, kernel in enumerate((1, 1, 3, 3, 3)):
        state |= conv(f"ASPP_meta.layer6_{i}.0", 256, 256, kernel, bias=True)
    state |= conv("res1_meta.0", 256, 1280) | conv("res2_meta.0", 256, 256, 3) | conv("res2_meta.2", 256, 256, 3)
    state |= conv("gram_merge", 1, 2) | conv("cls_merge", 1, 2)
    if shots > 1:
        state |= conv("kshot_rw.0", 2, shots, bias=True) | conv("kshot_rw.2", shots, 2, bias=True)
    return state


def hsnet(backbone: str) -> State:
    if backbone == "vgg16":
        with torch.device("meta"):
            net: State = dict(torchvision.models.vgg16(weights=None).state_dict())
        blocks = (1, 3, 3)
    else:
        net = resnet(101)
        blocks = (3, 23, 4)
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


CASES = {
    "pfenet on VGG-16": ("pfenet", "vgg16_bn", 5, 15, pfenet("vgg16_bn")),
    "pfenet on ResNet-101": ("pfenet", "resnet101-ds", 1, 60, pfenet("resnet101-ds")),
    "bam on VGG-16, 5 shots": ("bam", "vgg16_bn", 5, 15, bam("vgg16_bn", shots=5, base_classes=15)),
    "bam on ResNet-101, COCO": ("bam", "resnet101-ds", 1, 60, bam("resnet101-ds", shots=1, base_classes=60)),
    "hsnet on VGG-16": ("hsnet", "vgg16", 5, 15, hsnet("vgg16")),
    "hsnet on ResNet-101": ("hsnet", "resnet101", 1, 15, hsnet("resnet101")),
}


@pytest.mark.parametrize("case", CASES)
def test_every_released_name_finds_its_place(case: str) -> None:
    method, backbone, shots, base_classes, state = CASES[case]
    with torch.device("meta"):  # names and shapes only
        model = create_model(method, backbone=backbone, shots=shots, base_classes=base_classes)
    own = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    renamed = {n: tuple(t.shape) for n, t in rename_released(method, state).items()}
    assert renamed == own


def test_another_number_of_shots_is_refused_with_the_names() -> None:
    state = rename_released("bam", bam("vgg16_bn", shots=5, base_classes=15))
    with torch.device("meta"):
        model = create_model("bam", backbone="vgg16_bn", shots=1)
    with pytest.raises(DataError, match=r"unexpected: shot_weights\.mix\.0\.weight"):
        load_strict(model, state, what="a 5-shot file")


def test_only_the_imagenet_classifier_is_dropped() -> None:
    state = {"backbone.fc.weight": empty(1), "backbone.layer2.0.conv1.weight": empty(1), "hpn_learner.new": empty(1)}
    assert list(rename_released("hsnet", state)) == ["backbone.layer2.0.conv1.weight", "learner.new"]
