"""From names to things: a model, a data set's subset and a device, each made here and nowhere else."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from fewseg import registry
from fewseg.config import Config
from fewseg.data.source import ImageSource
from fewseg.errors import UsageError, first_line
from fewseg.models.base import FewShotSegmenter
from fewseg.models.parts.backbone_weights import load_backbone_weights
from fewseg.progress import Silent

LIMITS = {"base_classes": (1, 65535), "image_size": (8, 2048), "shots": (1, 1000), "heads": (1, 100)}
"""Of a model's arguments, the smallest and the largest that are taken: beyond it is a slip, or meant to do harm."""


def create_model(
    name: str,
    *,
    backbone: str = "lite0",
    base_classes: int = 15,
    shots: int = 1,
    weights: str | None = None,
    **options: Any,
) -> FewShotSegmenter:
    """A model by its method's name. Back-end `weights`: None (random), "imagenet", or a file; nothing else is ever
    read.

    `options` are the keyword arguments of the method's class. Raises UsageError for an unknown name or option.
    """
    model = construct(name, options | {"backbone": backbone}, common={"base_classes": base_classes, "shots": shots})
    load_backbone_weights(model.backbone, backbone, weights)
    return model


def configured_model(config: Config, **more: Any) -> Any:
    """The model that a configuration names, with `more` arguments of `create_model`."""
    chosen = config.model
    return create_model(
        chosen.name, backbone=chosen.backbone, weights=chosen.weights, shots=config.data.shots, **more, **chosen.options
    )


def construct(name: str, arguments: dict[str, Any], *, common: dict[str, Any]) -> Any:
    """`common` arguments are passed only where the method knows them."""
    for key, (least, most) in LIMITS.items():
        value = arguments.get(key, least)
        if not isinstance(value, Integral) or not least <= int(value) <= most:
            raise UsageError(f"model.{key} is {value!r}; give a whole number, {least} to {most}")
    known = registry.options(registry.method_class(name))
    return registry.create("model", name, **arguments | {k: v for k, v in common.items() if k in known})


def create_source(config: Config, subset: str, *, progress: Silent | None = None) -> ImageSource:
    """The configured data set's train or test subset."""
    arguments = {"root": config.data.root, **config.data.options}
    source = registry.create("source", config.data.name, subset=subset, **arguments)
    if progress is not None and hasattr(source, "progress"):
        source.progress = progress
    return source


def pick_device(name: str) -> torch.device:
    """A device by name; auto takes CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a back-end that this torch or machine lacks
        raise UsageError(
            f"device {name!r} cannot be used here ({first_line(error)}); choose cpu, cuda, cuda:N or mps, as the "
            "machine has"
        ) from error
    return device
