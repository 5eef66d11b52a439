"""From names to things: a model, a data set's subset and a device, each made here and nowhere else."""

from __future__ import annotations

import re
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from fewseg import registry
from fewseg.config import Config
from fewseg.data.source import ImageSource
from fewseg.errors import FewsegError, UsageError, first_line
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
    """The model that a configuration names, with `more` arguments of `create_model`; its back-end stays random where
    a base learner's run is to fill it.
    """
    chosen = config.model
    filled = config.base.run is not None and takes_base_learner(config)
    weights = None if filled else chosen.weights
    return create_model(
        chosen.name, backbone=chosen.backbone, weights=weights, shots=config.data.shots, **more, **chosen.options
    )


def takes_base_learner(config: Config) -> bool:
    """Whether the configured model takes its back-end and base head from a base learner."""
    cls = registry.method_class(config.model.name)
    return getattr(cls, "needs_base_learner", False) and config.model.options.get("base_learner", True)


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
    given = {"name": config.data.name, "root": config.data.root, **config.data.options}
    return _source(given, subset=subset, progress=progress, within=None)


def _source(given: dict[str, Any], *, subset: str, progress: Silent | None, within: str | None) -> ImageSource:
    """The data set of a group of keys, with those that it is made of; a relative root lies below `within`."""
    name, arguments = given["name"], {key: value for key, value in given.items() if key != "name"}
    if within is not None and arguments.get("root") is not None:
        arguments["root"] = str(Path(within) / arguments["root"])
    for option, hint in registry.keyword_hints(registry.find("source", name)).items():
        if registry.holds_sources(hint) and arguments.get(option):
            arguments[option] = {
                key: _part(part, key=f"{option}.{key}", subset=subset, progress=progress, within=arguments.get("root"))
                for key, part in arguments[option].items()
            }
    source = registry.create("source", name, subset=subset, **arguments)
    if progress is not None and hasattr(source, "progress"):
        source.progress = progress
    return source


def _part(given: dict[str, Any], *, key: str, **how: Any) -> ImageSource:
    """A data set within another; what is wrong with it is told by the keys that it has there."""
    try:
        return _source(given, **how)
    except FewsegError as error:
        text = re.sub(rf"\bdata\.(?=({'|'.join(['root', *given])})\b)", f"data.{key}.", str(error))
        raise type(error)(f"data.{key}: {text}") from error


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
