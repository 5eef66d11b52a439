"""The log of a run: `metrics.jsonl`, and TensorBoard's where it is asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewseg.config import Config
from fewseg.data.images import replacing
from fewseg.errors import UsageError


class Log:
    """`metrics.jsonl`: a line every few batches and for every validation; lines after the checkpoint are
    dropped.
    """

    def __init__(self, run: Path, config: Config, *, batches: int) -> None:
        self.file = run / "metrics.jsonl"
        self.batch_size = config.train.batch_size
        self._sums: dict[str, float] = {}
        self._counts = torch.zeros(2)
        self._batches = 0
        self._mark = (time.perf_counter(), batches)
        self._board = _tensorboard(run) if config.train.tensorboard else None
        kept = [line for line in _lines(self.file) if line["batches"] <= batches]
        with replacing(self.file) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def add(self, terms: dict[str, Tensor], counts: Tensor) -> None:
        """One batch's terms, and its foreground intersection and union."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach())
        self._counts += counts.cpu()
        self._batches += 1

    def write(self, batches: int, total: int, *, lr: float) -> str:
        """Write the means since the last line; returns them in short."""
        if not self._batches:
            return ""
        means = {name: value / self._batches for name, value in self._sums.items()}
        iou = float(self._counts[0] / self._counts[1].clamp(min=1))
        now = time.perf_counter()
        rate = (batches - self._mark[1]) * self.batch_size / max(now - self._mark[0], 1e-9)
        line = {
            "batches": batches,
            "of": total,
            "lr": lr,
            "train_iou": round(iou, 6),
        }
        self._append(line | {f"loss_{name}": round(value, 6) for name, value in means.items()})
        self._sums, self._counts, self._batches, self._mark = {}, torch.zeros(2), 0, (now, batches)
        return f"loss {sum(means.values()):.3f}  IoU {100 * iou:.1f}  {rate:.1f} items/s"

    def validation(self, batches: int, epoch: int, scores: dict[str, float]) -> None:
        """Write a validation's scores."""
        self._append({"batches": batches, "epoch": epoch} | {f"val_{k}": v for k, v in scores.items()})

    def _append(self, line: dict[str, Any]) -> None:
        with open(self.file, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, line["batches"])


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a half-written last line is left out."""
    lines = []
    for text in file.read_text().splitlines() if file.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("train.tensorboard=true needs the extra: pip install 'fewseg[tensorboard]'") from error
    return SummaryWriter(str(run / "tensorboard"))
