"""Checkpoints of a running training: whole, on the disk, checked when read, and the one before kept beside it."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fewseg.errors import DataError
from fewseg.files import read_sealed, replacing, sync, write_sealed
from fewseg.models.parts.backbone_weights import check_packed
from fewseg.storage.run_directory import RunDirectory
from fewseg.training.optimising import Schedule

_MARK = b"fewseg checkpoint 1 sha256 "
_KEPT = ("batches", "best", "seconds", "epoch_open", "log")


@dataclass
class State:
    """Where a run is: batches done, the best score so far, and what its log has not written yet."""

    batches: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    epoch_open: bool = False
    """Whether the last batch ended an epoch that is not validated yet."""
    log: dict[str, Any] = field(default_factory=dict)
    """What the log has summed since its last line."""
    saved: int = 0
    """Batches of the last checkpoint."""


def write_checked(path: Path, content: Any, *, previous: Path | None = None) -> None:
    """Write tensors and plain data to a file that begins with the hash of the rest; whole and on the disk, or not.

    An older file moves to `previous`, if given: at any moment one of the two is whole.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path, durable=True) as temporary:
        write_sealed(temporary, buffer.getbuffer(), mark=_MARK)
        if previous is not None and path.exists():
            sync(temporary)
            os.replace(path, previous)


def read_checked(path: Path) -> Any:
    """What `write_checked` wrote; DataError if a byte of it changed. No pickled code is ever run (weights_only)."""
    try:
        body = read_sealed(path, mark=_MARK)
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if body is None:
        raise DataError(f"{path} is damaged: its content is not what its checksum was made of")
    try:
        check_packed(io.BytesIO(body), len(body))
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path} is no checkpoint of fewseg ({type(error).__name__})") from error


def save_state(run: RunDirectory, state: State, model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> None:
    """Write what resuming needs."""
    content = {
        "model": {k: v.detach().cpu() for k, v in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        **{key: getattr(state, key) for key in _KEPT},
        # not empty where the checkpoint falls between two batches of one optimiser step
        "gradients": {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None},
    }
    write_checked(run.state, content, previous=run.previous_state)


def load_state(run: RunDirectory, model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> tuple[State, str]:
    """The state of the last good checkpoint, or the start if there is none yet; and a text if one was damaged."""
    content, damage = _last_good(run)
    if content is None:
        return State(), damage
    try:
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        schedule.load_state_dict(content.get("schedule", {}))
        parameters = dict(model.named_parameters())
        for name, gradient in content["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name].device)
        kept = {key: content[key] for key in _KEPT}
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DataError(
            f"the checkpoint {run.state} does not fit this model ({type(error).__name__}: {str(error)[:200]}); "
            "was it written by another version? start the run again with another --out"
        ) from error
    return State(**kept, saved=kept["batches"]), damage


def _last_good(run: RunDirectory) -> tuple[Any, str]:
    problems = []
    for file in filter(Path.exists, (run.state, run.previous_state)):
        try:
            content = read_checked(file)
        except DataError as error:
            problems.append(str(error))
        else:
            return content, f"{problems[0]}; going on from the checkpoint before it" if problems else ""
    if problems:
        raise DataError(f"{problems[0]}, and there is no whole one before it; start the run again with another --out")
    return None, ""
