"""The site of docs builds strictly, and its pages lead to each other."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.main import get_command

from fewseg import registry, schema
from fewseg.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "docs" / "site" / "build.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site without the page to try, whose runtime may be out of reach."""
    out = tmp_path_factory.mktemp("built") / "site"
    built = subprocess.run([sys.executable, BUILD, out, "--without-page"], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    assert built.stdout == f"site: {out / 'index.html'}\n"
    return out


def text(site: Path, page: str) -> str:
    return (site / page).read_text(encoding="utf-8")


def test_every_link_and_picture_is_there(site: Path) -> None:
    ids = {page: set(re.findall(r'\bid="([^"]+)"', page.read_text("utf-8"))) for page in site.rglob("*.html")}
    broken = []
    for page in ids:
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', page.read_text("utf-8")):
            path, _, anchor = unquote(unescape(link)).partition("#")
            if re.match(r"\w+:", path):
                continue
            goal = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not goal.exists() or (anchor and goal in ids and anchor not in ids[goal]):
                broken.append(f"{page.name}: {link}")
    assert not broken


def test_every_page_of_docs_is_in_the_navigation(site: Path) -> None:
    sidebar = text(site, "index.html").split('class="sidebar-tree"')[1].split("</aside>")[0]
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "index.md":
            name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
            assert f'href="{name}"' in sidebar, f"{name} is in no section of docs/index.md"
    assert 'href="changelog.html"' in sidebar


def test_the_reference_holds_every_key_command_and_name(site: Path) -> None:
    keys = [f"train.{key}" for key in schema.TrainConfig.__dataclass_fields__]
    methods = [f"model.name={name}" for name in registry.classes("model")]
    shown = re.sub(r"<[^>]+>", "", text(site, "reference/configuration.html"))
    assert not [word for word in keys + methods if word not in shown]
    commands = [f"fewseg {name}" for name, command in get_command(app).commands.items() if not command.hidden]
    shown = re.sub(r"<[^>]+>", "", text(site, "reference/commands.html"))
    assert not [word for word in [*commands, "--min-area NUMBER"] if word not in shown]
    assert 'id="fewseg.FewShotPredictor.set_support"' in text(site, "reference/python.html")


def test_the_search_finds_words_of_the_pages(site: Path) -> None:
    index = text(site, "searchindex.js")
    for word in ("mushroom", "slurm", "retri"):  # Retry-After: words are kept by their stems
        assert f"{word}" in index


def test_it_says_that_there_is_no_page_to_try_and_does_not_overwrite_a_folder(site: Path, tmp_path: Path) -> None:
    assert "built without the page" in text(site, "index.html")
    (tmp_path / "mine.txt").write_text("mine")
    built = subprocess.run([sys.executable, BUILD, tmp_path], capture_output=True, text=True, check=False)
    assert (built.returncode, "holds no site" in built.stderr) == (1, True)
    assert (tmp_path / "mine.txt").exists()
