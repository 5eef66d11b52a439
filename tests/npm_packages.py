"""Tools from npm, for the tests of the page in the browser."""

from __future__ import annotations

from pathlib import Path

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
