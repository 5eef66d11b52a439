"""Work side by side comes back in order, takes few items ahead, and ends where one piece fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fewseg.runtime.lanes import side_by_side
from waiting import LONG


def test_two_lanes_work_at_once_and_keep_the_order() -> None:
    both = threading.Barrier(2, timeout=LONG)  # passed by two at once alone

    def work(number: int) -> int:
        both.wait()
        return -number

    assert list(side_by_side(work, range(8), lanes=2)) == [-n for n in range(8)]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_items_are_made_in_the_callers_thread_when_they_are_needed(lanes: int) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            assert threading.current_thread() is threading.main_thread()
            made.append(number)
            yield number

    done = side_by_side(lambda number: number, items(), lanes=lanes)
    assert [next(done) for _ in range(5)] == list(range(5))
    assert len(made) <= 5 + lanes
    done.close()


def test_what_a_lane_raises_ends_the_work() -> None:
    seen: list[int] = []

    def work(number: int) -> int:
        seen.append(number)
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(1000), lanes=2))
    assert max(seen) < 10
