"""Tools from npm, for the tests of the page in the browser."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from fewseg.errors import FewsegError
from fewseg.web.ort_web import npm


def run_npm(words: list[str], folder: Path) -> str:
    """What npm prints; skips where there is no npm or nothing to be fetched."""
    try:
        done = npm(words, cwd=str(folder))
    except FewsegError as error:
        pytest.skip(f"needs npm: {error}")
    if done.returncode and "npm error" in done.stderr:
        pytest.skip(f"npm cannot fetch it: {done.stderr[:200]}")
    return done.stdout


def axe_script(folder: Path) -> str:
    """The script of axe-core, which finds what bars people from a page; fetched into a folder."""
    run_npm(["pack", "axe-core@4.11.0", "--silent", "--prefer-offline"], folder)
    with tarfile.open(folder / "axe-core-4.11.0.tgz") as packed:
        script = packed.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def barred(view: Any, width: int) -> list[Any]:
    """What axe, whose script the page has, finds on what is shown; nothing may be cut off at the side."""
    assert view.evaluate("() => document.documentElement.scrollWidth") <= width
    return view.evaluate("async () => (await axe.run()).violations.map((one) => [one.id, one.nodes[0].html])")
