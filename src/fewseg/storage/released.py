"""Names in the papers' released weights, as (pattern, replacement) pairs towards our own; all are applied, in order.

A name that they leave empty is dropped: a tensor that the network never uses. `recognise` reads from names and shapes
what a file was trained as.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor

from fewseg.build import construct
from fewseg.errors import DataError, UsageError
from fewseg.models.base import FewShotSegmenter
from fewseg.models.parts.backbone_weights import load_strict, read_state_dict
from fewseg.models.parts.backbones import vgg_place

Rules = tuple[tuple[str, str], ...]

_SHARED: Rules = (
    (r"^(layer\d)\.", r"backbone.\1."),
    (r"^down_query\.", "reduce_query."),
    (r"^down_supp\.", "reduce_support."),
    (r"^gram_merge\.", "ensemble.gram_merge."),
    (r"^cls_merge\.", "ensemble.base_merge."),
    (r"^kshot_rw\.", "shot_weights.mix."),
)

_PFENET: Rules = (
    *_SHARED,
    (r"^init_merge\.(\d)\.", r"enrichment.levels.\1.merge."),
    # the first size receives nothing: the released list starts at the second
    *((rf"^alpha_conv\.{i}\.", f"enrichment.levels.{i + 1}.receive.") for i in range(3)),
    (r"^beta_conv\.(\d)\.", r"enrichment.levels.\1.refine."),
    (r"^inner_cls\.(\d)\.", r"enrichment.levels.\1.classifier."),
    (r"^res1\.", "merge."),
    (r"^res2\.", "refine."),
    (r"^cls\.", "classifier."),
)

_BAM: Rules = (
    *_SHARED,
    (r"^learner_base\.0\.", "base.ppm."),
    (r"^learner_base\.1\.4\.", "base.classifier."),
    (r"^learner_base\.1\.(\d)\.", r"base.reduce.\1."),
    (r"^init_merge\.", "merge."),
    (r"^ASPP_meta\.layer6_(\d)\.", r"aspp.branches.\1."),
    (r"^res1_meta\.", "join."),
    (r"^res2_meta\.", "refine."),
    (r"^cls_meta\.", "classifier."),
)


_HSNET: Rules = (
    (r"^backbone\.(fc|classifier)\..*", ""),  # the ImageNet classifier
    (r"^backbone\.conv1\.", "backbone.layer0.0."),
    (r"^backbone\.bn1\.", "backbone.layer0.1."),
    *((rf"^backbone\.features\.{n}\.", f"backbone.{vgg_place(n, 'vgg16')}.") for n in range(30)),
    (r"^hpn_learner\.encoder_layer4to3\.", "learner.mix.layer3."),
    (r"^hpn_learner\.encoder_layer3to2\.", "learner.mix.layer2."),
    (r"^hpn_learner\.encoder_(layer\d)\.", r"learner.squeeze.\1."),
    (r"^(learner\..*)\.conv1\.", r"\1.query."),
    (r"^(learner\..*)\.conv2\.", r"\1.support."),
    (r"^hpn_learner\.", "learner."),
)

RELEASED: dict[str, Rules] = {
    "pfenet": _PFENET,
    "bam": _BAM,
    "hsnet": _HSNET,
    "hdmnet": (
        *_SHARED,
        (r"^ppm\.", "base.ppm."),
        (r"^cls\.(\d)\.", r"base.reduce.\1."),
        (r"^base_learnear\.2\.", "base.classifier."),
        (r"^query_merge\.", "merge_query."),
        (r"^supp_merge\.", "merge_support."),
        (r"^transformer\.mix_transformer\.", ""),
        (r"^down_sample_layers\.(\d)\.0\.projection\.", r"encoder.stages.\1.embed."),
        (r"^down_sample_layers\.(\d)\.0\.norm\.", r"encoder.stages.\1.embed_norm."),
        (r"^down_sample_layers\.(\d)\.3\.", r"encoder.stages.\1.norm."),
        (r"^down_sample_layers\.(\d)\.1\.", r"encoder.stages.\1.layers.0."),
        (r"^down_sample_layers\.(\d)\.2\.", r"encoder.stages.\1.layers.1."),
        (r"^match_layers\.(\d)\.0\.attn\.", r"matching.\1.attention.attn."),
        (r"^match_layers\.(\d)\.0\.", r"matching.\1."),
        (r"^match_layers\.(\d)\.1\.conv\.", r"matching.\1.mix.0."),
        (r"^match_layers\.(\d)\.1\.bn\.", r"matching.\1.mix.1."),
        (r"^parse_layers\.", "decoder.blocks."),
        (r"^cls\.", "decoder.head."),
        (r"\.attn\.attn\.linear_([qkvo])\.", r".projections.\1."),
        (r"\.attn\.sr\.", ".reduce."),
        (r"\.attn\.norm\.", ".reduce_norm."),
    ),
}


_MARKS = {
    "hdmnet": "transformer.mix_transformer.",
    "bam": "ASPP_meta.",
    "pfenet": "inner_cls.",
    "hsnet": "hpn_learner.",
}
"""The beginning of names that only this method's released files have."""


