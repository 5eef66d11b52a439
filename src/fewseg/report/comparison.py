"""From models, or what was measured of them, to a report page: rows, per-class scores, confusions, the protocol."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.errors import FewsegError
from fewseg.evaluation.compare import (
    P_TOLD,
    Entry,
    by_training,
    compare,
    nothing_found,
    open_benchmark,
    p_text,
    px_text,
    seen_told,
    sizes_told,
)
from fewseg.evaluation.results import Results
from fewseg.features.cache import FeatureCache
from fewseg.metrics.intervals import LEAST, bootstrap_interval
from fewseg.metrics.iou import class_iou
from fewseg.progress import Silent, counted
from fewseg.report.chosen_episodes import episode_panels
from fewseg.report.contents import MAX_MARKS, ClassScores, Confusion, ReportPage, Row, Section
from fewseg.report.html import percent
from fewseg.report.training import run_curves
from fewseg.storage.run_directory import RunDirectory


def report_page(
    targets: Sequence[str],
    words: Sequence[str] = (),
    *,
    protocol: str = "fewseg",
    shots: int | None = None,
    episodes: int | None = None,
    repeats: int | None = None,
    episodes_file: Path | None = None,
    panels: int = 2,
    workers: int = 2,
    cache_gb: float = 2.0,
    device: str = "auto",
    progress: Silent | None = None,
) -> ReportPage:
    """Measure `targets` on the same episodes and gather what a report shows, as plain data; it is about the first.

    `targets` are run directories, saved models and training-free methods; `words` are overrides such as
    "data.root=DIR". An evaluation saved in a run is taken where it is just what would be measured. `panels` episodes
    each are drawn of the best, median and worst of the first repeat by the first target, with the predictions of the
    first four. `write_report` writes the page, `save_figures` its figures. Raises UsageError as `compare` does.
    """
    drawn: dict[str, Any] = {"shots": shots, "episodes": episodes, "repeats": repeats}
    opened, benchmark = open_benchmark(
        targets, words, device=device, protocol=protocol, **drawn, file=episodes_file, progress=progress
    )
    entries = compare(opened, benchmark, workers=workers, cache_gb=cache_gb, reuse=True, progress=progress)
    shown = list(opened.items())[: 1 + MAX_MARKS]
    caches = {name: FeatureCache(one.model, gigabytes=0.5) for name, one in shown}
    return replace(
        comparison_page(entries),
        curves=run_curves({entry.name: Path(target) for entry, target in zip(entries, targets, strict=True)}),
        panels=episode_panels(caches, benchmark, entries[0].results.tables[0], each=panels),
    )


def comparison_page(entries: Sequence[Entry], *, title: str = "") -> ReportPage:
    """What `compare` measured as a page about the first entry: every number that needs neither models nor data."""
    main = entries[0].results
    novel, episodes = main.fold["novel_names"], f"{sum(r.episodes for r in main.repeats)} episodes"
    return ReportPage(
        title or f"{entries[0].name} on {main.source}",
        subtitle=f"{counted(len(novel), 'novel class')}, fold {main.fold['index']}, {main.shots}-shot, {episodes}.",
        rows=tuple(comparison_rows(entries)),
        per_class=tuple(class_scores(entries[: 1 + MAX_MARKS])),
        confusions=confusions(entries),
        facts=facts(entries),
        sections=(*class_section(entries), model_section(entries), protocol_section(main)),
        interval_name=f"95 % interval ({main.interval_kind})"
        if main.interval
        else f"no interval: {main.interval_kind}",
        rows_note=_cost_note(entries),
    )


def comparison_rows(entries: Sequence[Entry]) -> Iterator[Row]:
    """The lines of the comparison; p, parameters, time and memory as further columns where they are known."""
    for i, e in enumerate(entries):
        r = e.results
        columns = {} if len(entries) == 1 else {"p": _p_told(e.p_value, first=i == 0)}
        if len({px_text(entry.results) for entry in entries}) > 1:
            columns["px"] = px_text(r)
        columns |= {
            "parameters": f"{r.parameters['all'] / 1e6:.1f} M",
            "s/episode": f"{r.seconds_per_episode if e.seconds is None else e.seconds:.2f}",
        }
        if any(entry.peak_bytes for entry in entries):
            columns["peak memory"] = "" if e.peak_bytes is None else f"{e.peak_bytes / 1e6:.0f} MB"
        # older versions' results hold intervals of Student's t that leave [0, 1]
        interval = r.interval and (max(0.0, r.interval[0]), min(1.0, r.interval[1]))
        published = None if e.published is None else e.published / 100
        told = {"note": r.origin_briefly, "seen": seen_told(r), "published": published, "columns": columns}
        yield Row(e.name, r.miou, interval, r.fb_iou, highlight=i == 0, **told)


def _cost_note(entries: Sequence[Entry]) -> str:
    """How the costs were measured, which are not of this moment, what a dash among them is, and who found nothing."""
    saved = ", ".join(e.name for e in entries if e.saved)
    told = f"The evaluation of {saved} was saved before; s/episode is its mean, measured then."
    now = any(e.seconds is not None for e in entries)
    if now:
        told += (
            " Other rows are timed now, on episodes by themselves: the two do not compare (fewseg compare times all)."
        )
    dash = len({e.peak_bytes is None for e in entries}) == 2
    alone = ["s/episode: an episode by itself, nothing kept from others."] * (now and not saved)
    tested = [f"{P_TOLD}."] * any(e.p_value is not None for e in entries)
    sized = ["px: side of the model's input."] * (len({px_text(e.results) for e in entries}) > 1)
    sized += [f"The models were {sizes}."] if (sizes := sizes_told(entries)) else []
    nothing = [f"{line}." for line in nothing_found(entries)]
    dashes = ["Peak memory \u2013: not measured."] * dash
    return " ".join([*nothing, *[told] * bool(saved), *alone, *tested, *sized, *dashes])


def _p_told(value: float | None, *, first: bool) -> str:
    return "itself" if first else "too few episodes" if value is None else p_text(value)


def class_scores(entries: Sequence[Entry]) -> Iterator[ClassScores]:
    """IoU of every novel class with its bootstrap interval by the first entry, marked with what the others reach; its
    name says which were trained on it.
    """
    results, others = entries[0].results, {e.name: e.results for e in entries[1:]}
    table = np.concatenate(results.tables)
    for class_id, name in zip(results.fold["novel"], results.fold["novel_names"], strict=True):
        rows = table[table[:, 0] == class_id]
        interval = bootstrap_interval(table, [class_id]) if len(rows) >= LEAST else None
        marks = {other: r.class_iou[name] for other, r in others.items() if name in r.class_iou}
        iou = class_iou(table, [class_id])[class_id] if name in results.class_iou else math.nan
        shown = _seen_by(entries, name) if others else results.shown_name(name)
        yield ClassScores(shown, iou, interval=interval, episodes=len(rows), marks=marks)


def _seen_by(entries: Sequence[Entry], name: str) -> str:
    """A class's name, with those that were trained on it."""
    seen = [e.name for e in entries if name in (e.results.seen or ())]
    return f"{name} (seen in training by {'all' if len(seen) == len(entries) else ', '.join(seen)})" if seen else name


