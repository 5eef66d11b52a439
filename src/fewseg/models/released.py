"""Names in the released checkpoints, as (pattern, replacement) pairs towards our own; all are applied, in order."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_ATTENTION = r"(?:attn\.attn\.linear_)([qkvo])"

RELEASED: dict[str, tuple[tuple[str, str], ...]] = {
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
        new = name
        for pattern, replacement in RELEASED[method]:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    return renamed
