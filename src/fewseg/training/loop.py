"""Training: one visible loop for every method.

Everything random is a function of (seed, step): a run that was killed resumes from its last checkpoint and ends with
the same weights. `RunDirectory` says which files it leaves.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from fewseg.build import takes_base_learner
from fewseg.callback import Callback
from fewseg.config import Config, load_config
from fewseg.data.dataset import GlobalSampler
from fewseg.data.source import classes_hash
from fewseg.data.transforms import sample_seed
from fewseg.errors import DataError, FewsegError, StoppedError, UsageError
from fewseg.progress import Silent
from fewseg.registry import find_callback
from fewseg.runtime.processes import (
    any_of,
    create_fabric,
    end_with_children,
    launch,
    lost,
    of_all,
    on_main,
    synchronise_batchnorm,
)
from fewseg.storage.learnt import Learnt, learnt_of, record_of
from fewseg.storage.owner import owned
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import load_base_learner, save_model, start_from
from fewseg.training.graphs import GraphedObjective
from fewseg.training.log import Log
from fewseg.training.objectives import EpisodeObjective
from fewseg.training.optimising import Schedule, check_optimising, create_optimizer, create_schedule, with_rates
from fewseg.training.replay import save_failure
from fewseg.training.run_start import describe_run, deterministic, start_directory
from fewseg.training.state import State, load_state, save_state
from fewseg.training.stop import Stop
from fewseg.training.tasks import BaseTask, EpisodeTask, Task

if TYPE_CHECKING:  # processes.py imports it its own way
    from lightning_fabric import Fabric

LOG_EVERY = 20
"""Batches between lines of the log."""
OF_THE_WHOLE_RUN = (
    *("seed", "workers", "precision", "validation", "held_out", "all_classes", "deterministic"),
    *("accelerator", "devices", "nodes", "timeout"),
)
"""Settings of `train` that a base learner takes over from the run that it is trained for."""


@dataclass
class Training:
    """All that the loop needs."""

    config: Config
    run: RunDirectory
    task: Task
    fabric: Fabric
    module: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    state: State
    total: int
    """Batches of the whole run."""
    seen_before: list[int] | None
    """Ids of the classes that the model was trained on from which the run started; None: it started from none."""
    names: dict[str, Any]
    """What the model's record says of the names of its classes."""
    stop: Stop
    progress: Silent
    again: str
    """What goes on with a run that ended early, as an error says it."""
    callbacks: Sequence[Callback] = ()


def train(
    config: Config,
    run: Path,
    *,
    resume: bool = False,
    again: str = "--resume",
    callbacks: Sequence[Callback] = (),
    progress: Silent | None = None,
) -> Path:
    """Train as configured into the directory `run`; returns it.

    `callbacks` are told of it beside those that `train.callbacks` names; `again` is what an error names that goes on.

    A directory that holds a run is refused unless `resume`, and one that another process trains into in any case; a
    finished run is left as it is. SIGINT and SIGTERM end the run with a checkpoint. Raises UsageError for a
    configuration that differs from the one the run was started with, DataError for data that is missing or a directory
    that cannot be written.
    """
    callbacks = [*(find_callback(name)() for name in config.train.callbacks), *callbacks]
    check_optimising(config)
    fabric = start_processes(config)
    progress = (progress or Silent()) if fabric.is_global_zero else Silent()
    with Stop() as stop, deterministic(config.train.deterministic, progress=progress), ExitStack() as held:
        on_main(fabric, lambda: held.enter_context(owned(run)))
        how: dict[str, Any] = {"resume": resume, "again": again, "stop": stop, "progress": progress}
        training = prepare(config, RunDirectory(run), fabric, **how)
        training.callbacks = callbacks if fabric.is_global_zero else ()
        with told_where(training), told(training):
            loop(training)
    return run


@contextmanager
def told(t: Training) -> Iterator[None]:
    """The callbacks' start and end."""
    for one in t.callbacks:
        one.start(t.run.path, t.config.as_dict(), batches=t.state.batches)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        for one in t.callbacks:
            one.end(t.state.batches, error)


