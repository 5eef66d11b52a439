"""Several models on the same episodes: one table, with paired tests against the first.

Seconds and memory are of the first of those episodes, each run whole by every model (`evaluation.cost`): a feature
cache and the order of the models change nothing in them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from fewseg import registry
from fewseg.build import pick_device
from fewseg.errors import DataWarning, UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.cost import measure_cost
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.published import CAPTION, check_full, published_miou
from fewseg.evaluation.results import Results, saved_results
from fewseg.files import Shown, replacing, write_csv
from fewseg.metrics.intervals import LEAST, bootstrap_miou, fewest_episodes, two_sided_p
from fewseg.models.base import FewShotSegmenter
from fewseg.progress import Silent, counted
from fewseg.storage.opening import Opened, is_trained, open_target
from fewseg.storage.released import load_released
from fewseg.storage.run_directory import RunDirectory

COLUMNS = (
    "method",
    "back-end",
    "px",
    "mIoU",
    "low",
    "high",
    "p",
    "FB-IoU",
    "seen",
    "unseen mIoU",
    "trained",
    "parameters",
    "s/episode",
    "peak MB",
    "published",
)
MEASURED = (
    "source",
    "fold",
    "shots",
    "protocol",
    "episodes",
    "repeats",
    "interval",
    "episode_sha256",
    "trained_on",
    "trained_px",
    "test_classes",
    "seen_classes",
    "notes",
)
"""Columns that only the CSV has: on what the numbers are."""


@dataclass(frozen=True)
class Entry:
    """One model's line."""

    name: str
    results: Results
    p_value: float | None
    """Two-sided, from a paired bootstrap over episodes against the first model; None for the first itself, and where
    a class has too few episodes for a test.
    """
    peak_bytes: int | None
    """Memory of its weights and of running an episode; None where unknown."""
    seconds: float | None = None
    """Of one episode, without cached features."""
    published: float | None = None
    """The paper's mIoU in per cent, where it was asked for and there is one."""
    saved: bool = False
    """The evaluation was there before, and its cost is not measured now."""

    def cells(self) -> tuple[str, ...]:
        """The line's texts, by `COLUMNS`; IoUs in per cent."""
        r = self.results
        return (
            self.name,
            r.backbone,
            px_text(r),
            *("" if v is None else f"{100 * v:.2f}" for v in (r.miou, *(r.interval or (None, None)))),
            "" if self.p_value is None else p_text(self.p_value),
            f"{100 * r.fb_iou:.2f}",
            seen_text(r),
            "" if r.unseen_miou is None else f"{100 * r.unseen_miou:.2f}",
            str(r.parameters["trained"]),
            str(r.parameters["all"]),
            "" if self.seconds is None else f"{self.seconds:.3f}",
            "" if self.peak_bytes is None else f"{self.peak_bytes / 1e6:.0f}",
            "" if self.published is None else f"{self.published:.1f}",
        )


def compare(
    models: Mapping[str, Opened],
    benchmark: Benchmark,
    *,
    workers: int = 2,
    cache_gb: float = 2.0,
    published: bool = False,
    reuse: bool = False,
    progress: Silent | None = None,
) -> list[Entry]:
    """Evaluate models, by name as `open_targets` gives them, on the same episodes.

    `published` adds the papers' numbers to the entries. `reuse` takes the evaluation saved in a run where it is just
    what would be measured; its cost is then not measured. Raises UsageError where a model was trained on what is novel
    there, and for `published` on anything but the papers' full test images. A DataWarning names the models that have
    seen test classes in another data set.
    """
    if published:
        check_full(benchmark.source)
    entries: list[Entry] = []
    for name, one in models.items():
        own = benchmark.known_to(one.model, name=one.weights.get("path"))
        saved = saved_results(one.weights, one.model, own) if reuse else None
        if reuse and saved is None and progress:
            many = " x ".join(map(str, (len(own.lists), len(own.lists[0].specs))))
            progress.log(
                f"{name}: {many} episodes are measured (--repeats, --episodes), as none are saved of just these"
            )
        dataset = own.dataset(one.model.image_size)
        cost = None if saved else measure_cost(one.model, (dataset[e].episode for e in range(len(dataset))))
        results = saved or evaluate(
            one.model, own, workers=workers, cache_gb=cache_gb, weights=one.weights, progress=progress
        )
        p_value = paired_p_value(results, entries[0].results) if entries else None
        printed = _published(one.model, results) if published else None
        peak, seconds = (None, None) if cost is None else (cost.peak_bytes, cost.seconds)
        entries.append(Entry(name, results, p_value, peak, seconds, printed, saved=saved is not None))
    if seen := [f"{e.name} ({seen_text(e.results)})" for e in entries if e.results.seen]:
        text = "test classes were seen in training, so their numbers are not those of new classes"
        warnings.warn(DataWarning(f"{text}: {', '.join(seen)}"), stacklevel=1)
    return entries