@dataclass(frozen=True)
class Recognised:
    """What a released file was trained as; None where its names and shapes do not tell."""

    backbone: str | None
    base_classes: int | None
    shots: int | None

    def __str__(self) -> str:
        known = [
            self.backbone or "an unknown back-end",
            None if self.base_classes is None else f"{self.base_classes} base classes",
            None if self.shots is None else f"{self.shots}-shot",
        ]
        return ", ".join(part for part in known if part)


def recognise_method(names: Collection[str]) -> str | None:
    """The method whose released names these are, None if they are no method's."""
    return next((method for method, mark in _MARKS.items() if any(name.startswith(mark) for name in names)), None)


def recognise(state: Mapping[str, Tensor]) -> Recognised:
    """Back-end, base classes and shots of a released state dict that already has our names.

    Only a network with a base learner has the number of base classes in it, and only such a one its shots.
    """
    classifier, weights = state.get("base.classifier.weight"), state.get("shot_weights.mix.0.weight")
    return Recognised(
        _backbone(state),
        None if classifier is None else classifier.shape[0] - 1,
        None if classifier is None else 1 if weights is None else weights.shape[1],
    )


def _backbone(state: Mapping[str, Tensor]) -> str | None:
    if "backbone.layer0.0.bias" in state:  # ResNets' convolutions have none
        return "vgg16_bn" if "backbone.layer0.1.running_mean" in state else "vgg16"
    blocks = {name.split(".")[2] for name in state if name.startswith("backbone.layer3.")}
    depth = {6: 50, 23: 101}.get(len(blocks))
    if depth is None:
        return None
    return f"resnet{depth}-ds" if "backbone.layer0.6.weight" in state else f"resnet{depth}"


def rename_released(method: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released file's state dict under our names. Every rule is applied once, in order."""

    def ours(released: str) -> str:
        return reduce(lambda name, rule: re.sub(*rule, name), RELEASED[method], released)

    return {name: tensor for released, tensor in state.items() if (name := ours(released))}


def load_released(
    method: str,
    path: str | Path,
    *,
    backbone: str | None = None,
    base_classes: int | None = None,
    shots: int | None = None,
    **options: Any,
) -> FewShotSegmenter:
    """A network of the papers with its released weights, in evaluation mode.

    `path` is a torch file with or without a `state_dict` wrapper and `module.` prefixes; it is read with weights_only.
    What is None is taken from the file's names and shapes; where those do not tell, 15 base classes and one shot.
    `image_size` follows the base classes (60: COCO's), if not given. Raises DataError that says what the file holds and
    lists missing and unexpected names.
    """
    if method not in RELEASED:
        raise UsageError(f"no released weights are known for {method!r}; choose {', '.join(sorted(RELEASED))}")
    released = read_state_dict(Path(path))
    actual = recognise_method(released)
    if actual not in (method, None):
        raise DataError(f"{path} holds the names of {actual}, not of {method}; load it as {actual}")
    state = rename_released(method, released)
    found = recognise(state)
    chosen = backbone or found.backbone
    if chosen is None:
        raise DataError(f"{path} holds {method} on a back-end that is not recognised; name it: backbone=resnet50-ds")
    classes = base_classes or found.base_classes or 15
    common = {"base_classes": classes, "shots": shots or found.shots or 1}
    coco_size = 633 if method == "hdmnet" else 641
    size = 400 if method == "hsnet" else coco_size if classes == 60 else 473
    model = construct(method, {"backbone": chosen, "image_size": size} | options, common=common)
    asked = Recognised(chosen, **common)
    load_strict(model, state, what=f"{path} ({method}: {found}), taken as {asked},")
    return model.eval()
