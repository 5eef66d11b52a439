"""Waiting for what must happen, however busy the machine is, and a port that nobody else is given meanwhile."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable

LONG = 120
"""Seconds after which a test says that something never came: well above what a busy machine takes."""


def until(done: Callable[[], object], told: str = "it never came true") -> None:
    """Wait until it is so; AssertionError with what is `told` where it never is."""
    end = time.monotonic() + LONG
    while not done():
        assert time.monotonic() < end, told
        time.sleep(0.05)


def free_port() -> int:
    """One below those that systems give to whoever asks for any, which may be another test by the time it is used."""
    while True:
        number = random.SystemRandom().randrange(12_000, 32_000)
        try:
            with socket.create_server(("127.0.0.1", number)):
                return number
        except OSError:
            continue
