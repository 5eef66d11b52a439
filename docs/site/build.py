"""Build the site: `python docs/site/build.py build/site` (`make docs`). Links that lead nowhere are errors."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def build(out: Path, *, with_page: bool = True) -> int:
    """Build the site into a folder that is new or holds a site, which is replaced; returns Sphinx's exit code."""
    if out.exists() and not (out / "searchindex.js").is_file():
        raise SystemExit(f"{out} is there and holds no site; give another folder")
    from pages import write_pages  # with torch and all that it describes: a wrong folder is told before
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as name:
        pages = Path(name) / "pages"
        (pages / "extra").mkdir(parents=True)
        if with_page:
            with_page = _page_written(pages / "extra" / "try")
        shutil.copy(HERE / "conf.py", pages)
        shutil.copytree(HERE / "_static", pages / "_static")
        write_pages(pages, with_page=with_page)
        strict = ["-W", "--keep-going", "-n", "-q", "-E", "-j", "2"]
        code = build_main([*strict, "-d", str(Path(name) / "trees"), str(pages), str(Path(name) / "html")])
        if code == 0:
            shutil.rmtree(out, ignore_errors=True)  # only now: a build that fails leaves the former site
            shutil.copytree(Path(name) / "html", out)
    return code


def _page_written(folder: Path) -> bool:
    """Whether what `fewseg web` writes is there: its runtime is in no Python package, and may be out of reach."""
    from fewseg.errors import FewsegError
    from fewseg.web.site import write_page

    try:
        write_page(folder)
    except FewsegError as error:
        print(f"without the page to try in the browser: {error}")
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without-page", action="store_true", help="leave out the page to try in the browser")
    given = parser.parse_args()
    code = build(given.out, with_page=not given.without_page)
    if code == 0:
        print(f"site: {given.out / 'index.html'}")
    raise SystemExit(code)