def class_section(entries: Sequence[Entry]) -> tuple[Section, ...]:
    """The IoU of every class by every entry, where there are more than the marks on the bars show."""
    if len(entries) <= 1 + MAX_MARKS:
        return ()
    names, seen = entries[0].results.fold["novel_names"], any(e.results.seen for e in entries)

    def cell(results: Results, name: str) -> str:
        return percent(results.class_iou.get(name)) + " *" * (name in (results.seen or ()))

    rows = tuple((name, *(cell(e.results, name) for e in entries)) for name in names)
    text = "IoU in per cent." + " *: the class was seen in training." * seen
    return (Section("Every class, every method", text, ("class", *(e.name for e in entries)), rows),)


def confusions(entries: Sequence[Entry]) -> tuple[Confusion, ...]:
    """Where the foreground of the first entry lies, class by class, after the mean over classes of every entry."""
    main = entries[0]
    if len(entries) == 1:
        return class_confusions(main.results)
    means = [mean_confusion(e.name, class_confusions(e.results), group="Mean over classes") for e in entries]
    return (*means, *class_confusions(main.results, group=f"{main.name}, by class"))


def class_confusions(results: Results, *, group: str = "") -> tuple[Confusion, ...]:
    """For every novel class that was drawn: the shares of its predicted foreground on itself, background and others."""
    table, pixels = np.concatenate(results.tables), np.concatenate(results.foreground_on)
    found = []
    for class_id, name in zip(results.fold["novel"], results.fold["novel_names"], strict=True):
        drawn = table[:, 0] == class_id
        if drawn.any():
            sums = pixels[drawn].sum(0)
            shares = (sums / sums.sum() if sums.any() else np.full(len(sums), np.nan)).tolist()
            others = {n: v for n, v in zip(results.class_names, shares[1:], strict=True) if n != name and v > 0}
            found.append(Confusion(results.shown_name(name), shares[class_id], shares[0], others, group=group))
    return tuple(found)