def _published(model: FewShotSegmenter, results: Results) -> float | None:
    complete = not model.needs_base_learner or getattr(model, "base", None) is not None
    return published_miou(
        results.method, dataset=results.source, backbone=results.backbone, shots=results.shots, base_learner=complete
    )


P_TOLD = "p: of no difference to the first, two-sided, by a paired bootstrap over episodes"


def open_benchmark(
    targets: Sequence[str],
    words: Sequence[str],
    *,
    released: Sequence[str] = (),
    device: str = "auto",
    **choices: Any,
) -> tuple[dict[str, Opened], Benchmark]:
    """What `open_targets` opens, and the benchmark of the one whose data are used; `choices` as for `Benchmark.of`."""
    opened = open_targets(targets, words, released=released, device=device)
    return opened, Benchmark.of(list(opened.values())[_leading(targets)], **choices)


def _leading(targets: Sequence[str]) -> int:
    """Which target's data set and fold are used for all: the first run's; of no run, the first one's."""
    return next((n for n, target in enumerate(targets) if RunDirectory.around(Path(target))), 0)


def open_targets(
    targets: Sequence[str], words: Sequence[str], *, released: Sequence[str] = (), device: str = "auto"
) -> dict[str, Opened]:
    """Runs, saved models, training-free methods and `released` files ("hdmnet=FILE"), by a name of their own.

    Methods without training and released files take the data set of the first run, or else of the first target. Where
    there are some of them, what `words` say of the model is theirs alone.
    """
    if not targets:
        raise UsageError(
            "give at least one run directory, saved model or training-free method: its data set is used for all"
        )
    leading, found = _leading(targets), dict[int, Opened]()
    of_data = [word for word in words if not word.startswith("model.")]
    trained = [target for target in targets if is_trained(target)]
    for n in sorted(range(len(targets)), key=lambda n: n != leading):
        target = targets[n]
        chosen = [f"data.name={found[leading].config.data.name}"] if found and not Path(target).is_dir() else []
        heeded = of_data if target in trained and len(trained) < len(targets) else words
        found[n] = open_target(target, [*chosen, *heeded], device=device)
    config, opened = found[leading].config, [found[n] for n in range(len(targets))]
    given = [(one.model.name, target) for one, target in zip(opened, targets, strict=True)]
    for text in released:
        method, _, file = text.partition("=")
        if not file:
            raise UsageError(f"--released {text!r} is not METHOD=FILE, such as hdmnet=released.pth")
        # without a base learner, nothing in a file tells that it is COCO's (PFENet's bins differ): the data set does
        silent = not registry.find("model", method).needs_base_learner
        coco = registry.find("source", config.data.name).name == "coco20i"
        model = load_released(method, file, base_classes=60 if silent and coco else None).to(pick_device(device))
        opened.append(Opened(model, config, {"path": file}))
        given.append((f"{method} (released)", file))
    return dict(zip(_names(given), opened, strict=True))


def _names(given: Sequence[tuple[str, str]]) -> list[str]:
    """The methods' names; of several of one name, with what was given. UsageError where that is the same too."""
    count = Counter(name for name, _ in given)
    names = [name if count[name] == 1 else f"{name} ({target})" for name, target in given]
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise UsageError(f"{twice[0]} is given twice; compare other runs, models or methods with it")
    return names


def paired_p_value(results: Results, reference: Results, *, draws: int = 2000) -> float | None:
    """Two-sided p that both have the same mIoU: the share of paired bootstrap samples on the other side of 0,
    doubled. None where a class has too few episodes for it.
    """
    classes = results.fold["novel"]
    ours, theirs = (np.concatenate(r.independent) for r in (results, reference))
    if fewest_episodes(ours, classes) < LEAST:
        return None
    ours, theirs = (bootstrap_miou(tables, classes, draws=draws) for tables in (ours, theirs))
    return two_sided_p(ours - theirs)


def table(entries: Sequence[Entry], *, whole: bool = False) -> list[tuple[str, ...]]:
    """The header and the lines; the column "published" is there where an entry has such a number, back-ends where there
    are several, those on training where they tell something; these also where the table is to be `whole`.
    """
    found = [entry.results for entry in entries]
    training = {"seen": any(r.origin for r in found), "unseen mIoU": any(r.unseen_miou is not None for r in found)}
    telling = {"back-end": len({r.backbone for r in found}) > 1, **training}
    shown = dict.fromkeys(COLUMNS, True) | {name: whole or told for name, told in telling.items()}
    shown["published"] = _any_published(entries)
    return [tuple(compress(line, shown.values())) for line in (COLUMNS, *(entry.cells() for entry in entries))]


def _any_published(entries: Sequence[Entry]) -> bool:
    return any(entry.published is not None for entry in entries)


def seen_text(results: Results) -> str:
    """How many of the test classes the model was trained on, by their names; in CSV the number, empty if not known."""
    if results.seen is None and results.training_data:
        return Shown("not known", "")
    seen = len(results.seen or ())
    return Shown(f"{seen} of {results.test_classes}", seen)


def seen_told(results: Results) -> str:
    """How many of the test classes the model was trained on, in words; empty for none."""
    return f"{seen_text(results)} test classes seen in training" if results.seen else ""


