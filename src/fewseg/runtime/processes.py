"""Several processes as one: who starts them, what each does, and a loss that does not depend on their number.

Fabric starts them (`train.devices`), or finds those that torchrun or SLURM's srun started.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm  # type: ignore[attr-defined]
from torch import Tensor, distributed, nn

from fewseg.errors import FewsegError, UsageError, first_line

if TYPE_CHECKING:  # imported where it is used: that takes two seconds, and segmenting does without it
    from lightning_fabric import Fabric

T = TypeVar("T")
_GRACE = 10.0
"""Seconds that processes get to end after the first one did."""
_START = 300.0
"""Seconds, at least, that processes wait for one another at the start: each imports all that it needs first."""


def end_with_children(fabric: Fabric) -> None:
    """At the end of this process, end those that Fabric started: one that hangs would stay for ever."""
    children: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])

    def end() -> None:
        for child in children:
            try:
                child.wait(timeout=_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()

    if children:
        atexit.register(end)


def launched() -> tuple[int, int] | None:
    """(processes on a node, nodes) that torchrun or srun started; None where nothing but this process was."""
    if distributed.is_torchelastic_launched():
        local, world = (int(os.environ[key]) for key in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    elif "SLURM_STEP_ID" in os.environ and _in_slurm():  # srun's; a batch script is no step
        world = int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ["SLURM_NTASKS"]))
        local = world // int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", "1")))
    else:
        return None
    return (local, world // local) if world > 1 else None


def _in_slurm() -> bool:
    _import_fabric()
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment.detect()


def _import_fabric() -> None:
    """Import lightning-fabric without torchmetrics, matplotlib and scipy.signal: a second of processor time less.

    It asks for torchmetrics' version by importing it, for its detector of spikes alone. It finds none here, and is told
    afterwards what holds wherever the extra `train` is installed, for whoever uses that detector.
    """
    if {"lightning_fabric", "torchmetrics"} & sys.modules.keys():
        return
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        imports: Any = import_module("lightning_fabric.utilities.imports")
    finally:
        del sys.modules["torchmetrics"]
    imports._TORCHMETRICS_GREATER_EQUAL_1_0_0 = True


def create_fabric(
    *, accelerator: str = "auto", devices: int = 1, nodes: int = 1, precision: str = "32-true", timeout: float = 1800.0
) -> Fabric:
    """The devices and precision; under torchrun or srun their numbers hold.

    A process that waits `timeout` seconds for another gives up; until all have started, for 300 seconds if that is
    more (`launch` sets the first one). Raises UsageError for what the machine does not have.
    """
    _import_fabric()
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    found = launched()
    if found is not None:
        if (devices, nodes) not in {(1, 1), found}:
            raise UsageError(
                f"train.devices={devices} and train.nodes={nodes}, but the launcher started {found[0]} processes on "
                f"each of {found[1]} nodes; leave both keys out, or give the same numbers"
            )
        devices, nodes = found
    several = devices * nodes > 1
    if several:  # its greetings come from every process
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=precision,  # type: ignore[arg-type]
            strategy=DDPStrategy(timeout=timedelta(seconds=max(timeout, _START))) if several else "auto",
        )
    except Exception as error:  # Fabric raises its own MisconfigurationException besides ValueError and RuntimeError
        reason = " ".join(str(error).split())
        asked = f"train.accelerator={accelerator}, devices={devices}, precision={precision}"
        raise UsageError(f"cannot train with {asked}: {reason}") from error


def launch(fabric: Fabric, *, timeout: float) -> None:
    """Start the processes, or meet those that were started; from then on none waits longer than `timeout` seconds."""
    fabric.launch()
    if fabric.world_size > 1:
        # torch has the public name since 2.14
        limit = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
        limit(timedelta(seconds=timeout))


def join_launched(device: str) -> tuple[int, str]:
    """Number and device of this process among those that torchrun or srun started; (0, device) if there are none."""
    if launched() is None:
        return 0, device
    fabric = create_fabric(accelerator=device.partition(":")[0])
    fabric.launch()
    return fabric.global_rank, str(fabric.device)


def rank_and_world() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def on_main(fabric: Fabric, call: Callable[[], object]) -> None:
    """Make a call in process 0 alone, while the others wait; if it fails, they end too, in silence."""
    failure: Exception | None = None
    if fabric.is_global_zero:
        try:
            call()
        except (FewsegError, OSError) as error:
            failure = error
    code = fabric.broadcast(None if failure is None else getattr(failure, "exit_code", 1))
    if failure is not None:
        raise failure
    if code is not None:
        raise SystemExit(code)


def own_share(items: Sequence[T]) -> Sequence[T]:
    """The part of this process of a list: neighbours stay together, the parts differ by one in length at most."""
    rank, world = rank_and_world()
    return items[len(items) * rank // world : len(items) * (rank + 1) // world]


def of_all(part: T) -> list[T]:
    """Every process's part, in the order of their numbers; FewsegError if one of them is gone."""
    _, world = rank_and_world()
    if world == 1:
        return [part]
    parts: list[Any] = [None] * world
    try:
        distributed.all_gather_object(parts, part)
    except RuntimeError as error:
        raise lost(error) from error
    return parts


