"""The keys of a configuration: their types, defaults, limits and, below each, what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.optim import lr_scheduler

from fewseg.data.episodes.sampling import DRAWS, NOVEL_RULES
from fewseg.data.transforms import AugmentConfig


def option(default: Any, *, least: float | None = None, most: float | None = None, choices: Sequence[str] = ()) -> Any:
    """A field with what it may be; None is allowed where the type allows it."""
    limits = "" if least is None else f"{least} or more" if most is None else f"{least} to {most}"
    return field(
        default=default,
        metadata={"least": least, "most": most, "choices": choices, "allowed": limits or ", ".join(choices)},
    )


def _torch_names(module: Any, base: type[Any], without: Sequence[str]) -> tuple[str, ...]:
    """The names of torch's own classes of a kind."""
    return tuple(
        sorted(
            name
            for name, cls in vars(module).items()
            if isinstance(cls, type) and issubclass(cls, base) and not name.startswith("_") and name not in without
        )
    )


OPTIMIZERS = (
    *("adamw", "adam", "sgd"),
    *_torch_names(torch.optim, torch.optim.Optimizer, ("Optimizer", "AdamW", "Adam", "SGD", "LBFGS", "SparseAdam")),
)
"""The first three as fewseg has always spelled them, all others as torch does; not those of which a step is another."""
_ELSEWHERE = ("LRScheduler", "ReduceLROnPlateau", "ChainedScheduler", "SequentialLR", "LambdaLR", "MultiplicativeLR")
"""Schedules that a configuration cannot write down, or that need a score every step."""
SCHEDULES = ("poly", *_torch_names(lr_scheduler, lr_scheduler.LRScheduler, _ELSEWHERE))