def prepare(
    config: Config, run: RunDirectory, fabric: Fabric, *, resume: bool, again: str, stop: Stop, progress: Silent
) -> Training:
    """The task, the run directory, the base learner and the state to start from."""
    on_main(fabric, lambda: run.check(config, resume=resume))
    torch.manual_seed(config.train.seed)
    # first: what is wrong with the data shows before a base learner is trained, and the model's random start does not
    # depend on whether one is trained in this run
    task = (BaseTask if config.model.name == "base" else EpisodeTask)(config, progress=stop.watch(progress))
    groups = with_rates(task.param_groups(), task.model, config.train.rates)  # its mistakes show before it writes
    described = describe_run(config, task)
    seen_before, start = None, None
    if config.train.init is not None:  # this and a base learner that is given: theirs as well
        begun = start_from(task.model, config.train.init, task.source, task.fold)
        progress.log(begun.told)
        seen_before, start = begun.seen, learnt_of(begun.info) or Learnt("unknown", None, None)
    fill = partial(_fill_base, task, config, run, resume=resume, again=again, progress=progress)
    if config.base.run is not None:
        fill()
    elif config.model.weights is None and config.train.init is None and not resume:
        progress.log("the back-end starts from random numbers (model.weights=null)")
    on_main(fabric, lambda: start_directory(config, run, described, progress=progress))
    if config.base.run is None:
        fill()
    total = math.ceil(task.epoch_length * config.train.epochs / config.train.batch_size)
    length = "train.episodes_per_epoch" if config.train.episodes_per_epoch else "as many as images"
    progress.log(
        f"{total} batch{'es' * (total != 1)}: train.epochs={config.train.epochs} of {task.epoch_length} items "
        f"({length}), train.batch_size={config.train.batch_size}"
    )
    optimizer = create_optimizer(groups, config)
    schedule = create_schedule(optimizer, config, total=total)
    task.module.train()
    if fabric.world_size > 1:
        synchronise_batchnorm(task.module, device=fabric.device)
    module, optimizer = fabric.setup(_recording(task.module, config, fabric, progress), optimizer)
    state, damage = load_state(run, task.model, optimizer, schedule) if resume else (State(), "")
    if damage:
        progress.log(damage)
    if 0 < state.batches < total:
        progress.log(f"goes on after batch {state.batches} of {total}")
    names = record_of(task.source, task.fold, start, novel=config.data.novel)
    if config.train.all_classes and len(task.fold.base) > 1:
        progress.log(
            f"note: all {len(task.fold.base)} classes are trained on (train.all_classes=true), those of data.fold too: "
            f"nothing in {task.source.name} can measure the model"
        )
    if empty := names.get("without_images"):
        progress.log(f"note: no image to train on holds {', '.join(empty)}")
    return Training(
        config, run, task, fabric, module, optimizer, schedule, state, total, seen_before, names, stop, progress, again
    )


def _recording(module: nn.Module, config: Config, fabric: Fabric, progress: Silent) -> nn.Module:
    """The module, its steps recorded where they can be: several processes and accumulated gradients need them plain.

    So does half precision, for which recorded steps are not known to be the plain ones.
    """
    wish = config.train
    alone = fabric.device.type == "cuda" and fabric.world_size == wish.accumulate == 1
    if wish.graphs and alone and wish.precision == "32-true" and isinstance(module, EpisodeObjective):
        return GraphedObjective(module, progress.log)
    return module


@contextmanager
def told_where(t: Training) -> Iterator[None]:
    """Whatever ends the loop early also says where it ended, and what goes on from where."""
    try:
        yield
    except KeyboardInterrupt:
        # nothing is saved here: a second interrupt may fall between a step and its bookkeeping
        raise StoppedError(f"stopped at once; {_whereabouts(t)}") from None
    except FewsegError as error:
        raise type(error)(f"{error}; {_whereabouts(t)}") from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}"
        raise DataError(f"the run {t.run.path} cannot go on: {what}; {_whereabouts(t)}") from error
    except RuntimeError as error:
        if t.fabric.world_size == 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        raise FewsegError(f"{lost(error)}; {_whereabouts(t)}") from error


def _whereabouts(t: Training) -> str:
    s = t.state
    kept = f"goes on from the checkpoint of batch {s.saved}, which is whole" if s.saved else "starts it again"
    anew = t.config.train.cache_features and t.config.train.cache_dir is None and s.saved
    features = "; it computes its features again, which a run with train.cache_dir=DIR keeps" if anew else ""
    return f"{s.batches} of {t.total} batches were done; {t.again} {kept}{features}"


