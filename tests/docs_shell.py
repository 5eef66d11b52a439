"""Runs commands as README and docs show them, with what stands in for photos, data and long trainings put in."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from typer.main import get_command

from fewseg.cli.main import app
from helpers import TINY, Fewseg

FEWSEG: Any = get_command(app)
"""Made once: Typer reads every command's signature."""
PROGRAM = re.compile(r"(?:[A-Z_]+=\S+ )*(?:fewseg|pip|docker|torchrun|srun|make (?:demo|test|docs)\b).*|[A-Z]+=\".*\"")
BRIEF = (
    "train.epochs=1",
    "train.episodes_per_epoch=2",
    "train.batch_size=2",
    "train.workers=0",
    "train.val_episodes=2",
    "base.recipe=base.yaml",
)
WORDS = {"train": BRIEF, "experiment": BRIEF, "cross-validate": (*BRIEF, "data.fold=0", "train.seed=0")}
"""What is put behind a command by its name, and the options that end it soon where it has them."""
OPTIONS = {"--episodes": 2, "--workers": 0, "--jobs": 1, "--folds": 0, "--rows": 1, "--values": "0.5,2"}
UNTRAINED = {"dense", "prototype", "insid3", "insid3-paper"}
MADE_FOR = re.compile(r"(?:base\.run=)?(RUN|MODEL|exported/|released\d|runs/[\w-]+|(?:rust|nucleus)\.concept)")
"""What a page may name without having made it."""


@dataclass
class World:
    """A folder of photos, data sets by name, a run of HDMNet and a saved model, all small; and what ran."""

    photos: Path
    data: dict[str, Path]
    run: Path
    model: Path
    ran: set[str] = field(default_factory=set)


def blocks(page: Path, kind: str) -> list[str]:
    """A page's blocks of a language; "" is what stands for the command line."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language == kind]


def commands(page: Path) -> list[str]:
    """Commands of a page, without comments: the lines of its blocks, then those in its text that name their data."""
    lines = [line for block in blocks(page, "") for line in block.replace("\\\n", " ").splitlines()]
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    spans = [span for span in re.findall(r"`(fewseg [^`]+)`", text) if "data.root=" in span and "..." not in span]
    shown = (" ".join(re.split(r"\s#", line)[0].split()) for line in lines + spans)
    return list(dict.fromkeys(command for command in shown if PROGRAM.fullmatch(command)))


class Shell:
    """Runs the commands of a page one after the other in this folder."""

    def __init__(self, fewseg: Fewseg, world: World) -> None:
        self.fewseg, self.world = fewseg, world
        self.variables = {"f": "0", "s": "0"}

    def run(self, command: str) -> None:
        """Raises AssertionError if it fails; what another page has run is left out where nothing needs its files."""
        bare = re.sub(r" --(?:out|jobs|folds|episodes|repeats) \S+", "", command)
        if re.match(r"fewseg (?:experiment|compare|evaluate [a-z]+ )", bare):
            if bare in self.world.ran:
                return
            self.world.ran.add(bare)
        if assigned := re.fullmatch(r"([A-Z]+)=\"(.*)\"", command):
            self.variables[assigned[1]] = assigned[2]
            return
        command = re.sub(r"\$(\w+)", lambda found: self.variables[found[1]], command)
        words = [self._with_data(word, command) for word in shlex.split(command)[1:]]
        out = Path(words[words.index("--out") + 1]) if "--out" in words else None
        if "--resume" not in words:  # another command of the page wrote there too
            for old in [out] if out else Path().glob("runs/*-*-fold*"):
                if old.is_dir():
                    shutil.rmtree(old)
        for word in words:
            if (found := MADE_FOR.fullmatch(word)) and Path(found[1]) != out:
                self._make(Path(found[1]))
        if "--correct" in words:
            Image.open("masks/one.png").point(lambda value: 255 - value).save("masks/one.png")  # as if mended by hand
        result = self.fewseg(*words, *self._budget(words))
        assert result.code == 0, f"{command}\n{result.out[-2000:]}{result.err[-2000:]}"

    def _with_data(self, word: str, command: str) -> str:
        """`data.root=DIR`, by the data set that the command names; VOC where it names none."""
        if not re.fullmatch(r"data\.root=[A-Z]+", word):
            return word
        sets = {"mine.yaml": "mix"} | {name: name for name in self.world.data}
        names = [sets[given] for given in command.split() if given in sets]
        return f"data.root={self.world.data[names[0] if names else 'pascal5i']}"

    def _make(self, path: Path) -> None:
        if path.exists():
            return
        if path.suffix == ".concept":
            words = [w for n in (1, 2) for w in ("--support", f"{n}.png", "--mask", f"{n}_mask.png")]
            assert self.fewseg("teach", *words, "--model", self.world.model, "--out", path).code == 0
        else:
            shutil.copytree(self.world.model if path.name == "MODEL" else self.world.run, path)

    def _budget(self, words: list[str]) -> list[str]:
        """What ends a command in a second or so; in place of `lite` a small model segments."""
        command = FEWSEG.commands[words[0]]
        command = getattr(command, "commands", {}).get(words[1], command)
        known = {name for parameter in command.params for name in parameter.opts}
        added = [f"{name}={value}" for name, value in OPTIONS.items() if name in known]
        if "--repeats" in known:
            added += [f"--repeats={2 if words[:2] == ['experiment', 'episodes'] else 1}"]
        if "scenes" in words:
            added += ["data.images=40", "data.size=64"]
        added += WORDS.get(words[0], ())
        if "lite-mix" in words:
            added += ["train.regions=2"]
        if (words[0] in WORDS and "lite-adapt" not in words) or UNTRAINED & {*words}:
            added += [*TINY, *(["model.imagenet_head=0"] if {"lite-mix", "model.imagenet_head=4"} & {*words} else ())]
        if words[0] in ("segment", "teach", "next") and "--model" not in words:
            added += ["--model", str(self.world.model)]
        return added
