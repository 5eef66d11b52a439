"""What the sweeps over folds return: rows of measurements by setting and fold, with means and published values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewseg.experiments import supplement as published
from fewseg.experiments.measured import Interval, Measured, mean_of
from fewseg.experiments.plan import Plan
from fewseg.experiments.tables import MISSING, interval_cells, percent


@dataclass(frozen=True)
class Line:
    """One number of a sweep: a setting on a fold, or its mean over the folds (fold None); shares of 1."""

    setting: tuple[str, ...]
    fold: int | None
    miou: float | None
    """None while it is missing."""
    interval: Interval | None = None
    published: float | None = None
    """The paper's, in per cent as printed; None where it has none."""
    hashes: tuple[str, ...] = ()
    episodes: int = 0
    seeds: tuple[int, ...] = ()
    checkpoint: str = ""

    def cells(self, *, with_published: bool) -> tuple[str, ...]:
        """The texts of the table."""
        shown = percent(self.miou, sign=self.setting[-1].startswith("drop"))
        texts = (*self.setting, "mean" if self.fold is None else str(self.fold), shown, *interval_cells(self.interval))
        if with_published:
            texts += ("" if self.published is None else f"{self.published:.1f}",)
        return (*texts, str(self.episodes or ""), " ".join(h[:16] for h in self.hashes))


def line(setting: tuple[str, ...], fold: int, measured: Measured | None, paper: published.Folds | None) -> Line:
    """The line of one measurement."""
    value = published.at(paper, fold)
    if measured is None:
        return Line(setting, fold, None, published=value)
    return Line(
        setting,
        fold,
        measured.miou,
        measured.interval,
        published=value,
        hashes=measured.hashes,
        episodes=measured.episodes,
        seeds=measured.seeds,
        checkpoint=measured.checkpoint,
    )


def fold_lines(
    setting: tuple[str, ...],
    folds: Sequence[int],
    found: Callable[[int], Measured | None],
    *,
    paper: published.Folds | None = None,
) -> list[Line]:
    """The lines of a setting on every fold, and their mean if there are several."""
    measured = {fold: found(fold) for fold in folds}
    lines = [line(setting, fold, one, paper) for fold, one in measured.items()]
    if len(folds) > 1:
        there = [one for one in measured.values() if one is not None]
        # the paper's mean is over four folds: beside a mean over fewer it would mislead
        value = published.at(paper, None) if sorted(folds) == [0, 1, 2, 3] else None
        if len(there) < len(folds):
            lines.append(Line(setting, None, None, published=value))
        else:
            mean, interval = mean_of(there)
            lines.append(Line(setting, None, mean, interval, value, episodes=sum(m.episodes for m in there)))
    return lines


def columns(*setting: str, with_published: bool, value: str = "mIoU") -> tuple[str, ...]:
    """The table's header."""
    return (
        *setting,
        "fold",
        value,
        "low",
        "high",
        *(("published",) if with_published else ()),
        "episodes",
        "episode SHA-256",
    )


def notes(plan: Plan, lines: Sequence[Line], *, with_published: bool) -> tuple[str, ...]:
    """What has to be known to read the numbers."""
    config = plan.config()
    missing = sum(one.miou is None and one.fold is not None for one in lines)
    told = [
        f"{config.model.name} on {config.model.backbone}, {config.model.options.get('image_size')} px, "
        f"train.seed {config.train.seed}; IoU in %, protocol {plan.protocol}, seeds "
        f"{' '.join(map(str, plan.seeds(config)))}; low, high: 95 % bootstrap over episodes of one training"
    ]
    if with_published:
        told.append(published.NOTE)
    if missing:
        told.append(f"numbers {MISSING}: {missing}; the same command without --only-table adds them")
    return tuple(told)


def record(plan: Plan, folds: Sequence[int]) -> dict[str, Any]:
    """The configuration that a table came from; JSON-able."""
    return {
        "dataset": plan.dataset,
        "folds": list(folds),
        "config": plan.config().as_dict(),
        "protocol": plan.protocol,
        "seeds": list(plan.seeds(plan.config())),
        "episodes": plan.episodes,
        "repeats": plan.repeats,
        "threads": torch.get_num_threads(),
    }
