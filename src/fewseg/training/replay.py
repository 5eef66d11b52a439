"""A loss that is not finite: what is kept of it, and the same batch once more with an eye on every part.

`RUN/failure` holds the model as it was (`model/`), the batch of every process (`batch.pt`) and `failure.json`, written
last. No data set is needed to replay it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fewseg.data.transforms import sample_seed
from fewseg.errors import DataError
from fewseg.files import write_json
from fewseg.models.parts.base_learner import PSPNet
from fewseg.runtime.processes import create_fabric
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import load_model, save_model
from fewseg.training.objectives import BaseObjective, EpisodeObjective
from fewseg.training.state import read_checked, write_checked

if TYPE_CHECKING:  # processes.py imports it its own way
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Replay:
    """What a batch that had failed gave when it was computed again."""

    step: int
    items: tuple[str, ...]
    recorded: dict[str, float]
    """The loss terms of the run."""
    losses: tuple[dict[str, float], ...]
    """The loss terms now, of every process's part."""
    weights: tuple[str, ...]
    """Parameters that were not finite before the batch."""
    first: str | None
    """The first part of the network that gave what is not finite, and its kind."""


def save_failure(model: nn.Module, folder: Path, parts: list[Any], record: dict[str, Any]) -> None:
    """Keep what `replay` needs: `parts` are the inputs of every process, `record` says what they are."""
    save_model(model, folder / "model")
    write_checked(folder / "batch.pt", parts)
    write_json(folder / "failure.json", record)


def replay(run: Path) -> Replay:
    """Compute the batch again that stopped a run, on one device, as the run did: same weights, same dropout.

    Raises DataError where the run did not stop that way, or a file is missing or damaged.
    """
    folder = RunDirectory(run).failure
    file = folder / "failure.json"
    if not file.is_file():
        raise DataError(f"{run} holds no failure to replay (no failure/failure.json): its loss was always finite")
    try:
        record = json.loads(file.read_text())
        step, seed, precision = int(record["step"]), int(record["seed"]), str(record["precision"])
        items, recorded = tuple(map(str, record["items"])), {k: float(v) for k, v in record["losses"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged ({type(error).__name__}: {error})") from error
    model: Any = load_model(folder / "model")
    parts = read_checked(folder / "batch.pt")
    frozen = bool(record.get("freeze_backbone", False))
    objective = BaseObjective(model, freeze_backbone=frozen) if isinstance(model, PSPNet) else EpisodeObjective(model)
    broken = tuple(n for n, t in model.state_dict().items() if t.is_floating_point() and not t.isfinite().all())
    fabric = create_fabric(precision=precision)
    failed = _watch(objective.train())
    losses = tuple(_losses(fabric, objective, part, sample_seed(seed, step, rank)) for rank, part in enumerate(parts))
    return Replay(step, items, recorded, losses, broken, next(iter(failed), None))


def _losses(fabric: Fabric, objective: nn.Module, part: Any, seed: int) -> dict[str, float]:
    module = fabric.setup_module(objective)
    torch.manual_seed(seed)
    with torch.no_grad():
        return {name: float(value) for name, value in module(**fabric.to_device(part))["losses"].items()}


def _watch(module: nn.Module) -> list[str]:
    """Gets the first module (in the order of their ends) whose output is not finite, as they run."""
    found: list[str] = []

    def look(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not all(t.isfinite().all() for t in tree_leaves(output) if isinstance(t, Tensor)):
            plain = next(c for c in type(module).__mro__ if not c.__module__.startswith("fewseg.models.fast"))
            found.append(f"{name.removeprefix('model.')} ({plain.__name__})")

    for name, part in module.named_modules():
        if name:
            part.register_forward_hook(partial(look, name))
    return found
