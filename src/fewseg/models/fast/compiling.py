"""The back-end through torch.compile, where a compiler works."""

from __future__ import annotations

import torch

from fewseg.errors import first_line
from fewseg.models.base import FewShotSegmenter


def compile_backbone(model: FewShotSegmenter) -> str | None:
    """Compile a model's back-end in place; what hinders it, in one line, and the model as it was where it cannot be."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, torch.nn.Module):
        return f"{model.name} has no back-end"
    try:
        backbone.compile()
        with torch.inference_mode():  # compiling happens on first use: now, where a failure can be answered
            backbone(torch.zeros(1, 3, model.image_size, model.image_size, device=model.device))
    except Exception as error:  # a missing compiler, or whatever it stumbles over: each back-end has its own errors
        backbone._compiled_call_impl = None
        return first_line(error)
    return None
