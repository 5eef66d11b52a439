"""The configured optimiser and schedule: any of torch's by their names, and learning rates by parts of the model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from fewseg.config import Config
from fewseg.errors import UsageError, first_line, suggest

_SPELLED = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}
_LENGTHS = ("T_max", "total_iters", "total_steps")
"""Arguments of torch's schedules that mean the length of the run."""


def create_optimizer(groups: list[dict[str, Any]], config: Config) -> Optimizer:
    """The configured optimiser over parameter groups. UsageError for options that it does not take."""
    t = config.train
    name = _SPELLED.get(t.optimizer, t.optimizer)
    kind = getattr(torch.optim, name)
    known = inspect.signature(kind).parameters
    options: dict[str, Any] = {"lr": t.lr}
    if "weight_decay" in known:
        options["weight_decay"] = t.weight_decay
    if name == "SGD":
        options["momentum"] = t.momentum
    if name in ("Adam", "AdamW"):
        # a quarter of the time on a CPU; with a gradient scaler, Fabric could not clip it
        options["fused"] = t.precision not in ("16-mixed", "16")
    return _made("train.optimizer_options", kind, groups, options | t.optimizer_options)


def _made(place: str, kind: Any, first: Any, options: dict[str, Any]) -> Any:
    """A class of torch's with its options; its own word where it refuses one."""
    known = list(inspect.signature(kind).parameters)[1:]
    for key in options:
        if key not in known:
            raise UsageError(
                f"{place}: {kind.__name__} has no option {key!r}; it has {', '.join(known)}.{suggest(key, known)}"
            )
    try:
        return kind(first, **{k: tuple(v) if k == "betas" else v for k, v in options.items()})
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        raise UsageError(f"{place}: {kind.__name__} refuses these options: {first_line(error)}") from error


def with_rates(groups: list[dict[str, Any]], model: nn.Module, rates: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups divided so that parameters have their rates times a factor, by their names: `rates` of patterns, or of
    parts (`backbone` is all of `backbone.*`); the last that fits holds. A factor of 0 freezes its parameters.
    UsageError where a pattern fits no trained parameter, and where nothing is left to train.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    trained = [names[id(p)] for group in groups for p in group["params"]]
    for pattern, factor in rates.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1e6:
            raise UsageError(f"train.rates: {pattern} is {factor!r}; give a factor of the learning rate, 0 to 1e6")
        if not any(_fits(name, pattern) for name in trained):
            parts = dict.fromkeys(name.partition(".")[0] for name in trained)
            raise UsageError(f"train.rates: no trained parameter is of {pattern!r}; its parts are {', '.join(parts)}")
    divided = []
    for group in groups:
        by_factor: dict[float, list[nn.Parameter]] = {}
        for p in group["params"]:
            fitting = [factor for pattern, factor in rates.items() if _fits(names[id(p)], pattern)]
            by_factor.setdefault(float(fitting[-1]) if fitting else 1.0, []).append(p)
        for p in by_factor.pop(0.0, []):
            p.requires_grad_(False)
        divided += [group | {"params": own, "lr": factor * group["lr"]} for factor, own in by_factor.items()]
    if not divided:
        raise UsageError(f"train.rates={rates} leaves nothing to train; give a part of the model a factor above 0")
    return divided


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


class PolySchedule:
    """lr * (1 - t / total) ** power with t = batch + 1, as the papers count; power 0 keeps the learning rate."""

    def __init__(self, optimizer: Optimizer, *, total: int, power: float) -> None:
        self.optimizer, self.total, self.power = optimizer, total, power
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def before(self, step: int) -> None:
        """Before the optimiser's step in batch number `step`."""
        set_learning_rate(self.optimizer, self.rates, step, self.total, power=self.power)

    def after(self) -> None:
        """After it."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: it follows from the batch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""


class TorchSchedule:
    """One of torch's own, a step of which is a step of the optimiser."""

    def __init__(self, optimizer: Optimizer, name: str, options: dict[str, Any], *, steps: int) -> None:
        kind = getattr(lr_scheduler, name)
        known = inspect.signature(kind).parameters
        lengths: dict[str, Any] = {key: steps for key in _LENGTHS if key in known}
        if name == "OneCycleLR":
            lengths["max_lr"] = [group["lr"] for group in optimizer.param_groups]
        self.inner = _made("train.schedule_options", kind, optimizer, lengths | options)

    def before(self, step: int) -> None:
        """The rate was set after the step before."""

    def after(self) -> None:
        """The next step's rate."""
        self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        """Where it is, as plain data."""
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.inner.load_state_dict(state)


Schedule = PolySchedule | TorchSchedule


def create_schedule(optimizer: Optimizer, config: Config, *, total: int) -> Schedule:
    """The configured schedule of a run of `total` batches."""
    t = config.train
    if t.schedule == "poly":
        if t.schedule_options:
            raise UsageError("train.schedule_options are for torch's schedules; of poly there is train.power")
        return PolySchedule(optimizer, total=total, power=t.power)
    return TorchSchedule(optimizer, t.schedule, t.schedule_options, steps=math.ceil(total / t.accumulate))


def check_optimising(config: Config) -> None:
    """UsageError for an optimiser or a schedule that cannot be made, before any data is read."""
    optimizer = create_optimizer([{"params": [nn.Parameter(torch.zeros(2, 2))], "lr": config.train.lr}], config)
    create_schedule(optimizer, config, total=100)


def set_learning_rate(optimizer: Optimizer, rates: Sequence[float], step: int, total: int, *, power: float) -> None:
    """Poly schedule: lr * (1 - t / total) ** power with t = step + 1, as the papers count."""
    factor = (1 - (step + 1) / total) ** power if power else 1.0
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
