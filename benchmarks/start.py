"""How long a command takes until its first episode goes into the model: `python -m benchmarks.start [--rounds 5]`.

Every round times, each in a fresh process, `import torch` alone, `fewseg evaluate RUN` and `fewseg train`: on the
built-in data, with a small saved model, from the process's start to the call that takes the first episode. The hook is
set here, when its module is imported. Medians, and how many times `import torch` they are, which is "it" below;
processor time too, since a shared machine is steadier in that.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from statistics import median
from typing import Any

DATA = ("scenes", "data.images=60", "data.size=64", "data.level=simple")
FROM_IMAGES = ("train.cache_features=false", "train.cache_views=2", "train.validation=none")
FIRST = {
    "evaluate": ("fewseg.evaluation.scoring", "score_step"),
    "train": ("fewseg.training.objectives", "EpisodeObjective.forward"),
}
"""Where a command's first episode goes into the model: a module, and a function or method in it."""


class Hook(MetaPathFinder):
    """Replaces a name of a module as soon as that is imported."""

    def __init__(self, module: str, name: str, call: Callable[..., Any]) -> None:
        self.module, self.name, self.call = module, name, call

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The module's own specification, which then puts the call in place."""
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            *owners, last = self.name.split(".")
            owner = module
            for part in owners:
                owner = getattr(owner, part)
            getattr(owner, last)  # what is not there any more would never be called
            setattr(owner, last, self.call)

        loader.exec_module = exec_module
        return spec


def arrive(*_: Any, **__: Any) -> None:
    """Tell the time and end the process there; with START_MODULES=1 which modules it has imported, too."""
    lines = [f"{time.time()} {time.process_time()}", *(sorted(sys.modules) if os.environ.get("START_MODULES") else ())]
    os.write(1, ("\nARRIVED\n" + "\n".join(lines)).encode())
    os._exit(0)


def run_hooked(command: str, words: list[str]) -> None:
    """Run a command of fewseg up to its first episode."""
    sys.meta_path.insert(0, Hook(*FIRST[command], arrive))
    sys.argv = ["fewseg", command, *words]
    from fewseg.cli.main import main

    main()


def hooked(command: str, *words: str) -> list[str]:
    """The words that start such a process."""
    return [sys.executable, "-m", "benchmarks.start", "--hooked", command, *words]


def seconds(words: list[str]) -> tuple[float, float]:
    """From the start of a process to what it tells, and its processor time till then."""
    began = time.time()
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    at, used = told.rpartition("ARRIVED\n")[2].split("\n")[0].split()
    return float(at) - began, float(used)


def save_small_model(folder: Path) -> str:
    """A saved `lite` on `lite0` with random weights."""
    import torch

    from fewseg.build import create_model
    from fewseg.storage.saved import save_model

    torch.manual_seed(0)
    return str(save_model(create_model("lite", backbone="lite0", image_size=64), folder))


def main() -> None:
    if sys.argv[1:2] == ["--hooked"]:
        run_hooked(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    bare = [sys.executable, "-c", "import torch, time; print('ARRIVED'); print(time.time(), time.process_time())"]
    with tempfile.TemporaryDirectory() as temporary:
        model = save_small_model(Path(temporary) / "model")
        found: dict[str, list[tuple[float, float]]] = {"import torch": [], "fewseg evaluate": [], "fewseg train": []}
        for number in range(rounds):
            run = f"{temporary}/run{number}"
            recipe = ("lite", *DATA, "model.backbone=lite0", "model.image_size=64", *FROM_IMAGES, "--out", run)
            found["import torch"].append(seconds(bare))
            found["fewseg evaluate"].append(seconds(hooked("evaluate", model, *DATA, "--episodes", "20")))
            found["fewseg train"].append(seconds(hooked("train", *recipe)))
    for what, times in found.items():
        told = []
        for kind, name in enumerate(("", " of processor time")):
            each = [(one[kind], bare[kind]) for one, bare in zip(times, found["import torch"], strict=True)]
            told.append(f"{median(t for t, _ in each):6.2f} s{name}, {median(t / b for t, b in each):.2f} of it")
        print(f"{what:16} {'; '.join(told)}")


if __name__ == "__main__":
    main()
