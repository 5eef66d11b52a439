"""Training: one visible loop for every method.

Everything random is a function of (seed, step): a run that was killed resumes from its last checkpoint and ends with
the same weights. A run directory holds `config.yaml`, `metrics.jsonl`, `best/` and `last/` (saved models), `base/`
(the base learner that was trained first) and `state.pt` (what resuming needs).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fewseg.checkpoints import find_folder, method_class, read_record, save_model
from fewseg.config import Config, load_config
from fewseg.data.dataset import GlobalSampler
from fewseg.data.images import replacing
from fewseg.data.transforms import sample_seed
from fewseg.engine.log import Log
from fewseg.engine.memory import keep_freed_memory
from fewseg.engine.tasks import BaseTask, EpisodeTask, Task
from fewseg.errors import DataError, FewsegError, UsageError
from fewseg.progress import Silent

LOG_EVERY = 20
"""Batches between lines of the log."""


@dataclass
class State:
    """Where a run is: optimiser steps done, batches done, and the best score so far."""

    batches: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    saved: int = 0
    """Batches of the last checkpoint."""


@dataclass
class Training:
    """All that the loop needs."""

    config: Config
    run: Path
    task: Task
    fabric: Fabric
    module: nn.Module
    optimizer: Optimizer
    rates: list[float]
    """Initial learning rate of every group."""
    state: State
    total: int
    """Batches of the whole run."""
    progress: Silent


def train(config: Config, run: Path, *, resume: bool = False, progress: Silent | None = None) -> Path:
    """Train as configured into the directory `run`; returns it.

    A directory that holds a run is refused unless `resume`; a finished run is left as it is. Raises UsageError for a
    configuration that differs from the one the run was started with.
    """
    progress = progress or Silent()
    keep_freed_memory()
    check_run(config, run, resume=resume)
    fabric = create_fabric(config)
    fabric.launch()
    torch.manual_seed(config.train.seed)
    task = create_task(config, progress=progress)
    write_config(config, run)
    if isinstance(task, EpisodeTask):
        task.take_base(ensure_base(config, run, resume=resume, progress=progress))
    total = math.ceil(task.epoch_length * config.train.epochs / config.train.batch_size)
    optimizer = create_optimizer(task.param_groups(config), config)
    rates = [group["lr"] for group in optimizer.param_groups]
    task.module.train()
    module, optimizer = fabric.setup(task.module, optimizer)
    state = load_state(run, task.model, optimizer) if resume else State()
    training = Training(config, run, task, fabric, module, optimizer, rates, state, total, progress)
    try:
        loop(training)
    except KeyboardInterrupt:
        # nothing is saved here: an interrupt may fall between a step and its bookkeeping, or into a validation
        raise FewsegError(
            f"stopped after {state.batches} of {total} batches; --resume goes on from batch {state.saved}"
        ) from None
    return run


def loop(t: Training) -> None:
    """From the state to the last batch: forward, backward, step, log, validate, save."""
    settings, state, length = t.config.train, t.state, t.task.epoch_length
    sampler = GlobalSampler(
        state.batches * settings.batch_size,
        t.total * settings.batch_size,  # the last batch is filled up: BatchNorm cannot train on one image
        batch=settings.batch_size,
        rank=t.fabric.global_rank,
        world=t.fabric.world_size,
    )
    log = Log(t.run, t.config, batches=state.batches)
    batches = iter(t.task.batches(sampler, progress=t.progress, folder=t.run))
    started = time.perf_counter() - state.seconds
    title = f"training {t.config.model.name}"
    for step in t.progress(range(state.batches, t.total), title, t.total, done=state.batches):
        # dropout is a function of (seed, step) too: a resumed run draws what an undisturbed one would
        torch.manual_seed(sample_seed(settings.seed, step, t.fabric.global_rank))
        out = t.module(**t.fabric.to_device(t.task.inputs(next(batches))))
        losses: dict[str, Tensor] = out["losses"]
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise FewsegError(_not_finite(losses, step, settings.batch_size))
        t.fabric.backward(loss / settings.accumulate)
        last = step + 1 == t.total
        if (step + 1) % settings.accumulate == 0 or last:
            optimizer_step(t, step)
        state.batches, state.seconds = step + 1, time.perf_counter() - started
        log.add(losses | out["logged"], out["counts"])
        epoch_ends = last or _epoch_ends(step + 1, length, settings.batch_size)
        if (step + 1) % LOG_EVERY == 0 or epoch_ends:
            t.progress.note(log.write(state.batches, t.total, lr=t.optimizer.param_groups[0]["lr"]))
        if epoch_ends:
            finish_epoch(t, log)
        if epoch_ends or (step + 1) % settings.save_every == 0:
            log.write(state.batches, t.total, lr=t.optimizer.param_groups[0]["lr"])
            save_state(t)


def optimizer_step(t: Training, step: int) -> None:
    """One step at the schedule's learning rate."""
    set_learning_rate(t.optimizer, t.rates, step, t.total, power=t.config.train.power)
    if t.config.train.clip is not None:
        t.fabric.clip_gradients(t.module, t.optimizer, max_norm=t.config.train.clip)
    t.optimizer.step()
    t.optimizer.zero_grad()