@dataclass
class ModelConfig:
    """Which network; `options` are further keyword arguments of the method's class."""

    name: str = "hdmnet"
    """The method, or package.module:Class; `fewseg models` lists them."""
    backbone: str = "lite0"
    """The back-end; `fewseg models` lists them."""
    weights: str | None = "imagenet"
    """Back-end weights to start from: imagenet, a file, or null (random)."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataConfig:
    """Which episodes; `options` are further keyword arguments of the data set's class."""

    name: str = "pascal5i"
    """The data set, or package.module:Class."""
    root: str | None = None
    """Directory of the data set."""
    fold: int = option(0, least=0)
    """Which of the data set's divisions into base and novel classes."""
    shots: int = option(1, least=1)
    """Supports per episode."""
    novel: str = option("drop", choices=NOVEL_RULES)
    """What becomes of training images that hold novel classes: left out, or these pixels called background or void."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainConfig:
    """How to train."""

    epochs: int = option(20, least=1)
    """How often as many items are drawn as `episodes_per_epoch` says."""
    episodes_per_epoch: int | None = option(None, least=1)
    """Items of an epoch; null: one per training image."""
    all_classes: bool = False
    """Train on every class, the fold's novel ones too: a model to use, which nothing in the data set can measure."""
    draw: str = option("image", choices=DRAWS)
    """image: every training image is a query once per epoch (the papers' rule); class: every base class equally
    often."""
    draw_power: float = option(0.0, least=0, most=1)
    """With draw=class: classes are drawn in proportion to the number of their photos to this power; 0: equally often,
    though some have hundreds of photos and others three; 1: as often as an image's class is met."""
    negatives: float = option(0.0, least=0, most=1)
    """Share of the episodes whose query does not hold the supports' class, so that an empty mask is learnt too."""
    regions: int = option(0, least=0, most=254)
    """Further classes to train on with draw=class, made of what the labels leave unmarked: so many kinds of parts that
    look alike to the back-end (surfaces, mostly)."""
    region_share: float = option(0.35, least=0, most=1)
    """Share of the episodes that are of regions."""
    most_shots: int | None = option(None, least=1)
    """Train with 1 to so many supports by turns, batch by batch; null: with data.shots always."""
    batch_size: int = option(4, least=1)
    """Episodes (of the base learner, images) at once, over all devices."""
    accumulate: int = option(1, least=1)
    """Batches per optimiser step."""
    optimizer: str = option("adamw", choices=OPTIMIZERS)
    """The optimiser: torch's own, by its name there."""
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    """Its further arguments, as torch has them: {betas: [0.9, 0.95]}."""
    lr: float = option(1e-4, least=0)
    """Learning rate at the start, per optimiser step; a method may train parts of itself at a multiple of it."""
    rates: dict[str, Any] = field(default_factory=dict)
    """Factors of the learning rate by parts of the model or patterns of its parameters' names: {backbone: 0.1,
    "decoder.*.weight": 2}; the last that fits holds, and 0 freezes."""
    momentum: float = option(0.9, least=0)
    """Of sgd, a share of 1; of other optimisers see optimizer_options."""
    weight_decay: float = option(0.01, least=0)
    """Of optimisers that have one; decoupled from the gradient in adamw alone."""
    schedule: str = option("poly", choices=SCHEDULES)
    """How the learning rate goes on: poly, or one of torch's by its name there; one step of it is an optimiser step."""
    schedule_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of torch's schedule; T_max, total_iters and total_steps are the run's optimiser steps if not given."""
    power: float = option(0.9, least=0)
    """Of the poly schedule lr * (1 - t / T) ** power over batches; 0 keeps the learning rate."""
    clip: float | None = option(None, least=0)
    """Largest gradient norm; null does not clip."""
    backbone_factor: float = option(0.1, least=0)
    """Base learner only: the back-end's learning rate over the head's (PASCAL 0.1, COCO 1); 0 freezes the back-end."""
    precision: str = "32-true"
    """Fabric's: 32-true, bf16-mixed, 16-mixed, ..."""
    seed: int = option(0, least=0)
    """Everything random follows from it."""
    init: str | None = None
    """A trained model of the same method to start from: lite, a run or a saved folder; null: random weights."""
    workers: int = option(2, least=0)
    """Loader processes; the numbers never depend on it."""
    validation: str = option("base", choices=("base", "novel", "none"))
    """What selects the best model: base (base classes held out from training), novel (the papers' rule: the test
    classes themselves), none (the last one is kept)."""
    held_out: int = option(3, least=0)
    """Base classes held out with validation=base."""
    val_every: int = option(1, least=1)
    """Epochs between validations."""
    val_episodes: int = option(200, least=1)
    """Episodes of a validation; of the base learner, images."""
    save_every: int = option(200, least=1)
    """Batches between the checkpoints that a killed run resumes from; each epoch's end is one too."""
    cache_features: bool = False
    """Compute the frozen features of every image once, of a few views of it."""
    cache_views: int = option(2, least=1)
    """Views of every image whose features are cached: 2 are itself and its mirror image; further ones are augmented."""
    cache_gb: float = option(4.0, least=0)
    """Memory for these features; what does not fit goes to a temporary file of the run, with train.cache_dir, too."""
    cache_dir: str | None = None
    """Directory that keeps these features for other runs (other seeds, folds, heads) on the same frozen back-end."""
    callbacks: list[str] = field(default_factory=list)
    """Names of callbacks, told of every line of the log and every epoch: csv, wandb, mlflow, or those of plugins."""
    graphs: bool = True
    """On one GPU, in full precision, with cached features: record each step as a CUDA graph, started as one."""
    tensorboard: bool = False
    """Write a log for TensorBoard too; needs the extra `tensorboard`."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time; on a CPU with one number of threads they do anyway."""
    accelerator: str = "auto"
    """Fabric's: auto, cpu, cuda, mps, ..."""
    devices: int = option(1, least=1)
    """Processes on this machine, one per device; under torchrun or srun their numbers hold."""
    nodes: int = option(1, least=1)
    """Machines."""
    timeout: float = option(1800.0, least=0)
    """Seconds that one of several processes waits for the others before the run ends."""


@dataclass
class BaseConfig:
    """The base learner that HDMNet and BAM take frozen."""

    run: str | None = None
    """A run of `fewseg train base` on the same fold; null trains one first, inside this run's directory."""
    recipe: str = "base"
    """Recipe of the base learner that is trained first."""
    epochs: int | None = option(None, least=1)
    """Its epochs; null: the recipe's."""


@dataclass
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    base: BaseConfig = field(default_factory=BaseConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain data in the layout of the YAML files (options beside the other keys)."""
        content = asdict(self)
        for group in ("model", "data"):
            content[group] |= content[group].pop("options")
        return content
