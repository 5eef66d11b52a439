"""How OpenMP's threads, torch's on a CPU, wait for one another."""

from __future__ import annotations

import os


def let_threads_sleep() -> None:
    """Let threads that wait sleep, unless OMP_WAIT_POLICY says otherwise; before torch is loaded, which reads it once.

    For programs, not for libraries. By default they wait in a loop: where other programs want the cores too, one that
    has nothing to do then takes the time of the one that it waits for, at every layer.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
