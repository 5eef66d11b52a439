"""Fixtures of all tests: few threads, kept memory, and the shared data where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from fewseg.engine.memory import keep_freed_memory

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile("same")
    torch.set_num_threads(1)
    # so do the processes that tests start: another number adds in another order, which changes the last bits
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()


@pytest.fixture(scope="session")
def voc_mini() -> Path:
    """The directory of real VOC photos, given by FEWSEG_VOC_MINI or lying beside the checkout."""
    root = Path(os.environ.get("FEWSEG_VOC_MINI", SHARED / "data" / "voc_mini"))
    if not (root / "VOC2012").is_dir():
        pytest.skip(f"needs the real photos of voc_mini, not found in {root} (set FEWSEG_VOC_MINI)")
    return root
