"""The notebooks run from top to bottom, offline, and print what is stored in them."""

from __future__ import annotations

import asyncio
import gc
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def words(notebook: Any) -> list[str]:
    """What each cell prints; which digits come out depends on the processor, all else does not."""
    outputs = [[o for o in cell.get("outputs", ()) if o.get("name") == "stdout"] for cell in notebook.cells]
    return [re.sub(r"\b[0-9a-f]{16}\b|[\d.]+", "#", "".join(o["text"] for o in cell)) for cell in outputs if cell]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_prints_what_it_says(path: Path, tmp_path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    assert words(stored)
    again = nbformat.read(path, as_version=4)
    # an event loop of its own: the one that execute() makes is left open, to be told wherever it is collected
    asyncio.run(NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).async_execute())
    gc.collect()  # what Jupyter leaves behind is told here, not in another test
    assert words(again) == words(stored)
