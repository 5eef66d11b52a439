"""The numbers of evaluations as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from fewseg.progress import counted, visible

_MOST_TOLD = 20
"""Photos that could not be used; a file lists all."""


class _Plain(Console):
    """Shows texts as they are: no markup, and nothing in them steers the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        shown = (visible(text) if isinstance(text, str) else text for text in objects)
        super().print(*shown, **options)


def console() -> Console:
    """Standard output; a pipe or a file gets lines wide enough for the tables. No text is taken for markup."""
    shown = _Plain(markup=False, emoji=False)
    return shown if shown.is_terminal else _Plain(width=160, markup=False, emoji=False)


def say(text: str, *, err: bool = False) -> None:
    """A line on standard output, or that of errors; nothing in it steers the terminal."""
    typer.echo(visible(text), err=err)


def failed_photos(failed: Sequence[tuple[object, str]], what: str) -> str:
    """How many photos `what` is true of, and the first of them with what is wrong."""
    told = (reason if reason.startswith(str(path)) else f"{path}: {reason}" for path, reason in failed[:_MOST_TOLD])
    lines = [f"  {each}" for each in told]
    more = ["  ..."] if len(failed) > _MOST_TOLD else []
    return "\n".join([f"{counted(len(failed), 'photo')} {what}:", *lines, *more])


def printable(rows: Sequence[Sequence[str]], *, title: str | None = None) -> RenderableType:
    """A table of texts, for `console`; the first row heads its columns. A title may be wider than a small table; of a
    table wider than the terminal no digit is cut off.
    """
    header, *lines = ([visible(cell) for cell in row] for row in rows)
    table = Table(*(Column(name, overflow="fold") for name in header))
    for line in lines:
        table.add_row(*line)
    return table if title is None else Group(Text(visible(title), style="italic"), table)


def print_results(results: Any) -> None:
    """The numbers as a table, with what is needed to repeat them."""
    shown, parts = console(), (results, *results.repeats)
    shares = {"mIoU": [p.miou for p in parts], "FB-IoU": [p.fb_iou for p in parts]}
    shares |= {f"  {results.shown_name(n)}": [p.class_iou.get(n) for p in parts] for n in results.class_iou}
    shares["meta learner alone"] = [p.meta_miou for p in parts]
    shares["base learner, base classes"] = [p.base_miou for p in parts]
    rows = [(name, *map(_percent, values)) for name, values in shares.items() if values[0] is not None]
    shown.print(printable([("IoU, %", "mean", *_seeds(results)), *rows], title=_title(results)))
    absent = ", ".join(results.base_without_truth)
    lacking = absent and f"base classes in no query, left out of their mean: {absent}"
    for told in (results.nothing_told, results.left_out, lacking):
        if told:
            shown.print(told, highlight=False)
    for told in (*results.presence_told, *results.references_told):
        shown.print(told, highlight=False)
    interval = " to ".join(map(_percent, results.interval)) if results.interval else "none"
    shown.print(f"mIoU {_percent(results.miou)}, 95 % interval {interval} ({results.interval_kind})")
    _print_origin(shown, results)


def print_plan(plan: Any, *, workers: int, cache_gb: float) -> None:
    """What an evaluation will do and take, each kind of work a row."""
    shown, parts = console(), (plan.read, *plan.computed)
    rows = [(p.what, f"{p.count:,}", f"{1000 * p.seconds:.2f} ms", duration(p.total)) for p in parts]
    each = plan.episodes // plan.repeats
    work = f"{plan.repeats} x {each:,} episodes of {plan.images:,} images"
    title = f"{work}: {duration(plan.seconds)}, {counted(workers, 'worker')}"
    shown.print(printable([("what", "how often", "one takes", "all take"), *rows], title=title))
    budget = f"of --cache-gb {cache_gb:g}"
    facts = [
        f"all of it is {duration(sum(p.total for p in parts))} of work, done side by side in {duration(plan.seconds)}",
        f"features in memory: {plan.kept / 1e9:.2f} GB {budget}",
        f"in a temporary file: {plan.filed / 1e9:.2f} GB",
    ]
    if plan.dropped:
        facts.append("neither has room for all that is used again, so some is encoded anew: give more --cache-gb")
    if plan.memory is not None:
        facts.append(f"memory at most: about {plan.memory / 1e9:.2f} GB, and the loader processes")
    for told in facts:
        shown.print(told, highlight=False)


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def print_generalised(results: Any) -> None:
    """The numbers of an evaluation on base and novel classes together."""
    shown, parts = console(), (results, *results.repeats)
    rows = [("IoU, %", "mean", "95 % interval", *_seeds(results))]
    told = {"novel": "novel classes", "base": "base classes", "all": "all classes", "harmonic": "harmonic mean of both"}
    for name, what in told.items():
        mean, *values = (_percent(getattr(part, f"{name}_miou")) for part in parts)
        interval = " to ".join(map(_percent, results.intervals.get(name, ())))
        rows.append((f"mIoU, {what}", mean, interval, *values))
    for name in results.class_iou:
        mean, *values = (_percent(part.class_iou.get(name)) for part in parts)
        rows.append((f"  {results.shown_name(name)}", mean, "", *values))
    shown.print(printable(rows, title=f"{_title(results)}, tau {results.tau}, merge {results.merge}"))
    if results.left_out:
        shown.print(results.left_out, highlight=False)
    if not any(r.novel_episodes for r in results.repeats):
        largest = max(r.largest for r in results.repeats)
        shown.print(f"no pixel was taken for the novel class: the largest value is {largest:.3f}; try a smaller --tau")
    _print_origin(shown, results)


def _print_origin(shown: Console, results: Any) -> None:
    """What the model was trained on, which data these are, and hashes of episodes and weights."""
    for told in results.origin:
        shown.print(told, highlight=False)
    if results.data_told:
        shown.print(f"measured on {results.source}: {results.data_told}", highlight=False)
    for r in results.repeats:
        shown.print(f"episodes {r.episode_sha256[:16]} ({r.episodes}, seed {r.seed})", highlight=False)
    if results.weights:
        told = f"weights {results.weights.get('sha256', '')[:16]} {results.weights.get('path', '')}"
        shown.print(told, highlight=False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _seeds(results: Any) -> list[str]:
    return [f"seed {r.seed}" for r in results.repeats]


def _title(results: Any) -> str:
    return (
        f"{results.method} on {results.backbone}, {results.source} fold {results.fold['index']}, {results.shots}-shot, "
        f"{results.image_size} px, protocol {results.protocol['name']}"
    )
