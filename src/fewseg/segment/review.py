"""What to look at first: `results.csv` sorted by doubt, and a page of the overlays in that order."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path
from urllib.parse import quote

from fewseg.files import replacing
from fewseg.progress import counted
from fewseg.segment.corrected import as_written
from fewseg.segment.formats import OVERLAY
from fewseg.segment.table import Line, lines, write_lines

NAME = "review.html"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What to look at first</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px system-ui, sans-serif; margin: 2rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem; }}
figure {{ margin: 0; }} img {{ max-width: 100%; max-height: 24rem; }} figcaption {{ overflow-wrap: anywhere; }}
</style>
<h1>What to look at first</h1>
<p>{count}, the most doubtful first. Mend masks in any paint program; <code>fewseg teach --concept FILE --correct
DIR</code> takes those that changed as supports.</p>
<main>
{figures}
</main></html>
"""


def sort_by_doubt(table: Path) -> list[tuple[str, float]]:
    """Sort a table by the greatest doubt of any class in each photo, and write the page beside it; photos with their
    doubts, in that order, a video's frames each by its mask. Corrected ones, of which there is none, are left out.
    """
    photos: dict[tuple[str, str], list[Line]] = {}
    for line in lines(table):
        photos.setdefault((line["photo"], line["mask"]), []).append(line)
    known = {key: [float(line["doubt"]) for line in found if line["doubt"]] for key, found in photos.items()}
    doubts = {key: max(values) for key, values in known.items() if values}
    ordered = sorted(photos, key=lambda key: -doubts.get(key, 0))
    write_lines(table, [line for key in ordered for line in photos[key]])
    figures = (_figure(table.parent, photos[key], doubts.get(key)) for key in ordered)
    with replacing(table.with_name(NAME)) as temporary:
        page = _PAGE.format(count=counted(len(ordered), "photo"), figures="\n".join(figures))
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    masks = Counter(photo for photo, _ in ordered)
    return [(key[0] if masks[key[0]] == 1 else key[1], doubts[key]) for key in ordered if key in doubts]


def _figure(folder: Path, found: list[Line], doubt: float | None) -> str:
    photo, mask = found[0]["photo"], found[0]["mask"]
    drawn = quote(mask.removesuffix(".png") + OVERLAY, errors="surrogateescape")
    told = "<br>".join(escape(_told(line)) for line in found)
    if doubt is not None:
        state = f"doubt {_percent(doubt)}"
    else:  # a mask that no table knew may be as it was written
        state = "doubt not known" if as_written(folder / mask, found[0]["written"]) else "corrected"
    title = f"<b>{escape(photo)}</b> ({escape(mask)}), {state}"
    return (
        f'<figure><a href="{drawn}"><img src="{drawn}" alt="" loading="lazy"></a>'
        f"<figcaption>{title}<br>{told}</figcaption></figure>"
    )


def _told(line: Line) -> str:
    """A class's line in words."""
    there = f"; in the photo with {_percent(line['presence'])} probability" if line["presence"] else ""
    if line["parts"] == "0":
        return f"{line['class']}: nothing{there}"
    parts = counted(int(line["parts"]), "part")
    expected = f", expect {_percent(line['expected_iou'])} IoU" if line["expected_iou"] else ""
    return f"{line['class']}: {_percent(line['share'], digits=1)} of the photo, {parts}{expected}{there}"


def _percent(share: str | float, *, digits: int = 0) -> str:
    return f"{100 * float(share):.{digits}f}\N{NO-BREAK SPACE}%"
