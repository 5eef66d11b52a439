"""The pages of the site: those of docs/ as they are, what lies elsewhere in the repository, and what is generated.

They are written into a folder that Sphinx reads. `index.md` says which pages there are and in which order: each of its
sections is one of the navigation's, and pages that it does not name come at the end of "How to".
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECIPES = ROOT / "src" / "fewseg" / "configs"
ELSEWHERE = {
    ROOT / "examples" / "judge_a_benchmark.ipynb": "judge-a-benchmark.md",
    ROOT / "src" / "fewseg" / "shipped" / "lite" / "README.md": "lite.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "SECURITY.md": "security.md",
    ROOT / "CITATION.cff": "citation.md",
    ROOT / "README.md": "index.md",
}
"""What is a page of the site but no page of docs/."""
GENERATED = {
    "reference/configuration.md": ("Configuration", reference.configuration),
    "reference/commands.md": ("Commands", reference.commands),
    "reference/python.md": ("Python", reference.python),
}
"""Made from the source, and named first of the section "Reference"."""
FURTHER = "How to"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
FILE_NAME = re.compile(r"\[(?:docs/)?[\w/-]+\.md\](?=\([^)]+\.md[#)])")
"""A link whose text is a file's name, for which the site has a title."""
BLOCK = re.compile(r"^```(\w*)\n(.*?^```)$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:fewseg|pip|make|python|torchrun) ")
TRY = (
    '<p><a class="try" href="try/index.html">Try it in the browser</a> Nothing to install; photos do not leave it.</p>'
)
NO_TRY = "*This copy of the site was built without the page that one could try here: `fewseg web` had no runtime.*"


def write_pages(folder: Path, *, with_page: bool) -> None:
    """Write all pages into an empty folder; with `with_page` the first one leads to `try/index.html`."""
    for page in DOCS.rglob("*.md"):
        _write(folder, page.relative_to(DOCS).as_posix(), page, page.read_text(encoding="utf-8"))
    for source, name in ELSEWHERE.items():
        if name != "index.md":
            _write(folder, name, source, _read(source))
    for name, (_, make) in GENERATED.items():
        _write(folder, name, DOCS / name, "".join(make()))
    shutil.copytree(DOCS / "pictures", folder / "pictures", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    index = (folder / "index.md").read_text(encoding="utf-8")
    named = {page for _, pages in sections(index) for _, page in pages}
    others = sorted(p.name for p in DOCS.glob("*.md") if p.name not in {*named, "index.md"})
    trees = "".join(_toctree(title, pages, others if title == FURTHER else []) for title, pages in sections(index))
    head, mark, rest = index.partition("<!-- try -->")
    if not mark:
        raise SystemExit("docs/index.md lacks the line <!-- try -->, where the page to try is linked")
    (folder / "index.md").write_text(f"{head}{TRY if with_page else NO_TRY}{rest}\n{trees}", encoding="utf-8")


def sections(index: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of the first page, each with the title and name of the pages that its list names."""
    found = []
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, pages = part.split("\n")[0], re.findall(r"^- \[([^]]+)\]\(([^)#]+\.md)\)", part, re.MULTILINE)
        found.append(
            (
                title,
                [*((name, page) for page, (name, _) in GENERATED.items()), *pages] if title == "Reference" else pages,
            )
        )
    return found


def _toctree(title: str, pages: list[tuple[str, str]], others: list[str]) -> str:
    lines = [f"{name} <{page.removesuffix('.md')}>" for name, page in pages] + [p.removesuffix(".md") for p in others]
    return f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(lines) + "\n```\n\n"


def _read(source: Path) -> str:
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".ipynb":
        return "".join(_cells(json.loads(text)))
    return f"# To cite fewseg\n\n```yaml\n{text}```\n" if source.suffix == ".cff" else text


def _cells(notebook: dict) -> Iterator[str]:
    """A notebook as Markdown: its text, its code, and what that printed."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        yield f"```python\n{text}\n```\n\n" if cell["cell_type"] == "code" else f"{text}\n\n"
        for output in cell.get("outputs", []):
            if printed := "".join(output.get("text", [])):
                yield f"```text\n{printed.rstrip()}\n```\n\n"
            if picture := output.get("data", {}).get("image/png"):
                source = f"data:image/png;base64,{''.join(picture.split())}"
                yield f'<img alt="The figure of the cell above" src="{source}">\n\n'


def _write(folder: Path, name: str, source: Path, text: str) -> None:
    """Write a page, its links turned to where the site has what they lead to."""

    def turned(link: re.Match[str]) -> str:
        goal = (source.parent / link[1]).resolve()
        if "://" in link[1] or link[1].startswith("data:") or not goal.exists():
            return link[1]  # Sphinx tells what is missing
        return os.path.relpath(folder / _place(folder, goal), (folder / name).parent).replace(os.sep, "/")

    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    text = BLOCK.sub(_wrapped, FILE_NAME.sub("[]", LINK.sub(turned, text)))
    (folder / name).write_text(text, encoding="utf-8")


def _wrapped(block: re.Match[str]) -> str:
    """Blocks of commands, and of what was printed (`text`), are wrapped; drawings and formulas keep their columns."""
    wrapped = block[1] == "text" or (not block[1] and COMMAND.match(block[2]))
    kind = "words" if wrapped else block[1]
    return f"```{kind}\n{block[2]}"


def _place(folder: Path, goal: Path) -> str:
    """Where a file of the repository is in the site: source gets a page of its own."""
    if goal in ELSEWHERE:
        return ELSEWHERE[goal]
    if goal.is_relative_to(DOCS) and goal.suffix != ".py":
        return goal.relative_to(DOCS).as_posix()
    if goal.is_relative_to(RECIPES):
        return f"reference/configuration.md#{'recipes' if goal == RECIPES else goal.stem}"
    inside = goal.relative_to(ROOT).as_posix()
    name = f"source/{inside}.md"
    page = folder / name
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"---\norphan: true\n---\n# {inside}\n\n{_source(goal)}", encoding="utf-8")
    return name


def _source(goal: Path) -> str:
    if goal.is_dir():
        return "".join(f"- `{file.name}`\n" for file in sorted(goal.glob("*.py")))
    return f"``````{'python' if goal.suffix == '.py' else 'text'}\n{goal.read_text(encoding='utf-8')}\n``````\n"