def px_text(results: Results) -> str:
    """Side of the model's input, and that of its training where it is another; in CSV the first alone."""
    size, trained = results.image_size, results.trained_size
    return Shown(f"{size}" if trained is None else f"{size} (trained: {trained})", size)


def p_text(value: float) -> str:
    """A p-value as it may be shown: never 0; in CSV the number itself, 0.001 where no bootstrap sample is beyond 0."""
    return Shown("< 0.001" if value < 0.001 else f"{value:.3f}", value or 0.001)


def as_latex(entries: Sequence[Entry]) -> str:
    """The table as a LaTeX tabular (booktabs)."""
    return as_latex_table(table(entries), describe(entries))


def as_latex_table(rows: Sequence[Sequence[str]], comment: str) -> str:
    """Rows of texts as a LaTeX tabular (booktabs), the first as its head; the comment stands after it."""
    header, *body = rows
    first, *lines = [" & ".join(_escape(cell) for cell in row) + r" \\" for row in (header, *body)]
    start = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\toprule", first, r"\midrule"]
    return "\n".join([*start, *lines, r"\bottomrule", r"\end{tabular}", f"% {comment}", ""])


def describe(entries: Sequence[Entry]) -> str:
    """Data, fold, shots, protocol, episodes and hashes in a line."""
    r = entries[0].results
    hashes = ", ".join(repeat.episode_sha256[:16] for repeat in r.repeats)
    counts = sum(repeat.episodes for repeat in r.repeats)
    return (
        f"{r.source} fold {r.fold['index']}, {r.shots}-shot, protocol {r.protocol['name']}, "
        f"{counted(counts, 'episode')} in {counted(len(r.repeats), 'repeat')}, SHA-256 {hashes}"
        + ("" if r.interval else f"; low, high and p are empty: {r.interval_kind}")
        + (f"; {P_TOLD}" if any(entry.p_value is not None for entry in entries) else "")
        + (f"; {sizes}" if (sizes := sizes_told(entries)) else "")
        + (f"; {r.data_told}" if r.data_told else "")
        + (f"; {r.left_out}" if r.left_out else "")
        + (f"; {CAPTION}" if _any_published(entries) else "")
        + "".join(f"; {names}: {told}" for told, names in by_training(entries).items())
        + "".join(f"; {told}" for told in nothing_found(entries))
    )


def by_training(entries: Sequence[Entry]) -> dict[str, str]:
    """What models were trained on and have seen of the test classes, in words, each with those of which it is told."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        name = f'"{entry.name}"' if "," in entry.name else entry.name
        found.setdefault(entry.results.origin_briefly, []).append(name)
    return {told: ", ".join(names) for told, names in found.items() if told}


def sizes_told(entries: Sequence[Entry]) -> str:
    """That models were measured at several image sizes, and what makes them equal; empty where they were not."""
    sizes = {entry.name: entry.results.image_size for entry in entries}
    if len(set(sizes.values())) == 1:
        return ""
    trained = [entry.results for entry in entries if entry.results.training_data] or [entries[0].results]
    told = ", ".join(f"{name} {size}" for name, size in sizes.items())
    equal = f"model.image_size={trained[0].image_size} makes them equal"
    return f"measured at several image sizes ({told} px), so differences and p are of the size too: {equal}"


def nothing_found(entries: Sequence[Entry]) -> list[str]:
    """Of which models no number says anything, in lines."""
    return [f"{entry.name}: {told}" for entry in entries if (told := entry.results.nothing_told)]


def _measured(entry: Entry) -> tuple[str | int, ...]:
    """An entry's cells of `MEASURED`."""
    r, published = entry.results, CAPTION if entry.published is not None else ""
    episodes, hashes = sum(one.episodes for one in r.repeats), " ".join(one.episode_sha256 for one in r.repeats)
    notes = "; ".join(filter(None, (r.data_told, r.left_out, r.origin_briefly, published, r.nothing_told)))
    start = (r.source, r.fold["index"], r.shots, r.protocol["name"], episodes, len(r.repeats), r.interval_kind)
    training = (r.training_data, r.trained_on.get("image_size", ""), r.test_classes, "; ".join(r.seen or ()))
    return (*start, hashes, *training, notes)


def save_table(path: Path, entries: Sequence[Entry]) -> Path:
    """Write the table by the file's ending: .csv, where further columns say on what it was measured, or .tex."""
    if path.suffix == ".csv":
        header, *lines = table(entries, whole=True)
        more = [MEASURED, *map(_measured, entries)]
        return write_csv(path, [(*line, *told) for line, told in zip((header, *lines), more, strict=True)])
    if path.suffix != ".tex":
        raise UsageError(f"cannot write a table as {path.name!r}; give a name that ends in .csv or .tex")
    with replacing(path) as temporary:
        temporary.write_text(as_latex(entries))
    return path


def _escape(text: str) -> str:
    return "".join("\\" + c if c in "&%$#_{}" else c for c in text).replace("<", "$<$")
