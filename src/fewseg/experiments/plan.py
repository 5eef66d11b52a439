"""Plan: what every experiment is asked: data, recipe, folds, how to measure, and where to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewseg.build import create_source
from fewseg.config import Config, load_config, recipes
from fewseg.data.inspect.stats import all_folds
from fewseg.data.source import ImageSource
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.protocol_files import find_protocol
from fewseg.progress import Silent
from fewseg.storage.opening import Opened, open_target


@dataclass(frozen=True)
class Plan:
    """What to run on what; the numbers depend neither on `workers` nor on `jobs`.

    `words` are recipes and overrides, as for `load_config`; without a recipe among them it is `experiment-DATASET`
    where the package has one, else `hdmnet`.
    """

    dataset: str
    """A recipe of a data set, or its class's dotted path."""
    out: Path
    words: tuple[str, ...] = ()
    folds: tuple[int, ...] | None = None
    """None: all of the data set's."""
    protocol: str = "fewseg"
    episodes: int | None = None
    """Per repeat; None: the protocol's."""
    repeats: int = 1
    workers: int = 2
    cache_gb: float = 2.0
    device: str = "auto"
    jobs: int = 1
    """Cells of a sweep that run at once."""

    def configuration(self, *extra: str) -> tuple[str, ...]:
        """All words for `load_config`: data set, recipe, overrides, then `extra`."""
        known = recipes()
        data = self.dataset if self.dataset in known else f"data.name={self.dataset}"
        own = f"experiment-{self.dataset}"
        recipe = () if any("=" not in word for word in self.words) else (own if own in known else "hdmnet",)
        return (data, *recipe, *self.words, *extra)

    def config(self, *extra: str) -> Config:
        """The merged configuration. Raises UsageError where the recipes name another data set than `dataset`."""
        config = load_config(*self.configuration(*extra))
        if self.dataset in recipes() and self.dataset != config.data.name:
            raise UsageError(f"the recipes are for {config.data.name}, but {self.dataset} was given first; give one")
        find_protocol(self.protocol, dataset=config.data.name)
        return config

    def check_option(self, option: str, lack: str) -> None:
        """Raise UsageError unless the method has the option; `lack` says what it has not, without it."""
        config = self.config()
        if option not in config.model.options:
            raise UsageError(f"{config.model.name} {lack}; this experiment is HDMNet's")

    def source(self, subset: str, *, progress: Silent | None = None) -> ImageSource:
        """The data set's train or test subset."""
        return create_source(self.config(), subset, progress=progress)

    def chosen_folds(self, source: ImageSource) -> tuple[int, ...]:
        """The folds to run; UsageError for one that the data set does not have."""
        known = tuple(all_folds(source))
        for fold in self.folds or ():
            if fold not in known:
                raise UsageError(f"{source.name} has no fold {fold}; give some of {', '.join(map(str, known))}")
        return known if self.folds is None else self.folds

    def opened(self, run: str) -> Opened:
        """A run or a saved model, its configuration changed by the plan's overrides."""
        return open_target(run, [word for word in self.words if "=" in word], device=self.device)

    def benchmark(self, opened: Opened, **choices: Any) -> Benchmark:
        """The plan's episodes on an opened model's data; `choices` as for `Benchmark.of` come before the plan's."""
        asked = {"protocol": self.protocol, "episodes": self.episodes, "repeats": self.repeats}
        return Benchmark.of(opened, **asked | choices)

    def seeds(self, config: Config) -> tuple[int, ...]:
        """The seeds of the repeats: the protocol's, and whole numbers that are none of them if more are asked."""
        own = find_protocol(self.protocol, dataset=config.data.name).seeds
        more = (seed for seed in range(self.repeats + len(own)) if seed not in own)
        return (*own[: self.repeats], *(next(more) for _ in range(self.repeats - len(own))))

    def record(self, folds: Sequence[int]) -> dict[str, Any]:
        """The configuration that a table came from; JSON-able."""
        config = self.config()
        return {
            "dataset": self.dataset,
            "folds": list(folds),
            "config": config.as_dict(),
            "protocol": self.protocol,
            "seeds": list(self.seeds(config)),
            "episodes": self.episodes,
            "repeats": self.repeats,
            "threads": torch.get_num_threads(),
        }
