"""Callback: what is told of a training as it goes, for logs and trackers of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class Callback:
    """Override what is of use; each of the four does nothing by itself.

    `train.callbacks=[NAME]` takes one from a plugin by its name, `fewseg.train(..., callbacks=[object])` any object of
    this class. Of several processes the first alone calls them. What they raise ends the run as an error of its own.
    """

    name: ClassVar[str]
    """Its name in configurations."""

    def start(self, run: Path, config: Mapping[str, Any], *, batches: int) -> None:
        """Before the first batch. `config`: all keys in their groups; `batches`: those already done, by a run that goes
        on.
        """

    def step(self, batches: int, values: Mapping[str, float]) -> None:
        """With every line of the log (20 batches): `lr`, `train_iou` and the means of the losses since the last one."""

    def epoch(self, batches: int, epoch: int, scores: Mapping[str, float], model: Any) -> None:
        """After every epoch: its validation's scores as shares of 1, none where nothing was validated; the model as it
        is, to look at.
        """

    def end(self, batches: int, error: BaseException | None) -> None:
        """Last, in any case: with what ended the run early, a stop by a signal too, or None."""
