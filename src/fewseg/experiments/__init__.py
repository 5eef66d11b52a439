"""Experiments: one file each; every one gives plain data, a table and a figure.

`run_support_mask(Plan("scenes", out=Path("x"), folds=(0,)))` and its like are what `fewseg experiment` calls.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.experiments.correlation import run_correlation
    from fewseg.experiments.episode_count import run_episodes
    from fewseg.experiments.plan import Plan
    from fewseg.experiments.relu import run_relu
    from fewseg.experiments.statistics import run_statistics
    from fewseg.experiments.support_mask import run_support_mask
    from fewseg.experiments.temperature import run_temperature

__all__ = [
    "Plan",
    "run_correlation",
    "run_episodes",
    "run_relu",
    "run_statistics",
    "run_support_mask",
    "run_temperature",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "episode_count" if name == "run_episodes" else name.removeprefix("run_").lower()
        return getattr(import_module(f"fewseg.experiments.{module}"), name)
    raise AttributeError(f"module 'fewseg.experiments' has no attribute {name!r}")
