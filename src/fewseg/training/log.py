"""The log of a run: `metrics.jsonl`, and TensorBoard's where it is asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewseg.config import Config
from fewseg.errors import DataError, UsageError, install_line
from fewseg.files import replacing, sync
from fewseg.storage.run_directory import RunDirectory


class Log:
    """`metrics.jsonl`: a line every few batches and for every validation; lines after the checkpoint are
    dropped.

    `pending` is what a checkpoint says of the batches since the last line. Only one of several processes `writes`.
    """

    def __init__(
        self, run: RunDirectory, config: Config, *, batches: int, pending: dict[str, Any], writes: bool
    ) -> None:
        self.file = run.metrics
        self.batch_size = config.train.batch_size
        self._sums: dict[str, float] = dict(pending.get("sums", {}))
        self._counts = torch.tensor(pending.get("counts", [0.0, 0.0]))
        self._batches = int(pending.get("batches", 0))
        self.clock(batches)
        self._writes = writes
        self._board = _tensorboard(run.path, batches) if config.train.tensorboard and writes else None
        if writes:
            kept = [text for text, done in _lines(self.file) if done <= batches]
            with replacing(self.file, durable=True) as temporary:
                temporary.write_text("".join(text + "\n" for text in kept))

    def clock(self, batches: int) -> None:
        """Measure the rate from here on: not what was waited for features, or a validation."""
        self._mark = (time.perf_counter(), batches)

    @property
    def pending(self) -> dict[str, Any]:
        """What was added since the last line, as plain data."""
        return {"sums": dict(self._sums), "counts": self._counts.tolist(), "batches": self._batches}

    def add(self, terms: dict[str, Tensor], counts: Tensor) -> None:
        """One batch's terms, and its foreground intersection and union."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._counts += counts.cpu()
        self._batches += 1

    def write(self, batches: int, total: int, *, lr: float, watched: dict[str, Tensor]) -> tuple[dict[str, float], str]:
        """Write the means since the last line, and `watched`, the last batch's untrained terms; returns them by name,
        and in short.
        """
        if not self._batches:
            return {}, ""
        means = {name: value / self._batches for name, value in self._sums.items()}
        iou = float(self._counts[0] / self._counts[1].clamp(min=1))
        rate = (batches - self._mark[1]) * self.batch_size / max(time.perf_counter() - self._mark[0], 1e-9)
        shown = means | {name: float(value) for name, value in watched.items()}
        losses = {f"loss_{name}": round(value, 6) for name, value in shown.items()}
        values = {"lr": lr, "train_iou": round(iou, 6)} | losses
        self._append({"batches": batches, "of": total} | values)
        self._sums, self._counts, self._batches = {}, torch.zeros(2), 0
        self.clock(batches)
        return values, f"loss {sum(means.values()):.3f}  IoU {100 * iou:.1f}  {rate:.1f} items/s"

    def validation(self, batches: int, epoch: int, scores: dict[str, float]) -> None:
        """Write a validation's scores."""
        self._append({"batches": batches, "epoch": epoch} | {f"val_{k}": v for k, v in scores.items()})

    def sync(self) -> None:
        """Bring the lines to the disk: a checkpoint must never outlive the lines before it."""
        if self._writes:
            sync(self.file)
        if self._board is not None:
            self._board.flush()

    def _append(self, line: dict[str, Any]) -> None:
        if not self._writes:
            return
        with open(self.file, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, line["batches"])


def _lines(file: Path) -> Iterator[tuple[str, int]]:
    """The lines of a metrics file and the batches that each tells of; a half-written last line is left out.

    Raises DataError for any other line that is no line of a log: dropping it would lose what it said in silence.
    """
    try:
        texts = file.read_text().splitlines() if file.is_file() else []
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is damaged ({error}); move it away to go on without the lines before") from error
    for number, text in enumerate(texts, 1):
        try:
            yield text, int(json.loads(text)["batches"])
        except (ValueError, KeyError, TypeError) as error:
            if number < len(texts):
                raise DataError(
                    f"{file}, line {number} is damaged; mend or remove it, or move the file away, to go on"
                ) from error


def _tensorboard(run: Path, batches: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"train.tensorboard=true needs the extra: {install_line('tensorboard')}") from error
    return SummaryWriter(str(run / "tensorboard"), purge_step=batches + 1 if batches else None)
