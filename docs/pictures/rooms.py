"""Draw which room may import from which, as import-linter checks it: `python docs/pictures/rooms.py` writes rooms.svg.

Layers come from pyproject.toml, what a room is for from the table of docs/architecture.md.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_name("rooms.svg")
WIDTH, LEFT, GAP, LINE = 520, 26, 6, 15
CHARACTER = 6.3
"""Width of a small letter on average, in the picture's units."""
STYLE = """
  .room { fill: #d5e3f5; stroke: #5c7fae; } .light { fill: #d3ecd3; stroke: #4f8f55; }
  text { font: 12px system-ui, sans-serif; fill: #15202b; } .name { font-weight: 700; font-size: 13px; }
  .beside { fill: #7b8490; } .arrow { stroke: #7b8490; stroke-width: 2; fill: none; }
"""


def rooms() -> list[list[str]]:
    """The layers from above to below, each with the rooms and modules that stand beside each other."""
    (layers,) = (found["layers"] for found in _contracts() if found["type"] == "layers")
    return [[name.strip().removeprefix("fewseg.") for name in layer.split("|")] for layer in layers]


def without_torch() -> set[str]:
    """The rooms that must work where torch is not installed."""
    (names,) = (found["source_modules"] for found in _contracts() if "torch" in found["name"])
    return {name.removeprefix("fewseg.") for name in names}


def _contracts() -> list[dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def purposes() -> dict[str, str]:
    """What each room is for: the first words of its row."""
    rows = re.findall(r"^\| `(\w+)/` \| ([^|]+) \|$", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE)
    return {name: _short(re.sub(r"`| \([^)]*\)", "", text)) for name, text in rows}


def _short(text: str) -> str:
    first, *rest = re.split(r"[:;]", text)
    return first if len(first) > 20 or not rest else f"{first}:{rest[0]}"


def drawn() -> str:
    """The picture as SVG: readable on a light and a dark page alike."""
    told, light, y, parts = purposes(), without_torch(), 4, []
    for layer in rooms():
        width = (WIDTH - LEFT - 1 - GAP * (len(layer) - 1)) / len(layer)
        room_for = int((width - 16) / CHARACTER)
        texts = [textwrap.wrap(told.get(name, ""), room_for) for name in layer]
        height = 24 + LINE * max(map(len, texts))
        for n, (name, lines) in enumerate(zip(layer, texts, strict=True)):
            parts += _box(LEFT + n * (width + GAP), y, width, height, name, lines, name in light)
        y += height + GAP
    arrow = f'<path class="arrow" d="M12 8V{y - 12}m-5 -7l5 8l5 -8"/>'
    beside = f'<text class="beside" transform="translate(9 {y / 2}) rotate(-90)" text-anchor="middle">imports</text>'
    legend = f'<text class="beside" x="{LEFT}" y="{y + 14}">green: works without torch; all of it is checked</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 22}" width="{WIDTH}" height="{y + 22}">'
    return "\n".join([head, f"<style>{STYLE}</style>", arrow, beside, *parts, legend, "</svg>\n"])


def _box(x: float, y: float, width: float, height: float, name: str, lines: list[str], light: bool) -> Iterator[str]:
    kind = "room light" if light else "room"
    yield f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="4"/>'
    yield f'<text class="name" x="{x + 8:.1f}" y="{y + 17}">{escape(name)}</text>'
    for n, line in enumerate(lines):
        yield f'<text x="{x + 8:.1f}" y="{y + 17 + LINE * (n + 1)}">{escape(line)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
