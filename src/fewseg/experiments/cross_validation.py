"""Cross-validation: methods on every fold with several seeds, as papers report them.

A plain loop over training and evaluation. What is swept is a comma list: `data.fold=0,1` (or `all`),
`train.seed=0,1,2`, and any `model.`, `train.` or `data.shots` option, whose values become rows
(`model.support_mask=true,false` is the supplement's Tab. 1). Every training is a run directory under OUT/runs; what is
finished there is not done again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.build import create_source
from fewseg.config import load_config
from fewseg.data.inspect.stats import all_folds
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.compare import as_latex_table, p_text, seen_told
from fewseg.evaluation.evaluate import versions
from fewseg.evaluation.results import Results
from fewseg.experiments.cross_validation_cells import FOLD, SEED, Cell, at_once
from fewseg.experiments.measured import Measured, measured_of
from fewseg.experiments.sweep import resumable
from fewseg.experiments.tables import Table
from fewseg.files import Shown, replacing, write_csv, write_json
from fewseg.metrics.intervals import bounded_t_interval, seeds_p_value, two_sided_p
from fewseg.progress import Silent
from fewseg.registry import method_class
from fewseg.report.contents import ReportPage, Row, Section
from fewseg.report.html import write_report

NAME = "cross-validation"
_SWEPT = re.compile(r"(data\.(fold|shots)|model\.\w+|train\.\w+)=([^,\[\]{}'\"]+(,[^,\[\]{}'\"]+)*)")
"""An override whose value may be a list with commas: no path, and none with brackets or quotes, which is one value."""
_PATHS = ("model.weights", "train.init", "train.cache_dir")


@dataclass(frozen=True)
class Asked:
    """What to train and measure."""

    methods: tuple[str, ...]
    words: tuple[str, ...]
    """Recipes and overrides that hold for all."""
    folds: tuple[int, ...] | None
    """None: all."""
    seeds: tuple[int, ...]
    options: dict[str, tuple[str, ...]]
    """Other swept keys with their values."""

    @classmethod
    def of(cls, methods: str, words: Sequence[str]) -> Asked:
        """From the words of a command line; UsageError for a fold or a seed that is no number."""
        lists: dict[str, tuple[str, ...]] = {}
        rest = []
        for word in words:
            key, _, values = word.partition("=")
            if not _SWEPT.fullmatch(word) or key in _PATHS or ("," not in values and key not in (FOLD, SEED)):
                rest.append(word)
                continue
            lists[key] = tuple(dict.fromkeys(value.strip() for value in values.split(",")))
        folds = lists.pop(FOLD, ("all",))
        chosen = None if folds == ("all",) else _numbers(FOLD, folds)
        seeds = _numbers(SEED, lists.pop(SEED, ("0",)))
        return cls(tuple(dict.fromkeys(methods.split(","))), tuple(rest), chosen, seeds, lists)

    @property
    def variants(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Every method with every choice of the swept options."""
        for method in self.methods:
            for values in itertools.product(*self.options.values()):
                yield method, dict(zip(self.options, values, strict=True))


def _numbers(key: str, values: Sequence[str]) -> tuple[int, ...]:
    if not all(re.fullmatch(r"\d{1,9}", value) for value in values):
        also = ", or all" if key == FOLD else ""
        raise UsageError(f"{key}={','.join(values)}: give whole numbers with commas between them, such as 0,1,2{also}")
    return tuple(map(int, values))


