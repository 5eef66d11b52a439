"""Every command of docs/reproduce-hdmnet.md runs as it stands there, on a small copy of VOC and a small network."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from fewseg.data.download import ARCHIVES
from helpers import BASE_RECIPE, SHORT, TINY, Fewseg
from trees import many, write_sbd, write_voc

PAGE = (Path(__file__).parents[1] / "docs" / "reproduce-hdmnet.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(line)[1:]
    for block in BLOCKS
    for line in block.replace("\\\n", "").splitlines()
    if line.startswith("fewseg ")
]
TRAINED = (*TINY, *SHORT, "train.epochs=1")
FEW = ("--episodes=2", "--repeats=1", "--workers=0")
SIZES = {
    "data": (),
    "train": TRAINED,
    "evaluate": FEW,
    "compare": (*FEW, *TINY),
    "report": FEW,
    "cross-validate": (*TRAINED, *FEW, "base.recipe=base.yaml", "data.fold=0", "train.seed=0"),
    "experiment": (*TRAINED, *FEW),
}
"""What is added to a command by its name."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small VOC and SBD, as if they had been downloaded."""
    monkeypatch.chdir(tmp_path)
    train = many(range(1, 21), 2)
    write_voc(tmp_path / "VOC", train, many(range(1, 21), 3, prefix="v"))
    write_sbd(tmp_path / "VOC" / "SBD", train, many([1], 1, prefix="s"))
    Path("base.yaml").write_text(BASE_RECIPE)
    return tmp_path


@pytest.mark.slow
def test_commands_run_one_after_the_other(machine: Path, fewseg: Fewseg) -> None:
    names = [words[0] for words in COMMANDS]
    assert {*names} == {*SIZES, "convert"}
    # the released weights are stood in for by the run that comes later
    for words in sorted(COMMANDS, key=lambda words: "released0" in words):
        if words[:2] == ["data", "download"]:
            assert words[2] in ARCHIVES
        elif words[0] == "convert":
            result = fewseg(*words)
            assert (result.code, "released.pth does not exist" in result.err) == (1, True)
            shutil.copytree("runs/hdmnet0", words[-1])
        else:
            result = fewseg(*words, *SIZES[words[0]])
            assert result.code == 0, f"{words}: {result.out}{result.err}"
    for made in ("fold0.csv", "fold0.html", "all/cross-validation.csv", "mask/support-mask.csv"):
        assert (machine / made).is_file()
