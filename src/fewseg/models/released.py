"""Names in the released checkpoints, as (pattern, replacement) pairs towards our own; all are applied, in order.

A replacement of None drops the name: a tensor that the network never uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_ATTENTION = r"(?:attn\.attn\.linear_)([qkvo])"

Rules = tuple[tuple[str, str | None], ...]

_PFENET: Rules = (
    (r"^(layer\d)\.", r"backbone.\1."),
    (r"^down_query\.", "reduce_query."),
    (r"^down_supp\.", "reduce_support."),
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
    (r"^(layer\d)\.", r"backbone.\1."),
    (r"^learner_base\.0\.", "base.ppm."),
    (r"^learner_base\.1\.4\.", "base.classifier."),
    (r"^learner_base\.1\.(\d)\.", r"base.reduce.\1."),
    (r"^down_query\.", "reduce_query."),
    (r"^down_supp\.", "reduce_support."),
    (r"^init_merge\.", "merge."),
    (r"^ASPP_meta\.layer6_(\d)\.", r"aspp.branches.\1."),
    (r"^res1_meta\.", "join."),
    (r"^res2_meta\.", "refine."),
    (r"^cls_meta\.", "classifier."),
    (r"^gram_merge\.", "ensemble.gram_merge."),
    (r"^cls_merge\.", "ensemble.base_merge."),
    (r"^kshot_rw\.", "shot_weights.mix."),
)


def _vgg16_features() -> Rules:
    """VGG-16's `features.N` of torchvision to our stages, cut after each max-pool."""
    starts = (0, 5, 10, 17, 24)
    stage = {n: max(i for i, start in enumerate(starts) if n >= start) for n in range(30)}
    return tuple((rf"^backbone\.features\.{n}\.", f"backbone.layer{i}.{n - starts[i]}.") for n, i in stage.items())


_HSNET: Rules = (
    (r"^backbone\.(fc|classifier)\.", None),  # the ImageNet classifier
    (r"^backbone\.conv1\.", "backbone.layer0.0."),
    (r"^backbone\.bn1\.", "backbone.layer0.1."),
    *_vgg16_features(),
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
        (r"^(layer\d)\.", r"backbone.\1."),
        (r"^ppm\.", "base.ppm."),
        (r"^cls\.(\d)\.", r"base.reduce.\1."),
        (r"^base_learnear\.2\.", "base.classifier."),
        (r"^down_(query|supp)\.", r"reduce_\1."),
        (r"^(query|supp)_merge\.", r"merge_\1."),
        (r"^gram_merge\.", "ensemble.gram_merge."),
        (r"^cls_merge\.", "ensemble.base_merge."),
        (r"^kshot_rw\.", "shot_weights.mix."),
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
        (rf"\.{_ATTENTION}\.", r".projections.\1."),
        (r"\.attn\.sr\.", ".reduce."),
        (r"\.attn\.norm\.", ".reduce_norm."),
        (r"_supp\.", "_support."),
    ),
}


def rename_released(method: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released checkpoint's state dict under our names. Every rule is applied once, in order."""
    renamed = {}
    for name, tensor in state.items():
        new = _rename(name, RELEASED[method])
        if new is not None:
            renamed[new] = tensor
    return renamed


def _rename(name: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        if replacement is not None:
            name = re.sub(pattern, replacement, name)
        elif re.search(pattern, name):
            return None
    return name