def loop(t: Training) -> None:
    """From the state to the last batch: forward, backward, step, log, validate, save."""
    settings, state, length = t.config.train, t.state, t.task.epoch_length
    log = Log(t.run, t.config, batches=state.batches, pending=state.log, writes=t.fabric.is_global_zero)
    if state.epoch_open:  # it was stopped while it validated
        end_epoch(t, log)
        save(t, log)
    sampler = GlobalSampler(
        state.batches * settings.batch_size,
        t.total * settings.batch_size,  # the last batch is filled up: BatchNorm cannot train on one image
        batch=settings.batch_size,
        rank=t.fabric.global_rank,
        world=t.fabric.world_size,
    )
    started, idle = time.perf_counter() - state.seconds, True
    title = f"training {t.config.model.name}"
    with closing(t.task.batches(sampler, progress=t.stop.watch(t.progress), folder=t.run.path)) as batches:
        for step in t.progress(range(state.batches, t.total), title, t.total, done=state.batches):
            ends = step + 1 == t.total or _epoch_ends(step + 1, length, settings.batch_size)
            save_now = ends or (step + 1) % settings.save_every == 0
            line_due = save_now or (step + 1) % LOG_EVERY == 0
            inputs = t.fabric.to_device(t.task.inputs(next(batches)))
            if idle:
                log.clock(step)
            out = training_step(t, step, inputs, watch=line_due)
            state.batches, state.seconds, state.epoch_open = step + 1, time.perf_counter() - started, ends
            log.add(out["losses"], out["counts"])
            if line_due:
                values, line = log.write(state.batches, t.total, lr=out["lr"], watched=out["logged"])
                t.progress.note(line)
                for one in t.callbacks:
                    one.step(state.batches, values)
            stopped = any_of(t.stop.signal is not None, device=t.fabric.device)
            idle = ends
            if state.epoch_open and not stopped:
                end_epoch(t, log)
            if save_now or stopped:
                save(t, log)
            if stopped:
                raise StoppedError(f"stopped by {t.stop.signal or 'another process'}")
    if state.best == 0:
        short = "; the recipe `demo` has settings of a short training (docs/own-data.md)"
        t.progress.log(
            "note: no validation found a pixel of any class (mIoU 0), so nothing was learnt that could be measured; "
            f"train longer: train.epochs, train.episodes_per_epoch{short * (t.config.model.name == 'hdmnet')}"
        )


def training_step(t: Training, step: int, inputs: dict[str, Any], *, watch: bool) -> dict[str, Any]:
    """Forward (with the untrained terms if `watch`), backward, and a step where `accumulate` batches are together; what
    the module gave, and the rate "lr" of the first group in this batch.
    """
    settings = t.config.train
    # dropout is a function of (seed, step) too: a resumed run draws what an undisturbed one would
    torch.manual_seed(sample_seed(settings.seed, step, t.fabric.global_rank))
    out = t.module(**inputs, watch=watch)
    losses: dict[str, Tensor] = out["losses"]
    loss = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(loss):
        raise not_finite(t, step, inputs, losses)
    t.fabric.backward(loss / settings.accumulate)
    whole = (step + 1) % settings.accumulate == 0 or step + 1 == t.total
    if whole:
        t.schedule.before(step)
    lr = t.optimizer.param_groups[0]["lr"]
    if whole:
        if settings.clip is not None:
            t.fabric.clip_gradients(t.module, t.optimizer, max_norm=settings.clip)
        t.optimizer.step()
        t.schedule.after()
        t.optimizer.zero_grad()
    return out | {"lr": lr}


def end_epoch(t: Training, log: Log) -> None:
    """`finish_epoch`, or a checkpoint before it if a stop is wished meanwhile."""
    try:
        finish_epoch(t, log)
    except StoppedError:
        save(t, log)
        raise


def _without_roots(data: dict[str, Any]) -> dict[str, Any]:
    """A configuration's data without the paths on this machine, which are no one else's business."""
    return {k: _without_roots(v) if isinstance(v, dict) else v for k, v in data.items() if k != "root"}


