"""What several experiments' tests use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import SimpleNamespace
from typing import IO, Any

import pytest

from fewseg.experiments import at_once


class _Here:
    """In place of a process: its module's `main` is run in this one, at once, and what it ends with is in its log."""

    def __init__(self, command: list[str], *, stdout: IO[bytes], **_: Any) -> None:
        _, _, module, *words = command
        self.returncode = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module, *words])
            try:
                importlib.import_module(module).main()
            except SystemExit as stop:
                stdout.write(str(stop.code).encode())
                self.returncode = 1

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are run in this process: test_sweeps.py starts real ones, and each imports torch for seconds."""
    ends = {"STDOUT": subprocess.STDOUT, "DEVNULL": subprocess.DEVNULL}
    monkeypatch.setattr(at_once, "subprocess", SimpleNamespace(Popen=_Here, **ends))
