"""Work in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator

import pytest
import torch

from fewseg.errors import DataError, FewsegError
from fewseg.runtime.beside import beside

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
    assert not multiprocessing.active_children()


def whereabouts() -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def refuse(reason: str) -> None:
    raise DataError(reason)


def end_at_once() -> None:
    os._exit(3)


def test_both_sides_have_half_of_the_threads() -> None:
    with beside(whereabouts) as result:
        assert torch.get_num_threads() == 2
        pid, threads = result()
    assert pid != os.getpid()
    assert threads == 2
    assert torch.get_num_threads() == 4


def test_one_thread_does_one_thing_after_the_other() -> None:
    torch.set_num_threads(1)
    with beside(whereabouts) as result:
        assert result() == (os.getpid(), 1)


def test_what_goes_wrong_in_it_is_raised_here() -> None:
    with pytest.raises(DataError, match="no such photo"), beside(refuse, "no such photo") as result:
        result()
    with pytest.raises(FewsegError, match="ended with code 3"), beside(end_at_once) as result:
        result()


def test_it_ends_with_a_block_that_fails() -> None:
    with pytest.raises(KeyError), beside(time.sleep, 600):
        raise KeyError
    assert torch.get_num_threads() == 4
