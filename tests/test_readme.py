"""Every command of the README runs as it stands there, but for words that make it end in seconds."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.storage.saved import save_model
from helpers import BASE_RECIPE, SHORT, TINY, Fewseg, example_image, example_mask, tiny_model

TEXT = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
LINES = [line.split("  #")[0].strip() for language, text in BLOCKS if not language for line in text.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("fewseg ")]
SMALL = ("data.images=40", "data.size=64", *TINY)
FEW = ("--episodes=4", "--repeats=1", "--workers=0")
SIZES = {
    "train": (*SMALL, *SHORT, "train.validation=none", "base.recipe=base.yaml"),
    "evaluate": (*SMALL, *FEW),
    "compare": (*SMALL, *FEW),
    "report": (*SMALL, *FEW),
    "experiment": (*SMALL, *SHORT, "base.recipe=base.yaml", "--folds=0", "--episodes=4"),
    "segment": (),
    "teach": (),
}
"""What is added to a command by its name; the others are looked at apart."""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the photos that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("a.jpg", "b.jpg", "photos/c.jpg"):
        Image.fromarray(example_image()).save(name)
    Image.fromarray((example_mask() == 1).astype(np.uint8) * 255).save("a.png")
    Path("base.yaml").write_text(BASE_RECIPE)
    return tmp_path


def test_the_pictures_and_the_two_commands_come_first() -> None:
    assert TEXT.index("](docs/pictures/episodes.png)") < TEXT.index("\nmake demo ") < TEXT.index("\nmake test ")
    assert TEXT.index("\nmake test ") < TEXT.index("\n## ")
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT):
        assert (Path(__file__).parent.parent / picture).is_file()


@pytest.mark.slow
def test_commands_run_one_after_the_other(photos: Path, fewseg: Fewseg) -> None:
    names = [shlex.split(command)[1] for command in COMMANDS]
    assert set(names) == {*SIZES, "serve", "web", "export", "convert"}
    for command, name in zip(COMMANDS, names, strict=True):
        words = shlex.split(command)[1:]
        if name in SIZES:
            for old in (w for w in words if w == "masks" and Path(w).exists()):
                shutil.rmtree(old)  # a second command of the page writes there too
            result = fewseg(*words, *SIZES[name])
            assert result.code == 0, f"{command}: {result.err}"
        if name == "train":
            shutil.copytree("runs/mine", "runs/other")
    assert (photos / "masks" / "c.png").is_file()
    assert (photos / "mine.html").is_file()


def test_the_page_and_the_conversion_know_what_the_readme_gives_them(photos: Path, fewseg: Fewseg) -> None:
    assert fewseg("serve", "--help").code == 0
    (convert,) = (shlex.split(command)[1:] for command in COMMANDS if " convert " in command)
    result = fewseg(*convert)
    assert result.code == 1
    assert "released.pth does not exist" in result.err


@pytest.mark.slow
def test_a_model_is_exported(photos: Path, fewseg: Fewseg) -> None:
    (export,) = (shlex.split(command)[1:] for command in COMMANDS if " export " in command)
    save_model(tiny_model("dense"), photos / "MODEL", {})
    assert fewseg(*export).code == 0
    assert (photos / "exported" / "match.onnx").is_file()


@pytest.mark.slow
def test_the_lines_of_python_give_a_mask(photos: Path) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python")
    found: dict[str, np.ndarray] = {}
    exec(code, found)
    assert found["mask"].shape == example_mask().shape
    assert found["mask"].dtype == bool
