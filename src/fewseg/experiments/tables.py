"""Tables and records: what an experiment prints and writes."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fewseg.evaluation.evaluate import versions
from fewseg.files import replacing, write_json
from fewseg.report.figures import save_figure

MISSING = "missing"
"""The cell of a number that is not there yet."""


@dataclass(frozen=True)
class Table:
    """A table of texts with what is needed to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def as_csv(self) -> str:
        """CSV; title and notes are comment lines before it."""
        text = io.StringIO()
        for line in (self.title, *self.notes):
            text.write(f"# {line}\n")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def percent(value: float | None, *, sign: bool = False) -> str:
    """A share in per cent with two decimals; None is missing."""
    return MISSING if value is None else f"{100 * value:{'+' if sign else ''}.2f}"


def save(out: Path, name: str, table: Table, record: dict[str, Any], figures: dict[str, Figure]) -> list[Path]:
    """Write NAME.csv, NAME.json (with the versions) and every figure as PNG and PDF; returns the paths.

    A figure's key is added to the name; the main one has an empty key.
    """
    paths = [out / f"{name}.csv"]
    with replacing(paths[0]) as temporary:
        temporary.write_text(table.as_csv())
    paths.append(write_json(out / f"{name}.json", {"experiment": name, **record, "versions": versions()}))
    for key, figure in figures.items():
        stem = f"{name}-{key}" if key else name
        paths += [save_figure(out / f"{stem}.{ending}", figure) for ending in ("png", "pdf")]
    return paths
