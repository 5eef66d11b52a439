"""What docs and source cite is there: files, names in them, modules, pages and their sections."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fewseg import schema
from fewseg.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fewseg"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = [
    p for folder in ("src", "benchmarks", "tests") for end in ("py", "yaml") for p in (ROOT / folder).rglob(f"*.{end}")
]
ROOMS = {p.name for folder in (ROOT, SOURCE) for p in folder.iterdir() if p.is_dir() and p.name.isidentifier()}
IN_A_ROOM = re.compile(rf"(?<![\w./=-])((?:{'|'.join(sorted(ROOMS - {'runs'}))})/[\w/.-]*\w)(?![\w*])")
PYTHON_FILE = re.compile(r"(?<![\w./=-])(\w+(?:/\w+)+\.py)\b")
FEWSEG: Any = get_command(app)
"""Made once: Typer reads every command's signature."""


def in_root(page: Path) -> str:
    return str(page.relative_to(ROOT))


def absent(paths: set[str]) -> set[str]:
    return {path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "src", SOURCE))}


def defines(file: Path, name: str) -> bool:
    """Whether every part of `Class.method` is defined in a file; a parameter or constant counts as well."""
    text = file.read_text()
    return all(re.search(rf"^\s*(?:def |class )?{part}\b", text, re.MULTILINE) for part in name.split("."))


@pytest.mark.parametrize("page", PAGES, ids=in_root)
def test_every_file_and_folder_that_a_page_names_is_there(page):
    text = page.read_text()
    assert not absent({*IN_A_ROOM.findall(text), *PYTHON_FILE.findall(text)})


@pytest.mark.parametrize("page", PAGES, ids=in_root)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=in_root)
def test_every_module_that_a_page_names_is_there(page):
    for name in set(re.findall(r"(?<![\w./-])((?:fewseg|benchmarks)(?:\.\w+)+)(?<!\.json)", page.read_text())):
        place, *rest = name.split(".")
        folder = ROOT / ("src/fewseg" if place == "fewseg" else place)
        while rest and (folder / rest[0]).is_dir():
            folder, rest = folder / rest[0], rest[1:]
        stub = folder / "__init__.pyi"
        file = stub if stub.is_file() else folder / "__init__.py"
        if rest and (folder / f"{rest[0]}.py").is_file():
            file, rest = folder / f"{rest[0]}.py", rest[1:]
        assert all(re.search(rf"\b{part}\b", file.read_text()) for part in rest), f"{name} is not in {file}"


def test_every_name_in_a_table_of_the_architecture_is_in_its_file():
    rows = re.findall(
        r"^\| [^|]*\| ([^|]*\.py`) \| ([^|]+) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 30
    for files, names in rows:
        places = [SOURCE / file for file in re.findall(r"`([^`]+)`", files)]
        for name in re.findall(r"`([^`]+)`", names):
            assert any(defines(place, name) for place in places), f"{name} is not in {files}"


def test_the_architecture_has_a_row_for_every_room():
    rows = set(re.findall(r"^\| `([\w/]+)/` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE))
    code = {str(init.parent.relative_to(SOURCE)) for init in SOURCE.rglob("*/__init__.py")}
    assert rows == code | {"configs", "shipped"}


def test_the_architecture_s_picture_is_of_the_layers_that_are_checked(tmp_path):
    script = tmp_path / "docs" / "pictures" / "rooms.py"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "docs/pictures/rooms.py", script)
    for file in ("pyproject.toml", "docs/architecture.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    subprocess.run([sys.executable, script], check=True)
    assert script.with_suffix(".svg").read_text() == (ROOT / "docs/pictures/rooms.svg").read_text(), (
        "run python docs/pictures/rooms.py"
    )


def test_every_page_and_file_that_the_source_cites_is_there():
    for file in CODE:
        text = file.read_text()
        for page, section in re.findall(r"\b(docs/[\w/-]+\.md)(?:\s+section\s+(\d+))?", text):
            assert (ROOT / page).is_file(), f"{file} cites {page}"
            assert not section or f"\n## {section}. " in (ROOT / page).read_text(), f"{file} cites {page} {section}"
        assert not absent(set(PYTHON_FILE.findall(text))), file


def test_the_readme_begins_with_a_picture_and_two_commands():
    text = (ROOT / "README.md").read_text()
    assert text.index("](docs/pictures/episodes.png)") < text.index("\nmake demo ") < text.index("\nmake test ")
    assert text.index("\nmake test ") < text.index("\n## ")


def commands(text: str) -> list[list[str]]:
    """The words after `fewseg` of all commands that a page shows, in lines of their own or in the text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.split(" #")[0] for block in blocks for line in block.replace("\\\n", "").splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    found = (re.match(r"(?:srun |torchrun .* -m )?fewseg ([a-z].*)", " ".join(line.split())) for line in lines + spans)
    return [match[1].split() for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=in_root)
def test_every_command_and_option_that_a_page_shows_is_there(page):
    anywhere, wrong = {"--debug", "--plugin", "--help"}, []
    for words in commands(page.read_text()):
        command = FEWSEG
        for word in words:
            command = getattr(command, "commands", {}).get(word, command)
        if command is FEWSEG:
            wrong.append(" ".join(words))
            continue
        options = {opt for p in getattr(command, "params", ()) for opt in [*p.opts, *p.secondary_opts]}
        given = {word.split("=")[0].strip(",.;)]") for word in words if word.startswith("--")}
        if unknown := given - options - anywhere:
            wrong.append(f"{' '.join(words)}: {', '.join(unknown)}")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=in_root)
def test_every_key_of_a_configuration_that_a_page_shows_is_there(page):
    groups = {"train": schema.TrainConfig, "augment": schema.AugmentConfig, "base": schema.BaseConfig}
    shown = re.findall(r"(?<![\w./])(train|augment|base)\.(\w+)=", page.read_text())
    assert not [f"{group}.{key}" for group, key in shown if key not in groups[group].__dataclass_fields__]