def any_of(wish: bool, *, device: torch.device) -> bool:
    """Whether any process wishes it: all of them get the same answer."""
    if rank_and_world()[1] == 1:
        return wish
    flag = torch.tensor(float(wish), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)


def lost(error: Exception) -> FewsegError:
    """What to say when a collective operation fails."""
    return FewsegError(f"another process of this run ended or does not answer ({first_line(error)[:160]})")


def whole_batch(part: Tensor) -> Tensor:
    """(B, ...) of this process to (world * B, ...) of all of them, in the order of their numbers, with gradients.

    A loss of the whole batch is then the same number in every process, and the mean over processes of the gradients
    (which DDP takes) is that loss's gradient: losses that divide by the pixels that count, by the foreground's or by
    anything else, come out as in one process, whatever falls to which process.
    """
    return part if rank_and_world()[1] == 1 else _WholeBatch.apply(part)  # type: ignore[return-value]


class _WholeBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ctx.length = len(part)
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(rank_and_world()[1])]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        distributed.all_reduce(gradient)
        first = rank_and_world()[0] * ctx.length
        return gradient[first : first + ctx.length]


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum(*gradients)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batch of all processes, on any device; torch's own one takes GPUs only.

    It takes the place of timm's BatchNorm with an activation too, which it then applies.
    """

    def forward(self, input: Tensor) -> Tensor:
        joint = self.training and rank_and_world()[1] > 1
        output = self._normalised(input) if joint else super().forward(input)
        for part in ("drop", "act"):
            output = getattr(self, part)(output) if hasattr(self, part) else output
        return output

    def _normalised(self, input: Tensor) -> Tensor:
        axes, shape = (0, 2, 3), (1, -1, 1, 1)
        count = input.numel() / input.shape[1] * rank_and_world()[1]
        mean = _sum(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        return scaled if self.weight is None else scaled * self.weight.view(shape) + self.bias.view(shape)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


def _sum(part: Tensor) -> Tensor:
    return _Sum.apply(part)  # type: ignore[return-value]


def synchronise_batchnorm(module: nn.Module, *, device: torch.device) -> None:
    """Replace every BatchNorm that is in training mode by one over all processes; frozen ones stay as they are."""
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            synchronise_batchnorm(child, device=device)
        elif child.training:
            if type(child) not in (nn.BatchNorm2d, BatchNormAct2d):
                raise UsageError(f"{name} is a {type(child).__name__}, which several processes cannot train together")
            if device.type == "cuda":
                synced = convert_sync_batchnorm(child)
                # shared with the model that this is a view of: its statistics must move too
                synced._parameters, synced._buffers = child._parameters, child._buffers
                setattr(module, name, synced)
            else:
                child.__class__ = SyncBatchNorm2d  # the same parameters and buffers, under the same names
