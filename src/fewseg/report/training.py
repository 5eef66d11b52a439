"""Learning curves of runs, from the `metrics.jsonl` that training writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fewseg.report.contents import Curve, gathered
from fewseg.storage.run_directory import RunDirectory

COLORS = 4
"""Curves that stay apart in one chart."""


def run_curves(runs: Mapping[str, Path]) -> tuple[Curve, ...]:
    """Losses, training IoU and validation mIoU of runs by name; empty where no run has written any.

    One run: a chart of its IoUs and one of its losses, which say whose they are where it is not the only model.
    Several: a chart for each of validation mIoU, training IoU and final loss, with a curve for each run that has it, of
    the same colour in each. What is more than a chart keeps apart goes into a second one.
    """
    found = {name: points for name, run in runs.items() if (points := _points(run))}
    if len(found) == 1:
        (points,) = found.values()
        of = f" of {next(iter(found))}" if len(runs) > 1 else ""
        return tuple(
            _curve(key, points[key], chart=_numbered(what + of, i))
            for what in ("IoU", "loss")
            for i, key in enumerate(key for key in points if _is_iou(key) == (what == "IoU"))
        )
    return tuple(
        _curve(key, points[key], name=name, chart=_numbered(_label(key), i), place=i)
        for key in ("val_miou", "train_iou", "loss_final")
        for i, (name, points) in enumerate(found.items())
        if key in points
    )


def _numbered(chart: str, i: int) -> str:
    """The chart that the i-th of curves is in."""
    return f"{chart} ({i // COLORS + 1})" if i >= COLORS else chart


def _curve(
    key: str, points: list[tuple[float, float]], *, name: str = "", chart: str, place: int | None = None
) -> Curve:
    steps, values = zip(*points, strict=True)
    return Curve(
        name or _label(key).removesuffix(" loss"), steps, values, percent=_is_iou(key), chart=chart, place=place
    )


def _points(run: Path) -> dict[str, list[tuple[float, float]]]:
    file = RunDirectory(run).metrics
    lines = [json.loads(text) for text in file.read_text().splitlines()] if file.is_file() else []
    return gathered(
        (key, (float(line["batches"]), float(value)))
        for line in lines
        for key, value in line.items()
        if key == "train_iou" or key.startswith(("loss_", "val_"))
    )


def _is_iou(key: str) -> bool:
    return not key.startswith("loss_")


def _label(key: str) -> str:
    if not _is_iou(key):
        return f"{key.removeprefix('loss_')} loss"
    names = {"train_iou": "training IoU", "val_miou": "validation mIoU", "val_fb_iou": "validation FB-IoU"}
    return names.get(key, key.replace("val_", "validation "))
