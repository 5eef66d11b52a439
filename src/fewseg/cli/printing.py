"""The numbers of evaluations as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Standard output; a pipe or a file gets lines wide enough for the tables."""
    shown = Console()
    return shown if shown.is_terminal else Console(width=160)


def print_results(results: Any) -> None:
    """The numbers as a table, with what is needed to repeat them."""
    shown = Console()
    table = Table(
        "IoU, %", "mean", *(f"seed {r.seed}" for r in results.repeats), title=_title(results), title_justify="left"
    )

    def row(name: str, mean: float | None, values: list[float | None]) -> None:
        if mean is not None:
            table.add_row(name, f"{100 * mean:.2f}", *("" if v is None else f"{100 * v:.2f}" for v in values))

    row("mIoU", results.miou, [r.miou for r in results.repeats])
    row("FB-IoU", results.fb_iou, [r.fb_iou for r in results.repeats])
    for name, iou in results.class_iou.items():
        row(f"  {name}", iou, [r.class_iou[name] for r in results.repeats])
    row("meta learner alone", results.meta_miou, [r.meta_miou for r in results.repeats])
    row("base learner, base classes", results.base_miou, [r.base_miou for r in results.repeats])
    shown.print(table)
    low, high = (100 * bound for bound in results.interval)
    shown.print(f"mIoU {100 * results.miou:.2f}, 95 % interval {low:.2f} to {high:.2f} ({results.interval_kind})")
    _print_origin(shown, results)


def print_generalised(results: Any) -> None:
    """The numbers of an evaluation on base and novel classes together."""
    shown, names = Console(), {"novel classes": "novel", "base classes": "base", "all classes": "all"}
    seeds = (f"seed {r.seed}" for r in results.repeats)
    title = f"{_title(results)}, tau {results.tau}, merge {results.merge}"
    table = Table("IoU, %", "mean", "95 % interval", *seeds, title=title, title_justify="left")
    for label, name in names.items():
        interval = results.intervals.get(name)
        shares = (getattr(part, f"{name}_miou") for part in (results, *results.repeats))
        mean, *values = (f"{100 * share:.2f}" for share in shares)
        bounds = "" if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"
        table.add_row(f"mIoU, {label}", mean, bounds, *values)
    for name, iou in results.class_iou.items():
        table.add_row(f"  {name}", f"{100 * iou:.2f}", "", *(f"{100 * r.class_iou[name]:.2f}" for r in results.repeats))
    shown.print(table)
    if not any(r.novel_episodes for r in results.repeats):
        largest = max(r.largest for r in results.repeats)
        shown.print(f"no pixel was taken for the novel class: the largest value is {largest:.3f}; try a smaller --tau")
    _print_origin(shown, results)


def _print_origin(shown: Console, results: Any) -> None:
    """Hashes of episodes and weights."""
    for r in results.repeats:
        shown.print(f"episodes {r.episode_sha256[:16]} ({r.episodes}, seed {r.seed})", highlight=False)
    if results.weights:
        shown.print(
            f"weights {results.weights.get('sha256', '')[:16]} {results.weights.get('path', '')}",
            highlight=False,
        )


def _title(results: Any) -> str:
    return (
        f"{results.method} on {results.backbone}, {results.source} fold {results.fold['index']}, {results.shots}-shot, "
        f"{results.image_size} px, protocol {results.protocol['name']}"
    )
