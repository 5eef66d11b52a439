"""Tables and records: what an experiment prints and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fewseg.evaluation.evaluate import versions
from fewseg.files import Shown, write_csv, write_json
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


def percent(value: float | None, *, sign: bool = False) -> str:
    """A share in per cent with two decimals; None is missing, and an empty cell in CSV."""
    if value is None:
        return Shown(MISSING, "")
    return Shown(f"{100 * value:{'+' if sign else ''}.2f}", f"{100 * value:.2f}")


def save(out: Path, name: str, table: Table, record: dict[str, Any], figures: dict[str, Figure]) -> None:
    """Write NAME.csv, NAME.json (with the versions) and every figure as PNG and PDF.

    The CSV is the table alone; its title and notes are in the JSON. A figure's key is added to the name; the main one
    has an empty key.
    """
    write_csv(out / f"{name}.csv", [table.columns, *table.rows])
    told = {"title": table.title, "notes": list(table.notes)}
    write_json(out / f"{name}.json", {"experiment": name, **told, **record, "versions": versions()})
    for key, figure in figures.items():
        for ending in ("png", "pdf"):
            save_figure(out / f"{name}{key and f'-{key}'}.{ending}", figure)
