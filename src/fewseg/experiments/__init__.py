"""Experiments: one file each; every one gives plain data, a table and a figure.

`run_support_mask(Plan("scenes", out=Path("x"), folds=(0,)))` and its like are what `fewseg experiment` calls.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.experiments.correlation import run_correlation
    from fewseg.experiments.episode_count import run_episodes
    from fewseg.experiments.option_sweeps import run_relu, run_temperature
    from fewseg.experiments.plan import Plan
    from fewseg.experiments.statistics import run_statistics
    from fewseg.experiments.support_mask import run_support_mask

__all__ = [
    "Plan",
    "run_correlation",
    "run_episodes",
    "run_relu",
    "run_statistics",
    "run_support_mask",
    "run_temperature",
]

# Imported when first used: torch and matplotlib take seconds.
_HOMES = {
    "Plan": "plan",
    "run_episodes": "episode_count",
    "run_relu": "option_sweeps",
    "run_temperature": "option_sweeps",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = _HOMES.get(name, name.removeprefix("run_"))
        return getattr(import_module(f"fewseg.experiments.{module}"), name)
    raise AttributeError(f"module 'fewseg.experiments' has no attribute {name!r}")