def mean_confusion(name: str, rows: Sequence[Confusion], *, group: str = "") -> Confusion:
    """The mean of classes in which something was predicted; every class counts alike, as in mIoU."""
    known = [row for row in rows if not np.isnan(row.itself)]
    if not known:
        return Confusion(name, float("nan"), float("nan"), {}, group=group)
    others: Counter[str] = Counter()
    for row in known:
        others.update({other: share / len(known) for other, share in row.others.items()})
    itself, background = (float(np.mean([getattr(row, part) for row in known])) for part in ("itself", "background"))
    return Confusion(name, itself, background, others, group=group)


def protocol_section(results: Results) -> Section:
    """The protocol record, seeds, and the hashes of episodes and annotations."""
    told = {k: _text(v) for k, v in results.protocol.items() if k not in ("seeds", "repeats", "episodes")}
    told |= {f"episodes, seed {r.seed}": f"{r.episodes}, SHA-256 {r.episode_sha256}" for r in results.repeats}
    told |= {"annotations": f"SHA-256 {results.source_sha256}"} | results.versions
    return Section("Protocol and versions", header=("rule", "value"), rows=tuple(told.items()))


def model_section(entries: Sequence[Entry]) -> Section:
    """What was measured: the options of every model, and its weights with their hash."""
    found, runs = [_model_facts(e.results) for e in entries], [_run_facts(e.results) for e in entries]
    names, told = (dict.fromkeys(name for one in part for name in one) for part in (found, runs))
    rows = [(name, *(one.get(name, "no such option") for one in found)) for name in names]
    rows += [(name, *(one.get(name, "no run") for one in runs)) for name in told]
    return Section("Models", header=("option", *(e.name for e in entries)), rows=tuple(rows))


def _model_facts(results: Results) -> dict[str, str]:
    weights = results.weights
    return {
        "method": results.method,
        **{key: _text(value) for key, value in results.options.items()},
        "parameters trained": f"{results.parameters['trained']:,} of {results.parameters['all']:,}",
        "weights": str(weights.get("path", "the back-end's own")),
        "SHA-256 of the weights": str(weights.get("sha256", "–")),
        "training": "; ".join(results.origin) or "none, or not known",
    }


def _run_facts(results: Results) -> dict[str, str]:
    """By which command a run was trained, its seed, and by which it is trained again; empty for what is no run."""
    path = results.weights.get("path")
    run = RunDirectory.around(Path(path)) if path else None
    if run is None:
        return {}
    try:
        record, config = run.recorded(), run.config()
    except FewsegError:  # damaged, or a plugin's that is not given
        return {}
    program, *words = record["command"]
    ours = Path(program).name in ("fewseg", "__main__.py")
    plugins = [word for plugin in record.get("plugins", ()) for word in ("--plugin", plugin["file"])]
    ended = run.is_finished(config)
    again = shlex.join(["fewseg", "rerun", str(run.path)]) if ended else run.resuming
    return {
        "trained by": shlex.join(["fewseg", *words, *plugins] if ours else [program, *words]),
        "seed of the training": str(config.train.seed),
        "to train it again" if ended else "to finish it": " ".join(filter(None, (again, shlex.join(plugins)))),
    }


def facts(entries: Sequence[Entry]) -> tuple[tuple[str, str], ...]:
    """What the page's head says of the first entry, and of all how they were trained; nothing of its input's size where
    rows have several.
    """
    results, sizes = entries[0].results, len({e.results.image_size for e in entries})
    said = [results.data_told] if results.data_told else []
    episodes = sum(r.episodes for r in results.repeats)
    return (
        ("method", f"{results.method} on {results.backbone}"),
        ("data", ", ".join([f"{results.source}, fold {results.fold['index']}, {results.shots}-shot", *said])),
        ("novel classes", ", ".join(results.fold["novel_names"])),
        *([("left out", results.left_out)] if results.left_out else []),
        *(("absent class", told) for told in results.presence_told),
        *(("supports of a query", told) for told in results.references_told),
        *_training_facts(entries),
        ("protocol", f"{results.protocol['name']}, {episodes} episodes" + f", {results.image_size} px" * (sizes == 1)),
        ("episodes", "SHA-256 " + ", ".join(r.episode_sha256[:16] for r in results.repeats)),
    )


def _training_facts(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """What every entry was trained on and has seen of the test classes; of one alone with the classes' names."""
    if len(entries) == 1:
        return [("training", told)] if (told := "; ".join(entries[0].results.origin)) else []
    return [(f"training of {names}", told) for told, names in by_training(entries).items()]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