def finish_epoch(t: Training, log: Log) -> None:
    """Validate, and save `last/` and, if it is the best so far, `best/`."""
    settings, state = t.config.train, t.state
    epoch = settings.epochs if state.batches == t.total else state.batches * settings.batch_size // t.task.epoch_length
    told: dict[str, Any] = {"fold": asdict(t.task.fold), "classes": classes_hash(t.task.source), **t.names}
    if t.seen_before is not None:
        told["seen_before"] = t.seen_before
    if plugins := t.task.plugins():
        told["plugins"] = plugins
    info = {**told, "data": _without_roots(t.config.as_dict()["data"]), "epoch": epoch, "batches": state.batches}
    scores: dict[str, float] | None = None
    if state.batches == t.total or epoch % settings.val_every == 0:
        # several processes validate together: one alone must not leave
        progress = t.stop.watch(t.progress) if t.fabric.world_size == 1 else t.progress
        scores = t.task.validate(progress=progress)
        t.module.train()
        if scores:
            log.validation(state.batches, epoch, scores)
            t.progress.log(f"epoch {epoch}, validation: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in scores.items()))
            info["validation"] = scores
            if scores.get("miou", -math.inf) > state.best:
                state.best = scores["miou"]
                if t.fabric.is_global_zero:
                    save_model(t.task.model, t.run.best, info)
    if t.fabric.is_global_zero:
        save_model(t.task.model, t.run.last, info)
    for one in t.callbacks:
        one.epoch(state.batches, epoch, scores or {}, t.task.model)
    state.epoch_open = False
    t.fabric.barrier()


def start_processes(config: Config) -> Fabric:
    """The configured devices and precision, started."""
    t = config.train
    fabric = create_fabric(
        accelerator=t.accelerator, devices=t.devices, nodes=t.nodes, precision=t.precision, timeout=t.timeout
    )
    if t.batch_size % fabric.world_size:
        raise UsageError(
            f"a batch of {t.batch_size} cannot be divided among {fabric.world_size} processes; "
            f"give train.batch_size a multiple of {fabric.world_size}"
        )
    try:
        launch(fabric, timeout=t.timeout)
    except (ValueError, RuntimeError) as error:  # the launcher's numbers do not fit, or the others never came
        reason = " ".join(str(error).split())[:300]
        raise FewsegError(f"{fabric.world_size} processes could not be brought together: {reason}") from error
    end_with_children(fabric)
    return fabric


def _fill_base(task: Task, config: Config, run: RunDirectory, **how: Any) -> None:
    if (base := ensure_base(config, run, **how)) is not None:
        load_base_learner(task.model, base, base=task.fold.base)


def ensure_base(
    config: Config, run: RunDirectory, *, resume: bool, again: str = "--resume", progress: Silent
) -> Path | None:
    """The run of the base learner that the method takes: the given one, or one trained in `run`/base; None if it
    takes none. `again` is as for `train`.
    """
    if not takes_base_learner(config):
        return None
    if config.base.run is not None:
        return Path(config.base.run)
    base = load_config(config.base.recipe)
    base.data.name, base.data.root, base.data.fold = config.data.name, config.data.root, config.data.fold
    base.data.options = config.data.options
    base.model.backbone, base.model.weights = config.model.backbone, config.model.weights
    for key in OF_THE_WHOLE_RUN:
        setattr(base.train, key, getattr(config.train, key))
    base.train.epochs = config.base.epochs or base.train.epochs
    learner = RunDirectory(run.base_learner)
    if not learner.is_finished(base):
        progress.log(f"training the base learner first, into {learner.path} (give base.run=RUN to take a trained one)")
        train(base, learner.path, resume=resume and learner.exists, again=again, progress=progress)
    return learner.path


def save(t: Training, log: Log) -> None:
    """A checkpoint of where the run is."""
    t.state.log = log.pending
    if t.fabric.is_global_zero:
        log.sync()
        save_state(t.run, t.state, t.task.model, t.optimizer, t.schedule)
    t.state.saved = t.state.batches


def _epoch_ends(batches: int, length: int, batch_size: int) -> bool:
    """Whether the last of `batches` holds the last item of an epoch."""
    return batches * batch_size // length > (batches - 1) * batch_size // length


def not_finite(t: Training, step: int, inputs: dict[str, Any], losses: dict[str, Tensor]) -> FewsegError:
    """Keep the batch whose loss is not finite, and say which it was and how to look at it."""
    size, values = t.config.train.batch_size, {name: float(value.detach()) for name, value in losses.items()}
    items = [t.task.name_of(g) for g in range(step * size, (step + 1) * size)]
    record = {"step": step, "items": items, "losses": values, "seed": t.config.train.seed}
    record |= {"precision": t.config.train.precision, "freeze_backbone": t.config.train.backbone_factor == 0}
    parts = of_all(tree_map_only(Tensor, lambda t: t.detach().cpu().clone(), inputs))
    how = f"fewseg replay {shlex.quote(str(t.run.path))} computes the batch again"
    try:
        if t.fabric.is_global_zero:
            save_failure(t.task.model, t.run.failure, parts, record)
    except OSError as error:
        how = f"it could not be kept for a replay ({error.strerror})"
    terms = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    listed = " | ".join(items[:4]) + (f" | and {len(items) - 4} more" if len(items) > 4 else "")
    return FewsegError(
        f"the loss is not finite at batch {step} (episodes {step * size} to {(step + 1) * size - 1}: {terms}); "
        f"lower train.lr, or set train.clip=1; {how}; its episodes: {listed}"
    )