@dataclass(frozen=True)
class Line:
    """A row of the table: a method with its options at a number of shots, on every fold with every seed."""

    method: str
    options: dict[str, str]
    shots: int
    found: dict[tuple[int, int | None], Results] = field(repr=False)
    """Results by fold and seed; the seed is None for a method without training."""

    @property
    def folds(self) -> list[int]:
        """In the order given."""
        return list(dict.fromkeys(fold for fold, _ in self.found))

    @property
    def seeds(self) -> list[int | None]:
        """In the order given."""
        return list(dict.fromkeys(seed for _, seed in self.found))

    def of(self, seed: int | None) -> list[float]:
        """The mIoU of a seed on every fold."""
        return [self.found[fold, seed].miou for fold in self.folds]

    @cached_property
    def by_seed(self) -> NDArray[np.float64]:
        """(seeds, folds) mIoU."""
        return np.array([self.of(seed) for seed in self.seeds])

    @property
    def miou(self) -> float:
        """Mean over folds and seeds."""
        return float(self.by_seed.mean())

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds of the mean over folds; None for one seed."""
        means = self.by_seed.mean(1)
        return float(means.std(ddof=1)) if len(means) > 1 else None

    @property
    def fb_iou(self) -> float:
        """Mean over folds and seeds."""
        return float(np.mean([r.fb_iou for r in self.found.values()]))

    @property
    def trained(self) -> int:
        """Number of trained parameters."""
        return next(iter(self.found.values())).parameters["trained"]

    @property
    def measured(self) -> dict[tuple[int, int | None], Measured]:
        """The counts of the episodes."""
        return {key: measured_of(results) for key, results in self.found.items()}

    def p_values(self, first: Line) -> tuple[float | None, float | None]:
        """Two-sided p that `first` has the same mIoU: over seeds (paired t), and over episodes (paired bootstrap).

        None where there are too few of them, or they are not the same ones.
        """
        seeds = None
        if self.seeds == first.seeds and self.folds == first.folds:
            seeds = seeds_p_value(self.by_seed.mean(1).tolist(), first.by_seed.mean(1).tolist())
        ours, theirs = self.measured, first.measured
        same = all(
            a.hashes == b.hashes for (f, _), a in ours.items() for (g, _), b in theirs.items() if f == g
        ) and all(one.enough for one in (*ours.values(), *theirs.values()))
        if not same or self.folds != first.folds:
            return seeds, None
        samples = [np.mean([one.samples for one in side.values()], axis=0) for side in (ours, theirs)]
        return seeds, two_sided_p(samples[0] - samples[1])


@dataclass(frozen=True)
class CrossValidation:
    """What was found."""

    lines: tuple[Line, ...]
    table: Table
    """As it is printed: with a row for every seed."""
    paper: Table
    """As papers print it: a row for every method and number of shots."""
    page: ReportPage


def cross_validate(
    methods: str,
    words: Sequence[str],
    *,
    out: Path,
    shots: Sequence[int] = (),
    device: str = "auto",
    workers: int = 2,
    cache_gb: float = 2.0,
    jobs: int = 1,
    progress: Silent | None = None,
    **drawn: Any,
) -> CrossValidation:
    """Train and measure what is missing, and write `cross-validation.csv`, `.tex`, `.json` and `.html` into `out`.

    `methods` are recipes with commas between them, `words` as for `load_config` with comma lists; `shots` (default: as
    trained) to test with; `drawn` (protocol, episodes, repeats, ways, ...) as for `Benchmark.of`. `jobs` trainings run
    at once, in processes of their own; the numbers do not depend on it beyond what threads change. A failure or Ctrl-C
    keeps what is finished; the same call goes on. UsageError, before anything is trained, for words that do not fit,
    and where `out` holds runs of another configuration.
    """
    progress, asked = progress or Silent(), Asked.of(methods, words)
    configs = {method: load_config(method, *asked.words) for method in asked.methods}
    source = create_source(next(iter(configs.values())), "test", progress=progress)
    known = tuple(all_folds(source))
    folds = known if asked.folds is None else asked.folds
    if wrong := [fold for fold in folds if fold not in known]:
        raise UsageError(f"{source.name} has no fold {wrong[0]}; give some of {', '.join(map(str, known))}, or all")
    cells = [
        Cell(method, options, fold, seed, asked.words, out)
        for method, options in asked.variants
        for fold in folds
        for seed in (asked.seeds if method_class(configs[method].model.name).trainable else (None,))
    ]
    for cell in cells:  # a mistake shows before anything is trained
        cell.check()
    for fold, k in itertools.product(folds, shots or sorted({cell.config.data.shots for cell in cells})):
        Benchmark.draw(source, source.fold(fold), shots=k, **drawn)
    how = {"device": device, "workers": workers, "cache_gb": cache_gb}
    found: dict[tuple[str, int], dict[tuple[int, int | None], Results]] = {}
    with resumable():
        if jobs > 1:
            at_once(cells, jobs, {"shots": list(shots), "drawn": drawn, "how": how}, out, progress)
        for number, cell in enumerate(cells, 1):
            progress.log(f"{number} of {len(cells)}: {cell.name}")
            for k, results in cell.measured(shots, drawn, progress=progress, **how):
                found.setdefault((cell.variant, k), {})[cell.fold, cell.seed] = results
    of_variant = {cell.variant: cell for cell in cells}
    lines = tuple(
        Line(of_variant[variant].method, of_variant[variant].options, k, by_cell)
        for (variant, k), by_cell in sorted(found.items(), key=lambda item: item[0][1])
    )
    return _written(lines, out, list(words))


def _written(lines: Sequence[Line], out: Path, words: Sequence[str]) -> CrossValidation:
    table, paper = seeds_table(lines), papers_table(lines)
    page = _page(lines, table, paper)
    write_csv(out / f"{NAME}.csv", [table.columns, *table.rows])
    with replacing(out / f"{NAME}.tex") as temporary:
        temporary.write_text(as_latex_table([paper.columns, *paper.rows], "; ".join((paper.title, *paper.notes))))
    told = {"title": table.title, "notes": list(table.notes)}
    record = {"experiment": NAME, **told, "words": list(words), "lines": [_record(line) for line in lines]}
    write_json(out / f"{NAME}.json", record | {"versions": versions()})
    write_report(out / f"{NAME}.html", page)
    return CrossValidation(tuple(lines), table, paper, page)


def _record(line: Line) -> dict[str, Any]:
    runs = [
        {"fold": fold, "seed": seed, "miou": r.miou, "fb_iou": r.fb_iou, "interval": r.interval, "weights": r.weights}
        | {"repeats": [asdict(one) for one in r.repeats], "seen": r.seen}
        for (fold, seed), r in line.found.items()
    ]
    told = {"method": line.method, "options": line.options, "shots": line.shots, "miou": line.miou, "runs": runs}
    return told | {"deviation": line.deviation, "fb_iou": line.fb_iou, "trained": line.trained}


def _keys(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(key for line in lines for key in line.options))


def _titled(lines: Sequence[Line]) -> tuple[str, tuple[str, ...]]:
    """The title of a table, and what has to be known to read it."""
    first = next(iter(lines[0].found.values()))
    counts = {f"{len(r.repeats)} x {r.repeats[0].episodes}" for line in lines for r in line.found.values()}
    title = f"{first.source}: mIoU in %, protocol {first.protocol['name']}, {', '.join(sorted(counts))} episodes a fold"
    notes = ["mean: over the folds; sd: over seeds, of the mean over folds; trained: parameters"]
    if len({line.method for line in lines}) < len(lines) or len(lines) > 1:
        notes.append(
            "p: two-sided, against the first row with as many shots; over seeds by a paired t-test, over episodes by a "
            "paired bootstrap of the same trainings; empty where there are too few"
        )
    hashes = {
        f"fold {fold}, {line.shots}-shot": r.repeats[0].episode_sha256[:16]
        for line in lines
        for (fold, _), r in line.found.items()
    }
    notes.append("episodes (first repeat) " + ", ".join(f"{what} {sha}" for what, sha in hashes.items()))
    notes += sorted({r.data_told for line in lines for r in line.found.values() if r.data_told})
    notes += sorted({r.left_out for line in lines for r in line.found.values() if r.left_out})
    for line in lines:
        for (fold, seed), r in line.found.items():
            cell = f"{line.method}, {line.shots}-shot, fold {fold}{'' if seed is None else f', seed {seed}'}"
            told = (seen_told(r), *r.presence_told, *r.references_told, r.nothing_told)
            notes += [f"{cell}: {text}" for text in told if text]
    return title, tuple(notes)


def _start(line: Line, keys: Sequence[str]) -> tuple[str, ...]:
    return (line.method, *(line.options.get(key, "") for key in keys), str(line.shots))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _tests(lines: Sequence[Line], line: Line) -> tuple[str, ...]:
    """The two p-values of a row against the first with as many shots; nothing where there is one row each."""
    if len({one.shots for one in lines}) == len(lines):
        return ()
    first = next(one for one in lines if one.shots == line.shots)
    if line is first:
        return "", ""
    return tuple("" if p is None else p_text(p) for p in line.p_values(first))


def papers_table(lines: Sequence[Line]) -> Table:
    """A row for every method and number of shots: folds, each a mean over seeds, their mean, its sd over seeds."""
    keys, folds = _keys(lines), lines[0].folds
    title, notes = _titled(lines)
    compared = () if not _tests(lines, lines[0]) else ("p, seeds", "p, episodes")
    columns = ("method", *keys, "shots", *(f"fold {f}" for f in folds), "mean", "sd", "FB-IoU", "trained", *compared)
    rows = [
        (
            *_start(line, keys),
            *map(_percent, line.by_seed.mean(0)),
            _percent(line.miou),
            _percent(line.deviation),
            _percent(line.fb_iou),
            Shown(f"{line.trained / 1e6:.2f} M" if line.trained >= 10_000 else str(line.trained), line.trained),
            *_tests(lines, line),
        )
        for line in lines
    ]
    return Table(title, columns, tuple(rows), notes)


def seeds_table(lines: Sequence[Line]) -> Table:
    """The same with a row before it for every seed, where there are several."""
    paper, keys = papers_table(lines), _keys(lines)
    place, rows = 2 + len(keys), []
    for line, summary in zip(lines, paper.rows, strict=True):
        after = len(paper.columns) - place - len(line.folds) - 1
        for seed in line.seeds if len(line.seeds) > 1 else ():
            ious = line.of(seed)
            rows.append((*_start(line, keys), str(seed), *map(_percent, (*ious, float(np.mean(ious)))), *[""] * after))
        told = (
            Shown(f"mean of {len(line.seeds)}", "mean")
            if len(line.seeds) > 1
            else Shown("-", "")
            if line.seeds[0] is None
            else f"{line.seeds[0]}"
        )
        rows.append((*summary[:place], told, *summary[place:]))
    return Table(paper.title, (*paper.columns[:place], "seed", *paper.columns[place:]), tuple(rows), paper.notes)


def _page(lines: Sequence[Line], table: Table, paper: Table) -> ReportPage:
    keys = _keys(lines)
    rows = []
    for line in lines:
        means = line.by_seed.mean(1)
        options = ", ".join(f"{key.partition('.')[2]} {line.options[key]}" for key in keys if key in line.options)
        name = ", ".join(filter(None, (line.method, options, f"{line.shots}-shot")))
        interval = bounded_t_interval(means) if len(means) > 1 else None
        columns = {f"fold {f}": _percent(v) for f, v in zip(line.folds, line.by_seed.mean(0), strict=True)}
        columns |= {"sd": _percent(line.deviation), "trained": f"{line.trained:,}"}
        rows.append(
            Row(name, line.miou, interval, line.fb_iou, highlight=line is lines[0], columns=columns, shots=line.shots)
        )
    first = next(iter(lines[0].found.values()))
    trained = sorted({told for line in lines for r in line.found.values() for told in r.origin[:1]})  # one a fold
    return ReportPage(
        f"Cross-validation on {first.source}",
        subtitle=f"Folds {', '.join(map(str, lines[0].folds))}; {table.title}.",
        rows=tuple(rows),
        sections=(
            Section("As papers print it", "\n\n".join(paper.notes), paper.columns, paper.rows),
            Section("Every seed", "", table.columns, table.rows),
        ),
        facts=tuple(("training", told) for told in trained),
        interval_name="95 % interval (Student's t over seeds)",
    )
