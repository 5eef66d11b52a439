"""Lines of the sweeps' tables: a measurement by setting and fold, their means, and the paper's values beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fewseg.evaluation.results import NOTHING
from fewseg.experiments import supplement as published
from fewseg.experiments.measured import Interval, Measured, drop, mean_of
from fewseg.experiments.plan import Plan
from fewseg.experiments.tables import MISSING, Table, percent


@dataclass(frozen=True)
class Line:
    """One number of a sweep: a setting on a fold, or its mean over the folds (fold None); shares of 1."""

    setting: tuple[str, ...]
    fold: int | None
    miou: float | None = None
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
        bounds = ("", "") if self.interval is None else map(percent, self.interval)
        texts = (*self.setting, "mean" if self.fold is None else str(self.fold), shown, *bounds)
        if with_published:
            texts += ("" if self.published is None else f"{self.published:.1f}",)
        return (*texts, str(self.episodes or ""), " ".join(h[:16] for h in self.hashes))


def fold_lines(
    setting: tuple[str, ...],
    folds: Sequence[int],
    *found: Mapping[int, Measured | None],
    paper: published.Folds | None = None,
) -> Iterator[Line]:
    """The lines of a setting on every fold, and their mean if there are several.

    `found` are its measurements by fold; of two such, the lines are the drop from the first to the second.
    """
    for group in [*([fold] for fold in folds), *([list(folds)] if len(folds) > 1 else [])]:
        fold = group[0] if len(group) == 1 else None
        # the paper's mean is over four folds: beside a mean over fewer it would mislead
        value = published.at(paper, fold) if fold is not None or sorted(folds) == [0, 1, 2, 3] else None
        line = Line(setting, fold, published=value)
        there = [[m for f in group if (m := one.get(f)) is not None] for one in found]
        if all(len(measured) == len(group) for measured in there):
            number, interval = drop(*there) if len(there) == 2 else mean_of(*there)
            line = replace(line, miou=number, interval=interval, episodes=sum(m.episodes for m in there[0]))
            if fold is not None:
                line = replace(line, hashes=there[0][0].hashes)
            if fold is not None and len(there) == 1:
                line = replace(line, seeds=there[0][0].seeds, checkpoint=there[0][0].checkpoint)
        yield line


def nothing_found(lines: Sequence[Line]) -> list[str]:
    """The settings whose IoU is 0, in a line, since neither they nor a drop from them say anything; none as a rule."""
    nothing = [one for one in lines if one.miou == 0 and one.fold is not None and one.setting[-1] != "drop"]
    if not nothing:
        return []
    cells = ", ".join(f"{' '.join(filter(None, one.setting))} fold {one.fold}" for one in nothing)
    return [f"warning: {NOTHING} ({cells}), and a drop or a difference says nothing either; train longer"]


def lines_table(
    plan: Plan,
    title: str,
    columns: Sequence[str],
    lines: Sequence[Line],
    *,
    with_published: bool,
    notes: Sequence[str] = (),
) -> Table:
    """The table of lines, with what has to be known to read it; `columns` head the parts of the settings."""
    config = plan.config()
    missing = sum(one.miou is None and one.fold is not None for one in lines if one.setting[-1] != "drop")
    told = [
        f"{config.model.name} on {config.model.backbone}, {config.model.options.get('image_size')} px, "
        f"train.seed {config.train.seed}; IoU in %, protocol {plan.protocol}, seeds "
        f"{' '.join(map(str, plan.seeds(config)))}; low, high: 95 % bootstrap over episodes of one training"
    ]
    told += nothing_found(lines)
    if missing:
        told.append(f"numbers {MISSING}: {missing}; the same command without --only-table adds them")
    head = (*columns, "fold", "mIoU", "low", "high", *(("published",) if with_published else ()))
    rows = tuple(one.cells(with_published=with_published) for one in lines)
    return Table(title, (*head, "episodes", "episode SHA-256"), rows, (*told, *notes))
