"""Runs and methods without training, measured on the same episodes, as a report page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewseg.evaluation.compare import compare, open_benchmark
from fewseg.features.cache import FeatureCache
from fewseg.progress import Silent
from fewseg.report.build import comparison_page
from fewseg.report.chosen_episodes import episode_panels
from fewseg.report.contents import MAX_MARKS, ReportPage
from fewseg.report.training import run_curves


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
    opened, benchmark = open_benchmark(
        targets,
        words,
        device=device,
        protocol=protocol,
        shots=shots,
        episodes=episodes,
        repeats=repeats,
        file=episodes_file,
        progress=progress,
    )
    entries = compare(opened, benchmark, workers=workers, cache_gb=cache_gb, reuse=True, progress=progress)
    shown = list(opened.items())[: 1 + MAX_MARKS]
    caches = {name: FeatureCache(one.model, gigabytes=0.5) for name, one in shown}
    runs = {entry.name: Path(target) for entry, target in zip(entries, targets, strict=True)}
    choices = {"shots": shots, "episodes": episodes, "repeats": repeats, "episodes-file": episodes_file}
    options = [f"--{name}={value}" for name, value in choices.items() if value is not None]
    command = shlex.join(["fewseg", "report", *targets, *words, f"--protocol={protocol}", *options])
    return replace(
        comparison_page(entries),
        curves=run_curves(runs),
        panels=episode_panels(caches, benchmark, entries[0].results.tables[0], each=panels),
        commands=(("this page", command),),
    )
