"""Run as a program in each of several processes: what `test_processes.py` compares with one process."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fewseg import registry
from fewseg.build import create_model
from fewseg.data.dataset import EpisodeDataset
from fewseg.data.sets.scenes import Scenes
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.runtime.processes import rank_and_world
from fewseg.training.loop import train
from fewseg.training.objectives import EpisodeObjective
from helpers import Fewseg, Toy, toy_config

TOY = ("model.dropout=0", "train.batch_size=4", "train.episodes_per_epoch=8", "train.save_every=1", "data.shots=2")
VALIDATED = ("train.validation=base", "train.held_out=2")


def base_words() -> tuple[str, ...]:
    """A base learner whose BatchNorms train, without its dropout (see `compare`)."""
    sizes = ("model.image_size=64", "data.images=40", "data.size=64", "train.batch_size=4", "train.val_episodes=6")
    model = ("model.backbone=timm/test_resnet", "model.weights=null", "data.level=simple", "train.save_every=1")
    lengths = ("train.epochs=1", "train.episodes_per_epoch=12", "train.workers=0", "train.backbone_factor=0.1")
    return ("base", "scenes", *model, *sizes, *lengths)


def report() -> dict[str, Any]:
    """An evaluation's numbers, without its times."""
    torch.manual_seed(0)
    model = create_model("prototype", backbone="timm/test_resnet", image_size=64)
    source = Scenes(subset="test", level="simple", images=60, size=64)
    found = evaluate(model, Benchmark.draw(source, source.fold(0), episodes=7, repeats=2), workers=0).as_dict()
    del found["seconds_per_episode"]
    return found


def compare(out: Path) -> None:
    """Train the toy method and the base learner and evaluate, all in the processes there are."""
    seen: list[int] = []
    plain = EpisodeDataset.__getitem__

    def getitem(self: EpisodeDataset, g: int) -> Any:
        seen.append(g)
        return plain(self, g)

    EpisodeDataset.__getitem__ = getitem  # type: ignore[method-assign]
    train(toy_config(*TOY), out / "toy")
    (out / f"seen{rank_and_world()[0]}.json").write_text(json.dumps(seen))
    train(toy_config(*TOY, *VALIDATED, "train.epochs=1"), out / "validated")
    torch.nn.Dropout2d.forward = lambda self, x: x  # type: ignore[method-assign]
    assert Fewseg()("train", *base_words(), "--out", out / "base").code == 0
    found = report()
    if rank_and_world()[0] == 0:
        (out / "report.json").write_text(json.dumps(found))


def hang(out: Path) -> None:
    """Process 1 stops answering in the middle of the run; what asks it to end ends it (torchrun waits 30 s if not)."""

    def sleep() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(600)

    _leave(out, sleep)


def die(out: Path) -> None:
    """Process 1 ends in the middle of the run."""
    _leave(out, lambda: os._exit(7))


def _leave(out: Path, how: Callable[[], None]) -> None:
    plain = EpisodeObjective.forward

    def forward(self: EpisodeObjective, *args: Any, **kwargs: Any) -> Any:
        if rank_and_world()[0] == 1 and (out / "run" / "state.pt").exists():
            how()
        return plain(self, *args, **kwargs)

    EpisodeObjective.forward = forward  # type: ignore[method-assign]
    train(toy_config(*TOY, "train.timeout=5", *sys.argv[3:]), out / "run")


if __name__ == "__main__":
    torch.set_num_threads(1)
    registry._REGISTERED = {"model": {"toy": Toy}, "source": {}}
    {"compare": compare, "hang": hang, "die": die}[sys.argv[1]](Path(sys.argv[2]))