def finish_epoch(t: Training, log: Log) -> None:
    """Validate, and save `last/` and, if it is the best so far, `best/`."""
    settings, state = t.config.train, t.state
    epoch = settings.epochs if state.batches == t.total else state.batches * settings.batch_size // t.task.epoch_length
    info = t.task.info() | {"data": t.config.as_dict()["data"], "epoch": epoch, "batches": state.batches}
    if state.batches == t.total or epoch % settings.val_every == 0:
        scores = t.task.validate(progress=t.progress)
        t.module.train()
        if scores:
            log.validation(state.batches, epoch, scores)
            t.progress.log(f"epoch {epoch}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in scores.items()))
            info["validation"] = scores
            if scores.get("miou", -math.inf) > state.best:
                state.best = scores["miou"]
                if t.fabric.is_global_zero:
                    save_model(t.task.model, t.run / "best", info)
    if t.fabric.is_global_zero:
        save_model(t.task.model, t.run / "last", info)
    t.fabric.barrier()


def create_fabric(config: Config) -> Fabric:
    """The configured devices and precision."""
    t = config.train
    try:
        return Fabric(accelerator=t.accelerator, devices=t.devices, num_nodes=t.nodes, precision=t.precision)  # type: ignore[arg-type]
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        asked = f"train.accelerator={t.accelerator}, devices={t.devices}, precision={t.precision}"
        raise UsageError(f"cannot train with {asked}: {reason}") from error


def create_task(config: Config, *, progress: Silent) -> Task:
    """The task of the configured method, its base learner (if any) still to be filled: what is wrong with the data
    shows before one is trained, and the model's random start does not depend on whether it is trained in this run.
    """
    return (
        BaseTask(config, progress=progress) if config.model.name == "base" else EpisodeTask(config, progress=progress)
    )


def ensure_base(config: Config, run: Path, *, resume: bool, progress: Silent) -> Path | None:
    """The run of the base learner that the method takes: the given one, or one trained in `run`/base; None if it
    takes none.
    """
    cls = method_class(config.model.name)
    if not getattr(cls, "needs_base_learner", False) or not config.model.options.get("base_learner", True):
        return None
    if config.base.run is not None:
        return Path(config.base.run)
    base = load_config(config.base.recipe)
    base.data.name, base.data.root, base.data.fold = config.data.name, config.data.root, config.data.fold
    base.data.options = config.data.options
    base.model.backbone, base.model.weights = config.model.backbone, config.model.weights
    for key in ("seed", "workers", "validation", "held_out", "accelerator", "devices", "nodes", "precision"):
        setattr(base.train, key, getattr(config.train, key))
    base.train.epochs = config.base.epochs or base.train.epochs
    folder = run / "base"
    finished = (folder / "last" / "fewseg.json").is_file() and _finished(folder, base)
    if not finished:
        progress.log(f"training the base learner first, into {folder} (give base.run=RUN to take a trained one)")
        train(base, folder, resume=resume and (folder / "config.yaml").is_file(), progress=progress)
    return folder


def _finished(folder: Path, config: Config) -> bool:
    return read_record(find_folder(folder))["info"].get("epoch") == config.train.epochs


def check_run(config: Config, run: Path, *, resume: bool) -> None:
    """That the directory holds no run, or the one to resume."""
    file = run / "config.yaml"
    if file.is_file():
        if not resume:
            raise UsageError(f"{run} already holds a run; give another --out, or --resume to go on with it")
        if load_config(str(file)).as_dict() != config.as_dict():
            raise UsageError(f"the configuration differs from {file}; resume with the same one, or give another --out")
    elif resume:
        raise DataError(f"{run} holds no run to resume (no config.yaml)")


def write_config(config: Config, run: Path) -> None:
    """Make the directory with its configuration, if it is not there yet."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "config.yaml").is_file():
            with replacing(run / "config.yaml") as temporary:
                temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(config.as_dict())))
    except OSError as error:
        raise DataError(f"cannot write the run directory {run}: {error.strerror}; give another --out") from error


def create_optimizer(groups: list[dict[str, Any]], config: Config) -> Optimizer:
    """The configured optimiser over parameter groups."""
    t = config.train
    if t.optimizer == "adamw":
        return AdamW(groups, lr=t.lr, weight_decay=t.weight_decay)
    if t.optimizer == "adam":
        return Adam(groups, lr=t.lr, weight_decay=t.weight_decay)
    return SGD(groups, lr=t.lr, momentum=t.momentum, weight_decay=t.weight_decay)


def set_learning_rate(optimizer: Optimizer, rates: list[float], step: int, total: int, *, power: float) -> None:
    """Poly schedule: lr * (1 - t / total) ** power with t = step + 1, as the papers count."""
    factor = (1 - (step + 1) / total) ** power if power else 1.0
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def save_state(t: Training) -> None:
    """Write what resuming needs, whole or not at all."""
    if not t.fabric.is_global_zero:
        return
    content = {
        "model": {k: v.detach().cpu() for k, v in t.task.model.state_dict().items()},
        "optimizer": t.optimizer.state_dict(),
        "batches": t.state.batches,
        "best": t.state.best,
        "seconds": t.state.seconds,
        # not empty where the checkpoint falls between two batches of one optimiser step
        "gradients": {n: p.grad.cpu() for n, p in t.task.model.named_parameters() if p.grad is not None},
    }
    with replacing(t.run / "state.pt") as temporary:
        torch.save(content, temporary)
    t.state.saved = t.state.batches


def load_state(run: Path, model: nn.Module, optimizer: Optimizer) -> State:
    """The state of the last checkpoint; the start if there is none yet."""
    file = run / "state.pt"
    if not file.is_file():
        return State()
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"{file} is damaged ({type(error).__name__}); start the run again with another --out"
        ) from error
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    parameters = dict(model.named_parameters())
    for name, gradient in content.get("gradients", {}).items():
        parameters[name].grad = gradient.to(parameters[name].device)
    return State(content["batches"], content["best"], content["seconds"], saved=content["batches"])


def _epoch_ends(batches: int, length: int, batch_size: int) -> bool:
    """Whether the last of `batches` holds the last item of an epoch."""
    return batches * batch_size // length > (batches - 1) * batch_size // length


def _not_finite(losses: dict[str, Tensor], step: int, batch_size: int) -> str:
    terms = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
    first = step * batch_size
    return (
        f"the loss is not finite at batch {step} (episodes {first} to {first + batch_size - 1}: {terms}); "
        "lower train.lr, or set train.clip=1"
    )
